//! What the kernel's scheduling does to each cgroup: run time, run delay, switches, migrations, and who waits for whom.
//!
//! The monitor is an object of its own on the scheduler's tracepoints. It works under any scheduler, with or without
//! sched_ext, on kernels from 5.18 that have type information (BTF). It needs root, or CAP_BPF, CAP_PERFMON and, for the
//! names of cgroups, CAP_DAC_READ_SEARCH.
//!
//! ```no_run
//! let mut monitor = gthulhu_monitor::Monitor::start(&gthulhu_monitor::Options::default())?;
//! std::thread::sleep(std::time::Duration::from_secs(1));
//! for group in monitor.snapshot()?.groups {
//!     let counts = &group.counts;
//!     println!("{:?}: ran {} ns, waited {} ns", group.path, counts.run_ns, counts.run_delay_ns());
//! }
//! # Ok::<(), gthulhu_monitor::Error>(())
//! ```
//!
//! # What is counted, and when
//! The kernel keeps for each thread how long it ran and how long it was runnable without running, and only ever adds to
//! that. When a thread leaves a CPU the difference to the last time goes to the row of its cgroup: one look into the
//! task's storage, no clock, nothing at wakeups. So every thread counts, short-lived ones too, and an event that is not
//! seen costs no time: the next one has it. A run counts for the group in which it ended.
//!
//! Kernels without sched_info (no distribution's) are watched at wakeups too: each notes when the thread began to wait, by
//! the clock of its run queue, and each switch when the next one was given the CPU. In counted instructions of a pipe's
//! round trip on Linux 7.3.4, one CPU: 4.1 % for the monitor, 7.0 % in that way.
//!
//! # Waiting and throttling
//! `run_delay` of the kernel (schedstat) has no sleep in it, but it has the time in which cpu.max kept a group from
//! running. Here the two are apart: each run queue of a group has a total of the time that it was throttled, and what a
//! wait has in common with that is [`Counts::throttled_ns`]. That is exact for a task that was preempted in between. No
//! event tells when a throttling ended, so for a task that was woken meanwhile it is taken to have ended with the first
//! run of the group on that CPU. And for a task that moved to another CPU in between, that of the new CPU is looked at.
//! The kernels before 6.6 keep that total in time scaled by the CPU's speed, which makes it an estimate there.
#![warn(missing_docs)]

mod cgroups;
mod error;
mod layout;
mod load;
mod memory;
pub mod metrics;
mod monitor;
mod topology;
mod values;

pub use cgroups::Hierarchy;
pub use error::{Error, ErrorKind, Result};
pub use layout::BUCKETS;
pub use monitor::{Monitor, Options, WaitSource};
pub use values::{Blame, Counts, Group, Histogram, Migrations, Own, ProgramCost, Snapshot, Thread, Which};
