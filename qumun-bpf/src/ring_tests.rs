//! The rings on a piece of heap, laid out as the kernel lays out a ring, so that Miri can watch:
//! `cargo +nightly miri test -p qumun-bpf --no-default-features ring`. The kernel maps the data twice;
//! here both copies are apart, and the tests that wrap write both.

use super::*;
use crate::protocol::{BUSY, DISCARD};

const BYTES: usize = 1 << 14;
const EVENT: usize = HEADER as usize + size_of::<Event>();
const DECISION: usize = HEADER as usize + size_of::<Decision>();

fn heap() -> Mapped {
    let page = page_size();
    Mapped { consumer: Mapping::heap(page), producer: Mapping::heap(page + 2 * BYTES), bytes: BYTES }
}

fn events() -> EventRing {
    EventRing(EventKind::Ring(Consumer::new(heap())))
}

/// As an agent finds it: the kernel's positions first.
fn events_at(consumer: u64, producer: u64) -> EventRing {
    let memory = heap();
    memory.store(Position::Consumer, consumer, Ordering::Relaxed);
    memory.store(Position::Producer, producer, Ordering::Relaxed);
    EventRing(EventKind::Ring(Consumer::new(memory)))
}

fn decisions() -> DecisionRing {
    DecisionRing(DecisionKind::Ring(Producer::new(heap())))
}

impl EventRing {
    fn memory(&self) -> &Mapped {
        match &self.0 {
            EventKind::Ring(ring) => &ring.memory,
            EventKind::Array(_) => panic!("not this kind"),
        }
    }

    fn slots(&self) -> &EventSlots {
        match &self.0 {
            EventKind::Array(array) => &array.array,
            EventKind::Ring(_) => panic!("not this kind"),
        }
    }
}

impl DecisionRing {
    fn memory(&self) -> &Mapped {
        match &self.0 {
            DecisionKind::Ring(ring) => &ring.memory,
            DecisionKind::Array(_) => panic!("not this kind"),
        }
    }

    fn slots(&self) -> &DecisionSlots {
        match &self.0 {
            DecisionKind::Array(array) => &array.array,
            DecisionKind::Ring(_) => panic!("not this kind"),
        }
    }
}

impl Mapped {
    fn get(&self, at: usize) -> u64 {
        // SAFETY: tests ask for aligned words inside both copies of the data, and no thread runs beside.
        unsafe { self.producer.at(page_size() + at, 8).cast::<u64>().read() }
    }

    fn put(&self, at: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.producer.at(page_size() + at, 8).cast::<u64>().write(value) }
    }
}

/// Fast and repeatable; xorshift64* (Vigna, 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A position as it might be found: near `at`, the ring's size away, at a border, or anything.
    fn position(&mut self, at: u64) -> u64 {
        let size = BYTES as u64;
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - self.below(64),
            3 => self.next(),
            4 => at.wrapping_sub(8 * self.below(64)),
            5 => at.wrapping_add(self.below(64)),
            6 => at.wrapping_add(size + 8 * self.below(3)),
            7 => (1 << 63) - 4 + self.below(8),
            _ => at.wrapping_add(8 * self.below(size / 8)),
        }
    }

    /// A header: right, plausible, flagged, or anything.
    fn header(&mut self, right: usize) -> u64 {
        match self.below(10) {
            0 => 0,
            1 => u64::from(u32::MAX),
            2 => u64::from(!BUSY),
            3 => self.next(),
            4 => right as u64 | u64::from(BUSY),
            5 => right as u64 | u64::from(DISCARD),
            6 => self.below(2 * BYTES as u64),
            _ => right as u64,
        }
    }
}

/// As many as can be afforded: Miri is a thousand times slower, a debug build ten times.
const CASES: u64 = if cfg!(miri) {
    300
} else if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

#[test]
fn decisions_are_seen_after_publish_only_and_a_full_ring_gives_them_back() {
    let mut ring = decisions();
    ring.resync();
    let decision = |pid| Decision { pid, generation: 7, ..Decision::default() };
    for round in 0..3u64 {
        let fits = (BYTES / DECISION) as u64;
        for pid in 0..fits {
            ring.push(&decision(pid as i32)).unwrap();
        }
        assert_eq!(ring.push(&decision(-1)), Err(Full));
        let published = |ring: &DecisionRing| ring.memory().load(Position::Producer, Ordering::Relaxed);
        assert_eq!(published(&ring), round * fits * DECISION as u64, "not published yet");
        ring.publish();
        assert_eq!(published(&ring), (round + 1) * fits * DECISION as u64);
        // A record: its length, then the decision; the second one's pid.
        let at = ((round * fits) as usize + 1) * DECISION % BYTES;
        assert_eq!(ring.memory().get(at), size_of::<Decision>() as u64);
        assert_eq!(ring.memory().get(at + HEADER as usize + std::mem::offset_of!(Decision, pid)) as u32, 1);
        // The core has read them.
        ring.memory().store(Position::Consumer, (round + 1) * fits * DECISION as u64, Ordering::Relaxed);
    }
    ring.memory().store(Position::Consumer, 3 * BYTES as u64 + 64, Ordering::Relaxed);
    ring.resync();
    let now = ring.memory().load(Position::Producer, Ordering::Relaxed);
    assert_eq!(now, 3 * BYTES as u64 + 64, "begins where the core is");
}

#[test]
fn events_are_read_in_order_without_the_discarded_and_not_past_a_busy_one() {
    let mut ring = events();
    let flags = [0, DISCARD, 0, BUSY, 0];
    for (i, flag) in flags.into_iter().enumerate() {
        ring.memory().put(i * EVENT, u64::from(size_of::<Event>() as u32 | flag));
        ring.memory().put(i * EVENT + HEADER as usize + std::mem::offset_of!(Event, pid), i as u64);
    }
    ring.memory().store(Position::Producer, (flags.len() * EVENT) as u64, Ordering::Relaxed);
    assert_eq!(ring.pop().map(|e| e.pid), Some(0));
    assert_eq!(ring.pop().map(|e| e.pid), Some(2));
    assert_eq!(ring.pop(), None);
    assert_eq!(
        ring.memory().load(Position::Consumer, Ordering::Relaxed),
        0,
        "no room is given back before release"
    );
    ring.release();
    assert_eq!(ring.memory().load(Position::Consumer, Ordering::Relaxed), 3 * EVENT as u64);
    ring.memory().put(3 * EVENT, size_of::<Event>() as u64); // submitted at last
    assert_eq!([ring.pop(), ring.pop()].map(|e| e.map(|e| e.pid)), [Some(3), Some(4)]);
    assert_eq!(ring.pop(), None);
    assert_eq!(ring.corrupted(), 0);
}

#[test]
fn a_ring_that_no_kernel_would_make_is_refused() {
    for bytes in [0, 3000, 1024, (1 << 14) + 4096] {
        assert_eq!(check(bytes).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(check(BYTES).is_ok());
}

/// A predecessor scribbled over the consumer's position, the only word of this ring that it could.
#[test]
fn a_consumer_position_that_makes_no_sense_is_repaired_with_the_next_release() {
    let produced = 64 * EVENT as u64;
    for consumer in [produced + 8, produced + 1, 3, u64::MAX, 1 << 63, produced.wrapping_sub(1 << 20)] {
        let mut ring = events_at(consumer, produced);
        assert_eq!(ring.pop(), None);
        assert_eq!(ring.corrupted(), 1, "consumer at {consumer:#x}");
        ring.release();
        assert_eq!(ring.memory().load(Position::Consumer, Ordering::Relaxed), produced);
        let at = produced as usize % BYTES;
        for copy in [at, at + BYTES] {
            ring.memory().put(copy, size_of::<Event>() as u64);
        }
        ring.memory().store(Position::Producer, produced + EVENT as u64, Ordering::Relaxed);
        assert!(ring.pop().is_some(), "goes on after {consumer:#x}");
    }
}

#[test]
fn a_length_beyond_what_was_produced_skips_what_there_is() {
    for len in [EVENT as u32, BYTES as u32, !BUSY & !DISCARD] {
        let mut ring = events_at(0, EVENT as u64);
        ring.memory().put(0, u64::from(len));
        assert_eq!(ring.pop(), None);
        assert_eq!((ring.corrupted(), ring.pop()), (1, None));
        ring.release();
        assert_eq!(ring.memory().load(Position::Consumer, Ordering::Relaxed), EVENT as u64);
    }
    // All ones is busy: nobody may read it, and nobody waits here for it.
    let mut ring = events_at(0, EVENT as u64);
    ring.memory().put(0, u64::MAX);
    assert_eq!((ring.pop(), ring.corrupted()), (None, 0));
}

/// A ring full of empty records: the longest way through without an event.
#[test]
fn empty_records_come_to_an_end() {
    let mut ring = events_at(0, BYTES as u64);
    assert_eq!(ring.pop(), None);
    ring.release();
    assert_eq!(ring.memory().load(Position::Consumer, Ordering::Relaxed), BYTES as u64);
}

#[test]
fn nothing_is_pushed_while_the_consumer_is_past_us() {
    for read in [DECISION as u64, 1, u64::MAX, u64::MAX - 63, 1 << 63] {
        let mut ring = decisions();
        ring.memory().store(Position::Consumer, read, Ordering::Relaxed);
        assert_eq!(ring.push(&Decision::default()), Err(Full), "consumer at {read:#x}");
        assert_eq!(ring.push_raw(&[1; 13]), Err(Full));
        ring.publish();
        assert_eq!(ring.memory().load(Position::Producer, Ordering::Relaxed), 0);
    }
    // Resynced, it goes on, from an aligned place.
    let mut ring = decisions();
    ring.memory().store(Position::Consumer, 1003, Ordering::Relaxed);
    ring.resync();
    assert_eq!(ring.push(&Decision::default()), Err(Full), "the consumer is past us by the rounding");
    ring.memory().store(Position::Consumer, 1000, Ordering::Relaxed);
    assert_eq!(ring.push(&Decision::default()), Ok(()));
}

/// Whatever positions and headers say: no panic, no access out of bounds (asserted by the mapping, and
/// seen by Miri), no endless loop, and no more events than were produced.
#[test]
fn a_hostile_event_ring_is_survived() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ring = events();
    let (mut popped, mut corrupted) = (0, 0);
    for case in 0..CASES {
        if case % 8 == 0 {
            let consumer = match random.below(2) {
                0 => ring.memory().load(Position::Producer, Ordering::Relaxed) & !7,
                _ => random.next(),
            };
            ring.memory().store(Position::Consumer, random.position(consumer), Ordering::Relaxed);
            corrupted += ring.corrupted();
            let EventKind::Ring(Consumer { memory, .. }) = ring.0 else { panic!("not this kind") };
            ring = EventRing(EventKind::Ring(Consumer::new(memory)));
        }
        let at = ring.memory().load(Position::Consumer, Ordering::Relaxed);
        ring.memory().store(Position::Producer, random.position(at), Ordering::Relaxed);
        let place = (at as usize & (BYTES - 1)) & !7;
        for i in 0..4 {
            ring.memory().put((place + i * EVENT) % BYTES, random.header(size_of::<Event>()));
        }
        let mut here = 0;
        while ring.pop().is_some() {
            here += 1;
            assert!(here <= BYTES / EVENT + 1, "more events than fit");
        }
        popped += here;
        if random.below(2) == 0 {
            ring.release();
        }
    }
    corrupted += ring.corrupted();
    // The cases reach both ends, or the test shows nothing.
    assert!(popped as u64 > CASES / 10 && corrupted > CASES / 10, "{popped} events, {corrupted} corrupted");
}

#[test]
fn a_hostile_decision_ring_is_survived() {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let mut ring = decisions();
    let (mut pushed, mut full) = (0, 0);
    for _ in 0..CASES {
        let ours = ring.memory().load(Position::Producer, Ordering::Relaxed);
        let back = random.below(BYTES as u64);
        let read = random.position(ours.wrapping_sub(back));
        ring.memory().store(Position::Consumer, read, Ordering::Relaxed);
        if random.below(4) == 0 {
            ring.resync();
        }
        for _ in 0..random.below(4) {
            let before = ring.consumer_position();
            match ring.push(&Decision { pid: 1, ..Decision::default() }) {
                Ok(()) => pushed += 1,
                Err(Full) => full += 1,
            }
            assert_eq!(ring.consumer_position(), before, "the consumer's word is not ours");
        }
        ring.publish();
    }
    assert!(pushed > CASES / 10 && full > CASES / 10, "{pushed} pushed, {full} full");
}

/// The core's side of the shared arrays, and an array as an agent finds it: positions and counts first.
mod shared {
    use super::*;

    const ROUND: u64 = EVENT_SLOTS as u64;
    const SLOTS: u64 = DECISION_SLOTS as u64;
    /// How often round: Miri takes a minute for each time.
    const ROUNDS: u64 = if cfg!(miri) { 1 } else { 3 };

    fn page(len: usize) -> Mapping {
        Mapping::heap(len.next_multiple_of(page_size()))
    }

    fn memory() -> EventSlots {
        EventSlots { core: page(size_of::<EventArray>()), agent: page(page_size()) }
    }

    impl EventSlots {
        fn put(&self, at: usize, value: u64) {
            word(&self.core, at).store(value, Ordering::Relaxed);
        }

        fn set_sent(&self, sent: u64) {
            self.put(offset_of!(EventArray, sent), sent);
        }

        fn set_written(&self, slot: u64, times: u64) {
            self.put(self.slot(slot) + offset_of!(EventSlot, written), times);
        }

        /// A CPU's whole way: the position, the record, the count.
        fn send(&self, pid: i32) {
            let at = self.load(Position::Producer, Ordering::Relaxed);
            self.set_sent(at + 1);
            self.put(self.slot(at % ROUND) + offset_of!(Event, pid), u64::from(pid as u32));
            self.set_written(at % ROUND, at / ROUND + 1);
        }

        fn read_to(&self) -> u64 {
            self.load(Position::Consumer, Ordering::Relaxed)
        }
    }

    fn events_of(memory: EventSlots) -> EventRing {
        EventRing(EventKind::Array(Reader::new(memory)))
    }

    fn decisions() -> DecisionRing {
        let slots = DecisionSlots { core: page(page_size()), agent: page(size_of::<DecisionArray>()) };
        DecisionRing(DecisionKind::Array(Writer::new(slots)))
    }

    impl DecisionSlots {
        fn set_taken(&self, taken: u64) {
            word(&self.core, offset_of!(EventArray, taken)).store(taken, Ordering::Relaxed);
        }

        fn published(&self) -> u64 {
            self.load(Position::Producer, Ordering::Relaxed)
        }

        fn pid(&self, slot: u64) -> u32 {
            let at = self.bytes(slot as usize * size_of::<Decision>() + offset_of!(Decision, pid), 4);
            // SAFETY: in bounds and aligned, and no thread runs beside.
            unsafe { at.cast::<u32>().read() }
        }
    }

    #[test]
    fn events_are_read_in_order_and_not_past_one_that_is_not_written() {
        let mut ring = events_of(memory());
        // Round and round, so that counts of the last round are there.
        for n in 0..(ROUNDS * ROUND) as i32 {
            ring.slots().send(n);
            assert_eq!(ring.pop().map(|e| e.pid), Some(n));
            assert_eq!(ring.pop(), None);
            ring.release();
        }
        let at = ROUNDS * ROUND;
        // The first of three is begun, and the others are there.
        (0..3).for_each(|n| ring.slots().send(n));
        ring.slots().set_written(at % ROUND, ROUNDS);
        assert_eq!(ring.pop(), None);
        ring.slots().set_written(at % ROUND, ROUNDS + 1);
        assert_eq!([ring.pop(), ring.pop(), ring.pop()].map(|e| e.map(|e| e.pid)), [0, 1, 2].map(Some));
        assert_eq!(ring.slots().read_to(), at, "no room is given back before release");
        ring.release();
        assert_eq!((ring.slots().read_to(), ring.corrupted()), (at + 3, 0));
    }

    #[test]
    fn an_event_written_over_is_noticed_and_the_next_ones_are_read() {
        let mut ring = events_of(memory());
        (0..=ROUND as i32).for_each(|n| ring.slots().send(n));
        assert_eq!((ring.pop(), ring.corrupted()), (None, 1));
        ring.slots().send(-5);
        assert_eq!(ring.pop().map(|e| e.pid), Some(-5));
        ring.release();
        assert_eq!(ring.slots().read_to(), ROUND + 2);
    }

    /// A predecessor scribbled over the position in the events.
    #[test]
    fn a_position_that_makes_no_sense_is_repaired_with_the_next_release() {
        for read in [65, u64::MAX, 1 << 63, 64u64.wrapping_sub(ROUND + 1)] {
            let memory = memory();
            (0..64).for_each(|n| memory.send(n));
            memory.store(Position::Consumer, read, Ordering::Relaxed);
            let mut ring = events_of(memory);
            assert_eq!((ring.pop(), ring.corrupted()), (None, 1), "reader at {read:#x}");
            ring.release();
            assert_eq!(ring.slots().read_to(), 64);
            ring.slots().send(7);
            assert_eq!(ring.pop().map(|e| e.pid), Some(7), "goes on after {read:#x}");
        }
        // One that makes sense is where the next agent goes on.
        let memory = memory();
        (0..64).for_each(|n| memory.send(n));
        memory.store(Position::Consumer, 60, Ordering::Relaxed);
        assert_eq!(events_of(memory).pop().map(|e| e.pid), Some(60));
    }

    #[test]
    fn decisions_are_seen_after_publish_only_and_a_full_array_gives_them_back() {
        let mut ring = decisions();
        ring.resync();
        for round in 0..ROUNDS {
            for pid in 0..SLOTS as i32 {
                ring.push(&Decision { pid, ..Decision::default() }).unwrap();
            }
            assert_eq!(ring.push(&Decision::default()), Err(Full));
            assert_eq!(ring.push_raw(&[1; 13]), Err(Full));
            assert_eq!(ring.slots().published(), round * SLOTS, "not published yet");
            ring.publish();
            assert_eq!(ring.slots().published(), (round + 1) * SLOTS);
            assert_eq!(ring.slots().pid(SLOTS - 1), SLOTS as u32 - 1);
            // The core has read them.
            ring.slots().set_taken((round + 1) * SLOTS);
        }
        ring.slots().set_taken(ROUNDS * SLOTS - 5);
        ring.resync();
        assert_eq!(ring.slots().published(), ROUNDS * SLOTS - 5, "begins where the core is");
    }

    /// A CPU that was held up while it took what a dead agent had published.
    #[test]
    fn a_core_that_took_after_the_resync_is_followed() {
        let mut ring = decisions();
        ring.slots().set_taken(10);
        ring.resync();
        ring.slots().set_taken(15);
        let decision = |pid| Decision { pid, ..Decision::default() };
        assert_eq!(ring.push(&decision(3)), Ok(()));
        ring.publish();
        assert_eq!((ring.slots().published(), ring.slots().pid(15)), (16, 3));
        // The words of the core cannot be written by anybody else; all the same, no number of it is a trap.
        for taken in [1 << 63, u64::MAX] {
            ring.slots().set_taken(taken);
            assert_eq!(ring.push(&decision(4)), Ok(()), "the core at {taken:#x}");
        }
    }

    #[test]
    fn what_a_hostile_agent_scribbles_stays_in_the_array() {
        let mut ring = decisions();
        ring.resync();
        let all = DECISION_SLOTS * size_of::<Decision>();
        for at in [0, 1, all - 1, all, usize::MAX] {
            ring.scribble(at, &[0xff; 96], Some(at as u64));
            assert_eq!(ring.slots().published(), at as u64);
        }
        assert_eq!(ring.push_raw(&[7; 96]), Ok(()));
        assert_eq!(ring.slots().pid(0), 0x0707_0707);
    }

    impl Random {
        /// A position as it might be found.
        fn place(&mut self, at: u64) -> u64 {
            match self.below(8) {
                0 => self.next(),
                1 => u64::MAX - self.below(3),
                2 => at.wrapping_sub(self.below(9)),
                3 => at.wrapping_add(ROUND - 4 + self.below(9)),
                _ => at.wrapping_add(self.below(64)),
            }
        }
    }

    /// Whatever positions and counts say: no panic, no access out of bounds, no endless loop.
    #[test]
    fn a_hostile_array_of_events_is_survived() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut ring = events_of(memory());
        let (mut popped, mut corrupted) = (0, 0);
        for case in 0..CASES {
            let at = ring.slots().read_to();
            if case % 8 == 0 {
                let read = random.place(at);
                ring.slots().store(Position::Consumer, read, Ordering::Relaxed);
                corrupted += ring.corrupted();
                let EventKind::Array(Reader { array, .. }) = ring.0 else { panic!("not this kind") };
                ring = events_of(array);
            }
            ring.slots().set_sent(random.place(at));
            for n in 0..4 {
                let at = at.wrapping_add(n);
                let times = match random.below(6) {
                    0 => random.next(),
                    1 => at / ROUND,
                    _ => (at / ROUND).wrapping_add(1),
                };
                ring.slots().set_written(at % ROUND, times);
            }
            let mut here = 0;
            while ring.pop().is_some() {
                here += 1;
                assert!(here <= ROUND, "more events than slots");
            }
            popped += here;
            if random.below(2) == 0 {
                ring.release();
            }
        }
        corrupted += ring.corrupted();
        assert!(popped > CASES / 10 && corrupted > CASES / 10, "{popped} events, {corrupted} corrupted");
    }

    #[test]
    fn a_hostile_position_in_the_decisions_is_survived() {
        let mut random = Random(0xd1b5_4a32_d192_ed03);
        let mut ring = decisions();
        let (mut pushed, mut full) = (0, 0);
        for _ in 0..CASES {
            let published = ring.slots().published();
            let back = random.below(SLOTS);
            let taken = random.place(published.wrapping_sub(back));
            ring.slots().set_taken(taken);
            if random.below(4) == 0 {
                ring.resync();
            }
            for _ in 0..random.below(4) {
                match ring.push(&Decision { pid: 1, ..Decision::default() }) {
                    Ok(()) => pushed += 1,
                    Err(Full) => full += 1,
                }
                assert_eq!(ring.consumer_position(), taken, "the core's word is not ours");
            }
            ring.publish();
        }
        assert!(pushed > CASES / 10 && full > CASES / 10, "{pushed} pushed, {full} full");
    }
}
