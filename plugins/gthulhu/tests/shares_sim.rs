//! Shares in simulated time, where the agent needs a CPU too and slices end at clock interrupts.

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::sim::{Setup, Sim, Spec, Step, Workload, jain};
use qumun::{Nanos, Topology};

fn hog() -> Vec<Step> {
    vec![Step::Run(Nanos::from_millis(1_000).into())]
}

/// 250 Hz and 1000 Hz.
fn setups() -> [Setup; 2] {
    [4_000, 1_000].map(|us| {
        let mut setup = Setup::new(Topology::flat(2));
        setup.tick = Nanos::from_micros(us);
        setup
    })
}

#[test]
fn equals_get_the_same() {
    for setup in setups() {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 7, Spec::default(), hog());
        let mut sim = Sim::new(setup, &work, Gthulhu::default()).unwrap();
        sim.run(Nanos::from_millis(10_000));
        sim.check().unwrap();
        let shares: Vec<f64> = sim.group(hogs).iter().map(|t| t.ran.as_u64() as f64).collect();
        assert!(jain(shares.iter().copied()) >= 0.99, "{shares:?}");
        // Each run is as long as it was meant to be: nobody's slice is cut for the agent.
        let c = sim.counters();
        assert!(c.preempts * 100 < c.runs, "{} of {} runs were cut short", c.preempts, c.runs);
    }
}

#[test]
fn weights_hold_within_three_percent() {
    for setup in setups() {
        let mut work = Workload::new();
        let weights = [50, 100, 200, 400];
        let groups = weights.map(|weight| work.group("w", 2, Spec { weight, ..Spec::default() }, hog()));
        let mut sim = Sim::new(setup, &work, Gthulhu::default()).unwrap();
        sim.run(Nanos::from_millis(20_000));
        sim.check().unwrap();
        let sums = groups.map(|g| sim.group(g).iter().map(|t| t.ran.as_u64() as f64).sum::<f64>());
        let total: f64 = sums.iter().sum();
        for (sum, weight) in sums.iter().zip(weights) {
            let ratio = sum / total / (f64::from(weight) / 750.0);
            assert!((ratio - 1.0).abs() < 0.03, "weight {weight}: {ratio:.4} of its share");
        }
    }
}
