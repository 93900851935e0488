//! The two ring protocols, over any memory.
//!
//! Everything that decides something is here: positions, orderings, and what is believed of the words
//! in shared memory. Where those words are is [`Memory`]: a mapped BPF map ([`crate::ring`]), a piece of
//! heap (tests, Miri) or loom's cells (`crate::model`). All three run this very code.
//!
//! A position counts bytes and is never reduced; the low bits are the place in the data. Nothing that
//! was read is used before it was checked: the event ring's consumer page was writable for every agent
//! before us, and an agent that died may have left anything there.

use std::sync::atomic::Ordering;

/// Bytes in front of each record: the length with two flag bits, then a word for the kernel.
pub const HEADER: u64 = 8;
/// `BPF_RINGBUF_BUSY_BIT`: reserved and not yet submitted.
pub const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: submitted, but not to be read.
pub const DISCARD: u32 = 1 << 30;

/// Whose position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// How far records were read.
    Consumer,
    /// How far records were reserved (by the kernel) or written (by us).
    Producer,
}

/// What a ring carries.
///
/// # Safety
/// Plain data without padding, valid in every bit pattern, aligned to 8 and a multiple of 8 long.
pub unsafe trait Record: Copy {}

/// Where a ring lies. Orderings are named by the protocol and must be kept.
pub trait Memory {
    /// Bytes of the data, a power of two and at least one record with its header.
    fn size(&self) -> u64;
    /// Reads a position.
    fn load(&self, which: Position, order: Ordering) -> u64;
    /// Writes a position.
    fn store(&self, which: Position, value: u64, order: Ordering);
    /// Reads the length and flags of the record at `at`, which is aligned to 8 and below `size`.
    fn header(&self, at: u64, order: Ordering) -> u32;
    /// Copies the record whose header is at `at`; it may reach over the end of the data, into its
    /// beginning.
    fn read<T: Record>(&self, at: u64) -> T;
    /// Writes header and record at `at`.
    fn write<T: Record>(&self, at: u64, record: &T);
}

/// Reads what the kernel produces (`kernel/bpf/ringbuf.c`, `BPF_MAP_TYPE_RINGBUF`).
#[derive(Debug)]
pub struct Consumer<M> {
    pub(crate) memory: M,
    /// Position of the next record to read.
    next: u64,
    /// The producer's position when it was read last; never behind `next`, nor more than the ring's
    /// size before it.
    end: u64,
    corrupted: u64,
}

impl<M: Memory> Consumer<M> {
    /// Goes on where the last consumer of this memory stopped.
    pub fn new(memory: M) -> Self {
        // Nothing is guarded: whoever wrote it is gone, or is ourselves.
        let next = memory.load(Position::Consumer, Ordering::Relaxed);
        Self { memory, next, end: next, corrupted: 0 }
    }

    /// The next record, `None` if there is none.
    pub fn pop<T: Record>(&mut self) -> Option<T> {
        loop {
            if self.next == self.end && !self.look() {
                return None;
            }
            let at = self.next & (self.memory.size() - 1);
            // Acquire: pairs with the kernel's submission (xchg of the header). What it wrote into the
            // record before is visible after.
            let word = self.memory.header(at, Ordering::Acquire);
            if word & BUSY != 0 {
                return None;
            }
            let len = u64::from(word & !DISCARD);
            let step = (HEADER + len).next_multiple_of(8);
            if step > self.end - self.next {
                self.give_up(self.end);
                return None;
            }
            // No more than size / 8 times, as each is at least 8 and `end` is at most `size` away.
            self.next += step;
            if word & DISCARD == 0 && len == size_of::<T>() as u64 {
                return Some(self.memory.read(at));
            }
        }
    }

    /// Gives the room of everything read back to the kernel.
    pub fn release(&mut self) {
        // Release: pairs with the kernel's acquire in reserve. Our copies are made before it writes
        // there again.
        self.memory.store(Position::Consumer, self.next, Ordering::Release);
    }

    /// How often positions or lengths in the memory made no sense, and what was there was skipped.
    pub fn corrupted(&self) -> u64 {
        self.corrupted
    }

    /// Is there something new?
    fn look(&mut self) -> bool {
        // Acquire: pairs with the kernel's release in reserve. The BUSY bit of a reserved record is
        // visible after; without, the header of the last lap could be taken for a submitted one.
        let end = self.memory.load(Position::Producer, Ordering::Acquire);
        // Positions do not wrap: 64 bits of bytes last longer than any machine. A consumer past the
        // producer is nonsense, then, and so is one that left more than fits.
        let readable = end.checked_sub(self.next);
        if readable.is_none_or(|n| n > self.memory.size()) || !(end | self.next).is_multiple_of(8) {
            self.give_up(end);
            return false;
        }
        self.end = end;
        self.end != self.next
    }

    /// Goes on with whatever is produced from now on. The kernel reserves nothing while it finds the
    /// consumer's position more than the ring's size away, so the next release repairs the ring.
    fn give_up(&mut self, end: u64) {
        self.next = end & !7;
        self.end = self.next;
        self.corrupted += 1;
    }
}

/// Writes what the kernel consumes (`kernel/bpf/ringbuf.c`, `BPF_MAP_TYPE_USER_RINGBUF`).
#[derive(Debug)]
pub struct Producer<M> {
    pub(crate) memory: M,
    /// Where the next record goes; published only by [`Producer::publish`].
    next: u64,
}

impl<M: Memory> Producer<M> {
    /// Writes nothing; what an earlier producer left is still there until [`Producer::resync`].
    pub fn new(memory: M) -> Self {
        Self { memory, next: 0 }
    }

    /// Takes back everything that the kernel has not read. Only while it does not read.
    pub fn resync(&mut self) {
        // The kernel keeps it aligned; what we write must be so whatever is there.
        self.next = self.memory.load(Position::Consumer, Ordering::Acquire) & !7;
        self.publish();
    }

    /// Writes a record. The kernel sees it after [`Producer::publish`]. False: no room.
    pub fn push<T: Record>(&mut self, record: &T) -> bool {
        let Some((at, next)) = self.reserve(size_of::<T>() as u64) else { return false };
        self.memory.write(at, record);
        self.next = next;
        true
    }

    /// Where a record of `len` bytes goes, and the position behind it.
    pub(crate) fn reserve(&self, len: u64) -> Option<(u64, u64)> {
        let step = (HEADER + len).next_multiple_of(8);
        // Acquire: pairs with the kernel's release of what it read. It has its copy before we write
        // there again.
        let read = self.memory.load(Position::Consumer, Ordering::Acquire);
        let size = self.memory.size();
        // A consumer past us, or further behind than fits: a ring that was not resynced, or a position
        // that makes no sense. Nothing is written where we do not know what is read.
        let room = size.checked_sub(self.next.checked_sub(read)?)?;
        let next = self.next.checked_add(step)?;
        (step <= room).then_some((self.next & (size - 1), next))
    }

    pub(crate) fn advance(&mut self, next: u64) {
        self.next = next;
    }

    /// Shows the kernel everything pushed. One store, however many there are.
    pub fn publish(&mut self) {
        // Release: pairs with the kernel's acquire in peek. The records are visible before it.
        self.memory.store(Position::Producer, self.next, Ordering::Release);
    }
}

/// Where the two words of the agreement lie: the core's epoch and the agent's answer.
pub trait Words {
    /// `qm_view.epoch`.
    fn epoch(&self, order: Ordering) -> u64;
    /// `qm_agent.ack`.
    fn set_ack(&self, epoch: u64, order: Ordering);
}

/// The agent's side of the agreement: which epoch it has caught up with.
#[derive(Debug, Default)]
pub struct Agreement {
    /// As far as an event carries it.
    agreed: u32,
}

impl Agreement {
    /// The core's present epoch.
    pub fn epoch(&self, words: &impl Words) -> u64 {
        // Acquire: pairs with the full barrier of the core's increment (latch_fall). Whoever sees the
        // new epoch finds, in the ring, every event that was sent before it, and throws it away.
        words.epoch(Ordering::Acquire)
    }

    /// Everything older than `epoch` was thrown away.
    pub fn acknowledge(&mut self, words: &impl Words, epoch: u64) {
        self.agreed = epoch as u32;
        // Release: what was thrown away is gone before the core may lift the latch.
        words.set_ack(epoch, Ordering::Release);
    }

    /// Does an event sent in `epoch` belong to what was agreed last? A CPU that was held up between
    /// reading the epoch and submitting sends an older one.
    pub fn covers(&self, epoch: u32) -> bool {
        self.agreed == epoch
    }
}
