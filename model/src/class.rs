//! How a task is treated compared with others.

use std::cmp::Ordering;
use std::fmt;

use crate::Error;
use crate::error::Bounds;

/// The grade of [`Class::Latency`]: 0 to 20, and **0 is the strongest**.
///
/// These are the numbers of the original's scale, so that they mean in every layer what its users know.
/// `Ord` goes by strength, not by number: `Level::STRONGEST` is the *greatest*.
///
/// ```
/// # use gthulhu_model::Level;
/// # fn main() -> Result<(), gthulhu_model::Error> {
/// assert!(Level::new(3)? > Level::new(7)?);
/// assert!(Level::new(21).is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u8", into = "u8"))]
pub struct Level(u8);

/// What a task may do to others, from the weakest class to the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum Class {
    /// Runs on what others leave, and is preempted by all of them: the kernel's `SCHED_IDLE`. The
    /// [`Floor`](crate::Floor) is its floor, too.
    BestEffort,
    /// Shares by weight. What everything is that nobody has said anything about.
    #[default]
    Normal,
    /// Ahead of the above while its [`Budget`](crate::Budget) lasts, and not at all beyond it.
    Latency(Level),
    /// Alone on CPUs that are set aside for it. There it preempts everybody; elsewhere it is to be treated
    /// as [`Class::Normal`], since it has no budget unless given one.
    Isolated,
}

impl Level {
    /// 0.
    pub const STRONGEST: Self = Self(0);
    /// 10: the strongest of those that do not preempt.
    pub const FIRST_DISCOUNTING: Self = Self(10);
    /// 20.
    pub const WEAKEST: Self = Self(20);

    pub(crate) const BOUNDS: Bounds =
        Bounds { what: "a level (0 is the strongest)", unit: "", min: 0, max: Self::WEAKEST.0 as u64 };

    /// The level of this number.
    ///
    /// # Errors
    /// Above 20.
    pub const fn new(number: u8) -> Result<Self, Error> {
        match Self::BOUNDS.check(number as u64) {
            Ok(()) => Ok(Self(number)),
            Err(error) => Err(error),
        }
    }

    /// Its number, 0 to 20.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Levels 0 to 9 preempt what is strictly weaker; 10 to 20 are only put further ahead in the queue.
    pub const fn is_preempting(self) -> bool {
        self.0 < Self::FIRST_DISCOUNTING.0
    }

    /// By how many percent the original discounted levels 10 to 20: 50 for level 10, 5 for level 20, and
    /// `(190 - 9 * level) / 2` between, rounded down. `None` for levels that preempt.
    ///
    /// It took them off the *whole* virtual time, at each wakeup anew, so that all eleven levels were always
    /// first. Take it off what *one run* is charged, and what the discount saved out of the
    /// [`TokenBucket`](crate::TokenBucket).
    pub const fn discount_percent(self) -> Option<u8> {
        if self.is_preempting() { None } else { Some((190 - 9 * self.0) / 2) }
    }

    /// All levels, from the strongest to the weakest.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::STRONGEST.0..=Self::WEAKEST.0).map(Self)
    }
}

impl Class {
    /// May a task of this class that wakes up take the CPU from one of `other`?
    ///
    /// Only from a strictly weaker one, and only if its own class preempts: latency levels 0 to 9, isolated
    /// tasks (on their CPUs), and whoever wants to run against best effort.
    ///
    /// ```
    /// use gthulhu_model::{Class, Level};
    /// let [strong, weak] = [Level::STRONGEST, Level::WEAKEST].map(Class::Latency);
    /// assert!(strong.preempts(weak) && strong.preempts(Class::Normal));
    /// assert!(!strong.preempts(strong) && !weak.preempts(Class::Normal));
    /// assert!(Class::Normal.preempts(Class::BestEffort));
    /// ```
    pub fn preempts(self, other: Self) -> bool {
        let preempting = match self {
            Self::BestEffort => false,
            Self::Normal => other == Self::BestEffort,
            Self::Latency(level) => level.is_preempting() || other == Self::BestEffort,
            Self::Isolated => true,
        };
        preempting && self > other
    }

    /// All 24 of them, from the weakest to the strongest.
    pub fn all() -> impl Iterator<Item = Self> {
        let levels = (0..=Level::WEAKEST.0).rev().map(|number| Self::Latency(Level(number)));
        [Self::BestEffort, Self::Normal].into_iter().chain(levels).chain([Self::Isolated])
    }
}

/// By strength: the smaller number is the greater level.
impl Ord for Level {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<u8> for Level {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self, Error> {
        Self::new(number)
    }
}

impl From<Level> for u8 {
    fn from(level: Level) -> Self {
        level.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `best-effort`, `normal`, `latency 3`, `isolated`.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BestEffort => f.write_str("best-effort"),
            Self::Normal => f.write_str("normal"),
            Self::Latency(level) => write!(f, "latency {level}"),
            Self::Isolated => f.write_str("isolated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_original_s_numbers_and_no_others() {
        assert_eq!(Level::all().map(Level::number).collect::<Vec<_>>(), (0..=20).collect::<Vec<_>>());
        for number in 21..=u8::MAX {
            let error = Level::new(number).unwrap_err().to_string();
            let expected = format!("a level (0 is the strongest) of {number} is out of range: give 0 to 20");
            assert_eq!(error, expected);
        }
    }

    /// The original's table: 10 is 50 %, 15 is 27 %, 20 is 5 %.
    #[test]
    fn discounts_are_the_original_s() {
        let of = |number| Level::new(number).unwrap().discount_percent();
        assert_eq!([of(9), of(10), of(15), of(20)], [None, Some(50), Some(27), Some(5)]);
        assert!(Level::all().all(|level| level.is_preempting() == level.discount_percent().is_none()));
    }

    #[test]
    fn classes_are_listed_from_the_weakest_to_the_strongest() {
        let all: Vec<_> = Class::all().collect();
        assert_eq!(all.len(), 24);
        assert!(all.is_sorted_by(|a, b| a < b));
    }

    /// Written down pair by pair, apart from the rule: rows preempt columns.
    #[test]
    fn only_what_is_strictly_weaker_is_preempted() {
        let level = |number| Class::Latency(Level(number));
        let all =
            [Class::BestEffort, Class::Normal, level(20), level(10), level(9), level(0), Class::Isolated];
        let table =
            all.map(|a| all.map(|b| if a.preempts(b) { 'x' } else { '.' }).iter().collect::<String>());
        assert_eq!(table, [".......", "x......", "x......", "x......", "xxxx...", "xxxxx..", "xxxxxx."]);
    }

    #[test]
    fn preemption_follows_the_order_and_cannot_go_in_circles() {
        for a in Class::all() {
            for b in Class::all() {
                assert!(!a.preempts(b) || a > b, "{a} preempts {b}");
                assert!(!(a.preempts(b) && b.preempts(a)));
            }
        }
    }
}
