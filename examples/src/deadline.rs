//! Earliest deadline first (Liu, Layland 1973), for tasks that say how urgent they are.
//!
//! The idea: the label of a task is a time in microseconds; within it the task wants to have run. User space sets it
//! (`Running::set_task`) and children inherit it. Who has no label can wait for [`PATIENCE`]. Everybody's deadline comes
//! nearer while they wait, so nobody starves.

use qumun::{Context, Nanos, Queued, Scheduler, Verdict};

/// The deadline of a task that does not care.
pub const PATIENCE: Nanos = Nanos::from_millis(100);

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline;

impl Deadline {
    /// How long this task can wait.
    fn patience(task: &Queued) -> Nanos {
        match task.label {
            0 => PATIENCE,
            // No label is a way to the end of the queue, and none a way around it: everybody's time comes.
            us => Nanos::from_micros(us.min(1_000_000)).min(PATIENCE),
        }
    }
}

impl Scheduler for Deadline {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let due = task.enqueued_at + Self::patience(task);
        // Urgent work is short. Who asks for urgency and computes gives way to the next at once.
        let slice = if task.label == 0 { Nanos::from_millis(5) } else { Nanos::from_millis(1) };
        task.anywhere().slice(slice).vtime(due.as_u64()).into()
    }
}
