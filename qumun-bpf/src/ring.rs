//! Both rings, in place.
//!
//! The layout is the kernel's (`kernel/bpf/ringbuf.c`): one page with the consumer's position, one
//! with the producer's, then the data twice in a row, so that a record never wraps. A record is an
//! 8-byte header (length with two flag bits, then a word for the kernel) and the payload, padded to 8.
//! libbpf moves one record per call; here a batch moves per position update.
//!
//! How the positions and headers are read and written is in `protocol.rs`, where loom can follow it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::map::{Mapping, page_size};
use crate::protocol::{Consumer, HEADER, Memory, Position, Producer, Record};
use crate::wire::{Decision, Event};
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

/// The consumer of events.
#[derive(Debug)]
pub struct EventRing(Consumer<Mapped>);

impl EventRing {
    /// Maps the ring. `bytes` is the map's `max_entries`, a power of two.
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two or less than a page.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        Ok(Self(Consumer::new(Mapped::new(fd, bytes, Position::Consumer, "the event ring")?)))
    }

    /// A copy of the next record, `None` if there is none. Its room is given back by
    /// [`EventRing::release`], once for all records read since the last time.
    pub fn pop(&mut self) -> Option<Event> {
        self.0.pop()
    }

    /// Gives the room of everything read back to the core.
    pub fn release(&mut self) {
        self.0.release();
    }

    /// How often positions or lengths in the ring made no sense. What was there was skipped; the ring
    /// goes on after the next [`EventRing::release`].
    pub fn corrupted(&self) -> u64 {
        self.0.corrupted()
    }
}

/// The producer of decisions.
#[derive(Debug)]
pub struct DecisionRing(Producer<Mapped>);

impl DecisionRing {
    /// Maps the ring. What an earlier producer left in it is still there: see
    /// [`DecisionRing::resync`].
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two or less than a page.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        Ok(Self(Producer::new(Mapped::new(fd, bytes, Position::Producer, "the decision ring")?)))
    }

    /// Takes back everything that the core has not read, an earlier producer's too. Call it only while
    /// the core is degraded, when it does not read the ring.
    pub fn resync(&mut self) {
        self.0.resync();
    }

    /// Writes a decision. The core sees it after [`DecisionRing::publish`].
    ///
    /// # Errors
    /// [`Full`], when the core has not read enough; the decision is the caller's still.
    pub fn push(&mut self, decision: &Decision) -> std::result::Result<(), Full> {
        if self.0.push(decision) { Ok(()) } else { Err(Full) }
    }

    /// Shows the core everything pushed since the last time. One store, however many there are.
    pub fn publish(&mut self) {
        self.0.publish();
    }

    /// Writes a record with any payload: for tests that play a hostile agent.
    #[doc(hidden)]
    pub fn push_raw(&mut self, payload: &[u8]) -> std::result::Result<(), Full> {
        let (at, next) = self.0.reserve(payload.len() as u64).ok_or(Full)?;
        self.0.memory.write_bytes(at, payload);
        self.0.advance(next);
        Ok(())
    }

    /// Writes raw bytes where records go and publishes any position: for tests that play a hostile
    /// agent.
    #[doc(hidden)]
    pub fn scribble(&mut self, offset: usize, bytes: &[u8], producer_position: Option<u64>) {
        let memory = &self.0.memory;
        let target = memory.data(offset as u64 & (memory.size() - 1), bytes.len());
        // SAFETY: in bounds; the memory is shared with the kernel, which copies before it trusts.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        if let Some(p) = producer_position {
            memory.store(Position::Producer, p, Ordering::Release);
        }
    }

    /// The core's position, for tests.
    #[doc(hidden)]
    pub fn consumer_position(&self) -> u64 {
        self.0.memory.load(Position::Consumer, Ordering::Acquire)
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
