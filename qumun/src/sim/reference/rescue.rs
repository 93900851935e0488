//! Bounded waits that no policy, and no queue of the core's, can break. See `rescue.h`.

use super::state::{RESCUE_AFTER, RESCUE_CPUS, RESCUE_EVERY, RESCUE_SCAN, Reference, later_by};
use crate::Cpu;
use crate::sim::linux::{Dsq, Linux};

impl Reference {
    /// A placed task that has waited too long moves to the core's queue.
    fn rescue_placed(&mut self, linux: &mut Linux, dsq: Dsq, now: u64) {
        let mut iter = linux.iter(dsq, true);
        for _ in 0..RESCUE_SCAN {
            let Some(task) = linux.next(&mut iter) else { break };
            if later_by(now, self.ctx(task).placed_at, RESCUE_AFTER) {
                let vtime = self.settle_vtime(task);
                self.core_filled(now);
                if linux.move_task(&iter, task, Dsq::Core, self.settings.slice, vtime) {
                    self.counters.rescued += 1;
                }
            }
        }
    }

    /// The same for one of the core's queues: the first victim found runs here and now.
    pub(super) fn rescue_queued(&mut self, linux: &mut Linux, dsq: Dsq, cpu: Cpu, now: u64) -> bool {
        let mut iter = linux.iter(dsq, true);
        for _ in 0..RESCUE_SCAN {
            let Some(task) = linux.next(&mut iter) else { break };
            let waits = later_by(now, self.ctx(task).placed_at, RESCUE_AFTER);
            if waits
                && linux.task(task).may_run(cpu)
                && linux.move_task(&iter, task, Dsq::Local(cpu), self.settings.slice, 0)
            {
                self.counters.rescued += 1;
                return true;
            }
        }
        false
    }

    /// True if it has found a task to run now.
    pub(super) fn rescue(&mut self, linux: &mut Linux, cpu: Cpu, now: u64) -> bool {
        let state = self.cpu_mut(cpu);
        if state.pinned && now.wrapping_sub(state.rescued_at) > RESCUE_EVERY {
            state.rescued_at = now;
            if self.rescue_queued(linux, Dsq::Pinned(cpu), cpu, now) {
                return true;
            }
        }
        if now.wrapping_sub(self.last_rescue) < RESCUE_EVERY {
            return false;
        }
        self.last_rescue = now;
        if self.shared {
            self.rescue_placed(linux, Dsq::Shared, now);
        }
        for _ in 0..RESCUE_CPUS {
            let next = self.rescue_cpu;
            self.rescue_cpu += 1;
            if next >= linux.nr_cpus() {
                self.rescue_cpu = 0;
                break;
            }
            if self.cpu(Cpu(next)).placed {
                self.rescue_placed(linux, Dsq::Placed(Cpu(next)), now);
            }
        }
        self.core_waits(linux, now) && self.rescue_queued(linux, Dsq::Core, cpu, now)
    }
}
