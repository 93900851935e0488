//! A CPU whose cache is warm, where the core chooses by itself. See `near.h`.

use super::state::{Reference, before};
use crate::sim::linux::{Linux, Thread};
use crate::topology::Level;
use crate::{Cpu, CpuSet};

impl Reference {
    /// A CPU near one that is not idle: an idle one under its cache; else, for a warm task, one there that comes free
    /// soon or none, for others where the kernel says.
    pub(super) fn near_cpu(
        &mut self,
        linux: &mut Linux,
        task: Thread,
        cpu: Cpu,
        warm: bool,
        now: u64,
    ) -> Option<Cpu> {
        self.claim_in_cache(linux, task, cpu, true)
            .or_else(|| self.claim_in_cache(linux, task, cpu, false))
            .or_else(|| match warm {
                true => self.soon_in_cache(linux, task, cpu, now),
                false => linux.claim_near(task, cpu),
            })
    }

    /// The CPU under the last cache that is busy for longest, of those that were idle less than a slice ago, or are on
    /// their way out, where nobody waits since and nobody runs who runs for long. None if no CPU is idle elsewhere: whoever
    /// comes free first is the best then.
    fn soon_in_cache(&mut self, linux: &Linux, task: Thread, cpu: Cpu, now: u64) -> Option<Cpu> {
        let near = *linux.topology().domain(cpu, Level::L3);
        if (self.view.idle - near).is_empty() {
            return None;
        }
        let open = near & linux.allowed(task);
        let since = |cpu: Cpu| if self.cpu_is_idle(cpu) { now } else { self.cpu(cpu).busy_since };
        let soon = open
            .iter()
            .filter(|&c| {
                !self.cpu(c).awaited && self.cpu(c).brief && before(now, since(c) + self.settings.slice)
            })
            .filter(|&c| self.cpu_open(c))
            .min_by_key(|&c| since(c))?;
        self.cpu_mut(soon).awaited = true;
        Some(soon)
    }

    /// Claims an idle CPU under the last cache, `whole`: one whose core is idle.
    fn claim_in_cache(&self, linux: &mut Linux, task: Thread, cpu: Cpu, whole: bool) -> Option<Cpu> {
        let open = self.view.idle & *linux.topology().domain(cpu, Level::L3) & linux.allowed(task);
        open.iter().find(|&near| {
            let is_whole = || self.cpu_is_idle(sibling(linux.topology().domain(near, Level::Core), near));
            (!whole || is_whole()) && self.cpu_open(near) && linux.claim_idle(near)
        })
    }
}

/// The next thread of a core, in a ring.
fn sibling(core: &CpuSet, cpu: Cpu) -> Cpu {
    core.iter().find(|other| *other > cpu).or_else(|| core.first()).unwrap_or(cpu)
}
