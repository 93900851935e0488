//! Where the tasks of a batch go: idle CPUs, each given away once, and the CPUs that run boosted work.

use crate::{Affinity, Backend, Cpu, CpuSet, MAX_CPUS, Nanos, Pick, PickKind, Pid, Request, Selector};

/// So long a task is let wait for a CPU under its cache, as far as that can be foreseen. Twice what the kernel takes for
/// the cost of a migration (`sched_migration_cost_ns`, 0.5 ms).
const PATIENCE: Nanos = Nanos::from_millis(1);
/// Whoever has a CPU for longer than this runs longer than was foreseen.
const SOON: Nanos = Nanos::from_millis(5);

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
    /// Given away while they were idle to somebody who runs briefly, and nobody was told to wait there since.
    soon: CpuSet,
    /// When each was given away, and when it should be free again.
    given: Vec<(Nanos, Nanos)>,
    /// When the last event was sent: the time, without a look at the clock.
    now: Nanos,
}

impl Placement {
    pub(crate) fn new(selector: Selector) -> Self {
        Self {
            selector,
            free: CpuSet::EMPTY,
            online: CpuSet::ALL,
            boosted: vec![Pid(0); MAX_CPUS as usize],
            marks: 0,
            soon: CpuSet::EMPTY,
            given: vec![(Nanos::ZERO, Nanos::ZERO); MAX_CPUS as usize],
            now: Nanos::ZERO,
        }
    }

    /// An event that was sent at this time.
    #[inline]
    pub(crate) fn saw(&mut self, at: Nanos) {
        self.now = self.now.max(at);
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
        // On a busy machine this is the answer, and the rest a walk through many words.
        if self.free.is_empty() {
            return Pick::Busy;
        }
        let allowed = CpuSet::from(*allowed);
        let pick = self.selector.claim(&Request::new(prev, &allowed), &mut self.free);
        if let Some(cpu) = pick.cpu() {
            self.soon.remove(cpu);
        }
        pick
    }

    /// The same for a task that comes back and ran so long the last time: rather than to a CPU far away, or to whichever
    /// is free first, it is sent to wait for one under its cache that comes free soon.
    pub(crate) fn pick_warm(&mut self, prev: Cpu, allowed: &Affinity, ran: Nanos) -> Pick {
        if self.free.is_empty() && self.soon.is_empty() {
            return Pick::Busy;
        }
        let allowed = CpuSet::from(*allowed);
        let pick = self.selector.pick(&Request::new(prev, &allowed), &self.free);
        if let Pick::Busy | Pick::Cpu { kind: PickKind::CoreAny | PickKind::Any, .. } = pick
            && !self.soon.is_empty()
            && let Some(cpu) = self.soon(prev, &allowed)
        {
            self.soon.remove(cpu);
            return Pick::Cpu { cpu, kind: PickKind::Soon };
        }
        if let Some(cpu) = pick.cpu() {
            self.free.remove(cpu);
            self.soon.insert(cpu);
            self.given[cpu.0 as usize] = (self.now, self.now + ran);
        }
        pick
    }

    /// The CPU under the cache of `prev` that should be free first, if that is soon.
    fn soon(&self, prev: Cpu, allowed: &CpuSet) -> Option<Cpu> {
        let near = self.selector.near(prev, allowed)?;
        let ends = |cpu: &Cpu| {
            let (given, ends) = self.given[cpu.0 as usize];
            (given + SOON > self.now && ends < self.now + PATIENCE).then_some((ends, *cpu))
        };
        (self.soon & near).iter().filter_map(|cpu| ends(&cpu)).min().map(|(_, cpu)| cpu)
    }

    /// The same for boosted work: the CPU is marked until its task is queued again, ends, or the CPU is idle.
    pub(crate) fn pick_boosted(&mut self, pid: Pid, prev: Cpu, allowed: &Affinity) -> Pick {
        let allowed = CpuSet::from(*allowed);
        let pick = self.selector.claim(&Request::new(prev, &allowed).boosted(), &mut self.free);
        if let Some(cpu) = pick.cpu() {
            // Who has it now may keep it.
            self.soon.remove(cpu);
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
