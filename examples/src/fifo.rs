//! First come, first served: the smallest scheduler there is.

use qumun::{Context, Queued, Scheduler, Verdict};

/// The policy. It knows nothing about tasks but when they wanted to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}
