//! The trait that a policy implements, and what it can reach.

use crate::agent::Outbox;
use crate::placement::Placement;
use crate::pool::Handle;
use crate::tasks::TaskPool;
use crate::{
    Affinity, Ask, Cpu, Decision, Events, Full, IdleView, Nanos, Note, Pick, Pid, Queued, Topology, Verdict,
};

/// A scheduling policy.
///
/// One thread calls these methods, never two at a time. They must not block: no lock that another
/// thread holds, no file, no socket, no log, and no allocation, since the thread that schedules
/// the machine may be the one that everybody waits for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a scheduling policy",
    note = "implement `qumun::Scheduler`: one type, one method, see the front page of the docs"
)]
pub trait Scheduler {
    /// What the policy remembers about each task; `()` for nothing. The framework keeps it. Its
    /// default should not allocate, because tasks come into being all the time.
    type Task: Default;

    /// What the policy wants to hear of in [`note`](Self::note); nothing unless told.
    const EVENTS: Events = Events::NONE;

    /// Called once, before the first turn: the moment to take memory from the [pool](Context::pool), and
    /// the last to take any elsewhere. No task is known yet.
    fn start(&mut self, cx: &mut Context<'_, Self::Task>) {
        let _ = cx;
    }

    /// A task wants to run. Answer with a decision, or keep the task and [send](Context::send) one
    /// later.
    fn enqueue(&mut self, cx: &mut Context<'_, Self::Task>, task: &Queued) -> Verdict;

    /// Called once after each batch of events, and also when there were none: the moment to send
    /// decisions on tasks that were kept.
    fn dispatch(&mut self, cx: &mut Context<'_, Self::Task>) {
        let _ = cx;
    }

    /// A task is gone; its state goes after this call. A decision on it would be counted as stale,
    /// nothing worse. Not called for a task whose state was recycled or whose end the core could
    /// not report.
    fn exit(&mut self, cx: &mut Context<'_, Self::Task>, pid: Pid, task: &mut Self::Task) {
        let _ = (cx, pid, task);
    }

    /// Something happened that the policy subscribed to ([`EVENTS`](Self::EVENTS)).
    fn note(&mut self, cx: &mut Context<'_, Self::Task>, note: &Note) {
        let _ = (cx, note);
    }

    /// The core has taken all waiting tasks over: forget what was kept. The states of the tasks stay.
    fn reset(&mut self, cx: &mut Context<'_, Self::Task>) {
        let _ = cx;
    }
}

/// What a policy can see and do during a call.
#[derive(Debug)]
pub struct Context<'a, T> {
    pub(crate) tasks: &'a mut TaskPool<T>,
    pub(crate) pool: &'a Handle,
    pub(crate) placement: &'a mut Placement,
    pub(crate) out: Outbox<'a>,
}

impl<T: Default> Context<'_, T> {
    /// The state of a task: `cx.task(task)` in [`enqueue`](Scheduler::enqueue), `cx.task(id)`
    /// elsewhere. A task that was never seen gets a new one.
    pub fn task(&mut self, pid: impl Into<Pid>) -> &mut T {
        self.tasks.get_or_insert(pid.into(), self.out.stats)
    }

    /// The state of a task that has one.
    pub fn known(&mut self, pid: impl Into<Pid>) -> Option<&mut T> {
        self.tasks.get(pid.into())
    }

    /// Memory for the policy's own collections. Its size is set by
    /// [`Builder::pool`](crate::Builder::pool). See [`pool`](crate::pool).
    pub fn pool(&self) -> &Handle {
        self.pool
    }

    /// The time now.
    pub fn now(&self) -> Nanos {
        self.out.backend.now()
    }

    /// The CPUs that were idle when this batch began; in [`dispatch`](Scheduler::dispatch) of a batch of 16 events or
    /// more: when it was drained.
    pub fn idle(&self) -> &IdleView {
        self.out.backend.idle()
    }

    /// The machine: cores, caches, nodes.
    pub fn topology(&self) -> &Topology {
        self.placement.selector().topology()
    }

    /// An idle CPU for a task that ran on `prev` last and may run on `allowed`: one that shares as much cache as
    /// possible, by the chart of [`Selector`](crate::Selector). It is given away: within a batch no other task gets it. For a
    /// busy machine the answer is [`Pick::Busy`], and [`Queued::anywhere`] the decision.
    pub fn pick(&mut self, prev: Cpu, allowed: &Affinity) -> Pick {
        self.placement.pick(prev, allowed)
    }

    /// The same for a task that has run before, `ran` the last time, and wakes up. Where no CPU under its cache is idle,
    /// but one was given by this call to another such task that should be done with it within 1 ms, one is sent to
    /// wait for that CPU rather than to leave its cache ([`PickKind::Soon`](crate::PickKind::Soon)). Tasks that are
    /// new, or whose slice has ended, had better be spread over the machine: that is what [`pick`](Self::pick) does. The
    /// same with another reach than [`Reach::Cache`](crate::Reach::Cache).
    pub fn pick_warm(&mut self, prev: Cpu, allowed: &Affinity, ran: Nanos) -> Pick {
        self.placement.pick_warm(prev, allowed, ran)
    }

    /// The same as [`pick`](Self::pick) for boosted work. Its CPU is marked, and ordinary tasks are not sent there while another CPU is free,
    /// until the boosted task is queued again, ends, or the CPU is idle.
    pub fn pick_boosted(&mut self, pid: Pid, prev: Cpu, allowed: &Affinity) -> Pick {
        self.placement.pick_boosted(pid, prev, allowed)
    }

    /// Asks the core for idle CPUs for a batch of tasks. One system call for each 64; exact also for tasks that
    /// may use some of more than 64 CPUs, about which an event tells the first 64 only. Returns how many got
    /// one.
    pub fn claim(&mut self, asks: &mut [Ask]) -> usize {
        self.out.backend.claim(asks)
    }

    /// Ends the [permit](crate::Permit) of a task: its next wakeup is an event again. A few others may lose theirs, too.
    pub fn revoke(&mut self, pid: impl Into<Pid>) {
        self.out.backend.revoke(Some(pid.into()));
    }

    /// Ends all permits.
    pub fn revoke_all(&mut self) {
        self.out.backend.revoke(None);
    }

    /// Decides on a task that was kept.
    ///
    /// # Errors
    /// [`Full`] gives the decision back if there is no room. Keep it for the next turn.
    pub fn send(&mut self, decision: Decision) -> Result<(), Full> {
        self.out.send(decision)?;
        self.tasks.released(decision.id());
        Ok(())
    }
}
