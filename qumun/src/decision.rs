//! What the agent tells the core.

use std::fmt;

use crate::{Cpu, Nanos, Permit, TaskId};

/// Lets one parked task run. Made by [`Queued::anywhere`](crate::Queued::anywhere) or
/// [`Queued::on`](crate::Queued::on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a decision does nothing until it is returned or sent"]
pub struct Decision {
    id: TaskId,
    cpu: Option<Cpu>,
    slice: Nanos,
    vtime: u64,
    seen_at: Nanos,
    decided_at: Nanos,
    permit: Permit,
}

impl Decision {
    /// A decision on this enqueue of this task: a CPU, or `None` for any.
    pub const fn new(id: TaskId, cpu: Option<Cpu>) -> Self {
        let (slice, seen_at, decided_at) = (Nanos::ZERO, Nanos::ZERO, Nanos::ZERO);
        Self { id, cpu, slice, vtime: 0, seen_at, decided_at, permit: Permit::wakeups(0) }
    }

    /// Asks for this CPU, as [`Queued::on`](crate::Queued::on) does.
    pub const fn on(mut self, cpu: Cpu) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// How long the task may run before it is asked to give way. Zero (as when this is not called)
    /// means the core's default; anything else is clamped to the core's bounds.
    pub const fn slice(mut self, slice: Nanos) -> Self {
        self.slice = slice;
        self
    }

    /// The order among the tasks that wait for the same CPU, or for any: the lowest first, equal
    /// ones as they came.
    pub const fn vtime(mut self, vtime: u64) -> Self {
        self.vtime = vtime;
        self
    }

    /// Lets the core do the same by itself when the task wakes up next, so often and so long.
    pub const fn permit(mut self, permit: Permit) -> Self {
        self.permit = permit;
        self
    }

    /// The permit; one for no wakeups if there is none.
    pub const fn get_permit(&self) -> Permit {
        self.permit
    }

    /// Which enqueue of which task this is about.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// The CPU asked for; `None` for any.
    pub const fn cpu(&self) -> Option<Cpu> {
        self.cpu
    }

    /// The slice asked for; zero for the core's default.
    pub const fn get_slice(&self) -> Nanos {
        self.slice
    }

    /// The virtual time given.
    pub const fn get_vtime(&self) -> u64 {
        self.vtime
    }

    /// When the agent read the event; zero if this wakeup is not sampled.
    pub const fn seen_at(&self) -> Nanos {
        self.seen_at
    }

    /// When the policy handed the decision over; zero if this wakeup is not sampled.
    pub const fn decided_at(&self) -> Nanos {
        self.decided_at
    }

    pub(crate) const fn seen(mut self, at: Nanos) -> Self {
        self.seen_at = at;
        self
    }

    pub(crate) const fn decided(mut self, at: Nanos) -> Self {
        self.decided_at = at;
        self
    }
}

/// What a policy answers to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Do this now.
    Place(Decision),
    /// The policy keeps the task and will send a decision later, at the latest before the core's
    /// limit (30 ms by default) takes the task away from it.
    Keep,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        Self::Place(decision)
    }
}

/// The way to the core is full. The decision comes back; send it again in a later turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub Decision);

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room for a decision on pid {}", self.0.id.pid)
    }
}

impl std::error::Error for Full {}
