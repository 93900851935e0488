//! The state of a machine and what happens to its tasks from outside: they wake, sleep, end and move.

use std::collections::{BTreeMap, VecDeque};

use super::values::{Config, Counters, Latch, RawDecision, Spec};
use crate::{Affinity, Cpu, Epoch, Event, Events, ExitInfo, Generation, Nanos, Note, Pid, Queued, TaskId};

/// Where a task is. The queues are the truth that tasks are taken from; this is what the task itself
/// believes, and `check` compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Asleep,
    Parked,
    Shared,
    Placed(Cpu),
    Core,
    Pinned(Cpu),
    Running(Cpu),
}

#[derive(Debug)]
pub(super) struct Task {
    /// It wants to run: between waking up and going to sleep.
    pub(super) runnable: bool,
    pub(super) place: Place,
    pub(super) key: Key,
    pub(super) generation: Generation,
    /// The largest generation ever sent, to find one that is sent twice.
    pub(super) sent: Generation,
    pub(super) weight: u32,
    pub(super) allowed: u64,
    pub(super) vtime: u64,
    pub(super) slice: Nanos,
    pub(super) enqueued_at: Nanos,
    pub(super) placed_at: Nanos,
    pub(super) started_at: Nanos,
    pub(super) stopped_at: Nanos,
    pub(super) exec_runtime: Nanos,
    pub(super) total: Nanos,
    pub(super) runs: u64,
    pub(super) cpu: Cpu,
    pub(super) waker: Option<Pid>,
    pub(super) kthread: bool,
    pub(super) tgid: Pid,
    pub(super) cgroup_id: u64,
    pub(super) label: u64,
    pub(super) comm: [u8; 16],
}

/// The order in a queue: virtual time, then arrival.
pub(super) type Key = (u64, u64);
pub(super) type Queue = BTreeMap<Key, Pid>;

/// The fair queue of two queues that a CPU keeps, see `qumun-bpf/bpf/sides.h`. Index 0 is the core's side, 1
/// the agent's.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) served_at: [Nanos; 2],
    /// CPU time that each side has had, by the number of tasks that shared it.
    pub(super) clock: [u64; 2],
    /// Whose task runs, and for how many its time counts; `None` if only one side had anything.
    pub(super) running: Option<(usize, u64)>,
    pub(super) charged_at: Nanos,
}

#[derive(Debug)]
pub(super) struct CpuState {
    pub(super) running: Option<Pid>,
    pub(super) online: bool,
    /// It looked for work and found none: not so yet between two tasks.
    pub(super) idle: bool,
    pub(super) placed: Queue,
    pub(super) pinned: Queue,
    /// The core's own queues, and what the agent has placed here: who comes first.
    pub(super) sides: Sides,
    /// Whether what is placed for this CPU comes before what is placed for any: it alternates.
    pub(super) turn: bool,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) now: Nanos,
    pub(super) next_tick: Nanos,
    pub(super) tasks: BTreeMap<Pid, Task>,
    pub(super) cpus: Vec<CpuState>,
    pub(super) parked: Queue,
    pub(super) shared: Queue,
    pub(super) core: Queue,
    /// The core's clock of virtual time: the largest of a task that began to run.
    pub(super) vclock: u64,
    pub(super) seq: u64,
    pub(super) events_wanted: Events,
    pub(super) events: VecDeque<Event>,
    pub(super) decisions: VecDeque<RawDecision>,
    /// How many of the decisions the core can see.
    pub(super) published: usize,
    pub(super) counters: Counters,
    pub(super) latch: Latch,
    pub(super) left_at: Nanos,
    pub(super) agents: u64,
    pub(super) agent: Option<u64>,
    pub(super) ack: Option<Epoch>,
    pub(super) next_pid: i32,
    pub(super) next_generation: u64,
    pub(super) exited: Option<ExitInfo>,
    /// Events that were sent though the core had taken over, and generations sent twice: for `check`.
    pub(super) sent_degraded: u64,
    pub(super) repeated: u64,
}

impl Model {
    pub(super) fn new(mut config: Config) -> Self {
        config.nr_cpus = config.nr_cpus.clamp(1, 64);
        let now = Nanos::from_millis(1_000);
        let cpu = |_| CpuState {
            running: None,
            online: true,
            idle: true,
            placed: Queue::new(),
            pinned: Queue::new(),
            sides: Sides { served_at: [now; 2], ..Sides::default() },
            turn: false,
        };
        Self {
            now,
            next_tick: now + super::latch::TICK,
            tasks: BTreeMap::new(),
            cpus: (0..config.nr_cpus).map(cpu).collect(),
            parked: Queue::new(),
            shared: Queue::new(),
            core: Queue::new(),
            vclock: 0,
            seq: 0,
            events_wanted: Events::NONE,
            events: VecDeque::with_capacity(config.event_ring),
            decisions: VecDeque::with_capacity(config.decision_ring),
            published: 0,
            counters: Counters::default(),
            latch: super::latch::at_start(now),
            left_at: Nanos::ZERO,
            agents: 0,
            agent: None,
            ack: None,
            next_pid: 100,
            next_generation: 1,
            exited: None,
            sent_degraded: 0,
            repeated: 0,
            config,
        }
    }

    pub(super) fn all_cpus(&self) -> u64 {
        u64::MAX >> (64 - self.config.nr_cpus)
    }

    pub(super) fn spawn(&mut self, spec: Spec) -> Pid {
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let mut comm = [0; 16];
        let name = &spec.comm.as_bytes()[..spec.comm.len().min(15)];
        comm[..name.len()].copy_from_slice(name);
        let allowed = self.usable(spec.cpus & self.all_cpus());
        let task = Task {
            runnable: false,
            place: Place::Asleep,
            key: (0, 0),
            generation: Generation(0),
            sent: Generation(0),
            weight: spec.weight.clamp(1, 10_000),
            allowed,
            vtime: self.vclock,
            slice: Nanos::ZERO,
            enqueued_at: Nanos::ZERO,
            placed_at: Nanos::ZERO,
            started_at: Nanos::ZERO,
            stopped_at: Nanos::ZERO,
            exec_runtime: Nanos::ZERO,
            total: Nanos::ZERO,
            runs: 0,
            cpu: Cpu(allowed.trailing_zeros()),
            waker: None,
            kthread: spec.kthread,
            tgid: spec.tgid.unwrap_or(pid),
            cgroup_id: spec.cgroup_id,
            label: 0,
            comm,
        };
        self.tasks.insert(pid, task);
        pid
    }

    pub(super) fn fork(&mut self, parent: Pid) -> Option<Pid> {
        let from = self.tasks.get(&parent)?;
        let spec = Spec {
            cpus: from.allowed,
            weight: from.weight,
            kthread: from.kthread,
            tgid: Some(from.tgid),
            cgroup_id: from.cgroup_id,
            ..Spec::default()
        };
        let (label, comm, tgid) = (from.label, from.comm, from.tgid);
        let pid = self.spawn(spec);
        if let Some(task) = self.tasks.get_mut(&pid) {
            (task.label, task.comm) = (label, comm);
        }
        let task = TaskId { pid, generation: Generation(0) };
        self.note(Note::Fork { task, tgid, parent, label });
        Some(pid)
    }

    /// As the core does: not while it has taken over, and not when there is no room.
    fn note(&mut self, note: Note) {
        if !self.events_wanted.contains(note.kind()) || self.latch.mode != super::Mode::Normal {
            return;
        }
        if self.events.len() < self.config.event_ring {
            self.events.push_back(Event::Note(note));
        } else {
            self.counters.notes_dropped += 1;
        }
    }

    fn id(&self, pid: Pid) -> Option<TaskId> {
        self.tasks.get(&pid).map(|t| TaskId { pid, generation: t.generation })
    }

    pub(super) fn set_label(&mut self, pid: Pid, label: u64) -> bool {
        self.tasks.get_mut(&pid).map(|t| t.label = label).is_some()
    }

    pub(super) fn set_cgroup(&mut self, pid: Pid, cgroup_id: u64) -> bool {
        let Some(task) = self.id(pid) else { return false };
        if let Some(t) = self.tasks.get_mut(&pid) {
            t.cgroup_id = cgroup_id;
        }
        self.note(Note::Moved { task, cgroup_id });
        true
    }

    pub(super) fn wake(&mut self, pid: Pid, waker: Option<Pid>) -> bool {
        let Some(task) = self.tasks.get_mut(&pid).filter(|t| !t.runnable) else { return false };
        task.runnable = true;
        task.exec_runtime = Nanos::ZERO;
        task.waker = waker;
        self.enqueue(pid, true);
        true
    }

    pub(super) fn sleep(&mut self, pid: Pid) -> bool {
        let Some(Place::Running(cpu)) = self.tasks.get(&pid).map(|t| t.place) else { return false };
        self.stop(cpu);
        self.tasks.get_mut(&pid).map(|t| t.runnable = false).is_some()
    }

    pub(super) fn slice_end(&mut self, cpu: Cpu) -> bool {
        let Some(pid) = self.stop(cpu) else { return false };
        self.enqueue(pid, false);
        true
    }

    pub(super) fn exit(&mut self, pid: Pid) -> bool {
        let Some(task) = self.tasks.get(&pid) else { return false };
        if task.place == Place::Parked {
            self.counters.ev_dead += 1;
        }
        let generation = task.generation;
        self.dequeue(pid);
        self.tasks.remove(&pid);
        if self.events.len() < self.config.event_ring {
            self.events.push_back(Event::Exit(TaskId { pid, generation }));
        } else {
            self.counters.exit_dropped += 1;
        }
        true
    }

    pub(super) fn set_weight(&mut self, pid: Pid, weight: u32) -> bool {
        let weight = weight.clamp(1, 10_000);
        let Some(task) = self.id(pid) else { return false };
        if let Some(t) = self.tasks.get_mut(&pid) {
            t.weight = weight;
        }
        self.note(Note::Weight { task, weight });
        true
    }

    pub(super) fn set_affinity(&mut self, pid: Pid, cpus: u64) -> bool {
        let cpus = cpus & self.all_cpus();
        if cpus == 0 {
            return false;
        }
        let cpus = self.usable(cpus);
        let Some(task) = self.tasks.get_mut(&pid) else { return false };
        task.allowed = cpus;
        let place = task.place;
        let id = TaskId { pid, generation: task.generation };
        let allowed = Affinity::new(cpus, cpus.count_ones(), self.config.nr_cpus);
        self.note(Note::Affinity { task: id, allowed });
        match place {
            Place::Asleep => {}
            Place::Running(cpu) if cpus >> cpu.0 & 1 == 1 => {}
            Place::Running(cpu) => {
                self.slice_end(cpu);
            }
            // The kernel takes a queued task out of its queue and enqueues it anew.
            _ => {
                if place == Place::Parked {
                    self.counters.ev_cancelled += 1;
                }
                self.dequeue(pid);
                self.enqueue(pid, false);
            }
        }
        true
    }

    /// With all its CPUs gone, a task may run anywhere: so the kernel breaks affinity, too.
    fn usable(&self, cpus: u64) -> u64 {
        let online = |i: &u32| self.cpus[*i as usize].online && cpus >> i & 1 == 1;
        if (0..self.config.nr_cpus).any(|i| online(&i)) { cpus } else { self.all_cpus() }
    }

    pub(super) fn set_online(&mut self, cpu: Cpu, online: bool) -> bool {
        let others = self.cpus.iter().enumerate().filter(|(i, c)| *i != cpu.0 as usize && c.online).count();
        let Some(state) = self.cpus.get_mut(cpu.0 as usize) else { return false };
        if state.online == online || !online && others == 0 {
            return false;
        }
        state.online = online;
        state.idle = online && state.running.is_none();
        if online {
            return true;
        }
        self.slice_end(cpu);
        // What waits for this CPU alone would wait for ever.
        let placed: Vec<_> = self.cpus[cpu.0 as usize].placed.values().copied().collect();
        for pid in placed {
            self.dequeue(pid);
            self.enqueue_core(pid);
        }
        let pids: Vec<_> = self.tasks.keys().copied().collect();
        for pid in pids {
            let allowed = self.tasks[&pid].allowed;
            if self.usable(allowed) != allowed {
                self.set_affinity(pid, self.all_cpus());
            }
        }
        true
    }

    /// The event about a task that is to be parked.
    pub(super) fn event(&self, pid: Pid, wakeup: bool) -> Option<Queued> {
        let t = self.tasks.get(&pid)?;
        let mut task = Queued::new(TaskId { pid, generation: t.generation });
        task.tgid = t.tgid;
        task.cpu = t.cpu;
        task.waker = t.waker.filter(|_| wakeup);
        task.cgroup_id = t.cgroup_id;
        task.label = t.label;
        task.weight = t.weight;
        task.wakeup = wakeup;
        task.kthread = t.kthread;
        // Deterministic, and often enough for a test to see one.
        task.sampled = t.generation.0.is_multiple_of(8);
        task.enqueued_at = t.enqueued_at;
        task.started_at = t.started_at;
        task.stopped_at = t.stopped_at;
        task.exec_runtime = t.exec_runtime;
        task.vtime = t.vtime;
        task.allowed = Affinity::new(t.allowed, t.allowed.count_ones(), self.config.nr_cpus);
        task.enq_flags = u64::from(wakeup);
        task.comm_bytes = t.comm;
        Some(task)
    }
}
