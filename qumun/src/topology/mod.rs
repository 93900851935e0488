//! Which CPUs share what: cores, caches, nodes, packages, and how strong each CPU is.
//!
//! A [`Topology`] is read once, before the policy starts, from sysfs, from hwloc (feature `hwloc`), or
//! made up. Every domain is a [`CpuSet`] that stands ready, so that questions on the agent's hot path
//! cost a few word operations and no memory.
//!
//! ```
//! use qumun::{Cpu, Distance, Level, Topology};
//!
//! let machine = Topology::synthetic().l3s(2).cores(4).threads(2).build()?;
//! assert_eq!(machine.online().to_string(), "0-15");
//! assert_eq!(machine.domain(Cpu(9), Level::L3).to_string(), "8-15");
//! assert_eq!(machine.distance(Cpu(8), Cpu(9)), Distance::Core);
//! assert_eq!(machine.distance(Cpu(0), Cpu(9)), Distance::Node);
//! # Ok::<(), qumun::Error>(())
//! ```

pub(crate) mod cpuset;
mod display;
mod draft;
#[cfg(feature = "hwloc")]
mod hwloc;
mod synthetic;
mod sysfs;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use crate::{Cpu, CpuSet, Error, ErrorKind, MAX_CPUS, Result};
pub use synthetic::Synthetic;

/// The capacity of the strongest CPU of a machine, as in the kernel (`SCHED_CAPACITY_SCALE`).
pub const FULL_CAPACITY: u32 = 1024;

/// What CPUs can share, closest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// One core: the threads of SMT. A core without SMT is a domain of one CPU.
    Core,
    /// A level 2 cache. Where the machine tells of none: the core.
    L2,
    /// A level 3 cache. Where the machine tells of none: the level 2 cache, which is the last one then;
    /// where it tells of no cache at all, the CPUs of one node in one package.
    L3,
    /// A NUMA node. All CPUs, where the machine knows none; a CPU that no node lists counts to node 0.
    Node,
    /// A package (socket). All CPUs, where the machine does not tell.
    Package,
}

impl Level {
    /// All levels, closest first.
    pub const ALL: [Self; 5] = [Self::Core, Self::L2, Self::L3, Self::Node, Self::Package];
}

/// How far a task moves from one CPU to another: the closest thing that both share. For statistics
/// of migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Distance {
    /// It is the same CPU.
    Same,
    /// Threads of one core: all caches stay warm.
    Core,
    /// One level 2 cache.
    L2,
    /// One level 3 cache.
    L3,
    /// One NUMA node, nothing closer: caches are cold, memory stays local.
    Node,
    /// Nothing is shared, or the place of one of them is not known.
    Far,
}

/// One CPU of a machine that is [described](Topology::from_cpus) by hand, or [told of](Topology::cpu).
///
/// Two CPUs share a core, a cache, a node or a package if they have the same number there; the numbers
/// count for the whole machine, not inside a package, and mean nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuInfo {
    /// Its number.
    pub cpu: Cpu,
    /// Its core.
    pub core: u32,
    /// Its level 2 cache.
    pub l2: u32,
    /// Its level 3 cache.
    pub l3: u32,
    /// Its NUMA node; what is read from a machine keeps the kernel's number.
    pub node: u32,
    /// Its package.
    pub package: u32,
    /// How much it gets done, 1 to [`FULL_CAPACITY`]; values outside are brought inside.
    pub capacity: u32,
}

impl CpuInfo {
    fn domain(&self, level: Level) -> u32 {
        match level {
            Level::Core => self.core,
            Level::L2 => self.l2,
            Level::L3 => self.l3,
            Level::Node => self.node,
            Level::Package => self.package,
        }
    }
}

/// A machine's CPUs and what they share.
///
/// Domains do not change while it exists. Which CPUs are online does, see
/// [`set_online`](Self::set_online). The kernel says nothing about the place of a CPU that is offline, so
/// such a CPU is *not known*: it has no domains, shares nothing with any other CPU, and counts as a weak
/// one. When it comes online, [`is_stale`](Self::is_stale) tells that it is time for a
/// [`reread`](Self::reread).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    possible: CpuSet,
    present: CpuSet,
    online: CpuSet,
    known: CpuSet,
    // By CPU number. For a CPU that is not known, the numbers of the domains point nowhere.
    cpus: Vec<Slot>,
    // By level; in the order of their lowest CPUs.
    domains: [Vec<CpuSet>; Level::ALL.len()],
    // As the kernel numbers them, one for each domain of `Level::Node`.
    node_numbers: Vec<u32>,
    // CPUs of about one capacity, strongest first. Every possible CPU is in exactly one.
    tiers: Vec<CpuSet>,
    siblings: Vec<Siblings>,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    domain: [u16; Level::ALL.len()],
    capacity: u32,
}

const NOWHERE: Slot = Slot { domain: [u16::MAX; Level::ALL.len()], capacity: 1 };

/// The cores that have a second (third, ...) thread whose number is so much higher than that of their
/// first. Real machines number their threads with few distances, mostly one; so "is the whole core idle"
/// is asked for all cores at once by shifting sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Siblings {
    offset: u32,
    firsts: CpuSet,
}

/// Where it was read, for reading it again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Sysfs(PathBuf),
    #[cfg(feature = "hwloc")]
    Hwloc,
    MadeUp,
}

impl Topology {
    /// A machine of equal CPUs, one per core, that share one level 3 cache: at least 1, at most
    /// [`MAX_CPUS`].
    pub fn flat(nr_cpus: u32) -> Self {
        let cpus = CpuSet::first_n(nr_cpus.max(1));
        let info = |cpu: Cpu| CpuInfo { cpu, core: cpu.0, l2: cpu.0, capacity: 1024, ..CpuInfo::default() };
        Self::assemble([cpus; 3], &cpus.iter().map(info).collect::<Vec<_>>(), Source::MadeUp)
    }

    /// A machine that is described CPU by CPU; all are online. Numbers may have holes, the order does not
    /// matter. [`synthetic`](Self::synthetic) is shorter for regular machines.
    ///
    /// # Errors
    /// No CPU, a CPU twice, or a number of [`MAX_CPUS`] or more.
    pub fn from_cpus(cpus: &[CpuInfo]) -> Result<Self> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
        let mut all = CpuSet::EMPTY;
        for CpuInfo { cpu, .. } in cpus {
            if cpu.0 >= MAX_CPUS {
                return invalid(format!("CPU {cpu}: numbers go to {}", MAX_CPUS - 1));
            }
            if all.contains(*cpu) {
                return invalid(format!("CPU {cpu} is described twice"));
            }
            all.insert(*cpu);
        }
        if all.is_empty() {
            return invalid("a machine without a CPU".to_owned());
        }
        Ok(Self::assemble([all; 3], cpus, Source::MadeUp))
    }

    /// Reads it again from where it came; one that was made up is copied, without what
    /// [`set_online`](Self::set_online) changed. This reads files and allocates: it is not for the agent's
    /// thread. The new value is then [put in the place](crate::Selector::replace_topology) of the old one.
    ///
    /// # Errors
    /// Those of [`from_sysfs`](Self::from_sysfs) or `from_hwloc`.
    pub fn reread(&self) -> Result<Self> {
        match &self.source {
            Source::Sysfs(root) => Self::from_sysfs_at(root),
            #[cfg(feature = "hwloc")]
            Source::Hwloc => Self::from_hwloc(),
            Source::MadeUp => Ok(Self { online: self.present, ..self.clone() }),
        }
    }

    /// A CPU came or went. Neither allocates nor reads. Numbers that are not [possible](Self::possible) are
    /// ignored.
    pub fn set_online(&mut self, cpu: Cpu, online: bool) {
        if self.possible.contains(cpu) {
            self.online.set(cpu, online);
        }
    }

    /// Is a CPU online whose place is not known? It is used all the same, as the last choice; a
    /// [`reread`](Self::reread) would find its place.
    pub fn is_stale(&self) -> bool {
        !self.online.is_subset(&self.known)
    }

    /// The CPUs that this machine can ever have.
    pub const fn possible(&self) -> &CpuSet {
        &self.possible
    }

    /// The CPUs that are plugged in.
    pub const fn present(&self) -> &CpuSet {
        &self.present
    }

    /// The CPUs that run tasks.
    pub const fn online(&self) -> &CpuSet {
        &self.online
    }

    /// The CPUs whose place is known; see [`Topology`].
    pub const fn known(&self) -> &CpuSet {
        &self.known
    }

    /// One more than the highest possible CPU number.
    pub fn nr_cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Has any core more than one thread?
    pub fn smt(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// The domains of a level, in the order of their lowest CPUs.
    pub fn domains(&self, level: Level) -> &[CpuSet] {
        &self.domains[level as usize]
    }

    /// The CPUs, this one among them, that share this level with it. Empty for a CPU that is not known.
    pub fn domain(&self, cpu: Cpu, level: Level) -> &CpuSet {
        let index = self.slot(cpu).domain[level as usize];
        self.domains[level as usize].get(usize::from(index)).unwrap_or(const { &CpuSet::EMPTY })
    }

    /// All about one CPU; its numbers are indices into [`domains`](Self::domains), that of the node is the
    /// kernel's. `None` for a CPU that is not known.
    pub fn cpu(&self, cpu: Cpu) -> Option<CpuInfo> {
        let Slot { domain: [core, l2, l3, node, package], capacity } = *self.slot(cpu);
        let node = *self.node_numbers.get(usize::from(node))?;
        let [core, l2, l3, package] = [core, l2, l3, package].map(u32::from);
        Some(CpuInfo { cpu, core, l2, l3, node, package, capacity })
    }

    /// How much a CPU gets done, 1 to [`FULL_CAPACITY`]: what the kernel says (`cpu_capacity`), else its
    /// highest frequency in proportion to that of the fastest CPU, else [`FULL_CAPACITY`]. `None` for a CPU
    /// that is not known.
    pub fn capacity(&self, cpu: Cpu) -> Option<u32> {
        self.known.contains(cpu).then(|| self.slot(cpu).capacity)
    }

    /// The closest thing that two CPUs share.
    pub fn distance(&self, a: Cpu, b: Cpu) -> Distance {
        let shared = |level| self.domain(a, level).contains(b);
        match () {
            () if a == b => Distance::Same,
            () if shared(Level::Core) => Distance::Core,
            () if shared(Level::L2) => Distance::L2,
            () if shared(Level::L3) => Distance::L3,
            () if shared(Level::Node) => Distance::Node,
            () => Distance::Far,
        }
    }

    /// Where to begin the search for a task that was on `cpu`: there, if it is in `allowed`; else on the
    /// lowest CPU of `allowed` that shares its level 2 cache, its level 3 cache or its node, in this order;
    /// else on the lowest of all. `None` if `allowed` is empty.
    pub fn closest(&self, cpu: Cpu, allowed: &CpuSet) -> Option<Cpu> {
        if allowed.contains(cpu) {
            return Some(cpu);
        }
        let near = [Level::L2, Level::L3, Level::Node].into_iter();
        near.filter_map(|level| self.domain(cpu, level).first_in(allowed)).next().or_else(|| allowed.first())
    }

    /// Is the whole core of this CPU idle, that is, every online thread of it in `idle`?
    pub fn is_core_idle(&self, cpu: Cpu, idle: &CpuSet) -> bool {
        idle.contains(cpu) && (*self.domain(cpu, Level::Core) & self.online).is_subset(idle)
    }

    /// The CPUs of `idle` that are online and whose [whole core is idle](Self::is_core_idle).
    pub fn idle_cores(&self, idle: &CpuSet) -> CpuSet {
        let busy = self.online - *idle;
        // A core is marked on its first thread, if one of its others is busy ...
        let mut marked = busy;
        for Siblings { offset, firsts } in &self.siblings {
            marked |= busy.down(*offset) & *firsts;
        }
        // ... and from there on all of them.
        let mut taken = marked;
        for Siblings { offset, firsts } in &self.siblings {
            taken |= (marked & *firsts).up(*offset);
        }
        (*idle & self.online) - taken
    }

    /// The CPU to take of those that `a` and `b` have in common: one of the strongest, and the lowest
    /// number of these. CPUs within 5 % of the strongest of their kind count as equally strong, as for the
    /// kernel (`capacity_greater` in `kernel/sched/fair.c`): boost clocks differ a little from core to core.
    pub fn strongest(&self, a: &CpuSet, b: &CpuSet) -> Option<Cpu> {
        match self.tiers.as_slice() {
            [_] => a.first_in(b),
            tiers => tiers.iter().find_map(|tier| a.first_in_both(b, tier)),
        }
    }

    fn slot(&self, cpu: Cpu) -> &Slot {
        self.cpus.get(cpu.0 as usize).unwrap_or(&NOWHERE)
    }

    /// Everything above is made here, from what the sources found. `cpus` are those that are known, each
    /// once, each below [`MAX_CPUS`].
    fn assemble([possible, present, online]: [CpuSet; 3], cpus: &[CpuInfo], source: Source) -> Self {
        let mut cpus = cpus.to_vec();
        cpus.sort_unstable_by_key(|info| info.cpu);
        let nr_cpus = possible.last().map_or(0, |last| last.0 as usize + 1);
        let mut topology = Self {
            possible,
            present,
            online,
            known: cpus.iter().map(|info| info.cpu).collect(),
            cpus: vec![NOWHERE; nr_cpus],
            domains: Default::default(),
            node_numbers: Vec::new(),
            tiers: Vec::new(),
            siblings: Vec::new(),
            source,
        };
        for info in &cpus {
            if let Some(slot) = topology.cpus.get_mut(info.cpu.0 as usize) {
                slot.capacity = info.capacity.clamp(1, FULL_CAPACITY);
            }
        }
        for level in Level::ALL {
            topology.split(level, &cpus);
        }
        topology.find_siblings();
        topology.rank();
        topology
    }

    /// Numbers the domains of a level by their lowest CPUs.
    fn split(&mut self, level: Level, cpus: &[CpuInfo]) {
        let mut numbers: Vec<u32> = Vec::new();
        let domains = &mut self.domains[level as usize];
        for info in cpus {
            let number = info.domain(level);
            let index = numbers.iter().position(|&n| n == number).unwrap_or_else(|| {
                numbers.push(number);
                domains.push(CpuSet::EMPTY);
                domains.len() - 1
            });
            domains[index].insert(info.cpu);
            if let Some(slot) = self.cpus.get_mut(info.cpu.0 as usize) {
                slot.domain[level as usize] = index as u16;
            }
        }
        if level == Level::Node {
            self.node_numbers = numbers;
        }
    }

    fn find_siblings(&mut self) {
        for core in &self.domains[Level::Core as usize] {
            let Some(first) = core.first() else { continue };
            for other in core.iter().skip(1) {
                let offset = other.0 - first.0;
                match self.siblings.iter_mut().find(|s| s.offset == offset) {
                    Some(siblings) => siblings.firsts.insert(first),
                    None => self.siblings.push(Siblings { offset, firsts: CpuSet::of(first) }),
                }
            }
        }
    }

    /// Sorts CPUs into tiers of about one capacity. There are few: what would be the ninth goes into the
    /// last, so that a strange machine does not make the search slow.
    fn rank(&mut self) {
        const MOST: usize = 8;
        let mut by_capacity: Vec<(u32, Cpu)> =
            self.possible.iter().map(|cpu| (self.slot(cpu).capacity, cpu)).collect();
        by_capacity.sort_unstable_by_key(|&(capacity, cpu)| (std::cmp::Reverse(capacity), cpu));
        let mut top = 0;
        for (capacity, cpu) in by_capacity {
            let weaker = top * 1024 > capacity * 1078;
            if self.tiers.is_empty() || weaker && self.tiers.len() < MOST {
                self.tiers.push(CpuSet::EMPTY);
                top = capacity;
            }
            if let Some(tier) = self.tiers.last_mut() {
                tier.insert(cpu);
            }
        }
    }
}

/// What a file said, short enough for an error message.
fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    let dots = if text.chars().nth(MOST).is_some() { "..." } else { "" };
    format!("{:?}{dots}", text.chars().take(MOST).collect::<String>())
}
