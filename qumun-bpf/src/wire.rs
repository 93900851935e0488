//! The records that the core and the agent exchange: the mirror of `bpf/wire.h`.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`. Sizes and offsets are asserted here and there.

use std::mem::{offset_of, size_of};

/// Most CPUs that the core can serve.
pub const MAX_CPUS: usize = 1024;
/// [`Decision::cpu`] for "no CPU in particular".
pub const CPU_ANY: i32 = -1;
/// How many legs of a wakeup are timed.
pub const LEGS: usize = 5;
/// How many log2(ns) buckets each leg has.
pub const LEG_BUCKETS: usize = 36;
/// Most requests in one call of `qumun_select_cpu`.
pub const SELECT_MAX: usize = 64;
/// Room for the kernel's dump in [`Exit`].
pub const DUMP_LEN: usize = 32768;

/// [`Event::kind`]: a task wants to run and waits for a decision.
pub const EVENT_QUEUED: u32 = 1;
/// [`Event::kind`]: a task is gone.
pub const EVENT_EXIT: u32 = 2;
/// [`Event::kind`]: a task came into being; [`Event::waker`] is its parent.
pub const EVENT_FORK: u32 = 3;
/// [`Event::kind`]: where a task may run has changed.
pub const EVENT_AFFINITY: u32 = 4;
/// [`Event::kind`]: a task's weight has changed.
pub const EVENT_WEIGHT: u32 = 5;
/// [`Event::kind`]: a task has moved to [`Event::cpu_cgroup_id`].
pub const EVENT_CGROUP: u32 = 6;
/// Never sent, only subscribed to: cgroups are in a table, see [`Cgroup`].
pub const EVENT_CGROUPS: u32 = 7;
/// [`Config::options`]: an idle CPU found by the kernel's own selection is used at once.
pub const OPT_BUILTIN_IDLE: u32 = 1;
/// [`Config::options`]: tasks bound to one CPU go to its local queue, ahead of all others.
pub const OPT_KEEP_LOCAL: u32 = 2;
/// [`Config::options`]: the agent is never asked about kernel threads.
pub const OPT_EARLY_KTHREADS: u32 = 4;
/// [`Config::options`]: limits of cgroups (`cpu.max`) are not enforced.
pub const OPT_NO_LIMITS: u32 = 8;
/// [`Config::options`]: events and decisions go through shared arrays, not through the kernel's ring buffers.
pub const OPT_SHARED: u32 = 16;
/// Slots of [`EventArray`].
pub const EVENT_SLOTS: usize = 8192;
/// Slots of [`DecisionArray`].
pub const DECISION_SLOTS: usize = 8192;
/// [`Event::flags`]: the legs of this wakeup are timed, stamp the decision.
pub const EVENT_SAMPLED: u32 = 1;
/// [`Event::flags`]: the task slept before.
pub const EVENT_WAKEUP: u32 = 2;
/// [`Event::flags`]: a kernel thread.
pub const EVENT_KTHREAD: u32 = 4;

/// [`View::mode`]: the core schedules by itself.
pub const DEGRADED: u64 = 0;
/// [`View::mode`]: the agent decides.
pub const NORMAL: u64 = 1;
/// [`View::mode`]: the core decides because it was told to.
pub const KERNEL: u64 = 3;
/// Names of the reasons in [`View::reason`] and [`View::entered`].
pub const REASONS: [&str; 5] = ["start", "late", "agent exit", "new agent", "kernel mode"];
/// Names of the legs in [`Legs::hist`].
pub const LEG_NAMES: [&str; LEGS] =
    ["enqueued-seen", "seen-decided", "decided-inserted", "inserted-running", "enqueued-running"];

/// Core to agent: something about a task.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// When the core wrote it.
    pub enqueued_at: u64,
    /// Which enqueue of this pid this is; a decision must repeat it.
    pub generation: u64,
    /// Inode of the task's cgroup v2 directory.
    pub cgroup_id: u64,
    /// `SCX_ENQ_*` as the kernel gave them.
    pub enq_flags: u64,
    /// When the last run on a CPU began.
    pub started_at: u64,
    /// When it ended.
    pub stopped_at: u64,
    /// Nanoseconds on a CPU since the last sleep.
    pub exec_runtime: u64,
    /// The core's own virtual time of the task, weight applied.
    pub vtime: u64,
    /// Affinity of CPUs 0..63, one bit each.
    pub allowed: u64,
    /// Set by user space for the task or its parents; means nothing to the core.
    pub label: u64,
    /// The kernel's own number of the task, never used twice; 0 where it has none.
    pub tid: u64,
    /// The cgroup whose cpu controller it is under; 0 if nobody subscribes to cgroups.
    pub cpu_cgroup_id: u64,
    /// When the task began, in ns since the boot of the machine, time asleep included.
    pub born: u64,
    /// The same of the first thread of its process.
    pub process_born: u64,
    /// On CPUs since its last event.
    pub ran_ns: u64,
    /// Asleep since then.
    pub slept_ns: u64,
    /// The thread.
    pub pid: i32,
    /// Its process.
    pub tgid: i32,
    /// Where it ran last.
    pub cpu: i32,
    /// Who woke it, 0 if nobody.
    pub waker: i32,
    /// 1..10000, 100 is nice 0.
    pub weight: u32,
    /// How many CPUs it may use.
    pub nr_cpus_allowed: u32,
    /// The agreement that this event belongs to.
    pub epoch: u32,
    /// `EVENT_SAMPLED`, `EVENT_WAKEUP`, `EVENT_KTHREAD`.
    pub flags: u32,
    /// One of `EVENT_QUEUED` to `EVENT_CGROUP`.
    pub kind: u32,
    /// cpu.weight of the task's cgroup, if it was subscribed to; else 100.
    pub cgroup_weight: u32,
    /// Wakeups since its last event that a permit let in.
    pub permitted: u32,
    /// Zero.
    pub reserved: u32,
    /// Name of the thread, NUL padded.
    pub comm: [u8; 16],
}

/// A slot of [`EventArray`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EventSlot {
    /// The event.
    pub event: Event,
    /// How often the slot was written; the last word to change.
    pub written: u64,
}

/// Events, where they go through shared arrays. Written by the core only.
#[repr(C)]
#[derive(Debug)]
pub struct EventArray {
    /// Events begun.
    pub sent: u64,
    /// Zero.
    pub pad0: [u64; 7],
    /// Decisions read.
    pub taken: u64,
    /// Zero.
    pub pad1: [u64; 7],
    /// The event at position `p` is in slot `p % EVENT_SLOTS`.
    pub slots: [EventSlot; EVENT_SLOTS],
}

/// Decisions, where they go through shared arrays. Written by the agent only.
#[repr(C)]
#[derive(Debug)]
pub struct DecisionArray {
    /// Events read.
    pub read: u64,
    /// Zero.
    pub pad0: [u64; 7],
    /// Decisions published.
    pub published: u64,
    /// Zero.
    pub pad1: [u64; 7],
    /// The decision at position `p` is in slot `p % DECISION_SLOTS`.
    pub slots: [Decision; DECISION_SLOTS],
}

/// Agent to core: where and for how long a task shall run.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decision {
    /// Of the event that this answers.
    pub generation: u64,
    /// 0 for the core's default.
    pub slice_ns: u64,
    /// Order among the tasks waiting for the same CPU, or for any.
    pub vtime: u64,
    /// When the event was read; 0 if it was not sampled.
    pub seen_at: u64,
    /// When the decision was made; 0 if the event was not sampled.
    pub decided_at: u64,
    /// For how long the permit holds.
    pub permit_ns: u64,
    /// The thread.
    pub pid: i32,
    /// A CPU or [`CPU_ANY`].
    pub cpu: i32,
    /// [`PERMIT_CLOCK`], [`PERMIT_CUTS`]; anything else is refused.
    pub flags: u32,
    /// For how many wakeups the permit holds; 0: there is none.
    pub permit: u32,
    /// By how much each nanosecond of run moves the task in the policy's order, in parts of 1024.
    pub rate: u32,
    /// Of [`AgentPage::revoked_all`] and [`AgentPage::revoked`] for this task.
    pub mark: u32,
}

/// [`Decision::flags`]: the permit's place in the policy's order is the time of the wakeup.
pub const PERMIT_CLOCK: u32 = 1 << 16;
/// It may cut the slice of whoever is far behind it in that order.
pub const PERMIT_CUTS: u32 = 1 << 17;
/// Words of [`AgentPage::revoked`].
pub const REVOKE_WORDS: usize = 1024;

/// Argument of `qumun_hello`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Hello {
    /// Out: the epoch to acknowledge first.
    pub epoch: u32,
    /// Out: the CPU from which the agent should greet to have it for itself, + 1; 0: from any.
    pub dedicated: u32,
}

/// Argument of `qumun_select_cpu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Select {
    /// In: how many of [`AgentPage::requests`] to answer.
    pub count: u32,
    /// Out: how many got an idle CPU.
    pub answered: u32,
}

/// Argument of `qumun_task`: what is kept about one task.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Task {
    /// In: which.
    pub pid: i32,
    /// In: 1 to set `label` and `slice_ns`, 0 to read.
    pub set: u32,
    /// For the policy; children inherit it.
    pub label: u64,
    /// Slice where a decision names none; 0 for the core's default. Children inherit it.
    pub slice_ns: u64,
    /// Out: of its last enqueue.
    pub generation: u64,
    /// Out: 0 in no queue of the agent's, 1 parked, 2 placed.
    pub state: u64,
    /// Out: as in [`Event::tid`].
    pub tid: u64,
    /// Out: the core's own virtual time.
    pub vtime: u64,
}

/// Argument of `qumun_mode`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Mode {
    /// Whether the core decides alone.
    pub kernel: u32,
    /// Whether it did before.
    pub was: u32,
}

/// Argument of `qumun_wake`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Wake {
    /// Out: how many of [`AgentPage::wake`] were idle.
    pub woken: u32,
    /// Zero.
    pub reserved: u32,
}

/// Argument of `qumun_preempt`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Preempt {
    /// The CPU whose slice shall end.
    pub cpu: i32,
    /// Zero.
    pub reserved: u32,
}

/// One question to `qumun_select_cpu` and its answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// For which thread.
    pub pid: i32,
    /// In: where to look first. Out: the CPU that was claimed, or -1.
    pub cpu: i32,
}

/// What the core shows; user space maps it read-only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// One bit a CPU: idle now.
    pub idle: [u64; MAX_CPUS / 64],
    /// [`DEGRADED`] or [`NORMAL`].
    pub mode: u64,
    /// Changes when the core takes over: whatever the agent holds is void then.
    pub epoch: u64,
    /// When the present degraded period began, 0 while normal.
    pub degraded_since: u64,
    /// How long it lasts at least.
    pub dwell_ns: u64,
    /// How often the agent was put on a CPU.
    pub agent_runs: u64,
    /// 1 after the scheduler was removed.
    pub exited: u64,
    /// CPU numbers are below this.
    pub nr_cpu_ids: u64,
    /// Why the last degraded period began, an index into [`REASONS`].
    pub reason: u64,
    /// The agent's thread, 0 if there is none.
    pub agent_pid: i32,
    /// The agent's process.
    pub agent_tgid: i32,
    /// Degraded periods begun, by reason.
    pub entered: [u64; REASONS.len()],
    /// Degraded periods ended.
    pub left: u64,
    /// Total length of the ended ones.
    pub degraded_ns: u64,
    /// Largest lateness of an event at which the core took over.
    pub longest_late_ns: u64,
    /// Tasks that had waited too long and the core served out of turn.
    pub rescued: u64,
    /// When the agent was put on a CPU last.
    pub agent_ran_at: u64,
    /// CPUs that may be used.
    pub nr_online: u64,
    /// cgroups in the table; 0 where nobody needs them.
    pub nr_cgroups: u64,
    /// One bit a CPU: it may be used.
    pub online: [u64; MAX_CPUS / 64],
    /// Changes of the table of cgroups.
    pub cgroup_changes: u64,
    /// cgroups that found the table full: they count as a part of their parent.
    pub cgroups_untold: u64,
    /// cgroups in the table that have a limit.
    pub nr_limits: u64,
    /// The CPU that the agent has for itself while the mode is [`NORMAL`], + 1; 0: none.
    pub dedicated: u64,
    /// One bit a CPU: it is idle until the agent answers for the task that ran there.
    pub asking: [u64; MAX_CPUS / 64],
}

/// A cgroup that has a cpu controller: one slot of the core's table, of which slot 0 is the root.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Grows with each change; odd while the rest changes.
    pub version: u64,
    /// The cgroup v2 directory (its inode number); 0: nobody is here.
    pub id: u64,
    /// The id of its parent; 0 for the root.
    pub parent: u64,
    /// Microseconds of each period; 0 for no limit.
    pub quota_us: u64,
    /// The period of the limit.
    pub period_us: u64,
    /// How much of what was not used may be used later.
    pub burst_us: u64,
    /// `cpu.weight`: 1..10000.
    pub weight: u32,
    /// The slot of its parent.
    pub above: u32,
}

/// Slots of the table of cgroups.
pub const MAX_CGROUPS: usize = 4096;

/// What the agent shows; the core believes nothing in it but `ack`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AgentPage {
    /// The epoch that the agent has caught up with.
    pub ack: u64,
    /// Events read.
    pub events: u64,
    /// Events thrown away because a new epoch had begun.
    pub discarded: u64,
    /// Decisions written.
    pub published: u64,
    /// Batches in which they were.
    pub batches: u64,
    /// Decisions handed back because the ring was full.
    pub ring_full: u64,
    /// Heap allocations on the agent's thread since it began to schedule.
    pub allocations: u64,
    /// Epochs acknowledged.
    pub resyncs: u64,
    /// Tasks that the policy keeps.
    pub held: u64,
    /// Bytes of the pool.
    pub pool_size: u64,
    /// Bytes of it in use.
    pub pool_used: u64,
    /// Page faults on the agent's thread since it began to schedule.
    pub minor_faults: u64,
    /// Those that had to read a disk.
    pub major_faults: u64,
    /// A permit holds while the sum of this and its task's word of `revoked` is what it was.
    pub revoked_all: u64,
    /// Hashed by pid.
    pub revoked: [u64; REVOKE_WORDS],
    /// Questions to `qumun_select_cpu`.
    pub requests: [Request; SELECT_MAX],
    /// CPUs for `qumun_wake`, one bit each.
    pub wake: [u64; MAX_CPUS / 64],
}

/// One CPU's counters. See [`crate::stats`] for the sums and the ledgers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events sent to the agent.
    pub ev_sent: u64,
    /// Events that ended by an applied decision.
    pub ev_dispatched: u64,
    /// Events that ended because the decided CPU is not allowed; the core took the task.
    pub ev_bounced: u64,
    /// Events whose task was dequeued or changed before a decision came.
    pub ev_cancelled: u64,
    /// Events whose task ended.
    pub ev_dead: u64,
    /// Events whose task the core ran because the agent was late.
    pub ev_taken_over: u64,
    /// Decisions taken out of the ring.
    pub dec_drained: u64,
    /// Decisions that placed their task.
    pub dec_applied: u64,
    /// Decisions for a CPU that the task may not use.
    pub dec_bounced: u64,
    /// Decisions for an event that had ended.
    pub dec_stale: u64,
    /// Decisions that make no sense.
    pub dec_refused: u64,
    /// Drains that failed because positions or lengths in the ring make no sense.
    pub ring_errors: u64,
    /// Enqueues that found the event ring full; the core took them.
    pub congested: u64,
    /// Enqueues that never go to the agent.
    pub kernel_direct: u64,
    /// Enqueues while degraded.
    pub core_enqueued: u64,
    /// Exit events that found the ring full.
    pub exit_dropped: u64,
    /// Idle CPUs woken.
    pub kicks: u64,
    /// Slices cut short so that the agent gets its turn.
    pub preempts: u64,
    /// Times the agent was put on this CPU.
    pub activations: u64,
    /// Times another task was.
    pub runs: u64,
    /// Times the running task went on because nothing else waited.
    pub kept: u64,
    /// Decisions that came before their task was parked, and waited for it.
    pub retried: u64,
    /// Times another scheduling class took the CPU and its local queue was handed back.
    pub reenqueued: u64,
    /// Longest that a task was parked. A maximum, not a sum.
    pub max_parked_ns: u64,
    /// Wakeups placed on an idle CPU by the kernel's own selection.
    pub idle_bypass: u64,
    /// Runs longer than [`Config::max_run_ns`] that were cut short.
    pub overruns: u64,
    /// Events that need no answer.
    pub notes_sent: u64,
    /// Those that found the ring full.
    pub notes_dropped: u64,
    /// Tasks that got label and slice from their parent.
    pub inherited: u64,
    /// 1 while a task of ours runs here. A state, not a count: the sum is `nr_running`.
    pub running: u64,
    /// Times a task was held back because its cgroup has used up its limit.
    pub throttled: u64,
    /// For how long, those that were let out again.
    pub throttled_ns: u64,
    /// Those that were let out although the limit was used up, because they had waited for too long.
    pub limit_overruns: u64,
    /// Wakeups that a permit let in: decided earlier, not one by one.
    pub permitted: u64,
    /// Enqueues in kernel mode.
    pub kernel_mode: u64,
    /// Tasks whose slice was cut short and that a permit let go on with the rest of it.
    pub resumed: u64,
    /// Times the core put a task ahead of others because a rule says so.
    pub ahead: u64,
}

/// Rules in a table.
pub const RULES: usize = 1024;
/// Places for their targets; half of them may be taken.
pub const TARGETS: usize = 8192;
/// A target is found in so many places from where its hash says.
pub const PROBES: usize = 32;
/// [`Rule::flags`]: each task has tokens of its own.
pub const RULE_EACH: u32 = 1;
/// The highest [`Rule::rank`].
pub const RANKS: u32 = 11;

/// Whom a rule is for.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Target {
    /// A number that names it, by its kind.
    pub a: u64,
    /// The rest of the name.
    pub b: u64,
    /// 1 a label, 2 a task's number, 3 a thread, 4 a process, 5 a cgroup, 6 a name.
    pub kind: u32,
    /// The number of the rule + 1; 0: nothing is here.
    pub rule: u32,
}

/// What the core does for some tasks where it decides by itself. See `bpf/rules.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whose tokens: they stay from one table to the next while this is the same.
    pub key: u64,
    /// From then on it is none.
    pub until_ns: u64,
    /// The slice; 0: as without it.
    pub slice_ns: u64,
    /// Tokens: for how much time the burst would last, if it were all that comes.
    pub window_ns: u64,
    /// And what each nanosecond of run takes of that, in parts of 1024.
    pub price: u32,
    /// The weight at most; 0: no bound.
    pub weight: u32,
    /// Of what a run is charged this part of 1024 is paid by tokens.
    pub saves: u32,
    /// Ahead of all others with a smaller one while there are tokens; 0: in its turn.
    pub rank: u32,
    /// [`RULE_EACH`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// One of the two tables.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RuleTable {
    /// The tokens that all who are ahead of others share.
    pub floor_window_ns: u64,
    /// And what each nanosecond of run takes of them.
    pub floor_price: u32,
    /// One bit for each kind of target that is in it.
    pub flags: u32,
    /// Whom rules are for, by hash.
    pub targets: [Target; TARGETS],
    /// The rules.
    pub rules: [Rule; RULES],
}

/// Both tables, and which is in force.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Its lowest bit names the table; 0: there never were any.
    pub generation: u64,
    /// The tables.
    pub tables: [RuleTable; 2],
}

/// One CPU's histograms of the legs of sampled wakeups.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Legs {
    /// By leg ([`LEG_NAMES`]) and log2 of nanoseconds.
    pub hist: [[u64; LEG_BUCKETS]; LEGS],
}

/// Why the scheduler was removed, as the kernel said it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    /// `SCX_ECODE_*`.
    pub code: i64,
    /// `enum scx_exit_kind`; 0 while it runs.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// NUL terminated.
    pub reason: [u8; 128],
    /// NUL terminated.
    pub msg: [u8; 1024],
    /// NUL terminated.
    pub dump: [u8; DUMP_LEN],
}

/// Settings of the core, fixed at load.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Slice of a task when the decision names none, and of every task the core decides for.
    pub slice_ns: u64,
    /// Shortest slice that a decision can get.
    pub slice_min_ns: u64,
    /// Longest slice that a decision can get.
    pub slice_max_ns: u64,
    /// An event undecided for this long makes the core take over.
    pub late_ns: u64,
    /// When all CPUs are busy and the agent had no turn for this long, a slice is cut for it.
    pub preempt_ns: u64,
    /// No run is longer than this while others wait; 0 for no limit but the slice.
    pub max_run_ns: u64,
    /// The agent gets a turn this often also when nothing happens; else the kernel's watchdog would take it
    /// for a stalled task.
    pub heartbeat_ns: u64,
    /// With all CPUs busy, a slice is cut for the agent when an event has waited for this long; 0: only as
    /// `preempt_ns` says, or at the next clock interrupt.
    pub preempt_after_ns: u64,
    /// CPU numbers are below this.
    pub nr_cpu_ids: u32,
    /// Lines into `trace_pipe`, at most 20 a second.
    pub debug: u32,
    /// `OPT_*`.
    pub options: u32,
    /// One bit for each kind of event subscribed to: `1 << EVENT_*`.
    pub events: u32,
    /// The CPU that the agent is to have for itself, + 1; 0: none. With [`OPT_SHARED`] only.
    pub dedicated: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Event>() == 192);
    assert!(offset_of!(Event, generation) == 8);
    assert!(offset_of!(Event, allowed) == 64);
    assert!(offset_of!(Event, pid) == 128);
    assert!(offset_of!(Event, weight) == 144);
    assert!(offset_of!(Event, kind) == 160);
    assert!(offset_of!(Event, comm) == 176);
    assert!(size_of::<Decision>() == 72);
    assert!(offset_of!(Decision, vtime) == 16);
    assert!(offset_of!(Decision, pid) == 48);
    assert!(offset_of!(Decision, flags) == 56);
    assert!(size_of::<EventSlot>() == 200);
    assert!(offset_of!(EventSlot, written) == 192);
    assert!(offset_of!(EventArray, taken) == 64);
    assert!(offset_of!(EventArray, slots) == 128);
    assert!(offset_of!(DecisionArray, published) == 64);
    assert!(offset_of!(DecisionArray, slots) == 128);
    assert!(size_of::<Hello>() == 8);
    assert!(size_of::<Select>() == 8);
    assert!(size_of::<Preempt>() == 8);
    assert!(size_of::<Mode>() == 8);
    assert!(size_of::<Wake>() == 8);
    assert!(size_of::<Request>() == 8);
    assert!(size_of::<Target>() == 24);
    assert!(size_of::<Rule>() == 56);
    assert!(offset_of!(RuleTable, targets) == 16);
    assert!(size_of::<RuleTable>() == 16 + 24 * TARGETS + 56 * RULES);
    assert!(size_of::<Rules>() == 8 + 2 * size_of::<RuleTable>());
    assert!(size_of::<View>() == 328 + MAX_CPUS / 4);
    assert!(offset_of!(View, online) == 296);
    assert!(size_of::<Task>() == 56);
    assert!(offset_of!(View, mode) == 128);
    assert!(offset_of!(View, agent_pid) == 192);
    assert!(offset_of!(View, left) == 240);
    assert!(size_of::<AgentPage>() == 112 + 8 * (REVOKE_WORDS + SELECT_MAX + MAX_CPUS / 64));
    assert!(size_of::<Counters>() == 37 * 8);
    assert!(size_of::<Legs>() == LEGS * LEG_BUCKETS * 8);
    assert!(offset_of!(Exit, reason) == 16);
    assert!(offset_of!(Exit, dump) == 1168);
    assert!(size_of::<Config>() == 88);
    assert!(size_of::<Cgroup>() == 56);
    assert!(offset_of!(Cgroup, weight) == 48);
};
