//! A topology while it is being read: lists of CPUs that share something, from wherever.

use super::{CpuInfo, Level, Source, Topology};
use crate::{Cpu, CpuSet, MAX_CPUS};

/// Collects, and [closes the gaps](Self::finish) that machines leave.
///
/// Lists that overlap become one: each thread of a core names all of them, and two lists that
/// contradict each other (read while a CPU came or went) mean what both say together.
pub(super) struct Draft {
    possible: CpuSet,
    present: CpuSet,
    online: CpuSet,
    known: CpuSet,
    // For each level and CPU, a lower CPU of the same group, or itself.
    groups: [Vec<u32>; Level::ALL.len()],
    // Which CPUs a list of this level named.
    named: [CpuSet; Level::ALL.len()],
    capacity: Vec<u32>,
    node: Vec<u32>,
}

impl Draft {
    pub(super) fn new(possible: CpuSet, present: CpuSet, online: CpuSet) -> Self {
        Self {
            possible,
            present: present & possible,
            online: online & possible,
            known: CpuSet::EMPTY,
            groups: std::array::from_fn(|_| (0..MAX_CPUS).collect()),
            named: [CpuSet::EMPTY; Level::ALL.len()],
            capacity: vec![super::FULL_CAPACITY; MAX_CPUS as usize],
            node: vec![0; MAX_CPUS as usize],
        }
    }

    /// The place of this CPU is known.
    pub(super) fn know(&mut self, cpu: Cpu) {
        self.known.insert(cpu);
        self.known &= self.possible;
    }

    /// The CPUs whose place is known so far.
    pub(super) fn known(&self) -> CpuSet {
        self.known
    }

    /// These CPUs share this level.
    pub(super) fn share(&mut self, level: Level, cpus: &CpuSet) {
        let cpus = *cpus & self.possible;
        self.named[level as usize] |= cpus;
        let Some(first) = cpus.first() else { return };
        for cpu in cpus.iter() {
            let (a, b) = (self.group(level, first), self.group(level, cpu));
            self.groups[level as usize][a.max(b) as usize] = a.min(b);
        }
    }

    /// The kernel's number of the node of these CPUs.
    pub(super) fn number_node(&mut self, number: u32, cpus: &CpuSet) {
        cpus.iter().for_each(|cpu| self.node[cpu.0 as usize] = number);
    }

    pub(super) fn set_capacity(&mut self, cpu: Cpu, capacity: u32) {
        if let Some(place) = self.capacity.get_mut(cpu.0 as usize) {
            *place = capacity;
        }
    }

    /// Closes the gaps as [`Level`] says and makes the topology.
    pub(super) fn finish(mut self, source: Source) -> Topology {
        for level in [Level::Node, Level::Package] {
            self.share(level, &self.unnamed(level));
        }
        let no_l2 = self.unnamed(Level::L2);
        self.inherit(no_l2, Level::Core, Level::L2);
        let no_l3 = self.unnamed(Level::L3);
        self.inherit(no_l3 - no_l2, Level::L2, Level::L3);
        let mut no_cache = no_l3 & no_l2;
        while let Some(cpu) = no_cache.first() {
            let place = (self.group(Level::Node, cpu), self.group(Level::Package, cpu));
            let same = |&c: &Cpu| (self.group(Level::Node, c), self.group(Level::Package, c)) == place;
            let here: CpuSet = no_cache.iter().filter(same).collect();
            self.share(Level::L3, &here);
            no_cache -= here;
        }
        // Emulators give each thread of a core a level 2 cache of its own: threads that run on the same units share
        // whatever lies above them.
        let inner = [
            (Level::Core, Level::L2),
            (Level::L2, Level::L3),
            (Level::Core, Level::Node),
            (Level::Core, Level::Package),
        ];
        for (from, to) in inner {
            self.inherit(self.known, from, to);
        }
        let cpus: Vec<CpuInfo> = self.known.iter().map(|cpu| self.info(cpu)).collect();
        Topology::assemble([self.possible, self.present, self.online], &cpus, source)
    }

    fn unnamed(&self, level: Level) -> CpuSet {
        self.known - self.named[level as usize]
    }

    /// Groups these CPUs on a level as they are on a lower one.
    fn inherit(&mut self, cpus: CpuSet, from: Level, to: Level) {
        for cpu in cpus.iter() {
            let lowest = Cpu(self.group(from, cpu));
            self.share(to, &[cpu, lowest].into_iter().collect());
        }
    }

    fn info(&self, cpu: Cpu) -> CpuInfo {
        let [core, l2, l3, node, package] = Level::ALL.map(|level| self.group(level, cpu));
        let node = self.node.get(node as usize).copied().unwrap_or(0);
        CpuInfo { cpu, core, l2, l3, node, package, capacity: self.capacity[cpu.0 as usize] }
    }

    /// The lowest CPU of a CPU's group. It ends, because each step goes to a lower number.
    fn group(&self, level: Level, cpu: Cpu) -> u32 {
        let lower = &self.groups[level as usize];
        let mut at = cpu.0;
        while lower[at as usize] < at {
            at = lower[at as usize];
        }
        at
    }
}
