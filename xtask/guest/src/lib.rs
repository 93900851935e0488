//! What runs inside a lab guest: loads that measure themselves, checks of the daemon, the demonstration.
//!
//! A load prints one line of JSON and knows nothing of the daemon. A check prints `ok NAME - text` or
//! `not ok NAME - text`, which `cargo xtask lab test` counts. All times are of `CLOCK_MONOTONIC`.

pub mod check;
pub mod compare;
pub mod demo;
pub mod drill;
pub mod gate;
pub mod load;
pub mod noise;
pub mod observer;
pub mod path;
pub mod process;
pub mod profile;
pub mod sched;
pub mod stats;
pub mod suites;
pub mod sys;

/// Everything here that can fail. An error is a sentence: it ends in a `not ok` line or on stderr, nobody
/// branches on it.
pub type Result<T> = std::result::Result<T, String>;

/// Says what was being done when an error came.
pub trait Context<T> {
    /// `what` reads as "cannot WHAT".
    ///
    /// # Errors
    /// The one it was given, with `what` in front.
    fn cannot(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn cannot(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|e| format!("cannot {what}: {e}"))
    }
}
