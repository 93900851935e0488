//! The protocol of the shared arrays, over any memory: the transport beside the kernel's ring buffers.
//!
//! As in `protocol.rs`, everything that decides something is here, and where the words lie is [`Array`]: two mapped
//! BPF maps ([`crate::ring`]), a piece of heap (tests, Miri) or loom's cells (`crate::model`). The core's side is
//! `bpf/transport.h`.
//!
//! A position counts records and is never reduced; its low bits are the slot. Events have many producers: a CPU takes a
//! slot by adding to the core's position, writes the record, then counts the slot as *written*. So a slot is ready
//! for the reader on its n-th way round when it was written n times, whatever the position says. Decisions
//! have one producer, and what it has published is ready.

use std::sync::atomic::Ordering;

use crate::protocol::{Position, Record};

/// Where an array lies. Orderings are named by the protocol and must be kept.
pub trait Array {
    /// How many slots, a power of two.
    fn slots(&self) -> u64;
    /// Reads a position.
    fn load(&self, which: Position, order: Ordering) -> u64;
    /// Writes a position.
    fn store(&self, which: Position, value: u64, order: Ordering);
    /// How often a slot was written: of events only.
    fn written(&self, slot: u64, order: Ordering) -> u64;
    /// Copies the record in a slot.
    fn read<T: Record>(&self, slot: u64) -> T;
    /// Writes the record in a slot.
    fn write<T: Record>(&self, slot: u64, record: &T);
}

/// Reads what the core produces.
#[derive(Debug)]
pub struct Reader<A> {
    pub(crate) array: A,
    /// The next record to read.
    next: u64,
    corrupted: u64,
}

impl<A: Array> Reader<A> {
    /// Goes on where the last reader of this array stopped.
    pub fn new(array: A) -> Self {
        let mut reader =
            Self { next: array.load(Position::Consumer, Ordering::Relaxed), array, corrupted: 0 };
        // An agent that died may have left anything there. From here on the position is ours alone.
        let sent = reader.array.load(Position::Producer, Ordering::Acquire);
        if sent.checked_sub(reader.next).is_none_or(|unread| unread > reader.array.slots()) {
            reader.give_up();
        }
        reader
    }

    /// The next record, `None` if there is none.
    #[inline]
    pub fn pop<T: Record>(&mut self) -> Option<T> {
        let slots = self.array.slots();
        let slot = self.next & (slots - 1);
        let round = (self.next >> slots.trailing_zeros()) + 1;
        // Acquire: pairs with the core's count of the slot (a full barrier). What it wrote into the record before is
        // visible after.
        let written = self.array.written(slot, Ordering::Acquire);
        if written != round {
            // Too often: what we did not read was written over, see EVENT_ROOM in transport.h.
            if written > round {
                self.give_up();
            }
            return None;
        }
        self.next = self.next.wrapping_add(1);
        Some(self.array.read(slot))
    }

    /// Is there a record to read, or something wrong that [`pop`](Self::pop) will see to? Reads one word.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let slots = self.array.slots();
        let round = (self.next >> slots.trailing_zeros()) + 1;
        self.array.written(self.next & (slots - 1), Ordering::Relaxed) >= round
    }

    /// Gives the room of everything read back to the core.
    pub fn release(&mut self) {
        // Release: our copies are made before the core writes there again.
        self.array.store(Position::Consumer, self.next, Ordering::Release);
    }

    /// How often records were lost, or the position of an earlier reader made no sense.
    pub fn corrupted(&self) -> u64 {
        self.corrupted
    }

    /// Goes on with whatever is sent from now on. The core sends nothing while it finds our position too far away, so the
    /// next release repairs that.
    fn give_up(&mut self) {
        self.next = self.array.load(Position::Producer, Ordering::Acquire);
        self.corrupted += 1;
    }
}

/// Writes what the core consumes.
#[derive(Debug)]
pub struct Writer<A> {
    pub(crate) array: A,
    /// Where the next record goes; published only by [`Writer::publish`].
    next: u64,
}

impl<A: Array> Writer<A> {
    /// Writes nothing; what an earlier writer left is still there until [`Writer::resync`].
    pub fn new(array: A) -> Self {
        Self { array, next: 0 }
    }

    /// Takes back everything that the core has not read. Only while it does not read.
    pub fn resync(&mut self) {
        self.next = self.array.load(Position::Consumer, Ordering::Acquire);
        self.publish();
    }

    /// Writes a record. The core sees it after [`Writer::publish`]. False: no room.
    #[inline]
    pub fn push<T: Record>(&mut self, record: &T) -> bool {
        let Some(slot) = self.reserve() else { return false };
        self.array.write(slot, record);
        self.advance();
        true
    }

    /// The slot of the next record.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Option<u64> {
        // Acquire: pairs with the core's claim (a full barrier). It has its copy before we write there again.
        let read = self.array.load(Position::Consumer, Ordering::Acquire);
        // A core past us was still taking when we resynced: a CPU of a guest may stand still for any time. What
        // we wrote up to there it will not read; behind that it will.
        self.next = self.next.max(read);
        (self.next - read < self.array.slots()).then_some(self.next & (self.array.slots() - 1))
    }

    pub(crate) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the core everything pushed. One store, however many there are.
    pub fn publish(&mut self) {
        // Release: the records are visible before it.
        self.array.store(Position::Producer, self.next, Ordering::Release);
    }
}
