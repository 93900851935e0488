//! A backend with no machine behind it.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::{Backend, Decision, Epoch, Event, ExitInfo, Full, IdleView, Nanos, Queued};

/// A backend that a test controls field by field: it delivers the events that the test puts in and
/// keeps the decisions that come out. For tests of single decisions; [`Machine`](super::Machine) is for
/// what comes of them.
#[derive(Clone, Debug)]
pub struct Script {
    /// What the agent receives, first to last.
    pub events: VecDeque<Event>,
    /// How many decisions the ring holds in all: it is never emptied.
    pub room: usize,
    /// All decisions so far.
    pub sent: Vec<Decision>,
    /// How many of them were published.
    pub published: usize,
    /// How often the agent published.
    pub publishes: usize,
    /// The present agreement.
    pub epoch: Epoch,
    /// What the agent acknowledged.
    pub acknowledged: Vec<Epoch>,
    /// The idle CPUs.
    pub idle: IdleView,
    /// The clock. Each look at it takes a nanosecond.
    pub now: Cell<Nanos>,
    /// Each rest of the agent, and whether it was after an idle turn.
    pub rests: Vec<bool>,
    /// The scheduler is removed after so many rests.
    pub removed_after: usize,
}

impl Script {
    /// A script for a machine with so many CPUs, all busy, and room for any number of decisions.
    pub fn new(nr_cpus: u32) -> Self {
        Self {
            events: VecDeque::new(),
            room: usize::MAX,
            sent: Vec::new(),
            published: 0,
            publishes: 0,
            epoch: Epoch(1),
            acknowledged: Vec::new(),
            idle: IdleView::new(nr_cpus),
            now: Cell::new(Nanos(1_000)),
            rests: Vec::new(),
            removed_after: usize::MAX,
        }
    }

    /// Puts in the event that this task wants to run.
    pub fn queue(&mut self, task: Queued) {
        self.events.push_back(Event::Queued(task));
    }

    /// The pids of the decisions so far.
    pub fn pids(&self) -> Vec<i32> {
        self.sent.iter().map(|d| d.id().pid.0).collect()
    }
}

impl Backend for Script {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.acknowledged.push(epoch);
    }

    fn refresh(&mut self) {}

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn now(&self) -> Nanos {
        self.now.set(self.now.get() + Nanos(1));
        self.now.get()
    }

    fn receive(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        if self.sent.len() >= self.room {
            return Err(Full(*decision));
        }
        self.sent.push(*decision);
        Ok(())
    }

    fn publish(&mut self) {
        self.publishes += 1;
        self.published = self.sent.len();
    }

    fn rest(&mut self, idle_turn: bool) {
        self.rests.push(idle_turn);
    }

    fn exited(&mut self) -> Option<ExitInfo> {
        (self.rests.len() >= self.removed_after).then(ExitInfo::default)
    }
}
