//! Decisions that hold for several wakeups.

use std::cell::Cell;
use std::rc::Rc;

use qumun::sim::{Counters, Setup, Sim, Spec, Step, Workload};
use qumun::{Context, Nanos, Permit, Queued, Scheduler, Topology, Verdict};

/// Who ran least for its weight. What it sees is counted; it revokes when it is told to.
#[derive(Default)]
struct Lenient {
    permit: Permit,
    seen: Rc<Cell<Seen>>,
    revoke: Rc<Cell<bool>>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    events: u64,
    wakeups: u64,
    permitted: u64,
    ran: Nanos,
    slept: Nanos,
    /// Of one event.
    most: u32,
}

impl Scheduler for Lenient {
    type Task = u64;

    fn enqueue(&mut self, cx: &mut Context<'_, u64>, task: &Queued) -> Verdict {
        let mut seen = self.seen.get();
        seen.events += 1;
        seen.wakeups += u64::from(task.wakeup);
        seen.permitted += u64::from(task.permitted);
        seen.most = seen.most.max(task.permitted);
        seen.ran = seen.ran + task.ran;
        seen.slept = seen.slept + task.slept;
        self.seen.set(seen);
        let weight = task.weight;
        let vtime = cx.task(task);
        *vtime += task.ran.as_u64() * 100 / u64::from(weight);
        let decision = task.anywhere().vtime(*vtime).permit(self.permit.at_pace(100 * Permit::UNIT / weight));
        if self.revoke.get() {
            cx.revoke_all();
        }
        decision.into()
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

/// Runs for a moment and sleeps for a moment.
fn blinker() -> Vec<Step> {
    vec![Step::Run(us(50).into()), Step::Sleep(us(450).into())]
}

fn run(work: &Workload, cpus: u32, policy: Lenient, time: Nanos) -> (Sim<Lenient>, Counters) {
    let mut sim = Sim::new(Setup::new(Topology::flat(cpus)), work, policy).unwrap();
    sim.run(time);
    sim.check().unwrap();
    let counters = sim.counters();
    (sim, counters)
}

#[test]
fn eight_of_nine_wakeups_need_no_agent_and_nothing_of_them_is_forgotten() {
    for cpus in [1, 4] {
        let mut work = Workload::new();
        let blinkers = work.group("blinkers", 3, Spec::default(), blinker());
        let policy = Lenient { permit: Permit::wakeups(8).lasting(ms(100)), ..Lenient::default() };
        let seen = Rc::clone(&policy.seen);
        let (sim, counters) = run(&work, cpus, policy, ms(1_000));
        let seen = seen.get();
        let wakeups: u64 = sim.group(blinkers).iter().map(|t| t.wake_to_run.count()).sum();
        assert!(wakeups > 5_000, "{wakeups}");
        // At first the core is alone.
        let part = counters.permitted as f64 / (wakeups - counters.core_enqueued) as f64;
        assert!((0.86..=0.90).contains(&part), "{cpus} CPUs: {part}, {counters:?}");
        assert_eq!(seen.most, 8);
        // What the last permits let in was not told yet.
        assert!(counters.permitted + counters.resumed - seen.permitted <= 3 * 8, "{seen:?} {counters:?}");
        let ran: Nanos = sim.group(blinkers).iter().fold(Nanos::ZERO, |sum, t| sum + t.ran);
        assert!(ran - seen.ran < us(50 * 9 * 3), "{ran} ran, {} told", seen.ran);
        let part = seen.slept.as_u64() as f64 / (3.0 * 900e6);
        assert!((0.95..=1.02).contains(&part), "{} slept", seen.slept);
    }
}

#[test]
fn a_permit_ends_with_its_time() {
    let mut work = Workload::new();
    work.group("blinkers", 1, Spec::default(), blinker());
    let policy = Lenient { permit: Permit::wakeups(1_000).lasting(ms(2)), ..Lenient::default() };
    let seen = Rc::clone(&policy.seen);
    run(&work, 2, policy, ms(1_000));
    // In 2 ms it wakes up four times.
    assert!((3..=5).contains(&seen.get().most), "{:?}", seen.get());
}

#[test]
fn a_revoked_permit_lets_nobody_in() {
    let mut work = Workload::new();
    work.group("blinkers", 4, Spec::default(), blinker());
    let policy =
        Lenient { permit: Permit::wakeups(Permit::MOST).lasting(Permit::LONGEST), ..Lenient::default() };
    let (seen, revoke) = (Rc::clone(&policy.seen), Rc::clone(&policy.revoke));
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, policy).unwrap();
    sim.run(ms(600));
    let before = sim.counters().permitted;
    assert!(before > 1_000 && seen.get().events < 100, "{before} {:?}", seen.get());
    // With the first event that comes now, all of them: each task's next wakeup is an event, and its permit is void.
    revoke.set(true);
    sim.run(ms(600));
    let after = sim.counters().permitted;
    sim.run(ms(500));
    assert_eq!(sim.counters().permitted, after);
    assert!(seen.get().events > 2_000, "{:?}", seen.get());
    revoke.set(false);
    sim.run(ms(100));
    assert!(sim.counters().permitted > after);
    sim.check().unwrap();
}

#[test]
fn whoever_the_agent_was_before_its_permits_are_void() {
    let mut work = Workload::new();
    work.group("blinkers", 2, Spec::default(), blinker());
    let policy =
        Lenient { permit: Permit::wakeups(Permit::MOST).lasting(Permit::LONGEST), ..Lenient::default() };
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, policy).unwrap();
    sim.run(ms(400));
    let before = sim.counters();
    assert!(before.permitted > 500, "{before:?}");
    sim.kill_agent(ms(300));
    sim.run(ms(50));
    // The core schedules by itself, and does not count that as permitted.
    assert_eq!(sim.counters().permitted, before.permitted);
    assert!(sim.counters().core_enqueued > before.core_enqueued + 100);
    sim.check().unwrap();
}

#[test]
fn hogs_and_permitted_tasks_share_by_weight() {
    let mut work = Workload::new();
    let hogs = work.group("hogs", 2, Spec::default(), vec![Step::Run(ms(1_000).into())]);
    // Wants half of a CPU; its part of two CPUs, three tasks, is two thirds.
    let blinkers = work.group(
        "blinkers",
        1,
        Spec::default(),
        vec![Step::Run(us(500).into()), Step::Sleep(us(500).into())],
    );
    let policy = Lenient { permit: Permit::wakeups(8).cutting(), ..Lenient::default() };
    let (sim, counters) = run(&work, 2, policy, ms(4_000));
    let ran = |g| sim.group(g).iter().map(|t| t.ran.as_u64()).sum::<u64>() as f64 / 4e9;
    assert!(counters.permitted > 1_000, "{counters:?}");
    assert!(ran(blinkers) > 0.33, "{} of a CPU", ran(blinkers));
    assert!(ran(hogs) + ran(blinkers) > 1.98, "{} and {}", ran(hogs), ran(blinkers));
}
