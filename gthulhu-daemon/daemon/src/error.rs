//! Errors as a person meets them: one message, one exit code.

use std::fmt;

use qumun::ErrorKind;

/// The result of a subcommand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit codes, after `sysexits.h`; 78 is the original's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The scheduler failed, or what was asked of the daemon was not done.
    Failed = 1,
    /// Wrong arguments, such as an unknown plugin.
    Usage = 64,
    /// There is no running daemon to ask.
    NoDaemon = 69,
    /// The kernel refused the core.
    Software = 70,
    /// A system call failed.
    System = 71,
    /// The kernel's type information is missing.
    NoBtf = 72,
    /// Another scheduler is loaded.
    Busy = 75,
    /// Not allowed.
    NoPermission = 77,
    /// The kernel has no sched_ext.
    NoSchedExt = 78,
}

/// What went wrong and with which code the process ends.
#[derive(Debug)]
pub struct Error {
    code: ExitCode,
    message: String,
}

impl Error {
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failed system call.
    pub(crate) fn system(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(ExitCode::System, format!("{what}: {error}"))
    }

    /// With which code the process ends.
    pub fn code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<qumun::Error> for Error {
    fn from(error: qumun::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Unsupported => ExitCode::NoSchedExt,
            ErrorKind::NoBtf => ExitCode::NoBtf,
            ErrorKind::PermissionDenied => ExitCode::NoPermission,
            ErrorKind::Busy => ExitCode::Busy,
            ErrorKind::InvalidInput => ExitCode::Usage,
            ErrorKind::Load => ExitCode::Software,
            _ => ExitCode::System,
        };
        Self::new(code, format!("{error:#}"))
    }
}

impl From<gthulhu_top::Error> for Error {
    fn from(error: gthulhu_top::Error) -> Self {
        use gthulhu_top::ErrorKind as Theirs;
        let code = match error.kind() {
            Theirs::Usage => ExitCode::Usage,
            Theirs::Permission => ExitCode::NoPermission,
            Theirs::NoBtf => ExitCode::NoBtf,
            Theirs::Load => ExitCode::Software,
            _ => ExitCode::System,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_its_own_code() {
        let kinds = [
            ErrorKind::Unsupported,
            ErrorKind::NoBtf,
            ErrorKind::PermissionDenied,
            ErrorKind::Busy,
            ErrorKind::InvalidInput,
            ErrorKind::Load,
            ErrorKind::Kernel,
        ];
        let mut codes: Vec<u8> =
            kinds.iter().map(|k| Error::from(qumun::Error::new(*k, "x")).code() as u8).collect();
        assert_eq!(codes[0], 78);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), kinds.len());
    }
}
