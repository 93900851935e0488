//! The hand-over in every order of its two threads, by [loom](https://docs.rs/loom): `make loom`. The code is that
//! of production.
#![cfg(loom)]
#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering as Std};

use gthulhu_model::handover;
use gthulhu_model::middle::{Middle, ORDER, READER, SLOTS, WRITER};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;

/// How often the reader came between two tables: else the test has seen nothing.
static BETWEEN: AtomicUsize = AtomicUsize::new(0);

#[test]
fn the_newest_table_arrives_and_never_an_older_one() {
    loom::model(|| {
        let (mut publisher, mut reader) = handover();
        let writer = thread::spawn(move || (1..=3).for_each(|n| publisher.publish(Box::new(n))));
        let mut last = 0;
        for _ in 0..2 {
            let taken = reader.refresh();
            let table = reader.get().map_or(0, |table| **table);
            assert!(if taken { table > last } else { table == last }, "{table} after {last}");
            last = table;
        }
        BETWEEN.fetch_add(usize::from((1..3).contains(&last)), Std::Relaxed);
        writer.join().unwrap();
        assert_eq!(reader.refresh(), last != 3);
        assert_eq!(reader.get().map(|table| **table), Some(3));
        assert!(!reader.refresh());
    });
    assert!(BETWEEN.load(Std::Relaxed) > 10, "the reader came between two tables");
}

/// Slots that loom watches: it panics when one side touches what the other may still be using.
#[derive(Clone)]
struct Slots(Arc<[UnsafeCell<u32>; SLOTS]>);

impl Slots {
    fn set(&self, slot: u8, table: u32) {
        self.0[usize::from(slot)].with_mut(|cell| {
            // SAFETY: loom panics when another thread looks meanwhile.
            unsafe { *cell = table }
        });
    }

    fn get(&self, slot: u8) -> u32 {
        self.0[usize::from(slot)].with(|cell| {
            // SAFETY: loom panics when another thread writes meanwhile.
            unsafe { *cell }
        })
    }
}

/// Two tables through the three slots, with the orderings given.
fn exchange(give: Ordering, take: Ordering) {
    loom::model(move || {
        let slots = Slots(Arc::new([0, 0, 0].map(UnsafeCell::new)));
        let middle = Arc::new(Middle::new());
        let writer = {
            let (slots, middle) = (slots.clone(), Arc::clone(&middle));
            thread::spawn(move || {
                let mut mine = WRITER;
                for table in 1..=3 {
                    slots.set(mine, table);
                    mine = middle.give(mine, give);
                }
            })
        };
        let (mut mine, mut last) = (READER, 0);
        for _ in 0..2 {
            if middle.is_fresh() {
                // What it had goes back as the old table does.
                slots.set(mine, 0);
                mine = middle.take(mine, take);
                let table = slots.get(mine);
                assert!(table > last, "{table} after {last}");
                last = table;
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn no_slot_ever_has_two_owners() {
    exchange(ORDER, ORDER);
}

/// Middle::give, Release: without, a table may arrive before its content.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_table_must_be_released() {
    exchange(Ordering::Acquire, ORDER);
}

/// Middle::take, Acquire: without, its content may be read before it is there.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_table_must_be_acquired() {
    exchange(ORDER, Ordering::Release);
}

/// Middle::take, Release: without, the writer may write while the reader gives back.
#[test]
#[should_panic(expected = "Causality violation")]
fn what_is_given_back_must_be_released() {
    exchange(ORDER, Ordering::Acquire);
}

/// Middle::give, Acquire: the same, on the writer's side.
#[test]
#[should_panic(expected = "Causality violation")]
fn what_is_given_back_must_be_acquired() {
    exchange(Ordering::Release, ORDER);
}
