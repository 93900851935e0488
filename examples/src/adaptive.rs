//! Adaptive slices: as long as nobody waits for longer than [`LATENCY`] on the average, and no longer.
//!
//! The idea: a controller. Each event tells how long its task had waited the time before; slices get longer while waits
//! are shorter than wanted, and shorter while they are longer. Nobody has to count tasks or CPUs.

use qumun::{Context, Nanos, Queued, Scheduler, Verdict};

/// The wait that is aimed at.
pub const LATENCY: Nanos = Nanos::from_millis(24);
/// No slice is shorter: a switch must be worth it.
pub const SHORTEST: Nanos = Nanos::from_micros(750);
/// None is longer.
pub const LONGEST: Nanos = Nanos::from_millis(12);

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Adaptive {
    slice: f64,
    /// The average wait lately, in ns: each counts for a 16th.
    wait: f64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { slice: LONGEST.as_u64() as f64, wait: 0.0 }
    }
}

impl Scheduler for Adaptive {
    /// When the task was queued the last time.
    type Task = Nanos;

    fn enqueue(&mut self, cx: &mut Context<'_, Nanos>, task: &Queued) -> Verdict {
        let before = std::mem::replace(cx.task(task), task.enqueued_at);
        // It ran since then; if it was never queued here before, there is nothing to learn.
        if before > Nanos::ZERO && task.started_at >= before {
            let wait = (task.started_at - before).as_u64() as f64;
            self.wait += (wait - self.wait) / 16.0;
            // A slice that was too long by a tenth makes waits too long by a tenth.
            let right = self.slice * LATENCY.as_u64() as f64 / self.wait.max(1.0);
            let (shortest, longest) = (SHORTEST.as_u64() as f64, LONGEST.as_u64() as f64);
            self.slice = (self.slice + (right - self.slice) / 64.0).clamp(shortest, longest);
        }
        task.anywhere().slice(Nanos(self.slice as u64)).vtime(task.enqueued_at.as_u64()).into()
    }
}
