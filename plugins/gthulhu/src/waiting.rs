//! The tasks of a batch, earliest deadline first, in memory that is allocated once.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use qumun::{Affinity, Cpu, Decision, Nanos, Pid};

/// A task that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) deadline: u64,
    pub(crate) enqueued_at: Nanos,
    pub(crate) pid: Pid,
    pub(crate) last: Cpu,
    pub(crate) allowed: Affinity,
    pub(crate) weight: u32,
    pub(crate) decision: Decision,
}

impl Entry {
    fn key(&self) -> (u64, Nanos, Pid) {
        (self.deadline, self.enqueued_at, self.pid)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The earliest deadline first; then who waits longest; then the lower pid.
#[derive(Debug)]
pub(crate) struct Waiting {
    heap: BinaryHeap<Reverse<Entry>>,
    capacity: usize,
}

impl Waiting {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity), capacity }
    }

    /// Gives the entry back if there is no room.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), Entry> {
        if self.heap.len() >= self.capacity {
            return Err(entry);
        }
        self.heap.push(Reverse(entry));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }
}
