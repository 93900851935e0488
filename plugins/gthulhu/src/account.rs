//! What the policy remembers about a task.

use gthulhu_model::TokenBucket;
use qumun::Nanos;

use crate::clock::Member;
use crate::groups::Standing;
use crate::wishes::Wish;

/// What the policy remembers about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub(crate) known: bool,
    /// The end of the last run that was charged: each run is charged once, however often the task is
    /// queued after it.
    pub(crate) charged: Nanos,
    /// Among the tasks of its cgroup.
    pub(crate) member: Member,
    /// How it was taken when it was queued last: its run is charged by it.
    pub(crate) weight: u32,
    pub(crate) cgroup: u64,
    pub(crate) manner: Manner,
    /// How much it has computed and not slept: see [`Handicap`].
    pub(crate) handicap: Handicap,
    pub(crate) wish: Wish,
    pub(crate) tokens: TokenBucket,
    /// Its turn: where it was put, how long it is, how much of it is over, and how often it was cut.
    pub(crate) turn: Turn,
}

/// By what a task is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Its turn by weight.
    #[default]
    Turn,
    /// The same, and its run costs so many percent less.
    Discount(u64),
    /// Tokens.
    Boost,
}

/// A turn of a task. Who is interrupted in it goes on where it was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) vtime: u64,
    /// Without the handicap.
    pub(crate) stands: Standing,
    /// How far in front of those who only compute.
    pub(crate) lead: u64,
    pub(crate) slice: Nanos,
    pub(crate) ran: Nanos,
    pub(crate) cuts: u8,
}

/// How far a task stands behind its place because it computes: the time that it ran less the time that it slept, from
/// zero to [`Handicap::MOST`]. It starts with the most, as nothing is known about it.
///
/// The lead of those who wait for events over those who compute, found from what they do: borrowed virtual time (BVT:
/// Duda and Cheriton 1999) with the sleep average of Linux 2.6's O(1) scheduler as its measure. It moves a task to
/// another place among others once, and gives it no more time than its weight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handicap(u64);

impl Handicap {
    pub(crate) const MOST: u64 = 100_000_000;

    /// How far in front of those who only compute.
    pub(crate) fn lead(self) -> u64 {
        Self::MOST - self.0
    }

    pub(crate) fn ran(&mut self, time: u64) {
        self.0 = self.0.saturating_add(time).min(Self::MOST);
    }

    pub(crate) fn slept(&mut self, time: u64) {
        self.0 = self.0.saturating_sub(time);
    }
}

impl Default for Handicap {
    fn default() -> Self {
        Self(Self::MOST)
    }
}
