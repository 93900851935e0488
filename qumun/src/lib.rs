//! Write a Linux CPU scheduler in user space, safely and fast.
//!
//! Linux lets a scheduler be loaded at run time ([sched_ext], 6.12 and later). qumun's *core*, a BPF
//! program, is that scheduler; your *policy* is an ordinary Rust type that implements [`Scheduler`] and
//! tells the core what to do:
//!
//! ```text
//!   tasks wake up                                   tasks run
//!        |                                              ^
//!  ------|---------------------- kernel ----------------|-------
//!        v                                              |
//!   core: parks the task                      core: checks, moves
//!        |                                              ^
//!        | Event::Queued                       Decision |
//!  ------|--------------------- process ----------------|-------
//!        v                                              |
//!   Agent::turn:  receive -> Scheduler::enqueue -> dispatch -> publish
//! ```
//!
//! A parked task stays in a kernel queue. If the agent is late (30 ms), dies, or answers nonsense,
//! the core takes all tasks over and goes on by its own rule; that begins a new [`Epoch`], the agent
//! throws away what it held ([`Scheduler::reset`]) and gets the machine back a little later. So a policy
//! may be wrong, slow or gone, and no task is lost.
//!
//! A scheduler goes through three phases:
//!
//! 1. [`builder`]: name and limits;
//! 2. an [`Agent`]: a policy on a [`Backend`], that is a kernel (feature `kernel`) or the model of
//!    one in this process (feature `sim`, module `sim`), where it is tested;
//! 3. [`Agent::run`], until an [`Exit`].
//!
//! A whole policy, first come, first served, and its test in simulated time:
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! use qumun::{Context, Nanos, Queued, Scheduler, Verdict};
//!
//! struct Fifo;
//!
//! impl Scheduler for Fifo {
//!     type Task = ();
//!
//!     fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
//!         task.anywhere().vtime(task.enqueued_at.as_u64()).into()
//!     }
//! }
//!
//! // Three seconds of a machine with two CPUs and six tasks that compute: some milliseconds of ours.
//! let scenario: qumun::sim::Scenario = "
//!     machine cpus=2
//!     time 3s
//!     group hogs count=6
//!       run 1s
//! ".parse()?;
//! let sim = scenario.run(|| Fifo)?;
//! sim.check()?;
//! assert!(sim.tasks().iter().all(|task| task.ran > Nanos::from_millis(900)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On the running kernel it is `qumun::builder("fifo").run(Fifo)?`. Whether a policy keeps its promises (nobody waits for
//! ever, weights hold, no CPU is idle while tasks wait, and so on) is one line with the feature `testkit`:
//! `Suite::new("fifo", || Fifo).assert()`.
//!
//! | feature | what it brings |
//! | --- | --- |
//! | `kernel` (default) | the BPF core and its loader: [`Builder::run`] |
//! | `sim` | simulated time, without a kernel, privileges or a C library: module `sim` |
//! | `testkit` | conformance of policies, with the smallest failing history as a file: module `testkit` |
//! | `hwloc` | the machine's topology through libhwloc instead of sysfs |
//!
//! What a policy remembers about each task is its type [`Scheduler::Task`]; the framework keeps it
//! ([`Context::task`]). What it may not do is wait or allocate; [`alloc`] helps to find out, and
//! [`pool`] has memory, queues and heaps that it may use.
//!
//! The book's chapter *Writing a scheduler* goes from nothing to a scheduler that runs.
//!
//! [sched_ext]: https://docs.kernel.org/scheduler/sched-ext.html
#![deny(unsafe_code)]

mod agent;
// A global allocator cannot be written without.
#[allow(unsafe_code)]
pub mod alloc;
mod backend;
mod builder;
#[cfg(any(feature = "kernel", feature = "sim"))]
mod cgroups;
mod decision;
mod error;
mod event;
mod exit;
mod idle;
#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(any(feature = "kernel", feature = "sim"))]
mod own;
mod permit;
mod placement;
pub mod pool;
mod rules;
mod scheduler;
mod select;
#[cfg(feature = "sim")]
pub mod sim;
mod sync;
mod tasks;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod topology;
#[cfg(feature = "trace")]
pub mod trace;
mod units;

pub use agent::{Agent, Limits, Turn};
pub use backend::{Ask, Backend, Stats};
pub use builder::{Builder, Transport, builder};
pub use decision::{Decision, Full, Verdict};
pub use error::{Error, ErrorExt, ErrorKind, Result};
pub use event::{Affinity, Event, Events, Note, Queued};
pub use exit::{Exit, ExitInfo, ExitKind, StopHandle};
pub use idle::{IdleView, MAX_CPUS};
pub use permit::Permit;
#[doc(hidden)] // for who writes rules into a core
pub use rules::{Numbers, RawRule, RawRules};
pub use rules::{Rule, Rules, Whom};
pub use scheduler::{Context, Scheduler};
pub use select::{Pick, PickKind, Reach, Request, Selector};
pub use topology::cpuset::CpuSet;
pub use topology::{CpuInfo, Distance, Level, Topology};
pub use units::{Cpu, Epoch, Generation, Nanos, Pid, TaskId};
