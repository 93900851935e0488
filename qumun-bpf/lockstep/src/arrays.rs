//! The shared arrays of the C core, and the agent's side of them over the same memory.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};

use qumun_bpf::array::Array;
use qumun_bpf::protocol::{Position, Record};
use qumun_bpf::wire::{Decision, DecisionArray, EventArray};

use crate::native;

/// Records in a CPU's batch.
pub const BATCH: usize = 32;

/// The C core's arrays, as after a load. There is one at a time, and no [`Compiled`](crate::Compiled) beside it.
#[derive(Debug)]
pub struct Arrays {
    events: *mut EventArray,
    decisions: *mut DecisionArray,
    _alone: MutexGuard<'static, ()>,
}

// SAFETY: what is shared is words that both sides access atomically, and slots that belong to one side at a time.
unsafe impl Sync for Arrays {}

impl Arrays {
    /// Arrays in which so many events may be unread.
    pub fn new(room: u64) -> Self {
        let alone = super::alone();
        let (events, decisions) = native::arrays(room);
        Self { events, decisions, _alone: alone }
    }

    /// `event_reserve`, a number, `event_submit`. False: there is no room.
    pub fn send(&self, number: i32) -> bool {
        native::send(number)
    }

    /// `take_from_array` for a CPU that has `n` decisions: how many it took, or a negative error.
    pub fn take(&self, cpu: u32, n: u32) -> i64 {
        native::take(cpu, n)
    }

    /// The batch of a CPU.
    pub fn batch(&self, cpu: u32) -> [Decision; BATCH] {
        // SAFETY: so many are there, of this layout; only a call of this CPU's changes them.
        unsafe { native::batch(cpu).cast::<[Decision; BATCH]>().read() }
    }

    /// A word of the core's: events sent, or decisions taken.
    pub fn core(&self, which: Position) -> &AtomicU64 {
        // SAFETY: live for ever; aligned words that both sides access atomically.
        unsafe {
            AtomicU64::from_ptr(match which {
                Position::Producer => &raw mut (*self.events).sent,
                Position::Consumer => &raw mut (*self.events).taken,
            })
        }
    }

    /// A word of the agent's: decisions published, or events read.
    pub fn agent(&self, which: Position) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe {
            AtomicU64::from_ptr(match which {
                Position::Producer => &raw mut (*self.decisions).published,
                Position::Consumer => &raw mut (*self.decisions).read,
            })
        }
    }

    /// A slot for decisions.
    pub fn slot(&self, slot: u64) -> *mut Decision {
        // SAFETY: in bounds by the remainder.
        unsafe { &raw mut (*self.decisions).slots[slot as usize % qumun_bpf::wire::DECISION_SLOTS] }
    }
}

/// The agent's side of the events.
#[derive(Debug)]
pub struct Events<'a>(pub &'a Arrays);

/// The agent's side of the decisions.
#[derive(Debug)]
pub struct Decisions<'a>(pub &'a Arrays);

impl Array for Events<'_> {
    fn slots(&self) -> u64 {
        qumun_bpf::wire::EVENT_SLOTS as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        match which {
            Position::Producer => self.0.core(Position::Producer),
            Position::Consumer => self.0.agent(Position::Consumer),
        }
        .load(order)
    }

    fn store(&self, _: Position, value: u64, order: Ordering) {
        self.0.agent(Position::Consumer).store(value, order);
    }

    fn written(&self, slot: u64, order: Ordering) -> u64 {
        // SAFETY: in bounds by the index; an aligned word that both sides access atomically.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.events).slots[slot as usize].written) }.load(order)
    }

    fn read<T: Record>(&self, slot: u64) -> T {
        // SAFETY: in bounds by the index; the core writes there no more until the position has passed it.
        unsafe { (&raw const (*self.0.events).slots[slot as usize].event).cast::<T>().read() }
    }

    fn write<T: Record>(&self, _: u64, _: &T) {
        unreachable!("events are written by the core");
    }
}

impl Array for Decisions<'_> {
    fn slots(&self) -> u64 {
        qumun_bpf::wire::DECISION_SLOTS as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        match which {
            Position::Producer => self.0.agent(Position::Producer),
            Position::Consumer => self.0.core(Position::Consumer),
        }
        .load(order)
    }

    fn store(&self, _: Position, value: u64, order: Ordering) {
        self.0.agent(Position::Producer).store(value, order);
    }

    fn written(&self, _: u64, _: Ordering) -> u64 {
        unreachable!("decisions are not counted");
    }

    fn read<T: Record>(&self, _: u64) -> T {
        unreachable!("decisions are read by the core");
    }

    fn write<T: Record>(&self, slot: u64, record: &T) {
        // SAFETY: in bounds, and not published yet.
        unsafe { self.0.slot(slot).cast::<T>().write(*record) };
    }
}
