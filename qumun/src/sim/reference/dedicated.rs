//! A CPU for the agent alone, on which its thread polls and never sleeps. See `dedicated.h`.

use super::state::{AGENT_SLICE, RESCUE_EVERY, Reference};
use crate::sim::core::{KICK_IDLE, KICK_PREEMPT};
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::{Cpu, CpuSet};

impl Reference {
    /// The CPU that the agent has for itself now. While the core decides it has none.
    pub(in crate::sim) fn own_cpu(&self) -> Option<Cpu> {
        let own = self.view.dedicated.filter(|_| self.settings.dedicated.is_some());
        own.filter(|_| self.view.normal)
    }

    pub(super) fn is_dedicated(&self) -> bool {
        self.own_cpu().is_some()
    }

    pub(super) fn agent_owns(&self, cpu: Cpu) -> bool {
        self.own_cpu() == Some(cpu)
    }

    /// May a task be sent here that may run elsewhere, too?
    pub(super) fn cpu_open(&self, cpu: Cpu) -> bool {
        self.cpu_usable(cpu) && !self.agent_owns(cpu)
    }

    /// A new agent greets from this CPU.
    pub(super) fn take_for_agent(&mut self, cpu: Cpu) {
        self.view.dedicated =
            Some(cpu).filter(|&cpu| self.settings.dedicated == Some(cpu) && self.cpu_usable(cpu));
    }

    /// The agent's thread wants to run. `true`: on its own CPU.
    pub(super) fn agent_at_home(&mut self, cpu: Cpu) -> bool {
        if self.view.dedicated != Some(cpu) {
            self.view.dedicated = None;
        }
        self.agent_owns(cpu)
    }

    /// Were decisions published that nobody has taken?
    pub(super) fn decisions_wait(&self, linux: &Linux) -> bool {
        linux.published().len() > 0
    }

    /// Tasks about which no agent is ever asked, wherever they may run.
    pub(super) fn never_asked(&self, linux: &Linux, task: Thread) -> bool {
        let t = linux.task(task);
        let of_agent = t.tgid.0 == self.view.agent_tgid && self.view.agent_tgid != 0;
        self.ctx(task).reclaim || of_agent || self.settings.early_kthreads && t.kthread
    }

    /// What runs on the agent's own CPU beside it.
    fn take_own(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) -> bool {
        self.cpu_mut(cpu).next_n = 0;
        if self.take_pinned(linux, cpu) || self.take_placed(linux, cpu) {
            return true;
        }
        if now.wrapping_sub(self.cpu(cpu).rescued_at) <= RESCUE_EVERY {
            return false;
        }
        self.cpu_mut(cpu).rescued_at = now;
        self.rescue_queued(linux, Dsq::Shared, cpu, now) || self.rescue_queued(linux, Dsq::Core, cpu, now)
    }

    /// The agent's own CPU wants work.
    pub(super) fn dispatch_own(&mut self, linux: &mut Linux, cpu: Cpu, prev: Option<Thread>, now: u64) {
        let is_agent = prev.is_some_and(|prev| self.is_agent(linux, prev));
        let taken = self.counters.dec_drained;
        if self.own_taken == Some(taken) && self.decisions_wait(linux) {
            self.take_decisions(linux, cpu, now, false);
        }
        self.own_taken = Some(taken);
        if !is_agent && self.agent_queued && linux.move_to_local(Dsq::Agent) {
            self.agent_taken(linux);
            return;
        }
        if self.take_own(linux, cpu, now) {
            return;
        }
        match prev {
            Some(prev) if is_agent => {
                (self.agent_ran_at, self.view.agent_ran_at) = (now, now);
                linux.set_slice(prev, AGENT_SLICE);
            }
            Some(prev) if !self.runs_dry(linux, prev, now) => {
                self.counters.kept += 1;
                linux.set_slice(prev, self.settings.slice_min);
            }
            _ => {}
        }
    }

    /// The agent waits for its own CPU, which is idle.
    pub(super) fn wake_own(&mut self, linux: &mut Linux) {
        let Some(cpu) = self.own_cpu() else { return };
        if self.agent_queued && self.cpu_is_idle(cpu) && self.cpu_usable(cpu) && self.may_kick(linux) {
            self.counters.kicks += 1;
            linux.kick(cpu, KICK_IDLE);
        }
    }

    /// A task has woken up and its CPU is busy: that CPU is there for the answer.
    pub(super) fn make_way(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) {
        if self.any_idle() || !self.cpu_open(cpu) || self.cpu(cpu).given {
            return;
        }
        if self.may_kick(linux) && self.may_cut(cpu, now) {
            self.cpu_mut(cpu).called = true;
            self.counters.preempts += 1;
            linux.kick(cpu, KICK_PREEMPT);
        }
    }

    /// Has a task that wants to go on to be asked about first? If others wait on any CPU, as the agent's turns come to all CPUs
    /// elsewhere. `called`: its slice was cut for another one, about which the
    /// agent is asked now; `waits`: others wait for the same CPU.
    pub(super) fn asks_first(
        &mut self,
        linux: &Linux,
        prev: Thread,
        cpu: Cpu,
        called: bool,
        waits: bool,
    ) -> bool {
        let now = linux.now();
        self.is_dedicated()
            && self.agent_cpu.is_some()
            && (called || waits || now.wrapping_sub(self.waited_at) < 2 * self.settings.slice)
            && !self.cpu(cpu).pinned
            && !self.core_waits(linux, now)
            && !self.runs_dry(linux, prev, now)
            && !self.never_asked(linux, prev)
    }

    /// The agent has decided on a task whose CPU may wait for that.
    pub(super) fn answered(&mut self, linux: &mut Linux, cpu: Cpu) {
        if self.is_dedicated() && std::mem::take(&mut self.cpu_mut(cpu).asked) {
            self.kick_if_idle(linux, cpu);
        }
    }

    /// The agent wakes those of these CPUs that are idle.
    pub(super) fn wake_cpus(&mut self, linux: &mut Linux, cpus: CpuSet) -> u32 {
        let asleep = cpus & self.view.idle;
        asleep.iter().filter(|&cpu| self.kick_if_idle(linux, cpu)).count() as u32
    }
}
