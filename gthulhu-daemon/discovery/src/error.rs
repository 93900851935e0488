//! What went wrong, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;

/// The result of what can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What sort of error it is, for those who act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `/proc`, the cgroup tree or a file could not be read.
    Io,
    /// There is more than the limits allow.
    Limit,
    /// A command pattern that cannot be used.
    Pattern,
    /// A selector or a selection that cannot be used.
    Selector,
    /// A file of names that cannot be used.
    Names,
    /// The Kubernetes API cannot be reached, or refuses.
    Kubernetes,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// A failed system call on a file.
    pub(crate) fn io(what: &str, path: impl AsRef<Path>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let message = format!("cannot {what} {}: {error}", path.as_ref().display());
        Self { kind: ErrorKind::Io, message, source: Some(Box::new(error)) }
    }

    #[cfg(feature = "kubernetes")]
    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(Box::new(source)) }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// As displayed, with the kind: this is what a `main` that returns an error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
