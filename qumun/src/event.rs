//! What the core tells the agent.

use std::borrow::Cow;

use std::ops::{BitOr, BitOrAssign};

use crate::{Cpu, Decision, Nanos, Pid, TaskId};

/// One record from the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A task wants to run and waits for a decision.
    Queued(Queued),
    /// A task is gone.
    Exit(TaskId),
    /// Something else happened that the policy [subscribed](Events) to.
    Note(Note),
}

/// What a policy wants to hear of besides tasks that wait: [`Scheduler::EVENTS`](crate::Scheduler::EVENTS).
///
/// What nobody subscribes to costs nothing: the core is loaded without the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Events(u32);

impl Events {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// [`Note::Fork`].
    pub const FORK: Self = Self(1 << 3);
    /// [`Note::Affinity`].
    pub const AFFINITY: Self = Self(1 << 4);
    /// [`Note::Weight`].
    pub const WEIGHT: Self = Self(1 << 5);
    /// [`Note::Moved`].
    pub const MOVED: Self = Self(1 << 6);
    /// [`Note::Cgroup`], [`Note::CgroupGone`], and [`Queued::cgroup_weight`].
    pub const CGROUPS: Self = Self(1 << 7);
    /// All of them.
    pub const ALL: Self = Self(0b1_1111 << 3);

    /// Are all of `other` in this set?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets, where an operator cannot stand: in a constant.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// One bit for each kind, as the core takes them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// Something that happened to a task or a cgroup and needs no answer.
///
/// Notes about tasks are hints: the core sends none while it has taken over, and drops them (counted) when the ring
/// is full. Whatever they say about a task stands in its next [`Queued`] too. Notes about cgroups are not lost: each
/// agent is told all that there are before the first task that is in one, a parent before its children, and later
/// whatever has changed; several changes may come as one note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A task came into being.
    Fork {
        /// The new task.
        task: TaskId,
        /// Its thread group.
        tgid: Pid,
        /// The task that made it; the new one has inherited its label and slice.
        parent: Pid,
        /// The label, see [`Queued::label`].
        label: u64,
    },
    /// Where a task may run has changed.
    Affinity {
        /// Which task.
        task: TaskId,
        /// Where it may run now.
        allowed: Affinity,
    },
    /// A task's weight has changed.
    Weight {
        /// Which task.
        task: TaskId,
        /// 1..10000; 100 is nice 0.
        weight: u32,
    },
    /// A task has moved to another cgroup.
    Moved {
        /// Which task.
        task: TaskId,
        /// The cgroup v2 directory (its inode number) whose cpu controller it is under now.
        cgroup_id: u64,
    },
    /// A cgroup with a cpu controller, and what that is set to: when it is new to this agent, and after a change.
    Cgroup {
        /// The cgroup v2 directory (its inode number).
        cgroup_id: u64,
        /// The cgroup that it is in; 0 for the root. It does not change.
        parent: u64,
        /// `cpu.weight`: 1..10000, 100 unless set.
        weight: u32,
        /// `cpu.max`, where the kernel tells it to schedulers (from 6.17): quota and period. `None` for no
        /// limit.
        limit: Option<(Nanos, Nanos)>,
    },
    /// A cgroup is gone, or has lost its cpu controller: forget what is kept about it. Of a parent that is gone with
    /// its children this may come first.
    CgroupGone {
        /// The cgroup v2 directory (its inode number). No other cgroup of this boot has had it.
        cgroup_id: u64,
    },
}

impl Note {
    /// Which subscription it belongs to.
    pub const fn kind(&self) -> Events {
        match self {
            Self::Fork { .. } => Events::FORK,
            Self::Affinity { .. } => Events::AFFINITY,
            Self::Weight { .. } => Events::WEIGHT,
            Self::Moved { .. } => Events::MOVED,
            Self::Cgroup { .. } | Self::CgroupGone { .. } => Events::CGROUPS,
        }
    }
}

/// A task that wants to run. The core has parked it in a kernel queue; it stays there until a
/// [`Decision`] names it, or until the core takes it over because the agent is late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Which task, and which enqueue of it.
    pub id: TaskId,
    /// The thread group (what user space calls the process).
    pub tgid: Pid,
    /// Where the task ran last.
    pub cpu: Cpu,
    /// The task that woke this one up, if one did.
    pub waker: Option<Pid>,
    /// The cgroup v2 directory (its inode number).
    pub cgroup_id: u64,
    /// The cgroup whose cpu controller the task is under: `cgroup_id` or the nearest one above it that has such a
    /// controller, and the one that [`Note::Cgroup`] tells about. 0 unless the policy subscribes to
    /// [`Events::CGROUPS`].
    pub cpu_cgroup_id: u64,
    /// `cpu.weight` of that cgroup if the policy subscribes to [`Events::CGROUPS`]; else 100.
    pub cgroup_weight: u32,
    /// What user space has set for this task or one that it descends from (`Running::set_task`); 0 if
    /// nothing. It means whatever the policy wants it to mean.
    pub label: u64,
    /// The kernel's own number of the task, never used twice; 0 where the kernel has none (before 7.2).
    pub tid: u64,
    /// When the task began, in time since the boot of the machine, which includes the time it was suspended. With
    /// its pid that is an identity outside the kernel, too: in clock ticks of 10 ms it stands in `/proc/PID/task/TID/stat`
    /// as `starttime`.
    pub born: Nanos,
    /// The same of the first thread of its process, whose pid is [`tgid`](Self::tgid).
    pub process_born: Nanos,
    /// 1..10000; 100 is nice 0. Twice the weight is meant to get twice the time.
    pub weight: u32,
    /// The task slept before. Otherwise it was preempted or its slice ended.
    pub wakeup: bool,
    /// The task is a kernel thread.
    pub kthread: bool,
    /// The legs of this wakeup are timed; the framework stamps the decision.
    pub sampled: bool,
    /// When the task became runnable.
    pub enqueued_at: Nanos,
    /// When the agent read this event. Only set if [`sampled`](Self::sampled).
    pub seen_at: Nanos,
    /// When the task's last run on a CPU began; zero before the first.
    pub started_at: Nanos,
    /// When it ended; zero before the first.
    pub stopped_at: Nanos,
    /// Time on a CPU since the last sleep.
    pub exec_runtime: Nanos,
    /// Time on CPUs since the task's last event, of all its runs since then.
    pub ran: Nanos,
    /// Time asleep since then.
    pub slept: Nanos,
    /// How often since then a [`Permit`](crate::Permit) let it in: it woke up, or its slice was cut short.
    pub permitted: u32,
    /// The core's own virtual time of the task: nanoseconds, weight applied.
    pub vtime: u64,
    /// Where the task may run.
    pub allowed: Affinity,
    /// `SCX_ENQ_*` as the kernel gave them.
    pub enq_flags: u64,
    /// The first 15 bytes of the thread's name, and a zero. See [`comm`](Self::comm).
    pub comm_bytes: [u8; 16],
}

impl Queued {
    /// An event for one enqueue of one task with everything else at its neutral value: weight 100,
    /// any CPU. For tests and for backends.
    pub fn new(id: TaskId) -> Self {
        Self { id, tgid: id.pid, weight: 100, cgroup_weight: 100, allowed: Affinity::ANY, ..Self::default() }
    }

    /// The name of the thread.
    pub fn comm(&self) -> Cow<'_, str> {
        let end = self.comm_bytes.iter().position(|&b| b == 0).unwrap_or(self.comm_bytes.len());
        String::from_utf8_lossy(&self.comm_bytes[..end])
    }

    /// Lets the task run on whichever CPU it is allowed on that is free first.
    pub fn anywhere(&self) -> Decision {
        Decision::new(self.id, None).seen(self.seen_at)
    }

    /// Lets the task run on this CPU. If it may not run there (any more), the core says no and
    /// takes the task into its own queue; nothing breaks.
    pub fn on(&self, cpu: Cpu) -> Decision {
        Decision::new(self.id, Some(cpu)).seen(self.seen_at)
    }
}

impl From<&Queued> for Pid {
    fn from(task: &Queued) -> Self {
        task.id.pid
    }
}

/// Where a task may run: a set of CPUs, as far as the event tells it.
///
/// The event carries one bit for each of CPUs 0..63 and how many CPUs are allowed in all. That is
/// exact for machines of up to 64 CPUs and for tasks without restriction on any machine. For the
/// rest, this set is never larger than the true one. For set operations, turn it into a
/// [`CpuSet`](crate::CpuSet) with `CpuSet::from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    low: u64,
    count: u32,
    unrestricted: bool,
}

impl Affinity {
    /// Every CPU.
    pub const ANY: Self = Self { low: u64::MAX, count: u32::MAX, unrestricted: true };

    /// From the bits of CPUs 0..63, the number of allowed CPUs and that of all CPUs.
    pub const fn new(low: u64, count: u32, nr_cpus: u32) -> Self {
        Self { low, count, unrestricted: count >= nr_cpus }
    }

    /// May the task run there?
    pub const fn allows(&self, cpu: Cpu) -> bool {
        if cpu.0 < 64 { self.low >> cpu.0 & 1 == 1 } else { self.unrestricted }
    }

    /// May the task run on every CPU?
    pub const fn is_unrestricted(&self) -> bool {
        self.unrestricted
    }

    /// The bits of CPUs 0..63.
    pub const fn low(&self) -> u64 {
        self.low
    }

    /// On how many CPUs the task may run.
    pub const fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_the_zero_and_survives_bytes_that_are_no_text() {
        let mut task = Queued::new(TaskId::default());
        task.comm_bytes[..4].copy_from_slice(b"sh\0x");
        assert_eq!(task.comm(), "sh");
        task.comm_bytes = [0xff; 16];
        assert_eq!(task.comm().chars().count(), 16);
    }

    #[test]
    fn affinity_above_cpu_63_is_known_for_unrestricted_tasks_only() {
        let some = Affinity::new(0b101, 5, 128);
        assert!(some.allows(Cpu(0)) && !some.allows(Cpu(1)) && some.allows(Cpu(2)));
        assert!(!some.allows(Cpu(64)) && !some.allows(Cpu(u32::MAX)));
        assert!(Affinity::new(u64::MAX, 128, 128).allows(Cpu(127)));
    }
}
