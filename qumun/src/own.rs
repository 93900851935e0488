//! What an agent does that has a CPU for itself ([`Builder::dedicated_cpu`](crate::Builder::dedicated_cpu)): elsewhere its
//! CPU looks for work after each turn, and takes what was decided. Here nobody does, unless he is awake or woken.

use crate::{Cpu, CpuSet};

/// The agent's CPU, and where its decisions since the last batch go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    cpu: Option<Cpu>,
    /// Where tasks came from about which the core asked, and where they were sent.
    touched: CpuSet,
    /// How many were sent anywhere.
    anywhere: u32,
}

impl Own {
    /// The CPU; `None` while the agent shares one with others.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        self.cpu
    }

    /// The agent has this CPU now, or has none.
    pub(crate) fn set(&mut self, cpu: Option<Cpu>) {
        self.cpu = cpu;
    }

    /// An event came from there: the CPU may wait for the answer.
    pub(crate) fn asked_from(&mut self, cpu: Cpu) {
        if self.cpu.is_some() {
            self.touched.insert(cpu);
        }
    }

    /// A decision was sent.
    pub(crate) fn sent_to(&mut self, cpu: Option<Cpu>) {
        match cpu {
            _ if self.cpu.is_none() => {}
            Some(cpu) => self.touched.insert(cpu),
            None => self.anywhere += 1,
        }
    }

    /// Without the agent's own CPU: nobody is sent there.
    pub(crate) fn others(&self, mut cpus: CpuSet) -> CpuSet {
        if let Some(own) = self.cpu {
            cpus.remove(own);
        }
        cpus
    }

    /// A batch was published. Whom to wake of those who are idle: who waits for an answer or got a task, and as many others as
    /// tasks may go anywhere.
    pub(crate) fn wakes(&mut self, idle: CpuSet) -> CpuSet {
        let idle = self.others(idle);
        let mut wakes = idle & self.touched;
        let more = (self.anywhere as usize).saturating_sub(wakes.len() as usize);
        (idle - wakes).iter().take(more).for_each(|cpu| wakes.insert(cpu));
        (self.touched, self.anywhere) = (CpuSet::EMPTY, 0);
        wakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[u32]) -> CpuSet {
        cpus.iter().copied().map(Cpu).collect()
    }

    #[test]
    fn only_who_sleeps_and_has_something_to_do_is_woken() {
        let mut own = Own::default();
        own.set(Some(Cpu(3)));
        own.asked_from(Cpu(0));
        own.sent_to(Some(Cpu(1)));
        own.sent_to(Some(Cpu(4)));
        assert_eq!(own.wakes(set(&[1, 2, 3, 4])), set(&[1, 4]), "0 is at work, 2 has nothing to do");
        assert_eq!(own.wakes(set(&[0, 1, 2, 4])), CpuSet::EMPTY, "each batch by itself");
    }

    #[test]
    fn for_tasks_that_go_anywhere_as_many_wake_up() {
        let mut own = Own::default();
        own.set(Some(Cpu(0)));
        (0..3).for_each(|_| own.sent_to(None));
        own.asked_from(Cpu(70));
        assert_eq!(own.wakes(set(&[0, 5, 64, 70, 90])), set(&[5, 64, 70]));
        assert_eq!(own.others(set(&[0, 1])), set(&[1]));
    }

    #[test]
    fn an_agent_that_shares_a_cpu_wakes_nobody() {
        let mut own = Own::default();
        own.asked_from(Cpu(1));
        own.sent_to(None);
        own.sent_to(Some(Cpu(2)));
        assert_eq!(own.wakes(set(&[1, 2, 3])), CpuSet::EMPTY);
    }
}
