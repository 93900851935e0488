//! How a run ends.

use std::fmt;

use crate::sync::{Arc, AtomicBool, Ordering};

/// Why [`Agent::run`](crate::Agent::run) returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Somebody called [`StopHandle::stop`].
    Stopped,
    /// The kernel removed the scheduler.
    Removed(ExitInfo),
}

/// What the kernel said when it removed the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitInfo {
    /// What sort of end it was.
    pub kind: ExitKind,
    /// The code that came with it; see `SCX_ECODE_*` and [`wants_restart`](Self::wants_restart).
    pub code: i64,
    /// The reason, in the kernel's words.
    pub reason: String,
    /// More of the kernel's words.
    pub message: String,
    /// What the kernel dumped about the state of the scheduler; may be empty.
    pub dump: String,
}

/// The kernel's `enum scx_exit_kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExitKind {
    /// It has not ended (0).
    #[default]
    None,
    /// It ended without a word (1).
    Done,
    /// User space unregistered it (64).
    Unregistered,
    /// The BPF program asked for it (65): this is how `scx_bpf_exit` ends.
    UnregisteredByBpf,
    /// The kernel asked for it (66): a CPU came or went, for one.
    UnregisteredByKernel,
    /// Somebody pressed SysRq-S (67).
    SysRq,
    /// A runtime error (1024).
    Error,
    /// `scx_bpf_error` (1025).
    ErrorBpf,
    /// The watchdog found a task that could run and did not (1026).
    ErrorStall,
    /// A number that this version does not know.
    Unknown(u32),
}

/// `SCX_ECODE_ACT_RESTART`: whoever loaded the scheduler should load it again.
const RESTART: i64 = 1 << 48;

impl ExitInfo {
    /// Did the kernel ask to load the scheduler again?
    pub fn wants_restart(&self) -> bool {
        self.code & RESTART != 0
    }
}

impl ExitKind {
    /// Was it the scheduler's fault?
    pub fn is_error(self) -> bool {
        match self {
            Self::Error | Self::ErrorBpf | Self::ErrorStall => true,
            Self::Unknown(kind) => kind >= 1024,
            _ => false,
        }
    }
}

impl From<u32> for ExitKind {
    fn from(kind: u32) -> Self {
        match kind {
            0 => Self::None,
            1 => Self::Done,
            64 => Self::Unregistered,
            65 => Self::UnregisteredByBpf,
            66 => Self::UnregisteredByKernel,
            67 => Self::SysRq,
            1024 => Self::Error,
            1025 => Self::ErrorBpf,
            1026 => Self::ErrorStall,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.reason.is_empty() { "scheduler removed" } else { &self.reason })?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        if self.code != 0 {
            write!(f, ", code {:#x}", self.code)?;
        }
        Ok(())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Removed(info) => info.fmt(f),
        }
    }
}

/// Ends a run from another thread or from a signal handler: [`stop`](Self::stop) only stores to an
/// atomic.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// A handle that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to end after the present turn.
    pub fn stop(&self) {
        // A flag that guards no data needs no ordering.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Has somebody asked?
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for code that registers one (`signal_hook::flag::register`).
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_numbers_have_names() {
        assert!(ExitKind::from(1026).is_error() && ExitKind::from(4711).is_error());
        assert!(!ExitKind::from(64).is_error() && !ExitKind::from(68).is_error());
        assert_eq!(ExitKind::from(99), ExitKind::Unknown(99));
        let info = ExitInfo { code: 1 << 48 | 1 << 32, reason: "cpu".into(), ..ExitInfo::default() };
        assert!(info.wants_restart());
        assert_eq!(info.to_string(), "cpu, code 0x1000100000000");
    }
}
