//! A daemon of one's own: this one with other policies.

use qumun::Scheduler;

use crate::registry::{Plugin, Registry};
use crate::{PluginOptions, cli};

/// Begins a daemon with no plugins. See the [front page](crate).
pub fn builder() -> Builder {
    Builder { registry: Registry::default() }
}

/// Collects the plugins of a daemon. The first one is the default of `run`.
#[derive(Debug)]
#[must_use = "a daemon does nothing until main() is called"]
pub struct Builder {
    pub(crate) registry: Registry,
}

impl Builder {
    /// Adds the plugins of the daemon itself: `gthulhu`, `simple` and `simple-fifo`.
    pub fn builtin(self) -> Self {
        use gthulhu_plugin_gthulhu::Gthulhu;
        use gthulhu_plugin_simple::{Mode, Simple};
        use gthulhu_plugin_simple_fifo::SimpleFifo;
        self.plugin_with("gthulhu", |options| {
            Gthulhu::new(options.slice(), options.slice_min())
                .permit(options.permit())
                .strategies(options.strategies())
        })
        .about("virtual deadlines: weights respected, tasks that sleep much come first")
        .try_plugin_with("simple", |options| {
            let mode = if options.flag("fifo")? { Mode::Fifo } else { Mode::Weighted };
            Ok(Simple::new(options.slice()).mode(mode).permit(options.permit()))
        })
        .about("weighted virtual time: weights respected, no favourites")
        .option("fifo", "true: first come, first served, weights ignored")
        .plugin_with("simple-fifo", |options| SimpleFifo::new(options.slice()).permit(options.permit()))
        .about("first come, first served")
    }

    /// Adds a policy that is made by its `Default`. Its name is what `run --plugin` takes: 1 to 64
    /// letters, digits, `-`, `_` or `.`.
    pub fn plugin<S: Scheduler + Default>(self, name: impl Into<String>) -> Self {
        self.plugin_with(name, |_| S::default())
    }

    /// Adds a policy that is made from options of the command line.
    ///
    /// The policy is made in the agent's process, before its memory is locked, and once more in the
    /// supervisor, where it is thrown away.
    pub fn plugin_with<S: Scheduler>(
        self,
        name: impl Into<String>,
        make: impl Fn(&PluginOptions) -> S + Clone + 'static,
    ) -> Self {
        self.try_plugin_with(name, move |options| Ok(make(options)))
    }

    /// Adds a policy that is made from options of the command line, which may make no sense: then
    /// `run` says so and ends with the exit code of wrong usage.
    pub fn try_plugin_with<S: Scheduler>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&PluginOptions) -> Result<S, String> + Clone + 'static,
    ) -> Self {
        self.registry.plugins.push(Plugin::new(name, make));
        self
    }

    /// Describes the plugin added last, in one line.
    pub fn about(mut self, text: impl Into<String>) -> Self {
        if let Some(plugin) = self.registry.plugins.last_mut() {
            plugin.about = text.into();
        }
        self
    }

    /// Tells that the plugin added last takes `--option NAME=VALUE`. Options that no plugin was said to
    /// take are refused.
    pub fn option(mut self, name: impl Into<String>, meaning: impl Into<String>) -> Self {
        if let Some(plugin) = self.registry.plugins.last_mut() {
            plugin.options.push((name.into(), meaning.into()));
        }
        self
    }

    /// Runs the command line of this process, and returns its exit code.
    ///
    /// Nothing may have been opened or started before: `run` starts this program again as the agent,
    /// which expects its descriptors right behind the standard ones.
    #[must_use = "this is the exit code of the process"]
    pub fn main(self) -> std::process::ExitCode {
        cli::main(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_plugins_are_described_and_can_be_made() {
        let daemon = builder().builtin();
        daemon.registry.check().expect("a good registry");
        for plugin in &daemon.registry.plugins {
            assert!(!plugin.about.is_empty(), "{plugin:?}");
            plugin.check(&PluginOptions::default()).expect("made from the defaults");
        }
        let names: Vec<_> = daemon.registry.plugins.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["gthulhu", "simple", "simple-fifo"]);
        assert!(daemon.registry.list().contains("gthulhu      virtual deadlines"));
        assert_eq!(daemon.registry.json()["plugins"][1]["options"]["fifo"].as_str().map(str::len), Some(47));
    }
}
