//! Every example in simulated time: that it keeps its promises, and that its idea works.

use std::time::{Duration, Instant};

use qumun::alloc::CountingAllocator;
use qumun::sim::{Scenario, Sim};
use qumun::testkit::{Property, Suite};
use qumun::{Context, Nanos, Queued, Scheduler, Verdict};
use qumun_examples::adaptive::{Adaptive, LATENCY, LONGEST};
use qumun_examples::deadline::Deadline;
use qumun_examples::fifo::Fifo;
use qumun_examples::packing::Packing;
use qumun_examples::shares::Shares;
use qumun_examples::weighted::Weighted;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn run<S: Scheduler + 'static>(scenario: &str, policy: fn() -> S) -> Sim<S> {
    let scenario: Scenario = scenario.parse().unwrap_or_else(|e| panic!("{e}"));
    let sim = scenario.run(policy).unwrap();
    sim.check().unwrap();
    assert_eq!(sim.latch().entered, 0, "the core had to take over");
    sim
}

/// CPU time of all tasks of a group, in ms.
fn ran<S: Scheduler>(sim: &Sim<S>, name: &str) -> f64 {
    let tasks = sim.tasks();
    let of = tasks.iter().filter(|task| &*task.name == name);
    of.map(|task| task.ran.as_u64() as f64 / 1e6).sum()
}

/// The time within which 99 of 100 wakeups of a group ran.
fn p99<S: Scheduler>(sim: &Sim<S>, name: &str) -> Nanos {
    let tasks = sim.tasks();
    let task = tasks.iter().find(|task| &*task.name == name).unwrap();
    task.wake_to_run.quantile(0.99)
}

/// To where its cache is warm: what `Packing` does not do.
struct Stays;

impl Scheduler for Stays {
    type Task = ();

    fn enqueue(&mut self, cx: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let decision = task.anywhere().vtime(task.enqueued_at.as_u64());
        cx.pick(task.cpu, &task.allowed).cpu().map_or(decision, |cpu| decision.on(cpu)).into()
    }
}

const NO_WEIGHTS: &str = "its order knows no weights";

#[test]
fn fifo_serves_everybody_alike() {
    let once = || {
        let start = Instant::now();
        let sim = run("machine cpus=2\ntime 3s\ngroup hogs count=6\n run 1s", || Fifo);
        (start.elapsed(), sim)
    };
    let (first, sim) = once();
    for task in sim.tasks() {
        assert!((Nanos::from_millis(950)..Nanos::from_millis(1_050)).contains(&task.ran), "{}", task.ran);
    }
    // The best of some, as others use this machine, too.
    let best = (0..5).map(|_| once().0).fold(first, Duration::min);
    println!("3 s of six tasks on two CPUs, simulated in {best:?}");
    assert!(best < Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 10 }), "{best:?}");
}

#[test]
fn fifo_keeps_its_promises() {
    Suite::new("fifo", || Fifo).without(Property::Shares, NO_WEIGHTS).assert();
}

#[test]
fn weighted_gives_twice_the_time_for_twice_the_weight() {
    let hogs = "machine cpus=2\ntime 10s
        group w100 count=2 weight=100\n run 1s
        group w200 count=2 weight=200\n run 1s
        group w400 count=2 weight=400\n run 1s";
    let sim = run(hogs, Weighted::default);
    let unit = ran(&sim, "w100");
    for (name, times) in [("w200", 2.0), ("w400", 4.0)] {
        let ratio = ran(&sim, name) / unit / times;
        assert!((ratio - 1.0).abs() < 0.03, "{name}: {ratio}");
    }
    Suite::new("weighted", Weighted::default).assert();
}

#[test]
fn deadline_lets_urgent_work_overtake() {
    let mixed = "machine cpus=2\ntime 5s
        group hogs count=8\n run 1s
        group urgent label=1000\n run 200us\n every 10ms
        group other\n run 200us\n every 10ms";
    let sim = run(mixed, || Deadline);
    let (urgent, other) = (p99(&sim, "urgent"), p99(&sim, "other"));
    assert!(urgent < Nanos::from_millis(6) && urgent.as_u64() * 3 < other.as_u64(), "{urgent} {other}");
    // Urgency is no way to more of the machine than one's turns.
    let greedy = "machine cpus=1\ntime 5s
        group greedy label=1 count=2\n run 1s
        group hogs count=2\n run 1s";
    let sim = run(greedy, || Deadline);
    assert!(sim.tasks().iter().all(|task| task.longest_wait < Nanos::from_millis(130)));
    Suite::new("deadline", || Deadline).without(Property::Shares, NO_WEIGHTS).assert();
}

#[test]
fn shares_count_cgroups_and_not_tasks() {
    let groups = "machine cpus=2\ntime 10s
        group few count=2 cgroup=7\n run 1s
        group many count=8 cgroup=8\n run 1s";
    let sim = run(groups, Shares::default);
    let ratio = ran(&sim, "few") / ran(&sim, "many");
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    let fifo = run(groups, || Fifo);
    assert!(ran(&fifo, "few") / ran(&fifo, "many") < 0.3);
    Suite::new("shares", Shares::default).without(Property::Shares, NO_WEIGHTS).assert();
}

#[test]
fn packing_leaves_cpus_alone() {
    // A fifth of the machine's time.
    let light = "machine cpus=8\ntime 2s
        group sleepers count=16\n run ~1ms\n sleep ~9ms";
    let far = |busy: Vec<Nanos>| busy[4..].iter().map(|time| time.as_u64()).sum::<u64>() as f64 / 1e9;
    let packed = far(run(light, Packing::default).busy());
    let spread = far(run(light, || Stays).busy());
    assert!(
        packed < 0.5 && packed * 1.1 < spread,
        "{packed:.3} s on the last four CPUs; without it {spread:.3} s"
    );
    Suite::new("packing", Packing::default).without(Property::Shares, NO_WEIGHTS).assert();
}

#[test]
fn adaptive_finds_the_slice_for_the_wait() {
    let hogs = |n: u32| format!("machine cpus=1\ntick 250us\ntime 20s\ngroup hogs count={n}\n run 1s");
    for n in [2u64, 4, 8, 16] {
        let sim = run(&hogs(n as u32), Adaptive::default);
        let tasks = sim.tasks();
        let runs: u64 = tasks.iter().map(|task| task.runs).sum();
        let wait: u64 = tasks.iter().map(|task| task.waited.as_u64()).sum::<u64>() / runs;
        let slice = sim.passed().as_u64() / runs;
        // Two tasks need not be given longer slices than the longest.
        let right = (LATENCY.as_u64() / (n - 1)).min(LONGEST.as_u64());
        assert!((0.8..1.3).contains(&(slice as f64 / right as f64)), "{n} tasks: {} a run", Nanos(slice));
        assert!(wait < LATENCY.as_u64() * 13 / 10, "{n} tasks: {} a wait", Nanos(wait));
    }
    Suite::new("adaptive", Adaptive::default).without(Property::Shares, NO_WEIGHTS).assert();
}
