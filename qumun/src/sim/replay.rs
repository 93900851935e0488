//! A trace as work: what each task did, without when it was allowed to.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::engine::{Fault, Group, Label, Members, Setup, Sim, Span, Step, Workload};
use super::linux::Limit;
use super::values::Spec;
use crate::trace::{
    GroupRef, Header, Origin, Reader, Record, Summary, TaskInfo, TaskRef, TraceError, TraceErrorKind, Waker,
    Why,
};
use crate::{Cpu, CpuSet, Nanos, Pid, Scheduler};

/// Before the first record: the agent takes the machine over, which it does 100 ms after the start at the earliest.
const WARM: Nanos = Nanos::from_millis(200);
/// A wakeup takes effect on another CPU, by an interrupt, and the waker may have left its own by then. Emulated machines
/// are slow with that.
const REMOTE: Nanos = Nanos::from_millis(100);
/// More than any simulation lasts.
const FOR_EVER: Nanos = Nanos(1_000_000_000_000_000);

/// The work that a trace tells of, to be done again under another policy.
///
/// Each task has a program of its own: how long it computed between what it did itself (woke somebody, forked, waited,
/// ended). A sleep that a task ended is a wait for that task, at that point of its program. One that a timer or an
/// interrupt ended is a sleep until that moment of the trace: requests and timers come when they came, however late the
/// policy is. So the order of causes is kept, and all waiting for CPUs is left out. A task that still wants to run when the trace ends computes on: how much more it gets is the policy's business.
///
/// Changes of weight, affinity and CPUs from outside happen when they happened. The agent's own work is left out, since
/// the simulation has an agent of its own. Real-time tasks are tasks of the greatest weight here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replay {
    /// Of the trace.
    pub header: Header,
    /// What the tasks do: one group for each.
    pub work: Workload,
    /// What the tasks were called, by group.
    pub labels: Vec<Label>,
    /// What happened from outside, from the beginning of the trace.
    pub faults: Vec<(Nanos, Fault)>,
    /// From the first record to the last.
    pub time: Nanos,
    /// Records that were lost when it was made: around these what tasks did is a guess.
    pub dropped: u64,
    /// Real-time tasks that did something.
    pub realtime: usize,
    /// Tasks that did something.
    pub tasks: usize,
    /// What a turn of the agent took on the average; `None` if the trace has no agent.
    pub agent_turn: Option<Nanos>,
}

impl Replay {
    /// Reads all of a trace.
    ///
    /// # Errors
    /// Those of the [`Reader`]; and a record that cannot follow those before it: a CPU that goes from a task that is not
    /// there, a task on two CPUs, one that runs and nobody woke it, one that was woken by a task that did not run. After
    /// [`Record::Dropped`] such things are put right instead.
    pub fn read<R: Read>(reader: Reader<R>) -> Result<Self, TraceError> {
        Self::understand(reader, false)
    }

    /// The same of a trace that may contradict itself without telling that records were lost: all such things are put
    /// right, by what the later record says.
    ///
    /// # Errors
    /// Those of the [`Reader`].
    pub fn mend<R: Read>(reader: Reader<R>) -> Result<Self, TraceError> {
        Self::understand(reader, true)
    }

    fn understand<R: Read>(mut reader: Reader<R>, lossy: bool) -> Result<Self, TraceError> {
        let header = reader.header().clone();
        let nr_cpus = header.topology.nr_cpus() as usize;
        let mut scribe = Scribe {
            start: header.start,
            groups: Vec::new(),
            cgroups: BTreeMap::new(),
            tasks: Vec::new(),
            on: vec![None; nr_cpus],
            faults: Vec::new(),
            lossy,
            remote: if header.origin == Origin::Simulated { Nanos::ZERO } else { REMOTE },
            switch: Setup::new(header.topology.clone()).switch.0,
            agent: None,
            turns: (0, 0),
        };
        let mut end = header.start;
        for entry in reader.by_ref() {
            let entry = entry?;
            end = entry.at;
            let wrong = |what| TraceError::new(TraceErrorKind::Impossible, entry.offset, what);
            if end - header.start > FOR_EVER {
                return Err(wrong("a trace of more than eleven days".to_owned()));
            }
            scribe.take(entry.at, entry.record).map_err(wrong)?;
        }
        let dropped = reader.dropped();
        Ok(scribe.end(header, end, dropped))
    }

    /// The machine of the trace, with the usual manners. On a real kernel the agent's turns took what they took: so they
    /// do here, whatever is in them.
    pub fn setup(&self) -> Setup {
        let mut setup = Setup::new(self.header.topology.clone());
        if let (Some(turn), Origin::Kernel(_)) = (self.agent_turn, &self.header.origin) {
            (setup.costs.turn, setup.costs.event, setup.costs.decision) = (turn, Nanos::ZERO, Nanos::ZERO);
        }
        setup
    }

    /// Does the work under a policy and records what becomes of it: a trace as long as this one.
    ///
    /// # Errors
    /// What is wrong with the work, or why the trace could not be written.
    pub fn run<S: Scheduler>(
        &self,
        setup: Setup,
        name: &str,
        mut make: impl FnMut() -> S + 'static,
        out: impl Write + 'static,
    ) -> Result<(Sim<S>, Summary), String> {
        let room = (self.labels.len() + 64).clamp(16_384, 1 << 20);
        let builder = crate::builder("replay").topology(setup.topology.clone()).tasks(room);
        let mut sim = Sim::with(setup, &self.work, make(), builder)?.successors(make);
        for &(at, fault) in &self.faults {
            sim.fault_at(WARM + at, fault);
        }
        // What begins at WARM must not have begun.
        sim.run(WARM - Nanos(1));
        let words = |error: TraceError| error.to_string();
        sim.record_as(name, self.labels.clone(), out).map_err(words)?;
        sim.run(self.time + Nanos(1));
        match sim.end_record() {
            Some(summary) => summary.map(|summary| (sim, summary)).map_err(words),
            None => Err("the recording was lost".to_owned()),
        }
    }
}

/// Processes of the trace are numbered from here: the simulation's own have other numbers, its agent's among them, whose
/// threads the core treats as its own. No pid of Linux is above 2^22.
const PROCESSES: i32 = 1 << 24;

/// What is known of a task, as of the last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not met yet.
    Unknown,
    /// Made, and not woken for the first time.
    New,
    /// The step that says how it will end is to come.
    Asleep,
    /// Wants to run.
    Waits,
    /// Runs since then, as far as its program knows.
    On(Cpu, Nanos),
    Gone,
}

#[derive(Debug)]
struct Draft {
    info: TaskInfo,
    state: State,
    steps: Vec<Step>,
    /// Computed since the last step.
    computed: u64,
    /// When it left a CPU last.
    left: Nanos,
    begins: Option<Nanos>,
    /// By a step of another task.
    forked: bool,
}

impl Draft {
    /// Its program has an entry point.
    fn begun(&self) -> bool {
        self.forked || self.begins.is_some()
    }

    fn begin(&mut self, at: Nanos) {
        self.begins.get_or_insert(at);
    }

    fn compute(&mut self) {
        if self.computed > 0 {
            self.steps.push(Step::Run(Nanos(std::mem::take(&mut self.computed)).into()));
        }
    }

    /// How long the last run is that the trace saw the beginning of: as long as those before it, and without an end if
    /// it is already longer than any of them, or the only one.
    fn open_end(&self) -> u64 {
        let runs = self.steps.iter().filter_map(|step| match step {
            Step::Run(Span::Fixed(time)) => Some(time.0),
            _ => None,
        });
        let (mut count, mut sum, mut longest) = (0, 0u64, 0);
        for time in runs {
            (count, sum, longest) = (count + 1, sum.saturating_add(time), longest.max(time));
        }
        if self.computed >= longest {
            return self.computed.saturating_add(FOR_EVER.0);
        }
        self.computed.max(sum / count.max(1))
    }

    /// Up to now it has computed.
    fn account(&mut self, now: Nanos) {
        if let State::On(cpu, since) = self.state {
            self.computed += (now - since).0;
            self.state = State::On(cpu, now.max(since));
        }
    }
}

struct Scribe {
    start: Nanos,
    groups: Vec<(u64, String)>,
    /// Those with a cpu controller: what they are in, and their weight.
    cgroups: BTreeMap<GroupRef, (Option<GroupRef>, u32)>,
    tasks: Vec<Draft>,
    /// `None`: not known yet.
    on: Vec<Option<Option<TaskRef>>>,
    faults: Vec<(Nanos, Fault)>,
    lossy: bool,
    remote: Nanos,
    switch: u64,
    /// The agent is on a CPU since then.
    agent: Option<Nanos>,
    /// How often it was, and for how long in all.
    turns: (u64, u64),
}

impl Scribe {
    fn task(&mut self, task: TaskRef) -> &mut Draft {
        // The reader has checked the number.
        &mut self.tasks[task.0 as usize]
    }

    fn take(&mut self, at: Nanos, record: Record) -> Result<(), String> {
        let since = at - self.start;
        match record {
            Record::Group { id, name } => self.groups.push((id, name)),
            Record::Cgroup { group, parent, weight } => {
                self.cgroups.entry(group).or_insert((parent, weight)).1 = weight;
            }
            Record::Task(info) => self.tasks.push(Draft {
                info: *info,
                state: State::Unknown,
                steps: Vec::new(),
                computed: 0,
                left: Nanos::ZERO,
                begins: None,
                forked: false,
            }),
            Record::Fork { child, .. } => match self.tasks[child.0 as usize].state {
                State::Unknown => self.task(child).state = State::New,
                _ if self.lossy => {}
                _ => return Err(format!("{} was made, and was there before", self.name(child))),
            },
            Record::Wake { task, by, .. } => return self.wake(at, task, by),
            Record::Switch { cpu, from, why, to } => {
                self.leave(at, cpu, from, why)?;
                return self.arrive(at, cpu, to);
            }
            Record::Weight { task, weight } => {
                let draft = self.task(task);
                let changed = std::mem::replace(&mut draft.info.weight, weight) != weight;
                if changed && draft.begun() && draft.state != State::Gone {
                    self.faults.push((since, Fault::Weight(Group(task.0 as usize), weight)));
                }
            }
            Record::Affinity { task, cpus } => {
                let draft = self.task(task);
                let set = cpus.as_deref().copied().unwrap_or(CpuSet::ALL);
                let changed = draft.info.cpus != cpus;
                draft.info.cpus = cpus;
                if changed && draft.begun() && draft.state != State::Gone {
                    self.faults.push((since, Fault::Affinity(Group(task.0 as usize), set)));
                }
            }
            Record::Move { task, group } => self.task(task).info.group = group,
            Record::Name { task, name } => self.task(task).info.name = name,
            Record::Online { cpu, online } => {
                let fault = if online { Fault::Online(cpu) } else { Fault::Offline(cpu) };
                self.faults.push((since, fault));
            }
            Record::Dropped { .. } => self.lossy = true,
            Record::Exit { .. } | Record::Counter { .. } | Record::CounterName(_) => {}
        }
        Ok(())
    }

    fn name(&self, task: TaskRef) -> String {
        self.tasks.get(task.0 as usize).map_or_else(
            || format!("task {}", task.0),
            |draft| format!("task {} ({}, pid {})", task.0, draft.info.name, draft.info.pid),
        )
    }

    fn wake(&mut self, at: Nanos, task: TaskRef, by: Waker) -> Result<(), String> {
        let since_start = at - self.start;
        let lossy = self.lossy;
        let by = match by {
            Waker::Task(by) if !self.task(by).info.agent => {
                let waker = &self.tasks[by.0 as usize];
                let can = match waker.state {
                    State::On(..) => true,
                    State::Waits | State::Asleep => waker.begun() && at - waker.left <= self.remote,
                    _ => false,
                };
                // Of one that was never seen leaving a CPU nothing is known.
                let seen = waker.left > Nanos::ZERO || matches!(waker.state, State::New | State::Gone);
                if !can && !lossy && seen {
                    return Err(format!(
                        "{} was woken by {}, which did not run",
                        self.name(task),
                        self.name(by)
                    ));
                }
                can.then_some(by)
            }
            _ => None,
        };
        if self.task(task).info.agent {
            return Ok(());
        }
        let state = self.task(task).state;
        let step = Group(task.0 as usize);
        match state {
            State::Gone if lossy => return Ok(()),
            State::Gone => return Err(format!("{} was woken after its end", self.name(task))),
            // It did not sleep, so nothing follows from it.
            State::Waits | State::On(..) => return Ok(()),
            State::Asleep => match by {
                None => self.task(task).steps.push(Step::Until(WARM + since_start)),
                Some(by) => {
                    self.task(task).steps.push(Step::Block);
                    self.act(at, by, Step::Wake(step));
                }
            },
            State::Unknown | State::New => match by {
                None => self.task(task).begin(since_start),
                Some(by) if self.alike(by, task) => {
                    self.task(task).forked = true;
                    self.act(at, by, Step::Fork(step));
                }
                Some(_) if state == State::New => self.task(task).begin(since_start),
                Some(by) => {
                    let draft = self.task(task);
                    draft.begin(Nanos::ZERO);
                    draft.steps.push(Step::Block);
                    self.act(at, by, Step::Wake(step));
                }
            },
        }
        self.task(task).state = State::Waits;
        Ok(())
    }

    /// A new task is like its maker, in the simulation: would this one be?
    fn alike(&self, parent: TaskRef, child: TaskRef) -> bool {
        let [a, b] = [parent, child].map(|task| &self.tasks[task.0 as usize].info);
        let cgroup = |group: GroupRef| self.groups.get(group.0 as usize).map(|(id, _)| *id);
        (a.weight, &a.cpus, a.kthread, cgroup(a.group)) == (b.weight, &b.cpus, b.kthread, cgroup(b.group))
            && a.realtime == b.realtime
    }

    /// A task that runs does something at this point of its program.
    fn act(&mut self, at: Nanos, task: TaskRef, step: Step) {
        let draft = self.task(task);
        draft.account(at);
        if !matches!(draft.state, State::On(..)) {
            // It did so before it left.
            draft.compute();
            draft.steps.push(step);
            return;
        }
        // Two that wake each other without computing would stop the clock.
        draft.computed = draft.computed.max(1);
        draft.compute();
        draft.steps.push(step);
    }

    fn leave(&mut self, at: Nanos, cpu: Cpu, from: Option<TaskRef>, why: Why) -> Result<(), String> {
        let there = self.on[cpu.0 as usize].take();
        if let Some(there) = there
            && there != from
        {
            if !self.lossy {
                let name = |task: Option<TaskRef>| task.map_or("nobody".to_owned(), |task| self.name(task));
                return Err(format!("{} left CPU {cpu}, but {} was there", name(from), name(there)));
            }
            if let Some(there) = there {
                let draft = self.task(there);
                draft.account(at);
                draft.state = State::Waits;
            }
        }
        let Some(from) = from else { return Ok(()) };
        let start = self.start;
        let lossy = self.lossy;
        if self.task(from).info.agent {
            if let Some(since) = self.agent.take() {
                self.turns.0 += 1;
                self.turns.1 = self.turns.1.saturating_add((at - since).0.saturating_sub(self.switch));
            }
            return Ok(());
        }
        match self.task(from).state {
            State::On(here, _) if here == cpu => {}
            State::Unknown if there.is_none() => {
                let draft = self.task(from);
                draft.begin(Nanos::ZERO);
                draft.state = State::On(cpu, start);
            }
            _ if lossy => self.enter(at, cpu, from),
            _ => return Err(format!("{} left CPU {cpu}, and was not there", self.name(from))),
        }
        let draft = self.task(from);
        draft.account(at);
        draft.left = at;
        draft.state = match why {
            Why::Preempted => State::Waits,
            Why::Blocked => {
                draft.computed = draft.computed.max(1);
                draft.compute();
                State::Asleep
            }
            Why::Exited => {
                draft.compute();
                draft.steps.push(Step::Exit);
                State::Gone
            }
        };
        Ok(())
    }

    fn arrive(&mut self, at: Nanos, cpu: Cpu, to: Option<TaskRef>) -> Result<(), String> {
        self.on[cpu.0 as usize] = Some(to);
        let Some(to) = to else { return Ok(()) };
        if self.task(to).info.agent {
            self.agent = Some(at);
            return Ok(());
        }
        let state = self.task(to).state;
        match state {
            State::Waits | State::Unknown => {}
            _ if self.lossy => {}
            State::New | State::Asleep => {
                return Err(format!("{} runs, and nobody woke it", self.name(to)));
            }
            State::On(other, _) => return Err(format!("{} is on CPUs {other} and {cpu}", self.name(to))),
            State::Gone => return Err(format!("{} runs after its end", self.name(to))),
        }
        self.enter(at, cpu, to);
        Ok(())
    }

    /// It runs here now, whatever it did before.
    fn enter(&mut self, at: Nanos, cpu: Cpu, task: TaskRef) {
        let (since_start, switch) = (at - self.start, self.switch);
        let draft = self.task(task);
        match draft.state {
            State::Asleep => draft.steps.push(Step::Until(WARM + since_start)),
            State::New => draft.begin(since_start),
            State::Unknown => draft.begin(Nanos::ZERO),
            State::On(..) => draft.account(at),
            State::Gone => {
                // It has begun to end, by what is left of the trace. Let it go on instead.
                draft.steps.pop();
            }
            State::Waits => {}
        }
        // The simulation adds the cost of the switch again.
        draft.state = State::On(cpu, at + Nanos(switch));
    }

    /// The tree of cgroups, parents first, and the number of each in the simulation.
    fn make_cgroups(&self, work: &mut Workload) -> BTreeMap<GroupRef, u64> {
        let mut made = BTreeMap::new();
        // Each round makes those whose parents are there; a circle is left out.
        loop {
            let before = made.len();
            for (group, (parent, weight)) in &self.cgroups {
                let parent = match parent {
                    Some(parent) => made.get(parent).copied(),
                    None => Some(1),
                };
                if let (false, Some(parent)) = (made.contains_key(group), parent) {
                    made.insert(*group, work.cgroup(parent, *weight, Limit::NONE));
                }
            }
            if made.len() == before {
                return made;
            }
        }
    }

    fn end(mut self, header: Header, end: Nanos, dropped: u64) -> Replay {
        let (mut work, mut labels) = (Workload::new(), Vec::new());
        let (mut realtime, mut tasks) = (0, 0);
        let groups = std::mem::take(&mut self.groups);
        let made = self.make_cgroups(&mut work);
        for mut draft in self.tasks {
            draft.account(end);
            let wants_more = matches!(draft.state, State::On(..) | State::Waits);
            if wants_more {
                draft.computed = draft.open_end();
            }
            draft.compute();
            if let State::Asleep = draft.state {
                draft.steps.push(Step::Block);
            }
            if !matches!(draft.steps.last(), Some(Step::Exit)) {
                draft.steps.push(Step::Exit);
            }
            let TaskInfo { pid, tgid, name, group, weight, cpus, kthread, agent, realtime: rt } = draft.info;
            let begins = if agent { None } else { draft.begins };
            let there = begins.is_some() || draft.forked;
            realtime += usize::from(rt && there);
            tasks += usize::from(there);
            let of_trace = group;
            let (cgroup_id, group) = groups.get(group.0 as usize).cloned().unwrap_or_default();
            // What has no controller of its own is not known here to be below any: it counts as the root's.
            let cgroup_id =
                if made.is_empty() { cgroup_id } else { made.get(&of_trace).copied().unwrap_or(1) };
            let spec = Spec {
                weight: if rt { 10_000 } else { weight },
                cpus: cpus.map_or(CpuSet::ALL, |cpus| *cpus),
                kthread,
                tgid: Some(Pid(tgid.saturating_add(PROCESSES))),
                cgroup_id,
                ..Spec::default()
            };
            work.groups.push(Members {
                name: name.clone(),
                count: usize::from(begins.is_some()),
                spec,
                begins: WARM + begins.unwrap_or_default(),
                steps: draft.steps,
            });
            labels.push(Label { pid, tgid, name, group });
        }
        let time = end - header.start;
        let (turns, took) = self.turns;
        let agent_turn = took.checked_div(turns).map(|turn| Nanos(turn.max(1)));
        Replay { header, work, labels, faults: self.faults, time, dropped, realtime, tasks, agent_turn }
    }
}
