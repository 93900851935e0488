//! The queue and the heap of the pool at several lengths, and how the state of a task is found. What their memory costs
//! is in `pool`. `cargo bench -p qumun-benches --bench queues`.

// What criterion's macros make.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qumun::pool::{Arena, Heap, Queue, SlotId};
use qumun::{Context, Pid, Queued, Scheduler, Verdict};
use qumun_benches::{Endless, MEASURE, WARM_UP, random};

/// Elements that wait, when one comes and one goes.
const LENGTHS: [usize; 3] = [64, 1_024, 16_384];
/// As large as what the Gthulhu policy keeps about a task that waits.
type Element = [u64; 10];

/// One in, one out, at a constant length; and one out of the middle, by its id, and in again.
fn queues(c: &mut Criterion) {
    let arena = Arena::new(16 << 20).expect("memory");
    let mut group = c.benchmark_group("queue");
    for length in LENGTHS {
        let mut queue = Queue::<Element>::new(&arena.handle(), length + 1).expect("memory");
        let mut ids: Vec<SlotId> = (0..length).filter_map(|n| queue.push([n as u64; 10]).ok()).collect();
        group.bench_function(BenchmarkId::new("pop and push", length), |b| {
            b.iter(|| {
                let first = queue.pop().unwrap_or_default();
                _ = black_box(queue.push(first));
            });
        });
        ids.clear();
        queue.clear();
        ids.extend((0..length).filter_map(|n| queue.push([n as u64; 10]).ok()));
        let mut state = 1;
        group.bench_function(BenchmarkId::new("out of the middle and push", length), |b| {
            b.iter(|| {
                let id = &mut ids[random(&mut state) as usize % length];
                let element = queue.remove(*id).unwrap_or_default();
                *id = queue.push(element).unwrap_or_default();
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("heap");
    for length in LENGTHS {
        let mut heap = Heap::<Element>::new(&arena.handle(), length + 1).expect("memory");
        let mut state = 1;
        let mut ids: Vec<SlotId> =
            (0..length).filter_map(|n| heap.push(random(&mut state) >> 32, [n as u64; 10]).ok()).collect();
        group.bench_function(BenchmarkId::new("another key", length), |b| {
            b.iter(|| {
                let dice = random(&mut state);
                black_box(heap.update(ids[dice as usize % length], dice >> 32));
            });
        });
        group.bench_function(BenchmarkId::new("out of the middle and push", length), |b| {
            b.iter(|| {
                let dice = random(&mut state);
                let id = &mut ids[dice as usize % length];
                let (_, element) = heap.remove(*id).unwrap_or_default();
                *id = heap.push(dice >> 32, element).unwrap_or_default();
            });
        });
        // Keys that grow, as those of tasks do that wait in the order of time.
        let mut clock = 1 << 33;
        group.bench_function(BenchmarkId::new("pop and push", length), |b| {
            b.iter(|| {
                let (_, first) = heap.pop().unwrap_or_default();
                clock += 1;
                _ = black_box(heap.push(clock, first));
            });
        });
    }
    group.finish();
}

/// A policy that looks for the states of its tasks and does nothing else.
struct Looking(Vec<Pid>);

impl Scheduler for Looking {
    type Task = [u64; 8];

    fn enqueue(&mut self, _: &mut Context<'_, Self::Task>, task: &Queued) -> Verdict {
        task.anywhere().into()
    }

    fn dispatch(&mut self, cx: &mut Context<'_, Self::Task>) {
        for &pid in &self.0 {
            cx.task(pid)[0] += 1;
        }
    }
}

/// The framework's table of task states, by way of `Context::task`, as only policies can reach it.
fn tasks(c: &mut Criterion) {
    const LOOKS: usize = 1_024;
    let mut group = c.benchmark_group("task state");
    group.throughput(Throughput::Elements(LOOKS as u64));
    for known in [256, 4_096, 16_384] {
        let mut agent = qumun::builder("bench").tasks(16_384).agent(Endless::new(1, 8), Looking(Vec::new()));
        agent.policy_mut().0 = (0..known).map(|n| Pid(1_000 + n)).collect();
        agent.turn();
        let mut state = 1;
        let pids = (0..LOOKS).map(|_| Pid(1_000 + (random(&mut state) % known as u64) as i32)).collect();
        agent.policy_mut().0 = pids;
        group.bench_function(BenchmarkId::new("found, of", known), |b| b.iter(|| black_box(agent.turn())));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASURE);
    targets = queues, tasks
}
criterion_main!(benches);
