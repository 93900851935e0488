//! Limits of cgroups. See `limits.h`.

use super::state::{Group, MS, Reference, before, later_by};
use crate::sim::linux::{Dsq, Iter, Linux, Thread};
use crate::sim::values::Sabotage;

/// Whoever waits for longer is let out.
const WAIT: u64 = 2_000 * MS;
/// What comes in this time and is not used is not lost.
const CARRY: u64 = 20 * MS;
/// And no debt is larger than what comes in this time.
const DEBT: u64 = 10_000 * MS;
/// Ticks that a task gets for its way out of the kernel.
const KERNEL_TICKS: u8 = 25;
const RELEASE_EVERY: u64 = MS;
const RELEASE_GROUPS: u32 = 64;
const RELEASE_TASKS: u64 = 64;
const DEPTH: usize = 24;
/// Words of the bits by slot.
pub(super) const WORDS: usize = super::cgroups::MAX_CGROUPS / 64;

impl Group {
    /// Adds the quota of the periods that are over.
    fn refill(&mut self, now: u64) {
        let passed = now.wrapping_sub(self.refilled_at);
        if self.period == 0 || (passed as i64) < self.period as i64 {
            return;
        }
        let n = passed / self.period;
        self.refilled_at = self.refilled_at.wrapping_add(n * self.period);
        let sum = self.budget + (n.min(65_536) * self.quota) as i64;
        self.budget = if sum > self.most as i64 { self.most as i64 } else { sum.max(-(self.debt as i64)) };
    }
}

impl Reference {
    /// Charges a run to a cgroup and all above it. How many slices the tightest of them has left; 0: nothing.
    fn spend(&mut self, mut slot: u32, from: u64, now: u64) -> u64 {
        let mut room = RELEASE_TASKS;
        for _ in 0..DEPTH {
            let slice = self.settings.slice;
            let Some(group) = self.groups.get_mut(slot as usize) else { break };
            if group.quota != 0 {
                let ran = now.wrapping_sub(if before(from, group.since) { group.since } else { from });
                group.refill(now);
                if ran as i64 > 0 {
                    group.budget -= ran as i64;
                }
                room = match u64::try_from(group.budget) {
                    Ok(left) if left > 0 => room.min((left / slice).min(RELEASE_TASKS) + 1),
                    _ => 0,
                };
            }
            if slot == 0 {
                break;
            }
            slot = group.parent;
        }
        room
    }

    fn is_limited(&self, linux: &Linux, task: Thread) -> bool {
        let t = linux.task(task);
        self.settings.limits && self.view.nr_limits > 0 && !t.kthread && t.tgid.0 != self.view.agent_tgid
    }

    /// Has the cgroup of a task that does not run nothing left?
    pub(super) fn is_dry(&mut self, linux: &Linux, task: Thread, now: u64) -> bool {
        let (group, pass) = (self.ctx(task).group, self.ctx(task).pass);
        self.is_limited(linux, task) && !pass && self.spend(group, now, now) == 0
    }

    /// Charges a task that runs. Has its cgroup nothing left?
    fn charge(&mut self, task: Thread, now: u64) -> bool {
        let t = self.ctx_mut(task);
        let from = if before(t.charged_at, t.started_at) { t.started_at } else { t.charged_at };
        t.charged_at = now;
        let group = t.group;
        let from = if self.sabotage == Sabotage::NoCharge { now } else { from };
        self.spend(group, from, now) == 0
    }

    /// Must a task make room that has used up its slice?
    pub(super) fn runs_dry(&mut self, linux: &Linux, task: Thread, now: u64) -> bool {
        self.is_limited(linux, task)
            && self.ctx(task).started_at != 0
            && self.charge(task, now)
            && self.ctx(task).safe
    }

    /// The same at a tick. One that was let out may use its slice, which is short.
    pub(super) fn ticks_dry(&mut self, linux: &Linux, task: Thread, now: u64) -> bool {
        if !self.is_limited(linux, task) || self.ctx(task).started_at == 0 {
            return false;
        }
        let is_dry = self.charge(task, now);
        let t = self.ctx_mut(task);
        if !is_dry {
            t.dry_ticks = 0;
            return false;
        }
        if linux.in_kernel {
            t.dry_ticks = t.dry_ticks.wrapping_add(1);
        }
        t.safe |= !linux.in_kernel || t.dry_ticks > KERNEL_TICKS;
        t.safe && !t.pass
    }

    /// It begins to run. Must it make room at once, because it was queued before its cgroup had used up its limit?
    pub(super) fn starts_dry(&mut self, linux: &Linux, task: Thread, now: u64) -> bool {
        if !self.settings.limits {
            return false;
        }
        if self.ctx(task).safe && self.is_dry(linux, task, now) {
            return true;
        }
        self.ctx_mut(task).safe = false;
        false
    }

    /// It stops.
    pub(super) fn stop_charged(&mut self, linux: &Linux, task: Thread, runnable: bool, now: u64) {
        if !self.settings.limits {
            return;
        }
        if !runnable {
            self.ctx_mut(task).safe = !linux.in_kernel;
        }
        if self.view.nr_limits > 0 {
            self.charge(task, now);
            self.ctx_mut(task).pass = false;
        }
    }

    /// Holds a task back if its cgroup has nothing left.
    pub(super) fn throttle(&mut self, linux: &mut Linux, task: Thread, now: u64) -> bool {
        if !self.settings.limits || !self.ctx(task).safe || !self.is_dry(linux, task, now) {
            return false;
        }
        let slice = self.own_slice(task);
        let t = self.ctx_mut(task);
        (t.placed_at, t.dry_ticks) = (now, 0);
        let slot = t.group;
        self.counters.throttled += 1;
        linux.insert(task, Dsq::Throttled(slot), slice, 0);
        self.groups[slot as usize].held_at = now;
        self.held_bits[slot as usize / 64] |= 1 << (slot & 63);
        self.held = true;
        true
    }

    /// Nobody is held back in this cgroup any more.
    fn forget(&mut self, linux: &Linux, slot: u32, now: u64) {
        let is_new = !later_by(now, self.groups[slot as usize].held_at, WAIT);
        if linux.nr_queued(Dsq::Throttled(slot)) == 0 && !is_new {
            self.held_bits[slot as usize / 64] &= !(1 << (slot & 63));
        }
    }

    /// Where a task goes on that is let out: it is the core's for one run.
    fn let_out(&mut self, linux: &mut Linux, iter: &Iter, task: Thread) -> bool {
        let t = linux.task(task);
        let slice = if self.ctx(task).pass { self.settings.slice_min } else { self.own_slice(task) };
        let cpu = t.cpu;
        if t.nr_allowed() != 1 || linux.nr_cpus() == 1 {
            let vtime = self.settle_vtime(task);
            self.core_filled(linux.now());
            let moved = linux.move_task(iter, task, Dsq::Core, slice, vtime);
            if moved {
                self.kick_for(linux, task, cpu);
            }
            return moved;
        }
        if !self.cpu_usable(cpu) {
            return linux.move_task(iter, task, Dsq::Global, slice, 0);
        }
        let vtime = self.settle_vtime(task);
        let moved = linux.move_task(iter, task, Dsq::Pinned(cpu), slice, vtime);
        if moved {
            self.cpu_mut(cpu).pinned = true;
            self.kick_if_idle(linux, cpu);
        }
        moved
    }

    /// Lets out as many tasks of a cgroup as it has slices left, and whoever has waited for too long.
    fn release_group(&mut self, linux: &mut Linux, slot: u32, now: u64) {
        let group = if (slot as usize) < self.groups.len() { slot } else { 0 };
        let room = self.spend(group, now, now);
        let mut iter = linux.iter(Dsq::Throttled(slot), false);
        for n in 0..RELEASE_TASKS {
            let Some(task) = linux.next(&mut iter) else { break };
            let since = self.ctx(task).placed_at;
            let is_late = later_by(now, since, WAIT) && self.sabotage != Sabotage::HoldForEver;
            if n >= room && !is_late {
                break;
            }
            let t = self.ctx_mut(task);
            (t.pass, t.placed_at) = (room == 0, now);
            if self.let_out(linux, &iter, task) {
                self.counters.throttled_ns += now.wrapping_sub(since);
                self.counters.limit_overruns += u64::from(room == 0);
            }
        }
        self.forget(linux, slot, now);
    }

    /// Lets tasks out, of some cgroups in turn.
    pub(super) fn release(&mut self, linux: &mut Linux, now: u64) {
        if !self.settings.limits || !self.held || now.wrapping_sub(self.released_at) < RELEASE_EVERY {
            return;
        }
        self.released_at = now;
        let (at, mut seen) = (self.release_word as usize, 0);
        for word in (0..WORDS).map(|i| (at + i) % WORDS) {
            let bits = self.held_bits[word];
            if bits == 0 {
                continue;
            }
            if seen >= RELEASE_GROUPS {
                self.release_word = word as u32;
                return;
            }
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                seen += 1;
                self.release_group(linux, word as u32 * 64 + bit, now);
            }
        }
        if seen == 0 {
            self.held = false;
        }
    }

    /// Sets a limit as the table shows it. It begins with a whole quota.
    pub(super) fn set_limit(&mut self, slot: u32, above: u32, now: u64) {
        let [quota, period, burst] = self.shown[slot as usize].limit.map(|us| us.min(1 << 30) * 1_000);
        let group = &mut self.groups[slot as usize];
        self.view.nr_limits -= u64::from(group.quota != 0);
        (group.quota, group.parent) = (0, above);
        if quota == 0 || period == 0 {
            return;
        }
        self.view.nr_limits += 1;
        *group = Group {
            quota,
            budget: quota as i64,
            period,
            refilled_at: now,
            most: quota + burst + quota * (CARRY / 1_000) / (period / 1_000),
            debt: quota + quota * (DEBT / 1_000_000) / (period / 1_000_000).max(1),
            since: now,
            held_at: group.held_at,
            parent: above,
            ..*group
        };
    }
}
