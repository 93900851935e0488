//! Which idle CPU a task gets, on each synthetic machine and at each fill. `cargo bench -p qumun-benches --bench select`.

// What criterion's macros make.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use qumun::{Cpu, CpuSet, Reach, Request, Selector};
use qumun_benches::{MEASURE, WARM_UP, machines, random};

fn select(c: &mut Criterion) {
    for (name, machine) in machines() {
        let cpus = machine.nr_cpus();
        // As the daemon has it.
        let selector = Selector::new(machine).with_reach(Reach::Cache);
        let mut group = c.benchmark_group(format!("select, {name}"));
        for (fill, idle) in fills(cpus) {
            let mut state = 1;
            group.bench_function(BenchmarkId::from_parameter(fill), |b| {
                b.iter(|| {
                    // Another previous CPU each time, or the branch predictor knows the way.
                    let prev = Cpu((random(&mut state) % u64::from(cpus)) as u32);
                    selector.pick(&Request::new(prev, black_box(&CpuSet::ALL)), black_box(&idle))
                });
            });
        }
        group.finish();
    }
}

/// Idle CPUs: most, half, one, none.
fn fills(cpus: u32) -> [(&'static str, CpuSet); 4] {
    let those = |idle: fn(u32) -> bool| {
        let mut set = CpuSet::EMPTY;
        (0..cpus).filter(|&cpu| idle(cpu)).for_each(|cpu| set.insert(Cpu(cpu)));
        set
    };
    [
        ("most idle", those(|cpu| cpu % 8 != 3)),
        // Every other one: with two threads in a core no core is idle.
        ("half idle", those(|cpu| cpu % 2 == 0)),
        ("one idle", CpuSet::of(Cpu(cpus - 1))),
        ("none idle", CpuSet::EMPTY),
    ]
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASURE);
    targets = select
}
criterion_main!(benches);
