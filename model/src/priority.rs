//! What a user can say about a task: class, slice, budget.

use crate::error::Bounds;
use crate::{Budget, Class, Error};

/// How long a task runs before another gets its turn, in nanoseconds.
///
/// The core clamps it further, to bounds of its own (100 us and 20 ms unless told otherwise).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u64", into = "u64"))]
pub struct Slice(u32);

impl Slice {
    /// 10 us: what the original gave its lightest tasks. Below, switching takes most of the time.
    pub const MIN: Self = Self(10_000);
    /// A second: well below the 5 s after which the kernel's watchdog ejects a scheduler that lets a task
    /// wait.
    pub const MAX: Self = Self(1_000_000_000);

    const BOUNDS: Bounds =
        Bounds { what: "a slice", unit: " ns", min: Self::MIN.0 as u64, max: Self::MAX.0 as u64 };

    /// So many nanoseconds.
    ///
    /// # Errors
    /// Shorter than [`Slice::MIN`], zero included, or longer than [`Slice::MAX`]. No slice is `None`.
    pub const fn from_nanos(ns: u64) -> Result<Self, Error> {
        match Self::BOUNDS.check(ns) {
            Ok(()) => Ok(Self(ns as u32)),
            Err(error) => Err(error),
        }
    }

    /// The number of nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0 as u64
    }
}

impl TryFrom<u64> for Slice {
    type Error = Error;

    fn try_from(ns: u64) -> Result<Self, Error> {
        Self::from_nanos(ns)
    }
}

impl From<Slice> for u64 {
    fn from(slice: Slice) -> Self {
        slice.as_nanos()
    }
}

/// All that can be said about a task.
///
/// The default says nothing: normal, with the slice that the policy gives. A slice alone is a priority, too:
///
/// ```
/// # use gthulhu_model::{Class, Priority, Slice};
/// # fn main() -> Result<(), gthulhu_model::Error> {
/// let slice_only = Priority { slice: Some(Slice::from_nanos(2_000_000)?), ..Priority::default() };
/// assert_eq!(slice_only.class, Class::Normal);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub struct Priority {
    /// What it may do to others.
    pub class: Class,
    /// How long it runs at a time; `None` for what the policy gives.
    #[cfg_attr(feature = "serde", serde(rename = "sliceNs", skip_serializing_if = "Option::is_none"))]
    pub slice: Option<Slice>,
    /// For how long it may be ahead of others; see [`boost`](Self::boost) for what `None` means.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub budget: Option<Budget>,
}

impl Priority {
    /// This class, and nothing else said.
    pub const fn new(class: Class) -> Self {
        Self { class, slice: None, budget: None }
    }

    /// The budget from which it is put ahead of normal tasks on CPUs that it shares with them. `None`: it is
    /// not.
    ///
    /// No boost is without a budget: [`Class::Latency`] has the default one if none is given. A normal or best
    /// effort task has no boost, so that a budget does nothing for it. An isolated task needs none on its own
    /// CPUs; a budget lets it run ahead elsewhere.
    pub fn boost(&self) -> Option<Budget> {
        match self.class {
            Class::BestEffort | Class::Normal => None,
            Class::Latency(_) => Some(self.budget.unwrap_or_default()),
            Class::Isolated => self.budget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_bounds() {
        for (ns, fits) in [
            (0, false),
            (9_999, false),
            (10_000, true),
            (1_000_000_000, true),
            (1_000_000_001, false),
            (u64::MAX, false),
        ] {
            assert_eq!(Slice::from_nanos(ns).map(Slice::as_nanos).ok(), fits.then_some(ns));
        }
        let error = Slice::from_nanos(5).unwrap_err().to_string();
        assert_eq!(error, "a slice of 5 ns is out of range: give 10000 to 1000000000 ns");
    }

    #[test]
    fn every_boost_has_a_budget() {
        let own = Budget::millicpu(1).ok();
        for class in Class::all() {
            let [default, given] =
                [None, own].map(|budget| Priority { budget, ..Priority::new(class) }.boost());
            let expected = match class {
                Class::BestEffort | Class::Normal => (None, None),
                Class::Latency(_) => (Some(Budget::DEFAULT), own),
                Class::Isolated => (None, own),
            };
            assert_eq!((default, given), expected, "{class}");
        }
    }
}
