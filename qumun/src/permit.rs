//! Decisions that hold for several wakeups.

use std::fmt;

use crate::Nanos;
#[cfg(feature = "sim")]
use crate::Pid;

/// Allows the core to let a task in by itself when it wakes up next, as the decision says that carries this: so often,
/// for so long, with the same slice, on an idle CPU near its last one or else in the queue that all CPUs share. The agent
/// hears nothing of these wakeups until the next event ([`Queued::permitted`](crate::Queued::permitted)), and gets no turn
/// for them. The end of a slice is always an event; one that was cut short has not ended, and the task goes on with the rest.
///
/// A permit also ends whenever the core takes over, and at once when the policy
/// [revokes](crate::Context::revoke) it.
///
/// ```
/// use qumun::{Nanos, Permit};
///
/// let permit = Permit::wakeups(8).lasting(Nanos::from_millis(20)).at_pace(2 * Permit::UNIT);
/// assert_eq!(permit.order(5_000, Nanos(1_000)), 7_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a permit does nothing until a decision carries it"]
pub struct Permit {
    wakeups: u32,
    lasts: Nanos,
    /// In parts of [`Permit::UNIT`].
    pace: u32,
    by_clock: bool,
    cuts: bool,
}

impl Permit {
    /// For so many wakeups, at most [`MOST`](Self::MOST), within 10 ms, at a pace of 1. None is no permit.
    pub const fn wakeups(wakeups: u32) -> Self {
        Self { wakeups, lasts: Nanos::from_millis(10), pace: Self::UNIT, by_clock: false, cuts: false }
    }

    /// A pace of 1.
    pub const UNIT: u32 = 1024;
    /// The most wakeups that a permit holds for.
    pub const MOST: u32 = 1024;
    /// The longest time that a permit holds.
    pub const LONGEST: Nanos = Nanos::from_millis(1_000);

    /// Not for longer than this after the decision, and [`LONGEST`](Self::LONGEST) at most.
    pub const fn lasting(mut self, time: Nanos) -> Self {
        self.lasts = time;
        self
    }

    /// By how much each nanosecond on a CPU moves the task in the policy's order, from the decision's
    /// [`vtime`](crate::Decision::vtime) on, in parts of [`UNIT`](Self::UNIT). Where vtime is run time divided by the weight,
    /// with 100 as the unit, that is `100 * UNIT / weight`.
    pub const fn at_pace(mut self, pace: u32) -> Self {
        self.pace = pace;
        self.by_clock = false;
        self
    }

    /// The place in the policy's order is the time when the task wakes up: first come, first served.
    pub const fn by_clock(mut self) -> Self {
        self.by_clock = true;
        self
    }

    /// Where no CPU is idle, the task may cut the slice of one whose place in the policy's order is more than 1 ms
    /// behind; on each CPU as often as slices are cut for the agent.
    pub const fn cutting(mut self) -> Self {
        self.cuts = true;
        self
    }

    /// As the wire has them.
    pub(crate) const fn flags(&self) -> u32 {
        (self.by_clock as u32) << 16 | (self.cuts as u32) << 17
    }

    /// For how many wakeups; 0: there is no permit.
    pub const fn get_wakeups(&self) -> u32 {
        self.wakeups
    }

    /// For how long.
    pub const fn get_lasting(&self) -> Nanos {
        self.lasts
    }

    /// The pace, in parts of [`UNIT`](Self::UNIT).
    pub const fn pace(&self) -> u32 {
        self.pace
    }

    /// Does the place follow the [clock](Self::by_clock)?
    pub const fn is_by_clock(&self) -> bool {
        self.by_clock
    }

    /// May it [cut](Self::cutting) slices?
    pub const fn cuts(&self) -> bool {
        self.cuts
    }

    /// Where a task has its place that was decided on with this vtime and has run so long since: what the core computes.
    pub const fn order(&self, vtime: u64, ran: Nanos) -> u64 {
        vtime.wrapping_add(ran.as_u64().wrapping_mul(self.pace as u64) >> 10)
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wakeups within {}", self.wakeups, self.lasts)
    }
}

/// What ends permits: a word for all tasks and one for each hash of a pid. A permit keeps the sum of its two and holds
/// while that is the same.
#[cfg(feature = "sim")]
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    all: u64,
    words: Vec<u64>,
}

/// As many as `QM_REVOKE_WORDS`.
#[cfg(feature = "sim")]
const WORDS: usize = 1024;

#[cfg(feature = "sim")]
impl Default for Marks {
    fn default() -> Self {
        Self { all: 0, words: vec![0; WORDS] }
    }
}

#[cfg(feature = "sim")]
impl Marks {
    pub(crate) fn of(&self, pid: Pid) -> u32 {
        self.all.wrapping_add(self.words[pid.0 as u32 as usize % WORDS]) as u32
    }

    pub(crate) fn revoke(&mut self, pid: Option<Pid>) {
        let word = match pid {
            Some(pid) => &mut self.words[pid.0 as u32 as usize % WORDS],
            None => &mut self.all,
        };
        *word = word.wrapping_add(1);
    }
}
