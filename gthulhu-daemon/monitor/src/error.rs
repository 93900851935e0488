use std::fmt;

/// What went wrong, in words for a person, with the steps that led there.
///
/// Opaque on purpose: what a program may react to is [`Error::kind`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a program may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The kernel offers no type information (`/sys/kernel/btf/vmlinux`).
    NoBtf,
    /// The process may not load BPF programs.
    Permission,
    /// There is no hierarchy of cgroups of the kind asked for.
    NoCgroups,
    /// The kernel refused the programs.
    Load,
    /// A system call failed.
    System,
    /// The caller asked for something that cannot be.
    Invalid,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// A failed system call, with what was tried.
    pub(crate) fn system(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, what).because(std::io::Error::last_os_error())
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a program may react to.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
