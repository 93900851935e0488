//! Which CPUs have nothing to do.

use crate::{Affinity, Cpu, CpuSet};

/// The largest number of CPUs that the core handles (`QM_MAX_CPUS`).
pub const MAX_CPUS: u32 = 1024;

/// The CPUs that were idle at the beginning of the batch.
///
/// It is a plain value: a policy copies it to mark the CPUs that it has given away in this batch.
/// It is a hint, too: a CPU may have found work since. A decision for a busy CPU just waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleView {
    cpus: CpuSet,
    nr_cpus: u32,
}

impl IdleView {
    /// A machine with so many CPUs (at most [`MAX_CPUS`]), all busy.
    pub const fn new(nr_cpus: u32) -> Self {
        Self { cpus: CpuSet::EMPTY, nr_cpus: if nr_cpus < MAX_CPUS { nr_cpus } else { MAX_CPUS } }
    }

    /// How many CPU numbers there are: all are below it.
    pub const fn nr_cpus(&self) -> u32 {
        self.nr_cpus
    }

    /// The idle CPUs as a set: what [`Selector::pick`](crate::Selector::pick) takes.
    pub const fn cpus(&self) -> &CpuSet {
        &self.cpus
    }

    /// Is this CPU idle? `false` for numbers that no CPU has.
    pub const fn is_idle(&self, cpu: Cpu) -> bool {
        self.cpus.contains(cpu)
    }

    /// The lowest idle CPU on which the task may run.
    pub fn first_allowed(&self, allowed: &Affinity) -> Option<Cpu> {
        self.cpus.first_in(&CpuSet::from(*allowed))
    }

    /// The idle CPUs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Cpu> + '_ {
        self.cpus.iter()
    }

    /// How many CPUs are idle.
    pub fn count(&self) -> u32 {
        self.cpus.len()
    }

    /// Marks a CPU as idle or busy; a number that no CPU has is ignored.
    pub fn set(&mut self, cpu: Cpu, idle: bool) {
        if cpu.0 < self.nr_cpus {
            self.cpus.set(cpu, idle);
        }
    }

    /// Replaces 64 bits at once: those of CPUs `64 * index` and up. For backends that read the
    /// kernel's bitmap. Bits of CPUs that do not exist are dropped.
    pub fn set_word(&mut self, index: usize, bits: u64) {
        let here = match (self.nr_cpus as usize).saturating_sub(index.saturating_mul(64)) {
            left @ 0..64 => (1 << left) - 1,
            _ => u64::MAX,
        };
        self.cpus.set_word(index, bits & here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_cpu_has_are_never_idle() {
        let mut idle = IdleView::new(70);
        idle.set(Cpu(69), true);
        idle.set(Cpu(70), true);
        idle.set(Cpu(u32::MAX), true);
        assert_eq!(idle.iter().collect::<Vec<_>>(), [Cpu(69)]);
        idle.set_word(0, u64::MAX);
        idle.set_word(1, u64::MAX);
        idle.set_word(16, u64::MAX);
        assert_eq!(idle.count(), 70);
        idle.set(Cpu(0), false);
        assert!(!idle.is_idle(Cpu(0)) && idle.is_idle(Cpu(69)) && !idle.is_idle(Cpu(70)));
        assert_eq!(IdleView::new(5000).nr_cpus(), MAX_CPUS);
    }

    #[test]
    fn the_first_allowed_is_the_lowest_idle_one() {
        let mut idle = IdleView::new(8);
        idle.set(Cpu(2), true);
        idle.set(Cpu(5), true);
        assert_eq!(idle.first_allowed(&Affinity::ANY), Some(Cpu(2)));
        assert_eq!(idle.first_allowed(&Affinity::new(1 << 5 | 1, 2, 8)), Some(Cpu(5)));
        assert_eq!(idle.first_allowed(&Affinity::new(1, 1, 8)), None);
    }
}
