//! Every order in which the kernel and we can touch the rings, by [loom](https://docs.rs/loom):
//! `make loom`. The code under test is that of production; loom's memory is under it.
//!
//! Each ordering has two tests: one that passes, and one (`should_panic`) that runs the same threads
//! with that ordering relaxed and must fail, so that the first is known to look.
#![cfg(loom)]
#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;
use qumun_bpf::model::{Ring, Weak, Word};
use qumun_bpf::protocol::{Consumer, Position, Producer};

/// loom tries orders; this counts those that matter. The loops here end whether or not the other side
/// came: if it never came in between, the test has seen nothing.
static LAPPED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

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
