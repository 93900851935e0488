//! Batch packing: work goes to as few CPUs as it needs, so that the others sleep deeply.
//!
//! The idea: of the idle CPUs take always the first in the same order. While few are busy, those at the end of the order
//! are never woken up; when all are, it is first come, first served.

use qumun::{Context, CpuSet, Nanos, Queued, Scheduler, Verdict};

/// The policy.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// CPUs that this batch has given away already.
    taken: CpuSet,
    /// When the batch began: the idle CPUs are those of that moment.
    batch: Nanos,
}

impl Scheduler for Packing {
    type Task = ();

    fn enqueue(&mut self, cx: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        if self.batch != cx.now() {
            (self.batch, self.taken) = (cx.now(), CpuSet::EMPTY);
        }
        let free = *cx.idle().cpus() - self.taken;
        // Long slices: what is packed computes, and each switch costs.
        let decision = task.anywhere().slice(Nanos::from_millis(10)).vtime(task.enqueued_at.as_u64());
        match CpuSet::from(task.allowed).first_in(&free) {
            Some(cpu) => {
                self.taken.insert(cpu);
                decision.on(cpu).into()
            }
            None => decision.into(),
        }
    }

    fn dispatch(&mut self, _: &mut Context<'_, ()>) {
        // The idle CPUs are read again for the next batch.
        self.batch = Nanos::ZERO;
    }
}
