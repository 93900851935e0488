//! Both rings, both shared arrays and the agreement on loom's memory, with the kernel's side of each: for tests built with
//! `--cfg loom` only.
//!
//! A record is one word long, so that a ring of two or three records stays small enough to try every
//! order. The kernel's side is `kernel/bpf/ringbuf.c`, line by line as far as memory is concerned;
//! that of the arrays is `bpf/transport.h`. A BPF program's plain accesses are relaxed here, and its atomic
//! operations that return something are full barriers (Documentation/atomic_t.txt).
//!
//! Any ordering of *ours* can be weakened to relaxed by [`Weak`]: each has a test that fails then.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
use loom::sync::{Arc, Mutex};

use crate::array::Array;
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
    /// The load of how often a slot was written.
    Written,
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

/// The positions of an array, and which ordering of ours is taken away.
#[derive(Debug)]
struct Positions {
    consumer: AtomicU64,
    producer: AtomicU64,
    weak: Weak,
}

impl Positions {
    fn new(weak: Weak) -> Self {
        Self { consumer: AtomicU64::new(0), producer: AtomicU64::new(0), weak }
    }

    fn order(&self, point: Weak, order: Ordering) -> Ordering {
        if self.weak == point { Ordering::Relaxed } else { order }
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        let word = if which == Position::Consumer { &self.consumer } else { &self.producer };
        word.load(self.order(Weak::Load(which), order))
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        let word = if which == Position::Consumer { &self.consumer } else { &self.producer };
        word.store(value, self.order(Weak::Store(which), order));
    }
}

/// The array of events.
#[derive(Debug, Clone)]
pub struct EventSlots(Arc<EventCells>);

#[derive(Debug)]
struct EventCells {
    positions: Positions,
    slots: Vec<(AtomicU64, UnsafeCell<u64>)>,
    room: u64,
}

impl EventSlots {
    /// Of `slots` records, a power of two, of which `room` may be unread.
    pub fn new(slots: usize, room: u64, weak: Weak) -> Self {
        let slots = (0..slots).map(|_| (AtomicU64::new(0), UnsafeCell::new(0))).collect();
        Self(Arc::new(EventCells { positions: Positions::new(weak), slots, room }))
    }

    fn slot(&self, at: u64) -> &(AtomicU64, UnsafeCell<u64>) {
        &self.0.slots[at as usize % self.0.slots.len()]
    }

    /// `event_reserve`: the position of a slot to write, `None` when there is no room.
    pub fn reserve(&self) -> Option<u64> {
        let words = &self.0.positions;
        let at = words.producer.load(Ordering::Relaxed);
        if at.wrapping_sub(words.consumer.load(Ordering::Relaxed)) >= self.0.room {
            return None;
        }
        let at = words.producer.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        Some(at)
    }

    /// The BPF program writes its record, then `event_submit`.
    pub fn submit(&self, at: u64, value: u64) {
        let (written, payload) = self.slot(at);
        payload.with_mut(|p| {
            // SAFETY: loom panics when another thread uses the cell meanwhile.
            unsafe { *p = value }
        });
        fence(Ordering::SeqCst);
        written.fetch_add(1, Ordering::AcqRel);
    }

    /// Reserve, write, submit. False when there is no room.
    pub fn send(&self, value: u64) -> bool {
        self.reserve().map(|at| self.submit(at, value)).is_some()
    }
}

impl Array for EventSlots {
    fn slots(&self) -> u64 {
        self.0.slots.len() as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        self.0.positions.load(which, order)
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        self.0.positions.store(which, value, order);
    }

    fn written(&self, slot: u64, order: Ordering) -> u64 {
        self.slot(slot).0.load(self.0.positions.order(Weak::Written, order))
    }

    fn read<T: Record>(&self, slot: u64) -> T {
        assert_eq!(size_of::<T>(), 8, "records here are one word");
        self.slot(slot).1.with(|p| {
            // SAFETY: the same size; a Record is valid in any bits. loom watches the access.
            unsafe { p.cast::<T>().read() }
        })
    }

    fn write<T: Record>(&self, _: u64, _: &T) {
        unreachable!("events are written by the core");
    }
}

/// The array of decisions. A record is a word in a cell, over which loom watches, and again a word and its complement, in
/// atomics: where two CPUs take, the one that comes too late reads what the agent writes meanwhile, and throws it away.
#[derive(Debug, Clone)]
pub struct DecisionSlots(Arc<DecisionCells>);

#[derive(Debug)]
struct DecisionCells {
    positions: Positions,
    slots: Vec<(UnsafeCell<u64>, [AtomicU64; 2])>,
    known: Mutex<u64>,
}

impl DecisionSlots {
    /// Of `slots` records, a power of two.
    pub fn new(slots: usize, weak: Weak) -> Self {
        let slot = |_| (UnsafeCell::new(0), [AtomicU64::new(0), AtomicU64::new(0)]);
        let slots = (0..slots).map(slot).collect();
        Self(Arc::new(DecisionCells { positions: Positions::new(weak), slots, known: Mutex::new(0) }))
    }

    /// One try of `take_from_array`, of at most `room` decisions. `None`: another CPU was faster.
    pub fn take(&self, room: u64) -> Option<Vec<u64>> {
        let taken = &self.0.positions.consumer;
        let copy = |slot: &(UnsafeCell<u64>, [AtomicU64; 2])| {
            let [word, complement] = slot.1.each_ref().map(|word| word.load(Ordering::Relaxed));
            (word, word == !complement)
        };
        self.claim(taken.load(Ordering::Relaxed), room, copy, |at, n| {
            taken.compare_exchange(at, at + n, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// The same where there is no other CPU: the core stores what it need not compare. Loom remembers one last access to a
    /// word, so only then it tries the orders of that store and the agent's look, see [`Ring`].
    pub fn take_alone(&self, room: u64) -> Vec<u64> {
        let mut known = self.0.known.lock().expect("no thread panics with it");
        let copy = |slot: &(UnsafeCell<u64>, [AtomicU64; 2])| {
            slot.0.with(|p| {
                // SAFETY: loom panics when another thread writes the cell meanwhile.
                unsafe { (*p, true) }
            })
        };
        let taken = self.claim(*known, room, copy, |at, n| {
            self.0.positions.consumer.store(at + n, Ordering::Release);
            true
        });
        let taken = taken.expect("there is no other CPU");
        *known += taken.len() as u64;
        taken
    }

    fn claim(
        &self,
        at: u64,
        room: u64,
        copy: impl Fn(&(UnsafeCell<u64>, [AtomicU64; 2])) -> (u64, bool),
        claim: impl FnOnce(u64, u64) -> bool,
    ) -> Option<Vec<u64>> {
        let there = self.0.positions.producer.load(Ordering::Relaxed).wrapping_sub(at) as i64;
        if there <= 0 {
            return Some(Vec::new());
        }
        let there = (there as u64).min(room);
        fence(Ordering::SeqCst);
        let slots = &self.0.slots;
        let copies: Vec<_> = (at..at + there).map(|at| copy(&slots[at as usize % slots.len()])).collect();
        fence(Ordering::SeqCst);
        if !claim(at, there) {
            return None;
        }
        assert!(copies.iter().all(|(_, whole)| *whole), "what was taken is a record");
        Some(copies.into_iter().map(|(word, _)| word).collect())
    }
}

impl Array for DecisionSlots {
    fn slots(&self) -> u64 {
        self.0.slots.len() as u64
    }

    fn load(&self, which: Position, order: Ordering) -> u64 {
        self.0.positions.load(which, order)
    }

    fn store(&self, which: Position, value: u64, order: Ordering) {
        self.0.positions.store(which, value, order);
    }

    fn written(&self, _: u64, _: Ordering) -> u64 {
        unreachable!("decisions are not counted");
    }

    fn read<T: Record>(&self, _: u64) -> T {
        unreachable!("decisions are read by the core");
    }

    fn write<T: Record>(&self, slot: u64, record: &T) {
        assert_eq!(size_of::<T>(), 8, "records here are one word");
        // SAFETY: the same size; a Record is valid in any bits.
        let word = unsafe { std::ptr::from_ref(record).cast::<u64>().read() };
        let (cell, words) = &self.0.slots[slot as usize];
        cell.with_mut(|p| {
            // SAFETY: as above.
            unsafe { *p = word }
        });
        words[0].store(word, Ordering::Relaxed);
        words[1].store(!word, Ordering::Relaxed);
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
