//! Both rings and the agreement on loom's memory, with the kernel's side of each: for tests built with
//! `--cfg loom` only.
//!
//! A record is one word long, so that a ring of two or three records stays small enough to try every
//! order. The kernel's side is `kernel/bpf/ringbuf.c`, line by line as far as memory is concerned.
//!
//! Any ordering of *ours* can be weakened to relaxed by [`Weak`]: each has a test that fails then.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::sync::{Arc, Mutex};

use crate::protocol::{BUSY, DISCARD, HEADER, Memory, Position, Record, Words};

/// An ordering of ours to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weak {
    /// None: the code as it is.
    Nothing,
    /// The load of this position.
    Load(Position),
    /// The store of this position.
    Store(Position),
    /// The load of a header.
    Header,
    /// The load of the epoch.
    Epoch,
    /// The store of the acknowledgement.
    Ack,
}

/// A record of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub u64);

// SAFETY: one u64.
unsafe impl Record for Word {}

/// Bytes of a record with its header.
pub const STEP: u64 = HEADER + 8;

#[derive(Debug)]
struct Slot {
    header: AtomicU32,
    payload: UnsafeCell<u64>,
}

#[derive(Debug)]
struct Shared {
    consumer: AtomicU64,
    producer: AtomicU64,
    slots: Vec<Slot>,
    /// The kernel's lock around reserve, with the producer's position; and the consumer's position of
    /// its side of the other ring. The kernel reads them from the words that it alone writes. Here it
    /// does not: loom remembers one last access to a word, and a thread that reads what it is about to
    /// write hides the other thread's access, and with it half of the orders.
    reserved: Mutex<u64>,
    drained: Mutex<u64>,
    weak: Weak,
}

/// A ring.
#[derive(Debug, Clone)]
pub struct Ring(Arc<Shared>);

impl Ring {
    /// Of `slots` records, a power of two.
    pub fn new(slots: usize, weak: Weak) -> Self {
        let slot = |_| Slot { header: AtomicU32::new(0), payload: UnsafeCell::new(0) };
        Self(Arc::new(Shared {
            consumer: AtomicU64::new(0),
            producer: AtomicU64::new(0),
            slots: (0..slots).map(slot).collect(),
            reserved: Mutex::new(0),
            drained: Mutex::new(0),
            weak,
        }))
    }

    fn slot(&self, at: u64) -> &Slot {
        &self.0.slots[((at & (self.size() - 1)) / STEP) as usize]
    }

    fn position(&self, which: Position) -> &AtomicU64 {
        match which {
            Position::Consumer => &self.0.consumer,
            Position::Producer => &self.0.producer,
        }
    }

    fn order(&self, point: Weak, order: Ordering) -> Ordering {
        if self.0.weak == point { Ordering::Relaxed } else { order }
    }

    /// `__bpf_ringbuf_reserve`: the position of a busy record, `None` when there is no room.
    pub fn reserve(&self) -> Option<u64> {
        let consumer = self.0.consumer.load(Ordering::Acquire);
        let mut reserved = self.0.reserved.lock().expect("no thread panics with it");
        let at = *reserved;
        // The kernel compares with the mask, which leaves one byte free; so does it here.
        if (at + STEP).wrapping_sub(consumer) > self.size() {
            return None;
        }
        self.slot(at).header.store(8 | BUSY, Ordering::Relaxed);
        *reserved = at + STEP;
        self.0.producer.store(*reserved, Ordering::Release);
        Some(at)
    }

    /// The BPF program writes its record, then `bpf_ringbuf_commit` (an xchg).
    pub fn commit(&self, at: u64, value: u64, discard: bool) {
        self.slot(at).payload.with_mut(|p| {
            // SAFETY: loom panics when another thread uses the cell meanwhile.
            unsafe { *p = value }
        });
        self.slot(at).header.swap(if discard { 8 | DISCARD } else { 8 }, Ordering::AcqRel);
    }

    /// Reserve, write, commit. False when there is no room.
    pub fn send(&self, value: u64) -> bool {
        self.reserve().map(|at| self.commit(at, value, false)).is_some()
    }

    /// `__bpf_user_ringbuf_peek`, the callback's read, and `__bpf_user_ringbuf_sample_release`.
    pub fn drain_one(&self) -> Option<u64> {
        let producer = self.0.producer.load(Ordering::Acquire);
        let mut drained = self.0.drained.lock().expect("no thread panics with it");
        let at = *drained;
        if at >= producer {
            return None;
        }
        assert_eq!(self.slot(at).header.load(Ordering::Acquire), 8, "what was published is a record");
        let value = self.slot(at).payload.with(|p| {
            // SAFETY: loom panics when another thread writes the cell meanwhile.
            unsafe { *p }
        });
        *drained = at + STEP;
        self.0.consumer.store(*drained, Ordering::Release);
        Some(value)
    }
}

impl Memory for Ring {
    fn size(&self) -> u64 {
        self.0.slots.len() as u64 * STEP
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        self.position(which).load(self.order(Weak::Load(which), order))
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        self.position(which).store(value, self.order(Weak::Store(which), order));
    }

    fn header(&self, at: u64, order: Ordering) -> u32 {
        self.slot(at).header.load(self.order(Weak::Header, order))
    }

    fn read<T: Record>(&self, at: u64) -> T {
        assert_eq!(size_of::<T>(), 8, "records here are one word");
        self.slot(at).payload.with(|p| {
            // SAFETY: the same size; a Record is valid in any bits. loom watches the access.
            unsafe { p.cast::<T>().read() }
        })
    }

    fn write<T: Record>(&self, at: u64, record: &T) {
        assert_eq!(size_of::<T>(), 8, "records here are one word");
        self.slot(at).payload.with_mut(|p| {
            // SAFETY: as above.
            unsafe { p.cast::<T>().write(*record) }
        });
        self.slot(at).header.store(8, Ordering::Relaxed);
    }
}

/// The two words of the agreement, and what the agent did before it acknowledged.
#[derive(Debug, Clone)]
pub struct Pages(Arc<PageWords>);

#[derive(Debug)]
struct PageWords {
    epoch: AtomicU64,
    ack: AtomicU64,
    weak: Weak,
}

impl Pages {
    /// Epoch 1, nothing acknowledged.
    pub fn new(weak: Weak) -> Self {
        Self(Arc::new(PageWords { epoch: AtomicU64::new(1), ack: AtomicU64::new(0), weak }))
    }

    /// `latch_fall`: a new epoch (a full barrier in BPF).
    pub fn raise(&self) -> u64 {
        self.0.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// `latch_try_lift`: what was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.0.ack.load(Ordering::Acquire)
    }
}

impl Words for Pages {
    fn epoch(&self, order: Ordering) -> u64 {
        self.0.epoch.load(if self.0.weak == Weak::Epoch { Ordering::Relaxed } else { order })
    }

    fn set_ack(&self, epoch: u64, order: Ordering) {
        self.0.ack.store(epoch, if self.0.weak == Weak::Ack { Ordering::Relaxed } else { order });
    }
}
