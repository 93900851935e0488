//! Shares in simulated time.
use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::sim::{Setup, Sim, Spec, Step, Workload, jain};
use qumun::{Nanos, Topology};

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}
fn hog() -> Vec<Step> {
    vec![Step::Run(ms(1_000).into())]
}

#[test]
fn shares() {
    for tick in [4_000, 1_000] {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 7, Spec::default(), hog());
        let mut setup = Setup::new(Topology::flat(2));
        setup.tick = Nanos::from_micros(tick);
        let mut sim = Sim::new(setup.clone(), &work, Gthulhu::default()).unwrap();
        sim.run(ms(10_000));
        sim.check().unwrap();
        let shares: Vec<f64> = sim.group(hogs).iter().map(|t| t.ran.as_u64() as f64).collect();
        let c = sim.counters();
        println!(
            "tick {tick}: jain {:.4} total {:.4} agent {} preempts {} activations {} runs {} longest wait {}",
            jain(shares.clone()),
            shares.iter().sum::<f64>() / 20_000e6,
            sim.agent_ran(),
            c.preempts,
            c.activations,
            c.runs,
            sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap()
        );
        let mut work = Workload::new();
        let groups: Vec<_> = [50, 100, 200, 400]
            .map(|weight| work.group("w", 2, Spec { weight, ..Spec::default() }, hog()))
            .to_vec();
        let mut sim = Sim::new(setup, &work, Gthulhu::default()).unwrap();
        sim.run(ms(20_000));
        sim.check().unwrap();
        let sums: Vec<f64> = groups
            .iter()
            .map(|g| sim.group(*g).iter().map(|t| t.ran.as_u64() as f64).sum::<f64>() / 1e9)
            .collect();
        let c = sim.counters();
        println!(
            "tick {tick}: weights {:?} of {:.3} preempts {} activations {} runs {}",
            sums.iter().map(|s| s / sums[0]).collect::<Vec<_>>(),
            sums.iter().sum::<f64>(),
            c.preempts,
            c.activations,
            c.runs
        );
    }
}
