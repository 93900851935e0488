//! Decisions that hold for several wakeups. See `permit.h`.

use super::sides::AGENT;
use super::state::{CUT_LEAD, Grant, PREEMPT_BURST, REST, Reference, SHARER, before};
use crate::Cpu;
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::sim::values::RawDecision;

pub(super) const CLOCK: u32 = 1 << 16;
pub(super) const CUTS: u32 = 1 << 17;
const MOST: u32 = 1024;
const LONGEST: u64 = 1_000_000_000;

impl Reference {
    pub(super) fn has_permit(&mut self, linux: &Linux, task: Thread, woke: bool, now: u64) -> bool {
        if self.ctx(task).permit.left > 0 && !woke && self.ctx(task).left < REST {
            return false;
        }
        let mark = self.marks.of(linux.task(task).pid);
        let (epoch, weight) = (self.permit_epoch(), linux.task(task).weight);
        let permit = &mut self.ctx_mut(task).permit;
        let holds = permit.left > 0
            && (permit.epoch, permit.mark, permit.weight) == (epoch, mark, weight)
            && before(now, permit.until);
        if !holds {
            permit.left = 0;
        }
        holds
    }

    /// The agreement in which a permit was given, and what cgroups were then.
    fn permit_epoch(&self) -> u32 {
        self.view.epoch.wrapping_add(self.view.cgroup_changes) as u32
    }

    /// As a decision on this task says.
    pub(super) fn grant(&mut self, linux: &Linux, task: Thread, d: &RawDecision, slice: u64, now: u64) {
        let (epoch, weight) = (self.permit_epoch(), linux.task(task).weight);
        let t = self.ctx_mut(task);
        (t.order, t.left) = (d.vtime, slice);
        t.permit.left = d.permit.min(MOST);
        if t.permit.left > 0 {
            t.permit = Grant {
                left: t.permit.left,
                until: now + d.permit_ns.min(LONGEST),
                vtime: d.vtime,
                slice,
                rate: d.rate,
                flags: d.flags,
                mark: d.mark,
                epoch,
                weight,
            };
        }
    }

    /// May a slice be cut here for a task that wakes up?
    pub(super) fn may_cut(&mut self, cpu: Cpu, now: u64) -> bool {
        let cut = self.cpu(cpu).cut_at;
        let paid = if before(cut, now) { now } else { cut };
        if paid - now > (PREEMPT_BURST - 1) * self.settings.preempt {
            return false;
        }
        self.cpu_mut(cpu).cut_at = paid + self.settings.preempt;
        true
    }

    /// To an idle CPU, where its cache is warm or near it, if there is one.
    pub(super) fn insert_idle(
        &mut self,
        linux: &mut Linux,
        task: Thread,
        cpu: Cpu,
        (slice, warm): (u64, bool),
        now: u64,
    ) -> bool {
        if self.cpu_is_idle(cpu) && self.cpu_open(cpu) && linux.claim_idle(cpu) {
            linux.insert(task, Dsq::Own, slice, 0);
            return true;
        }
        if !self.any_idle() {
            return false;
        }
        let near = self.near_cpu(linux, task, cpu, warm, now).filter(|&near| self.cpu_open(near));
        if let Some(near) = near {
            linux.insert(task, Dsq::Local(near), slice, 0);
        }
        near.is_some()
    }

    /// Lets a task in that has woken up, or whose slice was cut short. `alone`: nothing else waits for its CPU, the only one there is.
    pub(super) fn let_in(
        &mut self,
        linux: &mut Linux,
        task: Thread,
        (cpu, alone): (Cpu, bool),
        woke: bool,
        now: u64,
    ) {
        let counter = if woke { &mut self.counters.permitted } else { &mut self.counters.resumed };
        *counter += 1;
        let t = self.ctx_mut(task);
        if woke {
            t.left = t.permit.slice;
        }
        let slice = t.left;
        t.permit.left -= 1;
        t.permitted += 1;
        t.placed_at = now;
        let permit = t.permit;
        t.order = match permit.flags & CLOCK != 0 {
            true => now,
            false => permit.vtime.wrapping_add(t.ran.wrapping_mul(permit.rate.into()) >> 10),
        };
        let order = t.order;
        if self.insert_idle(linux, task, cpu, (slice, woke), now) {
            return;
        }
        if alone && woke {
            return linux.insert(task, Dsq::Own, slice, 0);
        }
        let there = self.cpu(cpu).order;
        if woke
            && permit.flags & CUTS != 0
            && self.agent_cpu != Some(cpu)
            && self.cpu_open(cpu)
            && there != 0
            && before(order.wrapping_add(CUT_LEAD), there)
            && self.may_cut(cpu, now)
        {
            self.counters.preempts += 1;
            let state = self.cpu_mut(cpu);
            (state.next_side, state.next_n, state.given) = (AGENT, SHARER, true);
            return linux.insert_first(task, slice);
        }
        self.shared_filled(now);
        linux.insert(task, Dsq::Shared, slice, order);
        self.kick_for(linux, task, cpu);
    }
}
