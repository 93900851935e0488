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
//! A whole policy: first come, first served.
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! use qumun::sim::{Machine, Spec};
//! use qumun::{Context, Nanos, Queued, Scheduler, Verdict};
//!
//! struct Fifo;
//!
//! impl Scheduler for Fifo {
//!     type Task = ();
//!
//!     fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
//!         task.anywhere().slice(Nanos::from_millis(3)).into()
//!     }
//! }
//!
//! let machine = Machine::new(2);
//! let mut agent = qumun::builder("fifo").agent(machine.backend(), Fifo);
//! let tasks = [(); 3].map(|()| machine.spawn(Spec::default()));
//! for task in tasks {
//!     machine.wake(task);
//! }
//! machine.run(Nanos::from_millis(1_000), || agent.turn());
//!
//! assert!(tasks.iter().all(|&task| machine.run_time(task) > Nanos::from_millis(600)));
//! assert_eq!(machine.check(), Ok(()));
//! ```
//!
//! What a policy remembers about each task is its type [`Scheduler::Task`]; the framework keeps it
//! ([`Context::task`]). What it may not do is wait or allocate; [`alloc`] helps to find out, and
//! [`pool`] has memory, queues and heaps that it may use.
//!
//! [sched_ext]: https://docs.kernel.org/scheduler/sched-ext.html
#![deny(unsafe_code)]

mod agent;
// A global allocator cannot be written without.
#[allow(unsafe_code)]
pub mod alloc;
mod backend;
mod builder;
mod decision;
mod error;
mod event;
mod exit;
mod idle;
#[cfg(feature = "kernel")]
pub mod kernel;
mod placement;
pub mod pool;
mod scheduler;
mod select;
#[cfg(feature = "sim")]
pub mod sim;
mod sync;
mod tasks;
pub mod topology;
#[cfg(feature = "trace")]
pub mod trace;
mod units;

pub use agent::{Agent, Limits, Turn};
pub use backend::{Ask, Backend, Stats};
pub use builder::{Builder, builder};
pub use decision::{Decision, Full, Verdict};
pub use error::{Error, ErrorExt, ErrorKind, Result};
pub use event::{Affinity, Event, Events, Note, Queued};
pub use exit::{Exit, ExitInfo, ExitKind, StopHandle};
pub use idle::{IdleView, MAX_CPUS};
pub use scheduler::{Context, Scheduler};
pub use select::{Pick, PickKind, Reach, Request, Selector};
pub use topology::cpuset::CpuSet;
pub use topology::{CpuInfo, Distance, Level, Topology};
pub use units::{Cpu, Epoch, Generation, Nanos, Pid, TaskId};
