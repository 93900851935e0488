//! Both rings, in place; each is one of two kinds ([`Transport`]).
//!
//! The shared arrays are [`EventArray`] and [`DecisionArray`], their protocol is in `array.rs`. Of the kernel's ring buffers
//! the layout is the kernel's (`kernel/bpf/ringbuf.c`): one page with the consumer's position, one
//! with the producer's, then the data twice in a row, so that a record never wraps. A record is an
//! 8-byte header (length with two flag bits, then a word for the kernel) and the payload, padded to 8.
//! libbpf moves one record per call; here a batch moves per position update.
//!
//! How the positions and headers are read and written is in `protocol.rs`, where loom can follow it.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::array::{Array, Reader, Writer};
use crate::map::{Mapping, map_type, page_size};
use crate::protocol::{Consumer, HEADER, Memory, Position, Producer, Record};
use crate::wire::{DECISION_SLOTS, Decision, DecisionArray, EVENT_SLOTS, Event, EventArray, EventSlot};
use crate::{Error, ErrorKind, Result};

/// Bytes of the map `qm_events`, as in `bpf/state.h`.
pub const EVENT_RING_BYTES: usize = 1 << 20;
/// Bytes of the map `qm_decisions`.
pub const DECISION_RING_BYTES: usize = 1 << 19;

// SAFETY: repr(C) integers and byte arrays; the sizes and offsets that `wire.rs` asserts leave no padding.
unsafe impl Record for Event {}
// SAFETY: as above.
unsafe impl Record for Decision {}

/// A ring as the kernel maps it.
#[derive(Debug)]
struct Mapped {
    consumer: Mapping,
    producer: Mapping,
    bytes: usize,
}

impl Mapped {
    /// Maps both pages and the data; only one side's position is ours to write.
    fn new(fd: BorrowedFd<'_>, bytes: usize, ours: Position, what: &str) -> Result<Self> {
        check(bytes)?;
        let page = page_size();
        let consumes = ours == Position::Consumer;
        Ok(Self {
            consumer: Mapping::new(fd, page, 0, consumes, &format!("{what}'s consumer position"))?,
            producer: Mapping::new(fd, page + 2 * bytes, page, !consumes, what)?,
            bytes,
        })
    }

    fn position(&self, which: Position) -> &AtomicU64 {
        let mapping = match which {
            Position::Consumer => &self.consumer,
            Position::Producer => &self.producer,
        };
        // SAFETY: the first word of a page-aligned mapping; both sides access it atomically only.
        unsafe { AtomicU64::from_ptr(mapping.at(0, 8).cast()) }
    }

    /// `size` bytes of the data at `at`, which is below the ring's size. The second copy of the data is
    /// behind the first, so a record need not be cut.
    fn data(&self, at: u64, size: usize) -> *mut u8 {
        self.producer.at(page_size() + at as usize, size)
    }

    fn write_bytes(&self, at: u64, payload: &[u8]) {
        let header = self.data(at, HEADER as usize + payload.len());
        // SAFETY: in bounds, 8-aligned as every position, and not yet published.
        unsafe {
            header.cast::<u64>().write(payload.len() as u64);
            std::ptr::copy_nonoverlapping(payload.as_ptr(), header.add(HEADER as usize), payload.len());
        }
    }
}

/// The kernel's own conditions for a ring.
fn check(bytes: usize) -> Result<()> {
    if bytes.is_power_of_two() && bytes >= page_size() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("a ring of {bytes} bytes; it must be a power of two and at least a page"),
    ))
}

impl Memory for Mapped {
    fn size(&self) -> u64 {
        self.bytes as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        self.position(which).load(order)
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        self.position(which).store(value, order);
    }

    fn header(&self, at: u64, order: Ordering) -> u32 {
        // SAFETY: in bounds, and 8-aligned as every position; the kernel writes it atomically.
        unsafe { AtomicU32::from_ptr(self.data(at, HEADER as usize).cast()) }.load(order)
    }

    fn read<T: Record>(&self, at: u64) -> T {
        let payload = self.data(at + HEADER, size_of::<T>()).cast::<T>();
        // SAFETY: in bounds, 8-aligned, any bits are a T, and the kernel writes no more to a record
        // that is not busy until the consumer's position has passed it.
        unsafe { payload.read() }
    }

    fn write<T: Record>(&self, at: u64, record: &T) {
        let header = self.data(at, HEADER as usize + size_of::<T>());
        // SAFETY: in bounds (the data area is mapped twice), 8-aligned, and not yet published.
        unsafe {
            header.cast::<u64>().write(size_of::<T>() as u64);
            header.add(HEADER as usize).cast::<T>().write(*record);
        }
    }
}

/// How events get to the agent, and decisions back. Fixed at load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The kernel's ring buffers: `BPF_MAP_TYPE_RINGBUF` and `BPF_MAP_TYPE_USER_RINGBUF`.
    Rings,
    /// Two arrays that both sides map.
    #[default]
    Shared,
}

impl Transport {
    /// The maps of events and of decisions, by the end of their names.
    pub fn maps(self) -> [&'static str; 2] {
        match self {
            Self::Rings => ["qm_events", "qm_decisions"],
            Self::Shared => ["qm_eslots", "qm_dslots"],
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rings => "rings",
            Self::Shared => "shared",
        })
    }
}

/// Both rings of a core, of the kind that its descriptors are.
pub(crate) fn map(events: BorrowedFd<'_>, decisions: BorrowedFd<'_>) -> Result<(EventRing, DecisionRing)> {
    // include/uapi/linux/bpf.h
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    Ok(match map_type(events)? {
        BPF_MAP_TYPE_ARRAY => {
            (EventRing::shared(events, decisions)?, DecisionRing::shared(events, decisions)?)
        }
        _ => (EventRing::new(events, EVENT_RING_BYTES)?, DecisionRing::new(decisions, DECISION_RING_BYTES)?),
    })
}

/// The array of events, as the agent maps it.
#[derive(Debug)]
struct EventSlots {
    /// An [`EventArray`].
    core: Mapping,
    /// The first words of a [`DecisionArray`].
    agent: Mapping,
}

/// The array of decisions, as the agent maps it.
#[derive(Debug)]
struct DecisionSlots {
    /// The first words of an [`EventArray`].
    core: Mapping,
    /// A [`DecisionArray`].
    agent: Mapping,
}

fn word(mapping: &Mapping, at: usize) -> &AtomicU64 {
    // SAFETY: the callers name an aligned word of a page-aligned mapping; both sides access it atomically only.
    unsafe { AtomicU64::from_ptr(mapping.at(at, 8).cast()) }
}

impl EventSlots {
    fn slot(&self, slot: u64) -> usize {
        offset_of!(EventArray, slots) + slot as usize * size_of::<EventSlot>()
    }
}

impl Array for EventSlots {
    fn slots(&self) -> u64 {
        EVENT_SLOTS as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        match which {
            Position::Producer => word(&self.core, offset_of!(EventArray, sent)),
            Position::Consumer => word(&self.agent, offset_of!(DecisionArray, read)),
        }
        .load(order)
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        debug_assert_eq!(which, Position::Consumer, "the other one is the core's");
        word(&self.agent, offset_of!(DecisionArray, read)).store(value, order);
    }

    fn written(&self, slot: u64, order: Ordering) -> u64 {
        word(&self.core, self.slot(slot) + offset_of!(EventSlot, written)).load(order)
    }

    fn read<T: Record>(&self, slot: u64) -> T {
        const { assert!(size_of::<T>() <= offset_of!(EventSlot, written)) };
        // SAFETY: in bounds and 8-aligned, any bits are a T, and the core writes there no more until the consumer's
        // position has passed it.
        unsafe { self.core.at(self.slot(slot), size_of::<T>()).cast::<T>().read() }
    }

    fn write<T: Record>(&self, _: u64, _: &T) {
        unreachable!("events are written by the core");
    }
}

impl Array for DecisionSlots {
    fn slots(&self) -> u64 {
        DECISION_SLOTS as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        match which {
            Position::Producer => word(&self.agent, offset_of!(DecisionArray, published)),
            Position::Consumer => word(&self.core, offset_of!(EventArray, taken)),
        }
        .load(order)
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        debug_assert_eq!(which, Position::Producer, "the other one is the core's");
        word(&self.agent, offset_of!(DecisionArray, published)).store(value, order);
    }

    fn written(&self, _: u64, _: Ordering) -> u64 {
        unreachable!("decisions have one producer: they are not counted");
    }

    fn read<T: Record>(&self, _: u64) -> T {
        unreachable!("decisions are read by the core");
    }

    fn write<T: Record>(&self, slot: u64, record: &T) {
        const { assert!(size_of::<T>() == size_of::<Decision>()) };
        // SAFETY: in bounds, 8-aligned, and not yet published.
        unsafe { self.bytes(slot as usize * size_of::<T>(), size_of::<T>()).cast::<T>().write(*record) }
    }
}

impl DecisionSlots {
    /// Where in the slots.
    fn bytes(&self, at: usize, size: usize) -> *mut u8 {
        self.agent.at(offset_of!(DecisionArray, slots) + at, size)
    }
}

/// The consumer of events.
#[derive(Debug)]
pub struct EventRing(EventKind);

#[derive(Debug)]
enum EventKind {
    Ring(Consumer<Mapped>),
    Array(Reader<EventSlots>),
}

impl EventRing {
    /// Maps a BPF ring buffer. `bytes` is the map's `max_entries`, a power of two.
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two or less than a page.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        let mapped = Mapped::new(fd, bytes, Position::Consumer, "the event ring")?;
        Ok(Self(EventKind::Ring(Consumer::new(mapped))))
    }

    /// Maps the shared arrays: that of events, and of that of decisions the position in the events.
    ///
    /// # Errors
    /// When a map cannot be mapped.
    pub fn shared(events: BorrowedFd<'_>, decisions: BorrowedFd<'_>) -> Result<Self> {
        let len = size_of::<EventArray>().next_multiple_of(page_size());
        let slots = EventSlots {
            core: Mapping::new(events, len, 0, false, "the array of events")?,
            agent: Mapping::new(decisions, page_size(), 0, true, "the position in the events")?,
        };
        Ok(Self(EventKind::Array(Reader::new(slots))))
    }

    /// A copy of the next record, `None` if there is none. Its room is given back by
    /// [`EventRing::release`], once for all records read since the last time.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        match &mut self.0 {
            EventKind::Ring(ring) => ring.pop(),
            EventKind::Array(array) => array.pop(),
        }
    }

    /// Is there perhaps a record to read? Of the shared array, one word is read; of a ring buffer nobody knows before
    /// [`EventRing::pop`].
    #[inline]
    pub fn may_have(&self) -> bool {
        match &self.0 {
            EventKind::Ring(_) => true,
            EventKind::Array(array) => array.is_ready(),
        }
    }

    /// The same into a place of the caller's; `false` if there is none.
    #[inline]
    pub fn pop_into(&mut self, event: &mut Event) -> bool {
        match self.pop() {
            Some(next) => *event = next,
            None => return false,
        }
        true
    }

    /// Gives the room of everything read back to the core.
    pub fn release(&mut self) {
        match &mut self.0 {
            EventKind::Ring(ring) => ring.release(),
            EventKind::Array(array) => array.release(),
        }
    }

    /// How often positions, lengths or counts made no sense. What was there was skipped; the ring goes on after the next
    /// [`EventRing::release`].
    pub fn corrupted(&self) -> u64 {
        match &self.0 {
            EventKind::Ring(ring) => ring.corrupted(),
            EventKind::Array(array) => array.corrupted(),
        }
    }
}

/// The producer of decisions.
#[derive(Debug)]
pub struct DecisionRing(DecisionKind);

#[derive(Debug)]
enum DecisionKind {
    Ring(Producer<Mapped>),
    Array(Writer<DecisionSlots>),
}

impl DecisionRing {
    /// Maps a user ring buffer. What an earlier producer left in it is still there: see
    /// [`DecisionRing::resync`].
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two or less than a page.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        let mapped = Mapped::new(fd, bytes, Position::Producer, "the decision ring")?;
        Ok(Self(DecisionKind::Ring(Producer::new(mapped))))
    }

    /// Maps the shared arrays: that of decisions, and of that of events the core's position in the decisions. What an
    /// earlier producer left is still there.
    ///
    /// # Errors
    /// When a map cannot be mapped.
    pub fn shared(events: BorrowedFd<'_>, decisions: BorrowedFd<'_>) -> Result<Self> {
        let len = size_of::<DecisionArray>().next_multiple_of(page_size());
        let slots = DecisionSlots {
            core: Mapping::new(events, page_size(), 0, false, "the core's position in the decisions")?,
            agent: Mapping::new(decisions, len, 0, true, "the array of decisions")?,
        };
        Ok(Self(DecisionKind::Array(Writer::new(slots))))
    }

    /// Takes back everything that the core has not read, an earlier producer's too. Call it only while
    /// the core is degraded, when it does not read the ring.
    pub fn resync(&mut self) {
        match &mut self.0 {
            DecisionKind::Ring(ring) => ring.resync(),
            DecisionKind::Array(array) => array.resync(),
        }
    }

    /// Writes a decision. The core sees it after [`DecisionRing::publish`].
    ///
    /// # Errors
    /// [`Full`], when the core has not read enough; the decision is the caller's still.
    #[inline]
    pub fn push(&mut self, decision: &Decision) -> std::result::Result<(), Full> {
        let pushed = match &mut self.0 {
            DecisionKind::Ring(ring) => ring.push(decision),
            DecisionKind::Array(array) => array.push(decision),
        };
        if pushed { Ok(()) } else { Err(Full) }
    }

    /// Shows the core everything pushed since the last time. One store, however many there are.
    pub fn publish(&mut self) {
        match &mut self.0 {
            DecisionKind::Ring(ring) => ring.publish(),
            DecisionKind::Array(array) => array.publish(),
        }
    }

    /// Writes a record with any payload: for tests that play a hostile agent. In an array all records are as long as a
    /// decision; the rest of the slot stays as it is.
    #[doc(hidden)]
    pub fn push_raw(&mut self, payload: &[u8]) -> std::result::Result<(), Full> {
        match &mut self.0 {
            DecisionKind::Ring(ring) => {
                let (at, next) = ring.reserve(payload.len() as u64).ok_or(Full)?;
                ring.memory.write_bytes(at, payload);
                ring.advance(next);
            }
            DecisionKind::Array(array) => {
                let slot = array.reserve().ok_or(Full)? as usize;
                let payload = &payload[..payload.len().min(size_of::<Decision>())];
                self.scribble(slot * size_of::<Decision>(), payload, None);
                if let DecisionKind::Array(array) = &mut self.0 {
                    array.advance();
                }
            }
        }
        Ok(())
    }

    /// Writes raw bytes where records go and publishes any position: for tests that play a hostile
    /// agent.
    #[doc(hidden)]
    pub fn scribble(&mut self, offset: usize, bytes: &[u8], producer_position: Option<u64>) {
        let target = match &self.0 {
            DecisionKind::Ring(ring) => {
                ring.memory.data(offset as u64 & (ring.memory.size() - 1), bytes.len())
            }
            DecisionKind::Array(array) => {
                let all = DECISION_SLOTS * size_of::<Decision>();
                array.array.bytes((offset % all).min(all - bytes.len()), bytes.len())
            }
        };
        // SAFETY: in bounds; the memory is shared with the kernel, which copies before it trusts.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        if let Some(p) = producer_position {
            match &self.0 {
                DecisionKind::Ring(ring) => ring.memory.store(Position::Producer, p, Ordering::Release),
                DecisionKind::Array(array) => array.array.store(Position::Producer, p, Ordering::Release),
            }
        }
    }

    /// By how much a position grows with a record of `len` bytes, and how far in bytes the next one is: for tests.
    #[doc(hidden)]
    pub fn step(&self, len: usize) -> (u64, usize) {
        match &self.0 {
            DecisionKind::Ring(_) => {
                let bytes = (HEADER as usize + len).next_multiple_of(8);
                (bytes as u64, bytes)
            }
            DecisionKind::Array(_) => (1, size_of::<Decision>()),
        }
    }

    /// The core's position, for tests.
    #[doc(hidden)]
    pub fn consumer_position(&self) -> u64 {
        match &self.0 {
            DecisionKind::Ring(ring) => ring.memory.load(Position::Consumer, Ordering::Acquire),
            DecisionKind::Array(array) => array.array.load(Position::Consumer, Ordering::Acquire),
        }
    }
}

/// The ring has no room for another decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the decision ring is full")
    }
}

impl std::error::Error for Full {}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
