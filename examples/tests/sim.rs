//! Every example on the in-process model of the core.

use qumun::sim::{Machine, Spec};
use qumun::{Nanos, Scheduler};
use qumun_examples::fifo::Fifo;

/// Runs a policy under load and returns how long each of six tasks ran in 3 s on two CPUs.
fn run(policy: impl Scheduler) -> Vec<Nanos> {
    let machine = Machine::new(2);
    let mut agent = qumun::builder("example").agent(machine.backend(), policy);
    let tasks: Vec<_> = (0..6).map(|_| machine.spawn(Spec::default())).collect();
    tasks.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(3_000), || agent.turn());
    assert_eq!(machine.check(), Ok(()));
    assert_eq!(machine.latch().entered, 0, "the core had to take over");
    assert!(machine.counters().ev_dispatched > 1_000, "{:?}", machine.counters());
    tasks.iter().map(|&task| machine.run_time(task)).collect()
}

#[test]
fn fifo_serves_everybody_alike() {
    for time in run(Fifo) {
        assert!((Nanos::from_millis(900)..Nanos::from_millis(1_100)).contains(&time), "{time}");
    }
}
