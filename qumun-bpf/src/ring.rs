//! Both rings, in place.
//!
//! The layout is the kernel's (`kernel/bpf/ringbuf.c`): one page with the consumer's position, one
//! with the producer's, then the data twice in a row, so that a record never wraps. A record is an
//! 8-byte header (length with two flag bits, then a word for the kernel) and the payload, padded to 8.
//! libbpf moves one record per call; here a batch moves per position update.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::map::{Mapping, page_size};
use crate::wire::{Decision, Event};
use crate::{Error, ErrorKind, Result};

const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const RECORD: usize = HEADER + size_of::<Decision>();

/// Bytes of the map `qm_events`, as in `bpf/state.h`.
pub const EVENT_RING_BYTES: usize = 1 << 20;
/// Bytes of the map `qm_decisions`.
pub const DECISION_RING_BYTES: usize = 1 << 19;

fn position(mapping: &Mapping) -> &AtomicU64 {
    // SAFETY: the first word of a page-aligned mapping; both sides access it atomically only.
    unsafe { AtomicU64::from_ptr(mapping.at(0, 8).cast()) }
}

/// The consumer of events.
#[derive(Debug)]
pub struct EventRing {
    consumer: Mapping,
    producer: Mapping,
    mask: u64,
    /// Position of the next record to read.
    next: u64,
    /// The producer's position when it was read last.
    end: u64,
}

impl EventRing {
    /// Maps the ring. `bytes` is the map's `max_entries`, a power of two.
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        if !bytes.is_power_of_two() {
            return Err(Error::new(ErrorKind::Invalid, format!("a ring of {bytes} bytes")));
        }
        let page = page_size();
        let mut ring = Self {
            consumer: Mapping::new(fd, page, 0, true, "the event ring's consumer position")?,
            producer: Mapping::new(fd, page + 2 * bytes, page, false, "the event ring")?,
            mask: bytes as u64 - 1,
            next: 0,
            end: 0,
        };
        ring.next = position(&ring.consumer).load(Ordering::Relaxed);
        Ok(ring)
    }

    /// A copy of the next record, `None` if there is none. Its room is given back by
    /// [`EventRing::release`], once for all records read since the last time.
    pub fn pop(&mut self) -> Option<Event> {
        loop {
            if self.next >= self.end {
                self.end = position(&self.producer).load(Ordering::Acquire);
                if self.next >= self.end {
                    return None;
                }
            }
            let offset = page_size() + (self.next & self.mask) as usize;
            // SAFETY: a header is 8-aligned and inside the data area; the kernel writes it atomically.
            let header = unsafe { AtomicU32::from_ptr(self.producer.at(offset, HEADER).cast()) };
            let word = header.load(Ordering::Acquire);
            if word & BUSY != 0 {
                return None;
            }
            let len = (word & !DISCARD) as usize;
            self.next += (len + HEADER).next_multiple_of(8) as u64;
            if word & DISCARD == 0 && len == size_of::<Event>() {
                let payload = self.producer.at(offset + HEADER, len).cast::<Event>();
                // SAFETY: in bounds, 8-aligned, and the kernel writes no more to a record that is not
                // busy until the consumer's position has passed it.
                return Some(unsafe { payload.read() });
            }
        }
    }

    /// Gives the room of everything read back to the core.
    pub fn release(&mut self) {
        position(&self.consumer).store(self.next, Ordering::Release);
    }
}

/// The producer of decisions.
#[derive(Debug)]
pub struct DecisionRing {
    consumer: Mapping,
    producer: Mapping,
    mask: u64,
    /// Where the next record goes; published only by [`DecisionRing::publish`].
    next: u64,
}

impl DecisionRing {
    /// Maps the ring. What an earlier producer left in it is still there: see
    /// [`DecisionRing::resync`].
    ///
    /// # Errors
    /// When the map cannot be mapped, or `bytes` is no power of two.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        if !bytes.is_power_of_two() {
            return Err(Error::new(ErrorKind::Invalid, format!("a ring of {bytes} bytes")));
        }
        let page = page_size();
        Ok(Self {
            consumer: Mapping::new(fd, page, 0, false, "the decision ring's consumer position")?,
            producer: Mapping::new(fd, page + 2 * bytes, page, true, "the decision ring")?,
            mask: bytes as u64 - 1,
            next: 0,
        })
    }

    /// Takes back everything that the core has not read, an earlier producer's too. Call it only while
    /// the core is degraded, when it does not read the ring.
    pub fn resync(&mut self) {
        self.next = position(&self.consumer).load(Ordering::Acquire);
        position(&self.producer).store(self.next, Ordering::Release);
    }

    /// Writes a decision. The core sees it after [`DecisionRing::publish`].
    ///
    /// # Errors
    /// [`Full`], when the core has not read enough; the decision is the caller's still.
    pub fn push(&mut self, decision: &Decision) -> std::result::Result<(), Full> {
        let read = position(&self.consumer).load(Ordering::Acquire);
        if self.next.wrapping_sub(read) + RECORD as u64 > self.mask + 1 {
            return Err(Full);
        }
        let offset = page_size() + (self.next & self.mask) as usize;
        let header = self.producer.at(offset, RECORD);
        // SAFETY: in bounds (the data area is mapped twice), 8-aligned, and not yet published.
        unsafe {
            header.cast::<u64>().write(size_of::<Decision>() as u64);
            header.add(HEADER).cast::<Decision>().write(*decision);
        }
        self.next += RECORD as u64;
        Ok(())
    }

    /// Shows the core everything pushed since the last time. One store, however many there are.
    pub fn publish(&mut self) {
        position(&self.producer).store(self.next, Ordering::Release);
    }

    /// Writes a record with any payload: for tests that play a hostile agent.
    #[doc(hidden)]
    pub fn push_raw(&mut self, payload: &[u8]) -> std::result::Result<(), Full> {
        let size = (HEADER + payload.len()).next_multiple_of(8);
        let read = position(&self.consumer).load(Ordering::Acquire);
        if self.next.wrapping_sub(read) + size as u64 > self.mask + 1 {
            return Err(Full);
        }
        let offset = page_size() + (self.next & self.mask) as usize;
        let header = self.producer.at(offset, size);
        // SAFETY: in bounds (the data area is mapped twice), 8-aligned, and not yet published.
        unsafe {
            header.cast::<u64>().write(payload.len() as u64);
            std::ptr::copy_nonoverlapping(payload.as_ptr(), header.add(HEADER), payload.len());
        }
        self.next += size as u64;
        Ok(())
    }

    /// Writes raw bytes where records go and publishes any position: for tests that play a hostile
    /// agent.
    #[doc(hidden)]
    pub fn scribble(&mut self, offset: usize, bytes: &[u8], producer_position: Option<u64>) {
        let at = page_size() + (offset & self.mask as usize);
        let target = self.producer.at(at, bytes.len());
        // SAFETY: in bounds; the memory is shared with the kernel, which copies before it trusts.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        if let Some(p) = producer_position {
            position(&self.producer).store(p, Ordering::Release);
        }
    }

    /// The core's position, for tests.
    #[doc(hidden)]
    pub fn consumer_position(&self) -> u64 {
        position(&self.consumer).load(Ordering::Acquire)
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

/// On a file laid out as the kernel lays out a ring. The kernel maps the data twice; a file has both
/// copies apart, which for one producer and one consumer that never wrap inside a record is the same.
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    const BYTES: usize = 1 << 14;

    fn file(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("qumun-ring-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len((2 * page_size() + 2 * BYTES) as u64).unwrap();
        file
    }

    fn word(file: &File, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn put(file: &File, offset: usize, value: u64) {
        file.write_all_at(&value.to_ne_bytes(), offset as u64).unwrap();
    }

    #[test]
    fn decisions_are_seen_after_publish_only_and_a_full_ring_gives_them_back() {
        let file = file("decisions");
        let mut ring = DecisionRing::new(file.as_fd(), BYTES).unwrap();
        ring.resync();
        let decision = |pid| Decision { pid, generation: 7, ..Decision::default() };
        for round in 0..3u64 {
            let fits = (BYTES / RECORD) as u64;
            for pid in 0..fits {
                ring.push(&decision(pid as i32)).unwrap();
            }
            assert_eq!(ring.push(&decision(-1)), Err(Full));
            assert_eq!(word(&file, page_size()), round * fits * RECORD as u64, "not published yet");
            ring.publish();
            assert_eq!(word(&file, page_size()), (round + 1) * fits * RECORD as u64);
            // A record: its length, then the decision; the second one's pid.
            let at = 2 * page_size() + ((round * BYTES as u64) & ring.mask) as usize + RECORD;
            assert_eq!(word(&file, at), size_of::<Decision>() as u64);
            assert_eq!(word(&file, at + HEADER + 40) as u32, 1);
            put(&file, 0, (round + 1) * BYTES as u64); // the core has read them
        }
        put(&file, 0, 3 * BYTES as u64 + 64);
        ring.resync();
        assert_eq!(word(&file, page_size()), 3 * BYTES as u64 + 64, "begins where the core is");
    }

    #[test]
    fn events_are_read_in_order_without_the_discarded_and_not_past_a_busy_one() {
        let file = file("events");
        let mut ring = EventRing::new(file.as_fd(), BYTES).unwrap();
        let size = HEADER + size_of::<Event>();
        let (data, lens) = (2 * page_size(), [0, DISCARD, 0, BUSY, 0]);
        for (i, flag) in lens.into_iter().enumerate() {
            put(&file, data + i * size, u64::from(size_of::<Event>() as u32 | flag));
            put(&file, data + i * size + HEADER + 72, i as u64); // the pid
        }
        put(&file, page_size(), (lens.len() * size) as u64);
        assert_eq!(ring.pop().map(|e| e.pid), Some(0));
        assert_eq!(ring.pop().map(|e| e.pid), Some(2));
        assert_eq!(ring.pop(), None);
        assert_eq!(word(&file, 0), 0, "no room is given back before release");
        ring.release();
        assert_eq!(word(&file, 0), 3 * size as u64);
        put(&file, data + 3 * size, size_of::<Event>() as u64); // submitted at last
        assert_eq!([ring.pop(), ring.pop()].map(|e| e.map(|e| e.pid)), [Some(3), Some(4)]);
        assert_eq!(ring.pop(), None);
    }

    #[test]
    fn a_size_that_is_no_power_of_two_is_refused() {
        let file = file("odd");
        assert!(EventRing::new(file.as_fd(), 3000).is_err());
        assert!(DecisionRing::new(file.as_fd(), 3000).is_err());
    }
}
