//! The little of Linux that a core meets: tasks, run queues, dispatch queues (DSQs), the two rings, and the functions
//! that a BPF scheduler may call. What Linux does with a core is in `host.rs`.
//!
//! Sources: `kernel/sched/ext.c` and `kernel/sched/ext_idle.c` of Linux 6.12 to 7.3, as described in
//! `Documentation/scheduler/sched-ext.rst`.

mod idle;
mod queue;

use std::collections::{BTreeMap, VecDeque};

pub use queue::{Dsq, Iter};

use super::values::{RawDecision, Spec};
use crate::{Affinity, Cpu, CpuSet, Event, Nanos, Pid, Topology};
use queue::{Key, Queues};

/// A task of this machine: its place in a table. Used again once the task is gone, unlike its [`Pid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread(pub(crate) u32);

impl Thread {
    /// The thread at this place of the table.
    pub const fn at(index: usize) -> Self {
        Self(index as u32)
    }

    /// Its place in the table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// `cpu.max` of a cgroup. Times in microseconds, as the kernel tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// CPU time in each period; 0 for no limit.
    pub quota_us: u64,
    /// The period.
    pub period_us: u64,
    /// How much of what was not used may be used later.
    pub burst_us: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { quota_us: 0, period_us: 0, burst_us: 0 };

    /// So much CPU time, of all CPUs together, in each period.
    pub const fn new(quota: Nanos, period: Nanos) -> Self {
        Self { quota_us: quota.0 / 1_000, period_us: period.0 / 1_000, burst_us: 0 }
    }

    /// As the core's table has it: all or nothing.
    pub(crate) fn shown(self) -> [u64; 3] {
        let Self { quota_us, period_us, burst_us } = self;
        if quota_us == 0 || period_us == 0 { [0; 3] } else { [quota_us, period_us, burst_us] }
    }
}

/// A cgroup that has a cpu controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The cgroup that it is in; 0 for the root.
    pub parent: u64,
    /// `cpu.weight`: 1..10000.
    pub weight: u32,
    /// `cpu.max`.
    pub limit: Limit,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It does not want to run.
    Asleep,
    /// `enqueue` was called for it, and where it goes is not carried out yet.
    Between,
    /// It waits in a queue.
    Queue(Dsq),
    /// It is on a CPU.
    Running(Cpu),
}

/// What the kernel knows of a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// Its number.
    pub pid: Pid,
    /// Its process.
    pub tgid: Pid,
    /// Its name, and a zero.
    pub comm: [u8; 16],
    /// Is it a kernel thread?
    pub kthread: bool,
    /// When it was made.
    pub born: Nanos,
    /// When the first thread of its process was made.
    pub process_born: Nanos,
    /// 1..10000; 100 is nice 0.
    pub weight: u32,
    /// The cgroup it is in.
    pub cgroup_id: u64,
    /// What is left of its slice, in ns.
    pub slice: u64,
    /// Its place in queues that are ordered by virtual time.
    pub vtime: u64,
    /// The CPU that it is on or was on last.
    pub cpu: Cpu,
    /// Where it is.
    pub place: Place,
    /// It wants to run.
    pub runnable: bool,
    /// When it was put on a CPU last.
    pub started_at: Nanos,
    /// How long it was on CPUs in all, as of its last stop.
    pub total: Nanos,
    /// How often it was put on one.
    pub runs: u64,
    pub(crate) allowed: Option<Box<CpuSet>>,
    pub(crate) nr_allowed: u32,
    pub(crate) key: Key,
    /// As of when it is in its queue: an iterator does not see what came after it was made.
    pub(crate) since: u64,
    pub(crate) alive: bool,
}

impl Task {
    /// May it run there?
    pub fn may_run(&self, cpu: Cpu) -> bool {
        self.allowed.as_ref().is_none_or(|set| set.contains(cpu))
    }

    /// On how many CPUs it may run.
    pub fn nr_allowed(&self) -> u32 {
        self.nr_allowed
    }
}

/// Where an `enqueue` or a `select_cpu` wants a task to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insert {
    pub(crate) task: Thread,
    pub(crate) dsq: Dsq,
    pub(crate) slice: u64,
    pub(crate) vtime: u64,
    /// Before all others of a local queue, and now.
    pub(crate) preempt: bool,
}

/// One CPU.
#[derive(Debug)]
pub(crate) struct RunQueue {
    pub(crate) running: Option<Thread>,
    pub(crate) local: VecDeque<Thread>,
    pub(crate) online: bool,
    /// It looked for work and found none.
    pub(crate) idle: bool,
}

/// The kernel's state: tasks, run queues, dispatch queues (DSQs), the two rings, and the functions that a BPF scheduler
/// may call. What is done with them is [`Host`](super::Host)'s.
#[derive(Debug)]
pub struct Linux {
    pub(crate) now: Nanos,
    /// Where the code that runs now runs, and the task there.
    pub(crate) this_cpu: Cpu,
    pub(crate) current: Option<Thread>,
    pub(crate) tasks: Vec<Task>,
    free: Vec<u32>,
    /// By pid less the first one.
    pids: Vec<u32>,
    pub(crate) cpus: Vec<RunQueue>,
    queues: Queues,
    /// The kernel's own mask of idle CPUs.
    idle: CpuSet,
    pub(crate) online: CpuSet,
    pub(crate) topology: Topology,
    /// By id. The root is 1.
    pub(crate) cgroups: BTreeMap<u64, Cgroup>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) event_room: usize,
    pub(crate) decisions: VecDeque<RawDecision>,
    pub(crate) decision_room: usize,
    /// How many of the decisions the core can see.
    pub(crate) published: usize,
    pub(crate) pending: Option<Insert>,
    /// What the core has asked for, until the driver has seen to it: a CPU and `SCX_KICK_*`.
    pub(crate) kicks: Vec<(Cpu, u64)>,
    /// When the core's second timer fires (`bpf_timer_start`); it is off unless the core asks for it.
    pub(crate) alarm: Option<u64>,
    /// CPUs that got something to run in their local queue.
    pub(crate) woken: Vec<Cpu>,
    /// Tasks that dispatch has moved since it began.
    pub(crate) moved: u32,
    /// Why the kernel has removed the scheduler.
    pub(crate) ejected: Option<String>,
    /// Where the clock interrupt finds tasks, and from where they go to sleep: in the kernel, where they may hold what
    /// others wait for, or in user space.
    pub in_kernel: bool,
    /// Another CPU is reading decisions: whoever wants to is told `EBUSY`.
    pub ring_busy: bool,
    /// A move leaves the task where it was, too.
    pub(crate) doubles: bool,
    next_seq: u64,
    next_pid: i32,
}

const FIRST_PID: i32 = 100;
/// The id of the root cgroup, as in the kernel.
pub(crate) const ROOT: u64 = 1;
const NOBODY: u32 = u32::MAX;

impl Linux {
    /// A machine with no task, all of whose CPUs are online, and rings for so many records.
    pub fn new(topology: Topology, event_room: usize, decision_room: usize) -> Self {
        let nr = topology.nr_cpus();
        let all = CpuSet::first_n(nr);
        let cpu = |_| RunQueue { running: None, local: VecDeque::new(), online: true, idle: true };
        Self {
            now: Nanos::from_millis(1_000),
            this_cpu: Cpu(0),
            current: None,
            tasks: Vec::new(),
            free: Vec::new(),
            pids: Vec::new(),
            cpus: (0..nr).map(cpu).collect(),
            queues: Queues::new(nr),
            idle: all,
            online: all,
            topology,
            cgroups: BTreeMap::from([(ROOT, Cgroup { parent: 0, weight: 100, limit: Limit::NONE })]),
            events: VecDeque::with_capacity(event_room.min(1 << 16)),
            event_room,
            decisions: VecDeque::with_capacity(decision_room.min(1 << 16)),
            decision_room,
            published: 0,
            pending: None,
            kicks: Vec::new(),
            alarm: None,
            woken: Vec::new(),
            moved: 0,
            ejected: None,
            in_kernel: false,
            ring_busy: false,
            doubles: false,
            next_seq: 1,
            next_pid: FIRST_PID,
        }
    }

    /// The clock, in ns (`bpf_ktime_get_ns`).
    pub fn now(&self) -> u64 {
        self.now.0
    }

    /// The CPU that the core is called on (`bpf_get_smp_processor_id`).
    pub fn this_cpu(&self) -> Cpu {
        self.this_cpu
    }

    /// The task in whose place the core is called (`bpf_get_current_task_btf`); `None` for the idle task and in
    /// interrupts.
    pub fn current(&self) -> Option<Thread> {
        self.current
    }

    /// The CPUs that may be used.
    pub fn online(&self) -> &CpuSet {
        &self.online
    }

    /// How many CPU numbers there are.
    pub fn nr_cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// What is known of a task.
    pub fn task(&self, task: Thread) -> &Task {
        &self.tasks[task.0 as usize]
    }

    pub(crate) fn task_mut(&mut self, task: Thread) -> &mut Task {
        &mut self.tasks[task.0 as usize]
    }

    /// The task of this number (`bpf_task_from_pid`).
    pub fn find(&self, pid: Pid) -> Option<Thread> {
        let at = usize::try_from(pid.0.checked_sub(FIRST_PID)?).ok()?;
        self.pids.get(at).copied().filter(|&slot| slot != NOBODY).map(Thread)
    }

    /// All tasks.
    pub fn threads(&self) -> impl Iterator<Item = (Thread, &Task)> {
        self.tasks.iter().zip(0..).filter(|(task, _)| task.alive).map(|(task, slot)| (Thread(slot), task))
    }

    /// Where a task may run, as an event tells it.
    pub fn affinity(&self, task: Thread) -> Affinity {
        let task = self.task(task);
        let low =
            task.allowed.as_ref().map_or(CpuSet::first_n(self.nr_cpus()).words()[0], |set| set.words()[0]);
        Affinity::new(low, task.nr_allowed, self.nr_cpus())
    }

    /// A cgroup that has a cpu controller.
    pub fn cgroup(&self, id: u64) -> Option<&Cgroup> {
        self.cgroups.get(&id)
    }

    pub(crate) fn eject(&mut self, why: String) {
        self.ejected.get_or_insert(why);
    }
}

/// Tasks come, change and go.
impl Linux {
    /// Gives a task another name.
    pub(crate) fn rename(&mut self, task: Thread, name: &str) {
        self.task_mut(task).comm = comm_of(name);
    }

    /// How many tasks there are.
    pub(crate) fn nr_tasks(&self) -> usize {
        self.tasks.len() - self.free.len()
    }

    pub(crate) fn make_task(&mut self, spec: &Spec, allowed: CpuSet) -> Thread {
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let leader = spec.tgid.and_then(|tgid| self.find(tgid));
        let process_born = leader.map_or(self.now, |leader| self.task(leader).born);
        let task = Task {
            pid,
            tgid: spec.tgid.unwrap_or(pid),
            comm: comm_of(spec.comm),
            kthread: spec.kthread,
            born: self.now,
            process_born,
            weight: spec.weight.clamp(1, 10_000),
            cgroup_id: spec.cgroup_id,
            slice: 0,
            vtime: 0,
            cpu: allowed.first_in(&self.online).or(allowed.first()).unwrap_or_default(),
            place: Place::Asleep,
            runnable: false,
            started_at: Nanos::ZERO,
            total: Nanos::ZERO,
            runs: 0,
            allowed: None,
            nr_allowed: 0,
            key: (0, 0),
            since: 0,
            alive: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.tasks[slot as usize] = task;
                slot
            }
            None => {
                self.tasks.push(task);
                self.tasks.len() as u32 - 1
            }
        };
        self.pids.push(slot);
        self.allow(Thread(slot), allowed);
        Thread(slot)
    }

    pub(crate) fn allow(&mut self, task: Thread, allowed: CpuSet) {
        let all = CpuSet::first_n(self.nr_cpus());
        let allowed = allowed & all;
        let task = self.task_mut(task);
        task.nr_allowed = allowed.len();
        task.allowed = (allowed != all).then(|| Box::new(allowed));
    }

    /// Gives a task a number that is not in the table; the one it had is free again.
    pub(crate) fn hide(&mut self, task: Thread, pid: Pid) {
        self.pids.pop();
        self.next_pid -= 1;
        let t = self.task_mut(task);
        (t.pid, t.tgid) = (pid, pid);
    }

    pub(crate) fn free_task(&mut self, task: Thread) {
        let pid = self.task(task).pid;
        self.task_mut(task).alive = false;
        if let Some(slot) =
            usize::try_from(pid.0.wrapping_sub(FIRST_PID)).ok().and_then(|at| self.pids.get_mut(at))
        {
            *slot = NOBODY;
        }
        self.free.push(task.0);
    }

    /// With all its CPUs gone, a task may run anywhere: so the kernel breaks affinity, too.
    pub(crate) fn usable(&self, allowed: CpuSet) -> CpuSet {
        if allowed.intersects(&self.online) { allowed } else { CpuSet::first_n(self.nr_cpus()) }
    }
}

/// The rings.
impl Linux {
    /// Is there room for one more event?
    pub fn has_event_room(&self) -> bool {
        self.events.len() < self.event_room
    }

    /// How many events may be unread.
    pub fn event_room(&self) -> usize {
        self.event_room
    }

    /// The decisions that the core can see.
    pub fn published(&self) -> impl ExactSizeIterator<Item = &RawDecision> {
        self.decisions.iter().take(self.published)
    }

    /// Writes an event (`bpf_ringbuf_submit`); there must be [room](Self::has_event_room).
    pub fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The events that the agent has not read.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// CPUs that were asked to look for work, and how (`SCX_KICK_*`), in the order of the calls.
    pub fn kicks(&self) -> &[(Cpu, u64)] {
        &self.kicks
    }

    /// Starts the core's second timer, or starts it anew: it fires when so many ns have passed.
    pub fn set_alarm(&mut self, after: u64) {
        self.alarm = Some(self.now.0.saturating_add(after));
    }

    /// When that timer fires, if it is on.
    pub fn alarm(&self) -> Option<u64> {
        self.alarm
    }

    /// How many decisions the core has not taken, published or not.
    pub fn decisions_left(&self) -> usize {
        self.decisions.len()
    }

    /// Why the kernel has removed the scheduler, if it has.
    pub fn ejected(&self) -> Option<&str> {
        self.ejected.as_deref()
    }

    /// The task on this CPU.
    pub fn running(&self, cpu: Cpu) -> Option<Thread> {
        self.cpus[cpu.0 as usize].running
    }

    /// How many events the agent has not read (`bpf_ringbuf_query`).
    pub fn pending_events(&self) -> usize {
        self.events.len()
    }

    /// The next decision that the agent has published (`bpf_user_ringbuf_drain`).
    pub fn next_decision(&mut self) -> Option<RawDecision> {
        self.published = self.published.checked_sub(1)?;
        self.decisions.pop_front()
    }

    /// Writes a decision as user space does, any bytes. `false`: there is no room.
    pub fn write_decision(&mut self, decision: RawDecision) -> bool {
        let room = self.decisions.len() < self.decision_room;
        if room {
            self.decisions.push_back(decision);
        }
        room
    }

    /// Shows the core everything written so far.
    pub fn publish(&mut self) {
        self.published = self.decisions.len();
    }
}

/// The first 15 bytes, and a zero.
fn comm_of(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let name = &name.as_bytes()[..name.len().min(15)];
    comm[..name.len()].copy_from_slice(name);
    comm
}
