//! The policies that a daemon can run, by name.

use std::fmt;

use qumun::kernel::Link;
use qumun::{Builder, Events, Exit, Scheduler};

use crate::strategies::AgentEnd;
use crate::{Error, ExitCode, PluginOptions, Result};

/// Names are shown in sysfs behind `gthulhu_`, where 127 bytes fit.
const NAME_MAX: usize = 64;

/// Makes the policy and runs it to the end. Called once in an agent's life; inside, the loop is
/// compiled for this policy: no dynamic call per event.
type Run = Box<dyn Fn(&Builder, Link, &PluginOptions, AgentEnd) -> Result<Exit>>;
/// Makes the policy and throws it away: the supervisor's way to find wrong options before it loads.
type Check = Box<dyn Fn(&PluginOptions) -> Result<()>>;

/// One policy.
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Name and meaning of each option that it takes.
    pub(crate) options: Vec<(String, String)>,
    /// The Rust type: it tells two plugins of one name apart.
    type_name: &'static str,
    /// What it wants to hear of: the core is loaded with it or without.
    pub(crate) events: Events,
    run: Run,
    check: Check,
}

impl Plugin {
    /// A policy that `make` makes. An error of `make` is one of usage: an option has a wrong value.
    pub(crate) fn new<S: Scheduler>(
        name: impl Into<String>,
        make: impl Fn(&PluginOptions) -> Result<S, String> + Clone + 'static,
    ) -> Self {
        let name = name.into();
        let refused = name.clone();
        let make = move |options: &PluginOptions| {
            make(options).map_err(|e| Error::new(ExitCode::Usage, format!("plugin '{refused}': {e}")))
        };
        let check = make.clone();
        Self {
            name,
            about: String::new(),
            options: Vec::new(),
            type_name: std::any::type_name::<S>(),
            events: S::EVENTS,
            run: Box::new(move |builder, link, options, strategies| {
                let policy = make(options)?;
                options.readers().serve(strategies)?;
                Ok(builder.try_agent(link, policy)?.run())
            }),
            check: Box::new(move |options| check(options).map(drop)),
        }
    }

    /// Runs the policy until the scheduler is gone.
    pub(crate) fn run(
        &self,
        builder: &Builder,
        link: Link,
        options: &PluginOptions,
        strategies: AgentEnd,
    ) -> Result<Exit> {
        (self.run)(builder, link, options, strategies)
    }

    /// Finds options that the policy does not take, or values that it cannot use.
    pub(crate) fn check(&self, options: &PluginOptions) -> Result<()> {
        for name in options.names() {
            if !self.options.iter().any(|(known, _)| known == name) {
                let known: Vec<&str> = self.options.iter().map(|(known, _)| known.as_str()).collect();
                let known = if known.is_empty() {
                    "it takes none".to_owned()
                } else {
                    format!("known are: {}", known.join(", "))
                };
                let what = format!("plugin '{}' has no option '{name}'; {known}", self.name);
                return Err(Error::new(ExitCode::Usage, what));
            }
        }
        (self.check)(options)
    }

    /// Name of the scheduler in sysfs. The kernel allows letters, digits, `_` and `.` only.
    pub(crate) fn ops_name(&self) -> String {
        if self.name == "gthulhu" {
            "gthulhu".into()
        } else {
            format!("gthulhu_{}", self.name.replace('-', "_"))
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("type", &self.type_name).finish()
    }
}

/// All policies of a daemon, in the order in which they were registered. The first is the default.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) plugins: Vec<Plugin>,
}

impl Registry {
    /// Refuses what would make a name ambiguous or impossible. The mistake is in the program that
    /// registers, so it is found at each of its starts, whatever it was asked.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ExitCode::Usage, what));
        if self.plugins.is_empty() {
            return wrong("no plugin is registered: call plugin() or builtin() on the builder".into());
        }
        for (i, plugin) in self.plugins.iter().enumerate() {
            let name = &plugin.name;
            if name.is_empty() {
                return wrong(format!("the plugin of type {} has an empty name", plugin.type_name));
            }
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if name.len() > NAME_MAX || !name.bytes().all(allowed) {
                return wrong(format!(
                    "'{name}' (type {}) is no name for a plugin: 1 to {NAME_MAX} letters, digits, '-', '_' or '.'",
                    plugin.type_name
                ));
            }
            if matches!(name.as_str(), "none" | "scx") {
                return wrong(format!(
                    "'{name}' (type {}) is no name for a plugin: it is a mode of the daemon (scheduler.mode); rename it",
                    plugin.type_name
                ));
            }
            if let Some(first) = self.plugins[..i].iter().find(|p| p.name == *name) {
                return wrong(format!(
                    "two plugins are registered as '{name}': {} ({}) and {} ({}); rename one",
                    first.type_name,
                    about(first),
                    plugin.type_name,
                    about(plugin)
                ));
            }
        }
        Ok(())
    }

    /// The policy of this name, or the default.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&Plugin> {
        let Some(name) = name else {
            return self
                .plugins
                .first()
                .ok_or_else(|| Error::new(ExitCode::Usage, "no plugin is registered"));
        };
        self.plugins.iter().find(|p| p.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.plugins.iter().map(|p| p.name.as_str()).collect();
            let what = if name.is_empty() {
                "an empty name is no plugin".to_owned()
            } else {
                format!("unknown plugin '{name}'")
            };
            Error::new(ExitCode::Usage, format!("{what}; known are: {}", known.join(", ")))
        })
    }

    /// One line for each policy and each of its options, for people.
    pub(crate) fn list(&self) -> String {
        let width = self.plugins.iter().map(|p| p.name.len()).max().unwrap_or(0).max(12);
        let mut text = String::new();
        for (i, plugin) in self.plugins.iter().enumerate() {
            let default = if i == 0 { " (default)" } else { "" };
            text.push_str(&format!("  {:<width$} {}{default}\n", plugin.name, about(plugin)));
            for (name, meaning) in &plugin.options {
                text.push_str(&format!("  {:<width$}   --option {name}=…  {meaning}\n", ""));
            }
        }
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let plugins = self.plugins.iter().enumerate().map(|(i, p)| {
            let options: serde_json::Map<String, serde_json::Value> =
                p.options.iter().map(|(name, meaning)| (name.clone(), meaning.clone().into())).collect();
            serde_json::json!({
                "name": p.name, "about": p.about, "ops": p.ops_name(), "default": i == 0, "options": options,
            })
        });
        serde_json::json!({ "plugins": plugins.collect::<Vec<_>>() })
    }
}

fn about(plugin: &Plugin) -> &str {
    if plugin.about.is_empty() { "no description" } else { &plugin.about }
}

#[cfg(test)]
mod tests {
    use gthulhu_plugin_gthulhu::Gthulhu;
    use gthulhu_plugin_simple::Simple;

    use super::*;

    fn registry(names: &[&str]) -> Registry {
        let plugin = |(i, name): (usize, &&str)| {
            if i % 2 == 0 {
                Plugin::new(*name, |_| Ok(Gthulhu::default()))
            } else {
                Plugin::new(*name, |_| Ok(Simple::default()))
            }
        };
        Registry { plugins: names.iter().enumerate().map(plugin).collect() }
    }

    #[test]
    fn names_that_cannot_work_are_refused_with_the_types_that_have_them() {
        assert!(registry(&["a", "b.c_d-9"]).check().is_ok());
        let long = "x".repeat(65);
        let cases: [(&[&str], &[&str]); 7] = [
            (&[], &["no plugin"]),
            (&["a", ""], &["empty", "Simple"]),
            (&["a b"], &["'a b'", "Gthulhu"]),
            (&[&long], &["1 to 64"]),
            (&["none"], &["'none'", "mode of the daemon"]),
            (&["a", "scx"], &["'scx'", "Simple"]),
            (&["same", "same"], &["'same'", "Gthulhu", "Simple", "rename"]),
        ];
        for (names, words) in cases {
            let error = registry(names).check().expect_err("refused");
            assert_eq!(error.code(), ExitCode::Usage);
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?}: {error}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let registry = registry(&["one", "two"]);
        assert_eq!(registry.find(Some("two")).expect("known").name, "two");
        assert_eq!(registry.find(None).expect("default").name, "one");
        for wrong in ["", "one ", "cfs"] {
            let error = registry.find(Some(wrong)).expect_err("not a plugin");
            assert_eq!(error.code(), ExitCode::Usage);
            assert!(["one", "two"].iter().all(|name| error.to_string().contains(name)), "{error}");
        }
    }

    #[test]
    fn names_in_sysfs_begin_with_ours_and_are_allowed() {
        for plugin in registry(&["gthulhu", "b.c_d-9"]).plugins {
            let name = plugin.ops_name();
            assert!(name.starts_with("gthulhu"));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')));
        }
    }

    #[test]
    fn options_are_checked_by_name_and_by_value() {
        let mut plugin = Plugin::new("p", |o: &PluginOptions| {
            o.flag("fifo")?;
            Ok(Simple::default())
        });
        plugin.options.push(("fifo".into(), "first come, first served".into()));
        let check = |pairs: &[&str]| {
            let options = pairs.iter().try_fold(PluginOptions::default(), |o, p| o.with(p)).expect("pairs");
            plugin.check(&options).map_err(|e| e.to_string())
        };
        assert_eq!(check(&["fifo=true"]), Ok(()));
        assert!(check(&["lifo=true"]).expect_err("unknown").contains("known are: fifo"));
        let error = check(&["fifo=maybe"]).expect_err("no boolean");
        assert!(error.contains("'p'") && error.contains("maybe"), "{error}");
    }
}
