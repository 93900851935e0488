//! An idle CPU whose cache is warm, where the core chooses by itself. See `near.h`.

use super::state::Reference;
use crate::sim::linux::{Linux, Thread};
use crate::topology::Level;
use crate::{Cpu, CpuSet};

impl Reference {
    /// Claims an idle CPU near one that is not idle: under its cache, else where the kernel says.
    pub(super) fn claim_idle(&self, linux: &mut Linux, task: Thread, cpu: Cpu) -> Option<Cpu> {
        self.claim_in_cache(linux, task, cpu, true)
            .or_else(|| self.claim_in_cache(linux, task, cpu, false))
            .or_else(|| linux.claim_near(task, cpu))
    }

    /// Claims an idle CPU under the last cache, `whole`: one whose core is idle.
    fn claim_in_cache(&self, linux: &mut Linux, task: Thread, cpu: Cpu, whole: bool) -> Option<Cpu> {
        let open = self.view.idle & *linux.topology().domain(cpu, Level::L3) & linux.allowed(task);
        open.iter().find(|&near| {
            let is_whole = || self.cpu_is_idle(sibling(linux.topology().domain(near, Level::Core), near));
            (!whole || is_whole()) && self.cpu_usable(near) && linux.claim_idle(near)
        })
    }
}

/// The next thread of a core, in a ring.
fn sibling(core: &CpuSet, cpu: Cpu) -> Cpu {
    core.iter().find(|other| *other > cpu).or_else(|| core.first()).unwrap_or(cpu)
}
