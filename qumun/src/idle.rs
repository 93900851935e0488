//! Which CPUs have nothing to do.

use crate::{Affinity, Cpu};

/// The largest number of CPUs that the core handles (`QM_MAX_CPUS`).
pub const MAX_CPUS: u32 = 1024;
const WORDS: usize = MAX_CPUS as usize / 64;

/// The CPUs that were idle at the beginning of the batch.
///
/// It is a plain value: a policy copies it to mark the CPUs that it has given away in this batch.
/// It is a hint, too: a CPU may have found work since. A decision for a busy CPU just waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleView {
    words: [u64; WORDS],
    nr_cpus: u32,
}

impl IdleView {
    /// A machine with so many CPUs (at most [`MAX_CPUS`]), all busy.
    pub const fn new(nr_cpus: u32) -> Self {
        Self { words: [0; WORDS], nr_cpus: if nr_cpus < MAX_CPUS { nr_cpus } else { MAX_CPUS } }
    }

    /// How many CPU numbers there are: all are below it.
    pub const fn nr_cpus(&self) -> u32 {
        self.nr_cpus
    }

    /// Is this CPU idle? `false` for numbers that no CPU has.
    pub fn is_idle(&self, cpu: Cpu) -> bool {
        cpu.0 < self.nr_cpus && self.words[cpu.0 as usize / 64] >> (cpu.0 % 64) & 1 == 1
    }

    /// The lowest idle CPU on which the task may run.
    pub fn first_allowed(&self, allowed: &Affinity) -> Option<Cpu> {
        self.iter().find(|&cpu| allowed.allows(cpu))
    }

    /// The idle CPUs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Cpu> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(Cpu(i as u32 * 64 + bit))
            })
        })
    }

    /// How many CPUs are idle.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }

    /// Marks a CPU as idle or busy; a number that no CPU has is ignored.
    pub fn set(&mut self, cpu: Cpu, idle: bool) {
        if cpu.0 >= self.nr_cpus {
            return;
        }
        let bit = 1 << (cpu.0 % 64);
        let word = &mut self.words[cpu.0 as usize / 64];
        *word = if idle { *word | bit } else { *word & !bit };
    }

    /// Replaces 64 bits at once: those of CPUs `64 * index` and up. For backends that read the
    /// kernel's bitmap. Bits of CPUs that do not exist are dropped.
    pub fn set_word(&mut self, index: usize, bits: u64) {
        let first = index as u32 * 64;
        if index >= WORDS || first >= self.nr_cpus {
            return;
        }
        let here = (self.nr_cpus - first).min(64);
        self.words[index] = bits & (u64::MAX >> (64 - here));
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
