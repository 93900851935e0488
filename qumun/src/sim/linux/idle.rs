//! The kernel's own choice among idle CPUs (`kernel/sched/ext_idle.c`).

use super::{Linux, Thread};
use crate::topology::Level;
use crate::{Cpu, CpuSet, Topology};

impl Linux {
    /// Which CPUs share what.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The kernel's mask of idle CPUs.
    pub fn idle(&self) -> &CpuSet {
        &self.idle
    }

    pub(crate) fn mark_idle(&mut self, cpu: Cpu, idle: bool) {
        self.idle.set(cpu, idle);
    }

    /// Claims a CPU if it is idle (`scx_bpf_test_and_clear_cpu_idle`).
    pub fn claim_idle(&mut self, cpu: Cpu) -> bool {
        let idle = self.idle.contains(cpu);
        self.idle.remove(cpu);
        idle
    }

    /// Claims an idle CPU that a task may use, one of an idle core if there is any (`scx_bpf_pick_idle_cpu`).
    pub fn pick_idle(&mut self, task: Thread) -> Option<Cpu> {
        let allowed = self.allowed(task);
        let cores = if self.topology.smt() { self.topology.idle_cores(&self.idle) } else { CpuSet::EMPTY };
        let cpu = allowed.first_in(&cores).or_else(|| allowed.first_in(&self.idle))?;
        self.idle.remove(cpu);
        Some(cpu)
    }

    /// Claims an idle CPU near another one (`scx_bpf_select_cpu_and`): the CPU itself, then one that shares the last
    /// cache, then one of its node, then any; idle cores before idle threads of busy ones.
    pub fn claim_near(&mut self, task: Thread, prev: Cpu) -> Option<Cpu> {
        let allowed = self.allowed(task);
        let near = |among: &CpuSet| {
            let open = allowed & *among;
            if open.contains(prev) {
                return Some(prev);
            }
            [Level::L3, Level::Node]
                .iter()
                .find_map(|&level| open.first_in(self.topology.domain(prev, level)))
                .or_else(|| open.first())
        };
        let cores = if self.topology.smt() { self.topology.idle_cores(&self.idle) } else { CpuSet::EMPTY };
        let cpu = near(&cores).or_else(|| near(&self.idle))?;
        self.idle.remove(cpu);
        Some(cpu)
    }

    pub(crate) fn allowed(&self, task: Thread) -> CpuSet {
        self.task(task).allowed.as_deref().copied().unwrap_or(CpuSet::first_n(self.nr_cpus()))
    }
}
