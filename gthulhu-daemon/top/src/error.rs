//! What a person is told when it does not work.

use std::fmt;

/// What went wrong and what to do about it, in words.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What a caller may want to tell apart, for an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option cannot be: a file of names with a mistake in it, a terminal that is none.
    Usage,
    /// Watching needs more rights than this process has.
    Permission,
    /// The kernel has no type information (BTF).
    NoBtf,
    /// The kernel refused the monitor's programs.
    Load,
    /// A system call failed.
    System,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failed system call.
    pub(crate) fn system(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(ErrorKind::System, format!("{what}: {error}"))
    }

    /// What a caller may react to.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<gthulhu_monitor::Error> for Error {
    fn from(error: gthulhu_monitor::Error) -> Self {
        use gthulhu_monitor::ErrorKind as Theirs;
        let kind = match error.kind() {
            Theirs::Permission => ErrorKind::Permission,
            Theirs::NoBtf => ErrorKind::NoBtf,
            Theirs::Load => ErrorKind::Load,
            Theirs::Invalid => ErrorKind::Usage,
            _ => ErrorKind::System,
        };
        Self::new(kind, format!("cannot watch this machine: {error}"))
    }
}

impl From<gthulhu_discovery::Error> for Error {
    fn from(error: gthulhu_discovery::Error) -> Self {
        Self::new(ErrorKind::Usage, error.to_string())
    }
}
