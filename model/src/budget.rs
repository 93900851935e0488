//! How much of the machine boosts may take: each boosted entity, and all of them together.

use crate::error::Bounds;
use crate::{Error, TokenBucket};

/// How much CPU time an entity may have while it is put ahead of others: a share, and a burst.
///
/// The share is in thousandths of one CPU, as `resources.requests.cpu: 200m` of a pod is. What shares a
/// budget (a thread, a process, a pod) is for the policy to say; a pod with many threads may have more than
/// one CPU, a thread cannot use more than 1000.
///
/// ```
/// # use gthulhu_model::Budget;
/// # fn main() -> Result<(), gthulhu_model::Error> {
/// let budget = Budget::millicpu(500)?.with_burst_ms(50)?;
/// assert_eq!((budget.share(), budget.burst_ns()), (500, 50_000_000));
/// assert_eq!(Budget::default(), Budget::millicpu(200)?.with_burst_ms(20)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked", into = "Unchecked"))]
pub struct Budget {
    millicpu: u16,
    burst_ms: u16,
}

impl Budget {
    /// 32 CPUs: the most that fits into a [`Label`](crate::Label), and more than a boost should ever need.
    pub const MAX_MILLICPU: u16 = 32_000;
    /// A second. Longer bursts are a share of their own.
    pub const MAX_BURST_MS: u16 = 1_000;
    /// A fifth of a CPU, and 20 ms at once: the longest slice that the core gives unless told otherwise.
    pub const DEFAULT: Self = Self { millicpu: 200, burst_ms: 20 };

    const SHARE: Bounds =
        Bounds { what: "a budget's share", unit: "m", min: 1, max: Self::MAX_MILLICPU as u64 };
    const BURST: Bounds =
        Bounds { what: "a budget's burst", unit: " ms", min: 1, max: Self::MAX_BURST_MS as u64 };

    /// This share of a CPU, in thousandths, and a burst of 20 ms.
    ///
    /// # Errors
    /// Zero, or more than [`MAX_MILLICPU`](Self::MAX_MILLICPU). A boost without a share is none: use
    /// [`Class::Normal`](crate::Class::Normal).
    pub const fn millicpu(share: u16) -> Result<Self, Error> {
        match Self::SHARE.check(share as u64) {
            Ok(()) => Ok(Self { millicpu: share, burst_ms: Self::DEFAULT.burst_ms }),
            Err(error) => Err(error),
        }
    }

    /// With this much at once after a rest, in milliseconds of CPU time.
    ///
    /// # Errors
    /// Zero, or more than [`MAX_BURST_MS`](Self::MAX_BURST_MS).
    pub const fn with_burst_ms(self, burst_ms: u16) -> Result<Self, Error> {
        match Self::BURST.check(burst_ms as u64) {
            Ok(()) => Ok(Self { burst_ms, ..self }),
            Err(error) => Err(error),
        }
    }

    /// The share in thousandths of a CPU.
    pub const fn share(self) -> u16 {
        self.millicpu
    }

    /// The burst in milliseconds.
    pub const fn burst_ms(self) -> u16 {
        self.burst_ms
    }

    /// The burst in nanoseconds.
    pub const fn burst_ns(self) -> u64 {
        self.burst_ms as u64 * 1_000_000
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What boosts leave to everything else, in thousandths of all CPU time, however many they are and
/// whatever their budgets say.
///
/// ```
/// # use gthulhu_model::Floor;
/// // On 4 CPUs all boosted tasks together run from one bucket of 3.2 CPUs.
/// let all_boosts = Floor::default().bucket(4, 0);
/// assert_eq!(all_boosts.rate(), 3_200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u16", into = "u16"))]
pub struct Floor(u16);

impl Floor {
    /// A twentieth: what the kernel leaves to others beside real-time tasks, too
    /// (`sched_rt_runtime_us`, 950000 of 1000000).
    pub const MIN: Self = Self(50);
    /// A fifth: twice of what the drill for the original's issue 52 must find, so that measuring at the
    /// edge of the promise is not the rule.
    pub const DEFAULT: Self = Self(200);

    const BOUNDS: Bounds =
        Bounds { what: "a floor", unit: " thousandths", min: Self::MIN.0 as u64, max: 1_000 };
    /// Over which time the floor holds. The whole rest may be boosted at once for as long: with the default, boosts then
    /// have all CPUs for 40 ms, and a request that meets that and needs a few wakeups is still answered in 100 ms.
    const WINDOW_MS: u64 = 10;

    /// So many thousandths of all CPU time.
    ///
    /// # Errors
    /// Below [`Floor::MIN`] or above 1000, which is no boosts at all.
    pub const fn per_mille(share: u16) -> Result<Self, Error> {
        match Self::BOUNDS.check(share as u64) {
            Ok(()) => Ok(Self(share)),
            Err(error) => Err(error),
        }
    }

    /// The share in thousandths.
    pub const fn share(self) -> u16 {
        self.0
    }

    /// The bucket from which all boosted run time on so many CPUs is spent, besides from the boosted
    /// entity's own. A task is boosted only while both have tokens.
    pub const fn bucket(self, nr_cpus: u32, now_ns: u64) -> TokenBucket {
        let rate = (1_000 - self.0 as u32).saturating_mul(nr_cpus);
        // Thousandths of a CPU for milliseconds are microseconds.
        TokenBucket::with_rate(rate, rate as u64 * Self::WINDOW_MS * 1_000, now_ns)
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u16> for Floor {
    type Error = Error;

    fn try_from(share: u16) -> Result<Self, Error> {
        Self::per_mille(share)
    }
}

impl From<Floor> for u16 {
    fn from(floor: Floor) -> Self {
        floor.0
    }
}

/// A budget as it is written.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Unchecked {
    millicpu: u16,
    #[serde(default = "default_burst_ms")]
    burst_ms: u16,
}

#[cfg(feature = "serde")]
const fn default_burst_ms() -> u16 {
    Budget::DEFAULT.burst_ms
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Budget {
    type Error = Error;

    fn try_from(written: Unchecked) -> Result<Self, Error> {
        Self::millicpu(written.millicpu)?.with_burst_ms(written.burst_ms)
    }
}

#[cfg(feature = "serde")]
impl From<Budget> for Unchecked {
    fn from(Budget { millicpu, burst_ms }: Budget) -> Self {
        Self { millicpu, burst_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_bounds() {
        for (share, fits) in [(0, false), (1, true), (32_000, true), (32_001, false), (u16::MAX, false)] {
            assert_eq!(Budget::millicpu(share).is_ok(), fits, "{share}");
        }
        for (burst, fits) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(Budget::DEFAULT.with_burst_ms(burst).is_ok(), fits, "{burst}");
        }
        let error = Budget::millicpu(0).unwrap_err().to_string();
        assert_eq!(error, "a budget's share of 0m is out of range: give 1 to 32000m");
    }

    #[test]
    fn a_floor_leaves_at_least_a_twentieth() {
        for (share, fits) in [(0, false), (49, false), (50, true), (1_000, true), (1_001, false)] {
            assert_eq!(Floor::per_mille(share).is_ok(), fits, "{share}");
        }
        let none = Floor::per_mille(1_000).unwrap().bucket(64, 0);
        assert_eq!((none.rate(), none.tokens()), (0, 0));
    }

    #[test]
    fn what_is_left_of_the_machine_fills_the_bucket_of_all_boosts() {
        let bucket = Floor::DEFAULT.bucket(2, 0);
        assert_eq!((bucket.rate(), bucket.tokens()), (1_600, 16_000_000), "1.6 CPUs for 10 ms");
        assert_eq!(Floor::MIN.bucket(u32::MAX, 0).rate(), u32::MAX);
    }
}
