//! What Linux does with a core: wakes, schedules, preempts, changes and ends tasks, and calls the core's operations in
//! the order in which `kernel/sched/ext.c` does.

use super::core::{Core, ENQ_LAST, ENQ_WAKEUP, KICK_PREEMPT};
use super::linux::{Cgroup, Dsq, Limit, Linux, Place, ROOT, Thread};
use super::values::Spec;
use crate::{Cpu, CpuSet, Epoch, Event, Nanos, Pid};

/// The slice that the kernel gives by itself (`SCX_SLICE_DFL`).
const SLICE_DEFAULT: u64 = 20_000_000;
/// How often dispatch is asked again that moved tasks but none that runs here (`SCX_DSP_MAX_LOOPS`).
const DISPATCH_LOOPS: u32 = 32;

/// A kernel and the core that schedules it.
#[derive(Debug)]
pub struct Host<C> {
    /// The kernel's side.
    pub linux: Linux,
    /// The scheduler's.
    pub core: C,
    /// What `enqueue` wants is carried out later, by [`settle`](Self::settle): the moment in which an agent that is
    /// quick answers too early.
    pub late_inserts: bool,
}

impl<C: Core> Host<C> {
    /// A machine under this core, with no task yet.
    pub fn new(mut linux: Linux, mut core: C) -> Self {
        core.init(&mut linux);
        core.cgroup_init(&mut linux, ROOT);
        Self { linux, core, late_inserts: false }
    }

    /// A task comes into being, asleep.
    pub fn spawn(&mut self, spec: &Spec, allowed: CpuSet, parent: Option<Thread>) -> Thread {
        let allowed = self.linux.usable(allowed);
        let task = self.linux.make_task(spec, allowed);
        self.context(None, parent);
        self.core.init_task(&mut self.linux, task, parent);
        self.core.enable(&mut self.linux, task);
        if spec.label != 0 {
            self.core.set_label(&mut self.linux, task, spec.label);
        }
        task
    }

    /// The thread of an agent that lives outside: it has a number that no task has.
    pub(crate) fn spawn_hidden(&mut self, pid: Pid) -> Thread {
        let task = self.spawn(&Spec { comm: "agent", ..Spec::default() }, CpuSet::ALL, None);
        self.linux.hide(task, pid);
        task
    }

    /// A new agent introduces itself from this CPU.
    pub fn hello(&mut self, cpu: Cpu, pid: Pid, tgid: Pid) -> Epoch {
        self.context(Some(cpu), None);
        self.core.hello(&mut self.linux, pid, tgid)
    }

    /// The agent on this CPU wakes those of these CPUs that are idle.
    pub fn wake_cpus(&mut self, cpu: Cpu, cpus: CpuSet) -> u32 {
        self.context(Some(cpu), None);
        self.core.wake(&mut self.linux, cpus)
    }

    /// A task stops wanting to run, wherever it is.
    pub(crate) fn stop(&mut self, task: Thread) {
        self.take_off(task);
    }

    /// A task wakes up; `by` runs where it runs. `false` if it does not sleep.
    pub fn wake(&mut self, task: Thread, by: Option<Thread>) -> bool {
        if self.linux.task(task).runnable {
            return false;
        }
        self.settle();
        let prev = self.linux.task(task).cpu;
        let at = by.and_then(|by| match self.linux.task(by).place {
            Place::Running(cpu) => Some(cpu),
            _ => None,
        });
        self.context(Some(at.unwrap_or(prev)), by.filter(|_| at.is_some()));
        let t = self.linux.task_mut(task);
        t.runnable = true;
        t.place = Place::Between;
        let cpu = if t.nr_allowed > 1 {
            let cpu = self.core.select_cpu(&mut self.linux, task, prev, ENQ_WAKEUP);
            if self.linux.pending.is_some() {
                // Placed by select_cpu itself: enqueue is not called.
                if self.linux.task(task).may_run(cpu) {
                    self.linux.task_mut(task).cpu = cpu;
                }
                self.settle();
                return true;
            }
            cpu
        } else {
            prev
        };
        self.move_to(task, cpu);
        self.enqueue(task, ENQ_WAKEUP);
        true
    }

    /// The kernel's own choice where the core's is not possible.
    fn move_to(&mut self, task: Thread, cpu: Cpu) {
        let fits = |cpu: Cpu| self.linux.task(task).may_run(cpu) && self.linux.online.contains(cpu);
        let cpu = if fits(cpu) {
            cpu
        } else {
            let allowed = self.linux.allowed(task);
            allowed.first_in(&self.linux.online).or(allowed.first()).unwrap_or(cpu)
        };
        self.linux.task_mut(task).cpu = cpu;
    }

    fn enqueue(&mut self, task: Thread, flags: u64) {
        self.settle();
        self.linux.task_mut(task).place = Place::Between;
        self.core.enqueue(&mut self.linux, task, flags);
        if self.linux.pending.is_none() {
            // The kernel would wait for the core to place it; ours always has, by then.
            let words = format!("enqueue forgot pid {}", self.linux.task(task).pid);
            self.linux.eject(words);
        }
        if !self.late_inserts {
            self.settle();
        }
    }

    /// Carries out what the last `enqueue` wanted.
    pub fn settle(&mut self) {
        self.linux.settle();
    }

    /// The same, unless inserts are late.
    fn settle_now(&mut self) {
        if !self.late_inserts {
            self.settle();
        }
    }

    /// The task on this CPU goes to sleep. Somebody must [schedule](Self::schedule) then.
    pub fn sleep(&mut self, cpu: Cpu) -> Option<Thread> {
        self.settle();
        let task = self.linux.cpus[cpu.0 as usize].running.take()?;
        self.leave(task, cpu);
        let t = self.linux.task_mut(task);
        t.place = Place::Asleep;
        t.runnable = false;
        Some(task)
    }

    /// A CPU looks for what to run: the clock interrupt ended a slice, its task sleeps, or it was kicked. Returns the
    /// task that is on it afterwards.
    pub fn schedule(&mut self, cpu: Cpu) -> Option<Thread> {
        self.settle_now();
        let index = cpu.0 as usize;
        let prev = self.linux.cpus[index].running;
        if !self.linux.cpus[index].online {
            return prev;
        }
        self.context(Some(cpu), prev);
        if self.balance(cpu, prev) {
            if let Some(prev) = prev.filter(|&prev| self.linux.task(prev).slice == 0) {
                self.linux.set_slice(prev, SLICE_DEFAULT);
            }
            return prev;
        }
        if let Some(prev) = prev {
            self.put_prev(prev, cpu);
        }
        if self.linux.cpus[index].local.is_empty() {
            self.linux.mark_idle(cpu, true);
            if !self.linux.cpus[index].idle {
                self.linux.cpus[index].idle = true;
                self.core.update_idle(&mut self.linux, cpu, true);
            }
            return None;
        }
        self.run_first(cpu)
    }

    /// Is the task that runs to go on? Otherwise the local queue has what comes next, if there is anything.
    fn balance(&mut self, cpu: Cpu, prev: Option<Thread>) -> bool {
        let index = cpu.0 as usize;
        let has_slice = |linux: &Linux| prev.is_some_and(|prev| linux.task(prev).slice > 0);
        if has_slice(&self.linux) {
            return true;
        }
        for _ in 0..DISPATCH_LOOPS {
            if !self.linux.cpus[index].local.is_empty() {
                return false;
            }
            if self.linux.nr_queued(Dsq::Global) > 0 && self.linux.move_to_local(Dsq::Global) {
                return false;
            }
            self.linux.moved = 0;
            self.core.dispatch(&mut self.linux, cpu, prev);
            if !self.linux.cpus[index].local.is_empty() {
                return false;
            }
            if has_slice(&self.linux) {
                return true;
            }
            if self.linux.moved == 0 {
                break;
            }
        }
        false
    }

    fn put_prev(&mut self, prev: Thread, cpu: Cpu) {
        self.charge(prev);
        self.core.stopping(&mut self.linux, prev, true);
        self.linux.cpus[cpu.0 as usize].running = None;
        if self.linux.task(prev).slice > 0 {
            self.linux.insert_local(prev, cpu, true);
            return;
        }
        let last = self.linux.cpus[cpu.0 as usize].local.is_empty();
        self.enqueue(prev, if last { ENQ_LAST } else { 0 });
    }

    fn run_first(&mut self, cpu: Cpu) -> Option<Thread> {
        let rq = &mut self.linux.cpus[cpu.0 as usize];
        let task = rq.local.pop_front()?;
        let was_idle = std::mem::replace(&mut rq.idle, false);
        rq.running = Some(task);
        self.linux.mark_idle(cpu, false);
        if was_idle {
            self.core.update_idle(&mut self.linux, cpu, false);
        }
        let now = self.linux.now;
        let t = self.linux.task_mut(task);
        t.place = Place::Running(cpu);
        t.cpu = cpu;
        t.started_at = now;
        t.runs += 1;
        if t.slice == 0 {
            t.slice = SLICE_DEFAULT;
        }
        self.core.running(&mut self.linux, task);
        Some(task)
    }

    /// The clock interrupt: what is left of the slice, and the core's own look. `true` if the CPU must
    /// [schedule](Self::schedule).
    pub fn tick(&mut self, cpu: Cpu, left: u64) -> bool {
        self.settle_now();
        let Some(task) = self.linux.cpus[cpu.0 as usize].running else { return false };
        self.linux.set_slice(task, left);
        self.context(Some(cpu), Some(task));
        self.core.tick(&mut self.linux, task);
        self.linux.task(task).slice == 0
    }

    /// The core's timer fires on this CPU.
    pub fn timer(&mut self, cpu: Cpu) {
        self.settle_now();
        let running = self.linux.cpus[cpu.0 as usize].running;
        self.context(Some(cpu), running);
        self.core.timer(&mut self.linux);
    }

    /// The core's second timer fires on this CPU, if it is on.
    pub fn alarm(&mut self, cpu: Cpu) -> bool {
        if self.linux.alarm.take().is_none() {
            return false;
        }
        self.settle_now();
        let running = self.linux.cpus[cpu.0 as usize].running;
        self.context(Some(cpu), running);
        self.core.alarm(&mut self.linux);
        true
    }

    /// What the core has asked for of CPUs: which of them must [schedule](Self::schedule) now.
    pub fn take_kicks(&mut self, mut wants: impl FnMut(Cpu)) {
        while let Some((cpu, flags)) = self.linux.kicks.pop() {
            let rq = &self.linux.cpus[cpu.0 as usize];
            if !rq.online {
                continue;
            }
            if flags & KICK_PREEMPT != 0
                && let Some(task) = rq.running
            {
                self.linux.set_slice(task, 0);
                wants(cpu);
            } else if rq.running.is_none() {
                wants(cpu);
            }
        }
        while let Some(cpu) = self.linux.woken.pop() {
            wants(cpu);
        }
    }

    /// A task ends, whatever it does.
    pub fn exit(&mut self, task: Thread) {
        self.take_off(task);
        self.core.disable(&mut self.linux, task);
        self.core.exit_task(&mut self.linux, task);
        self.linux.free_task(task);
    }

    /// Changes where a task may run. On a CPU that is not allowed any more it does not stay.
    pub fn set_affinity(&mut self, task: Thread, allowed: CpuSet) {
        let allowed = self.linux.usable(allowed);
        self.change(task, |host| {
            host.linux.allow(task, allowed);
            host.core.set_cpumask(&mut host.linux, task);
        });
    }

    /// Changes a task's weight.
    pub fn set_weight(&mut self, task: Thread, weight: u32) {
        self.change(task, |host| {
            host.linux.task_mut(task).weight = weight.clamp(1, 10_000);
            host.core.set_weight(&mut host.linux, task);
        });
    }

    /// Moves a task to another cgroup.
    pub fn set_cgroup(&mut self, task: Thread, cgroup_id: u64) {
        self.change(task, |host| {
            host.linux.task_mut(task).cgroup_id = cgroup_id;
            host.core.cgroup_move(&mut host.linux, task);
        });
    }

    /// A cgroup comes into being. `false`: it is there, or its parent is not.
    pub fn make_cgroup(&mut self, id: u64, parent: u64, weight: u32) -> bool {
        let possible =
            id != 0 && !self.linux.cgroups.contains_key(&id) && self.linux.cgroups.contains_key(&parent);
        if possible {
            self.settle_now();
            self.context(None, None);
            let weight = weight.clamp(1, 10_000);
            self.linux.cgroups.insert(id, Cgroup { parent, weight, limit: Limit::NONE });
            self.core.cgroup_init(&mut self.linux, id);
        }
        possible
    }

    /// Removes a cgroup. `false`: there is none, it is the root, or tasks or other cgroups are in it.
    pub fn remove_cgroup(&mut self, id: u64) -> bool {
        let used = self.linux.threads().any(|(_, t)| t.cgroup_id == id)
            || self.linux.cgroups.values().any(|cgroup| cgroup.parent == id);
        let possible = id != ROOT && !used && self.linux.cgroups.remove(&id).is_some();
        if possible {
            self.settle_now();
            self.context(None, None);
            self.core.cgroup_exit(&mut self.linux, id);
        }
        possible
    }

    /// Changes `cpu.weight`. `false`: there is no such cgroup.
    pub fn set_cgroup_weight(&mut self, id: u64, weight: u32) -> bool {
        let Some(cgroup) = self.linux.cgroups.get_mut(&id) else { return false };
        cgroup.weight = weight.clamp(1, 10_000);
        self.settle_now();
        self.context(None, None);
        self.core.cgroup_set_weight(&mut self.linux, id);
        true
    }

    /// Changes `cpu.max`. `false`: there is no such cgroup, or it is the root, which has none.
    pub fn set_cgroup_limit(&mut self, id: u64, limit: Limit) -> bool {
        let Some(cgroup) = self.linux.cgroups.get_mut(&id).filter(|_| id != ROOT) else { return false };
        cgroup.limit = limit;
        self.settle_now();
        self.context(None, None);
        self.core.cgroup_set_bandwidth(&mut self.linux, id);
        true
    }

    /// As the kernel changes anything about a task: out of its queue, changed, and in again.
    fn change(&mut self, task: Thread, what: impl FnOnce(&mut Self)) {
        self.settle();
        match self.linux.task(task).place {
            Place::Asleep => {
                self.context(None, None);
                what(self);
            }
            Place::Running(cpu) => {
                self.leave(task, cpu);
                what(self);
                if self.linux.task(task).may_run(cpu) {
                    // Straight back, and enqueue is not called for it.
                    self.linux.task_mut(task).started_at = self.linux.now;
                    self.core.running(&mut self.linux, task);
                    return;
                }
                self.linux.cpus[cpu.0 as usize].running = None;
                self.linux.woken.push(cpu);
                self.move_to(task, cpu);
                self.enqueue(task, 0);
            }
            Place::Queue(_) | Place::Between => {
                self.leave_queue(task);
                what(self);
                let cpu = self.linux.task(task).cpu;
                self.move_to(task, cpu);
                self.enqueue(task, 0);
            }
        }
    }

    /// Takes a CPU away. What runs there goes elsewhere, and what may run nowhere else may run anywhere then.
    pub fn offline(&mut self, cpu: Cpu) {
        self.settle();
        self.context(Some(cpu), None);
        self.core.cpu_leaves(&mut self.linux, cpu);
        self.linux.online.remove(cpu);
        let index = cpu.0 as usize;
        if let Some(task) = self.linux.cpus[index].running {
            self.leave(task, cpu);
            self.linux.cpus[index].running = None;
            self.rebind(task, cpu);
        }
        for task in std::mem::take(&mut self.linux.cpus[index].local) {
            self.linux.task_mut(task).place = Place::Between;
            self.rebind(task, cpu);
        }
        let others = CpuSet::first_n(self.linux.nr_cpus()) & self.linux.online;
        self.context(others.first(), None);
        self.core.cpu_offline(&mut self.linux, cpu);
        self.linux.cpus[index].online = false;
        self.linux.cpus[index].idle = false;
        self.linux.mark_idle(cpu, false);
        let stuck: Vec<_> = (self.linux.threads())
            .filter(|(_, t)| t.allowed.as_ref().is_some_and(|set| !set.intersects(&self.linux.online)))
            .map(|(task, _)| task)
            .collect();
        for task in stuck {
            self.set_affinity(task, CpuSet::first_n(self.linux.nr_cpus()));
        }
    }

    fn rebind(&mut self, task: Thread, cpu: Cpu) {
        let allowed = self.linux.allowed(task);
        if !allowed.intersects(&self.linux.online) {
            self.linux.allow(task, self.linux.usable(allowed));
            self.core.set_cpumask(&mut self.linux, task);
        }
        self.move_to(task, cpu);
        self.enqueue(task, 0);
    }

    /// Brings a CPU back.
    pub fn online(&mut self, cpu: Cpu) {
        self.settle();
        self.linux.online.insert(cpu);
        self.linux.cpus[cpu.0 as usize].online = true;
        self.context(Some(cpu), None);
        self.core.cpu_online(&mut self.linux, cpu);
        self.linux.cpus[cpu.0 as usize].idle = true;
        self.linux.mark_idle(cpu, true);
        self.core.update_idle(&mut self.linux, cpu, true);
    }

    fn take_off(&mut self, task: Thread) {
        self.settle();
        match self.linux.task(task).place {
            Place::Asleep => self.context(None, None),
            Place::Running(cpu) => {
                self.leave(task, cpu);
                self.linux.cpus[cpu.0 as usize].running = None;
                self.linux.woken.push(cpu);
            }
            Place::Queue(_) | Place::Between => self.leave_queue(task),
        }
        self.linux.task_mut(task).place = Place::Asleep;
        self.linux.task_mut(task).runnable = false;
    }

    /// The task stops on its CPU because it sleeps or is changed.
    fn leave(&mut self, task: Thread, cpu: Cpu) {
        self.context(Some(cpu), Some(task));
        self.charge(task);
        self.core.stopping(&mut self.linux, task, false);
    }

    fn leave_queue(&mut self, task: Thread) {
        let cpu = self.linux.task(task).cpu;
        self.context(Some(cpu), None);
        self.linux.remove(task);
    }

    fn charge(&mut self, task: Thread) {
        let now = self.linux.now;
        let t = self.linux.task_mut(task);
        t.total = t.total + now.since(t.started_at);
    }

    /// Where what follows happens, and in whose place.
    fn context(&mut self, cpu: Option<Cpu>, current: Option<Thread>) {
        self.linux.this_cpu = cpu.unwrap_or_default();
        self.linux.current = current;
    }

    /// Time passes.
    pub fn set_now(&mut self, now: Nanos) {
        self.linux.now = now;
    }

    /// The next event that the agent reads.
    pub fn receive(&mut self) -> Option<Event> {
        self.linux.events.pop_front()
    }
}
