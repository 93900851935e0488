//! What the agent's thread may do: look up and take tables without allocating or freeing, while another
//! thread publishes.
#![cfg(not(loom))]
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use gthulhu_model::{
    Budget, CgroupId, Class, Comm, Generation, Label, Level, Priority, Slice, Strategy, StrategyId,
    StrategyTable, Subject, Target, TaskNumber, ThreadId, TokenBucket, Ttl, handover,
};

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread asks of the allocator.
struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn count() {
    // Fails only while the thread ends.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often the allocator was called meanwhile, by this thread.
fn calls(what: impl FnOnce()) -> usize {
    let before = CALLS.get();
    what();
    CALLS.get() - before
}

const LEASE_NS: u64 = 1_000_000_000;

fn table(generation: u64) -> StrategyTable {
    let mut builder = StrategyTable::builder(Generation(generation));
    for n in 1..=100 {
        let thread = ThreadId { pid: n as i32, started: n };
        for target in [
            Target::Task(TaskNumber::new(n).unwrap()),
            Target::Thread(thread),
            Target::Process(thread),
            Target::Cgroup(CgroupId(n)),
            Target::Comm(Comm::new(format!("worker-{n}")).unwrap()),
        ] {
            let priority =
                Priority { slice: Some(Slice::MIN), ..Priority::new(Class::Latency(Level::STRONGEST)) };
            let strategy =
                Strategy { id: StrategyId::new(generation).unwrap(), target, priority, ttl: Ttl::MIN };
            builder.add(strategy.lease(0));
        }
    }
    builder.build()
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn a_decision_needs_no_memory() {
    let table = table(1);
    let subject = Subject {
        task: TaskNumber::new(1_000),
        thread: Some(ThreadId { pid: 50, started: 51 }),
        process: Some(ThreadId { pid: 50, started: 51 }),
        cgroup: Some(CgroupId(1_000)),
        comm: Comm::from_kernel(*b"worker-50\0\0\0\0\0\0\0"),
    };
    let mut bucket = TokenBucket::full(Budget::DEFAULT, 0);
    let calls = calls(|| {
        let lease = table.find(&subject, 1).unwrap();
        assert_eq!(lease.strategy.target, Target::Comm(subject.comm.unwrap()), "all five were searched");
        assert!(table.find(&subject, LEASE_NS).is_none());
        let label = Label::Strategy(lease.strategy.id).pack();
        let Ok(Label::Strategy(id)) = Label::unpack(label) else { unreachable!() };
        assert!(table.get(id, 1).is_some());
        assert!(Label::unpack(7).is_err() && Comm::new("").is_err(), "nor do errors");
        bucket.spend(30_000_000);
        bucket.refill(1_000_000_000);
    });
    assert_eq!(calls, 0);
}

/// A table that says on which thread it was dropped.
struct Watched {
    table: StrategyTable,
    publisher: thread::ThreadId,
    misplaced: &'static AtomicUsize,
    dropped: &'static AtomicUsize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if thread::current().id() != self.publisher {
            self.misplaced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn tables_are_taken_whole_in_order_without_memory_and_freed_by_who_made_them() {
    static MISPLACED: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);

    let (mut publisher, mut reader) = handover::<Watched>();
    let agent = thread::spawn(move || {
        let (mut last, mut calls_of_agent) = (0, 0);
        loop {
            // Read before the look, so that the last look comes after the last table.
            let done = DONE.load(Ordering::Acquire);
            let mut fresh = false;
            calls_of_agent += calls(|| {
                fresh = reader.refresh();
                let Some(Watched { table, .. }) = reader.get() else { return };
                let Generation(generation) = table.generation();
                assert!(if fresh { generation > last } else { generation == last });
                last = generation;
                let subject = Subject { cgroup: Some(CgroupId(7)), ..Subject::default() };
                let found = table.find(&subject, 0).map(|lease| lease.strategy.id.number());
                assert_eq!(found, Some(generation), "the table is whole");
            });
            TAKEN.fetch_add(usize::from(fresh), Ordering::Relaxed);
            if done && !fresh {
                return (last, calls_of_agent, reader);
            }
            thread::yield_now();
        }
    });

    let me = thread::current().id();
    let (begun, mut generation) = (Instant::now(), 0);
    // On a busy machine the reader may sleep for long: it must have come between often enough.
    while generation < 2_000 || TAKEN.load(Ordering::Relaxed) < 100 {
        assert!(begun.elapsed().as_secs() < 60, "taken {} times only", TAKEN.load(Ordering::Relaxed));
        generation += 1;
        let table = table(generation);
        publisher.publish(Watched { table, publisher: me, misplaced: &MISPLACED, dropped: &DROPPED });
        let alive = generation as usize - DROPPED.load(Ordering::Relaxed);
        assert!(alive <= 3, "{alive} tables at a time");
    }
    DONE.store(true, Ordering::Release);
    let (last, calls, reader) = agent.join().unwrap();
    assert_eq!((last, calls), (generation, 0));
    drop((publisher, reader));
    assert_eq!(DROPPED.load(Ordering::Relaxed), generation as usize, "each once");
    assert_eq!(MISPLACED.load(Ordering::Relaxed), 0);
}

/// The agent may end, or stand still for ever: the publisher goes on and keeps no more than it must.
#[test]
fn a_reader_that_never_comes_holds_nothing_up() {
    let (mut publisher, mut reader) = handover();
    for n in 0..10 {
        publisher.publish(std::sync::Arc::new(n));
    }
    let newest = std::sync::Arc::new(10);
    publisher.publish(std::sync::Arc::clone(&newest));
    assert!(reader.refresh() && !reader.refresh());
    assert_eq!(reader.get(), Some(&newest));
    drop(publisher);
    assert!(!reader.refresh());
    assert_eq!(reader.get(), Some(&newest), "the last table stays without its publisher");
    drop(reader);
    assert_eq!(std::sync::Arc::strong_count(&newest), 1);
}
