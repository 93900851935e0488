//! What has no sign on the outside: the clock and the capacity.

use proptest::prelude::*;
use qumun::sim::Script;
use qumun::{Agent, Generation, Pid, TaskId};

use super::*;
use qumun::Cpu;

fn task(pid: i32, generation: u64) -> Queued {
    Queued::new(TaskId { pid: Pid(pid), generation: Generation(generation) })
}

fn ran(ns: u64, until: u64, weight: u32) -> Queued {
    let mut task = task(1, 1);
    (task.started_at, task.stopped_at, task.weight) = (Nanos(until - ns), Nanos(until), weight);
    task
}

#[test]
fn a_run_is_charged_once_and_by_weight() {
    let (mut policy, mut account) = (Gthulhu::default(), Account::default());
    for _ in 0..3 {
        policy.deadline(&mut account, &ran(1_000, 50_000, 200));
    }
    assert_eq!((account.vruntime, policy.clock), (500, 0));
    policy.deadline(&mut account, &ran(1_000, 60_000, 50));
    assert_eq!((account.vruntime, policy.clock), (2_500, 500));
    // A weight of zero counts as one, and a clock that went back as no time.
    policy.deadline(&mut account, &ran(10, 70_000, 0));
    assert_eq!(account.vruntime, 3_500);
    let mut backwards = ran(0, 80_000, 100);
    backwards.started_at = Nanos(90_000);
    policy.deadline(&mut account, &backwards);
    assert_eq!(account.vruntime, 3_500);
}

#[test]
fn a_sleeper_keeps_one_slice_of_credit_and_a_waiter_keeps_its_place() {
    let mut policy = Gthulhu { clock: 10_000_000_000, ..Gthulhu::default() };
    let slice = policy.slice.as_u64();
    let known = Account { vruntime: 9_900_000_000, charged: Nanos(1), known: true };
    let mut wakeup = task(1, 1);
    wakeup.wakeup = true;
    assert_eq!(policy.deadline(&mut known.clone(), &wakeup), 10_000_000_000 - slice);
    assert_eq!(policy.deadline(&mut known.clone(), &task(1, 1)), 9_900_000_000);
    // A new task, and one that was away for long.
    assert_eq!(policy.deadline(&mut Account::default(), &task(1, 1)), 10_000_000_000 - slice);
    let mut away = Account { vruntime: 0, ..known };
    assert_eq!(policy.deadline(&mut away, &task(1, 1)), 10_000_000_000 - 200 * slice);
}

#[test]
fn slices_shrink_with_the_queue_and_with_the_weight() {
    let policy = Gthulhu::default();
    let ms = |weight, waiting| policy.slice(weight, waiting, 2).as_u64() as f64 / 1e6;
    assert_eq!([ms(100, 0), ms(100, 2), ms(100, 4), ms(100, 1_000)], [5.0, 5.0, 2.5, 1.0]);
    assert_eq!([ms(50, 2), ms(1, 2), ms(0, 2), ms(10_000, 2)], [2.5, 1.0, 1.0, 5.0]);
}

#[test]
fn a_batch_shares_the_slice() {
    let mut agent = Agent::new(Script::new(2), Gthulhu::default());
    agent.turn();
    (1..=5).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    agent.turn();
    let slices: Vec<_> = agent.backend().sent.iter().map(|d| d.get_slice().as_u64() / 1_000).collect();
    assert_eq!(slices, [1_666, 2_500, 2_500, 5_000, 5_000]);
}

#[test]
fn a_batch_larger_than_the_memory_for_it_is_sent_all_the_same() {
    // A page, with room for 16, and enough for all of them.
    for (bytes, room) in [(0, 16), (1 << 20, 100)] {
        let mut agent = qumun::builder("small").pool(bytes).agent(Script::new(2), Gthulhu::default());
        agent.turn();
        (1..=100).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
        assert_eq!(agent.turn().decisions, 100);
        // What finds no room is sent as it comes, so before the others.
        assert_eq!(agent.backend().pids()[0], if room < 100 { room + 1 } else { 1 });
    }
}

#[test]
fn a_policy_that_was_not_started_sends_at_once() {
    let mut waiting = Waiting::default();
    let entry =
        Entry { last: Cpu(0), weight: 100, allowed: qumun::Affinity::ANY, decision: task(1, 1).anywhere() };
    assert!(waiting.push(Nanos(1), entry).is_err() && waiting.pop().is_none());
    assert_eq!((waiting.len(), waiting.peek().is_none()), (0, true));
}

fn anything() -> impl Strategy<Value = Queued> {
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0..10_000_000_000u64];
    let weight = prop_oneof![Just(0u32), Just(1), Just(10_000), Just(u32::MAX), any::<u32>()];
    let times = (number(), number(), number(), number(), number());
    (1..6i32, number(), weight, times, any::<(bool, bool, u32, u64)>()).prop_map(
        |(pid, generation, weight, t, other)| {
            let mut task = task(pid, generation);
            task.weight = weight;
            (task.enqueued_at, task.started_at, task.stopped_at) = (Nanos(t.0), Nanos(t.1), Nanos(t.2));
            (task.exec_runtime, task.vtime) = (Nanos(t.3), t.4);
            (task.wakeup, task.sampled, task.cpu) = (other.0, other.1, Cpu(other.2));
            task.allowed = qumun::Affinity::new(other.3, other.3.count_ones(), 2);
            task
        },
    )
}

proptest! {
    #[test]
    fn nothing_that_the_core_says_makes_it_panic_or_keep_a_task(
        slices in any::<(u64, u64)>(),
        batches in proptest::collection::vec(proptest::collection::vec(anything(), 0..20), 1..10),
        idle in any::<u64>(),
    ) {
        let policy = Gthulhu::new(Nanos(slices.0), Nanos(slices.1));
        // Small, as there are many of them.
        let options = qumun::builder("any").tasks(64).pool(64 << 10);
        let mut agent = options.agent(Script::new(2), policy);
        agent.backend_mut().idle.set_word(0, idle);
        agent.turn();
        for batch in batches {
            batch.iter().for_each(|&task| agent.backend_mut().queue(task));
            prop_assert_eq!(agent.turn().decisions, batch.len());
            prop_assert_eq!(agent.policy().waiting.len(), 0);
        }
    }
}
