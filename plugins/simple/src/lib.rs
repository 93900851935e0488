//! Weighted virtual time: whoever ran least for its weight is next.
//!
//! Each task has a *virtual time*. It grows by the time the task ran, times 100, divided by its
//! weight, so a task of weight 200 gets twice the CPU of one of weight 100. The time is that of the
//! clock between the start and the end of a run, never a slice: the kernel refills slices by its own
//! default. The *clock* is the largest virtual time with which a task was served.
//!
//! Sleeping earns credit, but no more than one slice: whoever wakes up or is new starts at the clock
//! minus one slice, if it is behind that. Who did not sleep may be further behind, as it waited or ran on
//! a CPU of its own, but not without limit ([`AWAY`]).
//!
//! In mode [`Mode::Fifo`] it is first come, first served, as the plugin `simple-fifo`.
//!
//! ```
//! use gthulhu_plugin_simple::Simple;
//! use qumun::sim::{Machine, Spec};
//! use qumun::Nanos;
//!
//! let machine = Machine::new(1);
//! let mut agent = qumun::builder("simple").agent(machine.backend(), Simple::default());
//! let [light, heavy] = [100, 300].map(|weight| machine.spawn(Spec { weight, ..Spec::default() }));
//! machine.wake(light);
//! machine.wake(heavy);
//! machine.run(Nanos::from_millis(10_000), || agent.turn());
//! let ratio = machine.run_time(heavy).as_u64() as f64 / machine.run_time(light).as_u64() as f64;
//! assert!((2.9..3.1).contains(&ratio), "{ratio}");
//! ```

#![forbid(unsafe_code)]

use qumun::{Context, Nanos, Permit, Queued, Scheduler, Verdict};

/// By how many slices a task that does not sleep may be behind the clock. It is there for tasks that
/// the core or another CPU served for a while: what they were given was not charged here.
pub const AWAY: u64 = 20;
/// A longer run is taken for this long. Slices are far shorter; it keeps a clock that jumped from
/// banishing a task for ever.
const LONGEST_RUN: Nanos = Nanos::from_millis(1_000);

/// Who is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Who ran least for its weight.
    #[default]
    Weighted,
    /// Who came first. Weights are ignored.
    Fifo,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct Simple {
    slice: Nanos,
    mode: Mode,
    permit: Permit,
    /// The largest virtual time with which a task was served.
    clock: u64,
}

/// What the policy remembers about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    vtime: u64,
    /// The end of the last run that was charged: each run is charged once, however often the task is
    /// queued after it.
    charged: Nanos,
    known: bool,
}

/// Weighted, with slices of 5 ms.
impl Default for Simple {
    fn default() -> Self {
        Self::new(Nanos::from_millis(5))
    }
}

impl Simple {
    /// Weighted, with this slice for everybody. The core clamps it to its bounds.
    pub fn new(slice: Nanos) -> Self {
        Self { slice: slice.max(Nanos(1)), mode: Mode::Weighted, permit: Permit::wakeups(0), clock: 0 }
    }

    /// In this mode.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Lets a decision hold for several wakeups, at the place that the task has by then.
    #[must_use]
    pub fn permit(mut self, permit: Permit) -> Self {
        self.permit = permit;
        self
    }

    /// Charges a task for its last run and returns its virtual time.
    fn charge(&mut self, account: &mut Account, task: &Queued) -> u64 {
        if task.stopped_at > account.charged {
            // It was served with what it had before this run.
            self.clock = self.clock.max(account.vtime);
            // With a permit it has run several times.
            let last = task.stopped_at - task.started_at;
            let ran = if task.permitted > 0 { task.ran } else { last }.min(LONGEST_RUN).as_u64();
            account.vtime = account.vtime.saturating_add(ran * 100 / u64::from(task.weight.max(1)));
            account.charged = task.stopped_at;
        }
        let behind = if task.wakeup || !account.known { 1 } else { AWAY };
        let lag = self.slice.as_u64().saturating_mul(behind);
        account.vtime = account.vtime.max(self.clock.saturating_sub(lag));
        account.known = true;
        account.vtime
    }
}

impl Scheduler for Simple {
    type Task = Account;

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let (vtime, permit) = match self.mode {
            Mode::Weighted => {
                let pace = 100 * Permit::UNIT / task.weight.max(1);
                (self.charge(cx.task(task), task), self.permit.at_pace(pace).cutting())
            }
            // The time, not the order of the events: these may come out of order from different CPUs.
            Mode::Fifo => (task.enqueued_at.as_u64(), self.permit.by_clock()),
        };
        task.anywhere().slice(self.slice).vtime(vtime).permit(permit).into()
    }
}

#[cfg(test)]
mod tests;
