//! What a simulation writes into a trace, if it is asked to.

use std::fmt;
use std::io::Write;

use super::Sim;
use crate::sim::linux::{Dsq, Thread};
use crate::sim::values::Mode;
use crate::trace::{
    CounterRef, GroupRef, Header, Origin, Record, Summary, TaskInfo, TaskRef, TraceError, Waker, Why, Writer,
};
use crate::{Cpu, CpuSet, Scheduler};

/// What the tasks of a group are called in a trace, where they stand for recorded ones. See
/// [`Sim::record_as`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Thread and process, as they were.
    pub pid: i32,
    /// The process.
    pub tgid: i32,
    /// The name.
    pub name: String,
    /// The name of its group.
    pub group: String,
}

/// The counters of a simulated trace.
const COUNTERS: [&str; 5] = ["parked", "events waiting", "waiting", "agent decides", "agent ns"];

pub(super) struct Tape {
    writer: Writer<Box<dyn Write>>,
    labels: Vec<Label>,
    /// By the group's place in the workload, and one more for the agent.
    groups: Vec<GroupRef>,
    /// By the place in the kernel's table.
    tasks: Vec<Option<TaskRef>>,
    on: Vec<Option<(Thread, TaskRef)>>,
    /// Who ends just now: what he wakes, nobody seems to have woken.
    dying: Option<TaskRef>,
    counters: [(CounterRef, Option<u64>); COUNTERS.len()],
    failed: Option<TraceError>,
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("summary", &self.writer.summary()).finish_non_exhaustive()
    }
}

impl Tape {
    fn of(&self, task: Thread) -> Option<TaskRef> {
        self.tasks.get(task.index()).copied().flatten()
    }
}

impl<S: Scheduler> Sim<S> {
    /// From now on all that happens is written here, until [`end_record`](Self::end_record). It changes nothing about
    /// what happens; the same workload and seed give the same bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, policy: &str, out: impl Write + 'static) -> Result<(), TraceError> {
        self.record_as(policy, Vec::new(), out)
    }

    /// The same for a workload that replays a trace: the tasks of each group appear under these names, by the group's
    /// place in the workload.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_as(
        &mut self,
        policy: &str,
        labels: Vec<Label>,
        out: impl Write + 'static,
    ) -> Result<(), TraceError> {
        let mut header = Header::new(Origin::Simulated, policy, self.setup.topology.clone());
        (header.start, header.seed) = (self.now(), self.setup.seed);
        let out: Box<dyn Write> = Box::new(out);
        let mut writer = Writer::new(out, &header)?;
        let mut groups = Vec::new();
        let mut known: std::collections::HashMap<String, GroupRef> = std::collections::HashMap::new();
        let names = self.groups.iter().zip(0..).map(|(members, index)| {
            labels.get(index).map_or(members.name.as_str(), |label| label.group.as_str())
        });
        for (name, id) in names.chain(["(agent)"]).zip(0..) {
            // Groups of one name are one; a replay has one for each task.
            let group = match known.get(name) {
                Some(&group) => group,
                None => writer.group(id, name)?,
            };
            known.insert(name.to_owned(), group);
            groups.push(group);
        }
        let mut counters = [(CounterRef(0), None); COUNTERS.len()];
        for (counter, name) in counters.iter_mut().zip(COUNTERS) {
            counter.0 = writer.counter(name)?;
        }
        let on = vec![None; self.lanes.len()];
        let tape =
            Tape { writer, labels, groups, tasks: Vec::new(), on, dying: None, counters, failed: None };
        self.tape = Some(Box::new(tape));
        let tasks: Vec<Thread> = self.host.linux.threads().map(|(task, _)| task).collect();
        tasks.into_iter().for_each(|task| self.tape_task(task, None));
        (0..self.lanes.len() as u32).for_each(|cpu| self.tape_switch(Cpu(cpu)));
        Ok(())
    }

    /// Writes the end. `None` if nothing was being recorded.
    ///
    /// # Errors
    /// The first that came up while it was written.
    pub fn end_record(&mut self) -> Option<Result<Summary, TraceError>> {
        let tape = self.tape.take()?;
        Some(match tape.failed {
            Some(error) => Err(error),
            None => tape.writer.finish().map(|(_, summary)| summary),
        })
    }

    fn tape_write(&mut self, record: &Record) {
        let now = self.host.linux.now;
        if let Some(tape) = &mut self.tape
            && tape.failed.is_none()
        {
            tape.failed = tape.writer.record(now, record).err();
        }
    }

    /// A task that was not there before.
    pub(super) fn tape_task(&mut self, task: Thread, parent: Option<Thread>) {
        let Some(tape) = &mut self.tape else { return };
        let t = self.host.linux.task(task);
        let actor = self.actors.get(task.index()).and_then(Option::as_ref);
        let group = actor.map_or(self.groups.len(), |actor| actor.group);
        let name = self.groups.get(group).map_or("agent", |members| members.name.as_str());
        let mut info = TaskInfo::new(t.pid.0, name, tape.groups[group]);
        (info.tgid, info.weight, info.kthread) = (t.tgid.0, t.weight, t.kthread);
        info.agent = task == self.agent_task;
        info.cpus = t.allowed.clone();
        if let Some(label) = tape.labels.get(group) {
            (info.pid, info.tgid) = (label.pid, label.tgid);
            info.name.clone_from(&label.name);
        }
        if tape.tasks.len() <= task.index() {
            tape.tasks.resize(task.index() + 1, None);
        }
        if tape.failed.is_some() {
            return;
        }
        match tape.writer.task(self.host.linux.now, &info) {
            Ok(known) => tape.tasks[task.index()] = Some(known),
            Err(error) => tape.failed = Some(error),
        }
        if let Some(child) = tape.of(task)
            && parent.is_some()
        {
            let parent = parent.and_then(|parent| tape.of(parent));
            self.tape_write(&Record::Fork { parent, child });
        }
    }

    pub(super) fn tape_wake(&mut self, task: Thread, by: Option<Thread>) {
        let Some(tape) = &self.tape else { return };
        let Some(known) = tape.of(task) else { return };
        let by = by.and_then(|by| tape.of(by)).or(tape.dying).map_or(Waker::Interrupt, Waker::Task);
        let cpu = self.host.linux.task(task).cpu;
        self.tape_write(&Record::Wake { task: known, by, cpu });
    }

    /// Who is on this CPU now?
    pub(super) fn tape_switch(&mut self, cpu: Cpu) {
        let Some(tape) = &mut self.tape else { return };
        let linux = &self.host.linux;
        let now = linux.running(cpu).and_then(|task| Some((task, tape.of(task)?)));
        let before = std::mem::replace(&mut tape.on[cpu.0 as usize], now);
        if before == now {
            return;
        }
        let why = before.map_or(Why::Blocked, |(task, known)| {
            if tape.of(task) != Some(known) {
                Why::Exited
            } else if linux.task(task).runnable {
                Why::Preempted
            } else {
                Why::Blocked
            }
        });
        let [from, to] = [before, now].map(|who| who.map(|(_, known)| known));
        self.tape_write(&Record::Switch { cpu, from, why, to });
    }

    /// Before it is gone.
    pub(super) fn tape_exit(&mut self, task: Thread) {
        let Some(tape) = &mut self.tape else { return };
        let Some(known) = tape.tasks.get_mut(task.index()).and_then(Option::take) else { return };
        tape.dying = Some(known);
        self.tape_write(&Record::Exit { task: known });
    }

    pub(super) fn tape_gone(&mut self) {
        if let Some(tape) = &mut self.tape {
            tape.dying = None;
        }
    }

    pub(super) fn tape_change(&mut self, task: Thread) {
        let Some(known) = self.tape.as_ref().and_then(|tape| tape.of(task)) else { return };
        let t = self.host.linux.task(task);
        let (weight, cpus) = (t.weight, t.allowed.clone());
        self.tape_write(&Record::Weight { task: known, weight });
        self.tape_write(&Record::Affinity { task: known, cpus: cpus.filter(|cpus| **cpus != CpuSet::ALL) });
    }

    pub(super) fn tape_online(&mut self, cpu: Cpu, online: bool) {
        if self.tape.is_some() {
            self.tape_write(&Record::Online { cpu, online });
            self.tape_switch(cpu);
        }
    }

    /// Counters that are not what they were.
    pub(super) fn tape_counters(&mut self) {
        let Some(tape) = &mut self.tape else { return };
        let linux = &self.host.linux;
        let decides = self.host.core.latch().mode == Mode::Normal;
        let parked = linux.nr_queued(Dsq::Park) as u64;
        let events = linux.pending_events() as u64;
        let now = [parked, events, u64::from(self.waiting), u64::from(decides), self.agent_ran];
        let mut news = Vec::new();
        for ((counter, last), value) in tape.counters.iter_mut().zip(now) {
            if last.replace(value) != Some(value) {
                news.push(Record::Counter { counter: *counter, value });
            }
        }
        news.iter().for_each(|record| self.tape_write(record));
    }
}
