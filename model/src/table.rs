//! All strategies of a node, in a form that the agent's thread can ask.

use std::cmp::Reverse;

use crate::{CgroupId, Comm, Label, Lease, StrategyId, Subject, Target, TaskNumber, ThreadId};

/// Which table it is. Each one that a node makes has a greater number than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Generation(pub u64);

/// All strategies that hold on a node. It is never changed: another one takes its place, whole, see
/// [`handover`](crate::handover).
///
/// Looking something up allocates nothing and takes a few binary searches. Where several strategies are for
/// one thread, there is one rule:
///
/// 1. the most specific target: task or thread, process, cgroup, name;
/// 2. among those, the strongest class;
/// 3. among those, the smallest number.
///
/// A strategy that has expired is as one that is not there, so the next one in this order holds.
///
/// The answer for a thread may be kept until the [generation](Self::generation) is another, the lease has
/// expired, or what is known about the thread has changed.
///
/// ```
/// # use gthulhu_model::*;
/// # fn main() -> Result<(), Error> {
/// let mut table = StrategyTable::builder(Generation(1));
/// let (id, nginx) = (StrategyId::new(7)?, Comm::new("nginx")?);
/// let priority = Priority::new(Class::Latency(Level::new(5)?));
/// let now_ns = 1_000_000_000;
/// table.add(Strategy { id, target: Target::Comm(nginx), priority, ttl: Ttl::default() }.lease(now_ns));
/// let table = table.build();
///
/// let subject = Subject { comm: Some(nginx), ..Subject::default() };
/// assert_eq!(table.find(&subject, now_ns).map(|lease| lease.strategy.priority), Some(priority));
/// let later = now_ns + Ttl::default().as_nanos();
/// assert_eq!(table.find(&subject, later), None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct StrategyTable {
    generation: Generation,
    tasks: Index<TaskNumber>,
    threads: Index<ThreadId>,
    processes: Index<ThreadId>,
    cgroups: Index<CgroupId>,
    comms: Index<Comm>,
    ids: Index<StrategyId>,
}

/// Collects strategies for a table. Not for the agent's thread: it allocates.
#[derive(Clone, Debug, Default)]
pub struct TableBuilder {
    generation: Generation,
    leases: Vec<Lease>,
}

impl TableBuilder {
    /// Adds one. The order in which they are added does not matter.
    pub fn add(&mut self, lease: Lease) -> &mut Self {
        self.leases.push(lease);
        self
    }

    /// The table of them.
    pub fn build(&self) -> StrategyTable {
        let leases = &self.leases;
        StrategyTable {
            generation: self.generation,
            tasks: index(leases, |target| if let Target::Task(task) = target { Some(task) } else { None }),
            threads: index(
                leases,
                |target| if let Target::Thread(thread) = target { Some(thread) } else { None },
            ),
            processes: index(leases, |target| {
                if let Target::Process(process) = target { Some(process) } else { None }
            }),
            cgroups: index(
                leases,
                |target| if let Target::Cgroup(cgroup) = target { Some(cgroup) } else { None },
            ),
            comms: index(leases, |target| if let Target::Comm(comm) = target { Some(comm) } else { None }),
            ids: Index::new(leases.iter().map(|lease| (lease.strategy.id, *lease))),
        }
    }
}

fn index<K: Ord + Copy>(leases: &[Lease], key: impl Fn(Target) -> Option<K>) -> Index<K> {
    Index::new(leases.iter().filter_map(|lease| Some((key(lease.strategy.target)?, *lease))))
}

impl StrategyTable {
    /// To make the table of this generation.
    pub fn builder(generation: Generation) -> TableBuilder {
        TableBuilder { generation, leases: Vec::new() }
    }

    /// Which table it is.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What holds for a thread now. The time is of the clock by which the [leases](crate::Strategy::lease)
    /// were made.
    pub fn find(&self, subject: &Subject, now_ns: u64) -> Option<&Lease> {
        // Both name one thread: neither is more specific.
        let task = self.tasks.get(subject.task, now_ns);
        let thread = self.threads.get(subject.thread, now_ns);
        strongest(task, thread)
            .or_else(|| self.processes.get(subject.process, now_ns))
            .or_else(|| self.cgroups.get(subject.cgroup, now_ns))
            .or_else(|| self.comms.get(subject.comm, now_ns))
    }

    /// The strategy of this number, if it still holds: for a thread that carries it in its
    /// [`Label`], set for it or inherited.
    pub fn get(&self, id: StrategyId, now_ns: u64) -> Option<&Lease> {
        self.ids.get(Some(id), now_ns)
    }

    /// What holds now: of each target's strategies the strongest.
    pub fn in_force(&self, now_ns: u64) -> impl Iterator<Item = &Lease> {
        let narrow = self.tasks.in_force(now_ns).chain(self.threads.in_force(now_ns));
        let wide = self.cgroups.in_force(now_ns).chain(self.comms.in_force(now_ns));
        narrow.chain(self.processes.in_force(now_ns)).chain(wide)
    }

    /// Are there no strategies in it?
    pub fn is_empty(&self) -> bool {
        self.ids.keys.is_empty()
    }
}

/// What decides between two leases for the same target; the greatest holds. All that can differ and
/// matters is in it, so that the table does not depend on the order in which it was filled.
fn strength(lease: &Lease) -> impl Ord + use<> {
    let strategy = lease.strategy;
    let said = Label::Priority(strategy.priority).pack();
    (strategy.priority.class, Reverse(strategy.id), said, lease.expires_at_ns)
}

fn strongest<'a>(a: Option<&'a Lease>, b: Option<&'a Lease>) -> Option<&'a Lease> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if strength(a) >= strength(b) { a } else { b }),
        (one, other) => one.or(other),
    }
}

/// The leases of each key.
///
/// Those of one key stand from the strongest, which expires first, to the weakest, which expires last; one
/// that is weaker *and* expires no later will never hold, and is left out. So whatever the time is, one search
/// for key and time finds the strongest that still holds, however many there are.
#[derive(Clone, Debug)]
struct Index<K> {
    /// The key, and when the lease at the same position expires. Apart from the leases: a search reads less.
    keys: Box<[(K, u64)]>,
    leases: Box<[Lease]>,
}

impl<K: Ord + Copy> Index<K> {
    fn new(leases: impl Iterator<Item = (K, Lease)>) -> Self {
        let mut leases: Vec<_> = leases.collect();
        leases.sort_by_key(|(key, lease)| (*key, Reverse(strength(lease))));
        let mut last = None;
        leases.retain(|(key, lease)| {
            let outlived = last.is_some_and(|(of, until)| of == *key && until >= lease.expires_at_ns);
            if !outlived {
                last = Some((*key, lease.expires_at_ns));
            }
            !outlived
        });
        Self {
            keys: leases.iter().map(|(key, lease)| (*key, lease.expires_at_ns)).collect(),
            leases: leases.into_iter().map(|(_, lease)| lease).collect(),
        }
    }

    /// The strongest lease of each key.
    fn in_force(&self, now_ns: u64) -> impl Iterator<Item = &Lease> {
        self.keys
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter_map(move |of_key| self.get(Some(of_key[0].0), now_ns))
    }

    fn get(&self, key: Option<K>, now_ns: u64) -> Option<&Lease> {
        let key = key?;
        let first = self.keys.partition_point(|other| *other <= (key, now_ns));
        let (found, _) = self.keys.get(first)?;
        if *found == key { self.leases.get(first) } else { None }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { keys: Box::default(), leases: Box::default() }
    }
}

#[cfg(test)]
mod tests;
