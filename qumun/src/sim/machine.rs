//! A machine that a test moves by hand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::core::Core;
use super::host::Host;
use super::linux::{Linux, Place, Thread};
use super::reference::{MAX_CGROUPS, Reference, Settings};
use super::values::{Config, Counters, Latch, Mode, RawDecision, Reason, Spec};
use crate::cgroups::Told;
use crate::{
    Backend, Cpu, CpuSet, Decision, Epoch, Event, Events, ExitInfo, Full, IdleView, Nanos, Pid, Topology,
};

/// How often the core's timer fires.
pub(super) const TIMER: Nanos = Nanos::from_millis(10);
/// The pid that the first agent has; later ones have smaller ones, and no task has any of them.
const FIRST_AGENT: i32 = -1;
/// In `run`, how often the agent may answer within one moment.
const ROUNDS: u32 = 8;

/// A machine. Clones are handles of the same one.
///
/// It has CPUs and tasks. A test wakes tasks, lets time pass, and gives the agent its turns (or not). The machine parks
/// tasks, sends events, checks decisions, takes over when the agent is late and hands back, by the rules of the
/// [core](Reference). It is deterministic: nothing happens by itself.
///
/// [`check`](Self::check) says whether a rule was broken: a task lost or on two CPUs, affinity ignored, a ledger that
/// does not balance.
///
/// What differs from a kernel: slices end exactly, not at the next clock interrupt; the agent's own thread takes no CPU
/// time; nothing but the end of its slice preempts a task.
#[derive(Clone, Debug)]
pub struct Machine(Rc<World>);

#[derive(Debug)]
struct World {
    host: RefCell<Host<Reference>>,
    config: Config,
    agents: Cell<i32>,
    /// The thread of the agent that greeted last.
    agent: Cell<Option<Thread>>,
    next_timer: Cell<Nanos>,
    exited: RefCell<Option<ExitInfo>>,
}

impl Machine {
    /// A machine with so many CPUs (1..=1024) and otherwise the settings of the real core.
    pub fn new(nr_cpus: u32) -> Self {
        Self::with_config(Config { nr_cpus, ..Config::default() })
    }

    /// A machine with these settings. It starts degraded, as every core does.
    pub fn with_config(mut config: Config) -> Self {
        config.nr_cpus = config.nr_cpus.clamp(1, crate::MAX_CPUS);
        let topology = Topology::flat(config.nr_cpus);
        let mut linux = Linux::new(topology, config.event_ring, config.decision_ring);
        linux.doubles = config.sabotage == super::Sabotage::DoublePlace;
        let settings = Settings {
            slice: config.slice.0,
            slice_min: config.slice_min.0,
            slice_max: config.slice_max.0,
            late: config.late.0,
            ..Settings::default()
        };
        let core = Reference::new(settings).sabotaged(config.sabotage);
        let mut host = Host::new(linux, core);
        for cpu in (0..config.nr_cpus).map(Cpu) {
            host.core.update_idle(&mut host.linux, cpu, true);
        }
        let next_timer = Cell::new(host.linux.now + TIMER);
        Self(Rc::new(World {
            host: RefCell::new(host),
            config,
            agents: Cell::new(0),
            agent: Cell::new(None),
            next_timer,
            exited: RefCell::default(),
        }))
    }

    /// A way in for an agent. Taking it is the agent's greeting: the core expects decisions from it
    /// and no longer from an agent before it. Dropping it is the agent's death.
    pub fn backend(&self) -> Port {
        self.0.agents.set(self.0.agents.get() + 1);
        let agent = Pid(FIRST_AGENT + 1 - self.0.agents.get());
        let mut host = self.0.host.borrow_mut();
        let thread = host.spawn_hidden(agent);
        let Host { linux, core, .. } = &mut *host;
        core.acknowledge(Epoch(0));
        core.hello(linux, agent, agent);
        self.0.agent.set(Some(thread));
        let idle = IdleView::new(self.0.config.nr_cpus);
        Port { machine: self.clone(), agent, thread, idle, cgroups: Told::default() }
    }

    /// Makes a task, asleep. [`fork`](Self::fork) makes one that has a parent.
    pub fn spawn(&self, spec: Spec) -> Pid {
        let mut host = self.0.host.borrow_mut();
        let task = host.spawn(&spec, spec.cpus, None);
        host.linux.task(task).pid
    }

    /// Makes a task as another one would: with its affinity, weight, cgroup, thread group and label, asleep.
    /// `None` if there is no such parent.
    pub fn fork(&self, parent: Pid) -> Option<Pid> {
        let mut host = self.0.host.borrow_mut();
        let from = host.linux.find(parent)?;
        let p = host.linux.task(from).clone();
        let spec = Spec {
            cpus: host.linux.allowed(from),
            weight: p.weight,
            kthread: p.kthread,
            tgid: Some(p.tgid),
            cgroup_id: p.cgroup_id,
            ..Spec::default()
        };
        let task = host.spawn(&spec, spec.cpus, Some(from));
        host.linux.task_mut(task).comm = p.comm;
        Some(host.linux.task(task).pid)
    }

    /// With a task, if there is one of this number.
    fn with<R>(&self, pid: Pid, what: impl FnOnce(&mut Host<Reference>, Thread) -> R) -> Option<R> {
        let mut host = self.0.host.borrow_mut();
        let task = host.linux.find(pid)?;
        Some(what(&mut host, task))
    }

    /// Sets what the core keeps for a task and its children to come: see [`Queued::label`](crate::Queued::label).
    pub fn set_label(&self, pid: Pid, label: u64) -> bool {
        let set = |host: &mut Host<Reference>, task| host.core.set_label(&mut host.linux, task, label);
        self.with(pid, set).unwrap_or(false)
    }

    /// Moves a task to another cgroup.
    pub fn set_cgroup(&self, pid: Pid, cgroup_id: u64) -> bool {
        self.with(pid, |host, task| host.set_cgroup(task, cgroup_id)).is_some()
    }

    /// Makes a cgroup with a cpu controller. `false`: it is there, or its parent is not; the root is 1.
    pub fn make_cgroup(&self, id: u64, parent: u64, weight: u32) -> bool {
        self.0.host.borrow_mut().make_cgroup(id, parent, weight)
    }

    /// Removes a cgroup in which nothing is. `false` if that is not possible.
    pub fn remove_cgroup(&self, id: u64) -> bool {
        self.0.host.borrow_mut().remove_cgroup(id)
    }

    /// Changes a cgroup's `cpu.weight`. `false` if there is none of this id.
    pub fn set_cgroup_weight(&self, id: u64, weight: u32) -> bool {
        self.0.host.borrow_mut().set_cgroup_weight(id, weight)
    }

    /// Wakes a task that sleeps. `false` if it does not.
    pub fn wake(&self, pid: Pid) -> bool {
        self.with(pid, |host, task| host.wake(task, None)).unwrap_or(false)
    }

    /// Lets one task, which must be on a CPU to count as the waker, wake another.
    pub fn wake_by(&self, pid: Pid, waker: Pid) -> bool {
        let waker = self.0.host.borrow().linux.find(waker);
        self.with(pid, |host, task| host.wake(task, waker)).unwrap_or(false)
    }

    /// Puts a task to sleep that is on a CPU. `false` if it is not on one.
    pub fn sleep(&self, pid: Pid) -> bool {
        self.with(pid, |host, task| match host.linux.task(task).place {
            Place::Running(cpu) => host.sleep(cpu).is_some(),
            _ => false,
        })
        .unwrap_or(false)
    }

    /// Ends a task, whatever it does. `false` if there is none.
    pub fn exit(&self, pid: Pid) -> bool {
        self.with(pid, |host, task| host.exit(task)).is_some()
    }

    /// Changes where a task may run. `false` if there is no such task or none of the CPUs exists.
    pub fn set_affinity(&self, pid: Pid, cpus: CpuSet) -> bool {
        let cpus = cpus & CpuSet::first_n(self.0.config.nr_cpus);
        !cpus.is_empty() && self.with(pid, |host, task| host.set_affinity(task, cpus)).is_some()
    }

    /// Changes the weight of a task, from its next charge on.
    pub fn set_weight(&self, pid: Pid, weight: u32) -> bool {
        self.with(pid, |host, task| host.set_weight(task, weight)).is_some()
    }

    /// Ends the slice of the task on this CPU, before its time. It has to queue again in the next
    /// [`dispatch`](Self::dispatch) there, unless nothing else waits. `false` if the CPU is idle.
    pub fn slice_end(&self, cpu: Cpu) -> bool {
        let mut host = self.0.host.borrow_mut();
        let running = host.linux.cpus.get(cpu.0 as usize).and_then(|rq| rq.running);
        running.map(|task| host.linux.set_slice(task, 0)).is_some()
    }

    /// Takes a CPU away or brings it back. `false` if there is no such CPU or it would be the last.
    pub fn set_online(&self, cpu: Cpu, online: bool) -> bool {
        let mut host = self.0.host.borrow_mut();
        let now = host.linux.online;
        let last = now.single() == Some(cpu);
        if cpu.0 >= self.0.config.nr_cpus || now.contains(cpu) == online || !online && last {
            return false;
        }
        if online {
            host.online(cpu)
        } else {
            host.offline(cpu)
        }
        true
    }

    /// A CPU looks for work if it has none, or if its task's slice has ended: it takes decisions from the ring, then
    /// the next task. Returns the task on the CPU afterwards.
    pub fn dispatch(&self, cpu: Cpu) -> Option<Pid> {
        let mut host = self.0.host.borrow_mut();
        if cpu.0 >= self.0.config.nr_cpus {
            return None;
        }
        let task = host.schedule(cpu);
        // Whoever was asked to look for work does so when the test says so.
        host.take_kicks(|_| {});
        task.map(|task| host.linux.task(task).pid)
    }

    /// Lets time pass. Slices end and timers fire in their order; a CPU whose slice ended looks for
    /// work at once, an idle one only in [`dispatch`](Self::dispatch).
    pub fn advance(&self, time: Nanos) {
        self.pass(time, true);
    }

    fn pass(&self, time: Nanos, busy: bool) {
        let end = self.now() + time;
        while self.now() < end {
            let mut host = self.0.host.borrow_mut();
            let timer = self.0.next_timer.get();
            let now = until_slice_end(&host.linux).map_or(Nanos::MAX, |left| host.linux.now + left);
            let now = now.min(timer).min(end);
            let passed = now.since(host.linux.now).0;
            host.set_now(now);
            let mut ended = Vec::new();
            for cpu in (0..self.0.config.nr_cpus).map(Cpu) {
                if let Some(task) = host.linux.cpus[cpu.0 as usize].running {
                    let left = host.linux.task(task).slice.saturating_sub(passed);
                    host.linux.set_slice(task, left);
                    if left == 0 {
                        ended.push(cpu);
                    }
                }
            }
            if now == timer {
                self.0.next_timer.set(timer + TIMER);
                host.timer(Cpu(0));
                host.take_kicks(|_| {});
            }
            drop(host);
            if busy {
                for cpu in ended {
                    self.dispatch(cpu);
                }
            } else if !ended.is_empty() {
                return;
            }
        }
    }

    /// Lets the machine work for some time. Runnable tasks compute all the time; idle CPUs look for
    /// work whenever something has happened. Before they do, the agent gets a turn, as if it took no
    /// time: after each end of a slice, and at least every millisecond.
    pub fn run<R>(&self, time: Nanos, mut turn: impl FnMut() -> R) {
        let end = self.now() + time;
        while self.now() < end {
            turn();
            self.wake_agent();
            for _ in 0..ROUNDS {
                for cpu in (0..self.0.config.nr_cpus).map(Cpu) {
                    self.work(cpu, &mut turn);
                }
                // Who had to queue again is answered in the same moment, if there is a CPU for it.
                if !self.has_events() || !self.0.host.borrow().linux.cpus.iter().any(|rq| rq.idle) {
                    break;
                }
            }
            self.stop_agent();
            self.pass(Nanos::from_millis(1).min(end - self.now()), false);
        }
    }

    /// A CPU looks for work; if it is the agent that it finds, this is its turn.
    fn work<R>(&self, cpu: Cpu, turn: &mut impl FnMut() -> R) {
        for _ in 0..ROUNDS {
            let running = self.dispatch(cpu);
            if running.is_none_or(|pid| pid.0 > FIRST_AGENT) {
                return;
            }
            turn();
            let mut host = self.0.host.borrow_mut();
            if let Some(agent) = self.0.agent.get() {
                host.linux.set_slice(agent, 0);
            }
        }
        // It was called again and again, and left undone what it was called for.
        self.stop_agent();
        self.dispatch(cpu);
    }

    fn wake_agent(&self) {
        if let Some(agent) = self.0.agent.get() {
            self.0.host.borrow_mut().wake(agent, None);
        }
    }

    /// Outside of [`run`](Self::run) its turns are the test's.
    fn stop_agent(&self) {
        if let Some(agent) = self.0.agent.get() {
            let mut host = self.0.host.borrow_mut();
            host.stop(agent);
            host.linux.woken.clear();
        }
    }

    fn has_events(&self) -> bool {
        !self.0.host.borrow().linux.events.is_empty()
    }

    /// [Dispatches](Self::dispatch) on every CPU.
    pub fn dispatch_all(&self) {
        for cpu in 0..self.0.config.nr_cpus {
            self.dispatch(Cpu(cpu));
        }
    }

    /// Writes any bytes to the decision ring, as a broken agent may. `false` if it is full.
    pub fn send_raw(&self, decision: RawDecision) -> bool {
        let mut host = self.0.host.borrow_mut();
        let sent = host.linux.write_decision(decision);
        host.linux.publish();
        sent
    }

    /// The time now; it begins at one second.
    pub fn now(&self) -> Nanos {
        self.0.host.borrow().linux.now
    }

    /// The task on this CPU.
    pub fn running(&self, cpu: Cpu) -> Option<Pid> {
        let host = self.0.host.borrow();
        let task = host.linux.cpus.get(cpu.0 as usize)?.running?;
        Some(host.linux.task(task).pid)
    }

    /// The tasks that could run and are on no CPU, by their numbers.
    pub fn waiting(&self) -> Vec<Pid> {
        let host = self.0.host.borrow();
        let waits = |place| !matches!(place, Place::Asleep | Place::Running(_));
        let mut pids: Vec<_> = host
            .linux
            .threads()
            .filter(|(_, t)| waits(t.place) && t.pid.0 > FIRST_AGENT)
            .map(|(_, t)| t.pid)
            .collect();
        pids.sort_unstable();
        pids
    }

    /// For how long a task has been on CPUs in all, as of its last stop.
    pub fn run_time(&self, pid: Pid) -> Nanos {
        self.with(pid, |host, task| host.linux.task(task).total).unwrap_or_default()
    }

    /// How often a task was put on a CPU.
    pub fn runs(&self, pid: Pid) -> u64 {
        self.with(pid, |host, task| host.linux.task(task).runs).unwrap_or(0)
    }

    /// The core's counters.
    pub fn counters(&self) -> Counters {
        self.0.host.borrow().core.counters()
    }

    /// Who schedules, and since when.
    pub fn latch(&self) -> Latch {
        self.0.host.borrow().core.latch()
    }

    /// How many events are open: sent, and not ended in any way.
    pub fn outstanding(&self) -> u64 {
        self.0.host.borrow().core.outstanding()
    }

    /// Ends the scheduler, as the kernel may.
    pub fn remove_scheduler(&self, info: ExitInfo) {
        *self.0.exited.borrow_mut() = Some(info);
    }

    /// Have all rules been kept?
    ///
    /// # Errors
    /// The rule that was broken, in words.
    pub fn check(&self) -> Result<(), String> {
        self.0.host.borrow().check()
    }
}

fn until_slice_end(linux: &Linux) -> Option<Nanos> {
    let running = linux.cpus.iter().filter_map(|rq| rq.running);
    running.map(|task| Nanos(linux.task(task).slice)).filter(|left| *left > Nanos::ZERO).min()
}

impl Reference {
    pub(super) fn latch(&self) -> Latch {
        let view = &self.view;
        Latch {
            mode: match (view.kernel, view.normal) {
                (true, _) => Mode::Kernel,
                (_, true) => Mode::Normal,
                _ => Mode::Degraded,
            },
            epoch: Epoch(view.epoch),
            reason: [Reason::Start, Reason::Late, Reason::Exit, Reason::Hello, Reason::Mode][view.reason],
            since: Nanos(view.degraded_since),
            dwell: Nanos(view.dwell),
            entered: view.entered[1..].iter().sum(),
            left: view.left,
        }
    }
}

/// An agent's way into a [`Machine`].
#[derive(Debug)]
pub struct Port {
    machine: Machine,
    agent: Pid,
    thread: Thread,
    idle: IdleView,
    cgroups: Told,
}

impl Port {
    /// The machine at the other end.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn host(&self) -> std::cell::RefMut<'_, Host<Reference>> {
        self.machine.0.host.borrow_mut()
    }
}

impl Backend for Port {
    fn subscribe(&mut self, events: Events) {
        self.host().core.subscribe(events);
        self.cgroups.begin(if events.contains(Events::CGROUPS) { MAX_CGROUPS } else { 0 });
    }

    fn epoch(&self) -> Epoch {
        self.host().core.epoch()
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        let mut host = self.host();
        if host.core.agent() == Some(self.agent) {
            host.core.acknowledge(epoch);
        }
    }

    fn refresh(&mut self) {
        let idle = self.host().core.idle();
        for (index, &word) in idle.words().iter().enumerate() {
            self.idle.set_word(index, word);
        }
    }

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn now(&self) -> Nanos {
        self.machine.now()
    }

    fn receive(&mut self) -> Option<Event> {
        let mut host = self.machine.0.host.borrow_mut();
        let note = self.cgroups.next(host.core.cgroup_changes(), &host.core);
        note.map(Event::Note).or_else(|| host.receive())
    }

    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        let mut host = self.host();
        let raw = RawDecision::from(decision).marked(host.core.mark(decision.id().pid));
        if host.linux.write_decision(raw) { Ok(()) } else { Err(Full(*decision)) }
    }

    fn revoke(&mut self, task: Option<Pid>) {
        self.host().core.revoke(task);
    }

    fn publish(&mut self) {
        self.host().linux.publish();
    }

    fn rest(&mut self, _idle_turn: bool) {}

    fn exited(&mut self) -> Option<ExitInfo> {
        self.machine.0.exited.borrow().clone()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.host().exit(self.thread);
        if self.machine.0.agent.get() == Some(self.thread) {
            self.machine.0.agent.set(None);
        }
    }
}
