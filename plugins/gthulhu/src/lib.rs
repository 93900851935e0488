//! The Gthulhu policy: earliest virtual deadline first.
//!
//! Each task has a *virtual runtime*: the time it ran, divided by its weight. Whoever has the least is
//! served first; so, over time, everybody gets what its weight says. On top of it comes what the task
//! ran since its last sleep, so that a task that sleeps often and runs shortly overtakes
//! one that computes. The sum is the *deadline*.
//!
//! Two things keep a favourite from getting more than its share:
//!
//! - A task that wakes up gets no credit for having slept, but for one slice: its virtual
//!   runtime is raised to the *floor*.
//! - What is added for computing is bounded, [`BURST`] slices at weight 100. So however often the
//!   others sleep, a task that computes is behind them by no more than that.
//!
//! The floor follows the virtual clock: the largest virtual runtime with which a task was served. It
//! does not follow the sum of what all consume, as that advances faster than any single task
//! and would take its rightful place from everybody that waits. And it does not follow the
//! runtime after a run: one slice of a light task moves that far ahead of where anybody has been
//! served.
//!
//! ```
//! use gthulhu_plugin_gthulhu::Gthulhu;
//! use qumun::sim::{Machine, Spec};
//! use qumun::Nanos;
//!
//! let machine = Machine::new(2);
//! let mut agent = qumun::builder("gthulhu").agent(machine.backend(), Gthulhu::default());
//! let [light, heavy] = [50, 200].map(|weight| [0; 2].map(|_| machine.spawn(Spec { weight, ..Spec::default() })));
//! for task in [light, heavy].concat() {
//!     machine.wake(task);
//! }
//! machine.run(Nanos::from_millis(10_000), || agent.turn());
//! let ratio = machine.run_time(heavy[0]).as_u64() as f64 / machine.run_time(light[0]).as_u64() as f64;
//! assert!((3.7..4.3).contains(&ratio), "{ratio}");
//! ```

#![forbid(unsafe_code)]

mod waiting;

use qumun::{Context, Full, Nanos, Queued, Scheduler, Verdict};
use waiting::{Entry, Waiting};

/// How many slices a task that computes may fall behind one that sleeps.
pub const BURST: u64 = 100;
/// A longer run is taken for this long. Slices are far shorter; it keeps a clock that jumped from
/// banishing a task for ever.
const LONGEST_RUN: Nanos = Nanos::from_millis(1_000);
/// Tasks of one batch; those above are sent as they come. Takes 2.5 MiB of the pool; with less, there
/// is room for fewer.
const CAPACITY: usize = 16_384;

/// The policy.
#[derive(Debug)]
pub struct Gthulhu {
    slice: Nanos,
    slice_min: Nanos,
    /// The largest virtual runtime with which a task was served.
    clock: u64,
    waiting: Waiting,
}

/// What the policy remembers about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    vruntime: u64,
    /// The end of the last run that was charged: each run is charged once, however often the task is
    /// queued after it.
    charged: Nanos,
    known: bool,
}

/// With slices of 5 ms, and no shorter than 1 ms when many wait.
impl Default for Gthulhu {
    fn default() -> Self {
        Self::new(Nanos::from_millis(5), Nanos::from_millis(1))
    }
}

impl Gthulhu {
    /// With this slice when nobody waits, and this one when many do.
    pub fn new(slice: Nanos, slice_min: Nanos) -> Self {
        let slice = slice.max(Nanos(1));
        Self { slice, slice_min: slice_min.min(slice), clock: 0, waiting: Waiting::default() }
    }

    /// Charges a task for its last run and says when it is due.
    fn deadline(&mut self, account: &mut Account, task: &Queued) -> u64 {
        let per_weight = |time: u64| time.saturating_mul(100) / u64::from(task.weight.max(1));
        let slice = self.slice.as_u64();
        let burst = slice.saturating_mul(BURST);

        if task.stopped_at > account.charged {
            // It was served with what it had before this run.
            self.clock = self.clock.max(account.vruntime);
            let ran = (task.stopped_at - task.started_at).min(LONGEST_RUN);
            account.vruntime = account.vruntime.saturating_add(per_weight(ran.as_u64()));
            account.charged = task.stopped_at;
        }
        // Who slept comes back at the present. Who did not may be behind because it computes (by a
        // burst) or because it is light (by less than another); only what it cannot owe to either is
        // taken: it was away, on a CPU of its own or with the core.
        let lag = if task.wakeup || !account.known { slice } else { burst.saturating_mul(2) };
        account.vruntime = account.vruntime.max(self.clock.saturating_sub(lag));
        account.known = true;
        account.vruntime.saturating_add(per_weight(task.exec_runtime.as_u64()).min(burst))
    }

    /// The slice of a task while so many wait for these CPUs. Light tasks get less at a time, so
    /// that they do not hold up heavy ones.
    fn slice(&self, weight: u32, waiting: usize, nr_cpus: u32) -> Nanos {
        let each = (waiting as u64).div_ceil(u64::from(nr_cpus.max(1))).max(1);
        let part = self.slice.as_u64() / each;
        Nanos(part.saturating_mul(u64::from(weight.clamp(1, 100))) / 100).max(self.slice_min)
    }
}

impl Scheduler for Gthulhu {
    type Task = Account;

    fn start(&mut self, cx: &mut Context<'_, Account>) {
        self.waiting = Waiting::new(cx.pool(), CAPACITY);
    }

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        let deadline = self.deadline(cx.task(task), task);
        let decision = task.anywhere().vtime(deadline);
        let entry = Entry { last: task.cpu, weight: task.weight, allowed: task.allowed, decision };
        match self.waiting.push(task.enqueued_at, entry) {
            Ok(()) => Verdict::Keep,
            Err(entry) => entry.decision.slice(self.slice_min).into(),
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_, Account>) {
        let nr_cpus = cx.idle().nr_cpus();
        while let Some(entry) = self.waiting.peek() {
            let slice = self.slice(entry.weight, self.waiting.len(), nr_cpus);
            let cpu = cx.pick(entry.last, &entry.allowed).cpu();
            let decision = entry.decision.slice(slice);
            if let Err(Full(_)) = cx.send(cpu.map_or(decision, |cpu| decision.on(cpu))) {
                break;
            }
            self.waiting.pop();
        }
    }

    fn reset(&mut self, _: &mut Context<'_, Account>) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests;
