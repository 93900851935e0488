//! What users get: order, shares, short waits, and nobody starves.

use gthulhu_model::{
    CgroupId, Class, Label, Level, Priority, Strategy, StrategyId, StrategyTable, Target, Ttl, handover,
};
use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::alloc::{CountingAllocator, Guard};
use qumun::sim::{Machine, Script, Spec};
use qumun::{Affinity, Agent, Cpu, Event, Generation, Nanos, Note, Pid, Queued, TaskId};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn idle_cpus_are_given_away_once_and_warm_ones_first() {
    let mut agent = Agent::new(Script::new(4), Gthulhu::default());
    agent.turn();
    // Last CPU, affinity, and where it should go.
    let cases = [
        (3, 0b1111, Some(1)),
        (3, 0b1111, Some(3)),
        (0, 0b0011, None),
        (1, 0b1101, None),
        (2, 0b1111, Some(2)),
    ];
    for (i, (last, mask, _)) in (1..).zip(cases) {
        let mut task = Queued::new(TaskId { pid: Pid(i), generation: Generation(1) });
        task.cpu = Cpu(last);
        task.allowed = Affinity::new(mask, mask.count_ones(), 4);
        agent.backend_mut().queue(task);
    }
    [1, 2, 3].into_iter().for_each(|cpu| agent.backend_mut().idle.set(Cpu(cpu), true));
    agent.turn();
    // Newcomers are spread: this is their order.
    assert_eq!(agent.backend().pids(), [5, 2, 4, 1, 3]);
    let mut placed: Vec<_> = agent.backend().sent.iter().map(|d| (d.id().pid.0, d.cpu())).collect();
    placed.sort_unstable_by_key(|(pid, _)| *pid);
    let placed: Vec<_> = placed.into_iter().map(|(_, cpu)| cpu).collect();
    assert_eq!(placed, cases.map(|c| c.2.map(Cpu)));
}

/// A machine in normal mode.
fn machine() -> (Machine, Agent<qumun::sim::Port, Gthulhu>) {
    let machine = Machine::new(2);
    let mut agent = Agent::new(machine.backend(), Gthulhu::default());
    machine.run(Nanos::from_millis(150), || agent.turn());
    (machine, agent)
}

#[test]
fn time_is_shared_by_weight() {
    let (machine, mut agent) = machine();
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
        assert!(
            (share / fair - 1.0).abs() < 0.05,
            "weight {weight}: {share:.4} of the time instead of {fair:.4}"
        );
    }
    assert_eq!((machine.latch().entered, allocations), (0, 0));
    machine.check().unwrap();
}

#[test]
fn who_sleeps_does_not_wait_for_those_who_compute_and_starves_nobody() {
    let (machine, mut agent) = machine();
    let hogs = [(); 4].map(|()| machine.spawn(Spec::default()));
    let sleepers = [(); 3].map(|()| machine.spawn(Spec::default()));
    hogs.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(2_000), || agent.turn());
    // The sleepers run for a millisecond and sleep for ten.
    let (mut woken, mut waits, mut longest) = ([machine.now(); 3], Vec::new(), [Nanos::ZERO; 4]);
    let mut last = hogs.map(|hog| (machine.runs(hog), machine.now()));
    let mut awake = [false; 3];
    let start = machine.now();
    machine.run(Nanos::from_millis(5_000), || {
        let now = machine.now();
        for (i, &task) in sleepers.iter().enumerate() {
            let running = !machine.waiting().contains(&task);
            if !awake[i] && now - woken[i] > Nanos::from_millis(10) {
                machine.wake(task);
                (awake[i], woken[i]) = (true, now);
            } else if awake[i] && running {
                waits.push(now - woken[i]);
                machine.sleep(task);
                (awake[i], woken[i]) = (false, now);
            }
        }
        for (i, &hog) in hogs.iter().enumerate() {
            if machine.runs(hog) != last[i].0 {
                longest[i] = longest[i].max(now - last[i].1);
                last[i] = (machine.runs(hog), now);
            }
        }
        agent.turn();
    });
    machine.check().unwrap();
    assert_eq!(machine.latch().entered, 0);
    waits.sort_unstable();
    // No preemption here: a waking task waits for the end of a slice on one of two CPUs, at worst.
    let median = waits[waits.len() / 2];
    assert!(waits.len() > 600 && median <= Nanos::from_millis(6), "{} waits, median {median}", waits.len());
    let spent = machine.now() - start;
    assert!(longest.iter().all(|&gap| gap < Nanos::from_millis(600)), "{longest:?} in {spent}");
}

#[test]
fn endless_newcomers_do_not_starve_old_tasks() {
    let (machine, mut agent) = machine();
    let old = [(); 2].map(|()| machine.spawn(Spec::default()));
    old.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(3_000), || agent.turn());
    let before = old.map(|task| machine.run_time(task));
    // Six at a time, each of which ends after about 20 ms: a build.
    let mut build: Vec<Pid> = Vec::new();
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
        assert!(share > 0.02, "an old task got {share:.4} of the time");
    }
    machine.check().unwrap();
}

#[test]
fn nothing_is_allocated_after_the_start_whatever_is_asked_for() {
    let (mut publisher, reader) = handover();
    let mut agent = Agent::new(Script::new(2), Gthulhu::default().strategies(reader));
    agent.turn();
    let id = |n| StrategyId::new(n).unwrap();
    let latency = Priority::new(Class::Latency(Level::new(3).unwrap()));
    let mut allocations = 0;
    for generation in 1..200u64 {
        let now = generation * 10_000_000;
        // More groups and strategies than there is room for.
        let mut table = StrategyTable::builder(gthulhu_model::Generation(generation));
        for n in 0..300 {
            let target = Target::Cgroup(CgroupId(n));
            table.add(Strategy { id: id(n), target, priority: latency, ttl: Ttl::default() }.lease(now));
        }
        publisher.publish(table.build());
        for pid in 0..100i32 {
            let mut task = Queued::new(TaskId { pid: Pid(pid), generation: Generation(generation) });
            let number = generation * 100 + pid as u64;
            (task.cgroup_id, task.cpu_cgroup_id, task.enqueued_at) = (number % 300, number, Nanos(now));
            (task.started_at, task.stopped_at) = (Nanos(now - 5_000_000), Nanos(now - 1));
            task.label = if pid % 3 == 0 { Label::Strategy(id(pid as u64)).pack() } else { 0 };
            let (cgroup_id, parent) = (number, number / 2);
            let note = Note::Cgroup { cgroup_id, parent, weight: 100 + pid as u32, limit: None };
            agent.backend_mut().events.push_back(Event::Note(note));
            agent.backend_mut().queue(task);
        }
        agent.backend_mut().sent = Vec::with_capacity(200);
        let guard = Guard::new();
        let turn = agent.turn();
        allocations += guard.count();
        drop(guard);
        assert_eq!(turn.decisions, 100);
    }
    assert_eq!(allocations, 0);
}
