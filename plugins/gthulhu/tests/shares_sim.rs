//! Shares in simulated time, where the agent needs a CPU too and slices end at clock interrupts.

mod world;

use gthulhu_plugin_gthulhu::Gthulhu;
use proptest::prelude::*;
use qumun::sim::{Sim, Spec, Step, Workload, jain};
use world::{World, hog, ms, ran, run, setups, us};

#[test]
fn equals_get_the_same() {
    for setup in setups() {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 7, Spec::default(), hog());
        let sim = run(setup, &work, Gthulhu::default(), ms(10_000));
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
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let sums = groups.map(|g| ran(&sim.group(g)));
        shares_hold(&sums, &weights.map(f64::from), 0.03);
    }
}

/// Each of them has its part of what all of them got.
fn shares_hold(got: &[f64], weights: &[f64], tolerance: f64) {
    let (total, all): (f64, f64) = (got.iter().sum(), weights.iter().sum());
    for (got, weight) in got.iter().zip(weights) {
        let ratio = got / total / (weight / all);
        assert!((ratio - 1.0).abs() <= tolerance, "weight {weight}: {ratio:.4} of its share, all {got:?}");
    }
}

fn member(cgroup_id: u64) -> Spec {
    Spec { cgroup_id, ..Spec::default() }
}

#[test]
fn cgroups_share_by_weight_whatever_is_in_them() {
    // How many hogs are in the group of weight 100, and in that of 300.
    for (light, heavy) in [(2, 2), (6, 2), (2, 6), (3, 5), (20, 2)] {
        for setup in setups() {
            let mut work = Workload::new();
            let one = work.group("one", light, member(10), hog());
            let three = work.group("three", heavy, member(11), hog());
            let sim = run(setup, &work, World::new().cgroup(10, 100).cgroup(11, 300), ms(20_000));
            let got = [one, three].map(|g| ran(&sim.group(g)));
            shares_hold(&got, &[1.0, 3.0], 0.03);
            for group in [one, three] {
                let each: Vec<f64> = sim.group(group).iter().map(|t| t.ran.as_u64() as f64).collect();
                assert!(jain(each.iter().copied()) >= 0.99, "{light}:{heavy} {each:?}");
            }
        }
    }
}

#[test]
fn tasks_share_by_weight_within_their_group_and_groups_stand_beside_tasks() {
    for setup in setups() {
        let mut work = Workload::new();
        let inside = |weight| Spec { weight, cgroup_id: 10, ..Spec::default() };
        let groups = [
            work.group("in", 1, inside(100), hog()),
            work.group("in", 1, inside(200), hog()),
            work.group("in", 1, inside(100), hog()),
            work.group("other", 4, member(11), hog()),
            work.group("flat", 2, member(1), hog()),
        ];
        let sim = run(setup, &work, World::new().cgroup(10, 200).cgroup(11, 200), ms(20_000));
        let got = groups.map(|g| ran(&sim.group(g)));
        shares_hold(&got, &[50.0, 100.0, 50.0, 200.0, 200.0], 0.04);
    }
}

#[test]
fn sleepers_in_a_group_do_not_change_what_the_group_gets() {
    for setup in setups() {
        let mut work = Workload::new();
        let beat = vec![Step::Run(us(300).into()), Step::Sleep(ms(7).into())];
        let light =
            [work.group("hogs", 2, member(10), hog()), work.group("beats", 6, member(10), beat.clone())];
        let heavy = [work.group("hogs", 2, member(11), hog()), work.group("beats", 2, member(11), beat)];
        let sim = run(setup, &work, World::new().cgroup(10, 100).cgroup(11, 300), ms(20_000));
        let got = [light, heavy].map(|gs| gs.map(|g| ran(&sim.group(g))).iter().sum());
        shares_hold(&got, &[1.0, 3.0], 0.05);
    }
}

#[test]
fn a_group_that_slept_gets_no_more_than_its_share_afterwards() {
    for setup in setups() {
        let mut work = Workload::new();
        let always = work.group("always", 2, member(10), hog());
        let late = work.group_at(ms(5_000), "late", 2, member(11), hog());
        let mut sim = Sim::new(setup, &work, World::new().cgroup(10, 100).cgroup(11, 100)).unwrap();
        sim.run(ms(5_000));
        let before = ran(&sim.group(always));
        sim.run(ms(1_000));
        let (always, late) = (ran(&sim.group(always)) - before, ran(&sim.group(late)));
        shares_hold(&[always, late], &[1.0, 1.0], 0.04);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any weights of groups, any number of tasks: each group has its share, if its tasks could use it.
    #[test]
    fn any_groups_get_their_shares(
        groups in proptest::collection::vec((50..800u32, 2..5usize), 2..5),
        seed in any::<u64>(),
    ) {
        let mut setup = setups()[1].clone();
        setup.seed = seed;
        let (mut work, mut world) = (Workload::new(), World::new());
        let mut ids = Vec::new();
        for (id, (weight, count)) in (10..).zip(&groups) {
            ids.push(work.group("g", *count, member(id), hog()));
            world = world.cgroup(id, *weight);
        }
        // The first 100 ms are the core's.
        let mut sim = Sim::new(setup, &work, world).unwrap();
        sim.run(ms(1_000));
        let before: Vec<f64> = ids.iter().map(|g| ran(&sim.group(*g))).collect();
        sim.run(ms(20_000));
        sim.check().unwrap();
        let got: Vec<f64> = ids.iter().zip(before).map(|(g, before)| ran(&sim.group(*g)) - before).collect();
        let weights: Vec<f64> = groups.iter().map(|g| f64::from(g.0)).collect();
        shares_hold(&got, &weights, 0.03);
    }
}
