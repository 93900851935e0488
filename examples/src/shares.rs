//! Shares for cgroups: however many tasks a cgroup has, it gets what its `cpu.weight` says.
//!
//! The idea: the clock belongs to the cgroup and not to the task. Each run of any of its tasks moves it on; a task is
//! ordered by the clock of its cgroup.

use qumun::{Context, Events, Nanos, Queued, Scheduler, Verdict};

/// So many cgroups have a clock of their own. More share clocks: less fair, and still right.
const CLOCKS: usize = 1_024;
/// A cgroup that slept is at most so far ahead of the others.
const CREDIT: u64 = 20_000_000;

/// The policy.
#[derive(Clone, Debug)]
pub struct Shares {
    clocks: Box<[u64; CLOCKS]>,
    /// The largest clock that a task was served with.
    now: u64,
}

impl Default for Shares {
    fn default() -> Self {
        Self { clocks: Box::new([0; CLOCKS]), now: 0 }
    }
}

impl Shares {
    /// Fibonacci hashing (Knuth): neighbours in the file system are apart here.
    fn index(cgroup_id: u64) -> usize {
        (cgroup_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % CLOCKS
    }
}

/// What it remembers about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// The clock with which it was served last.
    served: u64,
    /// The end of the last run that was charged.
    charged: Nanos,
}

impl Scheduler for Shares {
    type Task = Account;

    /// Without this, every cgroup would seem to weigh 100.
    const EVENTS: Events = Events::CGROUPS;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let account = cx.task(task);
        let clock = &mut self.clocks[Self::index(task.cgroup_id)];
        if task.stopped_at > account.charged {
            self.now = self.now.max(account.served);
            let ran = (task.stopped_at - task.started_at).as_u64();
            *clock += ran * 100 / u64::from(task.cgroup_weight.max(1));
            account.charged = task.stopped_at;
        }
        *clock = (*clock).max(self.now.saturating_sub(CREDIT));
        account.served = *clock;
        task.anywhere().vtime(*clock).into()
    }
}
