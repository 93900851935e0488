//! Records into events, decisions into records: what both cost without a ring.
//! `cargo bench -p qumun-benches --bench wire`.

// What criterion's macros make.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qumun::kernel::Link;
use qumun::{Cpu, Nanos};
use qumun_benches::{MEASURE, WARM_UP, queued, wire_event};

/// As many as a large batch has, so that they are not in registers.
const RECORDS: u64 = 512;

fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(RECORDS));

    let records: Vec<_> = (0..RECORDS).map(wire_event).collect();
    group.bench_function("decode an event", |b| {
        b.iter(|| records.iter().for_each(|record| _ = black_box(Link::decode(black_box(record), 64))));
    });
    // The least that reading a record from shared memory can be.
    group.bench_function("copy an event", |b| {
        b.iter(|| records.iter().for_each(|record| _ = black_box(*black_box(record))));
    });

    let decisions: Vec<_> =
        (0..RECORDS).map(|n| queued(n, 256, 64).on(Cpu(3)).slice(Nanos(5_000_000)).vtime(n)).collect();
    group.bench_function("encode a decision", |b| {
        b.iter(|| decisions.iter().for_each(|decision| _ = black_box(Link::encode(black_box(decision)))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASURE);
    targets = wire
}
criterion_main!(benches);
