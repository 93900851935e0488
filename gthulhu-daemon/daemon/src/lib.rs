//! The node daemon, as a library.
//!
//! Two processes from the start:
//!
//! ```text
//!   supervisor ── loads the core, holds its link, answers `status`, restarts the agent
//!       │  seven inherited descriptors, no link among them
//!       ▼
//!   agent ─────── one thread with locked memory: drain, decide, publish, yield
//! ```
//!
//! The agent's death is a non-event: the core goes on by its own rule, the supervisor starts another.
//! The supervisor's death closes the link, and the kernel's own scheduler is back at once.

mod agent;
pub mod cli;
mod error;
mod handover;
mod plugins;
mod status;
mod supervisor;

pub use error::{Error, ExitCode, Result};
