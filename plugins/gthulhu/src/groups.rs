//! Shares of cgroups: each group has its part among its siblings, and its members have theirs in it.

use qumun::pool::Handle;
use qumun::{Nanos, Queued};

use crate::cache::Cache;
use crate::clock::{AHEAD, BEHIND, Clock, Member, per_weight, scale};

/// Groups that are remembered; the one that was not used for longest makes room.
const CAPACITY: usize = 4_096;
/// Deeper ones are taken for children of the root.
pub(crate) const DEPTH: usize = 8;
/// The root of cgroup v2 is inode 1; 0 is above it, and of a task that it is not known. Tasks there have groups as siblings.
const ROOT: u64 = 1;
/// A group that nothing was heard of for so long, and then wakes up, has slept.
const QUIET: Nanos = Nanos(20_000_000);

/// Who did not sleep was kept waiting for so long at most, and is owed no more than all CPUs for that time. Who weighs much
/// can only be behind by more when it did not want what was its own: a group whose tasks sleep for moments.
const WAITED: u64 = 200_000_000;

/// The groups that tasks are in, and the clock of the root.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    root: Clock,
    nr_cpus: u32,
    cache: Cache<Group>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    parent: u64,
    weight: u32,
    /// Among its siblings.
    member: Member,
    /// Of those in it.
    clock: Clock,
    /// When one in it wanted to run last.
    seen: Nanos,
}

/// A task, and what it weighs.
#[derive(Debug)]
pub(crate) struct Asks<'a> {
    pub(crate) member: &'a mut Member,
    pub(crate) weight: u32,
    pub(crate) cgroup: u64,
    /// It has slept, or is new.
    pub(crate) woke: bool,
    /// For how long.
    pub(crate) slept: Nanos,
    /// For how far back a sleeper's credit goes.
    pub(crate) credit: u64,
    /// What it was charged for just now, and wants to go on.
    pub(crate) just: u64,
    /// Is this place its turn? If not it is served by a boost, and its turn says nothing about others.
    pub(crate) counts: bool,
}

/// Where a task stands on the root's axis.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) place: u64,
    /// By how much each nanosecond that it runs moves it there, in parts of [`UNIT`].
    pace: u64,
}

/// The pace of a task of weight 100 at the root.
const UNIT: u64 = 1 << 32;

impl Standing {
    /// What so much time on a CPU is on the axis. For who weighs little no more than for others: an order of those who
    /// wait must not become a long wait.
    pub(crate) fn worth(self, time: u64) -> u64 {
        (u128::from(time) * u128::from(self.pace) / u128::from(UNIT)).min(time.into()) as u64
    }

    /// How far each nanosecond that it runs moves it on the axis, in parts of [`Permit::UNIT`](qumun::Permit::UNIT).
    pub(crate) fn pace(self) -> u32 {
        u32::try_from(self.pace >> (UNIT.ilog2() - qumun::Permit::UNIT.ilog2())).unwrap_or(u32::MAX)
    }

    /// How much time on a CPU it has had too much, where the axis is by now at `now`.
    fn too_much(self, now: u64) -> i64 {
        let ahead = i128::from(self.place) - i128::from(now);
        let time = ahead * i128::from(UNIT) / i128::from(self.pace.max(1));
        time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// What a task has had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) ran: u64,
    /// Where those stand who were served in their turn when it was; `None` if it was not its turn.
    pub(crate) turn: Option<u64>,
    /// By how much consumed time the clocks go on.
    pub(crate) progress: u64,
}

/// The groups above a task, from its own to the one below the root.
type Chain = ([usize; DEPTH], usize);

impl Groups {
    pub(crate) fn new(pool: &Handle, nr_cpus: u32) -> Self {
        Self { root: Clock::default(), nr_cpus, cache: Cache::new(pool, CAPACITY) }
    }

    /// The clock that all have in common.
    pub(crate) fn root(&self) -> &Clock {
        &self.root
    }

    /// Which group a group is in, and what its `cpu.weight` is.
    pub(crate) fn tell(&mut self, cgroup: u64, parent: u64, weight: u32) {
        if let Some(group) = self.enter(cgroup) {
            let parent = parent.max(ROOT);
            if parent != group.parent {
                // So far it was taken for a child of the root.
                group.member = Member::default();
            }
            (group.parent, group.weight) = (parent, weight.max(1));
        }
    }

    /// A group is gone.
    pub(crate) fn remove(&mut self, cgroup: u64) {
        self.cache.remove(cgroup);
    }

    /// What an event says about a task's group.
    pub(crate) fn saw(&mut self, task: &Queued) {
        if let Some(group) = self.enter(task.cpu_cgroup_id) {
            group.weight = task.cgroup_weight.max(1);
        }
    }

    /// A group, new if need be. One that nobody has told about is taken for a child of the root.
    fn enter(&mut self, cgroup: u64) -> Option<&mut Group> {
        if cgroup <= ROOT {
            return None;
        }
        let (at, known) = self.cache.find_or_insert(cgroup)?;
        let group = self.cache.get_mut(at)?;
        if !known {
            (group.parent, group.weight) = (ROOT, 100);
        }
        Some(group)
    }

    fn chain(&mut self, cgroup: u64) -> Chain {
        let (mut chain, mut key) = (([0; DEPTH], 0), cgroup);
        while key > ROOT && chain.1 < DEPTH {
            let Some(at) = self.cache.find(key) else { break };
            // Circles are not possible in the kernel; a chain that is too long ends all the same.
            chain.0[chain.1] = at;
            chain.1 += 1;
            key = self.cache.get_mut(at).map_or(ROOT, |group| group.parent);
        }
        chain
    }

    fn group(&mut self, chain: &Chain, level: usize) -> Option<&mut Group> {
        if level < chain.1 { self.cache.get_mut(chain.0[level]) } else { None }
    }

    /// The clock by which those of this level are served.
    fn clock(&mut self, chain: &Chain, level: usize) -> &mut Clock {
        if level < chain.1
            && let Some(group) = self.cache.get_mut(chain.0[level])
        {
            return &mut group.clock;
        }
        &mut self.root
    }

    /// Where a task begins that is new: so far behind its siblings.
    pub(crate) fn newcomer(&mut self, cgroup: u64, behind: u64) -> u64 {
        let chain = self.chain(cgroup);
        self.clock(&chain, 0).now().saturating_add(behind.min(BEHIND))
    }

    /// A task comes from another group. It stood there when it wanted to run last, and has run for so long since. What it has
    /// had too much among all, or too little, goes with it: its virtual runtime is one by another clock, which may be
    /// anywhere.
    pub(crate) fn join(&mut self, member: &mut Member, weight: u32, cgroup: u64, stood: Standing, ran: u64) {
        let chain = self.chain(cgroup);
        let time = stood.too_much(self.root.now()).saturating_add_unsigned(ran);
        self.clock(&chain, 0).adopt(member, scale(time, 100, weight));
    }

    /// Where a task stands on the root's axis: who has less is served first.
    ///
    /// A member that is ahead of its group by `x` is served again when the others in it have had as much: at the group's
    /// pace on the axis above that is `x` times the weight of all in the group, divided by the group's own. So the
    /// weights of members only spread the group's tasks; what the group gets is decided by its own virtual runtime,
    /// which each run moves by exactly what was consumed.
    pub(crate) fn place(&mut self, asks: Asks<'_>, now: Nanos) -> Standing {
        let chain = self.chain(asks.cgroup);
        let Asks { member, weight, woke, slept: asleep, credit, just, counts, .. } = asks;
        let nr_cpus = self.nr_cpus;
        // In virtual time alone, 100 ms would be 10 s on a CPU for a weight of 10,000, and all others would stand still.
        let behind = |slept: bool, weight: u32| {
            let (most, time) =
                if slept { (credit, credit) } else { (BEHIND, WAITED * u64::from(nr_cpus.max(1))) };
            most.min(per_weight(time, weight))
        };

        let clock = self.clock(&chain, 0);
        if counts {
            clock.count(member, weight, !woke, now);
        }
        if chain.1 == 0 {
            clock.forgive(member, asleep, nr_cpus);
        }
        clock.settle(member, weight, behind(woke, weight));
        let mut lag = clock.lag(member.vruntime);
        // Those who share with it have come nearer by that, all together.
        let mut all = clock.weight();
        let mut shared = just.saturating_mul(100) / all;
        let mut pace = per_weight(UNIT, weight);
        for level in 0..chain.1 {
            let Some(group) = self.group(&chain, level) else { break };
            let quiet = now - std::mem::replace(&mut group.seen, now);
            let slept = woke && quiet > QUIET;
            let (mut member, weight) = (group.member, group.weight);
            let clock = self.clock(&chain, level + 1);
            if counts {
                clock.count(&mut member, weight, !woke, now);
            }
            if slept && level + 1 == chain.1 {
                clock.forgive(&mut member, quiet, nr_cpus);
            }
            if member.is_new() {
                // Without credit: whoever moves between new groups would always have some.
                clock.adopt(&mut member, 0);
            }
            clock.settle(&mut member, weight, behind(slept, weight));
            let spread = scale(lag.saturating_sub_unsigned(shared), all, weight);
            pace = pace.saturating_mul(all) / u64::from(weight.max(1));
            lag = clock.lag(member.vruntime).saturating_add(spread);
            all = clock.weight();
            shared = just.saturating_mul(100) / all;
            if let Some(group) = self.group(&chain, level) {
                group.member = member;
            }
        }
        let lag = lag.clamp(-(BEHIND as i64), AHEAD as i64);
        Standing { place: self.root.now().saturating_add_signed(lag), pace }
    }

    /// Charges a run to a task and to all groups above it.
    pub(crate) fn charge(&mut self, member: &mut Member, weight: u32, cgroup: u64, run: Run) {
        let chain = self.chain(cgroup);
        let clock = self.clock(&chain, 0);
        if run.turn.is_some() && chain.1 > 0 {
            clock.serve(member.vruntime);
        }
        clock.go_on(run.progress);
        member.charge(run.ran, weight);
        for level in 0..chain.1 {
            let Some(group) = self.group(&chain, level) else { break };
            let vruntime = group.member.vruntime;
            group.member.charge(run.ran, group.weight);
            let clock = self.clock(&chain, level + 1);
            if run.turn.is_some() && level + 1 < chain.1 {
                clock.serve(vruntime);
            }
            clock.go_on(run.progress);
        }
        if let Some(place) = run.turn {
            self.root.serve(place);
        }
    }
}
