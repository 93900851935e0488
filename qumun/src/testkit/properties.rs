//! What a policy promises, and how a history shows that it does not keep it.

use super::quiet;
use crate::sim::{Mode, Scenario, Sim, TaskFigures, jain};
use crate::{Nanos, Scheduler};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Property {
    /// Every task that waits gets a decision in time.
    Custody,
    /// No decision names a CPU that the task may not use.
    Affinity,
    /// No task that wants to run waits for long.
    Waits,
    /// Tasks that compute get what their weights say.
    Shares,
    /// No CPU is idle while tasks wait.
    Work,
    /// It goes on when its memory and the rings are too small.
    Exhaustion,
    /// The same history gives the same twice.
    Determinism,
    /// It survives what may happen, and schedules again afterwards.
    Faults,
    /// It allocates nothing after its start. Needs [`CountingAllocator`](crate::alloc::CountingAllocator).
    Allocation,
}

/// The agent gets the machine when the core has seen that it is there.
const WARM: Nanos = Nanos::from_millis(200);
/// How many tasks for each CPU a policy is asked to keep waits short for.
const MOST_LOAD: usize = 8;
/// The longest wait there. Even at the core's longest slice (20 ms) and eight times the weight for each of the others,
/// the eighth has its turn in it.
const LONGEST_WAIT: Nanos = Nanos::from_millis(400);
/// The longest wait when things go wrong: what the core promises (500 ms, and a search), and CPUs that are away.
const LONGEST_WAIT_FAULTS: Nanos = Nanos::from_millis(1_500);
/// Shorter than this, slices are coarser than shares.
const SHARES_TIME: Nanos = Nanos::from_millis(2_000);
/// Shares may be off by this part.
const SHARES: f64 = 0.05;
/// And by this much for each task: some slices, as one is being used up when the time is over.
const COARSE: Nanos = Nanos::from_millis(40);
/// Up to this part of a CPU a task can be given what its weight says, slices being what they are.
const ONE_CPU: f64 = 0.8;
/// Jain's index of equal tasks.
const JAIN: f64 = 0.99;
/// Shorter than this, most of it is the core's: it begins alone, and lets a task that wakes up wait for its cache.
const WORK_TIME: Nanos = Nanos::from_millis(600);
/// CPU time that may be idle while tasks wait. An answer takes some microseconds, and runs last milliseconds here.
const WASTE: f64 = 0.03;

impl Property {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Custody,
        Self::Affinity,
        Self::Waits,
        Self::Shares,
        Self::Work,
        Self::Exhaustion,
        Self::Determinism,
        Self::Faults,
        Self::Allocation,
    ];

    /// Its name in reports and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custody => "custody",
            Self::Affinity => "affinity",
            Self::Waits => "waits",
            Self::Shares => "shares",
            Self::Work => "work",
            Self::Exhaustion => "exhaustion",
            Self::Determinism => "determinism",
            Self::Faults => "faults",
            Self::Allocation => "allocation",
        }
    }

    /// What is promised.
    pub const fn promise(self) -> &'static str {
        match self {
            Self::Custody => "every task that waits gets a decision before the core has to step in (30 ms)",
            Self::Affinity => "no decision names a CPU that the task may not use",
            Self::Waits => "no task waits for longer than 400 ms, at up to 8 tasks a CPU",
            Self::Shares => {
                "tasks that compute get what their weights say, within 5 %; equal ones have a Jain index of 0.99"
            }
            Self::Work => "CPUs are idle while tasks wait for 3 % of the time at most",
            Self::Exhaustion => "with too little memory and full rings it goes on, and every task runs",
            Self::Determinism => "the same history gives the same, to the last nanosecond",
            Self::Faults => {
                "it survives stopped and killed agents, garbage, CPUs and affinities that change, and schedules again"
            }
            Self::Allocation => "nothing is allocated in a turn of the agent",
        }
    }
}

/// Does a policy keep a promise in this history?
///
/// # Errors
/// What it does wrong.
pub fn check<S: Scheduler>(
    property: Property,
    history: &Scenario,
    make: &(impl Fn() -> S + Clone + 'static),
) -> Result<(), String> {
    quiet::catch(|| match property {
        Property::Custody => custody(&run(history, make)?),
        Property::Affinity => affinity(&run(history, make)?),
        Property::Waits if load(history) > MOST_LOAD => Ok(()),
        Property::Waits => waits(&run(history, make)?),
        Property::Shares => shares(history, &run(history, make)?),
        Property::Work => work(history, &run(history, make)?),
        Property::Exhaustion => longest(&run(history, make)?, LONGEST_WAIT_FAULTS),
        Property::Determinism => determinism(history, make),
        Property::Faults => faults(history, make),
        Property::Allocation => allocation(history, make),
    })
}

fn run<S: Scheduler>(
    history: &Scenario,
    make: &(impl Fn() -> S + Clone + 'static),
) -> Result<Sim<S>, String> {
    let sim = history.run(make.clone())?;
    sound(&sim)?;
    Ok(sim)
}

/// Have all rules been kept? Work that never ends is not the policy's fault.
fn sound<S: Scheduler>(sim: &Sim<S>) -> Result<(), String> {
    if sim.endless().is_some() { Ok(()) } else { sim.check() }
}

fn load(history: &Scenario) -> usize {
    let tasks: usize = history.work.groups().map(|(_, _, count)| count).sum();
    tasks.div_ceil(nr_cpus(history) as usize)
}

/// CPUs for tasks: without that of an agent that has one for itself.
fn nr_cpus(history: &Scenario) -> u32 {
    history.setup.topology.nr_cpus() - u32::from(history.setup.settings.dedicated.is_some())
}

fn custody<S: Scheduler>(sim: &Sim<S>) -> Result<(), String> {
    let (latch, counters) = (sim.latch(), sim.counters());
    if latch.entered > 0 || counters.ev_taken_over > 0 {
        let parked = Nanos(counters.max_parked_ns);
        return Err(format!(
            "the core took over {} times, {} tasks without a decision; the longest waited for {parked}",
            latch.entered, counters.ev_taken_over,
        ));
    }
    Ok(())
}

fn affinity<S: Scheduler>(sim: &Sim<S>) -> Result<(), String> {
    let counters = sim.counters();
    match counters.dec_bounced + counters.dec_refused {
        0 => Ok(()),
        n => {
            let all = counters.dec_drained;
            Err(format!(
                "{n} of {all} decisions named a CPU that the task may not use, or that does not exist"
            ))
        }
    }
}

fn waits<S: Scheduler>(sim: &Sim<S>) -> Result<(), String> {
    longest(sim, LONGEST_WAIT)?;
    match sim.counters().rescued {
        0 => Ok(()),
        n => Err(format!(
            "the core had to rescue {n} tasks that the policy's order had passed over for 500 ms"
        )),
    }
}

fn longest<S: Scheduler>(sim: &Sim<S>, limit: Nanos) -> Result<(), String> {
    let tasks = sim.tasks();
    match tasks.iter().max_by_key(|task| task.longest_wait) {
        Some(task) if task.longest_wait > limit => {
            let TaskFigures { pid, name, weight, longest_wait, ran, .. } = task;
            let passed = sim.passed();
            Err(format!(
                "pid {pid} ({name}, weight {weight}) waited for {longest_wait}; it ran for {ran} of {passed}"
            ))
        }
        _ => Ok(()),
    }
}

/// What each group is entitled to, of all CPU time. `None` if the history is none of tasks that compute only, or if a
/// weight is nearly what one CPU can give, or more: what others get then depends on who is left out at which moment.
fn entitled(history: &Scenario) -> Option<Vec<f64>> {
    let cpus = f64::from(nr_cpus(history));
    let mut groups: Vec<(f64, f64)> = Vec::new();
    for (group, _, count) in history.work.groups() {
        groups.push((f64::from(history.work.computes_at(group)?), count as f64));
    }
    let tasks: f64 = groups.iter().map(|(_, count)| count).sum();
    if tasks <= cpus {
        return Some(groups.iter().map(|(_, count)| *count).collect());
    }
    let weights: f64 = groups.iter().map(|(weight, count)| weight * count).sum();
    let feasible = groups.iter().all(|(weight, count)| *count == 0.0 || cpus * weight / weights <= ONE_CPU);
    let shares = groups.iter().map(|(weight, count)| cpus * weight * count / weights).collect();
    (feasible && history.faults.is_empty()).then_some(shares)
}

fn shares<S: Scheduler>(history: &Scenario, sim: &Sim<S>) -> Result<(), String> {
    let Some(entitled) = entitled(history).filter(|_| history.time >= SHARES_TIME) else { return Ok(()) };
    let time = sim.passed().as_u64() as f64;
    for (share, (group, name, _)) in entitled.into_iter().zip(history.work.groups()) {
        let tasks = sim.group(group);
        let ran = |task: &TaskFigures| task.ran.as_u64() as f64 / time;
        let got: f64 = tasks.iter().map(ran).sum();
        let coarse = COARSE.as_u64() as f64 * tasks.len() as f64 / time;
        if (got - share).abs() > (share * SHARES).max(coarse) {
            let weight = tasks.first().map_or(0, |task| task.weight);
            return Err(format!(
                "group {name} ({} tasks of weight {weight}) got {got:.3} CPUs; its weight says {share:.3}",
                tasks.len()
            ));
        }
        let index = jain(tasks.iter().map(ran));
        if index < JAIN {
            return Err(format!("equal tasks of group {name} have a Jain index of {index:.4}"));
        }
    }
    Ok(())
}

fn work<S: Scheduler>(history: &Scenario, sim: &Sim<S>) -> Result<(), String> {
    if history.time < WORK_TIME {
        return Ok(());
    }
    let all = sim.passed().as_u64() * u64::from(nr_cpus(history));
    let part = sim.wasted().as_u64() as f64 / all as f64;
    if part > WASTE {
        let part = part * 100.0;
        return Err(format!("{part:.1} % of all CPU time was idle while tasks waited ({})", sim.wasted()));
    }
    Ok(())
}

fn determinism<S: Scheduler>(
    history: &Scenario,
    make: &(impl Fn() -> S + Clone + 'static),
) -> Result<(), String> {
    let shown = |sim: Sim<S>| (sim.happened(), format!("{:?}", sim.counters()), sim.tasks());
    let [(events, counters, tasks), (again, counters_again, tasks_again)] =
        [shown(run(history, make)?), shown(run(history, make)?)];
    for (a, b) in tasks.iter().zip(&tasks_again) {
        if (a.ran, a.runs, a.waited) != (b.ran, b.runs, b.waited) {
            return Err(format!(
                "pid {} ({}) ran for {} the first time, and then for {}",
                a.pid, a.name, a.ran, b.ran
            ));
        }
    }
    if (events, tasks.len(), counters) != (again, tasks_again.len(), counters_again) {
        return Err(format!(
            "{events} events and {} tasks the first time, and then {again} and {}",
            tasks.len(),
            tasks_again.len()
        ));
    }
    Ok(())
}

fn faults<S: Scheduler>(history: &Scenario, make: &(impl Fn() -> S + Clone + 'static)) -> Result<(), String> {
    let mut sim = history.start(make.clone())?;
    let last = history.faults.iter().map(|(at, fault)| *at + fault.lasts()).max().unwrap_or_default();
    sim.run(history.time.max(last));
    sound(&sim)?;
    // The core gives the machine back after two seconds at most.
    sim.run(Nanos::from_millis(2_500));
    let before = sim.counters();
    sim.run(Nanos::from_millis(500));
    sound(&sim)?;
    let (latch, counters) = (sim.latch(), sim.counters());
    if latch.mode == Mode::Kernel && !history.setup.kernel_mode {
        return Err("it is left in kernel mode".to_owned());
    }
    if latch.mode == Mode::Degraded {
        return Err(format!(
            "3 s after the last fault the core still schedules by itself; it took over {} times",
            latch.entered
        ));
    }
    let asked = counters.ev_sent > before.ev_sent;
    if asked && counters.dec_applied == before.dec_applied {
        return Err(
            "3 s after the last fault the policy is asked, and no decision of it is carried out".to_owned()
        );
    }
    longest(&sim, LONGEST_WAIT_FAULTS)
}

fn allocation<S: Scheduler>(
    history: &Scenario,
    make: &(impl Fn() -> S + Clone + 'static),
) -> Result<(), String> {
    let mut sim = history.start(make.clone())?;
    sim.run(WARM.min(history.time));
    let before = sim.allocations();
    sim.run(history.time.since(WARM));
    sound(&sim)?;
    match sim.allocations() - before {
        0 => Ok(()),
        n => {
            Err(format!("{n} allocations by the agent's thread in {}, after the first {WARM}", history.time))
        }
    }
}
