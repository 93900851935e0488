//! Strategies that change while decisions of the policy still hold.

mod world;

use gthulhu_model::{
    Budget, Class, Comm, Floor, Generation, Level, Priority, Slice, Strategy, StrategyId, StrategyTable,
    Target, Ttl, handover,
};
use gthulhu_plugin_gthulhu::{Gthulhu, rules};
use qumun::sim::{Setup, Sim, Spec, Step, Workload};
use qumun::{Permit, Topology};
use world::{hog, ms, us};

/// One strategy, for all threads of this name.
fn table(generation: u64, comm: &str, priority: Priority, at: u64) -> StrategyTable {
    let target = Target::Comm(Comm::new(comm).unwrap());
    let strategy = Strategy { id: StrategyId::new(1).unwrap(), target, priority, ttl: Ttl::default() };
    let mut table = StrategyTable::builder(Generation(generation));
    table.add(strategy.lease(at));
    table.build()
}

#[test]
fn a_newer_strategy_ends_all_permits_at_the_next_event() {
    let mut work = Workload::new();
    let spec = Spec { comm: "blinker", ..Spec::default() };
    work.group("blinkers", 3, spec, vec![Step::Run(us(50).into()), Step::Sleep(us(450).into())]);
    // Its slice ends, and that is an event.
    work.group("hog", 1, Spec::default(), hog());
    let (mut publisher, reader) = handover();
    let permit = Permit::wakeups(Permit::MOST).lasting(Permit::LONGEST);
    let policy = Gthulhu::default().permit(permit).strategies(reader);
    let mut sim = Sim::new(Setup::new(Topology::flat(1)), &work, policy).unwrap();
    sim.run(ms(400));
    let before = sim.counters().permitted;
    assert!(before > 500, "{before}");

    // Boosted runs are counted one by one, so no permit is given any more; those that were given would hold for a second.
    let class = Class::Latency(Level::new(3).unwrap());
    publisher.publish(table(1, "blinker", Priority { class, slice: None, budget: None }, sim.now().as_u64()));
    // A slice and a clock interrupt.
    sim.run(ms(10));
    let told = sim.counters().permitted;
    sim.run(ms(400));
    assert_eq!(sim.counters().permitted, told, "a wakeup was let in by the strategy before");
    sim.check().unwrap();
}

#[test]
fn no_permit_outlasts_the_strategy_that_it_was_given_under() {
    let mut work = Workload::new();
    let spec = Spec { comm: "blinker", ..Spec::default() };
    work.group("blinkers", 3, spec, vec![Step::Run(us(50).into()), Step::Sleep(us(450).into())]);
    let (mut publisher, reader) = handover();
    let permit = Permit::wakeups(Permit::MOST).lasting(Permit::LONGEST);
    let policy = Gthulhu::default().permit(permit).strategies(reader);
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, policy).unwrap();
    let slice = Some(Slice::from_nanos(1_000_000).unwrap());
    let id = StrategyId::new(1).unwrap();
    let priority = Priority { class: Class::Normal, slice, budget: None };
    let target = Target::Comm(Comm::new("blinker").unwrap());
    let strategy = Strategy { id, target, priority, ttl: Ttl::from_secs(2).unwrap() };
    let mut builder = StrategyTable::builder(Generation(1));
    builder.add(strategy.lease(sim.now().as_u64()));
    publisher.publish(builder.build());
    // Permits of up to a second are given until then, and each holds to the end of the lease at most.
    sim.run(ms(1_999));
    let events = sim.counters().ev_sent;
    sim.run(ms(3));
    assert!(sim.counters().ev_sent >= events + 3, "a task was not decided on anew");
    sim.check().unwrap();
}

#[test]
fn a_strategy_means_the_same_to_the_policy_and_to_the_core() {
    for (class, millicpu) in [
        (Class::Latency(Level::new(2).unwrap()), 700),
        (Class::Latency(Level::new(10).unwrap()), 2_000),
        (Class::BestEffort, 200),
    ] {
        let shares = [false, true].map(|kernel_mode| {
            let mut work = Workload::new();
            let wanted = work.group("wanted", 2, Spec { comm: "wanted", ..Spec::default() }, hog());
            work.group("hogs", 6, Spec::default(), hog());
            let beat = vec![Step::Every(ms(20)), Step::Run(us(300).into())];
            let beat = work.group("beat", 1, Spec { comm: "beat", ..Spec::default() }, beat);
            let mut setup = Setup::new(Topology::flat(2));
            setup.kernel_mode = kernel_mode;
            let (mut publisher, reader) = handover();
            let mut sim = Sim::new(setup, &work, Gthulhu::default().strategies(reader)).unwrap();
            let now = sim.now().as_u64();
            let budget = Some(Budget::millicpu(millicpu).unwrap());
            let mut builder = StrategyTable::builder(Generation(1));
            for (id, comm, priority) in [
                (1, "wanted", Priority { class, slice: None, budget }),
                (2, "beat", Priority { class: Class::Latency(Level::STRONGEST), slice: None, budget: None }),
            ] {
                let target = Target::Comm(Comm::new(comm).unwrap());
                let id = StrategyId::new(id).unwrap();
                builder.add(Strategy { id, target, priority, ttl: Ttl::from_secs(60).unwrap() }.lease(now));
            }
            let table = builder.build();
            sim.set_rules(&rules(Some(&table), [], Floor::DEFAULT, sim.now())).unwrap();
            publisher.publish(table);
            sim.run(ms(20_000));
            sim.check().unwrap();
            let share = world::ran(&sim.group(wanted)) / 40.0;
            (share, sim.group(beat)[0].wake_to_run.quantile(0.9))
        });
        let [(policy, policy_waits), (core, core_waits)] = shares;
        println!("{class:?}: {policy:.3} and {core:.3} of the machine; {policy_waits} and {core_waits}");
        assert!((policy - core).abs() < 0.05, "{class:?}: {policy:.3} by the policy, {core:.3} by the core");
        assert!(
            core_waits <= policy_waits.max(us(100)),
            "{class:?}: {core_waits}, by the policy {policy_waits}"
        );
    }
}
