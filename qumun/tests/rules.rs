//! What is wanted for tasks where the core decides by itself: in kernel mode, and without an agent.

use qumun::sim::{Group, Limit, Setup, Sim, Spec, Step, TaskFigures, Workload};
use qumun::{Context, Nanos, Queued, Rule, Rules, Scheduler, Topology, Verdict, Whom};

/// Never asked here but in one test.
#[derive(Default)]
struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn hogs(work: &mut Workload, comm: &'static str, count: usize) -> Group {
    work.group(comm, count, Spec { comm, ..Spec::default() }, vec![Step::Run(ms(1_000).into())])
}

/// Two CPUs in kernel mode, at 250 Hz and at 1000 Hz.
fn setups() -> [Setup; 2] {
    [4_000, 1_000].map(|tick| {
        let mut setup = Setup::new(Topology::flat(2));
        (setup.tick, setup.kernel_mode) = (us(tick), true);
        setup
    })
}

fn run(setup: Setup, work: &Workload, rules: &Rules, time: Nanos) -> Sim<Fifo> {
    let mut sim = Sim::new(setup, work, Fifo).unwrap();
    sim.set_rules(rules).unwrap();
    sim.run(time);
    sim.check().unwrap();
    assert_eq!(
        (sim.counters().ev_sent, sim.counters().rescued),
        (0, 0),
        "nobody was asked, and nobody had to be rescued"
    );
    sim
}

/// CPU time in seconds.
fn ran(tasks: &[TaskFigures]) -> f64 {
    tasks.iter().map(|task| task.ran.as_u64() as f64 / 1e9).sum()
}

#[test]
fn spinning_favourites_leave_the_machine_usable() {
    for setup in setups() {
        for others in [1, 4, 12] {
            let mut work = Workload::new();
            let favourites = hogs(&mut work, "favourite", 4);
            let background = hogs(&mut work, "hog", others);
            let check = vec![Step::Every(ms(1_000)), Step::Run(us(300).into())];
            let check = work.group("check", 1, Spec::default(), check);
            let rule = Rule::new(1).ahead(11).tokens(2_000, ms(20));
            let sim =
                run(setup.clone(), &work, &Rules::new().with(rule, [Whom::comm("favourite")]), ms(60_000));
            let [f, b] = [favourites, background].map(|group| ran(&sim.group(group)) / 120.0);
            let worst = sim.group(check)[0].wake_to_run.max();
            println!("tick {}, {others} others: {f:.3} {b:.3} {worst}", setup.tick);
            assert!(f >= 0.6 && b >= 0.1, "favourites {f:.3}, {others} others {b:.3}");
            assert!(worst < ms(100), "a check waited for {worst} beside {others} others");
        }
    }
}

#[test]
fn tokens_give_their_share_of_a_cpu() {
    for setup in setups() {
        let mut work = Workload::new();
        let one = hogs(&mut work, "one", 1);
        hogs(&mut work, "hog", 18);
        // Its part by weight would be 2/19 of a CPU.
        let rule = Rule::new(1).ahead(5).tokens(200, ms(20));
        let sim = run(setup, &work, &Rules::new().with(rule, [Whom::comm("one")]), ms(20_000));
        let share = ran(&sim.group(one)) / 20.0;
        assert!((0.18..0.32).contains(&share), "{share:.3} of a CPU");
    }
}

#[test]
fn who_is_ahead_waits_for_nobody_of_a_smaller_rank() {
    for setup in setups() {
        let wait = |rank| {
            let mut work = Workload::new();
            hogs(&mut work, "spin", 4);
            // Computes for too long to have credit for its sleeps.
            let steps = vec![Step::Run(ms(6).into()), Step::Sleep(ms(4).into())];
            let woken = work.group("woken", 1, Spec { comm: "woken", ..Spec::default() }, steps);
            let rules = Rules::new()
                .with(Rule::new(1).ahead(5).tokens(2_000, ms(50)), [Whom::comm("spin")])
                .with(Rule::new(2).ahead(rank).tokens(800, ms(20)), [Whom::comm("woken")]);
            let sim = run(setup.clone(), &work, &rules, ms(20_000));
            sim.group(woken)[0].wake_to_run.quantile(0.5)
        };
        let (stronger, same) = (wait(6), wait(5));
        assert!(stronger <= us(50), "{stronger}");
        assert!(same >= ms(1), "{same} beside its equals");
    }
}

#[test]
fn a_bound_of_the_weight_and_a_saving_change_shares() {
    for setup in setups() {
        let share = |rule: Rule| {
            let mut work = Workload::new();
            let one = hogs(&mut work, "one", 2);
            hogs(&mut work, "hog", 2);
            let rules = Rules::new().with(rule, [Whom::comm("one")]);
            ran(&run(setup.clone(), &work, &rules, ms(10_000)).group(one)) / 20.0
        };
        let (plain, light, saves) = (
            share(Rule::new(1)),
            share(Rule::new(1).at_most(25)),
            share(Rule::new(1).saving(50).tokens(2_000, ms(50))),
        );
        println!("{plain:.3} {light:.3} {saves:.3}");
        assert!((0.48..0.52).contains(&plain), "{plain:.3}");
        assert!((0.17..0.23).contains(&light), "a quarter of the weight: {light:.3}");
        // At half the price it gets twice as much as the others.
        assert!((0.62..0.71).contains(&saves), "{saves:.3}");
    }
}

#[test]
fn a_slice_alone_is_that_slice() {
    let runs = |slice: u64| {
        let mut work = Workload::new();
        let one = hogs(&mut work, "one", 4);
        let rules = Rules::new().with(Rule::new(1).slice(us(slice)), [Whom::comm("one")]);
        let [_, setup] = setups();
        let sim = run(setup, &work, &rules, ms(4_000));
        sim.group(one).iter().map(|task| task.runs).sum::<u64>()
    };
    // Slices end at clock interrupts, a millisecond apart.
    let (short, long) = (runs(2_000), runs(20_000));
    assert!(short > 2_500 && (300..800).contains(&long), "{short} {long}");
}

#[test]
fn the_narrowest_name_counts_until_its_time_is_over_and_tables_change_as_a_whole() {
    let mut work = Workload::new();
    let spec = |label| Spec { comm: "one", label, ..Spec::default() };
    let steps = || vec![Step::Run(ms(1_000).into())];
    let (labelled, named) =
        (work.group("labelled", 1, spec(7), steps()), work.group("named", 1, spec(0), steps()));
    hogs(&mut work, "hog", 2);
    let mut setup = Setup::new(Topology::flat(1));
    setup.kernel_mode = true;
    let mut sim = Sim::new(setup, &work, Fifo).unwrap();
    let begun = sim.now();
    // Names would have a tenth of their weight; who has the label keeps it.
    let light = Rule::new(1).at_most(10);
    let label = Rule::new(2).until(begun + ms(5_000));
    sim.set_rules(&Rules::new().with(light, [Whom::comm("one")]).with(label, [Whom::Label(7)])).unwrap();
    let mut last = [0.0; 2];
    let mut shares = |sim: &mut Sim<Fifo>| {
        sim.run(ms(5_000));
        let now = [labelled, named].map(|group| ran(&sim.group(group)));
        let grown = [0, 1].map(|i| (now[i] - last[i]) / 5.0);
        last = now;
        grown
    };
    let [a, b] = shares(&mut sim);
    assert!((0.28..0.36).contains(&a) && b < 0.09, "{a:.3} {b:.3}");
    // The label's rule is over: it is not followed by that for the name before the next table.
    let [a, _] = shares(&mut sim);
    assert!((0.28..0.36).contains(&a), "{a:.3}");
    sim.set_rules(&Rules::new().with(light, [Whom::comm("one")])).unwrap();
    let [a, b] = shares(&mut sim);
    assert!(a < 0.14 && b < 0.14, "{a:.3} {b:.3}");
    sim.set_rules(&Rules::new()).unwrap();
    let [a, b] = shares(&mut sim);
    assert!((0.2..0.3).contains(&a) && (0.2..0.3).contains(&b), "{a:.3} {b:.3}");
    sim.check().unwrap();
}

#[test]
fn rules_hold_while_there_is_no_agent() {
    let mut work = Workload::new();
    let one = hogs(&mut work, "one", 2);
    hogs(&mut work, "hog", 6);
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, Fifo).unwrap();
    let rule = Rule::new(1).ahead(3).tokens(1_000, ms(20));
    sim.set_rules(&Rules::new().with(rule, [Whom::comm("one")])).unwrap();
    sim.run(ms(2_000));
    let asked = ran(&sim.group(one)) / 4.0;
    // Nobody comes after it.
    sim.kill_agent(ms(1));
    sim.run(ms(10_000));
    let alone = (ran(&sim.group(one)) - asked * 4.0) / 20.0;
    assert!((0.2..0.32).contains(&asked), "the policy knows no rules: {asked:.3}");
    assert!(
        (0.45..0.65).contains(&alone),
        "one of two CPUs, and what their weight gives beyond that: {alone:.3}"
    );
    sim.check().unwrap();
}

#[test]
fn kernel_mode_can_be_left_and_entered_at_any_time() {
    let mut work = Workload::new();
    hogs(&mut work, "hog", 3);
    let steps = vec![Step::Run(us(200).into()), Step::Sleep(ms(2).into())];
    let sleepers = work.group("sleepers", 4, Spec::default(), steps);
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, Fifo).unwrap();
    for n in 0..100 {
        assert_eq!(sim.set_kernel_mode(n % 2 == 0), n % 2 == 1);
        sim.run(ms(100));
    }
    let counters = sim.counters();
    assert!(counters.kernel_mode > 3_000 && counters.dec_applied > 5_000, "{counters:?}");
    let wait = sim.group(sleepers).iter().map(|task| task.longest_wait).max().unwrap();
    assert!(wait <= ms(20), "{wait}");
    sim.check().unwrap();
}

/// A CPU whose cache is warm is worth waiting for only if it comes free at once: who waits for one that is busy for long
/// leaves another one idle.
#[test]
fn no_cpu_is_idle_for_long_while_tasks_wait_for_warm_caches() {
    for setup in setups() {
        for (tasks, runs, sleeps) in [(3, 4_000, 2_600), (3, 1_500, 900), (5, 2_500, 3_000), (3, 300, 100)] {
            let mut work = Workload::new();
            let steps = vec![Step::Run(us(runs).into()), Step::Sleep(us(sleeps).into())];
            work.group("woken", tasks, Spec { comm: "woken", ..Spec::default() }, steps);
            let sim = run(setup.clone(), &work, &Rules::new(), ms(10_000));
            let idle = sim.wasted().as_u64() as f64 / 20e9;
            println!("tick {}, {tasks} tasks that run {runs} us and sleep {sleeps}: {idle:.4}", setup.tick);
            assert!(idle <= 0.01, "{idle:.4} of the machine was idle while work waited");
        }
    }
}

fn hogs_in(work: &mut Workload, cgroup: u64, count: usize) -> Group {
    let spec = Spec { comm: "hog", cgroup_id: cgroup, ..Spec::default() };
    work.group("hog", count, spec, vec![Step::Run(ms(1_000).into())])
}

/// Parts of two CPUs' time that groups have in the second half of the next so many milliseconds.
fn parts(sim: &mut Sim<Fifo>, groups: &[Group], time: u64) -> Vec<f64> {
    sim.run(ms(time / 2));
    let before: Vec<f64> = groups.iter().map(|group| ran(&sim.group(*group))).collect();
    sim.run(ms(time / 2));
    sim.check().unwrap();
    let each = |(group, before): (&Group, f64)| (ran(&sim.group(*group)) - before) / (time as f64 / 1_000.0);
    groups.iter().zip(before).map(each).collect()
}

fn assert_near(have: &[f64], want: &[f64], what: &str) {
    let near = have.iter().zip(want).all(|(have, want)| (have - want).abs() <= 0.03 * want + 0.002);
    assert!(near && have.len() == want.len(), "{what}: {have:.3?}, not {want:.3?}");
}

#[test]
fn cgroups_have_their_weight_whoever_is_in_them() {
    for setup in setups() {
        // Each with its weight and how many are in it, and its part.
        for groups in [
            [(100, 10, 0.5), (100, 2, 0.5)],
            [(300, 2, 0.75), (100, 10, 0.25)],
            [(100, 2, 0.1), (900, 30, 0.9)],
        ] {
            let mut work = Workload::new();
            let made = groups.map(|(weight, count, _)| {
                let cgroup = work.cgroup(1, weight, Limit::NONE);
                hogs_in(&mut work, cgroup, count)
            });
            let mut sim = Sim::new(setup.clone(), &work, Fifo).unwrap();
            let have = parts(&mut sim, &made, 20_000);
            assert_near(&have, &groups.map(|(_, _, want)| want), &format!("tick {}, {groups:?}", setup.tick));
        }
    }
}

/// Tasks in a cgroup compete with the cgroups below it, as in the kernel's own class.
#[test]
fn weights_hold_on_each_level() {
    for setup in setups() {
        let mut work = Workload::new();
        let above = work.cgroup(1, 300, Limit::NONE);
        let left = work.cgroup(above, 200, Limit::NONE);
        let right = work.cgroup(above, 50, Limit::NONE);
        let beside = work.cgroup(1, 100, Limit::NONE);
        let made = [
            hogs_in(&mut work, above, 1),
            hogs_in(&mut work, left, 4),
            hogs_in(&mut work, right, 3),
            hogs_in(&mut work, beside, 5),
        ];
        let mut sim = Sim::new(setup.clone(), &work, Fifo).unwrap();
        let have = parts(&mut sim, &made, 40_000);
        let inside = 0.75 / 350.0;
        assert_near(&have, &[100.0 * inside, 200.0 * inside, 50.0 * inside, 0.25], "levels");
        // Another weight, and somebody moves.
        assert!(sim.set_weight(left, 50));
        sim.move_group(made[0], right);
        let have = parts(&mut sim, &made, 40_000);
        let half = 0.75 / 2.0;
        assert_near(&have, &[half / 4.0, half, half * 0.75, 0.25], "changed");
    }
}

/// Who sleeps leaves its part to the others in its cgroup first; a cgroup that sleeps as a whole leaves it to all.
#[test]
fn a_part_that_is_not_used_goes_to_the_others_of_the_cgroup() {
    for setup in setups() {
        let mut work = Workload::new();
        let [a, b] = [100, 100].map(|weight| work.cgroup(1, weight, Limit::NONE));
        let spec = Spec { comm: "naps", cgroup_id: a, ..Spec::default() };
        let naps = work.group("naps", 4, spec, vec![Step::Run(us(500).into()), Step::Sleep(ms(10).into())]);
        let made = [naps, hogs_in(&mut work, a, 2), hogs_in(&mut work, b, 6)];
        let mut sim = Sim::new(setup.clone(), &work, Fifo).unwrap();
        let have = parts(&mut sim, &made, 20_000);
        assert!((have[0] + have[1] - 0.5).abs() < 0.03, "{have:.3?}");
        assert!(have[0] > 0.07, "who naps is not served: {have:.3?}");
        let worst = sim.group(naps).iter().map(|task| task.wake_to_run.quantile(0.99)).max().unwrap();
        assert!(worst <= ms(20), "{worst}");
    }
}
