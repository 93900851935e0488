//! What users get: shares by weight, bounded credit for sleep, and nobody starves.

use gthulhu_plugin_simple::{Mode, Simple};
use qumun::alloc::{CountingAllocator, Guard};
use qumun::sim::{Machine, Port, Spec};
use qumun::{Agent, Nanos};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A machine of two CPUs in normal mode.
fn machine(policy: Simple) -> (Machine, Agent<Port, Simple>) {
    let machine = Machine::new(2);
    let mut agent = Agent::new(machine.backend(), policy);
    machine.run(Nanos::from_millis(150), || agent.turn());
    (machine, agent)
}

#[test]
fn time_is_shared_by_weight_without_an_allocation() {
    let (machine, mut agent) = machine(Simple::default());
    let weights = [25, 50, 100, 100, 200, 300];
    let tasks = weights.map(|weight| machine.spawn(Spec { weight, ..Spec::default() }));
    tasks.iter().for_each(|&task| assert!(machine.wake(task)));
    let mut allocations = 0;
    machine.run(Nanos::from_millis(30_000), || {
        let guard = Guard::new();
        agent.turn();
        allocations += guard.count();
    });
    let total: u32 = weights.iter().sum();
    for (task, weight) in tasks.into_iter().zip(weights) {
        let share = machine.run_time(task).as_u64() as f64 / 60_000e6;
        let fair = f64::from(weight) / f64::from(total);
        assert!((share / fair - 1.0).abs() < 0.04, "weight {weight}: {share:.4} of the time, not {fair:.4}");
    }
    assert_eq!((machine.latch().entered, allocations), (0, 0));
    machine.check().unwrap();
}

#[test]
fn a_light_task_beside_the_heaviest_gets_its_share() {
    let (machine, mut agent) = machine(Simple::default());
    let heavy = [(); 4].map(|()| machine.spawn(Spec { weight: 10_000, ..Spec::default() }));
    // Lighter ones wait for more than 500 ms, and are rescued by the core.
    let light = machine.spawn(Spec { weight: 300, ..Spec::default() });
    heavy.iter().chain([&light]).for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(30_000), || agent.turn());
    // 3/403 of 60 s is 447 ms.
    let got = machine.run_time(light);
    assert!((Nanos::from_millis(420)..Nanos::from_millis(470)).contains(&got), "{got}");
    machine.check().unwrap();
}

#[test]
fn a_sleeper_cannot_save_up() {
    let (machine, mut agent) = machine(Simple::default());
    let hogs = [(); 4].map(|()| machine.spawn(Spec::default()));
    let sleeper = machine.spawn(Spec::default());
    hogs.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(10_000), || agent.turn());
    // It slept for ten seconds, and computes from now on: a fifth of two CPUs, and one slice more.
    assert!(machine.wake(sleeper));
    machine.run(Nanos::from_millis(200), || agent.turn());
    let got = machine.run_time(sleeper);
    assert!((Nanos::from_millis(60)..Nanos::from_millis(100)).contains(&got), "{got} of 400 ms");
    machine.check().unwrap();
}

#[test]
fn newcomers_without_end_do_not_starve_old_tasks() {
    let (machine, mut agent) = machine(Simple::default());
    let old = [(); 2].map(|()| machine.spawn(Spec::default()));
    old.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(3_000), || agent.turn());
    let before = old.map(|task| machine.run_time(task));
    let mut build = Vec::new();
    machine.run(Nanos::from_millis(20_000), || {
        build.retain(|&task| {
            let done = machine.run_time(task) > Nanos::from_millis(20);
            if done {
                machine.exit(task);
            }
            !done
        });
        while build.len() < 6 {
            let task = machine.spawn(Spec::default());
            machine.wake(task);
            build.push(task);
        }
        agent.turn();
    });
    for (task, before) in old.into_iter().zip(before) {
        let share = (machine.run_time(task) - before).as_u64() as f64 / 40_000e6;
        // Eight tasks: an eighth would be fair to tasks of the same age.
        assert!(share > 0.05, "an old task got {share:.4} of the time");
    }
    machine.check().unwrap();
}

#[test]
fn fifo_serves_everybody_alike_whatever_the_weight() {
    let (machine, mut agent) = machine(Simple::default().mode(Mode::Fifo));
    let tasks = [25, 100, 400].map(|weight| machine.spawn(Spec { weight, ..Spec::default() }));
    tasks.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(6_000), || agent.turn());
    for task in tasks {
        let share = machine.run_time(task).as_u64() as f64 / 12_000e6 * 3.0;
        assert!((0.97..1.03).contains(&share), "{share}");
    }
    machine.check().unwrap();
}
