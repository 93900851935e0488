//! The tasks of a batch, earliest deadline first, in memory that is taken once.

use qumun::pool::{Handle, Heap};
use qumun::{Affinity, Cpu, Decision, Nanos};

/// What kind of CPU a task wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// An idle one, the nearer the better.
    Idle,
    /// One under its cache, if there will be one soon. So long it ran the last time.
    Warm(Nanos),
    /// An idle one that is left alone while it runs there.
    Own,
}

/// A task that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) last: Cpu,
    pub(crate) allowed: Affinity,
    /// How its CPU is chosen.
    pub(crate) wants: Wants,
    /// Its virtual time is the deadline.
    pub(crate) decision: Decision,
}

/// The earliest deadline first; then who waits longest; then as they came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// None before the policy has been started.
    heap: Option<Heap<Entry, (u64, Nanos)>>,
}

impl Waiting {
    /// With room for so many tasks, or for as many as the pool has memory for.
    pub(crate) fn new(pool: &Handle, capacity: usize) -> Self {
        let halves = std::iter::successors(Some(capacity), |n| Some(n / 2)).take_while(|&n| n > 0);
        Self { heap: halves.into_iter().find_map(|n| Heap::new(pool, n).ok()) }
    }

    /// Gives the entry back if there is no room.
    pub(crate) fn push(&mut self, enqueued_at: Nanos, entry: Entry) -> Result<(), Entry> {
        let Some(heap) = &mut self.heap else {
            return Err(entry);
        };
        heap.push((entry.decision.get_vtime(), enqueued_at), entry).map(|_| ())
    }

    /// The first one, which stays.
    pub(crate) fn peek(&self) -> Option<Entry> {
        Some(*self.heap.as_ref()?.peek()?.1)
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        Some(self.heap.as_mut()?.pop()?.1)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.as_ref().map_or(0, Heap::len)
    }

    pub(crate) fn clear(&mut self) {
        if let Some(heap) = &mut self.heap {
            heap.clear();
        }
    }
}
