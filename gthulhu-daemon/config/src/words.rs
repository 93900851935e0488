//! Words that the configuration has a type for.

use std::fmt;

/// Who schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel alone.
    None,
    /// Ours, with this plugin: `gthulhu`, `simple`, `simple-fifo`, or one that the daemon was built with.
    Plugin(String),
    /// Another scheduler's program.
    Scx,
}

impl Mode {
    /// The mode of this name. No plugin can be called `none` or `scx`.
    pub fn named(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "scx" => Self::Scx,
            plugin => Self::Plugin(plugin.to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Scx => "scx",
            Self::Plugin(name) => name,
        })
    }
}

/// How events and decisions travel between core and agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Two arrays that kernel and agent share.
    Shared,
    /// The kernel's ring buffers.
    Rings,
}

impl Transport {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Rings => "rings",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Shared, Self::Rings].into_iter().find(|t| t.name() == name)
    }
}
