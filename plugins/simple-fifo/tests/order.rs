//! Arrival order, one slice for all, nobody starves.

use gthulhu_plugin_simple_fifo::SimpleFifo;
use proptest::prelude::*;
use qumun::sim::{Machine, Script, Spec};
use qumun::{Agent, Generation, Nanos, Pid, Queued, TaskId};

fn task(pid: i32, at: u64) -> Queued {
    let mut task = Queued::new(TaskId { pid: Pid(pid), generation: Generation(1) });
    task.enqueued_at = Nanos(at);
    task
}

proptest! {
    #[test]
    fn the_core_serves_in_the_order_of_arrival(times in proptest::collection::vec(any::<u64>(), 1..60)) {
        let mut agent = Agent::new(Script::new(2), SimpleFifo::default());
        for (pid, &at) in (1..).zip(&times) {
            agent.backend_mut().queue(task(pid, at));
        }
        prop_assert_eq!(agent.turn().decisions, 0, "what is older than the agreement is void");
        for (pid, &at) in (1..).zip(&times) {
            agent.backend_mut().queue(task(pid, at));
        }
        agent.turn();
        // The core serves the lowest virtual time first, and equals as they came.
        let mut served = agent.backend().sent.clone();
        served.sort_by_key(|d| d.get_vtime());
        let mut arrived: Vec<_> = (1..).zip(times).map(|(pid, at)| (at, pid)).collect();
        arrived.sort_unstable();
        let served: Vec<_> = served.iter().map(|d| d.id().pid.0).collect();
        prop_assert_eq!(served, arrived.iter().map(|a| a.1).collect::<Vec<_>>());
        prop_assert!(agent.backend().sent.iter().all(|d| d.cpu().is_none()));
        prop_assert!(agent.backend().sent.iter().all(|d| d.get_slice() == Nanos::from_millis(5)));
    }
}

#[test]
fn everybody_gets_the_same_whatever_the_weight() {
    let machine = Machine::new(2);
    let mut agent = Agent::new(machine.backend(), SimpleFifo::default());
    let tasks: Vec<_> =
        (1..=6).map(|i| machine.spawn(Spec { weight: i * i * 100, ..Spec::default() })).collect();
    tasks.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(200), || agent.turn());
    let before: Vec<_> = tasks.iter().map(|&task| machine.run_time(task)).collect();
    machine.run(Nanos::from_millis(6_000), || agent.turn());
    for (&task, before) in tasks.iter().zip(before) {
        let share = (machine.run_time(task) - before).as_u64() as f64 / 12_000e6 * 6.0;
        assert!((0.97..1.03).contains(&share), "{task}: {share}");
    }
    machine.check().unwrap();
    assert_eq!(machine.latch().entered, 0);
}
