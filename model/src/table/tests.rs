//! The table against a search through all leases.

use super::*;
use crate::{Class, Level, Priority, Slice, Strategy, Ttl};
use proptest::prelude::{Just, Strategy as Arbitrary, any, prop, prop_assert_eq, prop_oneof, proptest};

fn lease(id: u64, target: Target, class: Class, expires_at_ns: u64) -> Lease {
    let id = StrategyId::new(id).unwrap();
    Lease {
        strategy: Strategy { id, target, priority: Priority::new(class), ttl: Ttl::DEFAULT },
        expires_at_ns,
    }
}

fn table(leases: &[Lease]) -> StrategyTable {
    let mut builder = StrategyTable::builder(Generation(1));
    leases.iter().for_each(|lease| {
        builder.add(*lease);
    });
    builder.build()
}

fn thread(pid: i32) -> ThreadId {
    ThreadId { pid, started: 5 }
}

/// One thread that all five targets match.
fn subject() -> (Subject, [Target; 5]) {
    let subject = Subject {
        task: TaskNumber::new(9),
        thread: Some(thread(2)),
        process: Some(thread(1)),
        cgroup: Some(CgroupId(4)),
        comm: Comm::new("worker").ok(),
    };
    let targets = [
        Target::Task(subject.task.unwrap()),
        Target::Thread(thread(2)),
        Target::Process(thread(1)),
        Target::Cgroup(CgroupId(4)),
        Target::Comm(subject.comm.unwrap()),
    ];
    (subject, targets)
}

#[test]
fn the_most_specific_target_holds_however_weak_it_is() {
    let (subject, [_, targets @ ..]) = subject();
    let classes = [Class::BestEffort, Class::Normal, Class::Latency(Level::STRONGEST), Class::Isolated];
    let leases: Vec<_> =
        targets.iter().zip(classes).map(|(&target, class)| lease(3, target, class, 100)).collect();
    for n in 0..4 {
        assert_eq!(table(&leases[n..]).find(&subject, 0), Some(&leases[n]));
    }
    assert_eq!(table(&[]).find(&subject, 0), None);
}

#[test]
fn a_task_and_a_thread_are_the_same_so_the_stronger_holds() {
    let (subject, [task, thread, ..]) = subject();
    let strong = Class::Latency(Level::STRONGEST);
    for leases in [
        [lease(1, task, strong, 100), lease(2, thread, Class::Normal, 100)],
        [lease(1, thread, strong, 100), lease(2, task, Class::Normal, 100)],
        [lease(1, thread, strong, 100), lease(2, task, strong, 100)],
    ] {
        assert_eq!(table(&leases).find(&subject, 0), Some(&leases[0]));
    }
}

#[test]
fn what_expires_gives_way_to_the_next() {
    let (subject, [_, thread, .., comm]) = subject();
    let strong = lease(1, thread, Class::Latency(Level::STRONGEST), 10);
    let weak = lease(2, thread, Class::Normal, 20);
    let named = lease(3, comm, Class::BestEffort, 30);
    let useless = lease(4, thread, Class::BestEffort, 20);
    let table = table(&[useless, named, weak, strong]);
    let at = |now| table.find(&subject, now).copied();
    let seen = [9, 10, 19, 20, 29, 30].map(at);
    assert_eq!(seen, [Some(strong), Some(weak), Some(weak), Some(named), Some(named), None]);
    assert_eq!(table.get(strong.strategy.id, 9), Some(&strong));
    assert_eq!(table.get(strong.strategy.id, 10), None);
}

#[test]
fn a_label_is_looked_up_by_the_number_of_its_strategy() {
    let (_, [_, thread, process, ..]) = subject();
    let leases = [lease(1, thread, Class::Normal, 10), lease(1, process, Class::Normal, 20)];
    let table = table(&leases);
    let Ok(Label::Strategy(id)) = Label::unpack(Label::Strategy(leases[0].strategy.id).pack()) else {
        panic!("not the number of a strategy");
    };
    assert!(table.get(id, 19).is_some(), "it holds while one of its targets does");
    assert_eq!(table.get(id, 20), None);
    assert_eq!(table.get(StrategyId::new(2).unwrap(), 0), None);
}

/// Few keys, times and classes, so that they collide.
fn leases() -> impl Arbitrary<Value = Vec<Lease>> {
    let target = prop_oneof![
        (1..3u64).prop_map(|n| Target::Task(TaskNumber::new(n).unwrap())),
        (1..3).prop_map(|pid| Target::Thread(thread(pid))),
        (1..3).prop_map(|pid| Target::Process(thread(pid))),
        (1..3u64).prop_map(|n| Target::Cgroup(CgroupId(n))),
        prop_oneof![Just("a"), Just("ab")].prop_map(|name| Target::Comm(Comm::new(name).unwrap())),
    ];
    let class = prop_oneof![
        Just(Class::BestEffort),
        Just(Class::Normal),
        Just(Class::Latency(Level::FIRST_DISCOUNTING)),
        Just(Class::Latency(Level::STRONGEST)),
    ];
    let one =
        (1..4u64, target, class, 0..8u64, any::<bool>()).prop_map(|(id, target, class, until, slice)| {
            let mut lease = lease(id, target, class, until);
            lease.strategy.priority.slice = slice.then_some(Slice::MIN);
            lease
        });
    prop::collection::vec(one, 0..40)
}

fn subjects() -> impl Arbitrary<Value = Subject> {
    let pid = || prop::option::of((1..3).prop_map(thread));
    let comm =
        prop::option::of(prop_oneof![Just("a"), Just("ab"), Just("abc")].prop_map(|n| Comm::new(n).unwrap()));
    (0..3u64, pid(), pid(), prop::option::of((1..3u64).prop_map(CgroupId)), comm).prop_map(
        |(task, thread, process, cgroup, comm)| Subject {
            task: TaskNumber::new(task),
            thread,
            process,
            cgroup,
            comm,
        },
    )
}

/// The rule as the documentation has it, over all of them.
fn naive(leases: &[Lease], subject: &Subject, now: u64) -> Option<(Target, Class, StrategyId)> {
    let rank = |target| match target {
        Target::Task(_) | Target::Thread(_) => 3,
        Target::Process(_) => 2,
        Target::Cgroup(_) => 1,
        Target::Comm(_) => 0,
    };
    leases
        .iter()
        .filter(|lease| lease.expires_at_ns > now && lease.strategy.target.matches(subject))
        .map(|lease| lease.strategy)
        .max_by_key(|s| (rank(s.target), s.priority.class, Reverse(s.id)))
        .map(|s| (s.target, s.priority.class, s.id))
}

proptest! {
    #[test]
    fn the_table_finds_what_a_search_through_all_finds(leases in leases(), subjects in prop::collection::vec(subjects(), 1..20)) {
        let table = table(&leases);
        prop_assert_eq!(table.is_empty(), leases.is_empty());
        for subject in &subjects {
            for now in 0..9 {
                let found = table.find(subject, now).map(|l| (l.strategy.priority.class, l.strategy.id));
                prop_assert_eq!(found, naive(&leases, subject, now).map(|(_, class, id)| (class, id)));
            }
        }
        for id in (1..5).map(|id| StrategyId::new(id).unwrap()) {
            for now in 0..9 {
                let held = leases.iter().filter(|l| l.strategy.id == id && l.holds(now)).map(|l| l.strategy.priority.class).max();
                prop_assert_eq!(table.get(id, now).map(|l| l.strategy.priority.class), held);
            }
        }
    }

    #[test]
    fn the_order_of_adding_does_not_matter(leases in leases(), subject in subjects(), now in 0..8u64) {
        let mut reversed = leases.clone();
        reversed.reverse();
        let [there, back] = [table(&leases), table(&reversed)];
        prop_assert_eq!(there.find(&subject, now), back.find(&subject, now));
    }
}
