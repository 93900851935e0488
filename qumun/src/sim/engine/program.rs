//! What tasks do: small programs.

use crate::sim::linux::{Cgroup, Limit};
use crate::sim::values::Spec;
use crate::{CpuSet, Nanos};

/// A length of time, perhaps a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Span {
    /// Always the same.
    Fixed(Nanos),
    /// Any from the first to the second, all as likely.
    Uniform(Nanos, Nanos),
    /// Exponentially distributed with this mean: the gaps between independent arrivals.
    Exponential(Nanos),
}

impl Span {
    /// Its mean.
    pub const fn mean(self) -> Nanos {
        match self {
            Self::Fixed(time) | Self::Exponential(time) => time,
            Self::Uniform(low, high) => Nanos(low.as_u64() / 2 + high.as_u64() / 2),
        }
    }
}

impl From<Nanos> for Span {
    fn from(time: Nanos) -> Self {
        Self::Fixed(time)
    }
}

/// One step of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Computes.
    Run(Span),
    /// Sleeps.
    Sleep(Span),
    /// Sleeps until the next multiple of this since the task began: a timer that does not drift.
    Every(Nanos),
    /// Sleeps until so long after the beginning of the simulation; goes on at once if that is over.
    Until(Nanos),
    /// Waits until somebody wakes it. A wake that came before counts.
    Block,
    /// Wakes a task of a group: the one with the waker's number in its own group, modulo their number.
    Wake(Group),
    /// Wakes all tasks of a group.
    WakeAll(Group),
    /// Makes a task of a group, with the affinity, weight, cgroup and label of this one.
    Fork(Group),
    /// Waits until all that it has forked have ended.
    Join,
    /// Changes where it may run.
    Pin(CpuSet),
    /// Moves to another cgroup: one that [`Workload::cgroup`] gave, or 1, the root.
    Move(u64),
    /// Ends.
    Exit,
}

/// Tasks that do the same: a number that [`Workload::group`] gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub(crate) usize);

/// One group: how many tasks there are from the start, what they are like, and what they do over and over.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    pub(crate) name: String,
    pub(crate) count: usize,
    pub(crate) spec: Spec,
    pub(crate) begins: Nanos,
    pub(crate) steps: Vec<Step>,
}

/// The tasks of a simulation.
///
/// ```
/// use qumun::Nanos;
/// use qumun::sim::{Spec, Step, Workload};
///
/// let mut work = Workload::new();
/// work.group("hogs", 4, Spec::default(), vec![Step::Run(Nanos::from_millis(1_000).into())]);
/// let ms = |n| Nanos::from_millis(n);
/// work.group("periodic", 2, Spec::default(), vec![Step::Run(ms(1).into()), Step::Every(ms(10))]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Workload {
    pub(crate) groups: Vec<Members>,
    /// The first has id 2.
    pub(crate) cgroups: Vec<Cgroup>,
}

/// The id of the root cgroup, where tasks are unless told.
const ROOT: u64 = 1;

impl Workload {
    /// No tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cgroup and gives its id, for [`Spec::cgroup_id`] and for cgroups in it. `parent` is such an id, or 1 for the
    /// root. `weight` is as in `cpu.weight`, 100 unless set.
    pub fn cgroup(&mut self, parent: u64, weight: u32, limit: Limit) -> u64 {
        self.cgroups.push(Cgroup { parent, weight, limit });
        ROOT + self.cgroups.len() as u64
    }

    /// Adds tasks that follow these steps, from the first to the last and again. With `count` 0 they come by
    /// [`Step::Fork`] only.
    pub fn group(&mut self, name: &str, count: usize, spec: Spec, steps: Vec<Step>) -> Group {
        self.group_at(Nanos::ZERO, name, count, spec, steps)
    }

    /// The same, but they begin later.
    pub fn group_at(
        &mut self,
        begins: Nanos,
        name: &str,
        count: usize,
        spec: Spec,
        steps: Vec<Step>,
    ) -> Group {
        self.groups.push(Members { name: name.to_owned(), count, spec, begins, steps });
        Group(self.groups.len() - 1)
    }

    /// The steps of a group, to be changed: two groups that wake each other are made one after the other.
    pub fn steps(&mut self, group: Group) -> Option<&mut Vec<Step>> {
        self.groups.get_mut(group.0).map(|members| &mut members.steps)
    }

    /// The groups: each with its name and how many tasks it has from the start.
    pub fn groups(&self) -> impl Iterator<Item = (Group, &str, usize)> {
        (self.groups.iter().enumerate())
            .map(|(index, group)| (Group(index), group.name.as_str(), group.count))
    }

    /// The group of this name.
    pub fn named(&self, name: &str) -> Option<Group> {
        self.groups().find(|(_, other, _)| *other == name).map(|(group, ..)| group)
    }

    /// Can it be simulated?
    ///
    /// # Errors
    /// What is wrong, with the group and the step: a step without time that goes on for ever, a group that does not exist.
    pub fn check(&self) -> Result<(), String> {
        for (cgroup, id) in self.cgroups.iter().zip(ROOT + 1..) {
            if !(ROOT..id).contains(&cgroup.parent) {
                return Err(format!("cgroup {id}: its parent {} is not made before it", cgroup.parent));
            }
        }
        for (members, index) in self.groups.iter().zip(0..) {
            let name = &members.name;
            if members.steps.is_empty() {
                return Err(format!("group {index} ({name}) has no step; let it Exit, or leave it out"));
            }
            let takes_time = |step: &Step| match step {
                Step::Run(span) | Step::Sleep(span) => match span {
                    Span::Fixed(time) | Span::Exponential(time) => *time > Nanos::ZERO,
                    Span::Uniform(low, high) => low <= high && *high > Nanos::ZERO,
                },
                Step::Every(period) => *period > Nanos::ZERO,
                Step::Block | Step::Join | Step::Exit => true,
                _ => false,
            };
            if !members.steps.iter().any(takes_time) {
                return Err(format!("group {index} ({name}) would go round without ever taking time"));
            }
            for (step, n) in members.steps.iter().zip(0..) {
                let other = match step {
                    Step::Wake(other) | Step::WakeAll(other) | Step::Fork(other) => other,
                    Step::Move(id) if !(ROOT..=ROOT + self.cgroups.len() as u64).contains(id) => {
                        return Err(format!("group {index} ({name}), step {n}: there is no cgroup {id}"));
                    }
                    Step::Every(Nanos::ZERO) => {
                        return Err(format!("group {index} ({name}), step {n}: a period of no time"));
                    }
                    _ => continue,
                };
                if other.0 >= self.groups.len() {
                    return Err(format!("group {index} ({name}), step {n}: there is no group {}", other.0));
                }
            }
        }
        Ok(())
    }
}

/// What makes a workload smaller, and what it is made of.
#[cfg_attr(not(feature = "testkit"), allow(dead_code, reason = "only the testkit looks for a smaller one"))]
impl Workload {
    pub(crate) fn steps_of(&self, group: Group) -> &[Step] {
        self.groups.get(group.0).map_or(&[], |members| &members.steps)
    }

    pub(crate) fn spec_of(&self, group: Group) -> Option<&Spec> {
        self.groups.get(group.0).map(|members| &members.spec)
    }

    pub(crate) fn spec_of_mut(&mut self, group: Group, change: impl FnOnce(&mut Spec)) {
        if let Some(members) = self.groups.get_mut(group.0) {
            change(&mut members.spec);
        }
    }

    pub(crate) fn set_count(&mut self, group: Group, count: usize) {
        if let Some(members) = self.groups.get_mut(group.0) {
            members.count = count;
        }
    }

    /// The weight of the tasks of a group that do nothing but compute, anywhere, from the start.
    pub(crate) fn computes_at(&self, group: Group) -> Option<u32> {
        let members = self.groups.get(group.0)?;
        let computes = members.steps.iter().all(|step| matches!(step, Step::Run(_)));
        let free = members.spec.cpus == CpuSet::ALL && members.begins == Nanos::ZERO;
        (computes && free).then_some(members.spec.weight)
    }

    /// Takes a group out, and every step that names it.
    pub(crate) fn remove(&mut self, group: Group) {
        if group.0 >= self.groups.len() {
            return;
        }
        self.groups.remove(group.0);
        for members in &mut self.groups {
            members.steps.retain_mut(|step| match step {
                Step::Wake(other) | Step::WakeAll(other) | Step::Fork(other) => other.moves_up(group),
                _ => true,
            });
        }
    }
}

impl Group {
    /// What it is called when another has gone; `false` if it is that one.
    pub(crate) fn moves_up(&mut self, gone: Self) -> bool {
        let stays = *self != gone;
        if self.0 > gone.0 {
            self.0 -= 1;
        }
        stays
    }
}
