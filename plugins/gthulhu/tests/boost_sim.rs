//! Boosts in simulated time: what they give, and what they leave to everybody else.

mod world;

use gthulhu_model::{Class, Priority};
use qumun::Nanos;
use qumun::sim::{Sim, Spec, Step, TaskFigures, Workload};
use world::{World, hog, latency, ms, ran, run, setups, us};

fn named(comm: &'static str) -> Spec {
    Spec { comm, ..Spec::default() }
}

/// A client that asks once a second and a server that answers: its own request, three wakeups.
fn health_check(work: &mut Workload) -> (qumun::sim::Group, qumun::sim::Group) {
    let server = work.group("server", 1, named("server"), vec![Step::Block]);
    let client = work.group("client", 1, named("client"), vec![Step::Block]);
    if let Some(steps) = work.steps(server) {
        *steps = vec![Step::Block, Step::Run(us(300).into()), Step::Wake(client)];
    }
    if let Some(steps) = work.steps(client) {
        *steps = vec![
            Step::Every(ms(1_000)),
            Step::Run(us(200).into()),
            Step::Wake(server),
            Step::Block,
            Step::Run(us(200).into()),
        ];
    }
    (server, client)
}

/// The first wakeup of a task is when it comes into being, while the core still schedules by itself.
fn longest_but_the_first(task: &TaskFigures) -> Nanos {
    let waits: Vec<(Nanos, u64)> = task.wake_to_run.buckets().collect();
    match waits[..] {
        [.., (second, _), (_, 1)] => Nanos(second.as_u64() * 9 / 8),
        _ => task.wake_to_run.max(),
    }
}

#[test]
fn spinning_favourites_leave_the_machine_usable() {
    for setup in setups() {
        for hogs in [1, 4, 12] {
            let mut work = Workload::new();
            let boosted = work.group("boosted", 4, named("boosted"), hog());
            let background = work.group("background", hogs, named("hog"), hog());
            let (server, client) = health_check(&mut work);
            let world = World::new().label("boosted", latency(0, 1_000));
            let sim = run(setup.clone(), &work, world, ms(60_000));
            let [b, o] = [boosted, background].map(|g| ran(&sim.group(g)) / 120.0);
            assert!(b >= 0.6 && o >= 0.1, "boosted {b:.3}, background {o:.3} with {hogs} hogs");
            // A check is one wakeup of the server and two of the client.
            let waits = [server, client].map(|g| longest_but_the_first(&sim.group(g)[0]));
            println!("dbg {hogs} hogs: boosted {b:.3} background {o:.3} {waits:?}");
            let worst = waits[0] + waits[1] + waits[1];
            assert!(worst < ms(100), "a check may have taken {worst} with {hogs} hogs");
        }
    }
}

#[test]
fn a_boost_of_the_default_budget_gives_its_share_of_a_cpu() {
    for setup in setups() {
        let mut work = Workload::new();
        let boosted = work.group("boosted", 1, named("boosted"), hog());
        work.group("background", 18, named("hog"), hog());
        // A fair share would be 2/19 of a CPU.
        let world = World::new().label("boosted", latency(3, 200));
        let sim = run(setup, &work, world, ms(20_000));
        let share = ran(&sim.group(boosted)) / 20.0;
        assert!((0.18..0.26).contains(&share), "{share:.3} of a CPU");
    }
}

#[test]
fn boosted_tasks_alone_waste_nothing() {
    for setup in setups() {
        let mut work = Workload::new();
        let boosted = work.group("boosted", 4, named("boosted"), hog());
        let sim = run(setup, &work, World::new().label("boosted", latency(0, 200)), ms(10_000));
        let share = ran(&sim.group(boosted)) / 20.0;
        assert!(share > 0.98 && sim.wasted() < ms(100), "{share:.3} used, {} idle", sim.wasted());
    }
}

#[test]
fn levels_preempt_what_is_strictly_weaker() {
    // A level that wakes up beside spinning ones: at once if it is stronger, in turn if it is the same.
    for setup in setups() {
        let wait = |level| {
            let mut work = Workload::new();
            work.group("spinners", 4, named("spin"), hog());
            let periodic = vec![Step::Every(ms(50)), Step::Run(us(200).into())];
            let woken = work.group("woken", 1, named("woken"), periodic);
            let world = World::new().label("spin", latency(5, 2_000)).label("woken", latency(level, 200));
            let sim = run(setup.clone(), &work, world, ms(20_000));
            sim.group(woken)[0].wake_to_run.quantile(0.9)
        };
        assert!(wait(4) <= setup.tick + ms(1), "{}", wait(4));
    }
}

#[test]
fn a_boosted_task_that_wakes_does_not_wait_for_those_who_compute() {
    for setup in setups() {
        let mut work = Workload::new();
        work.group("hogs", 8, named("hog"), hog());
        // Computes for too long to be taken for interactive.
        let steps = vec![Step::Run(ms(6).into()), Step::Sleep(ms(4).into())];
        let boosted = work.group("boosted", 1, named("boosted"), steps);
        let sim = run(setup.clone(), &work, World::new().label("boosted", latency(0, 800)), ms(20_000));
        let figures = &sim.group(boosted)[0];
        println!(
            "dbg {} {} {} {}",
            figures.wake_to_run.quantile(0.5),
            figures.wake_to_run.quantile(0.9),
            figures.wake_to_run.quantile(0.99),
            figures.wake_to_run.max()
        );
        assert!(figures.wake_to_run.quantile(0.99) <= setup.tick + ms(1), "{:?}", figures.longest_wait);
    }
}

#[test]
fn discounts_give_more_and_take_nobody_s_turn() {
    for setup in setups() {
        let share = |level: Option<u8>| {
            let mut work = Workload::new();
            let one = work.group("one", 1, named("one"), hog());
            work.group("others", 7, named("hog"), hog());
            let mut world = World::new();
            if let Some(level) = level {
                world = world.label("one", latency(level, 1_000));
            }
            ran(&run(setup.clone(), &work, world, ms(20_000)).group(one)) / 40.0
        };
        let [none, weak, strong] = [None, Some(20), Some(10)].map(share);
        // 50 % off is twice the weight: 2/9.
        assert!((0.122..0.128).contains(&none), "{none:.4}");
        assert!(weak > none && weak < 0.14 && (0.2..0.235).contains(&strong), "{weak:.4} {strong:.4}");
    }
}

#[test]
fn best_effort_runs_on_what_is_left_and_is_not_starved() {
    for setup in setups() {
        let mut work = Workload::new();
        let idle = work.group("idle", 2, named("idle"), hog());
        let busy = work.group("busy", 2, named("busy"), hog());
        let world = World::new().label("idle", Priority::new(Class::BestEffort));
        let sim = run(setup, &work, world, ms(20_000));
        let [i, b] = [idle, busy].map(|g| ran(&sim.group(g)) / 40.0);
        assert!(b > 0.9 && (0.005..0.08).contains(&i), "best effort {i:.3}, normal {b:.3}");
        let longest = sim.group(idle).iter().map(|t| t.longest_wait).max().unwrap_or(Nanos::ZERO);
        assert!(longest < ms(1_200), "{longest}");
    }
}

#[test]
fn a_slice_alone_is_the_slice_and_nothing_else() {
    let setup = setups()[1].clone();
    let mut work = Workload::new();
    let long = work.group("long", 2, named("long"), hog());
    let short = work.group("short", 2, named("short"), hog());
    let slice = gthulhu_model::Slice::from_nanos(15_000_000).unwrap();
    let world = World::new().label("long", Priority { slice: Some(slice), ..Priority::default() });
    let sim = run(setup, &work, world, ms(20_000));
    let [l, s] = [long, short].map(|g| sim.group(g));
    let each = |tasks: &[qumun::sim::TaskFigures]| tasks[0].ran.as_u64() / tasks[0].runs.max(1) / 1_000_000;
    assert!((ran(&l) / ran(&s) - 1.0).abs() < 0.04, "{} {}", ran(&l), ran(&s));
    assert!((13..=17).contains(&each(&l)) && each(&s) <= 7, "{} ms, {} ms", each(&l), each(&s));
}

#[test]
fn a_boosted_group_of_forks_is_worth_no_more_than_its_strategy() {
    for setup in setups() {
        let mut work = Workload::new();
        // Each one ends after 20 ms, which would be its burst, and another one begins.
        let child = work.group("child", 0, named("boosted"), vec![Step::Run(ms(20).into()), Step::Exit]);
        let parent =
            vec![Step::Fork(child), Step::Fork(child), Step::Fork(child), Step::Fork(child), Step::Join];
        work.group("parent", 1, named("parent"), parent);
        let others = work.group("others", 6, named("hog"), hog());
        let sim = run(setup, &work, World::new().label("boosted", latency(0, 200)), ms(20_000));
        let share = ran(&sim.group(others)) / 40.0;
        // Ten tasks, six of them ours: 0.6 would be without boosts.
        assert!(share > 0.3, "{share:.3}");
    }
}

#[test]
fn everything_waits_for_a_bounded_time() {
    // What is worst for those who compute: favourites, sleepers that come at once, newcomers without end.
    for setup in setups() {
        let mut work = Workload::new();
        work.group("boosted", 6, named("boosted"), hog());
        let sleepers = vec![Step::Run(ms(20).into()), Step::Sleep(ms(25).into())];
        work.group("sleepers", 4, named("sleeper"), sleepers);
        let child = vec![Step::Sleep(ms(30).into()), Step::Run(ms(3).into()), Step::Exit];
        let child = work.group("child", 0, named("child"), child);
        work.group("forker", 1, named("fork"), vec![Step::Fork(child), Step::Sleep(ms(4).into())]);
        let hogs = work.group("hogs", 3, named("hog"), hog());
        let mut sim = Sim::new(setup, &work, World::new().label("boosted", latency(0, 2_000))).unwrap();
        sim.run(ms(30_000));
        sim.check().unwrap();
        let longest = sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap_or(Nanos::ZERO);
        let share = ran(&sim.group(hogs)) / 60.0;
        println!("longest wait {longest}, hogs {share:.3}, rescued {}", sim.counters().rescued);
        assert!(longest < ms(900) && share > 0.01, "{longest}, {share:.3}");
    }
}
