//! The options.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// What to watch and how to show it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one table after one interval, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: one JSON object
    #[arg(long, requires = "once")]
    pub(crate) json: bool,
    /// Seconds between two looks (0.2 to 60)
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// What a row is
    #[arg(long, value_enum, default_value = "groups")]
    pub(crate) by: By,
    /// What comes first
    #[arg(long, value_enum, default_value = "delay")]
    pub(crate) sort: Sort,
    /// Only rows with this in their name or cgroup
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// What the pods are called: a YAML or JSON file, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) names: Option<PathBuf>,
    /// Which tree of cgroups says what belongs together
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) hierarchy: Hierarchy,
    /// Where that tree is mounted, if not where /proc/self/mountinfo says
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = "/run/gthulhu/daemon.sock")]
    pub(crate) socket: PathBuf,
    /// Draw with ASCII only. Else that depends on LC_ALL, LC_CTYPE and LANG; NO_COLOR switches colours off
    #[arg(long)]
    pub(crate) ascii: bool,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum By {
    /// A pod, a container without one, a service or another unit, or a cgroup that is none of these
    Groups,
    /// A slice, with all that is in it
    Slices,
    /// A cgroup by itself: of a pod each container
    Cgroups,
    /// A thread
    Threads,
}

impl By {
    pub(crate) const ALL: [Self; 4] = [Self::Groups, Self::Slices, Self::Cgroups, Self::Threads];

    pub(crate) fn name(self) -> &'static str {
        ["groups", "slices", "cgroups", "threads"][self as usize]
    }
}

/// What comes first. Most of it, that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Sort {
    /// The 99th percentile of run delay; for threads its mean
    Delay,
    /// CPU time
    Cpu,
    /// Run delay, all together
    Wait,
    /// Switches
    Switches,
    /// Migrations
    Migrations,
}

impl Sort {
    pub(crate) const ALL: [Self; 5] = [Self::Delay, Self::Cpu, Self::Wait, Self::Switches, Self::Migrations];

    pub(crate) fn name(self) -> &'static str {
        ["delay", "cpu", "wait", "switches", "migrations"][self as usize]
    }
}

/// Which tree of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hierarchy {
    /// That of version 2 where it holds anything, else the cpu tree of version 1
    Auto,
    /// Version 2
    V2,
    /// The tree of version 1 that has the controller cpu: for hybrid systems whose pods are there
    V1Cpu,
}

impl From<Hierarchy> for gthulhu_monitor::Hierarchy {
    fn from(hierarchy: Hierarchy) -> Self {
        match hierarchy {
            Hierarchy::Auto => Self::Auto,
            Hierarchy::V2 => Self::V2,
            Hierarchy::V1Cpu => Self::V1Cpu,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no number of seconds from 0.2 to 60");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.2..=60.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.1", "61", "-1", "nan", "inf", "1s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for by in By::ALL {
            assert_eq!(by.to_possible_value().unwrap().get_name(), by.name());
        }
        for sort in Sort::ALL {
            assert_eq!(sort.to_possible_value().unwrap().get_name(), sort.name());
        }
    }
}
