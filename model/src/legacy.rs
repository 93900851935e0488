//! The older forms of a priority, each with what it meant where it was used.
//!
//! The original had one field, `priority`, and one beside it, `executionTime` (`execution_time`): a slice in
//! nanoseconds, 0 for none. What the field meant depended on who read it:
//!
//! | form | where | what it did there | its defect |
//! | --- | --- | --- | --- |
//! | [`Flag`] | first API, `"priority": true` | virtual time 0: ahead of all others | no bound: who spins keeps the CPU |
//! | [`Scale`] | web UI and kernel mode, 0 to 20 | 0–9 preempt the weaker, 10–20 get 50–5 % off their virtual time | 0, which everybody writes for "nothing", was the strongest; the discounts were taken off again and again, so that 10–20 were all first |
//! | [`Positive`] | user mode of the policy `gthulhu` | above 0 as `true`, all the same; 0 as `false` | 0 jumped the queue, too; a slice was given to the first thread only |
//!
//! A fourth meaning, "larger is more important", stood in the text of the manager's API only; no code ever
//! followed it.
//!
//! What each becomes:
//!
//! | older form | class | slice |
//! | --- | --- | --- |
//! | `false`; 0 of `Positive` | [`Class::Normal`] | `executionTime`: "slice only" |
//! | `true`; 1 and above of `Positive` | [`Class::Latency`] of level 10, [`Level::FIRST_DISCOUNTING`] | `executionTime` |
//! | n of `Scale` | [`Class::Latency`] of level n | `executionTime` |
//! | no entry at all | [`Class::Normal`] | none |
//!
//! `true` is level 10, not 0, because user mode, where it was used, never preempted anybody: it put a task
//! in front, which is what level 10 does. Defects are not kept: a boost has the default
//! [`Budget`](crate::Budget), "slice only" is only that, and a slice holds for all threads that the strategy
//! matches.
//!
//! Each older value comes back as it was. (Of `Positive`, all numbers above 0 are one value, since nothing
//! ever told them apart; it comes back as 1. Who must show users their own number keeps it.) What an
//! older form has no word for is an [`Error`] that names another form, never a guess:
//!
//! ```
//! # use gthulhu_model::{legacy, Class, Level, Priority};
//! # fn main() -> Result<(), gthulhu_model::Error> {
//! let old = legacy::Scale { priority: 3, execution_time: 20_000_000 };
//! let priority = Priority::try_from(old)?;
//! assert_eq!(priority.class, Class::Latency(Level::new(3)?));
//! assert_eq!(legacy::Scale::try_from(priority)?, old);
//!
//! let refused = legacy::Flag::try_from(priority).unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "a latency level other than 10 cannot be said in the boolean form: use the scale of 0 to 20, or the class"
//! );
//! # Ok(()) }
//! ```

use crate::error::Bounds;
use crate::{Class, Error, Level, Priority, Slice};

/// `"priority": true` of the first API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flag {
    /// In front of all others?
    pub priority: bool,
    /// The slice in nanoseconds; 0 for none.
    pub execution_time: u64,
}

/// 0 to 20 of the web UI and of kernel mode. Having no entry was a value as well: it is no `Scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    /// The level; 0 is the strongest.
    pub priority: i64,
    /// The slice in nanoseconds; 0 for none.
    pub execution_time: u64,
}

/// "Above 0" of the policy `gthulhu` in user mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Positive {
    /// In front of all others if above 0.
    pub priority: i64,
    /// The slice in nanoseconds; 0 for none.
    pub execution_time: u64,
}

/// What `true` and "above 0" are.
const FRONT: Class = Class::Latency(Level::FIRST_DISCOUNTING);

/// # Errors
/// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange): the slice is outside the bounds of [`Slice`].
impl TryFrom<Flag> for Priority {
    type Error = Error;

    fn try_from(Flag { priority, execution_time }: Flag) -> Result<Self, Error> {
        let class = if priority { FRONT } else { Class::Normal };
        Ok(Self { class, slice: slice(execution_time)?, budget: None })
    }
}

/// # Errors
/// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange): the number is none of 0 to 20 (the original
/// dropped those with a line in its log), or the slice is outside the bounds of [`Slice`].
impl TryFrom<Scale> for Priority {
    type Error = Error;

    fn try_from(Scale { priority, execution_time }: Scale) -> Result<Self, Error> {
        let number = u8::try_from(priority).map_err(|_| Level::BOUNDS.error(priority.into()))?;
        Ok(Self { class: Class::Latency(Level::new(number)?), slice: slice(execution_time)?, budget: None })
    }
}

/// # Errors
/// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange): the number is negative (to the original 0 in user
/// mode and dropped in kernel mode; whoever wrote it meant neither), or the slice is outside the bounds of
/// [`Slice`].
impl TryFrom<Positive> for Priority {
    type Error = Error;

    fn try_from(Positive { priority, execution_time }: Positive) -> Result<Self, Error> {
        const BOUNDS: Bounds = Bounds {
            what: "a priority (0 is none, above is a boost)",
            unit: "",
            min: 0,
            max: i64::MAX as u64,
        };
        if priority < 0 {
            return Err(BOUNDS.error(priority.into()));
        }
        Self::try_from(Flag { priority: priority > 0, execution_time })
    }
}

/// # Errors
/// [`ErrorKind::NotExpressible`](crate::ErrorKind::NotExpressible): a budget, best effort, isolated, or a level
/// other than 10.
impl TryFrom<Priority> for Flag {
    type Error = Error;

    fn try_from(from: Priority) -> Result<Self, Error> {
        Ok(Self { priority: is_front(from, "boolean")?, execution_time: execution_time(from) })
    }
}

/// # Errors
/// [`ErrorKind::NotExpressible`](crate::ErrorKind::NotExpressible): a budget, or any class but latency. For
/// [`Class::Normal`] without a slice, leave the entry out.
impl TryFrom<Priority> for Scale {
    type Error = Error;

    fn try_from(from: Priority) -> Result<Self, Error> {
        const FORM: &str = "0..20";
        no_budget(from, FORM)?;
        let level = match from.class {
            Class::Latency(level) => level,
            Class::Normal if from.slice.is_none() => {
                return Err(Error::not_expressible("no boost", FORM, "leave the entry out"));
            }
            Class::Normal => {
                return Err(Error::not_expressible("a slice alone", FORM, "use the boolean form with false"));
            }
            Class::BestEffort | Class::Isolated => return Err(no_class(from.class, FORM)),
        };
        Ok(Self { priority: level.number().into(), execution_time: execution_time(from) })
    }
}

/// # Errors
/// [`ErrorKind::NotExpressible`](crate::ErrorKind::NotExpressible): a budget, best effort, isolated, or a level
/// other than 10.
impl TryFrom<Priority> for Positive {
    type Error = Error;

    fn try_from(from: Priority) -> Result<Self, Error> {
        Ok(Self { priority: is_front(from, "'> 0'")?.into(), execution_time: execution_time(from) })
    }
}

fn slice(execution_time: u64) -> Result<Option<Slice>, Error> {
    if execution_time == 0 { Ok(None) } else { Slice::from_nanos(execution_time).map(Some) }
}

fn execution_time(from: Priority) -> u64 {
    from.slice.map_or(0, Slice::as_nanos)
}

fn is_front(from: Priority, form: &'static str) -> Result<bool, Error> {
    no_budget(from, form)?;
    match from.class {
        Class::Normal => Ok(false),
        FRONT => Ok(true),
        Class::Latency(_) => Err(Error::not_expressible(
            "a latency level other than 10",
            form,
            "use the scale of 0 to 20, or the class",
        )),
        Class::BestEffort | Class::Isolated => Err(no_class(from.class, form)),
    }
}

fn no_budget(from: Priority, form: &'static str) -> Result<(), Error> {
    match from.budget {
        None => Ok(()),
        Some(_) => Err(Error::not_expressible("a budget", form, "use the class, or leave the budget out")),
    }
}

fn no_class(class: Class, form: &'static str) -> Error {
    let what = if class == Class::Isolated { "isolated" } else { "best effort" };
    Error::not_expressible(what, form, "use the class")
}

#[cfg(test)]
mod tests;
