//! What can go wrong outside the loop.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what was being done. `{}` shows the outermost context, `{:#}` the chain.
pub struct Error {
    // Boxed: the way in which nothing goes wrong should not carry it around.
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    // Innermost first.
    context: Vec<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What sort of error it is, for those who act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option has a value that makes no sense.
    InvalidInput,
    /// Privileges are missing.
    PermissionDenied,
    /// This kernel cannot do it.
    Unsupported,
    /// The kernel offers no type information (BTF).
    NoBtf,
    /// Another scheduler is loaded.
    Busy,
    /// The kernel refused the BPF core.
    Load,
    /// The system does not have the memory.
    OutOfMemory,
    /// The kernel answered something that it should not.
    Kernel,
    /// Anything else.
    Other,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Box::new(Inner { kind, context: vec![what.into()], source: None }) }
    }

    /// An error of this kind that another error caused.
    pub fn with_source(
        kind: ErrorKind,
        what: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error = Self::new(kind, what);
        error.inner.source = Some(source.into());
        error
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Says what was being done when the error came up.
    #[must_use]
    pub fn context(mut self, what: impl Into<Cow<'static, str>>) -> Self {
        self.inner.context.push(what.into());
        self
    }
}

/// Adds context to the error in a [`Result`].
pub trait ErrorExt: Sized {
    /// Says what was being done when the error came up.
    ///
    /// # Errors
    /// The same one, with context.
    fn context(self, what: impl Into<Cow<'static, str>>) -> Self;
}

impl<T> ErrorExt for Result<T> {
    fn context(self, what: impl Into<Cow<'static, str>>) -> Self {
        self.map_err(|error| error.context(what))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outermost_first = self.inner.context.iter().rev();
        if let Some(first) = outermost_first.next() {
            f.write_str(first)?;
        }
        if !f.alternate() {
            return Ok(());
        }
        for what in outermost_first {
            write!(f, ": {what}")?;
        }
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Like `{:#}`, with the kind: this is what a `main` that returns an error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#} ({:?})", self.inner.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// [`ErrorKind::OutOfMemory`]: an arena is exhausted.
impl From<crate::pool::AllocError> for Error {
    fn from(_: crate::pool::AllocError) -> Self {
        Self::new(ErrorKind::OutOfMemory, "the pool has no block of that size")
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            std::io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            std::io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            std::io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Other,
        };
        Self::with_source(kind, "system call", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_shown_outermost_first() {
        let error = Error::with_source(ErrorKind::Load, "map qm_events", std::io::Error::other("ENOMEM"));
        let error = Err::<(), _>(error).context("load the core").unwrap_err();
        assert_eq!(error.to_string(), "load the core");
        assert_eq!(format!("{error:#}"), "load the core: map qm_events: ENOMEM");
        assert_eq!(format!("{error:?}"), "load the core: map qm_events: ENOMEM (Load)");
        assert_eq!(error.kind(), ErrorKind::Load);
    }
}
