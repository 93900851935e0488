//! A priority in the 64 bits that the core keeps for a task.

use crate::{Budget, Class, Error, Level, Priority, Slice, StrategyId};

/// What the core remembers about a task for its policy, and hands on to the threads and processes that the
/// task makes, before they run.
///
/// A label holds either a priority or the number of the strategy that gave it. A priority is complete, but
/// stays with all descendants until somebody sets another; a number ends for all of them at once, when the
/// strategy expires or is gone from the [`StrategyTable`](crate::StrategyTable), where
/// [`get`](crate::StrategyTable::get) looks it up. So strategies with a TTL are labelled by number.
///
/// | bits | priority | strategy |
/// | --- | --- | --- |
/// | 60..63 | 1, the version of this layout | 2 |
/// | 55..59 | level 0 to 20, 21 normal, 22 best effort, 23 isolated | number |
/// | 25..54 | slice in ns, 0 for none | number |
/// | 10..24 | share of the budget in thousandths of a CPU, 0 for no budget | number |
/// | 0..9 | its burst in ms | number |
///
/// The word 0 says nothing. Each value has one word, and each other word is an error:
///
/// ```
/// # use gthulhu_model::{Label, Priority};
/// # fn main() -> Result<(), gthulhu_model::Error> {
/// let label = Label::Priority(Priority::default());
/// assert_eq!(Label::unpack(label.pack())?, label);
/// assert_eq!(Label::unpack(0)?, Label::Nothing);
/// assert!(Label::unpack(1).is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Label {
    /// Nobody has said anything.
    #[default]
    Nothing,
    /// This, until another label is set.
    Priority(Priority),
    /// What this strategy says, as long as it holds.
    Strategy(StrategyId),
}

const VERSION: u32 = 60;
const CLASS: u32 = 55;
const SLICE: u32 = 25;
const SHARE: u32 = 10;
const BURST: u32 = 0;

const PRIORITY: u64 = 1;
const STRATEGY: u64 = 2;

/// Levels are their own codes. 21 was "no entry" in the original's core.
const NORMAL: u64 = 21;
const BEST_EFFORT: u64 = 22;
const ISOLATED: u64 = 23;

impl Label {
    /// The word for the core.
    pub const fn pack(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Strategy(id) => STRATEGY << VERSION | id.number(),
            Self::Priority(Priority { class, slice, budget }) => {
                let class = match class {
                    Class::Latency(level) => level.number() as u64,
                    Class::Normal => NORMAL,
                    Class::BestEffort => BEST_EFFORT,
                    Class::Isolated => ISOLATED,
                };
                let slice = match slice {
                    Some(slice) => slice.as_nanos(),
                    None => 0,
                };
                let (share, burst) = match budget {
                    Some(budget) => (budget.share() as u64, budget.burst_ms() as u64),
                    None => (0, 0),
                };
                PRIORITY << VERSION | class << CLASS | slice << SLICE | share << SHARE | burst << BURST
            }
        }
    }

    /// What a word of the core means.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed): no value has this word. A policy takes such a task
    /// for one that nobody has labelled, and counts it.
    pub const fn unpack(word: u64) -> Result<Self, Error> {
        match word >> VERSION {
            0 if word == 0 => Ok(Self::Nothing),
            PRIORITY => match priority(word) {
                Ok(priority) => Ok(Self::Priority(priority)),
                Err(part) => Err(Error::malformed(word, part)),
            },
            STRATEGY => match StrategyId::new(word & StrategyId::MAX) {
                Ok(id) => Ok(Self::Strategy(id)),
                Err(_) => Err(Error::malformed(word, "strategy")),
            },
            _ => Err(Error::malformed(word, "version")),
        }
    }
}

/// Or which part of the word is none.
const fn priority(word: u64) -> Result<Priority, &'static str> {
    let class = match bits(word, CLASS, VERSION) {
        NORMAL => Class::Normal,
        BEST_EFFORT => Class::BestEffort,
        ISOLATED => Class::Isolated,
        level => match Level::new(level as u8) {
            Ok(level) => Class::Latency(level),
            Err(_) => return Err("class"),
        },
    };
    let slice = match bits(word, SLICE, CLASS) {
        0 => None,
        ns => match Slice::from_nanos(ns) {
            Ok(slice) => Some(slice),
            Err(_) => return Err("slice"),
        },
    };
    let budget = match (bits(word, SHARE, SLICE), bits(word, BURST, SHARE)) {
        (0, 0) => None,
        (share, burst) => match Budget::millicpu(share as u16) {
            Ok(budget) => match budget.with_burst_ms(burst as u16) {
                Ok(budget) => Some(budget),
                Err(_) => return Err("burst"),
            },
            Err(_) => return Err("budget"),
        },
    };
    Ok(Priority { class, slice, budget })
}

const fn bits(word: u64, from: u32, to: u32) -> u64 {
    word >> from & ((1 << (to - from)) - 1)
}

// The fields are as wide as their greatest values.
const _: () = {
    assert!((Slice::MAX.as_nanos() >> (CLASS - SLICE)) == 0);
    assert!((Budget::MAX_MILLICPU >> (SLICE - SHARE)) == 0);
    assert!((Budget::MAX_BURST_MS >> (SHARE - BURST)) == 0);
    assert!((ISOLATED >> (VERSION - CLASS)) == 0);
    assert!((StrategyId::MAX >> VERSION) == 0);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn every_class_comes_back_with_and_without_the_rest() {
        let mut words = std::collections::BTreeSet::new();
        for class in Class::all() {
            for slice in [None, Some(Slice::MIN), Some(Slice::MAX)] {
                for budget in [None, Some(Budget::DEFAULT), Budget::millicpu(32_000).ok()] {
                    let label = Label::Priority(Priority { class, slice, budget });
                    assert_eq!(Label::unpack(label.pack()), Ok(label));
                    assert!(words.insert(label.pack()), "{label:?} has the word of another");
                }
            }
        }
        assert!(!words.contains(&0));
    }

    #[test]
    fn every_share_and_every_burst_comes_back() {
        let with = |budget| Label::Priority(Priority { budget: Some(budget), ..Priority::default() });
        for share in 1..=Budget::MAX_MILLICPU {
            let label = with(Budget::millicpu(share).unwrap());
            assert_eq!(Label::unpack(label.pack()), Ok(label));
        }
        for burst in 1..=Budget::MAX_BURST_MS {
            let label = with(Budget::DEFAULT.with_burst_ms(burst).unwrap());
            assert_eq!(Label::unpack(label.pack()), Ok(label));
        }
    }

    /// Words that were written once must keep their meaning: running tasks carry them across an update.
    #[test]
    fn the_layout_of_version_1_is_fixed() {
        let slice = Slice::from_nanos(5_000_000).ok();
        let all = Priority { class: Class::Isolated, slice, budget: Some(Budget::DEFAULT) };
        assert_eq!(Label::Priority(all).pack(), 0x1b80_9896_8003_2014);
        assert_eq!(Label::Priority(Priority::default()).pack(), 0x1a80_0000_0000_0000);
        assert_eq!(Label::Strategy(StrategyId::new(7).unwrap()).pack(), 0x2000_0000_0000_0007);
    }

    #[test]
    fn an_error_names_the_part() {
        let part = |word| Label::unpack(word).unwrap_err().to_string();
        assert_eq!(
            part(7),
            "label 0x0000000000000007: its version makes no sense, so another program or another version packed \
             it: set the label anew, or to 0 for none"
        );
        let normal = PRIORITY << VERSION | NORMAL << CLASS;
        for (word, name) in [
            (3 << VERSION, "version"),
            (u64::MAX, "version"),
            (PRIORITY << VERSION | 24 << CLASS, "class"),
            (normal | 9_999 << SLICE, "slice"),
            (normal | 1_000_000_001 << SLICE, "slice"),
            (normal | 32_001 << SHARE | 20, "budget"),
            (normal | 20, "budget"),
            (normal | 1 << SHARE, "burst"),
            (normal | 1 << SHARE | 1_001, "burst"),
        ] {
            assert!(part(word).contains(&format!("its {name} ")), "{word:#x}: {}", part(word));
            assert_eq!(Label::unpack(word).unwrap_err().kind(), ErrorKind::Malformed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn every_slice_comes_back(ns in 10_000..=1_000_000_000u64, level in 0..=20u8) {
            let class = Class::Latency(Level::new(level).unwrap());
            let label = Label::Priority(Priority { slice: Slice::from_nanos(ns).ok(), ..Priority::new(class) });
            prop_assert_eq!(Label::unpack(label.pack()), Ok(label));
        }

        #[test]
        fn every_strategy_comes_back(number in 0..=StrategyId::MAX) {
            let label = Label::Strategy(StrategyId::new(number).unwrap());
            prop_assert_eq!(Label::unpack(label.pack()), Ok(label));
        }

        /// Whatever is taken has one word only: this one.
        #[test]
        fn any_word_is_refused_or_is_the_word_of_its_value(word: u64, version in 0..=2u64, class in 0..32u64) {
            let word = word & !(u64::MAX << CLASS) | version << VERSION | class << CLASS;
            if let Ok(label) = Label::unpack(word) {
                prop_assert_eq!(label.pack(), word);
            }
        }
    }
}
