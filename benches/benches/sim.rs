//! How fast simulated time passes: things that happen (wakeups, switches, interrupts, turns of the agent) per second of
//! ours. `cargo bench -p qumun-benches --bench sim`.

// What criterion's macros make.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gthulhu_plugin_simple_fifo::SimpleFifo;
use qumun::sim::{Setup, Sim, Span, Spec, Step, Workload};
use qumun::{Nanos, Topology};
use qumun_benches::WARM_UP;

/// CPUs, tasks, simulated time of one measurement.
const SIZES: [(u32, usize, Nanos); 2] =
    [(8, 200, Nanos::from_millis(1_000)), (1_024, 100_000, Nanos::from_millis(50))];
/// Before that, so that not all tasks are new.
const SETTLE: Nanos = Nanos::from_millis(50);

fn sim(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulator");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(5));
    for (cpus, tasks, time) in SIZES {
        // The same each time: so many things happen.
        let mut first = settled(cpus, tasks);
        let before = first.happened();
        first.run(time);
        first.check().expect("the rules are kept");
        group.throughput(Throughput::Elements(first.happened() - before));
        drop(first);
        group.bench_function(format!("{cpus} CPUs, {tasks} tasks"), |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let mut sim = settled(cpus, tasks);
                        let start = Instant::now();
                        sim.run(time);
                        start.elapsed()
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// Tasks that compute for 1 ms and sleep, at random, as long as it takes to fill 80 % of the CPUs.
fn settled(cpus: u32, tasks: usize) -> Sim<SimpleFifo> {
    let run = Nanos::from_millis(1);
    let sleep = Nanos(run.0 * tasks as u64 * 10 / (8 * u64::from(cpus)));
    let mut work = Workload::new();
    let steps = vec![Step::Sleep(Span::Exponential(sleep)), Step::Run(Span::Exponential(run))];
    work.group("tasks", tasks, Spec::default(), steps);
    let setup = Setup::new(Topology::flat(cpus));
    let builder = qumun::builder("bench").topology(setup.topology.clone()).tasks(tasks + 64);
    let mut sim = Sim::with(setup, &work, SimpleFifo::default(), builder).expect("the work makes sense");
    sim.run(SETTLE);
    sim
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP);
    targets = sim
}
criterion_main!(benches);
