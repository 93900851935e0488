//! The world under the agent: a kernel, or a model of one.

use crate::{Cpu, CpuSet, Decision, Epoch, Event, Events, ExitInfo, Full, IdleView, Nanos, Pid};

/// What connects an [`Agent`](crate::Agent) with a core.
///
/// None of the methods may block, allocate or lock, except [`rest`](Self::rest), which gives the CPU
/// away, and [`exited`](Self::exited) once the scheduler is gone.
pub trait Backend {
    /// Called once by [`Agent::run`](crate::Agent::run), on its thread, when everything is allocated
    /// and before the first turn. If it fails, [`exited`](Self::exited) says so.
    fn start(&mut self) {}

    /// What the policy wants to hear of. A kernel was told when the core was loaded
    /// ([`Builder::events`](crate::Builder::events)); other backends learn it here.
    fn subscribe(&mut self, events: Events) {
        let _ = events;
    }

    /// The present agreement. The core begins a new one whenever it takes over: then everything that
    /// the agent was told before is void, and no events come until the agent has
    /// [acknowledged](Self::acknowledge) the new one.
    fn epoch(&self) -> Epoch;

    /// Tells the core that the agent holds nothing any more from before this epoch.
    fn acknowledge(&mut self, epoch: Epoch);

    /// Takes a new look at the idle CPUs. The agent calls it at the beginning of each turn and again
    /// before [`dispatch`](crate::Scheduler::dispatch).
    fn refresh(&mut self);

    /// The idle CPUs as of the last [`refresh`](Self::refresh).
    fn idle(&self) -> &IdleView;

    /// The CPUs that may be used, as of the last [`refresh`](Self::refresh); `None` for all there are.
    fn online(&self) -> Option<&CpuSet> {
        None
    }

    /// The CPU that the agent itself is on, and will give away at the end of this turn; `None` if it takes none.
    fn here(&self) -> Option<Cpu> {
        None
    }

    /// Claims idle CPUs for a batch of tasks, as the core sees them at this moment: the second way beside
    /// the [view](Self::idle), dearer (a system call) and exact. Returns how many were claimed.
    fn claim(&mut self, asks: &mut [Ask]) -> usize {
        asks.iter_mut().for_each(|ask| ask.cpu = None);
        0
    }

    /// The clock that the times of events come from.
    fn now(&self) -> Nanos;

    /// Takes the next event out of the ring; `None` if there is none.
    fn receive(&mut self) -> Option<Event>;

    /// Writes a decision to the ring. The core need not see it before [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Full`] if there is no room; nothing was written.
    fn send(&mut self, decision: &Decision) -> Result<(), Full>;

    /// Ends the [permits](crate::Permit) of a task, or all of them. It holds from the task's next wakeup on, and for
    /// decisions that were sent before and are not applied yet, too.
    fn revoke(&mut self, task: Option<Pid>) {
        let _ = task;
    }

    /// Shows the core everything sent so far. Called at the end of a turn that sent something, and
    /// earlier when the ring is full, since only a core that sees decisions makes room.
    fn publish(&mut self);

    /// Shows what the agent has done; for counters that are read elsewhere.
    fn report(&mut self, stats: &Stats) {
        let _ = stats;
    }

    /// Gives the CPU away until the core wants the agent again. `idle_turn`: the turn before did
    /// nothing.
    fn rest(&mut self, idle_turn: bool);

    /// How the scheduler ended, if it has.
    fn exited(&mut self) -> Option<ExitInfo>;
}

/// One question of [`Context::claim`](crate::Context::claim), and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// For which task.
    pub pid: Pid,
    /// Where to look first; then the CPU that was claimed, if any.
    pub cpu: Option<Cpu>,
}

/// What an agent has done since it began. All are counts, except where it says bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns with at least one event or decision.
    pub batches: u64,
    /// Events given to the policy, exits included.
    pub events: u64,
    /// Events thrown away because the core had taken over.
    pub discarded: u64,
    /// Decisions handed to the core.
    pub decisions: u64,
    /// Decisions that found the ring full (each may count more than once).
    pub ring_full: u64,
    /// [Notes](crate::Note) given to the policy.
    pub notes: u64,
    /// Tasks that the policy keeps now.
    pub held: u64,
    /// New epochs acknowledged.
    pub resyncs: u64,
    /// Tasks whose state was given to another task because the pool was full.
    pub recycled: u64,
    /// Times that a task had to do with a state that is not remembered: the pool was full of tasks
    /// that the policy keeps.
    pub exhausted: u64,
    /// Bytes of the arena for the policy's own collections ([`Context::pool`](crate::Context::pool)).
    pub pool_capacity: u64,
    /// Bytes of it that are in use now.
    pub pool_in_use: u64,
    /// Most bytes of it that ever were in use.
    pub pool_high_water: u64,
    /// Requests that it could not meet.
    pub pool_failures: u64,
}
