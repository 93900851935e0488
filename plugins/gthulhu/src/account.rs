//! What the policy remembers about a task.

use gthulhu_model::TokenBucket;
use qumun::{Nanos, Pid};

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
    pub(crate) family: Family,
    /// What the process has earned for which it has just waited, if it was one of its own.
    pub(crate) waited_for: Option<u64>,
    pub(crate) wish: Wish,
    pub(crate) tokens: TokenBucket,
    /// Its turn: where it was put, how long it is, how much of it is over, and how often it was cut.
    pub(crate) turn: Turn,
}

/// Who made whom. A process that is new begins with a lead that the task that made it has for others: so what a shell
/// starts for its user is as quick as the shell. (Linux 2.6 had such a rule for its sleep average.)
///
/// A lead for others is earned by sleep, up to [`Handicap::MOST`], and is gone when it is given: half of it each time. The
/// sleep in which a task waits for its own process earns what that process has earned. Else whoever starts one program
/// after the other, and is never idle, had a lead for all of them, which would be a share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Family {
    pub(crate) parent: Pid,
    /// The lead that it was given.
    given: u64,
    /// The lead that it has for others.
    gift: u64,
    /// Has it ever made a process?
    pub(crate) has_children: bool,
}

impl Account {
    /// It slept; if it was its own process that woke it, that has earned so much.
    pub(crate) fn slept(&mut self, time: u64, child: Option<u64>) {
        self.handicap.slept(time);
        let earned = child.map_or(time, |earned| earned.min(time));
        self.family.gift = self.family.gift.saturating_add(earned).min(Handicap::MOST);
    }

    /// It makes a process: this is what that begins with.
    pub(crate) fn makes(&mut self, me: Pid) -> Self {
        let given = self.family.gift.min(self.handicap.lead()) / 2;
        self.family.has_children = true;
        self.family.gift -= given;
        let mut child = Self::default();
        child.handicap.slept(given);
        child.family = Family { parent: me, given, gift: given, has_children: false };
        child
    }

    /// The lead that it has earned by sleeping itself.
    pub(crate) fn earned(&self) -> u64 {
        self.handicap.lead().saturating_sub(self.family.given)
    }
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
