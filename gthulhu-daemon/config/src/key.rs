//! A row of the table: one key and all that is to be known about it.

use crate::kind::Kind;
use crate::value::Value;
use crate::{Config, Mode};

/// One key of the configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Key {
    /// Its name in the file, such as `scheduler.mode`.
    pub path: &'static str,
    pub(crate) doc: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What a change of it costs; see [`Key::effect_of`].
    pub effect: Effect,
    /// Its flag on the command line, besides `--set PATH=VALUE`.
    pub flag: Option<Flag>,
    /// Its field in the runtime configuration, if it can be changed that way.
    pub runtime: Option<&'static str>,
    pub(crate) get: fn(&Config) -> Value,
    pub(crate) set: fn(&mut Config, &Value) -> bool,
}

/// A flag of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// How many of the key's units are one of the flag's: `--slice-us` is in microseconds, its key in nanoseconds.
    pub scale: u64,
    /// Its unit where that is another than the key's; else empty.
    pub unit: &'static str,
}

/// What a change of a key costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing: the scheduler stays attached.
    Live,
    /// The scheduler is detached and attached again; in between the kernel's own schedules.
    Reattach,
    /// It is read at the daemon's start only.
    Restart,
}

impl Effect {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Reattach => "re-attaches",
            Self::Restart => "restart",
        }
    }
}

impl Key {
    /// What it means, in one line.
    pub fn doc(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The environment variable that sets it. An inline key has none: the environment of a process is inherited and
    /// shown.
    pub fn env(&self) -> Option<String> {
        match (self.path, &self.kind) {
            // Kubernetes' usual name, and the original's.
            ("monitor.node_name", _) => Some("NODE_NAME".into()),
            (_, Kind::Secret) => None,
            (path, _) => Some(format!("GTHULHU_{}", path.replace('.', "_").to_ascii_uppercase())),
        }
    }

    /// Its default.
    pub fn default(&self) -> Value {
        (self.get)(&Config::default())
    }

    /// Its value.
    pub fn get(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// What this change of it costs. From one plugin to another the scheduler stays attached; to or from `none` and
    /// `scx` it cannot.
    pub fn effect_of(&self, from: &Value, to: &Value) -> Effect {
        let plugin = |value: &Value| matches!(value, Value::Text(name) if matches!(Mode::named(name), Mode::Plugin(_)));
        match self.kind {
            Kind::Mode if plugin(from) && plugin(to) => Effect::Live,
            Kind::Mode => Effect::Reattach,
            _ => self.effect,
        }
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The parts before the last, without the dot; empty at the top.
    pub(crate) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }
}
