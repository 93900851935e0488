//! The rules of custody hold for any agent and any order of events.
//!
//! Random tasks, random agents, tiny rings; after each step every rule is checked, and at the end the
//! agent dies and everything runnable must run soon. The last tests break the machine on purpose, to
//! see that the property can fail.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestError, TestRunner};
use qumun::sim::{Config, Machine, Mode, Port, RawDecision, Sabotage, Spec};
use qumun::{Agent, Context, Cpu, CpuSet, Decision, Full, Nanos, Pid, Queued, Scheduler, TaskId, Verdict};

const CPUS: u32 = 3;
const LIGHTEST: u32 = 50;

/// How an agent behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Decides at once.
    Honest,
    /// Keeps tasks and sends them at the end of the batch.
    Keeper,
    /// Decides on every second task only.
    Lossy,
    /// Decides at once, on any CPU number, slice and vtime.
    Wild,
    /// Greets the core and never takes another turn.
    Silent,
}

/// One step. Numbers choose among what there is, modulo.
#[derive(Clone, Debug)]
enum Step {
    Spawn {
        weight: u32,
        cpus: u64,
    },
    Wake(usize),
    Sleep(usize),
    Exit(usize),
    Affinity(usize, u64),
    SliceEnd(u32),
    Dispatch(u32),
    Advance(u64),
    Turn,
    Raw {
        task: usize,
        change: u8,
        cpu: i32,
        flags: u32,
        vtime: u64,
    },
    Online(u32, bool),
    NewAgent,
    /// Long enough with a good agent to be normal again.
    Calm,
}

fn mask(bits: u64) -> CpuSet {
    let mut set = CpuSet::EMPTY;
    set.set_word(0, bits);
    set
}

struct Policy {
    manner: Manner,
    count: u64,
    kept: Vec<Decision>,
    /// All that the agent ever heard of, for decisions that come too late.
    heard: Rc<RefCell<Vec<TaskId>>>,
}

impl Scheduler for Policy {
    type Task = u64;

    fn enqueue(&mut self, cx: &mut Context<'_, u64>, task: &Queued) -> Verdict {
        self.count += 1;
        self.heard.borrow_mut().push(task.id);
        *cx.task(task) += 1;
        let decision = match cx.idle().first_allowed(&task.allowed) {
            Some(cpu) => task.on(cpu),
            None => task.anywhere(),
        };
        match self.manner {
            Manner::Keeper => {
                self.kept.push(decision);
                Verdict::Keep
            }
            Manner::Lossy if self.count.is_multiple_of(2) => Verdict::Keep,
            Manner::Wild => {
                let mixed = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let cpu = Cpu((mixed >> 32) as u32 % (CPUS + 2));
                task.on(cpu).vtime(mixed).slice(Nanos(mixed >> (mixed & 63))).into()
            }
            _ => decision.vtime(self.count).into(),
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_, u64>) {
        while let Some(decision) = self.kept.pop() {
            if let Err(Full(decision)) = cx.send(decision) {
                self.kept.push(decision);
                break;
            }
        }
    }

    fn reset(&mut self, _: &mut Context<'_, u64>) {
        self.kept.clear();
    }
}

struct Drive {
    machine: Machine,
    agent: Agent<Port, Policy>,
    manner: Manner,
    heard: Rc<RefCell<Vec<TaskId>>>,
    /// With its weight.
    tasks: Vec<(Pid, u32)>,
}

impl Drive {
    fn new(config: Config, manner: Manner) -> Self {
        let machine = Machine::with_config(config);
        let heard = Rc::default();
        let agent = Self::agent(&machine, manner, &heard);
        let mut drive = Self { machine, agent, manner, heard, tasks: Vec::new() };
        drive.calm();
        drive
    }

    fn agent(machine: &Machine, manner: Manner, heard: &Rc<RefCell<Vec<TaskId>>>) -> Agent<Port, Policy> {
        let policy = Policy { manner, count: 0, kept: Vec::new(), heard: Rc::clone(heard) };
        qumun::builder("test").tasks(4).retry(2).batch(5).agent(machine.backend(), policy)
    }

    fn calm(&mut self) {
        self.machine.run(Nanos::from_millis(120), || self.agent.turn());
    }

    fn pid(&self, i: usize) -> Pid {
        if self.tasks.is_empty() { Pid(1) } else { self.tasks[i % self.tasks.len()].0 }
    }

    fn step(&mut self, step: &Step) {
        let machine = &self.machine;
        match *step {
            Step::Spawn { weight, cpus } if self.tasks.len() < 8 => {
                let pid = machine.spawn(Spec { weight, cpus: mask(cpus), ..Spec::default() });
                self.tasks.push((pid, weight));
                machine.wake(pid);
            }
            Step::Spawn { .. } => {}
            Step::Wake(i) => drop(machine.wake(self.pid(i))),
            Step::Sleep(i) => drop(machine.sleep(self.pid(i))),
            Step::Exit(i) => {
                let pid = self.pid(i);
                machine.exit(pid);
                self.tasks.retain(|t| t.0 != pid);
            }
            Step::Affinity(i, cpus) => drop(machine.set_affinity(self.pid(i), mask(cpus))),
            Step::SliceEnd(cpu) => drop(machine.slice_end(Cpu(cpu))),
            Step::Dispatch(cpu) => drop(machine.dispatch(Cpu(cpu))),
            Step::Advance(ns) => machine.advance(Nanos(ns)),
            Step::Turn if self.manner != Manner::Silent => drop(self.agent.turn()),
            Step::Turn => {}
            Step::Raw { task, change, cpu, flags, vtime } => {
                let heard = self.heard.borrow();
                let id = heard.iter().rev().nth(task).copied().unwrap_or_default();
                let mut raw = RawDecision {
                    pid: id.pid.0,
                    generation: id.generation.0,
                    cpu: -1,
                    vtime,
                    ..Default::default()
                };
                match change % 6 {
                    0 => raw.pid = raw.pid.wrapping_add(cpu),
                    1 => raw.generation = raw.generation.wrapping_add(vtime),
                    2 => raw.cpu = cpu,
                    3 => raw.flags = flags,
                    4 => raw.slice = vtime,
                    _ => {}
                }
                machine.send_raw(raw);
            }
            Step::Online(cpu, online) => drop(machine.set_online(Cpu(cpu), online)),
            Step::NewAgent => self.agent = Self::agent(machine, self.manner, &self.heard),
            Step::Calm => self.calm(),
        }
    }

    /// The agent is gone for good. How long may it take until each waiting task has run?
    ///
    /// 50 ms until the core has taken over (limit 30 ms, timer 10 ms, and what is left for luck). After
    /// that, in the worst case, all tasks share one CPU. Each other task may run once because it was
    /// parked or placed before (20 ms after the one before it, when this side is due), and once
    /// because it is ahead in the core's order. And it comes first for as long as its virtual time
    /// is lower: by no more than the credit of a sleeper (20 ms) and what one full slice can cost.
    fn bound(&self) -> Nanos {
        let slice = 20.0;
        let behind = 20.0 + slice * 100.0 / f64::from(LIGHTEST);
        let others = self.tasks.iter().map(|t| 20.0 + 2.0 * slice + behind * f64::from(t.1) / 100.0);
        Nanos::from_millis(50 + others.sum::<f64>().ceil() as u64)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let task = || 0..8usize;
    let masks = || 1u64..1 << CPUS;
    let step = prop_oneof![
        4 => (prop_oneof![Just(100u32), LIGHTEST..300u32], masks()).prop_map(|(weight, cpus)| Step::Spawn { weight, cpus }),
        6 => task().prop_map(Step::Wake),
        3 => task().prop_map(Step::Sleep),
        1 => task().prop_map(Step::Exit),
        3 => (task(), masks()).prop_map(|(t, m)| Step::Affinity(t, m)),
        4 => (0..CPUS).prop_map(Step::SliceEnd),
        8 => (0..CPUS).prop_map(Step::Dispatch),
        3 => (0..2_000_000u64).prop_map(Step::Advance),
        1 => (0..45_000_000u64).prop_map(Step::Advance),
        8 => Just(Step::Turn),
        4 => (0..6usize, any::<u8>(), -3..i32::try_from(CPUS).unwrap() + 2, any::<u32>(), any::<u64>())
            .prop_map(|(task, change, cpu, flags, vtime)| Step::Raw { task, change, cpu, flags, vtime }),
        1 => (0..CPUS, any::<bool>()).prop_map(|(cpu, online)| Step::Online(cpu, online)),
        1 => Just(Step::NewAgent),
        1 => Just(Step::Calm),
    ];
    proptest::collection::vec(step, 1..80)
}

fn worlds() -> impl Strategy<Value = (Config, Manner)> {
    let manner = prop_oneof![
        Just(Manner::Honest),
        Just(Manner::Keeper),
        Just(Manner::Lossy),
        Just(Manner::Wild),
        Just(Manner::Silent)
    ];
    let ring = || prop_oneof![1..6usize, Just(64usize)];
    (ring(), ring(), manner).prop_map(|(event_ring, decision_ring, manner)| {
        (Config { nr_cpus: CPUS, event_ring, decision_ring, ..Config::default() }, manner)
    })
}

/// The property.
fn kept(config: Config, manner: Manner, steps: &[Step], die: bool) -> Result<(), TestCaseError> {
    let mut drive = Drive::new(config, manner);
    for step in steps {
        drive.step(step);
        drive.machine.check().map_err(|e| TestCaseError::fail(format!("{step:?}: {e}")))?;
    }
    // The agent dies, or is stopped and does not even die.
    let machine = drive.machine.clone();
    let mut left: Vec<_> = machine.waiting().into_iter().map(|pid| (pid, machine.runs(pid))).collect();
    let bound = drive.bound();
    let stopped = if die {
        drop(drive.agent);
        None
    } else {
        Some(drive.agent)
    };
    let start = machine.now();
    let mut broken = None;
    machine.run(bound + Nanos::from_millis(1), || {
        let waited = machine.now() - start;
        left.retain(|&(pid, runs)| {
            if waited > bound && broken.is_none() {
                broken = Some(format!("pid {pid} has not run for {waited}, bound {bound}"));
            }
            machine.runs(pid) == runs
        });
        if let Err(e) = machine.check() {
            broken.get_or_insert(e);
        }
    });
    drop(stopped);
    match broken {
        Some(words) => Err(TestCaseError::fail(words)),
        None => Ok(()),
    }
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    // More on demand: PROPTEST_CASES.
    ProptestConfig { cases: default.cases.max(768), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_agent_can_break_a_rule((config, manner) in worlds(), steps in steps(), die in any::<bool>()) {
        kept(config, manner, &steps, die)?;
    }
}

/// The property must fail on a machine that is broken in this way, with these words.
fn caught(sabotage: Sabotage, words: &str) {
    // It ends with the first failure; the rarest kind takes some hundred cases.
    let mut runner = TestRunner::new(ProptestConfig { cases: 50_000, max_shrink_iters: 0, ..config() });
    let world = (worlds(), steps(), any::<bool>());
    let result = runner.run(&world, |((config, manner), steps, die)| {
        kept(Config { sabotage, ..config }, manner, &steps, die)
    });
    match result {
        Err(TestError::Fail(reason, _)) => assert!(reason.message().contains(words), "{}", reason.message()),
        other => panic!("{sabotage:?} was not noticed: {other:?}"),
    }
}

#[test]
fn a_repeated_generation_is_noticed() {
    caught(Sabotage::KeepGeneration, "used before");
}

#[test]
fn ignored_affinity_is_noticed() {
    caught(Sabotage::IgnoreAffinity, "allowed");
}

#[test]
fn a_lost_task_is_noticed() {
    caught(Sabotage::LoseWhenFull, "forgot");
}

#[test]
fn a_ledger_that_does_not_balance_is_noticed() {
    caught(Sabotage::StaleEndsEvent, "events sent");
}

#[test]
fn a_takeover_that_does_not_come_is_noticed() {
    caught(Sabotage::NeverLate, "has not");
}

#[test]
fn a_task_that_does_not_run_soon_is_noticed() {
    caught(Sabotage::LeaveParked, "has not run for");
}

#[test]
fn a_side_that_gets_no_share_is_noticed() {
    caught(Sabotage::NoAgentShare, "has not run for");
}

#[test]
fn an_event_while_the_core_schedules_is_noticed() {
    caught(Sabotage::SendDegraded, "while the core schedules");
}

#[test]
fn a_task_in_two_places_is_noticed() {
    caught(Sabotage::DoublePlace, "should be at");
}

/// The random steps reach what they are meant to reach: without this, the property could hold for
/// nothing.
#[test]
fn the_steps_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    // Not among them: ev_dead. A kernel takes a task out of its queue before it ends; the lock-step test does not.
    let mut sum = [0u64; 11];
    let mut modes = 0;
    for _ in 0..400 {
        let (config, manner) = worlds().new_tree(&mut runner).unwrap().current();
        let mut drive = Drive::new(config, manner);
        assert_eq!(drive.machine.latch().mode, Mode::Normal);
        for step in steps().new_tree(&mut runner).unwrap().current() {
            drive.step(&step);
        }
        let c = drive.machine.counters();
        let now = [
            c.ev_dispatched,
            c.ev_bounced,
            c.ev_cancelled,
            c.ev_taken_over,
            c.dec_applied,
            c.dec_stale,
            c.dec_refused,
            c.congested,
            c.kernel_direct,
            c.core_enqueued,
            c.exit_dropped,
        ];
        sum.iter_mut().zip(now).for_each(|(sum, now)| *sum += now);
        modes += drive.machine.latch().entered;
    }
    assert!(sum.iter().all(|&n| n > 0) && modes > 0, "{sum:?}, taken over {modes} times");
}
