//! What has no sign on the outside: charging, credit, slices, wishes, the capacity.

use gthulhu_model::{
    Budget, CgroupId, Generation as Table, Label, Priority, Slice, Strategy as Asked, StrategyId, Target,
    ThreadId, Ttl, handover,
};
use proptest::prelude::*;
use qumun::sim::Script;
use qumun::{Cpu, Generation, Pid, TaskId};

use super::*;
use clock::START;

const MS: u64 = 1_000_000;

fn task(pid: i32, generation: u64) -> Queued {
    Queued::new(TaskId { pid: Pid(pid), generation: Generation(generation) })
}

fn ran(ns: u64, until: u64, weight: u32) -> Queued {
    let mut task = task(1, 1);
    (task.started_at, task.stopped_at, task.weight) = (Nanos(until - ns), Nanos(until), weight);
    task
}

fn known() -> Account {
    let mut account = Account { known: true, ..Account::default() };
    (account.member.vruntime, account.weight, account.turn.stands.place) = (START, 100, START);
    account.turn.slice = Nanos(5 * MS);
    account
}

#[test]
fn a_run_is_charged_once_and_by_weight() {
    let (mut policy, mut account) = (Gthulhu::default(), known());
    account.weight = 200;
    for _ in 0..3 {
        policy.charge(&mut account, &ran(1_000, 50_000, 200));
    }
    assert_eq!(account.member.vruntime, START + 500);
    account.weight = 50;
    policy.charge(&mut account, &ran(1_000, 60_000, 50));
    assert_eq!(account.member.vruntime, START + 2_500);
    // A weight of zero counts as one, and a clock that went back as no time.
    account.weight = 0;
    policy.charge(&mut account, &ran(10, 70_000, 0));
    assert_eq!(account.member.vruntime, START + 3_500);
    let mut backwards = ran(0, 80_000, 100);
    backwards.started_at = Nanos(90_000);
    policy.charge(&mut account, &backwards);
    assert_eq!(account.member.vruntime, START + 3_500);
    // Alone on a CPU for a second: what is longer than the slice and a clock interrupt cost nobody anything.
    account.weight = 100;
    policy.charge(&mut account, &ran(1_000 * MS, 2_000 * MS, 100));
    assert_eq!(account.member.vruntime, START + 3_500 + 20 * MS);
}

#[test]
fn a_sleeper_keeps_one_slice_of_credit_and_a_waiter_keeps_its_place() {
    let mut policy = Gthulhu::default();
    // Served in turn at a second: so is the clock.
    let mut other = known();
    for step in 1..=10 {
        (other.turn.stands.place, other.handicap) = (START + step * 100 * MS, account::Handicap::default());
        policy.charge(&mut other, &ran(MS, step * 100 * MS, 100));
    }
    assert_eq!(policy.groups.root().now(), START + 1_000 * MS);
    let mut behind = known();
    behind.member.vruntime = START + 950 * MS;
    behind.turn.ran = behind.turn.slice;
    let mut wakeup = task(2, 1);
    wakeup.wakeup = true;
    let (mut sleeper, mut waiter) = (behind, behind);
    policy.place(&mut sleeper, &wakeup);
    policy.place(&mut waiter, &task(2, 1));
    assert_eq!(sleeper.turn.stands.place, START + 995 * MS);
    assert_eq!(waiter.turn.stands.place, START + 950 * MS);
    // A new one has no credit, and one that was away for long some.
    let (mut new, mut away) = (Account::default(), behind);
    away.member.vruntime = START;
    policy.place(&mut new, &task(3, 1));
    policy.place(&mut away, &task(4, 1));
    assert!((START + 1_000 * MS..START + 1_005 * MS).contains(&new.turn.stands.place));
    assert_eq!(away.turn.stands.place, START + 900 * MS);
}

/// A policy with memory for cgroups, and an event of a task in this one.
fn with_groups() -> (Gthulhu, impl Fn(u64, u32) -> Queued) {
    let arena = qumun::pool::Arena::new(4 << 20).unwrap();
    let mut policy = Gthulhu { now: Nanos(1), ..Gthulhu::default() };
    policy.groups = Groups::new(&arena.handle(), 2);
    let event = |cgroup, weight| {
        let mut task = task(1, 1);
        (task.cpu_cgroup_id, task.cgroup_weight) = (cgroup, weight);
        task
    };
    (policy, event)
}

#[test]
fn a_credit_is_the_same_time_whatever_a_cgroup_weighs() {
    // After a sleep one slice; after a wait 200 ms on each of two CPUs, and no more than 100 ms of virtual time.
    let cases = [(100, 5 * MS, 100 * MS), (1_000, MS / 2, 40 * MS), (10_000, MS / 20, 4 * MS)];
    for (weight, slept, waited) in cases {
        for (woke, credit) in [(true, slept), (false, waited)] {
            let (mut policy, event) = with_groups();
            policy.place(&mut Account::default(), &event(7, weight));
            // The clock of the root goes on by ten seconds.
            let mut other = known();
            for step in 1..=100 {
                other.turn.stands.place = START + step * 100 * MS;
                policy.charge(&mut other, &ran(MS, step * 100 * MS, 100));
            }
            let mut account = known();
            let mut event = event(7, weight);
            (account.cgroup, account.turn.ran) = (7, account.turn.slice);
            (event.wakeup, policy.now) = (woke, Nanos(10_000 * MS));
            policy.place(&mut account, &event);
            let behind = policy.groups.root().now() - account.turn.stands.place;
            assert!(behind.abs_diff(credit) <= 5 * MS / 10, "{behind} for the weight {weight}, {woke}");
        }
    }
}

#[test]
fn a_lead_is_the_same_time_whatever_a_cgroup_weighs() {
    for (weight, lead) in [(1, 100 * MS), (100, 100 * MS), (1_000, 10 * MS), (10_000, MS)] {
        let (mut policy, event) = with_groups();
        let mut account = Account::default();
        policy.place(&mut account, &event(7, weight));
        let mut woken = event(7, weight);
        (woken.wakeup, woken.stopped_at, woken.enqueued_at) = (true, Nanos(1), Nanos(1_000 * MS));
        policy.place(&mut account, &woken);
        let Turn { vtime, stands, .. } = account.turn;
        let found = stands.place + account::Handicap::MOST - vtime;
        assert!(found.abs_diff(lead) < 10, "{found} instead of {lead} for the weight {weight}");
    }
}

#[test]
fn who_moves_to_another_cgroup_takes_along_what_it_had() {
    let (mut policy, event) = with_groups();
    // Another one, which is where the clock is; in the other cgroup the clock has gone on for ten seconds.
    policy.place(&mut Account::default(), &event(1, 100));
    let mut account = Account::default();
    for n in 1..=2_000 {
        let mut run = ran(5 * MS, n * 5 * MS, 100);
        (run.cpu_cgroup_id, run.cgroup_weight) = (8, 100);
        policy.place(&mut account, &run);
    }
    let ahead = |policy: &Gthulhu, account: &Account| {
        account.turn.stands.place as i64 - policy.groups.root().now() as i64
    };
    let (before, mut new) = (ahead(&policy, &account), Account::default());
    policy.place(&mut new, &event(9, 100));
    policy.place(&mut account, &event(9, 100));
    let after = ahead(&policy, &account);
    assert!((before - after).abs() <= 10 * MS as i64, "{before} ns ahead before, and {after} after the move");
}

#[test]
fn a_lead_is_shared_with_those_that_a_task_makes() {
    let mut shell = Account::default();
    let start = |shell: &mut Account| shell.makes(Pid(1)).handicap.lead() / MS;
    assert_eq!(start(&mut shell), 0, "it never slept");
    shell.slept(1_000 * MS, None);
    assert_eq!([(); 4].map(|()| start(&mut shell)), [50, 25, 12, 6]);
    // It has its own all the time. While it waits for programs that compute, it earns nothing for others; for one that
    // sleeps itself, what that has earned.
    assert_eq!(shell.handicap.lead(), 100 * MS);
    let mut program = shell.makes(Pid(1));
    shell.slept(1_000 * MS, Some(program.earned()));
    assert_eq!(start(&mut shell), 1);
    program.slept(80 * MS, None);
    shell.slept(1_000 * MS, Some(program.earned()));
    assert_eq!(start(&mut shell), 40);
}

#[test]
fn slices_shrink_with_the_crowd_and_with_the_weight() {
    let mut policy = Gthulhu { nr_cpus: 2, ..Gthulhu::default() };
    let ms = |policy: &Gthulhu, weight| policy.slice(weight).as_u64() as f64 / 1e6;
    assert_eq!([50, 1, 0, 100, 10_000].map(|weight| ms(&policy, weight)), [2.5, 1.0, 1.0, 5.0, 5.0]);
    for (pid, expected) in [(16, 5.0), (32, 2.5), (80, 1.0), (300, 1.0)] {
        for pid in 1..=pid {
            policy.place(&mut Account::default(), &task(pid, 1));
        }
        assert_eq!(ms(&policy, 100), expected, "{pid} tasks");
        policy.groups = Groups::default();
    }
}

#[test]
fn who_is_interrupted_goes_on_where_it_was_but_not_for_ever() {
    let mut policy = Gthulhu::default();
    let mut account = Account::default();
    policy.place(&mut account, &task(1, 1));
    let (turn, mut until) = (account.turn, 10 * MS);
    for _ in 0..CUTS {
        until += 10_000;
        policy.place(&mut account, &ran(10_000, until, 100));
        assert_eq!(account.turn.vtime, turn.vtime);
    }
    // One that yields.
    policy.place(&mut account, &ran(10_000, until + 10_000, 100));
    assert_ne!(account.turn.vtime, turn.vtime);
    // And one whose slice is over.
    let turn = account.turn;
    policy.place(&mut account, &ran(5 * MS, until + 10 * MS, 100));
    assert!(account.turn.vtime > turn.vtime);
}

#[test]
fn a_batch_larger_than_the_memory_for_it_is_sent_all_the_same() {
    // A page, with room for few, and enough for all of them.
    for (bytes, room) in [(0, 30), (1 << 20, 100)] {
        let mut agent = qumun::builder("small").pool(bytes).agent(Script::new(2), Gthulhu::default());
        agent.turn();
        (1..=100).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
        assert_eq!(agent.turn().decisions, 100);
        // What finds no room is sent as it comes, so before the others.
        let first = agent.backend().pids()[0];
        assert!(if room < 100 { (2..=room).contains(&first) } else { true }, "{first}");
    }
}

#[test]
fn a_policy_that_was_not_started_sends_at_once() {
    let mut waiting = Waiting::default();
    let (allowed, decision) = (qumun::Affinity::ANY, task(1, 1).anywhere());
    let entry = Entry { last: Cpu(0), allowed, wants: Wants::Idle, decision };
    assert!(waiting.push(Nanos(1), entry).is_err() && waiting.pop().is_none());
    assert_eq!((waiting.len(), waiting.peek().is_none()), (0, true));
}

fn of(level: u8) -> Priority {
    Priority::new(Class::Latency(Level::new(level).unwrap()))
}

/// What a table says, by cgroup, until its lease ends; by label, whatever the table says about the cgroup.
#[test]
fn strategies_come_and_go_with_their_tables_and_leases() {
    let (mut publisher, reader) = handover();
    let mut policy = Gthulhu::default().strategies(reader);
    let mut account = Account::default();
    let mut event = task(1, 1);
    event.cgroup_id = 42;
    let mut seen = |policy: &mut Gthulhu, event: &Queued, now: u64| {
        policy.now = Nanos::ZERO;
        policy.begin(|| Nanos(now));
        policy.place(&mut account, event);
        account.wish.priority.class
    };
    assert_eq!(seen(&mut policy, &event, 1), Class::Normal);

    let id = StrategyId::new(7).unwrap();
    let strategy = |id, cgroup, level| Asked {
        id,
        target: Target::Cgroup(CgroupId(cgroup)),
        priority: of(level),
        ttl: Ttl::MIN,
    };
    let mut table = StrategyTable::builder(Table(1));
    table.add(strategy(id, 42, 3).lease(0));
    publisher.publish(table.build());
    assert_eq!(seen(&mut policy, &event, 2), of(3).class);
    assert_eq!(seen(&mut policy, &event, 999_999_999), of(3).class);
    assert_eq!(seen(&mut policy, &event, 1_000_000_000), Class::Normal, "its second is over");

    // A newer table; a label that names a strategy; the cgroup's when that one is gone.
    let mut table = StrategyTable::builder(Table(2));
    let other = StrategyId::new(8).unwrap();
    table.add(strategy(id, 42, 5).lease(10_000 * MS)).add(strategy(other, 43, 1).lease(0));
    publisher.publish(table.build());
    assert_eq!(seen(&mut policy, &event, 1), of(5).class);
    event.label = Label::Strategy(other).pack();
    assert_eq!(seen(&mut policy, &event, 3), of(1).class);
    assert_eq!(seen(&mut policy, &event, 5_000 * MS), of(5).class);
    // What is said about the task itself; a word that is none is counted, and the rest holds.
    event.label =
        Label::Priority(Priority { slice: Slice::from_nanos(MS).ok(), ..Priority::default() }).pack();
    assert_eq!(seen(&mut policy, &event, 5_000 * MS), Class::Normal);
    event.label = 1;
    assert_eq!(seen(&mut policy, &event, 5_000 * MS), of(5).class);
    assert_eq!(policy.malformed_labels(), 1);
}

/// A strategy for a thread, or for all threads of a process, is for those that began when it says and no others.
#[test]
fn a_strategy_for_a_thread_or_a_process_is_for_no_other_of_that_pid() {
    let (mut publisher, reader) = handover();
    let mut policy = Gthulhu::default().strategies(reader);
    let mut table = StrategyTable::builder(Table(1));
    let targets = [
        Target::Thread(ThreadId { pid: 7, started: 100 }),
        Target::Process(ThreadId { pid: 5, started: 90 }),
    ];
    for (n, target) in (1..).zip(targets) {
        let id = StrategyId::new(n).unwrap();
        let strategy = Asked { id, target, priority: of(n as u8), ttl: Ttl::MIN };
        table.add(strategy.lease(0));
    }
    publisher.publish(table.build());
    let mut seen = |pid, born, process_born| {
        let mut event = task(pid, 1);
        (event.tgid, event.born, event.process_born) = (Pid(5), Nanos(born), Nanos(process_born));
        policy.now = Nanos::ZERO;
        policy.begin(|| Nanos(1));
        let mut account = Account::default();
        policy.place(&mut account, &event);
        account.wish.priority.class
    };
    let tick = 10 * MS;
    assert_eq!(seen(7, 100 * tick + 9, 90 * tick), of(1).class, "the thread before its process");
    assert_eq!(seen(7, 101 * tick, 90 * tick), of(2).class, "another thread of that pid");
    assert_eq!(seen(8, 100 * tick, 91 * tick - 1), of(2).class);
    assert_eq!(seen(8, 100 * tick, 91 * tick), Class::Normal, "another process of that pid");
}

#[test]
fn a_boosted_task_is_first_until_its_tokens_are_gone() {
    let mut policy = Gthulhu::default();
    let arena = qumun::pool::Arena::new(1 << 20).unwrap();
    policy.boosts.start(&arena.handle(), 16, Nanos(0));
    policy.now = Nanos(1);
    let mut account = Account::default();
    let mut event = task(1, 1);
    policy.place(&mut account, &event);
    let ordinary = account.turn.vtime;
    event.label = Label::Priority(Priority { budget: Budget::millicpu(100).ok(), ..of(0) }).pack();
    policy.place(&mut account, &event);
    assert_eq!(account.manner, Manner::Boost);
    assert!(account.turn.vtime + BEHIND <= ordinary);
    // 20 ms of burst, at 8 ms a turn; what comes after is in the queue.
    let mut manners = Vec::new();
    for n in 1..=5 {
        let mut next = ran(8 * MS, 10 * n * MS, 100);
        (next.label, next.cpu) = (event.label, Cpu(0));
        policy.now = Nanos(10 * n * MS);
        policy.place(&mut account, &next);
        manners.push(account.turn.vtime < policy.groups.root().now());
    }
    assert_eq!(manners, [true, true, false, false, false]);
}

fn anything() -> impl Strategy<Value = Queued> {
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0..10_000_000_000u64];
    let weight = || prop_oneof![Just(0u32), Just(1), Just(10_000), Just(u32::MAX), any::<u32>()];
    let label = prop_oneof![
        any::<u64>(),
        (0..21u8, 1..32_000u16).prop_map(|(level, share)| {
            let budget = Budget::millicpu(share).ok();
            Label::Priority(Priority { budget, ..of(level.min(20)) }).pack()
        }),
        Just(Label::Priority(Priority::new(Class::BestEffort)).pack()),
    ];
    let times = (number(), number(), number(), number(), number());
    let cgroup = (0..5u64, weight(), label);
    (1..6i32, number(), weight(), times, any::<(bool, bool, u32, u64)>(), cgroup).prop_map(
        |(pid, generation, weight, t, other, (cgroup, cgroup_weight, label))| {
            let mut task = task(pid, generation);
            task.weight = weight;
            (task.enqueued_at, task.started_at, task.stopped_at) = (Nanos(t.0), Nanos(t.1), Nanos(t.2));
            (task.exec_runtime, task.vtime) = (Nanos(t.3), t.4);
            (task.wakeup, task.sampled, task.cpu) = (other.0, other.1, Cpu(other.2));
            task.allowed = qumun::Affinity::new(other.3, other.3.count_ones(), 2);
            (task.cpu_cgroup_id, task.cgroup_weight, task.label) = (cgroup, cgroup_weight, label);
            task
        },
    )
}

proptest! {
    #[test]
    fn nothing_that_the_core_says_makes_it_panic_or_keep_a_task(
        slices in any::<(u64, u64)>(),
        batches in proptest::collection::vec(proptest::collection::vec(anything(), 0..20), 1..10),
        cgroups in proptest::collection::vec((any::<bool>(), 0..6u64, 0..6u64, any::<u32>()), 0..10),
        pool in prop_oneof![Just(0usize), Just(64 << 10), Just(4 << 20)],
        idle in any::<u64>(),
    ) {
        let policy = Gthulhu::new(Nanos(slices.0), Nanos(slices.1));
        // Small, as there are many of them.
        let options = qumun::builder("any").tasks(64).pool(pool);
        let mut agent = options.agent(Script::new(2), policy);
        agent.backend_mut().idle.set_word(0, idle);
        agent.turn();
        // Circles of parents, too: the kernel has none, but nothing may depend on it.
        for (gone, cgroup_id, parent, weight) in cgroups {
            let note = if gone {
                Note::CgroupGone { cgroup_id }
            } else {
                Note::Cgroup { cgroup_id, parent, weight, limit: None }
            };
            agent.backend_mut().events.push_back(qumun::Event::Note(note));
        }
        for batch in batches {
            batch.iter().for_each(|&task| agent.backend_mut().queue(task));
            prop_assert_eq!(agent.turn().decisions, batch.len());
            prop_assert_eq!(agent.policy().waiting.len(), 0);
        }
    }
}
