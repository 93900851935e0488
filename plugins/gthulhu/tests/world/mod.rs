//! Labels for tasks of a workload, by name; and what the tests in simulated time have in common.

// Each test uses a part of it.
#![allow(dead_code)]

use gthulhu_model::{Budget, Class, Label, Level, Priority};
use gthulhu_plugin_gthulhu::{Account, Gthulhu};
use qumun::sim::{Setup, Sim, Step, TaskFigures, Workload};
use qumun::{Context, Events, Nanos, Note, Permit, Pid, Queued, Scheduler, Topology, Verdict};

/// The policy, and the labels that user space would have set.
pub(crate) struct World {
    pub(crate) policy: Gthulhu,
    pub(crate) labels: Vec<(&'static str, u64)>,
}

impl World {
    pub(crate) fn new() -> Self {
        // As the daemon runs it.
        Self { policy: Gthulhu::default().permit(Permit::wakeups(64).lasting(ms(50))), labels: Vec::new() }
    }

    pub(crate) fn label(mut self, comm: &'static str, priority: Priority) -> Self {
        self.labels.push((comm, Label::Priority(priority).pack()));
        self
    }
}

impl Scheduler for World {
    type Task = Account;
    const EVENTS: Events = Gthulhu::EVENTS;

    fn start(&mut self, cx: &mut Context<'_, Account>) {
        self.policy.start(cx);
    }

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let mut task = *task;
        let comm = task.comm();
        if let Some((_, label)) = self.labels.iter().find(|(name, _)| *name == comm) {
            task.label = *label;
        }
        self.policy.enqueue(cx, &task)
    }

    fn dispatch(&mut self, cx: &mut Context<'_, Account>) {
        self.policy.dispatch(cx);
    }

    fn exit(&mut self, cx: &mut Context<'_, Account>, pid: Pid, task: &mut Account) {
        self.policy.exit(cx, pid, task);
    }

    fn note(&mut self, cx: &mut Context<'_, Account>, note: &Note) {
        self.policy.note(cx, note);
    }

    fn reset(&mut self, cx: &mut Context<'_, Account>) {
        self.policy.reset(cx);
    }
}

pub(crate) fn ms(ms: u64) -> Nanos {
    Nanos::from_millis(ms)
}

pub(crate) fn us(us: u64) -> Nanos {
    Nanos::from_micros(us)
}

pub(crate) fn latency(level: u8, millicpu: u16) -> Priority {
    let class = Class::Latency(Level::new(level).unwrap());
    Priority { class, slice: None, budget: Some(Budget::millicpu(millicpu).unwrap()) }
}

/// Computes, for ever.
pub(crate) fn hog() -> Vec<Step> {
    vec![Step::Run(ms(1_000).into())]
}

/// Two CPUs, at 250 Hz and at 1000 Hz.
pub(crate) fn setups() -> [Setup; 2] {
    [4_000, 1_000].map(|tick| {
        let mut setup = Setup::new(Topology::flat(2));
        setup.tick = us(tick);
        setup
    })
}

/// After so long, without a broken rule and without the core's help.
pub(crate) fn run<S: Scheduler>(setup: Setup, work: &Workload, policy: S, time: Nanos) -> Sim<S> {
    let mut sim = Sim::new(setup, work, policy).unwrap();
    sim.run(time);
    sim.check().unwrap();
    assert_eq!((sim.latch().entered, sim.counters().rescued), (0, 0), "the core had to help");
    sim
}

/// CPU time in seconds.
pub(crate) fn ran(tasks: &[TaskFigures]) -> f64 {
    tasks.iter().map(|task| task.ran.as_u64() as f64 / 1e9).sum()
}
