//! An agent that has a CPU for itself and polls there, in simulated time.

use qumun::sim::{Fault, Mode, Setup, Sim, Spec, Step, Workload};
use qumun::{Context, Cpu, CpuSet, Nanos, Queued, Scheduler, Topology, Verdict};

/// First come, first served.
struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

/// Reads every event and answers none.
struct Mute;

impl Scheduler for Mute {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, _: &Queued) -> Verdict {
        Verdict::Keep
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn setup(cpus: u32) -> Setup {
    let mut setup = Setup::new(Topology::flat(cpus));
    setup.settings.dedicated = Some(Cpu(1));
    setup
}

fn hogs(work: &mut Workload, count: usize, spec: Spec) -> qumun::sim::Group {
    work.group("hogs", count, spec, vec![Step::Run(ms(1_000).into())])
}

#[test]
fn its_cpu_runs_only_who_may_run_nowhere_else_and_him_at_once() {
    let mut work = Workload::new();
    hogs(&mut work, 4, Spec::default());
    let bound = Spec { cpus: CpuSet::of(Cpu(1)), ..Spec::default() };
    let steps = vec![Step::Sleep(ms(5).into()), Step::Run(Nanos::from_micros(50).into())];
    let bound = work.group("bound", 1, bound, steps);
    let mut sim = Sim::new(setup(3), &work, Fifo).unwrap();
    sim.run(ms(1_200));
    sim.check().unwrap();
    assert_eq!(sim.latch().mode, Mode::Normal);
    let by_tasks: u64 = sim.tasks().iter().map(|task| task.ran.as_u64()).sum();
    // 1.2 s of two CPUs, and of the third the 0.1 s before the agent has it.
    assert!(by_tasks < 2_550_000_000, "two CPUs are for tasks, one is the agent's: {by_tasks}");
    let waits = &sim.group(bound)[0].wake_to_run;
    assert!(waits.quantile(0.5) < Nanos::from_micros(20), "{waits:?}");
}

#[test]
fn polling_without_an_answer_does_not_keep_the_machine() {
    let mut work = Workload::new();
    let hogs = hogs(&mut work, 6, Spec::default());
    let mut sim = Sim::new(setup(3), &work, Mute).unwrap();
    sim.run(ms(2_000));
    sim.check().unwrap();
    assert!(sim.latch().entered > 0, "{:?}", sim.latch());
    assert!(sim.counters().max_parked_ns < 50_000_000 + 5_000_000, "{:?}", sim.counters());
    let ran: u64 = sim.group(hogs).iter().map(|task| task.ran.as_u64()).sum();
    assert!(ran > 5_400_000_000, "the agent's CPU is lost: {ran} of 6 s");
}

#[test]
fn it_goes_on_without_its_cpu_and_a_new_agent_has_it_again() {
    let mut work = Workload::new();
    let hogs = hogs(&mut work, 4, Spec::default());
    let mut sim = Sim::new(setup(2), &work, Fifo).unwrap().successors(|| Fifo);
    sim.fault_at(ms(500), Fault::Offline(Cpu(1)));
    sim.fault_at(ms(800), Fault::Online(Cpu(1)));
    sim.run(ms(1_200));
    let decided = sim.counters().dec_applied;
    sim.run(ms(500));
    sim.check().unwrap();
    assert_eq!(sim.latch().mode, Mode::Normal);
    assert!(sim.counters().dec_applied > decided, "nobody decides");
    let ran = |sim: &Sim<Fifo>| sim.group(hogs).iter().map(|task| task.ran.as_u64()).sum::<u64>();
    let before = ran(&sim);
    sim.run(ms(500));
    assert!(ran(&sim) - before > 950_000_000, "both CPUs are for tasks while it shares one");
    sim.kill_agent(ms(10));
    sim.run(ms(500));
    let before = ran(&sim);
    sim.run(ms(500));
    let now = ran(&sim) - before;
    assert!((450_000_000..520_000_000).contains(&now), "one CPU is the agent's again: {now}");
}
