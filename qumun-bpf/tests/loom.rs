//! Every order in which the kernel and we can touch the rings, by [loom](https://docs.rs/loom):
//! `make loom`. The code under test is that of production; loom's memory is under it.
//!
//! Each ordering has two tests: one that passes, and one (`should_panic`) that runs the same threads
//! with that ordering relaxed and must fail, so that the first is known to look.
#![cfg(loom)]
#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;
use qumun_bpf::array::{Reader, Writer};
use qumun_bpf::model::{DecisionSlots, EventSlots, Ring, Weak, Word};
use qumun_bpf::protocol::{Consumer, Position, Producer};

/// loom tries orders; this counts those that matter. The loops here end whether or not the other side
/// came: if it never came in between, the test has seen nothing.
static LAPPED: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// One CPU sends more events than fit; the agent reads them, releasing after each batch.
fn events(weak: Weak) {
    loom::model(move || {
        let ring = Ring::new(2, weak);
        let kernel = ring.clone();
        let cpu = thread::spawn(move || (1..=3).filter(|n| kernel.send(*n)).collect::<Vec<_>>());
        let mut consumer = Consumer::new(ring);
        let mut seen = Vec::new();
        let mut read = |consumer: &mut Consumer<Ring>| {
            while let Some(Word(value)) = consumer.pop() {
                seen.push(value);
            }
            consumer.release();
        };
        read(&mut consumer);
        read(&mut consumer);
        let sent = cpu.join().unwrap();
        LAPPED[0].fetch_add(usize::from(sent.len() > 2), Ordering::Relaxed);
        read(&mut consumer);
        assert_eq!(seen, sent, "each event once, in order");
        assert_eq!(consumer.corrupted(), 0);
    });
}

#[test]
fn each_event_is_read_once_and_whole() {
    events(Weak::Nothing);
    assert!(LAPPED[0].load(Ordering::Relaxed) > 100, "the ring was reused while it was read");
}

/// Consumer::look, Acquire on the producer's position: without, the header of the last lap is taken
/// for a submitted record.
#[test]
#[should_panic(expected = "each event once")]
fn the_producer_position_must_be_acquired() {
    events(Weak::Load(Position::Producer));
}

/// Consumer::pop, Acquire on the header: without, the record may not be there yet.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_header_must_be_acquired() {
    events(Weak::Header);
}

/// Consumer::release, Release on the consumer's position: without, the kernel writes into a record
/// that is still being copied.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_consumer_position_must_be_released() {
    events(Weak::Store(Position::Consumer));
}

/// Two CPUs reserve and commit in any order, one discards: a busy record holds back what is behind it.
#[test]
fn two_cpus_send_and_nothing_overtakes() {
    loom::model(|| {
        let ring = Ring::new(2, Weak::Nothing);
        let cpus = [1, 2].map(|n: u64| {
            let kernel = ring.clone();
            thread::spawn(move || {
                let at = kernel.reserve().expect("room for two");
                kernel.commit(at, n, n == 2);
            })
        });
        let mut consumer = Consumer::new(ring);
        let mut seen: Vec<u64> = std::iter::from_fn(|| consumer.pop()).map(|Word(n)| n).collect();
        for cpu in cpus {
            cpu.join().unwrap();
        }
        seen.extend(std::iter::from_fn(|| consumer.pop()).map(|Word(n)| n));
        assert_eq!(seen, [1], "the discarded one is not seen, the other once");
    });
}

/// The agent publishes decisions in batches, more than fit; the core takes them out.
fn decisions(weak: Weak) {
    loom::model(move || {
        let ring = Ring::new(2, weak);
        let kernel = ring.clone();
        let core = thread::spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.extend(kernel.drain_one());
            }
            seen
        });
        let mut producer = Producer::new(ring.clone());
        let mut sent = Vec::new();
        for batch in [1..=2, 3..=4] {
            sent.extend(batch.filter(|n| producer.push(&Word(*n))));
            producer.publish();
        }
        let mut seen = core.join().unwrap();
        LAPPED[1].fetch_add(usize::from(sent.len() > 2), Ordering::Relaxed);
        seen.extend(std::iter::from_fn(|| ring.drain_one()));
        assert_eq!(seen, sent, "each decision once, in order");
    });
}

#[test]
fn each_decision_is_read_once_and_whole() {
    decisions(Weak::Nothing);
    assert!(LAPPED[1].load(Ordering::Relaxed) > 100, "the ring was reused while it was read");
}

/// Producer::publish, Release on the producer's position: without, the core reads what is not there yet.
#[test]
#[should_panic(expected = "what was published is a record")]
fn the_published_position_must_be_released() {
    decisions(Weak::Store(Position::Producer));
}

/// Producer::reserve, Acquire on the consumer's position: without, we write into a record that the core
/// is still copying.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_core_s_position_must_be_acquired() {
    decisions(Weak::Load(Position::Consumer));
}

/// A new agent takes back what a dead one left, while the core does not read.
#[test]
fn a_resynced_ring_has_nothing_of_the_dead() {
    loom::model(|| {
        let ring = Ring::new(2, Weak::Nothing);
        let mut dead = Producer::new(ring.clone());
        assert!(dead.push(&Word(1)) && dead.push(&Word(2)));
        dead.publish();
        assert_eq!(ring.drain_one(), Some(1));
        let mut heir = Producer::new(ring.clone());
        heir.resync();
        let kernel = ring.clone();
        let core = thread::spawn(move || kernel.drain_one());
        assert!(heir.push(&Word(3)));
        heir.publish();
        let seen = core.join().unwrap();
        assert_eq!(seen.or_else(|| ring.drain_one()), Some(3));
    });
}

/// The same through the shared array: one CPU sends more events than fit.
fn shared_events(weak: Weak) {
    loom::model(move || {
        let array = EventSlots::new(2, 2, weak);
        let core = array.clone();
        let cpu = thread::spawn(move || (1..=3).filter(|n| core.send(*n)).collect::<Vec<_>>());
        let mut reader = Reader::new(array);
        let mut seen = Vec::new();
        let mut read = |reader: &mut Reader<EventSlots>| {
            while let Some(Word(value)) = reader.pop() {
                seen.push(value);
            }
            reader.release();
        };
        read(&mut reader);
        read(&mut reader);
        let sent = cpu.join().unwrap();
        LAPPED[2].fetch_add(usize::from(sent.len() > 2), Ordering::Relaxed);
        read(&mut reader);
        assert_eq!(seen, sent, "each event once, in order");
        assert_eq!(reader.corrupted(), 0);
    });
}

#[test]
fn each_event_in_the_array_is_read_once_and_whole() {
    shared_events(Weak::Nothing);
    assert!(LAPPED[2].load(Ordering::Relaxed) > 100, "the array was reused while it was read");
}

/// Reader::pop, Acquire on the count of the slot: without, the record may not be there yet.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_count_of_a_slot_must_be_acquired() {
    shared_events(Weak::Written);
}

/// Reader::release, Release on the position: without, the core writes into a record that is still being copied.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_position_in_the_events_must_be_released() {
    shared_events(Weak::Store(Position::Consumer));
}

/// Two CPUs look for room at once: both may find it where there is one. That is what is kept free for each CPU.
#[test]
fn two_cpus_that_find_room_at_once_have_a_slot_each() {
    loom::model(|| {
        let array = EventSlots::new(2, 1, Weak::Nothing);
        let cpus = [1, 2].map(|n: u64| {
            let core = array.clone();
            thread::spawn(move || core.send(n).then_some(n))
        });
        let mut reader = Reader::new(array);
        let mut seen: Vec<u64> = std::iter::from_fn(|| reader.pop()).map(|Word(n)| n).collect();
        reader.release();
        let sent: Vec<u64> = cpus.into_iter().filter_map(|cpu| cpu.join().unwrap()).collect();
        seen.extend(std::iter::from_fn(|| reader.pop()).map(|Word(n)| n));
        seen.sort_unstable();
        assert_eq!(seen, sent, "each once");
        assert_eq!(reader.corrupted(), 0);
    });
}

/// The agent publishes decisions in batches, more than fit; a CPU takes them out.
fn shared_decisions(weak: Weak) {
    loom::model(move || {
        let array = DecisionSlots::new(2, weak);
        let core = array.clone();
        let cpu = thread::spawn(move || (0..3).flat_map(|_| core.take_alone(1)).collect::<Vec<_>>());
        let mut writer = Writer::new(array.clone());
        let mut sent = Vec::new();
        for batch in [1..=2, 3..=4] {
            sent.extend(batch.filter(|n| writer.push(&Word(*n))));
            writer.publish();
        }
        let mut seen = cpu.join().unwrap();
        LAPPED[3].fetch_add(usize::from(sent.len() > 2), Ordering::Relaxed);
        seen.extend(array.take_alone(2));
        assert_eq!(seen, sent, "each decision once, in order");
    });
}

#[test]
fn each_decision_in_the_array_is_taken_once_and_whole() {
    shared_decisions(Weak::Nothing);
    assert!(LAPPED[3].load(Ordering::Relaxed) > 100, "the array was reused while it was read");
}

/// Writer::publish, Release: without, the core takes what is not there yet.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_position_in_the_decisions_must_be_released() {
    shared_decisions(Weak::Store(Position::Producer));
}

/// Writer::reserve, Acquire on the core's position: without, we write into a record that the core is still copying.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_core_s_position_in_the_decisions_must_be_acquired() {
    shared_decisions(Weak::Load(Position::Consumer));
}

/// Two CPUs take at once: who comes too late has nothing, whatever the agent writes meanwhile.
#[test]
fn each_decision_is_one_cpu_s() {
    let (late, both) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let (counted, shared) = (late.clone(), both.clone());
    loom::model(move || {
        let array = DecisionSlots::new(2, Weak::Nothing);
        let mut writer = Writer::new(array.clone());
        assert!(writer.push(&Word(1)) && writer.push(&Word(2)));
        writer.publish();
        let cpus = [1, 2].map(|room| {
            let core = array.clone();
            thread::spawn(move || core.take(room))
        });
        // Into the slot that was taken, perhaps while it is still read by the other.
        let third = writer.push(&Word(3));
        writer.publish();
        let taken = cpus.map(|cpu| cpu.join().unwrap());
        counted.fetch_add(taken.iter().filter(|one| one.is_none()).count(), Ordering::Relaxed);
        shared.fetch_add(
            usize::from(taken.iter().all(|one| one.as_ref().is_some_and(|n| !n.is_empty()))),
            Ordering::Relaxed,
        );
        let mut seen: Vec<u64> = taken.into_iter().flat_map(Option::unwrap_or_default).collect();
        seen.extend(array.take(3).expect("there is no other CPU"));
        seen.sort_unstable();
        let sent = if third { vec![1, 2, 3] } else { vec![1, 2] };
        assert_eq!(seen, sent, "each once");
    });
    assert!(late.load(Ordering::Relaxed) > 10 && both.load(Ordering::Relaxed) > 10, "they met");
}

/// A new agent takes back what a dead one left, while the core does not read.
#[test]
fn a_resynced_array_has_nothing_of_the_dead() {
    loom::model(|| {
        let array = DecisionSlots::new(2, Weak::Nothing);
        let mut dead = Writer::new(array.clone());
        assert!(dead.push(&Word(1)) && dead.push(&Word(2)));
        dead.publish();
        assert_eq!(array.take(1), Some(vec![1]));
        let mut heir = Writer::new(array.clone());
        heir.resync();
        let core = array.clone();
        let cpu = thread::spawn(move || core.take(2));
        assert!(heir.push(&Word(3)));
        heir.publish();
        let mut seen = cpu.join().unwrap().expect("there is no other CPU");
        seen.extend(array.take(2).expect("there is no other CPU"));
        assert_eq!(seen, [3]);
    });
}
