//! How the agent gets a CPU when it is wanted. See `activation.h`.

use super::state::{PREEMPT_BURST, Reference, before};
use crate::Cpu;
use crate::sim::linux::Linux;
use crate::sim::values::Sabotage;

impl Reference {
    /// Asks an idle CPU to look for work, if there is one: the agent's last one, then this one, then any.
    fn kick_any_idle(&mut self, linux: &mut Linux, cpu: Option<Cpu>) -> bool {
        let first = [self.agent_last_cpu, cpu];
        if first.into_iter().flatten().any(|cpu| self.kick_if_idle(linux, cpu)) {
            return true;
        }
        // One CPU of each word: more would be a search.
        (0..linux.nr_cpus().div_ceil(64)).any(|word| {
            let bits = self.view.idle.words()[word as usize];
            bits != 0 && self.kick_if_idle(linux, Cpu(word * 64 + bits.trailing_zeros()))
        })
    }

    fn start_alarm(&mut self, linux: &mut Linux, after: u64) {
        if !std::mem::replace(&mut self.alarm, true) {
            linux.set_alarm(after);
        }
    }

    /// An event was sent now, and no CPU was got for the agent. Only the oldest counts.
    fn await_agent(&mut self, linux: &mut Linux, now: u64) {
        if self.settings.preempt_after == 0 || self.called_at != 0 {
            return;
        }
        self.called_at = now;
        self.start_alarm(linux, self.settings.preempt_after);
    }

    /// Gets a CPU for the agent: an idle one if there is one, else this one, if it cuts the slice there.
    pub(super) fn call_agent(&mut self, linux: &mut Linux, cpu: Cpu, now: u64, cuts: bool) {
        if self.agent_cpu.is_some() || !self.agent_queued {
            return;
        }
        if self.kick_any_idle(linux, Some(cpu)) {
            return;
        }
        let paid = if before(self.preempt_at, now) { now } else { self.preempt_at };
        if cuts
            && paid - now <= (PREEMPT_BURST - 1) * self.settings.preempt
            && self.cpu_usable(cpu)
            && self.may_kick(linux)
        {
            self.preempt_at = paid + self.settings.preempt;
            return self.kick_busy(linux, cpu);
        }
        self.await_agent(linux, now);
    }

    /// Ends the slice of the task that runs there, unless that is none of ours, or one that was put first.
    fn make_room(&mut self, linux: &mut Linux, cpu: Cpu) -> bool {
        let can = self.cpu_usable(cpu) && self.cpu(cpu).running && !self.cpu(cpu).given;
        if can {
            self.kick_busy(linux, cpu);
        }
        can
    }

    /// The same on one CPU: the agent's last one, else the first that can.
    fn make_room_anywhere(&mut self, linux: &mut Linux) -> bool {
        if !self.may_kick(linux) {
            return false;
        }
        let all = (0..linux.nr_cpus()).map(Cpu);
        self.agent_last_cpu.into_iter().chain(all).any(|cpu| self.make_room(linux, cpu))
    }

    /// An event that is younger has its time still to come: it was sent after the agent's turn.
    pub(super) fn alarm_rings(&mut self, linux: &mut Linux) {
        let now = linux.now();
        self.alarm = false;
        if self.called_at == 0 {
            return;
        }
        let due = self.called_at.wrapping_add(self.settings.preempt_after);
        if before(now, due) {
            return self.start_alarm(linux, due.wrapping_sub(now));
        }
        self.called_at = 0;
        let waits = self.agent_cpu.is_none() && self.agent_queued && linux.pending_events() > 0;
        if !self.view.normal || self.is_dedicated() || !waits || self.sabotage == Sabotage::DeafAlarm {
            return;
        }
        if !self.kick_any_idle(linux, None) && !self.make_room_anywhere(linux) {
            self.await_agent(linux, now);
        }
    }
}
