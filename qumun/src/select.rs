//! Which idle CPU a task gets.

use std::fmt;

use crate::{Cpu, CpuSet, Level, Topology};

/// Chooses an idle CPU for a task: one that is warm for it, on a core of its own if there is one.
///
/// The order is this; the first that exists is taken, always among the CPUs where the task may run:
///
/// 1. The task may use one CPU only: that one if it is idle, else [`Busy`](Pick::Busy).
/// 2. With SMT: the previous CPU, if its whole core is idle; a CPU whose whole core is idle under the same
///    level 2 cache; under the same level 3 cache; anywhere.
/// 3. The previous CPU, if it is idle; an idle CPU under the same level 2 cache; under the same level 3
///    cache; anywhere.
/// 4. [`Busy`](Pick::Busy).
///
/// Where several CPUs are equal by this, the choice is, in this order: *anywhere* begins in the node of
/// the previous CPU; the strongest CPU ([`Topology::strongest`]), so that on a hybrid machine a task that
/// moves anyway moves to a big core; the lowest number. A task that finds its previous CPU idle stays
/// there, big or small.
///
/// A core is *whole idle* if all its online threads are idle, those where the task may not run included.
///
/// The previous CPU may be gone, or forbidden by now. [`Topology::closest`] then takes its place.
///
/// # Boosted work
/// [`mark_boosted`](Self::mark_boosted) remembers on which CPUs boosted work (of a high priority) runs.
/// Other work avoids them, and prefers cores without a boosted thread to those with one: steps 2 and 3
/// are gone through as if these CPUs were busy, and once more with all if that found nothing. Boosted work
/// takes no notice of the marks.
///
/// # Use
/// ```
/// use qumun::{Cpu, CpuSet, Pick, PickKind, Request, Selector, Topology};
///
/// let machine = Topology::synthetic().l3s(2).cores(2).threads(2).build()?; // cores 0-1 2-3 | 4-5 6-7
/// let selector = Selector::new(machine);
///
/// let mut idle: CpuSet = "0,2-5".parse()?; // `CpuSet::from(cx.idle())` in a policy
/// let anywhere = CpuSet::ALL; //              `CpuSet::from(task.allowed)`
/// let request = Request::new(Cpu(0), &anywhere);
/// // CPU 0 is idle, but its core is not.
/// assert_eq!(selector.claim(&request, &mut idle), Pick::Cpu { cpu: Cpu(2), kind: PickKind::CoreL3 });
/// assert_eq!(selector.claim(&request, &mut idle), Pick::Cpu { cpu: Cpu(4), kind: PickKind::CoreAny });
/// assert_eq!(selector.claim(&request, &mut idle), Pick::Cpu { cpu: Cpu(0), kind: PickKind::Prev });
/// # Ok::<(), qumun::Error>(())
/// ```
///
/// Nothing here allocates; a choice costs some passes over sets of 1,024 bits, however many CPUs
/// there are.
#[derive(Clone, Debug)]
pub struct Selector {
    topology: Topology,
    boosted: CpuSet,
    reach: Reach,
}

/// How far a task may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// To any CPU.
    #[default]
    Machine,
    /// To any CPU, but to one under another level 3 cache only if none under its own is idle. The chart alone
    /// prefers a whole idle core far away to an idle thread nearby, and on a machine where most cores have
    /// something to do (one thread each, say) sends tasks to and fro between caches. (Measured with 6
    /// tasks on 8 CPUs with two caches: 78 % of wakeups in the cache of the last one, EEVDF 100 %.)
    Cache,
    /// To CPUs of the NUMA node of its previous CPU, where its memory is; rather to none than to another
    /// node. If the task may not run in that node any more, the node of the CPU
    /// [that takes the place](Topology::closest) of the previous one counts. A CPU whose node is not known
    /// reaches the whole machine.
    Node,
}

/// Which task looks for a CPU.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Where it ran last. Any number is fine.
    pub prev: Cpu,
    /// Where it may run.
    pub allowed: &'a CpuSet,
    /// It is boosted work, see [`Selector`].
    pub boosted: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This CPU is idle, online, and the task may run there.
    Cpu {
        /// Which CPU.
        cpu: Cpu,
        /// Why this one.
        kind: PickKind,
    },
    /// No CPU within the task's reach is idle. Send the task to whichever is free first
    /// ([`Queued::anywhere`](crate::Queued::anywhere)), or keep it.
    Busy,
}

/// Why a CPU was picked: the box of the flow chart in [`Selector`]. *Previous* is the CPU where the task
/// ran last, or the one that takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PickKind {
    /// The only CPU where the task may run.
    Only,
    /// The previous CPU; its whole core is idle. (SMT only, as the next three.)
    PrevCore,
    /// On a core that is whole idle, under the same level 2 cache as the previous CPU.
    CoreL2,
    /// On a core that is whole idle, under the same level 3 cache.
    CoreL3,
    /// On a core that is whole idle, farther away.
    CoreAny,
    /// The previous CPU. With SMT, another thread of its core is busy.
    Prev,
    /// Under the same level 2 cache as the previous CPU. With SMT, on a core that is half busy, as in the
    /// next two.
    L2,
    /// Under the same level 3 cache.
    L3,
    /// Farther away.
    Any,
    /// Under the same level 3 cache, not idle, but a moment ago. Of [`Context::pick_warm`](crate::Context::pick_warm)
    /// only.
    Soon,
}

impl PickKind {
    /// All of them, in the order of the flow chart: `kind as usize` is the index here.
    pub const ALL: [Self; 10] = [
        Self::Only,
        Self::PrevCore,
        Self::CoreL2,
        Self::CoreL3,
        Self::CoreAny,
        Self::Prev,
        Self::L2,
        Self::L3,
        Self::Any,
        Self::Soon,
    ];

    /// A name for labels and logs, as `prev-core`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::PrevCore => "prev-core",
            Self::CoreL2 => "core-l2",
            Self::CoreL3 => "core-l3",
            Self::CoreAny => "core-any",
            Self::Prev => "prev",
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::Any => "any",
            Self::Soon => "soon",
        }
    }
}

impl fmt::Display for PickKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Pick {
    /// The CPU, if one was found.
    pub const fn cpu(self) -> Option<Cpu> {
        match self {
            Self::Cpu { cpu, .. } => Some(cpu),
            Self::Busy => None,
        }
    }
}

impl<'a> Request<'a> {
    /// For ordinary work.
    pub const fn new(prev: Cpu, allowed: &'a CpuSet) -> Self {
        Self { prev, allowed, boosted: false }
    }

    /// For boosted work.
    #[must_use]
    pub const fn boosted(self) -> Self {
        Self { boosted: true, ..self }
    }
}

impl Selector {
    /// For this machine, [as far](Reach) as it goes, with nothing boosted.
    pub const fn new(topology: Topology) -> Self {
        Self { topology, boosted: CpuSet::EMPTY, reach: Reach::Machine }
    }

    /// Sends tasks this far.
    #[must_use]
    pub fn with_reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// The machine.
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The machine, to say [which CPUs are online](Topology::set_online).
    pub const fn topology_mut(&mut self) -> &mut Topology {
        &mut self.topology
    }

    /// Puts another value in the place of the topology, one that was [read again](Topology::reread). The
    /// old one comes back, so that its memory need not be freed on the agent's thread.
    ///
    /// Which CPUs are online is the new value's word. If CPUs came or went since it was read, say so again.
    pub const fn replace_topology(&mut self, topology: Topology) -> Topology {
        std::mem::replace(&mut self.topology, topology)
    }

    /// Says whether boosted work runs on a CPU.
    pub const fn mark_boosted(&mut self, cpu: Cpu, boosted: bool) {
        self.boosted.set(cpu, boosted);
    }

    /// The CPUs that are marked.
    pub const fn boosted(&self) -> &CpuSet {
        &self.boosted
    }

    /// Picks a CPU for the task from the idle ones.
    pub fn pick(&self, request: &Request<'_>, idle: &CpuSet) -> Pick {
        if idle.is_empty() {
            return Pick::Busy;
        }
        let allowed = *request.allowed & *self.topology.online();
        if let Some(cpu) = allowed.single() {
            let idle = idle.contains(cpu);
            return if idle { Pick::Cpu { cpu, kind: PickKind::Only } } else { Pick::Busy };
        }
        let Some(prev) = self.topology.closest(request.prev, &allowed) else {
            return Pick::Busy;
        };
        let reach = match (self.reach, self.topology.domain(prev, Level::Node)) {
            (Reach::Node, node) if !node.is_empty() => allowed & *node,
            _ => allowed,
        };
        if !request.boosted && self.boosted.intersects(idle) {
            let pick = self.search_near_first(prev, &reach, &(*idle - self.boosted));
            if pick != Pick::Busy {
                return pick;
            }
        }
        self.search_near_first(prev, &reach, idle)
    }

    /// Where a task may run under the last cache of its previous CPU, idle or not. `None` if this makes no difference:
    /// with another [`Reach`], or where the previous CPU is gone.
    pub(crate) fn near(&self, prev: Cpu, allowed: &CpuSet) -> Option<CpuSet> {
        let open = *allowed & *self.topology.online();
        (self.reach == Reach::Cache && open.contains(prev))
            .then(|| open & *self.topology.domain(prev, Level::L3))
    }

    fn search_near_first(&self, prev: Cpu, reach: &CpuSet, idle: &CpuSet) -> Pick {
        if self.reach == Reach::Cache {
            let near = self.search(prev, &(*reach & *self.topology.domain(prev, Level::L3)), idle);
            if near != Pick::Busy {
                return near;
            }
        }
        self.search(prev, reach, idle)
    }

    /// [Picks](Self::pick), and takes the CPU out of the idle ones: for placing a batch.
    pub fn claim(&self, request: &Request<'_>, idle: &mut CpuSet) -> Pick {
        let pick = self.pick(request, idle);
        if let Pick::Cpu { cpu, .. } = pick {
            idle.remove(cpu);
        }
        pick
    }

    /// Steps 2 to 4. The previous CPU and all in reach are online.
    fn search(&self, prev: Cpu, reach: &CpuSet, idle: &CpuSet) -> Pick {
        let free = *idle & *reach;
        if free.is_empty() {
            return Pick::Busy;
        }
        if self.topology.smt() {
            if free.contains(prev) && self.topology.is_core_idle(prev, idle) {
                return Pick::Cpu { cpu: prev, kind: PickKind::PrevCore };
            }
            let cores = self.topology.idle_cores(idle) & *reach;
            let kinds = [PickKind::CoreL2, PickKind::CoreL3, PickKind::CoreAny];
            if let Some(pick) = self.nearest(prev, &cores, kinds) {
                return pick;
            }
        }
        if free.contains(prev) {
            return Pick::Cpu { cpu: prev, kind: PickKind::Prev };
        }
        self.nearest(prev, &free, [PickKind::L2, PickKind::L3, PickKind::Any]).unwrap_or(Pick::Busy)
    }

    fn nearest(&self, prev: Cpu, free: &CpuSet, [l2, l3, any]: [PickKind; 3]) -> Option<Pick> {
        let near = [(Level::L2, l2), (Level::L3, l3), (Level::Node, any)].into_iter();
        near.map(|(level, kind)| (self.topology.domain(prev, level), kind))
            .chain([(const { &CpuSet::ALL }, any)])
            .find_map(|(domain, kind)| {
                self.topology.strongest(free, domain).map(|cpu| Pick::Cpu { cpu, kind })
            })
    }
}

#[cfg(test)]
mod tests;
