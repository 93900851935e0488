//! What the monitor tells: plain values.

use crate::layout::{BUCKETS, Row};

/// All that was counted of some tasks since the monitor began. Nothing in here ever goes down.
///
/// Times are in ns and are the kernel's own, the same that `/proc/PID/task/TID/schedstat` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// On a CPU, runs that are not over included.
    pub run_ns: u64,
    /// Runs that ended because the task waits for something ("voluntary"), by how long they were.
    pub blocked_runs: [u64; BUCKETS],
    /// Runs that ended while the task still wanted to go on: preempted, its slice used up, or it yielded.
    pub preempted_runs: [u64; BUCKETS],
    /// The length of the runs that are over.
    pub ended_runs_ns: u64,
    /// Waits that began with a wakeup, by length, without what cpu.max took of them. A wait is counted when the run that
    /// follows it is over.
    pub wakeup_waits: [u64; BUCKETS],
    /// Their length together.
    pub wakeup_wait_ns: u64,
    /// Waits after a preemption.
    pub preempted_waits: [u64; BUCKETS],
    /// Their length together.
    pub preempted_wait_ns: u64,
    /// Kept from running by cpu.max (CFS bandwidth), summed over threads; in no wait above.
    pub throttled_ns: u64,
    /// Runs on another CPU than the one before.
    pub migrations: Migrations,
    /// Threads that began here.
    pub created: u64,
    /// Threads that ended here.
    pub exited: u64,
}

/// Migrations by the closest thing that the two CPUs share. Each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Migrations {
    /// Between threads of a core (SMT).
    pub core: u64,
    /// Between cores that share an L2.
    pub l2: u64,
    /// Between cores that share an L3 only.
    pub l3: u64,
    /// Between L3 caches of a NUMA node.
    pub node: u64,
    /// From one NUMA node to another.
    pub numa: u64,
}

impl Migrations {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.core + self.l2 + self.l3 + self.node + self.numa
    }
}

/// How many were how long. Bucket 0 is below 1.024 µs, bucket i below 1.024 µs · 2^i, the last has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How many.
    pub counts: [u64; BUCKETS],
    /// All together, in ns.
    pub sum_ns: u64,
}

impl Histogram {
    /// Where this bucket ends, in ns; `None` for the last.
    pub fn end_ns(bucket: usize) -> Option<u64> {
        (bucket + 1 < BUCKETS).then(|| 1024 << bucket)
    }

    /// How many there are in all buckets.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// At most this many ns for the given share (0 to 1) of all: the end of a bucket, and for the last bucket its begin.
    /// `None` if there is nothing.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let rank = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut so_far = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            so_far += count;
            if so_far >= rank {
                return Some(Self::end_ns(bucket).unwrap_or(1024 << (BUCKETS - 2)));
            }
        }
        None
    }
}

impl Counts {
    /// Runnable until running, after a wakeup or a preemption; neither sleep nor throttling.
    pub fn run_delay_ns(&self) -> u64 {
        self.wakeup_wait_ns + self.preempted_wait_ns
    }

    /// Times that a task left a CPU because it had to wait for something: `nvcsw` of getrusage(2).
    pub fn voluntary(&self) -> u64 {
        self.blocked_runs.iter().sum()
    }

    /// Times that a task left a CPU though it wanted to go on: `nivcsw`.
    pub fn involuntary(&self) -> u64 {
        self.preempted_runs.iter().sum()
    }

    /// Times that a task was given a CPU and has left it.
    pub fn runs(&self) -> u64 {
        self.voluntary() + self.involuntary()
    }

    /// On-CPU bursts.
    pub fn bursts(&self) -> Histogram {
        Histogram { counts: sum(&self.blocked_runs, &self.preempted_runs), sum_ns: self.ended_runs_ns }
    }

    /// Waits of any kind.
    pub fn run_delays(&self) -> Histogram {
        Histogram { counts: sum(&self.wakeup_waits, &self.preempted_waits), sum_ns: self.run_delay_ns() }
    }

    /// Waits that began with a wakeup.
    pub fn wake_to_run(&self) -> Histogram {
        Histogram { counts: self.wakeup_waits, sum_ns: self.wakeup_wait_ns }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        self.each(other, |mine, theirs| *mine += theirs);
    }

    /// What has been added since `before`; what should have gone down, which nothing does, counts as nothing.
    pub fn since(&self, before: &Self) -> Self {
        let mut delta = self.clone();
        delta.each(before, |now, before| *now = now.saturating_sub(before));
        delta
    }

    fn each(&mut self, other: &Self, mut apply: impl FnMut(&mut u64, u64)) {
        for (mine, theirs) in [
            (&mut self.run_ns, other.run_ns),
            (&mut self.ended_runs_ns, other.ended_runs_ns),
            (&mut self.wakeup_wait_ns, other.wakeup_wait_ns),
            (&mut self.preempted_wait_ns, other.preempted_wait_ns),
            (&mut self.throttled_ns, other.throttled_ns),
            (&mut self.migrations.core, other.migrations.core),
            (&mut self.migrations.l2, other.migrations.l2),
            (&mut self.migrations.l3, other.migrations.l3),
            (&mut self.migrations.node, other.migrations.node),
            (&mut self.migrations.numa, other.migrations.numa),
            (&mut self.created, other.created),
            (&mut self.exited, other.exited),
        ] {
            apply(mine, theirs);
        }
        for (mine, theirs) in [
            (&mut self.blocked_runs, &other.blocked_runs),
            (&mut self.preempted_runs, &other.preempted_runs),
            (&mut self.wakeup_waits, &other.wakeup_waits),
            (&mut self.preempted_waits, &other.preempted_waits),
        ] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                apply(mine, *theirs);
            }
        }
    }

    /// What a row has grown by. Its 32-bit counters may have wrapped round, once.
    pub(crate) fn grown(now: &Row, before: &Row) -> Self {
        let long = |now: u64, before: u64| now.wrapping_sub(before);
        let short = |now: u32, before: u32| u64::from(now.wrapping_sub(before));
        let buckets =
            |now: &[u32; BUCKETS], before: &[u32; BUCKETS]| std::array::from_fn(|i| short(now[i], before[i]));
        let moved = |i: usize| short(now.migrations[i], before.migrations[i]);
        let run_ns = long(now.run_ns, before.run_ns);
        Self {
            run_ns,
            preempted_runs: buckets(&now.runs[0], &before.runs[0]),
            blocked_runs: buckets(&now.runs[1], &before.runs[1]),
            ended_runs_ns: run_ns,
            preempted_waits: buckets(&now.waits[0], &before.waits[0]),
            preempted_wait_ns: long(now.wait_ns[0], before.wait_ns[0]),
            wakeup_waits: buckets(&now.waits[1], &before.waits[1]),
            wakeup_wait_ns: long(now.wait_ns[1], before.wait_ns[1]),
            throttled_ns: long(now.throttled_ns, before.throttled_ns),
            migrations: Migrations {
                core: moved(0),
                l2: moved(1),
                l3: moved(2),
                node: moved(3),
                numa: moved(4),
            },
            created: short(now.created, before.created),
            exited: short(now.exited, before.exited),
        }
    }
}

fn sum(a: &[u64; BUCKETS], b: &[u64; BUCKETS]) -> [u64; BUCKETS] {
    std::array::from_fn(|i| a[i] + b[i])
}

/// A cgroup and what was counted of the tasks in it (not of those in groups below it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The inode of its folder.
    pub id: u64,
    /// From the root of the tree, `/` being the root itself; `None` if it was gone before we could look.
    pub path: Option<String>,
    /// It is gone. The last snapshot that has it, a second or more after it went, has all that it ever did; from the
    /// next one on that is part of [`Snapshot::gone`].
    pub removed: bool,
    /// Since it was first seen.
    pub counts: Counts,
}

/// While some tasks waited, others ran on the same CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blame {
    /// The group that waited; 0 for all those without a row of their own.
    pub waited: u64,
    /// The group that ran meanwhile, which may be the same.
    pub ran: u64,
    /// For how long since the last snapshot, estimated from a sample (all waits of 1 ms or more, of shorter ones each 64th).
    pub ns: u64,
    /// From how many waits.
    pub samples: u64,
}

/// All that is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// `CLOCK_MONOTONIC`, in ns.
    pub at_ns: u64,
    /// Each cgroup that was seen, by number.
    pub groups: Vec<Group>,
    /// Tasks of cgroups that found no row free. Those get a row as soon as others go.
    pub other: Counts,
    /// Cgroups that are gone for good.
    pub gone: Counts,
    /// Who ran while who waited, since the last snapshot; most first.
    pub blames: Vec<Blame>,
    /// The monitor about itself.
    pub own: Own,
}

impl Snapshot {
    /// Everything together: the whole machine.
    pub fn total(&self) -> Counts {
        let mut total = self.other.clone();
        total.add(&self.gone);
        self.groups.iter().for_each(|group| total.add(&group.counts));
        total
    }
}

/// The monitor about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Runs that were counted since the start.
    pub events: u64,
    /// Runs that could not be counted when they ended, because there was no memory for the task's state. Their times are in
    /// the task's next run that is counted, if there is one.
    pub missed: u64,
    /// Times that a task's row was looked up.
    pub resolved: u64,
    /// Waits that were looked into for who ran meanwhile.
    pub blamed: u64,
    /// Of these, how many pairs of groups found no room.
    pub unblamed: u64,
    /// Times that a group found no free row.
    pub refused: u64,
    /// Rows there are, the one for all others included.
    pub rows: u32,
    /// Rows in use.
    pub rows_used: u32,
    /// Our programs, if the kernel was asked to measure them (see [`Options::measure_self`](crate::Options)).
    pub programs: Vec<ProgramCost>,
}

/// What a BPF program of ours costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name.
    pub name: String,
    /// How often it ran while the kernel measured.
    pub runs: u64,
    /// For how long.
    pub run_ns: u64,
}

/// One thread as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// In the initial PID namespace.
    pub tid: i32,
    /// Its process.
    pub pid: i32,
    /// Its name, 15 bytes at most.
    pub comm: String,
    /// When it began, `CLOCK_MONOTONIC`, in ns: with `tid` that is who it is.
    pub start_ns: u64,
    /// Its cgroup.
    pub group: u64,
    /// The CPU where it is or was.
    pub cpu: u32,
    /// It is there now.
    pub running: bool,
    /// Since it began, in ns.
    pub run_ns: u64,
    /// Runnable until running since it began, in ns; throttling, if it was throttled, included as in schedstat.
    pub wait_ns: u64,
    /// Switches since it began.
    pub voluntary: u64,
    /// Switches since it began.
    pub involuntary: u64,
    /// Runs on another CPU than the one before, since the monitor knows it.
    pub migrations: u64,
    /// Of `wait_ns`, kept from running by cpu.max, in ns, since the monitor knows it.
    pub throttled_ns: u64,
}

/// Which threads to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// All of the machine.
    All,
    /// Those of this process.
    Process(i32),
    /// Those of this cgroup.
    Group(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_end_of_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), None);
        histogram.counts[0] = 98;
        histogram.counts[10] = 1;
        histogram.counts[BUCKETS - 1] = 1;
        assert_eq!(histogram.quantile_ns(0.5), Some(1024));
        assert_eq!(histogram.quantile_ns(0.98), Some(1024));
        assert_eq!(histogram.quantile_ns(0.99), Some(1 << 20));
        assert_eq!(histogram.quantile_ns(1.0), Some(1024 << 22));
        assert_eq!(Histogram::end_ns(BUCKETS - 1), None);
    }

    #[test]
    fn counters_that_wrapped_round_have_grown() {
        let (mut before, mut now) = (Row::ZERO, Row::ZERO);
        before.runs[1][3] = u32::MAX;
        now.runs[1][3] = 4;
        before.run_ns = 7;
        now.run_ns = 12;
        let grown = Counts::grown(&now, &before);
        assert_eq!((grown.voluntary(), grown.involuntary(), grown.run_ns), (5, 0, 5));
    }

    #[test]
    fn what_was_added_can_be_taken_apart_again() {
        let mut row = Row::ZERO;
        row.run_ns = 5;
        row.wait_ns = [1, 2];
        row.runs = [[1; BUCKETS], [2; BUCKETS]];
        row.migrations = [1, 2, 3, 4, 5];
        let one = Counts::grown(&row, &Row::ZERO);
        let mut two = one.clone();
        two.add(&one);
        assert_eq!(two.since(&one), one);
        assert_eq!(two.since(&Counts::default()).migrations.total(), 30);
        assert_eq!(one.run_delay_ns(), 3);
        assert_eq!((one.involuntary(), one.voluntary()), (BUCKETS as u64, 2 * BUCKETS as u64));
    }
}
