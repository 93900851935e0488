//! What a trace shows: one pass over its records.

use std::collections::HashMap;
use std::io::Read;

use qumun::sim::{Histogram, jain};
use qumun::trace::{Header, Reader, Record, TraceError, Waker, Why};
use qumun::{Cpu, CpuSet, Distance, Nanos};

/// Migrations by distance: the names of the places of [`TaskFigures::moves`].
pub const DISTANCES: [(Distance, &str); 6] = [
    (Distance::Same, "same CPU"),
    (Distance::Core, "same core"),
    (Distance::L2, "same L2"),
    (Distance::L3, "same L3"),
    (Distance::Node, "same node"),
    (Distance::Far, "other node"),
];

/// A task that wants a CPU for this part of the time or more is one that could always use more.
const HUNGRY: f64 = 0.8;
/// Waiting tasks with an affinity of their own that are looked at, at each moment.
const LOOKED_AT: usize = 64;

/// What makes tasks a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Their group in the trace (cgroups, groups of a scenario); their names if all are in one.
    #[default]
    Auto,
    /// Their group in the trace.
    Group,
    /// Their names.
    Name,
}

/// What became of one task.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TaskFigures {
    /// The thread.
    pub pid: i32,
    /// Its process.
    pub tgid: i32,
    /// Its name, as of the end.
    pub name: String,
    /// Its group: a place in [`Run::groups`].
    pub group: usize,
    /// Its weight at the end.
    pub weight: u32,
    /// It runs the policy.
    pub agent: bool,
    /// On CPUs.
    pub ran: Nanos,
    /// Wanted to be on one, and was not.
    pub waited: Nanos,
    /// How often it was put on a CPU.
    pub runs: u64,
    /// How often it was taken off though it wanted to go on.
    pub preempted: u64,
    /// How often it woke up.
    pub wakeups: u64,
    /// How often it was done with something: it slept, or ended.
    pub done: u64,
    /// How often it was put on a CPU at this distance from the one before, see [`DISTANCES`].
    pub moves: [u64; 6],
    /// From each wakeup until it ran.
    pub wake_to_run: Histogram,
    /// The longest time that it wanted to run and did not.
    pub longest_wait: Nanos,
}

impl TaskFigures {
    /// How many times longer it took than it would have taken alone: (ran + waited) / ran. 1 for a task that did not run.
    pub fn slowdown(&self) -> f64 {
        slowdown(self.ran, self.waited)
    }
}

fn slowdown(ran: Nanos, waited: Nanos) -> f64 {
    if ran == Nanos::ZERO { 1.0 } else { (ran.0 + waited.0) as f64 / ran.0 as f64 }
}

/// What became of the tasks of one group.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GroupFigures {
    /// A cgroup, or a group of a simulation.
    pub name: String,
    /// How many tasks.
    pub tasks: usize,
    /// On CPUs.
    pub ran: Nanos,
    /// Wanted to be, and were not.
    pub waited: Nanos,
    /// Part of all that tasks ran.
    pub share: f64,
    /// Done per second.
    pub done_per_second: f64,
    /// From each wakeup until it ran.
    pub wake_to_run: Histogram,
    /// The longest wait of one of them.
    pub longest_wait: Nanos,
}

impl GroupFigures {
    /// As [`TaskFigures::slowdown`], for all of them together.
    pub fn slowdown(&self) -> f64 {
        slowdown(self.ran, self.waited)
    }
}

/// A task on a CPU, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// From the beginning of the trace.
    pub start: Nanos,
    /// For how long.
    pub time: Nanos,
    /// Its place in [`Run::tasks`].
    pub task: u32,
}

/// A counter and its samples, each from the beginning of the trace.
#[derive(Clone, Debug)]
pub struct Counter {
    /// What it counts.
    pub name: String,
    /// When, and what.
    pub points: Vec<(Nanos, u64)>,
}

/// A wakeup, for those who draw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the beginning of the trace.
    pub at: Nanos,
    /// Where the waker ran.
    pub cpu: Cpu,
    /// Who woke up: a place in [`Run::tasks`].
    pub woken: u32,
}

/// One trace, understood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// What it is called in a comparison.
    pub name: String,
    /// Where the trace comes from.
    pub header: Header,
    /// From its first record to its last.
    pub time: Nanos,
    /// Each task that did something.
    pub tasks: Vec<TaskFigures>,
    /// Each group that has one, most CPU time first.
    pub groups: Vec<GroupFigures>,
    /// What was on each CPU.
    pub cpus: Vec<Vec<Slice>>,
    /// Wakeups by tasks.
    pub wakes: Vec<Place>,
    /// Samples.
    pub counters: Vec<Counter>,
    /// From each wakeup until it ran, of all tasks.
    pub wake_to_run: Histogram,
    /// CPU time that was idle while tasks waited that could have used it.
    pub wasted: Nanos,
    /// CPU time of the agent.
    pub agent_ran: Nanos,
    /// CPU time of all others.
    pub ran: Nanos,
    /// How often a CPU went from one task to another.
    pub switches: u64,
    /// Jain's index over CPU time by weight of tasks that wanted a CPU at least 80 % of the time; and how many there are.
    pub fairness: (f64, usize),
    /// Records that were lost when the trace was made.
    pub dropped: u64,
    /// Why it ends before its end, if it was read in part.
    pub cut: Option<String>,
}

impl Run {
    /// Reads a trace to its end.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read<R: Read>(name: &str, reader: Reader<R>) -> Result<Self, TraceError> {
        Self::read_by(By::Auto, name, reader)
    }

    /// The same with these groups.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read_by<R: Read>(by: By, name: &str, mut reader: Reader<R>) -> Result<Self, TraceError> {
        let mut pass = Pass::new(reader.header().clone());
        for entry in reader.by_ref() {
            let entry = entry?;
            pass.take(entry.at, entry.record);
        }
        let (dropped, cut) = (reader.dropped(), reader.cut().map(ToString::to_string));
        Ok(Self { dropped, cut, ..pass.end(by, name) })
    }

    /// Part of its CPUs' time that tasks used, the agent left out; 0 to 1.
    pub fn utilization(&self) -> f64 {
        let all = self.time.0 as f64 * self.header.topology.online().len() as f64;
        if all == 0.0 { 0.0 } else { self.ran.0 as f64 / all }
    }

    /// How often a task was done with something, per second.
    pub fn throughput(&self) -> f64 {
        let done: u64 = self.tasks.iter().filter(|task| !task.agent).map(|task| task.done).sum();
        done as f64 / self.seconds()
    }

    /// Migrations by distance, see [`DISTANCES`]; the agent left out.
    pub fn moves(&self) -> [u64; 6] {
        let mut sums = [0; 6];
        for task in self.tasks.iter().filter(|task| !task.agent) {
            sums.iter_mut().zip(task.moves).for_each(|(sum, n)| *sum += n);
        }
        sums
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.time.0 as f64 / 1e9).max(1e-9)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Asleep,
    Waits(Nanos),
    On,
}

#[derive(Debug)]
struct Doing {
    figures: TaskFigures,
    state: State,
    woke: Option<Nanos>,
    last: Option<Cpu>,
    cpus: Option<Box<CpuSet>>,
    first: Option<Nanos>,
    ended: Option<Nanos>,
}

struct Pass {
    header: Header,
    now: Nanos,
    groups: Vec<String>,
    tasks: Vec<Doing>,
    on: Vec<Option<(u32, Nanos)>>,
    /// The CPU has not been seen yet: who leaves it was there from the start.
    unseen: Vec<bool>,
    idle: CpuSet,
    cpus: Vec<Vec<Slice>>,
    wakes: Vec<Place>,
    counters: Vec<Counter>,
    switches: u64,
    wasted: u64,
    /// Tasks that wait and may run anywhere.
    free: u32,
    /// Tasks that wait and may not.
    bound: Vec<u32>,
}

impl Pass {
    fn new(header: Header) -> Self {
        let nr = header.topology.nr_cpus() as usize;
        Self {
            now: header.start,
            groups: Vec::new(),
            tasks: Vec::new(),
            on: vec![None; nr],
            unseen: vec![true; nr],
            idle: *header.topology.online(),
            cpus: vec![Vec::new(); nr],
            wakes: Vec::new(),
            counters: Vec::new(),
            switches: 0,
            wasted: 0,
            free: 0,
            bound: Vec::new(),
            header,
        }
    }

    fn take(&mut self, at: Nanos, record: Record) {
        self.pass(at);
        match record {
            Record::Group { name, .. } => self.groups.push(name),
            Record::CounterName(name) => self.counters.push(Counter { name, points: Vec::new() }),
            Record::Counter { counter, value } => {
                let since = at - self.header.start;
                self.counters[counter.0 as usize].points.push((since, value));
            }
            Record::Task(info) => self.tasks.push(Doing {
                figures: TaskFigures {
                    pid: info.pid,
                    tgid: info.tgid,
                    name: info.name,
                    group: info.group.0 as usize,
                    weight: info.weight,
                    agent: info.agent,
                    ..TaskFigures::default()
                },
                state: State::Unknown,
                woke: None,
                last: None,
                cpus: info.cpus,
                first: None,
                ended: None,
            }),
            Record::Wake { task, by, .. } => {
                let doing = &mut self.tasks[task.0 as usize];
                if matches!(doing.state, State::Asleep | State::Unknown) {
                    doing.figures.wakeups += 1;
                    doing.woke = Some(at);
                    self.wants(task.0, at);
                    if let Waker::Task(by) = by
                        && let Some(cpu) =
                            self.on.iter().position(|on| on.is_some_and(|(who, _)| who == by.0))
                    {
                        let since = at - self.header.start;
                        self.wakes.push(Place { at: since, cpu: Cpu(cpu as u32), woken: task.0 });
                    }
                }
            }
            Record::Switch { cpu, from, why, to } => {
                self.switch(at, cpu, from.map(|t| t.0), why, to.map(|t| t.0))
            }
            Record::Weight { task, weight } => self.tasks[task.0 as usize].figures.weight = weight,
            Record::Affinity { task, cpus } => {
                let waits = self.tasks[task.0 as usize].state;
                self.stops_waiting(task.0);
                self.tasks[task.0 as usize].cpus = cpus;
                if let State::Waits(since) = waits {
                    self.wants(task.0, since);
                }
            }
            Record::Move { task, group } => self.tasks[task.0 as usize].figures.group = group.0 as usize,
            Record::Name { task, name } => self.tasks[task.0 as usize].figures.name = name,
            Record::Online { cpu, online } => {
                self.idle.set(cpu, online && self.on[cpu.0 as usize].is_none());
            }
            _ => {}
        }
    }

    /// Up to now it was as it is.
    fn pass(&mut self, at: Nanos) {
        let passed = (at - self.now).0;
        self.now = at;
        if passed == 0 || self.free == 0 && self.bound.is_empty() {
            return;
        }
        let idle = self.idle.len();
        if idle == 0 {
            return;
        }
        let could =
            |task: &&u32| self.tasks[**task as usize].cpus.as_ref().is_some_and(|c| c.intersects(&self.idle));
        let bound = self.bound.iter().take(LOOKED_AT).filter(could).count() as u32;
        self.wasted += passed * u64::from(idle.min(self.free + bound));
    }

    fn wants(&mut self, task: u32, since: Nanos) {
        let doing = &mut self.tasks[task as usize];
        doing.first.get_or_insert(since);
        doing.state = State::Waits(since);
        // The agent is called when it is needed; nobody waits for a CPU in its stead.
        match (&doing.cpus, doing.figures.agent) {
            (_, true) => {}
            (None, _) => self.free += 1,
            (Some(_), _) => self.bound.push(task),
        }
    }

    fn stops_waiting(&mut self, task: u32) {
        let doing = &mut self.tasks[task as usize];
        if !matches!(doing.state, State::Waits(_)) || doing.figures.agent {
            return;
        }
        match &doing.cpus {
            None => self.free = self.free.saturating_sub(1),
            Some(_) => self.bound.retain(|other| *other != task),
        }
    }

    fn switch(&mut self, at: Nanos, cpu: Cpu, from: Option<u32>, why: Why, to: Option<u32>) {
        let index = cpu.0 as usize;
        let start = self.header.start;
        self.switches += 1;
        let mut there = self.on[index].take();
        if std::mem::take(&mut self.unseen[index]) && there.is_none() {
            there = from.map(|from| (from, start));
            if let Some(from) = from {
                let doing = &mut self.tasks[from as usize];
                doing.first.get_or_insert(start);
                doing.figures.runs += 1;
                doing.last.get_or_insert(cpu);
            }
        }
        if let Some((task, since)) = there {
            self.slice(index, task, since, at);
            // After lost records somebody else may have been there: he waits, as far as is known.
            let why = if from == Some(task) { why } else { Why::Preempted };
            let doing = &mut self.tasks[task as usize];
            match why {
                Why::Preempted => {
                    doing.figures.preempted += 1;
                    self.wants(task, at);
                }
                Why::Blocked => {
                    doing.figures.done += 1;
                    doing.state = State::Asleep;
                }
                Why::Exited => {
                    doing.figures.done += 1;
                    doing.state = State::Asleep;
                    doing.ended = Some(at);
                }
            }
        }
        self.idle.set(cpu, to.is_none());
        if let Some(task) = to {
            self.arrive(at, cpu, task);
        }
    }

    fn arrive(&mut self, at: Nanos, cpu: Cpu, task: u32) {
        self.stops_waiting(task);
        let doing = &mut self.tasks[task as usize];
        let figures = &mut doing.figures;
        figures.runs += 1;
        if let State::Waits(since) = doing.state {
            figures.waited = figures.waited + (at - since);
            figures.longest_wait = figures.longest_wait.max(at - since);
        }
        if let Some(woke) = doing.woke.take() {
            figures.wake_to_run.add(at - woke);
        }
        if let Some(last) = doing.last.replace(cpu) {
            let distance = self.header.topology.distance(last, cpu);
            let place = DISTANCES.iter().position(|(d, _)| *d == distance).unwrap_or(DISTANCES.len() - 1);
            figures.moves[place] += 1;
        }
        doing.first.get_or_insert(at);
        doing.state = State::On;
        self.on[cpu.0 as usize] = Some((task, at));
    }

    fn slice(&mut self, index: usize, task: u32, since: Nanos, at: Nanos) {
        let figures = &mut self.tasks[task as usize].figures;
        figures.ran = figures.ran + (at - since);
        self.cpus[index].push(Slice { start: since - self.header.start, time: at - since, task });
    }

    /// Groups of tasks that have one name.
    fn group_by_name(&mut self) {
        let mut places: HashMap<String, usize> = HashMap::new();
        self.groups.clear();
        for doing in &mut self.tasks {
            let figures = &mut doing.figures;
            figures.group = *places.entry(figures.name.clone()).or_insert_with(|| {
                self.groups.push(figures.name.clone());
                self.groups.len() - 1
            });
        }
    }

    fn end(mut self, by: By, name: &str) -> Run {
        let end = self.now;
        for index in 0..self.on.len() {
            if let Some((task, since)) = self.on[index].take() {
                self.slice(index, task, since, end);
            }
        }
        let mut all = self.tasks.iter().filter(|doing| doing.first.is_some() && !doing.figures.agent);
        let one = all.next().is_some_and(|one| all.all(|other| other.figures.group == one.figures.group));
        if by == By::Name || by == By::Auto && one {
            self.group_by_name();
        }
        let mut groups: Vec<GroupFigures> = self
            .groups
            .iter()
            .map(|name| GroupFigures { name: name.clone(), ..GroupFigures::default() })
            .collect();
        let time = end - self.header.start;
        let seconds = (time.0 as f64 / 1e9).max(1e-9);
        let mut all = Histogram::default();
        let (mut ran, mut agent_ran, mut shares) = (Nanos::ZERO, Nanos::ZERO, Vec::new());
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for mut doing in self.tasks {
            let figures = &mut doing.figures;
            if let State::Waits(since) = doing.state {
                figures.waited = figures.waited + (end - since);
                figures.longest_wait = figures.longest_wait.max(end - since);
            }
            if figures.agent {
                agent_ran = agent_ran + figures.ran;
            } else if let Some(first) = doing.first {
                ran = ran + figures.ran;
                all.merge(&figures.wake_to_run);
                let life = doing.ended.unwrap_or(end) - first;
                let wanted = figures.ran + figures.waited;
                if wanted.0 as f64 >= HUNGRY * life.0 as f64 && life.0 * 2 >= time.0 {
                    shares.push(figures.ran.0 as f64 / f64::from(figures.weight));
                }
                let group = &mut groups[figures.group];
                group.tasks += 1;
                group.ran = group.ran + figures.ran;
                group.waited = group.waited + figures.waited;
                group.done_per_second += figures.done as f64 / seconds;
                group.longest_wait = group.longest_wait.max(figures.longest_wait);
                group.wake_to_run.merge(&figures.wake_to_run);
            }
            tasks.push(doing.figures);
        }
        let total = (ran.0 as f64).max(1.0);
        groups.iter_mut().for_each(|group| group.share = group.ran.0 as f64 / total);
        // Most CPU time first, and none without tasks.
        let mut order: Vec<usize> = (0..groups.len()).filter(|&index| groups[index].tasks > 0).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(groups[index].ran), index));
        for task in &mut tasks {
            task.group = order.iter().position(|&index| index == task.group).unwrap_or(usize::MAX);
        }
        let groups = order.into_iter().map(|index| std::mem::take(&mut groups[index])).collect();
        Run {
            name: name.to_owned(),
            header: self.header,
            time,
            tasks,
            groups,
            cpus: self.cpus,
            wakes: self.wakes,
            counters: self.counters,
            wake_to_run: all,
            wasted: Nanos(self.wasted),
            agent_ran,
            ran,
            switches: self.switches,
            fairness: (jain(shares.iter().copied()), shares.len()),
            dropped: 0,
            cut: None,
        }
    }
}
