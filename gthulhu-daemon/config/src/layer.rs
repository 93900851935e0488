//! What one source said, and the table by which the sources become one configuration.

use std::collections::BTreeMap;

use crate::config::keys;
use crate::value::Value;
use crate::{Config, Flag, Key, Problem, Source};

/// What a source said about some keys, by their place in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Layer(pub(crate) BTreeMap<usize, (Value, Source)>);

/// What the names and bounds depend on besides the table: the plugins of this daemon, the first of which is the
/// default.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) plugins: Vec<String>,
}

impl Context {
    /// The configuration when nobody says anything.
    pub(crate) fn defaults(&self) -> Config {
        let mut config = Config::default();
        config.scheduler.mode = crate::Mode::named(self.default_plugin());
        config
    }

    fn default_plugin(&self) -> &str {
        self.plugins.first().map_or("gthulhu", String::as_str)
    }

    /// The value as it will be held, or what is wrong with it and what is allowed, in the unit of `flag` if one
    /// said it.
    pub(crate) fn accept(
        &self,
        key: &Key,
        value: Result<Value, String>,
        flag: Option<Flag>,
    ) -> Result<Value, String> {
        let allowed =
            |wrong: String| format!("{wrong}; allowed: {}", key.kind.allowed_in(&self.plugins, flag));
        let mut value = value.map_err(allowed)?;
        // An empty mode is the default plugin, in the original's daemon too.
        if matches!(key.kind, crate::Kind::Mode) && value == Value::Text(String::new()) {
            value = Value::Text(self.default_plugin().to_owned());
        }
        let checked = key.kind.check(&value, &self.plugins);
        checked.map_err(|wrong| match &value {
            Value::Number(n) => allowed(format!("{} is out of range", n / flag.map_or(1, |flag| flag.scale))),
            _ => allowed(wrong),
        })?;
        // As it is held: `:18080` is `0.0.0.0:18080`.
        let mut probe = self.defaults();
        if (key.set)(&mut probe, &value) {
            Ok((key.get)(&probe))
        } else {
            Err(allowed("cannot be held".into()))
        }
    }
}

/// The sources, the strongest last: file, runtime, environment, flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    pub(crate) file: Layer,
    pub(crate) runtime: Layer,
    pub(crate) env: Layer,
    pub(crate) flags: Layer,
}

impl Layers {
    /// From the weakest to the strongest. This order is the precedence, and stands nowhere else.
    pub(crate) fn ascending(&self) -> [&Layer; 4] {
        [&self.file, &self.runtime, &self.env, &self.flags]
    }

    /// Who said something about this key, the strongest first.
    pub(crate) fn said(&self, key: usize) -> impl Iterator<Item = &(Value, Source)> {
        self.ascending().into_iter().rev().filter_map(move |layer| layer.0.get(&key))
    }

    /// The configuration that they make.
    pub(crate) fn resolve(&self, context: &Context) -> Config {
        let mut config = context.defaults();
        for layer in self.ascending() {
            for (key, (value, _)) in &layer.0 {
                // Accepted values can be held: `Context::accept` has tried.
                let _held = (keys()[*key].set)(&mut config, value);
            }
        }
        config
    }

    /// A problem with a key's value, where that value was said.
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let source = find(path).and_then(|key| self.said(key).next()).map(|(_, source)| source);
        let message = message.into();
        match source {
            Some(Source::File(place)) => Problem { place: Some(place.clone()), field: path.into(), message },
            Some(Source::Flag(name) | Source::Env(name)) => {
                Problem { place: None, field: name.clone(), message }
            }
            Some(Source::Runtime) => Problem { place: None, field: format!("{path} (runtime)"), message },
            Some(Source::Default) | None => Problem { place: None, field: path.into(), message },
        }
    }
}

/// The place in the table of the key with this path.
pub(crate) fn find(path: &str) -> Option<usize> {
    keys().iter().position(|key| key.path == path)
}
