//! First come, first served.
//!
//! Every task runs wherever a CPU is free, in the order in which the tasks became runnable, for the
//! same slice. Weights are ignored. It is the yardstick for other policies, and a good one for
//! batch work: fewest switches, no favourites, nobody starves.
//!
//! ```
//! use gthulhu_plugin_simple_fifo::SimpleFifo;
//! use qumun::sim::{Machine, Spec};
//! use qumun::Nanos;
//!
//! let machine = Machine::new(2);
//! let mut agent = qumun::builder("fifo").agent(machine.backend(), SimpleFifo::new(Nanos::from_millis(3)));
//! for task in [(); 3].map(|()| machine.spawn(Spec::default())) {
//!     machine.wake(task);
//! }
//! machine.run(Nanos::from_millis(500), || agent.turn());
//! assert!(machine.counters().ev_dispatched > 50);
//! ```

#![forbid(unsafe_code)]

use qumun::{Context, Nanos, Permit, Queued, Scheduler, Verdict};

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct SimpleFifo {
    slice: Nanos,
    permit: Permit,
}

impl SimpleFifo {
    /// With this slice for everybody; zero means the core's default. The core clamps it to its bounds.
    pub fn new(slice: Nanos) -> Self {
        Self { slice, permit: Permit::wakeups(0).by_clock() }
    }

    /// Lets a decision hold for several wakeups: whoever wakes up then comes after those who came before, as always.
    #[must_use]
    pub fn permit(mut self, permit: Permit) -> Self {
        self.permit = permit.by_clock();
        self
    }
}

/// With slices of 5 ms.
impl Default for SimpleFifo {
    fn default() -> Self {
        Self::new(Nanos::from_millis(5))
    }
}

impl Scheduler for SimpleFifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        // The time, not the order of the events: these may come out of order from different CPUs, and
        // decisions that found the ring full come late.
        task.anywhere().slice(self.slice).vtime(task.enqueued_at.as_u64()).permit(self.permit).into()
    }
}
