//! A policy: who computed much since it last slept waits a little longer, but never for long.
//!
//! A task is due at the time it was queued plus its burst, bounded by the *patience*. So the order ages:
//! whatever comes later than a patience after a task comes behind it, and nobody starves.

#![forbid(unsafe_code)]

use qumun::{Context, Nanos, Queued, Scheduler, Verdict};

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Mine {
    patience: Nanos,
}

impl Mine {
    /// With this patience.
    pub fn new(patience: Nanos) -> Self {
        Self { patience }
    }
}

/// With a patience of 50 ms.
impl Default for Mine {
    fn default() -> Self {
        Self::new(Nanos::from_millis(50))
    }
}

impl Scheduler for Mine {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let due = task.enqueued_at + task.exec_runtime.min(self.patience);
        task.anywhere().vtime(due.as_u64()).into()
    }
}

/// A policy with a fault, for drills: after a while one of its calls does not return.
#[derive(Clone, Copy, Debug)]
pub struct Hangs {
    after: Nanos,
    asleep: bool,
    first: Option<Nanos>,
}

impl Hangs {
    /// Hangs so long after its first event: it computes, or it sleeps.
    pub fn new(after: Nanos, asleep: bool) -> Self {
        Self { after, asleep, first: None }
    }
}

impl Scheduler for Hangs {
    type Task = ();

    fn enqueue(&mut self, cx: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let now = cx.now();
        let first = *self.first.get_or_insert(now);
        if now - first >= self.after {
            loop {
                if self.asleep {
                    std::thread::sleep(std::time::Duration::from_secs(3600));
                }
                std::hint::spin_loop();
            }
        }
        task.anywhere().into()
    }
}
