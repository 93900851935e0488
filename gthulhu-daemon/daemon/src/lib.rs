//! The node daemon, as a library: the same daemon with policies of one's own.
//!
//! ```no_run
//! use qumun::{Context, Queued, Scheduler, Verdict};
//!
//! #[derive(Default)]
//! struct Mine;
//!
//! impl Scheduler for Mine {
//!     type Task = ();
//!
//!     fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
//!         task.anywhere().into()
//!     }
//! }
//!
//! // Counts what the agent's thread allocates; `status` shows it.
//! #[global_allocator]
//! static ALLOCATOR: qumun::alloc::CountingAllocator = qumun::alloc::CountingAllocator;
//!
//! fn main() -> std::process::ExitCode {
//!     gthulhu_daemon::builder().plugin::<Mine>("mine").about("first come, first served").main()
//! }
//! ```
//!
//! That program has all of the daemon: `run --plugin mine`, `status`, `plugins`, `doctor`. A whole crate
//! is in `examples/out-of-tree`.
//!
//! Two processes from the start:
//!
//! ```text
//!   supervisor ── loads the core, holds its link, answers `status`, restarts the agent
//!       │  inherited descriptors, no link among them
//!       ▼
//!   agent ─────── the same program again; one thread with locked memory: drain, decide, publish, yield
//! ```
//!
//! The agent's death is a non-event: the core goes on by its own rule, the supervisor starts another.
//! An agent that lives and makes no progress is ended. The supervisor's death closes the link, and the
//! kernel's own scheduler is back at once.

mod access;
mod agent;
mod clerk;
mod cli;
mod comeback;
mod compaction;
mod configure;
mod control;
mod daemon;
mod desk;
mod doctor;
mod error;
mod events;
mod handover;
mod http;
mod keeper;
mod limits;
mod listener;
mod log;
mod metrics;
mod names;
mod notify;
mod observe;
mod options;
mod process;
mod progress;
mod record;
mod registry;
mod remote;
mod runtime;
mod scheduled;
mod settings;
mod signals;
mod standby;
mod status;
mod strategies;
mod supervisor;
mod telling;
mod tls;
mod upstream;
mod watcher;
mod words;

pub use daemon::{Builder, builder};
pub use error::{Error, ExitCode, Result};
pub use options::PluginOptions;
