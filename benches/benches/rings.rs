//! Our rings, read and written in place: the shared arrays, the kernel's ring buffers, and libbpf's calls over ring buffers.
//! BPF programs are at the other end of all. `cargo bench -p qumun-benches --bench rings`, as root; any kernel from 6.1 on.

// What criterion's macros make.
#![allow(missing_docs)]

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qumun_benches::{Lane, MEASURE, Single, Stand, WARM_UP};
use qumun_bpf::ring::{DECISION_RING_BYTES, DecisionRing, EVENT_RING_BYTES, EventRing};

/// Records for each look at the clock.
const RECORDS: u32 = 512;
/// Positions are published once in so many.
const BATCHES: [usize; 3] = [1, 64, 512];

fn rings(c: &mut Criterion) {
    let ready = Stand::load(8).and_then(|stand| Single::new(&stand).map(|single| (stand, single)));
    let (stand, single) = match ready {
        Ok(ready) => ready,
        Err(why) => return println!("skipped: rings - {why}"),
    };
    events(c, &stand, &single);
    decisions(c, &stand, &single);
    c.bench_function("a call of an empty program", |b| {
        let call = stand.empty_call().expect("the program is there");
        b.iter(&call);
    });
}

/// Sent by a program, which is not measured; read by us.
fn events(c: &mut Criterion, stand: &Stand, single: &Single) {
    let [map, _] = stand.rings(Lane::Rings).expect("the maps are there");
    let ring = EventRing::new(map.as_fd(), EVENT_RING_BYTES).expect("the ring can be mapped");
    let [map, other] = stand.rings(Lane::Agent).expect("the maps are there");
    let array = EventRing::shared(map.as_fd(), other.as_fd()).expect("the array can be mapped");
    let mut group = c.benchmark_group("events");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    for (lane, name, mut ring) in [(Lane::Rings, "in place", ring), (Lane::Agent, "shared array", array)] {
        for batch in BATCHES {
            group.bench_function(format!("{name}, {batch} for each release"), |b| {
                b.iter_custom(|times| {
                    repeat(times, || {
                        stand.send(lane, RECORDS, 256);
                        time(|| {
                            for _ in 0..RECORDS as usize / batch {
                                (0..batch).for_each(|_| _ = black_box(ring.pop()));
                                ring.release();
                            }
                        })
                    })
                });
            });
        }
        assert!(ring.pop().is_none() && ring.corrupted() == 0, "what was sent was read");
    }
    group.bench_function("libbpf, one at a time", |b| {
        b.iter_custom(|times| {
            repeat(times, || {
                stand.send(Lane::Single, RECORDS, 256);
                time(|| (0..RECORDS).for_each(|_| _ = black_box(single.receive())))
            })
        });
    });
    group.bench_function("libbpf, all in one call", |b| {
        b.iter_custom(|times| {
            repeat(times, || {
                stand.send(Lane::Single, RECORDS, 256);
                time(|| _ = black_box(single.receive_all()))
            })
        });
    });
    group.finish();
}

/// Written by us; taken by a program, which is not measured.
fn decisions(c: &mut Criterion, stand: &Stand, single: &Single) {
    let [_, map] = stand.rings(Lane::Rings).expect("the maps are there");
    let ring = DecisionRing::new(map.as_fd(), DECISION_RING_BYTES).expect("the ring can be mapped");
    let [other, map] = stand.rings(Lane::Agent).expect("the maps are there");
    let array = DecisionRing::shared(other.as_fd(), map.as_fd()).expect("the array can be mapped");
    let decision = qumun_bpf::wire::Decision { generation: 1, pid: 1_000, ..Default::default() };
    let mut group = c.benchmark_group("decisions");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    for (lane, name, mut ring) in [(Lane::Rings, "in place", ring), (Lane::Agent, "shared array", array)] {
        ring.resync();
        for batch in BATCHES {
            group.bench_function(format!("{name}, {batch} for each publish"), |b| {
                b.iter_custom(|times| {
                    repeat(times, || {
                        let took = time(|| {
                            for _ in 0..RECORDS as usize / batch {
                                for _ in 0..batch {
                                    ring.push(black_box(&decision)).expect("the ring was emptied");
                                }
                                ring.publish();
                            }
                        });
                        assert_eq!(stand.take(lane), RECORDS);
                        took
                    })
                });
            });
        }
    }
    group.bench_function("libbpf, one at a time", |b| {
        b.iter_custom(|times| {
            repeat(times, || {
                let took = time(|| (0..RECORDS).for_each(|_| single.send(black_box(&decision))));
                assert_eq!(stand.take(Lane::Single), RECORDS);
                took
            })
        });
    });
    group.finish();
}

fn repeat(times: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| once()).sum()
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASURE);
    targets = rings
}
criterion_main!(benches);
