//! What goes into a machine and what it shows.

use crate::{CpuSet, Decision, Epoch, Nanos, Pid};

/// Settings of a [`Machine`](super::Machine). The defaults are those of the real core.
#[derive(Clone, Debug)]
pub struct Config {
    /// CPUs, 1..=1024.
    pub nr_cpus: u32,
    /// How many events fit the ring.
    pub event_ring: usize,
    /// How many decisions fit the ring.
    pub decision_ring: usize,
    /// The slice of a decision that names none, and of the core's own.
    pub slice: Nanos,
    /// The shortest slice that a decision can get.
    pub slice_min: Nanos,
    /// The longest.
    pub slice_max: Nanos,
    /// D: with an event undecided for longer than this, the core takes over.
    pub late: Nanos,
    /// Breaks one rule, to see that [`check`](super::Machine::check) notices.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nr_cpus: 2,
            event_ring: 8_192,
            decision_ring: 8_192,
            slice: Nanos::from_millis(5),
            slice_min: Nanos::from_micros(100),
            slice_max: Nanos::from_millis(20),
            late: Nanos::from_millis(30),
            sabotage: Sabotage::None,
        }
    }
}

/// Which rule a deliberately broken machine breaks.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// An enqueue keeps the generation of the one before.
    KeepGeneration,
    /// A decision for a CPU that the task may not use is applied.
    IgnoreAffinity,
    /// A task is forgotten when the event ring is full.
    LoseWhenFull,
    /// A stale decision closes the event without moving the task.
    StaleEndsEvent,
    /// The core does not take over when the agent is late.
    NeverLate,
    /// The core takes over, and then forgets the parked tasks.
    LeaveParked,
    /// The agent's side has no claim to its share of each CPU.
    NoAgentShare,
    /// Events are sent though the core has taken over.
    SendDegraded,
    /// What a task runs is not charged to its cgroup.
    NoCharge,
    /// Nobody is let out before its cgroup has something left.
    HoldForEver,
    /// The agent is not helped to a CPU however long it is waited for.
    DeafAlarm,
    /// A decision that was applied leaves the task parked, too.
    DoublePlace,
}

/// What a new task is like.
#[derive(Clone, Debug)]
pub struct Spec {
    /// 1..10000; 100 is nice 0.
    pub weight: u32,
    /// Where it may run. CPUs that do not exist are ignored; none left means all.
    pub cpus: CpuSet,
    /// Is it a kernel thread?
    pub kthread: bool,
    /// Its process; `None`: one of its own.
    pub tgid: Option<Pid>,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// What a policy reads in [`Queued::label`](crate::Queued::label); 0: what its parent has.
    pub label: u64,
    /// Its name, of which 15 bytes are kept.
    pub comm: &'static str,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            weight: 100,
            cpus: CpuSet::ALL,
            kthread: false,
            tgid: None,
            cgroup_id: 1,
            label: 0,
            comm: "task",
        }
    }
}

/// A decision as it lies in the ring: fields that may hold anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawDecision {
    /// The thread.
    pub pid: i32,
    /// Which enqueue of it.
    pub generation: u64,
    /// -1: any.
    pub cpu: i32,
    /// Two bits that say what a permit is like; anything else is refused.
    pub flags: u32,
    /// Nanoseconds; 0: the core's default.
    pub slice: u64,
    /// The order.
    pub vtime: u64,
    /// Wakeups for which it holds.
    pub permit: u32,
    /// For how long.
    pub permit_ns: u64,
    /// How far each nanosecond on a CPU moves the task in the order, in parts of 1024.
    pub rate: u32,
    /// The sum of two words of the agent's page.
    pub mark: u32,
}

impl RawDecision {
    /// With the mark that its permit needs to hold.
    pub(crate) fn marked(mut self, mark: u32) -> Self {
        self.mark = mark;
        self
    }
}

impl From<&Decision> for RawDecision {
    fn from(d: &Decision) -> Self {
        Self {
            pid: d.id().pid.0,
            generation: d.id().generation.0,
            // A number too large for the wire is one that no CPU has; so is this one.
            cpu: d.cpu().map_or(-1, |cpu| i32::try_from(cpu.0).unwrap_or(i32::MAX)),
            flags: d.get_permit().flags(),
            slice: d.get_slice().as_u64(),
            vtime: d.get_vtime(),
            permit: d.get_permit().get_wakeups(),
            permit_ns: d.get_permit().get_lasting().as_u64(),
            rate: d.get_permit().pace(),
            mark: 0,
        }
    }
}

/// The core's counters, named as in `qumun-bpf/bpf/wire.h`. The two ledgers:
/// `ev_sent = ev_dispatched + ev_bounced + ev_cancelled + ev_dead + ev_taken_over + outstanding` and
/// `dec_drained = dec_applied + dec_bounced + dec_stale + dec_refused`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Events sent to the agent.
    pub ev_sent: u64,
    /// Events that ended with the task placed as the agent decided.
    pub ev_dispatched: u64,
    /// Events that ended with the task in the core's queue, because the CPU decided on may not run it.
    pub ev_bounced: u64,
    /// Events that ended because the task was taken out of its queue.
    pub ev_cancelled: u64,
    /// Events that ended because the task did.
    pub ev_dead: u64,
    /// Events that ended because the core ran the task itself.
    pub ev_taken_over: u64,
    /// Decisions taken from the ring.
    pub dec_drained: u64,
    /// Decisions carried out.
    pub dec_applied: u64,
    /// Decisions for a CPU that may not run the task.
    pub dec_bounced: u64,
    /// Decisions on a task that is gone, or on no open event.
    pub dec_stale: u64,
    /// Decisions that make no sense.
    pub dec_refused: u64,
    /// Enqueues that found the event ring full; the core took the task.
    pub congested: u64,
    /// Enqueues of tasks with one CPU, which never go to the agent.
    pub kernel_direct: u64,
    /// Enqueues while degraded.
    pub core_enqueued: u64,
    /// Exit events that found the ring full.
    pub exit_dropped: u64,
    /// Events sent that need no answer.
    pub notes_sent: u64,
    /// Notes that found the ring full.
    pub notes_dropped: u64,
    /// CPUs asked to look for work.
    pub kicks: u64,
    /// Slices cut short so that the agent gets its turn.
    pub preempts: u64,
    /// The agent was put on a CPU.
    pub activations: u64,
    /// Nothing else waited: the running task went on.
    pub kept: u64,
    /// Decisions that came before their task was parked, and waited for it.
    pub retried: u64,
    /// Wakeups placed on an idle CPU by the kernel's own selection.
    pub idle_bypass: u64,
    /// Runs that were cut short for their length.
    pub overruns: u64,
    /// Tasks that got label and slice from their parent.
    pub inherited: u64,
    /// Times that a task was put on a CPU.
    pub runs: u64,
    /// Placed tasks that waited too long and went to the core.
    pub rescued: u64,
    /// The longest that a task was parked, in nanoseconds.
    pub max_parked_ns: u64,
    /// Times a task was held back because its cgroup has used up its limit.
    pub throttled: u64,
    /// For how long, in nanoseconds, those that were let out again.
    pub throttled_ns: u64,
    /// Those that were let out although the limit was used up, because they had waited for too long.
    pub limit_overruns: u64,
    /// Wakeups that a permit let in.
    pub permitted: u64,
    /// Enqueues in kernel mode.
    pub kernel_mode: u64,
    /// Tasks whose slice was cut short and that a permit let go on.
    pub resumed: u64,
    /// Times the core put a task ahead of others because a rule says so.
    pub ahead: u64,
}

/// Who schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The core.
    Degraded,
    /// The agent.
    Normal,
    /// The core, because it was told to.
    Kernel,
}

/// Why the core took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It always begins so.
    Start,
    /// An event was undecided for too long.
    Late,
    /// The agent ended.
    Exit,
    /// A new agent came.
    Hello,
    /// Back from kernel mode, until the agent has caught up.
    Mode,
}

/// The latch between the two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latch {
    /// Who schedules.
    pub mode: Mode,
    /// The present agreement.
    pub epoch: Epoch,
    /// Why the core took over last.
    pub reason: Reason,
    /// When it did.
    pub since: Nanos,
    /// For how long it keeps control at least.
    pub dwell: Nanos,
    /// How often it took over, the start not counted.
    pub entered: u64,
    /// How often it handed back.
    pub left: u64,
}
