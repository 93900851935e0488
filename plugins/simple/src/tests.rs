//! What has no sign on the outside: the account and the clock.

use proptest::prelude::*;
use qumun::sim::Script;
use qumun::{Agent, Generation, Pid, TaskId};

use super::*;

const SLICE: u64 = 5_000_000;

fn task(pid: i32) -> Queued {
    Queued::new(TaskId { pid: Pid(pid), generation: Generation(1) })
}

fn ran(ns: u64, until: u64, weight: u32) -> Queued {
    let mut task = task(1);
    (task.started_at, task.stopped_at, task.weight) = (Nanos(until - ns), Nanos(until), weight);
    task
}

#[test]
fn a_run_is_charged_once_by_the_clock_and_by_weight() {
    let (mut policy, mut account) = (Simple::default(), Account::default());
    for _ in 0..3 {
        policy.charge(&mut account, &ran(1_000, 50_000, 200));
    }
    assert_eq!((account.vtime, policy.clock), (500, 0));
    policy.charge(&mut account, &ran(1_000, 60_000, 50));
    assert_eq!((account.vtime, policy.clock), (2_500, 500));
    // A weight of zero counts as one, a clock that went back as no time, and one that jumped as a second.
    policy.charge(&mut account, &ran(10, 70_000, 0));
    assert_eq!(account.vtime, 3_500);
    let mut backwards = ran(0, 80_000, 100);
    backwards.started_at = Nanos(90_000);
    policy.charge(&mut account, &backwards);
    assert_eq!(account.vtime, 3_500);
    policy.charge(&mut account, &ran(u64::MAX / 2, u64::MAX, 100));
    assert_eq!(account.vtime, 1_000_003_500);
}

#[test]
fn credit_for_sleep_is_one_slice_and_who_waits_keeps_its_place() {
    let clock = 10_000_000_000;
    let mut policy = Simple { clock, ..Simple::default() };
    let known = |vtime| Account { vtime, charged: Nanos(1), known: true };
    let mut wakeup = task(1);
    wakeup.wakeup = true;
    let cases = [
        ("slept for long", known(0), wakeup, clock - SLICE),
        ("slept for a moment", known(clock - 1), wakeup, clock - 1),
        ("is ahead", known(clock + 7), wakeup, clock + 7),
        ("is new", Account::default(), task(1), clock - SLICE),
        ("waits", known(clock - 2 * SLICE), task(1), clock - 2 * SLICE),
        ("was away", known(0), task(1), clock - AWAY * SLICE),
    ];
    for (who, mut account, task, wanted) in cases {
        assert_eq!(policy.charge(&mut account, &task), wanted, "{who}");
    }
}

fn anything() -> impl Strategy<Value = Queued> {
    let number = || prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..10_000_000_000u64];
    (1..6i32, any::<u32>(), (number(), number(), number()), any::<bool>()).prop_map(
        |(pid, weight, t, wakeup)| {
            let mut task = task(pid);
            (task.weight, task.wakeup) = (weight, wakeup);
            (task.enqueued_at, task.started_at, task.stopped_at) = (Nanos(t.0), Nanos(t.1), Nanos(t.2));
            task
        },
    )
}

proptest! {
    #[test]
    fn nothing_that_the_core_says_makes_it_panic_or_keep_a_task(
        slice in any::<u64>(),
        fifo in any::<bool>(),
        tasks in proptest::collection::vec(anything(), 1..60),
    ) {
        let mode = if fifo { Mode::Fifo } else { Mode::Weighted };
        let mut agent = Agent::new(Script::new(2), Simple::new(Nanos(slice)).mode(mode));
        agent.turn();
        tasks.iter().for_each(|&task| agent.backend_mut().queue(task));
        prop_assert_eq!(agent.turn().decisions, tasks.len());
    }
}
