//! Who runs next on a CPU: a task of the core's own queues, or one that the agent has placed? See `sides.h`.

use super::state::{CpuCtx, GO_ON, Reference, SHARE, SHARER, SIDE_LAG, before, is_stale};
use crate::Cpu;
use crate::sim::linux::{Dsq, Linux};
use crate::sim::values::Sabotage;

pub(super) const CORE: usize = 0;
pub(super) const AGENT: usize = 1;

impl Reference {
    /// Virtual time of the first task of a queue, whether it is reclaim's, and since when it waits.
    fn head_of(&self, linux: &Linux, dsq: Dsq) -> Option<(u64, bool, u64)> {
        let first = linux.first(dsq)?;
        let t = self.ctx(first);
        Some((linux.task(first).vtime, t.reclaim, t.placed_at))
    }

    /// Is there a task in the queue that comes before one of this virtual time, which went on here for long since it waits?
    pub(super) fn comes_before(&self, linux: &Linux, dsq: Dsq, vtime: u64, now: u64) -> bool {
        let long_on = now.wrapping_sub(self.cpu(linux.this_cpu()).began) > GO_ON;
        let head = self.head_of(linux, dsq);
        head.is_some_and(|(first, _, since)| {
            before(first, vtime) || long_on && now.wrapping_sub(since) > GO_ON
        })
    }

    pub(super) fn take_pinned(&mut self, linux: &mut Linux, cpu: Cpu) -> bool {
        if !self.cpu(cpu).pinned {
            return false;
        }
        if linux.move_to_local(Dsq::Pinned(cpu)) {
            return true;
        }
        self.cpu_mut(cpu).pinned = linux.nr_queued(Dsq::Pinned(cpu)) > 0;
        false
    }

    pub(super) fn take_placed(&mut self, linux: &mut Linux, cpu: Cpu) -> bool {
        if !self.cpu(cpu).placed {
            return false;
        }
        if linux.move_to_local(Dsq::Placed(cpu)) {
            return true;
        }
        self.cpu_mut(cpu).placed = linux.nr_queued(Dsq::Placed(cpu)) > 0;
        false
    }

    fn take_shared(&mut self, linux: &mut Linux, now: u64) -> bool {
        if !self.shared {
            return false;
        }
        if linux.move_to_local(Dsq::Shared) {
            return true;
        }
        if is_stale(linux, self.shared_at, now) {
            self.shared = linux.nr_queued(Dsq::Shared) > 0;
        }
        false
    }

    fn take_core(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) -> bool {
        self.cpu_mut(cpu).served_at[CORE] = now;
        if self.cpu(cpu).pinned
            && self.core_waits(linux, now)
            && let Some((pinned, ..)) = self.head_of(linux, Dsq::Pinned(cpu))
            && let Some((shared, ..)) = self.head_of(linux, Dsq::Core)
            && before(shared, pinned)
            && linux.move_to_local(Dsq::Core)
        {
            return true;
        }
        self.take_pinned(linux, cpu) || linux.move_to_local(Dsq::Core)
    }

    /// What the agent has placed for this CPU or for any, in turns.
    fn take_agents(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) -> bool {
        let state = self.cpu_mut(cpu);
        state.served_at[AGENT] = now;
        let placed_first = state.turn & 1 == 1;
        state.turn = state.turn.wrapping_add(1);
        for placed in [placed_first, !placed_first] {
            if if placed { self.take_placed(linux, cpu) } else { self.take_shared(linux, now) } {
                return true;
            }
        }
        false
    }

    /// The first of the tasks that are bound to this CPU, one of which comes next.
    pub(super) fn take_urgent(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) -> bool {
        self.cpu_mut(cpu).urgent = false;
        if !self.take_pinned(linux, cpu) {
            return false;
        }
        let state = self.cpu_mut(cpu);
        state.served_at[CORE] = now;
        (state.next_side, state.next_n) = (CORE, SHARER);
        true
    }

    /// How many tasks share what a side gets here, in parts of [`SHARER`].
    fn sharers(&self, linux: &Linux, own: Dsq, common: Dsq, one_more: bool) -> u64 {
        let online = if self.view.nr_online as u32 == 0 { 1 } else { u64::from(self.view.nr_online as u32) };
        (linux.nr_queued(own) as u64 + u64::from(one_more)) * SHARER
            + linux.nr_queued(common) as u64 * SHARER / online
    }

    /// Both sides have tasks. Which comes first?
    fn first_side(&mut self, linux: &Linux, cpu: Cpu, now: u64) -> usize {
        if self.sabotage == Sabotage::NoAgentShare {
            return CORE;
        }
        let state = self.cpu_mut(cpu);
        let core_waits = now.wrapping_sub(state.served_at[CORE]);
        let agents_wait = now.wrapping_sub(state.served_at[AGENT]);
        charge_side(state, now);
        if before(state.clock[CORE], state.clock[AGENT].wrapping_sub(SIDE_LAG)) {
            state.clock[CORE] = state.clock[AGENT].wrapping_sub(SIDE_LAG);
        }
        if before(state.clock[AGENT], state.clock[CORE].wrapping_sub(SIDE_LAG)) {
            state.clock[AGENT] = state.clock[CORE].wrapping_sub(SIDE_LAG);
        }
        if core_waits > SHARE || agents_wait > SHARE {
            return if core_waits >= agents_wait { CORE } else { AGENT };
        }
        let [core, agents] = state.clock;
        if self.head_of(linux, Dsq::Core).is_some_and(|(_, reclaim, _)| reclaim) {
            return CORE;
        }
        if before(agents, core) { AGENT } else { CORE }
    }

    /// One task for this CPU's local queue. `again`: the last one wants to go on.
    pub(super) fn take_work(
        &mut self,
        linux: &mut Linux,
        cpu: Cpu,
        now: u64,
        degraded: bool,
        again: bool,
    ) -> bool {
        let state = self.cpu_mut(cpu);
        (state.next_n, state.next_side) = (0, AGENT);
        let (pinned, placed) = (state.pinned, state.placed);
        if degraded
            && self.sabotage != Sabotage::LeaveParked
            && self.park_waits(linux, now)
            && linux.move_to_local(Dsq::Park)
        {
            return true;
        }
        if !pinned && !self.core_waits(linux, now) {
            return self.take_agents(linux, cpu, now);
        }
        if !placed && !self.shared {
            self.cpu_mut(cpu).next_side = CORE;
            return self.take_core(linux, cpu, now);
        }
        let first = self.first_side(linux, cpu, now);
        for side in [first, first ^ 1] {
            let again = again && self.cpu(cpu).side == side;
            let n = if side == CORE {
                self.sharers(linux, Dsq::Pinned(cpu), Dsq::Core, again)
            } else {
                self.sharers(linux, Dsq::Placed(cpu), Dsq::Shared, again)
            };
            let took = if side == CORE {
                self.take_core(linux, cpu, now)
            } else {
                self.take_agents(linux, cpu, now)
            };
            if took {
                let state = self.cpu_mut(cpu);
                (state.next_side, state.next_n) = (side, if n == 0 { 1 } else { n });
                return true;
            }
        }
        false
    }
}

/// Charges what ran since the last charge to its side.
fn charge_side(state: &mut CpuCtx, now: u64) {
    if state.side_n == 0 {
        return;
    }
    if before(state.charged_at, now) {
        let ran = now.wrapping_sub(state.charged_at).wrapping_mul(SHARER) / state.side_n;
        let clock = &mut state.clock[state.side];
        *clock = clock.wrapping_add(ran);
    }
    state.charged_at = now;
}

/// A task that dispatch has chosen begins to run, or ends.
pub(super) fn start_side(state: &mut CpuCtx, now: u64) {
    state.side_n = state.next_n;
    state.side = state.next_side;
    state.charged_at = now;
    state.next_n = 0;
}

pub(super) fn stop_side(state: &mut CpuCtx, now: u64) {
    charge_side(state, now);
    state.side_n = 0;
}
