//! What each policy needs for a decision: turns of an agent on a backend without rings and machine, by size of batch.
//! The smallest policies are there to show how much of it is the library. `cargo bench -p qumun-benches --bench policies`.

// What criterion's macros make.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gthulhu_plugin_gthulhu::Gthulhu;
use gthulhu_plugin_simple::Simple;
use gthulhu_plugin_simple_fifo::SimpleFifo;
use qumun::{Scheduler, Topology};
use qumun_benches::{Endless, Fifo, MEASURE, Picking, WARM_UP};

const BATCHES: [usize; 4] = [1, 8, 64, 512];
const TASKS: u32 = 1_000;

fn policies(c: &mut Criterion) {
    of(c, "nothing but the library", || Fifo);
    of(c, "picking", || Picking);
    of(c, "simple-fifo", SimpleFifo::default);
    of(c, "simple", Simple::default);
    of(c, "gthulhu", Gthulhu::default);
}

fn of<S: Scheduler>(c: &mut Criterion, name: &str, policy: impl Fn() -> S) {
    let machine = Topology::synthetic().l3s(2).cores(4).threads(2).build().expect("16 CPUs");
    let mut group = c.benchmark_group(format!("decision, {name}"));
    for batch in BATCHES {
        let backend = Endless::new(TASKS, machine.nr_cpus());
        let builder = qumun::builder("bench").topology(machine.clone()).batch(batch);
        let mut agent = builder.agent(backend, policy());
        // The first one only acknowledges.
        agent.turn();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("batch", batch), |b| {
            b.iter(|| {
                agent.backend_mut().left = batch;
                let turn = agent.turn();
                assert_eq!(turn.decisions, batch, "each task is decided on in its turn");
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASURE);
    targets = policies
}
criterion_main!(benches);
