//! What was seen between two looks: plain values.

use std::time::{Duration, SystemTime};

use gthulhu_monitor::{Blame, Counts};

use crate::cpus::Cpu;
use crate::place::Place;
use crate::scheduler::Scheduler;

/// Everything that happened in one interval.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it ended.
    pub(crate) at: SystemTime,
    pub(crate) host: String,
    pub(crate) kernel: String,
    pub(crate) cpus: Vec<Cpu>,
    /// How long the interval of the groups was.
    pub(crate) elapsed: Duration,
    pub(crate) groups: Vec<Group>,
    /// If they were asked for, and looked at for the second time.
    pub(crate) threads: Option<Threads>,
    /// Who ran while who waited.
    pub(crate) blames: Vec<Blame>,
    pub(crate) scheduler: Scheduler,
    /// Something that does not keep us from going on, such as a file of names that has a mistake in it now.
    pub(crate) warning: Option<String>,
    /// Runs that the monitor could not count, and rows of its that are in use, of how many.
    pub(crate) missed: u64,
    pub(crate) rows: (u32, u32),
}

/// A cgroup by itself.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// As in [`Blame`].
    pub(crate) id: u64,
    pub(crate) path: Option<String>,
    pub(crate) place: Place,
    /// What came in the interval.
    pub(crate) counts: Counts,
}

/// All threads of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    /// How long their interval was: its begin may be another than that of the groups.
    pub(crate) elapsed: Duration,
    pub(crate) threads: Vec<Thread>,
}

/// What a thread did in the interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) pid: i32,
    pub(crate) start_ns: u64,
    pub(crate) comm: String,
    /// Its cgroup.
    pub(crate) group: u64,
    pub(crate) cpu: u32,
    pub(crate) running: bool,
    pub(crate) run_ns: u64,
    /// Without throttling.
    pub(crate) run_delay_ns: u64,
    pub(crate) throttled_ns: u64,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    pub(crate) migrations: u64,
}
