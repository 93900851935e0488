//! What is wrong with a value, and what to give instead.

use std::fmt;

/// Why a value was refused. A copy of plain numbers: making one allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(Reason);

/// What sort of error it is, for those who act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A number below or above what is allowed.
    OutOfRange,
    /// A priority that an older form has no word for.
    NotExpressible,
    /// A label that nobody can have packed.
    Malformed,
    /// A thread name that no thread can have.
    InvalidName,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Range { what: &'static str, unit: &'static str, value: i128, min: u64, max: u64 },
    NotExpressible { what: &'static str, form: &'static str, instead: &'static str },
    Malformed { word: u64, part: &'static str },
    Name { why: &'static str },
}

impl Error {
    /// What sort of error it is.
    pub const fn kind(&self) -> ErrorKind {
        match self.0 {
            Reason::Range { .. } => ErrorKind::OutOfRange,
            Reason::NotExpressible { .. } => ErrorKind::NotExpressible,
            Reason::Malformed { .. } => ErrorKind::Malformed,
            Reason::Name { .. } => ErrorKind::InvalidName,
        }
    }

    pub(crate) const fn not_expressible(
        what: &'static str,
        form: &'static str,
        instead: &'static str,
    ) -> Self {
        Self(Reason::NotExpressible { what, form, instead })
    }

    pub(crate) const fn malformed(word: u64, part: &'static str) -> Self {
        Self(Reason::Malformed { word, part })
    }

    pub(crate) const fn name(why: &'static str) -> Self {
        Self(Reason::Name { why })
    }
}

/// What a number measures, and its bounds, both included.
pub(crate) struct Bounds {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Bounds {
    pub(crate) const fn check(&self, value: u64) -> Result<(), Error> {
        if self.min <= value && value <= self.max { Ok(()) } else { Err(self.error(value as i128)) }
    }

    /// For numbers that may be negative.
    pub(crate) const fn error(&self, value: i128) -> Error {
        let Self { what, unit, min, max } = *self;
        Error(Reason::Range { what, unit, value, min, max })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reason::Range { what, unit, value, min, max } => {
                write!(f, "{what} of {value}{unit} is out of range: give {min} to {max}{unit}")
            }
            Reason::NotExpressible { what, form, instead } => {
                write!(f, "{what} cannot be said in the {form} form: {instead}")
            }
            Reason::Malformed { word, part } => write!(
                f,
                "label {word:#018x}: its {part} makes no sense, so another program or another version packed \
                 it: set the label anew, or to 0 for none"
            ),
            Reason::Name { why } => {
                write!(f, "thread name {why}: give 1 to 15 bytes, none of them zero, as in /proc/PID/comm")
            }
        }
    }
}

/// As displayed, with the kind: this is what a `main` that returns an error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind())
    }
}

impl std::error::Error for Error {}
