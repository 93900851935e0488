//! The smallest policies: what is left when the policy costs nothing is the library.

use qumun::{Context, Queued, Scheduler, Verdict};

/// First come, first served, on whichever CPU is free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

/// The same, on an idle CPU that is warm for the task if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Picking;

impl Scheduler for Picking {
    type Task = ();

    fn enqueue(&mut self, cx: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let decision = match cx.pick(task.cpu, &task.allowed).cpu() {
            Some(cpu) => task.on(cpu),
            None => task.anywhere(),
        };
        decision.vtime(task.enqueued_at.as_u64()).into()
    }
}
