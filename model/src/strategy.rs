//! What a user asks for, and for how long.

use std::fmt;

use crate::error::Bounds;
use crate::{Error, Priority, Target};

/// The number of a strategy on this node. Several targets of one strategy have the same.
///
/// Names and selectors belong to the control plane; whoever resolves them gives out the numbers, and does not
/// use one for another strategy while a task may still carry it in its [`Label`](crate::Label).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u64", into = "u64"))]
pub struct StrategyId(u64);

impl StrategyId {
    /// The greatest number: 60 bits, since the other four of a label are its version.
    pub const MAX: u64 = (1 << 60) - 1;

    const BOUNDS: Bounds = Bounds { what: "a strategy's number", unit: "", min: 0, max: Self::MAX };

    /// The strategy of this number.
    ///
    /// # Errors
    /// Above [`StrategyId::MAX`].
    pub const fn new(number: u64) -> Result<Self, Error> {
        match Self::BOUNDS.check(number) {
            Ok(()) => Ok(Self(number)),
            Err(error) => Err(error),
        }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// For how long a strategy holds unless it is renewed, in seconds.
///
/// Nothing holds for ever: in the original strategies outlived the control plane that could have
/// withdrawn them. Who wants one to stay renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u32", into = "u32"))]
pub struct Ttl(u32);

impl Ttl {
    /// A second.
    pub const MIN: Self = Self(1);
    /// 90 s: three times the 30 s after which the original's manager looked at its nodes again, so that one
    /// lost round does no harm.
    pub const DEFAULT: Self = Self(90);
    /// A day: what somebody tried out and forgot is gone tomorrow.
    pub const MAX: Self = Self(86_400);

    const BOUNDS: Bounds =
        Bounds { what: "a TTL", unit: " s", min: Self::MIN.0 as u64, max: Self::MAX.0 as u64 };

    /// So many seconds.
    ///
    /// # Errors
    /// Zero, or above [`Ttl::MAX`].
    pub const fn from_secs(secs: u32) -> Result<Self, Error> {
        match Self::BOUNDS.check(secs as u64) {
            Ok(()) => Ok(Self(secs)),
            Err(error) => Err(error),
        }
    }

    /// The number of seconds.
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// The number of nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0 as u64 * 1_000_000_000
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One target of what a user asks for: whom, what, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields))]
pub struct Strategy {
    /// Which strategy of the user's.
    pub id: StrategyId,
    /// Whom it is for.
    pub target: Target,
    /// What they get.
    pub priority: Priority,
    /// For how long, from when it was asked for.
    #[cfg_attr(feature = "serde", serde(rename = "ttlSecs", default))]
    pub ttl: Ttl,
}

impl Strategy {
    /// The strategy with the end of its time, for a [`StrategyTable`](crate::StrategyTable). `asked_at_ns` is when it
    /// was asked for or renewed last, by the clock that the table is looked up with.
    pub const fn lease(self, asked_at_ns: u64) -> Lease {
        Lease { strategy: self, expires_at_ns: asked_at_ns.saturating_add(self.ttl.as_nanos()) }
    }
}

/// A strategy that holds until some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The strategy.
    pub strategy: Strategy,
    /// It holds before this time.
    pub expires_at_ns: u64,
}

impl Lease {
    /// Does it hold?
    pub const fn holds(&self, now_ns: u64) -> bool {
        now_ns < self.expires_at_ns
    }
}

impl TryFrom<u64> for StrategyId {
    type Error = Error;

    fn try_from(number: u64) -> Result<Self, Error> {
        Self::new(number)
    }
}

impl From<StrategyId> for u64 {
    fn from(id: StrategyId) -> Self {
        id.0
    }
}

impl fmt::Display for StrategyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Ttl {
    type Error = Error;

    fn try_from(secs: u32) -> Result<Self, Error> {
        Self::from_secs(secs)
    }
}

impl From<Ttl> for u32 {
    fn from(ttl: Ttl) -> Self {
        ttl.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CgroupId;

    #[test]
    fn numbers_and_times_have_bounds() {
        for (secs, fits) in [(0, false), (1, true), (86_400, true), (86_401, false), (u32::MAX, false)] {
            assert_eq!(Ttl::from_secs(secs).map(Ttl::as_secs).ok(), fits.then_some(secs));
        }
        assert_eq!(
            Ttl::from_secs(0).unwrap_err().to_string(),
            "a TTL of 0 s is out of range: give 1 to 86400 s"
        );
        assert!(StrategyId::new(StrategyId::MAX).is_ok() && StrategyId::new(StrategyId::MAX + 1).is_err());
    }

    #[test]
    fn a_lease_ends_with_its_ttl() {
        let (id, target) = (StrategyId::new(1).unwrap(), Target::Cgroup(CgroupId(1)));
        let strategy = Strategy { id, target, priority: Priority::default(), ttl: Ttl::MIN };
        let lease = strategy.lease(7);
        assert!(lease.holds(0) && lease.holds(1_000_000_006) && !lease.holds(1_000_000_007));
        assert_eq!(strategy.lease(u64::MAX).expires_at_ns, u64::MAX);
    }
}
