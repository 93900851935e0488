//! Shares in simulated time, where the agent needs a CPU too and slices end at clock interrupts.

mod world;

use gthulhu_plugin_gthulhu::Gthulhu;
use proptest::prelude::*;
use qumun::Topology;
use qumun::sim::{Group, Limit, Sim, Spec, Step, Workload, jain};
use world::{hog, ms, ran, run, setups, us};

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

/// A cgroup below the root.
fn top(work: &mut Workload, weight: u32) -> u64 {
    work.cgroup(1, weight, Limit::NONE)
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
            let [light_group, heavy_group] = [100, 300].map(|weight| top(&mut work, weight));
            let one = work.group("one", light, member(light_group), hog());
            let three = work.group("three", heavy, member(heavy_group), hog());
            let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
            let got = [one, three].map(|g| ran(&sim.group(g)));
            shares_hold(&got, &[1.0, 3.0], 0.03);
            for group in [one, three] {
                let each: Vec<f64> = sim.group(group).iter().map(|t| t.ran.as_u64() as f64).collect();
                assert!(jain(each.iter().copied()) >= 0.99, "{light}:{heavy} {each:?}");
            }
        }
    }
}

/// As the cgroup of all pods has: more than all else together.
#[test]
fn a_heavy_cgroup_has_its_share_of_many_cpus() {
    for weight in [800, 2_500] {
        let mut setup = setups()[0].clone();
        setup.topology = Topology::flat(16);
        let mut work = Workload::new();
        let pods = top(&mut work, weight);
        let inside = work.group("inside", 24, member(pods), hog());
        let beside = work.group("beside", 24, Spec::default(), hog());
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        shares_hold(&[inside, beside].map(|g| ran(&sim.group(g))), &[f64::from(weight), 2_400.0], 0.03);
    }
}

#[test]
fn tasks_share_by_weight_within_their_group_and_groups_stand_beside_tasks() {
    for setup in setups() {
        let mut work = Workload::new();
        let [one, two] = [200, 200].map(|weight| top(&mut work, weight));
        let inside = |weight| Spec { weight, cgroup_id: one, ..Spec::default() };
        let groups = [
            work.group("in", 1, inside(100), hog()),
            work.group("in", 1, inside(200), hog()),
            work.group("in", 1, inside(100), hog()),
            work.group("other", 4, member(two), hog()),
            work.group("flat", 2, member(1), hog()),
        ];
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let got = groups.map(|g| ran(&sim.group(g)));
        shares_hold(&got, &[50.0, 100.0, 50.0, 200.0, 200.0], 0.04);
    }
}

#[test]
fn sleepers_in_a_group_do_not_change_what_the_group_gets() {
    for setup in setups() {
        let mut work = Workload::new();
        let beat = vec![Step::Run(us(300).into()), Step::Sleep(ms(7).into())];
        let [one, three] = [100, 300].map(|weight| top(&mut work, weight));
        let light =
            [work.group("hogs", 2, member(one), hog()), work.group("beats", 6, member(one), beat.clone())];
        let heavy =
            [work.group("hogs", 2, member(three), hog()), work.group("beats", 2, member(three), beat)];
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let got = [light, heavy].map(|gs| gs.map(|g| ran(&sim.group(g))).iter().sum());
        shares_hold(&got, &[1.0, 3.0], 0.05);
    }
}

#[test]
fn a_group_that_slept_gets_no_more_than_its_share_afterwards() {
    for setup in setups() {
        let mut work = Workload::new();
        let [one, two] = [100, 100].map(|weight| top(&mut work, weight));
        let always = work.group("always", 2, member(one), hog());
        let late = work.group_at(ms(5_000), "late", 2, member(two), hog());
        let mut sim = Sim::new(setup, &work, Gthulhu::default()).unwrap();
        sim.run(ms(5_000));
        let before = ran(&sim.group(always));
        sim.run(ms(1_000));
        let (always, late) = (ran(&sim.group(always)) - before, ran(&sim.group(late)));
        shares_hold(&[always, late], &[1.0, 1.0], 0.04);
    }
}

/// A cgroup with so many tasks in it, and cgroups: as many tasks as its whole weight could use.
#[derive(Clone, Debug)]
struct Tree {
    weight: u32,
    tasks: usize,
    below: Vec<Tree>,
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (50..400u32, 2..5usize).prop_map(|(weight, tasks)| Tree { weight, tasks, below: Vec::new() });
    leaf.prop_recursive(2, 8, 3, |inner| {
        (50..400u32, 0..2usize, proptest::collection::vec(inner, 1..3))
            .prop_map(|(weight, tasks, below)| Tree { weight, tasks, below })
    })
}

/// The rule in the plainest words: a part of a part of a part.
fn ideal(tree: &Tree, share: f64, shares: &mut Vec<f64>) {
    let all = 100.0 * tree.tasks as f64 + tree.below.iter().map(|t| f64::from(t.weight)).sum::<f64>();
    shares.push(share * 100.0 * tree.tasks as f64 / all);
    for below in &tree.below {
        ideal(below, share * f64::from(below.weight) / all, shares);
    }
}

fn plant(work: &mut Workload, tree: &Tree, parent: u64, groups: &mut Vec<Group>) {
    let id = work.cgroup(parent, tree.weight, Limit::NONE);
    groups.push(work.group("hogs", tree.tasks, member(id), hog()));
    for below in &tree.below {
        plant(work, below, id, groups);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any tree of cgroups, tasks beside cgroups too: all get what the weights above them give.
    #[test]
    fn any_tree_of_cgroups_shares_as_the_naive_rule_says(
        trees in proptest::collection::vec(tree(), 2..4),
        seed in any::<u64>(),
    ) {
        let root = Tree { weight: 100, tasks: 1, below: trees };
        let mut shares = Vec::new();
        ideal(&root, 1.0, &mut shares);
        let mut setup = setups()[1].clone();
        setup.seed = seed;
        let mut work = Workload::new();
        let mut groups = vec![work.group("hogs", root.tasks, member(1), hog())];
        root.below.iter().for_each(|tree| plant(&mut work, tree, 1, &mut groups));
        // A task cannot use more than one of the two CPUs; and for one that weighs less than a twentieth of the usual, here
        // at the root, the bound of its wait comes before its weight.
        let all = 100.0 + root.below.iter().map(|tree| f64::from(tree.weight)).sum::<f64>();
        for (share, tasks) in shares.iter().zip(counts(&root)).filter(|(_, tasks)| *tasks > 0) {
            let one = share / tasks as f64;
            prop_assume!(one <= 0.4 && one * all >= 5.0);
        }
        // The first 100 ms are the core's.
        let mut sim = Sim::new(setup, &work, Gthulhu::default()).unwrap();
        sim.run(ms(1_000));
        let before: Vec<f64> = groups.iter().map(|g| ran(&sim.group(*g))).collect();
        sim.run(ms(30_000));
        sim.check().unwrap();
        for ((group, before), share) in groups.iter().zip(before).zip(&shares) {
            let got = (ran(&sim.group(*group)) - before) / 60.0;
            // 3 %, and a turn of each task more or less.
            let room = share * 0.03 + 0.0015;
            prop_assert!((got - share).abs() <= room, "{got:.4} of {share:.4} in {root:?}");
        }
    }
}

fn counts(tree: &Tree) -> Vec<usize> {
    std::iter::once(tree.tasks).chain(tree.below.iter().flat_map(counts)).collect()
}
