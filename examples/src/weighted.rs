//! Fair by weight: who ran least for its weight is next (start-time fair queueing: Goyal, Vin, Cheng 1996).
//!
//! The idea: a clock for each task that goes slower the more it weighs. Twice the weight, twice the time.

use qumun::{Context, Nanos, Queued, Scheduler, Verdict};

/// Who slept is at most so far ahead of who did not.
const CREDIT: u64 = 5_000_000;

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weighted {
    /// The largest virtual time with which a task was served.
    clock: u64,
}

/// What it remembers about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    vtime: u64,
    /// The end of the last run that was charged.
    charged: Nanos,
}

impl Scheduler for Weighted {
    type Task = Account;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let account = cx.task(task);
        let is_new = account.charged == Nanos::ZERO;
        if task.stopped_at > account.charged {
            self.clock = self.clock.max(account.vtime);
            // Clock time, never what is left of a slice: the kernel refills slices by itself.
            let ran = (task.stopped_at - task.started_at).as_u64();
            account.vtime += ran * 100 / u64::from(task.weight);
            account.charged = task.stopped_at;
        }
        // New tasks get no credit: if they did, a fork storm would starve all others.
        let behind = match (is_new, task.wakeup) {
            (true, _) => 0,
            (false, true) => CREDIT,
            (false, false) => 20 * CREDIT,
        };
        account.vtime = account.vtime.max(self.clock.saturating_sub(behind));
        task.anywhere().vtime(account.vtime).into()
    }
}
