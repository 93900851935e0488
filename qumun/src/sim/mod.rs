//! A model of the core, in this process: the same rules of custody, a clock that a test moves, no
//! kernel.
//!
//! A [`Machine`] has CPUs and tasks. A test wakes tasks, lets time pass, and gives the agent its turns
//! (or not). The machine parks tasks, sends events, checks decisions, takes over when the agent is
//! late and hands back, as the BPF core does. It is deterministic: nothing happens by itself.
//!
//! [`Machine::check`] says whether a rule was broken: a task lost or on two CPUs, affinity ignored,
//! a ledger that does not balance.
//!
//! What differs from a kernel: CPU numbers are below 64; virtual times are compared as plain numbers
//! (the kernel's comparison wraps around); a task is preempted only when its slice ends or the test
//! says so, and is offered to the agent again also when it is alone; the agent's own thread takes no
//! CPU time; a decision is never too early.

mod check;
mod core;
mod custody;
mod host;
mod latch;
mod linux;
mod model;
mod reference;
mod script;
mod values;

use std::cell::RefCell;
use std::rc::Rc;

use crate::{Backend, Cpu, Decision, Epoch, Event, Events, ExitInfo, Full, IdleView, Nanos, Pid};
pub use core::{Core, ENQ_LAST, ENQ_WAKEUP, KICK_IDLE, KICK_PREEMPT};
pub use host::Host;
pub use linux::{Dsq, Iter, Linux, Place, Task, Thread};
use model::Model;
pub use reference::{Reference, Settings};
pub use script::Script;
pub use values::{Config, Counters, Latch, Mode, RawDecision, Reason, Sabotage, Spec};

/// A machine. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Machine(Rc<RefCell<Model>>);

impl Machine {
    /// A machine with so many CPUs (1..=64) and otherwise the settings of the real core.
    pub fn new(nr_cpus: u32) -> Self {
        Self::with_config(Config { nr_cpus, ..Config::default() })
    }

    /// A machine with these settings. It starts degraded, as every core does.
    pub fn with_config(config: Config) -> Self {
        Self(Rc::new(RefCell::new(Model::new(config))))
    }

    /// A way in for an agent. Taking it is the agent's greeting: the core expects decisions from it
    /// and no longer from an agent before it. Dropping it is the agent's death.
    pub fn backend(&self) -> Port {
        let mut model = self.0.borrow_mut();
        let agent = model.hello();
        Port { machine: self.clone(), agent, idle: IdleView::new(model.config.nr_cpus) }
    }

    /// Makes a task, asleep. [`fork`](Self::fork) makes one that has a parent.
    pub fn spawn(&self, spec: Spec) -> Pid {
        self.0.borrow_mut().spawn(spec)
    }

    /// Makes a task as another one would: with its affinity, weight, cgroup, thread group and label, asleep.
    /// `None` if there is no such parent.
    pub fn fork(&self, parent: Pid) -> Option<Pid> {
        self.0.borrow_mut().fork(parent)
    }

    /// Sets what the core keeps for a task and its children to come: see [`Queued::label`](crate::Queued::label).
    pub fn set_label(&self, pid: Pid, label: u64) -> bool {
        self.0.borrow_mut().set_label(pid, label)
    }

    /// Moves a task to another cgroup.
    pub fn set_cgroup(&self, pid: Pid, cgroup_id: u64) -> bool {
        self.0.borrow_mut().set_cgroup(pid, cgroup_id)
    }

    /// Wakes a task that sleeps. `false` if it does not.
    pub fn wake(&self, pid: Pid) -> bool {
        self.0.borrow_mut().wake(pid, None)
    }

    /// Lets one task wake another.
    pub fn wake_by(&self, pid: Pid, waker: Pid) -> bool {
        self.0.borrow_mut().wake(pid, Some(waker))
    }

    /// Puts a task to sleep that is on a CPU. `false` if it is not on one.
    pub fn sleep(&self, pid: Pid) -> bool {
        self.0.borrow_mut().sleep(pid)
    }

    /// Ends a task, whatever it does. `false` if there is none.
    pub fn exit(&self, pid: Pid) -> bool {
        self.0.borrow_mut().exit(pid)
    }

    /// Changes where a task may run: one bit a CPU. `false` if there is no such task or no such CPU.
    pub fn set_affinity(&self, pid: Pid, cpus: u64) -> bool {
        self.0.borrow_mut().set_affinity(pid, cpus)
    }

    /// Changes the weight of a task, from its next charge on.
    pub fn set_weight(&self, pid: Pid, weight: u32) -> bool {
        self.0.borrow_mut().set_weight(pid, weight)
    }

    /// Ends the slice of the task on this CPU, before its time: it has to queue again. `false` if the
    /// CPU is idle.
    pub fn slice_end(&self, cpu: Cpu) -> bool {
        self.0.borrow_mut().slice_end(cpu)
    }

    /// Takes a CPU away or brings it back. `false` if there is no such CPU or it would be the last.
    pub fn set_online(&self, cpu: Cpu, online: bool) -> bool {
        self.0.borrow_mut().set_online(cpu, online)
    }

    /// An idle CPU looks for work: it takes decisions from the ring, then the next task. Returns the
    /// task on the CPU afterwards.
    pub fn dispatch(&self, cpu: Cpu) -> Option<Pid> {
        self.0.borrow_mut().dispatch(cpu)
    }

    /// Lets time pass. Slices end and timers fire in their order; a CPU whose slice ended looks for
    /// work at once, an idle one only in [`dispatch`](Self::dispatch).
    pub fn advance(&self, time: Nanos) {
        self.0.borrow_mut().advance(time, true);
    }

    /// Lets the machine work for some time. Runnable tasks compute all the time; idle CPUs look for
    /// work whenever something has happened. Before they do, the agent gets a turn, as if it took no
    /// time: after each end of a slice, and at least every millisecond.
    pub fn run<R>(&self, time: Nanos, mut turn: impl FnMut() -> R) {
        let end = self.now() + time;
        while self.now() < end {
            turn();
            self.dispatch_all();
            let step = Nanos::from_millis(1).min(end - self.now());
            let mut model = self.0.borrow_mut();
            let step = model.until_slice_end().map_or(step, |left| left.min(step));
            model.advance(step, false);
        }
    }

    /// [Dispatches](Self::dispatch) on every CPU.
    pub fn dispatch_all(&self) {
        let nr_cpus = self.0.borrow().config.nr_cpus;
        for cpu in 0..nr_cpus {
            self.dispatch(Cpu(cpu));
        }
    }

    /// Writes any bytes to the decision ring, as a broken agent may. `false` if it is full.
    pub fn send_raw(&self, decision: RawDecision) -> bool {
        self.0.borrow_mut().send_raw(decision)
    }

    /// The time now; it begins at one second.
    pub fn now(&self) -> Nanos {
        self.0.borrow().now
    }

    /// The task on this CPU.
    pub fn running(&self, cpu: Cpu) -> Option<Pid> {
        self.0.borrow().cpus.get(cpu.0 as usize)?.running
    }

    /// The tasks that could run and are on no CPU.
    pub fn waiting(&self) -> Vec<Pid> {
        let model = self.0.borrow();
        let waits = |place| !matches!(place, model::Place::Asleep | model::Place::Running(_));
        model.tasks.iter().filter(|(_, t)| waits(t.place)).map(|(&pid, _)| pid).collect()
    }

    /// For how long a task has been on CPUs in all, as of its last stop.
    pub fn run_time(&self, pid: Pid) -> Nanos {
        self.0.borrow().tasks.get(&pid).map_or(Nanos::ZERO, |t| t.total)
    }

    /// How often a task was put on a CPU.
    pub fn runs(&self, pid: Pid) -> u64 {
        self.0.borrow().tasks.get(&pid).map_or(0, |t| t.runs)
    }

    /// The core's counters.
    pub fn counters(&self) -> Counters {
        self.0.borrow().counters
    }

    /// Who schedules, and since when.
    pub fn latch(&self) -> Latch {
        self.0.borrow().latch
    }

    /// How many events are open: sent, and not ended in any way.
    pub fn outstanding(&self) -> u64 {
        self.0.borrow().outstanding()
    }

    /// Ends the scheduler, as the kernel may.
    pub fn remove_scheduler(&self, info: ExitInfo) {
        self.0.borrow_mut().exited = Some(info);
    }

    /// Have all rules been kept?
    ///
    /// # Errors
    /// The rule that was broken, in words.
    pub fn check(&self) -> Result<(), String> {
        self.0.borrow().check()
    }
}

/// An agent's way into a [`Machine`].
#[derive(Debug)]
pub struct Port {
    machine: Machine,
    agent: u64,
    idle: IdleView,
}

impl Port {
    /// The machine at the other end.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

impl Backend for Port {
    fn subscribe(&mut self, events: Events) {
        self.machine.0.borrow_mut().events_wanted = events;
    }

    fn epoch(&self) -> Epoch {
        self.machine.0.borrow().latch.epoch
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.machine.0.borrow_mut().acknowledge(self.agent, epoch);
    }

    fn refresh(&mut self) {
        let model = self.machine.0.borrow();
        for (i, cpu) in model.cpus.iter().enumerate() {
            self.idle.set(Cpu(i as u32), cpu.idle);
        }
    }

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn now(&self) -> Nanos {
        self.machine.now()
    }

    fn receive(&mut self) -> Option<Event> {
        self.machine.0.borrow_mut().receive()
    }

    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        if self.machine.0.borrow_mut().send(RawDecision::from(decision)) {
            Ok(())
        } else {
            Err(Full(*decision))
        }
    }

    fn publish(&mut self) {
        self.machine.0.borrow_mut().publish();
    }

    fn rest(&mut self, _idle_turn: bool) {}

    fn exited(&mut self) -> Option<ExitInfo> {
        self.machine.0.borrow().exited.clone()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.machine.0.borrow_mut().agent_died(self.agent);
    }
}
