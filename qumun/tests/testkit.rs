//! The testkit finds what a policy does wrong: one broken policy for each promise.

use std::cell::Cell;
use std::rc::Rc;

use qumun::alloc::CountingAllocator;
use qumun::pool::Queue;
use qumun::testkit::{Failure, Property, Report, Suite, check, replay};
use qumun::{Context, Cpu, Decision, Nanos, Queued, Scheduler, Verdict};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Who ran least for its weight.
#[derive(Default)]
struct Fair {
    clock: u64,
}

#[derive(Default)]
struct Account {
    vtime: u64,
    charged: Nanos,
}

impl Fair {
    fn decide(&mut self, account: &mut Account, task: &Queued) -> Decision {
        if task.stopped_at > account.charged {
            self.clock = self.clock.max(account.vtime);
            let ran = (task.stopped_at - task.started_at).as_u64();
            account.vtime += ran * 100 / u64::from(task.weight);
            account.charged = task.stopped_at;
        }
        // New tasks get no credit: with many of them, nobody else would ever be next.
        let is_new = task.started_at == Nanos::ZERO;
        let behind = if is_new {
            0
        } else if task.wakeup {
            5_000_000
        } else {
            100_000_000
        };
        account.vtime = account.vtime.max(self.clock.saturating_sub(behind));
        task.anywhere().vtime(account.vtime)
    }
}

impl Scheduler for Fair {
    type Task = Account;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        self.decide(cx.task(task), task).into()
    }
}

/// What a broken policy does that `Fair` does not.
trait Flaw: Default + 'static {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict;
}

#[derive(Default)]
struct Broken<F> {
    fair: Fair,
    flaw: F,
}

impl<F: Flaw> Scheduler for Broken<F> {
    type Task = Account;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        self.flaw.enqueue(&mut self.fair, cx, task)
    }
}

/// Keeps a task now and then, and forgets it.
#[derive(Default)]
struct Forgets(u32);

impl Flaw for Forgets {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        self.0 += 1;
        if self.0.is_multiple_of(100) { Verdict::Keep } else { fair.decide(cx.task(task), task).into() }
    }
}

/// Sends every fourth task to CPU 0, whether it may go there or not.
#[derive(Default)]
struct IgnoresAffinity(u32);

impl Flaw for IgnoresAffinity {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        self.0 += 1;
        let decision = fair.decide(cx.task(task), task);
        if self.0.is_multiple_of(4) { decision.on(Cpu(0)).into() } else { decision.into() }
    }
}

/// Last come, first served.
#[derive(Default)]
struct Lifo;

impl Flaw for Lifo {
    fn enqueue(&mut self, _: &mut Fair, _: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        task.anywhere().vtime(u64::MAX / 2 - task.enqueued_at.as_u64()).into()
    }
}

/// First come, first served: whatever a task weighs.
#[derive(Default)]
struct IgnoresWeights;

impl Flaw for IgnoresWeights {
    fn enqueue(&mut self, _: &mut Fair, _: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

/// Leaves every task on the CPU where it was, though others are idle.
#[derive(Default)]
struct NeverMoves;

impl Flaw for NeverMoves {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let decision = fair.decide(cx.task(task), task);
        if task.allowed.allows(task.cpu) { decision.on(task.cpu).into() } else { decision.into() }
    }
}

/// Keeps tasks in a queue of its own, and trusts that there is room.
#[derive(Default)]
struct TrustsItsMemory {
    fair: Fair,
    queue: Option<Queue<Decision>>,
}

impl Scheduler for TrustsItsMemory {
    type Task = Account;

    fn start(&mut self, cx: &mut Context<'_, Account>) {
        self.queue = Queue::new(cx.pool(), 64).ok();
    }

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let decision = self.fair.decide(cx.task(task), task);
        self.queue.as_mut().expect("memory").push(decision).expect("room");
        Verdict::Keep
    }

    fn dispatch(&mut self, cx: &mut Context<'_, Account>) {
        while let Some(decision) = self.queue.as_mut().and_then(Queue::pop) {
            cx.send(decision).expect("room");
        }
    }
}

/// Orders tasks by where things happen to lie in memory.
#[derive(Default)]
struct RollsDice(Rc<Cell<u64>>);

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(1) };
}

impl Flaw for RollsDice {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        // Goes on from one policy to the next, as a static or the hash of an address does.
        self.0.set(DICE.replace(DICE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)));
        let decision = fair.decide(cx.task(task), task);
        let vtime = decision.get_vtime();
        decision.vtime(vtime + (self.0.get() >> 44)).into()
    }
}

/// Has so many tasks on their way at most, and counts those that the core took from it for ever.
#[derive(Default)]
struct NeverResets {
    fair: Fair,
    open: Vec<Decision>,
    sent: u64,
    back: u64,
}

impl Scheduler for NeverResets {
    type Task = Account;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        // A task that was sent and is back.
        if cx.task(task).charged != task.stopped_at {
            self.back += 1;
        }
        let decision = self.fair.decide(cx.task(task), task);
        if self.sent > self.back + 400 {
            self.open.push(decision);
            return Verdict::Keep;
        }
        self.sent += 2;
        decision.into()
    }
}

/// Allocates for each task.
#[derive(Default)]
struct Allocates(Vec<String>);

impl Flaw for Allocates {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        self.0 = vec![format!("pid {}", task.id.pid)];
        fair.decide(cx.task(task), task).into()
    }
}

/// Divides by what may be zero.
#[derive(Default)]
struct Panics;

impl Flaw for Panics {
    fn enqueue(&mut self, fair: &mut Fair, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        assert!(task.weight < 300, "a weight of {}", task.weight);
        fair.decide(cx.task(task), task).into()
    }
}

fn failure(report: &Report, property: Property) -> &Failure {
    println!("{report}");
    let found = report.failures().find(|failure| failure.property == property);
    found.unwrap_or_else(|| panic!("{} was not noticed:\n{report}", property.name()))
}

/// The flaw is noticed, its history is small, and the file shows it again, but not for a sound policy.
fn notices<S: Scheduler>(
    name: &str,
    property: Property,
    make: impl Fn() -> S + Clone + 'static,
    words: &str,
) {
    let report = Suite::new(name, make.clone()).only(property).run();
    let failure = failure(&report, property);
    assert!(failure.why.contains(words), "{}", failure.why);
    let lines = failure.history.to_string().lines().count();
    let tasks: usize = failure.history.work.groups().map(|(_, _, count)| count).sum();
    assert!(lines < 30 && tasks <= 16, "{} lines, {tasks} tasks:\n{}", lines, failure.history);
    let path = failure.file.as_ref().unwrap();
    assert_eq!(replay(path, make).unwrap_err(), failure.why);
    replay(path, Fair::default).unwrap();
    assert!(report.to_string().contains("the smallest history"));
}

#[test]
fn a_sound_policy_passes() {
    let report = Suite::new("fair", Fair::default).run();
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.held().count(), Property::ALL.len());
}

#[test]
fn a_task_that_is_forgotten() {
    notices("forgets", Property::Custody, Broken::<Forgets>::default, "the core took over");
}

#[test]
fn a_cpu_that_is_not_allowed() {
    notices("ignores-affinity", Property::Affinity, Broken::<IgnoresAffinity>::default, "may not use");
}

#[test]
fn a_task_that_never_has_its_turn() {
    notices("lifo", Property::Waits, Broken::<Lifo>::default, "");
}

#[test]
fn weights_that_mean_nothing() {
    notices("ignores-weights", Property::Shares, Broken::<IgnoresWeights>::default, "its weight says");
}

#[test]
fn cpus_that_are_idle_while_tasks_wait() {
    notices("never-moves", Property::Work, Broken::<NeverMoves>::default, "idle while tasks waited");
}

#[test]
fn memory_that_is_not_there() {
    notices(
        "trusts-its-memory",
        Property::Exhaustion,
        TrustsItsMemory::default,
        "the policy panicked: memory",
    );
}

#[test]
fn chance() {
    // The file is no proof here: what chance does depends on what was before.
    let report = Suite::new("dice", Broken::<RollsDice>::default).only(Property::Determinism).run();
    assert!(failure(&report, Property::Determinism).why.contains("the first time"));
}

#[test]
fn what_is_not_forgotten_after_a_fault() {
    let report = Suite::new("never-resets", NeverResets::default).only(Property::Faults).run();
    let failure = failure(&report, Property::Faults);
    assert!(
        failure.why.contains("core still schedules") || failure.why.contains("no decision"),
        "{}",
        failure.why
    );
}

#[test]
fn allocations() {
    notices(
        "allocates",
        Property::Allocation,
        Broken::<Allocates>::default,
        "allocations by the agent's thread",
    );
}

#[test]
fn a_panic_is_told_with_its_place() {
    let report = Suite::new("panics", Broken::<Panics>::default).only(Property::Custody).run();
    let why = &failure(&report, Property::Custody).why;
    assert!(why.contains("a weight of 300 (") && why.contains("testkit.rs:"), "{why}");
}

#[test]
fn what_is_left_out_is_said() {
    let suite = Suite::new("fifo", Broken::<IgnoresWeights>::default);
    let report = suite.without(Property::Shares, "first come, first served").run();
    assert!(report.is_ok(), "{report}");
    assert!(report.to_string().contains("left out shares       first come, first served"), "{report}");
    assert_eq!(report.held().count(), Property::ALL.len() - 1);
}

#[test]
fn a_file_that_is_none_is_an_error() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join("none.scn");
    assert!(replay(&path, Fair::default).unwrap_err().contains("none.scn"));
    std::fs::write(&path, "group a\n  run 1s\n").unwrap();
    assert!(replay(&path, Fair::default).unwrap_err().contains("# property: NAME"));
    std::fs::write(&path, "# property: waits\ngroup a\n  rum 1s\n").unwrap();
    assert!(replay(&path, Fair::default).unwrap_err().contains("line 3"));
    let history = "group a count=3\n run 1s".parse().unwrap();
    check(Property::Waits, &history, &Fair::default).unwrap();
}
