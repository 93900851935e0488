//! Which pod, container or service a Linux thread belongs to, and who is meant by a label or a command.
//!
//! The kernel speaks of threads and cgroups, users speak of pods and commands. This crate stands between: it is
//! used on each node by the monitor, which counts per cgroup and must say whose, and by the decision maker,
//! which is told of pods and must find their threads.
//!
//! # From a thread to a name
//!
//! ```text
//! thread ── process ── cgroup ── path ──> Workload: pod UID, class, container id, runtime; or unit of systemd
//!    ThreadId             CgroupId                     │
//!    (pid, start time)    (what BPF sees)              └── Names ──> namespace/name, labels, container's name
//! ```
//!
//! - [`Workload`] reads the path of a cgroup: containerd, CRI-O, docker, podman; the kubelet's systemd and cgroupfs
//!   drivers; kind and other nesting. It is a pure function. [`Membership`] reads `/proc/PID/cgroup`, which
//!   on v1 and hybrid systems has many paths.
//! - [`Proc`] and [`Tree`] read the machine: processes and threads, the tree of cgroup v2.
//! - [`Discovery`] keeps an [`Index`] of all that up to date and tells what changes as [`Event`]s: by looking at
//!   everything now and then, by inotify on the tree, and by fork, exec and exit events that somebody feeds in.
//! - [`Names`] knows what pods are called: [`FileNames`] from a file; with the feature `kubernetes`,
//!   `Cluster` from the Kubernetes API.
//! - [`Pattern`] matches commands, [`Selector`] labels, and [`Selection`] is both: a `PodSchedulingMetrics`.
//!
//! # Which threads does this wish mean?
//!
//! ```no_run
//! use gthulhu_discovery::*;
//!
//! # fn main() -> Result<()> {
//! let mut discovery = Discovery::new(Options::default())?;
//! discovery.rescan()?;
//! let names = FileNames::open("/etc/gthulhu/pods.yaml")?;
//! let spec = PodSchedulingMetricsSpec {
//!     label_selectors: vec![KeyValue { key: "app".into(), value: "cart".into() }],
//!     command_regex: "^java$".into(),
//!     ..PodSchedulingMetricsSpec::default()
//! };
//! let wish = Selection::new("shop", "cart", &spec)?;
//! for pod in discovery.index().pods() {
//!     let Some(info) = names.pod(&pod.uid) else { continue };
//!     for process in discovery.index().processes_of(pod).filter(|process| wish.matches(&info, process)) {
//!         let threads: Vec<_> = process.threads().iter().map(|thread| thread.id).collect();
//!         println!("{info}: {threads:?}");
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What it costs
//!
//! With 10,000 processes in 500 cgroups on two cores of a virtual machine, the first look takes 0.4 to 0.6 s,
//! and each later one 40 to 50 ms on a system with v2 only, 170 to 280 ms where `/proc/PID/cgroup` of every
//! process must be read (v1, hybrid). The process that knows all that has 21 MB. Measured by
//! `examples/rescan.rs`, a release build, while other work ran. Nothing here starts a thread, but `Cluster`,
//! which has one.
//!
//! # What it cannot see
//!
//! - With the cgroupfs driver, paths do not say which runtime it is: [`Runtime::Unknown`].
//! - Of pods within pods the outermost is told.
//! - Reading the command line of a process waits for that process' memory map, as `ps` does.
//! - On v1 and hybrid systems the threads of a process count as being where the process is.

#![forbid(unsafe_code)]

mod discovery;
mod error;
mod index;
mod membership;
mod names;
mod pattern;
mod proc;
mod selection;
mod selector;
mod tree;
mod watch;
mod workload;

pub use discovery::{Discovery, Event, Forked, Limits, Options, Source};
pub use error::{Error, ErrorKind, Result};
pub use index::{Index, Pod, Process, Thread};
pub use membership::Membership;
#[cfg(feature = "kubernetes")]
pub use names::{Cluster, ClusterNames, ClusterOptions, Selections, WatchState};
pub use names::{FileNames, Names, NoNames, PodInfo};
pub use pattern::{Field, Pattern};
pub use proc::{Command, Entry, MAX_CMDLINE, Proc, Stat};
pub use selection::{KeyValue, PodSchedulingMetricsSpec, Selection, Switches};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use tree::{Cgroup, Tree};
pub use workload::{
    Container, ContainerId, PodUid, Qos, Runtime, Unit, UnitKind, Workload, unescape_cgroup, unescape_unit,
};
