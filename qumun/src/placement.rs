//! Where the tasks of a batch go: idle CPUs, each given away once, and the CPUs that run boosted work.

use crate::{Affinity, Backend, Cpu, CpuSet, MAX_CPUS, Pick, Pid, Request, Selector};

/// What an agent knows about CPUs during a turn.
#[derive(Debug)]
pub(crate) struct Placement {
    selector: Selector,
    /// Idle at the last look, and not given away since.
    free: CpuSet,
    online: CpuSet,
    /// Who was boosted onto each CPU; nobody if 0.
    boosted: Vec<Pid>,
    /// How many CPUs are marked: mostly none, and then no set has to be looked at.
    marks: u32,
}

impl Placement {
    pub(crate) fn new(selector: Selector) -> Self {
        Self {
            selector,
            free: CpuSet::EMPTY,
            online: CpuSet::ALL,
            boosted: vec![Pid(0); MAX_CPUS as usize],
            marks: 0,
        }
    }

    pub(crate) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Takes over what the backend sees now.
    pub(crate) fn look(&mut self, backend: &impl Backend) {
        self.free = *backend.idle().cpus();
        // The agent's own CPU is free as soon as this turn is over: what is sent there follows it at once. Without
        // it no core is ever wholly idle where the agent is, and tasks would flee from it to another cache. On a
        // machine without an idle CPU others wait for this one, too: there a task bound to it would wait for it
        // while another CPU comes free.
        if !self.free.is_empty()
            && let Some(here) = backend.here()
        {
            self.free.insert(here);
        }
        if let Some(online) = backend.online()
            && *online != self.online
        {
            let changed = (*online - self.online) | (self.online - *online);
            for cpu in changed.iter() {
                self.selector.topology_mut().set_online(cpu, online.contains(cpu));
            }
            self.online = *online;
        }
        // Where nothing runs, nothing boosted runs.
        if self.marks == 0 {
            return;
        }
        let over = *self.selector.boosted() & self.free;
        for cpu in over.iter() {
            self.unmark(cpu);
        }
    }

    /// An idle CPU for a task, by the chart of [`crate::select`]; it is given away.
    pub(crate) fn pick(&mut self, prev: Cpu, allowed: &Affinity) -> Pick {
        let allowed = CpuSet::from(*allowed);
        self.selector.claim(&Request::new(prev, &allowed), &mut self.free)
    }

    /// The same for boosted work: the CPU is marked until its task is queued again, ends, or the CPU is idle.
    pub(crate) fn pick_boosted(&mut self, pid: Pid, prev: Cpu, allowed: &Affinity) -> Pick {
        let allowed = CpuSet::from(*allowed);
        let pick = self.selector.claim(&Request::new(prev, &allowed).boosted(), &mut self.free);
        if let Some(cpu) = pick.cpu() {
            self.marks += u32::from(!self.selector.boosted().contains(cpu));
            self.selector.mark_boosted(cpu, true);
            self.boosted[cpu.0 as usize] = pid;
        }
        pick
    }

    /// The task is on no CPU now.
    #[inline]
    pub(crate) fn left(&mut self, pid: Pid) {
        if self.marks == 0 {
            return;
        }
        let marked = *self.selector.boosted();
        for cpu in marked.iter() {
            if self.boosted[cpu.0 as usize] == pid {
                self.unmark(cpu);
            }
        }
    }

    fn unmark(&mut self, cpu: Cpu) {
        self.marks -= u32::from(self.selector.boosted().contains(cpu));
        self.selector.mark_boosted(cpu, false);
        self.boosted[cpu.0 as usize] = Pid(0);
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::Topology;
    use crate::sim::Machine;

    #[test]
    fn a_cpu_is_given_away_once_and_a_boosted_one_is_left_alone_until_it_is_idle() {
        let machine = Machine::new(4);
        let port = machine.backend();
        let mut backend = port;
        backend.refresh();
        let mut placement = Placement::new(Selector::new(Topology::flat(4)));
        placement.look(&backend);
        let any = Affinity::ANY;
        assert_eq!(placement.pick_boosted(Pid(7), Cpu(2), &any).cpu(), Some(Cpu(2)));
        assert!(placement.selector().boosted().contains(Cpu(2)));
        let mut given: Vec<_> = (0..3).filter_map(|_| placement.pick(Cpu(2), &any).cpu()).collect();
        given.sort_unstable_by_key(|cpu| cpu.0);
        assert_eq!(given, [Cpu(0), Cpu(1), Cpu(3)]);
        assert_eq!(placement.pick(Cpu(0), &any), Pick::Busy);
        // Another task's event says nothing about this one.
        placement.left(Pid(8));
        assert!(placement.selector().boosted().contains(Cpu(2)));
        placement.left(Pid(7));
        assert!(placement.selector().boosted().is_empty());
        placement.pick_boosted(Pid(7), Cpu(2), &any);
        backend.refresh();
        placement.look(&backend);
        assert!(placement.selector().boosted().is_empty(), "idle again, so nothing runs there");
    }
}
