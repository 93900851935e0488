//! What the core knows. See `state.h`.

use std::collections::BTreeMap;

use super::limits::WORDS;
use super::rules::{Book, Ruled};
use crate::cgroups::{Row, Table};
use crate::permit::Marks;
use crate::sim::core::{KICK_IDLE, KICK_PREEMPT};
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::sim::values::{Counters, RawDecision, Sabotage};
use crate::{Cpu, CpuSet, Events};

pub(super) const MS: u64 = 1_000_000;
/// How far behind the clock of virtual time a task may wake up: its credit for having slept.
pub(super) const LAG: u64 = 20 * MS;
/// And how far ahead of it a task may be queued.
pub(super) const AHEAD: u64 = 100 * MS;
pub(super) const AGENT_SLICE: u64 = 4 * MS;
/// A permit cuts the slice of a task that is so far behind in the policy's order.
pub(super) const CUT_LEAD: u64 = MS;
/// Less of a slice is not worth a turn.
pub(super) const REST: u64 = MS / 2;
/// How long a word about a queue is believed: what it speaks of is inserted a little later.
const HINT: u64 = 10 * MS;
/// Slices cut for the agent in a row.
pub(super) const PREEMPT_BURST: u64 = 4;
/// While degraded: one bounded turn of the agent in this time.
pub(super) const AGENT_PROBE: u64 = 10 * MS;
/// Who ran for less the last time is expected to do so again.
pub(super) const BRIEF: u64 = MS;
/// A task that is first in the order goes on, for so long while another one waits.
pub(super) const GO_ON: u64 = 100 * MS;
/// Both sides' queues are looked at this often on each CPU.
pub(super) const SHARE: u64 = 40 * MS;
/// A task, as sides count them.
pub(super) const SHARER: u64 = 16;
/// What a side may be owed that had nothing to run for a while.
pub(super) const SIDE_LAG: u64 = 20 * MS;
/// A task that waits longer than this is served out of turn.
pub(super) const RESCUE_AFTER: u64 = 500 * MS;
pub(super) const RESCUE_EVERY: u64 = 50 * MS;
pub(super) const RESCUE_SCAN: usize = 64;
pub(super) const RESCUE_CPUS: usize = 32;
/// Decisions taken from the ring in one dispatch, and records looked at.
pub(super) const BATCH: usize = 32;
pub(super) const SEEN_MAX: usize = 4 * BATCH;

/// What a core is loaded with (`struct qm_config`). Times are ns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The slice of a decision that names none, and of the core's own.
    pub slice: u64,
    /// The shortest that a decision can get.
    pub slice_min: u64,
    /// The longest.
    pub slice_max: u64,
    /// D: with an event undecided for longer than this, the core takes over.
    pub late: u64,
    /// Running slices are cut for the agent once in this time, and a few times in a row.
    pub preempt: u64,
    /// No run is longer than this while others wait; 0: no limit but the slice.
    pub max_run: u64,
    /// The agent gets a turn this often even if nothing happens.
    pub heartbeat: u64,
    /// With all CPUs busy, a slice is cut for the agent when an event has waited for this long; 0: only as `preempt` says,
    /// or at the next clock interrupt.
    pub preempt_after: u64,
    /// An idle CPU found by the kernel's own selection is used at once.
    pub builtin_idle: bool,
    /// Tasks bound to one CPU go to its local queue, ahead of all others.
    pub keep_local: bool,
    /// Kernel threads are never asked about.
    pub early_kthreads: bool,
    /// Limits of cgroups are enforced.
    pub limits: bool,
    /// Events and decisions go through shared arrays, not through the kernel's ring buffers. What that changes is who has
    /// to look again: the ring buffer is locked by whoever reads, the array only claimed by whoever found something.
    pub shared: bool,
    /// The agent's thread has this CPU for itself and polls there; with [`shared`](Self::shared) only.
    pub dedicated: Option<Cpu>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slice: 5 * MS,
            slice_min: 100_000,
            slice_max: 20 * MS,
            late: 30 * MS,
            preempt: MS,
            max_run: 500 * MS,
            heartbeat: 500 * MS,
            preempt_after: 0,
            builtin_idle: false,
            keep_local: false,
            early_kthreads: false,
            limits: true,
            shared: true,
            dedicated: None,
        }
    }
}

/// Is a word about a queue of no worth any more, that was set then? With one CPU an insert is over before anything else is
/// asked there.
pub(super) fn is_stale(linux: &Linux, since: u64, now: u64) -> bool {
    linux.nr_cpus() == 1 || now.wrapping_sub(since) > HINT
}

/// Where the open event of a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Custody {
    /// Running, asleep, or in one of the core's own queues.
    #[default]
    None,
    /// The event is undecided.
    Parked,
    /// Decided, waiting for a CPU.
    Placed,
}

/// `struct task_ctx`.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskCtx {
    pub(super) generation: u64,
    pub(super) custody: Custody,
    pub(super) vtime: u64,
    /// On CPUs since it woke up.
    pub(super) exec_runtime: u64,
    /// The same, when it woke up last.
    pub(super) last_run: u64,
    pub(super) started_at: u64,
    pub(super) stopped_at: u64,
    pub(super) enqueued_at: u64,
    pub(super) placed_at: u64,
    pub(super) label: u64,
    pub(super) slice: u64,
    pub(super) bucket: usize,
    pub(super) sampled: bool,
    pub(super) reclaim: bool,
    pub(super) charged_at: u64,
    pub(super) group: u32,
    pub(super) pass: bool,
    pub(super) safe: bool,
    pub(super) dry_ticks: u8,
    /// Since the last event.
    pub(super) ran: u64,
    pub(super) slept: u64,
    pub(super) permitted: u32,
    /// Its place in the policy's order; 0: the policy has given it none.
    pub(super) order: u64,
    pub(super) permit: Grant,
    /// Of the slice of its decision.
    pub(super) left: u64,
    pub(super) ruled: Ruled,
    /// The count in which it is one of the runnable tasks; 0: in none.
    pub(super) counted: u32,
    pub(super) counted_weight: u32,
}

/// A decision that still holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grant {
    pub(super) left: u32,
    pub(super) until: u64,
    pub(super) vtime: u64,
    pub(super) slice: u64,
    pub(super) rate: u32,
    pub(super) flags: u32,
    pub(super) mark: u32,
    pub(super) epoch: u32,
    pub(super) weight: u32,
}

/// `struct qm_cgroup`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    pub(super) version: u64,
    pub(super) id: u64,
    pub(super) parent: u64,
    /// Quota, period, burst, in us.
    pub(super) limit: [u64; 3],
    pub(super) weight: u32,
    pub(super) above: u32,
}

/// `struct group`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    pub(super) quota: u64,
    pub(super) budget: i64,
    pub(super) period: u64,
    pub(super) refilled_at: u64,
    pub(super) most: u64,
    pub(super) debt: u64,
    pub(super) since: u64,
    pub(super) held_at: u64,
    pub(super) parent: u32,
    /// What it counts for above, since it has runnable tasks.
    pub(super) weight: u32,
    /// Weights of those who compete directly in it.
    pub(super) rivals: i64,
    /// And how many they are.
    pub(super) competing: i64,
}

/// `struct cpu_ctx`. Index 0 of a pair is the core's side, 1 the agent's.
#[derive(Clone, Debug, Default)]
pub(super) struct CpuCtx {
    pub(super) served_at: [u64; 2],
    pub(super) clock: [u64; 2],
    pub(super) charged_at: u64,
    pub(super) side: usize,
    pub(super) side_n: u64,
    pub(super) next_side: usize,
    pub(super) next_n: u64,
    pub(super) sample: u64,
    /// The place in the policy's order of the task that runs here; 0: it has none.
    pub(super) order: u64,
    /// And its rank.
    pub(super) rank: u32,
    pub(super) favour: u32,
    pub(super) pinned: bool,
    pub(super) placed: bool,
    pub(super) online: bool,
    /// A task of ours runs here.
    pub(super) running: bool,
    pub(super) turn: u32,
    pub(super) deferred: bool,
    pub(super) urgent: bool,
    pub(super) given: bool,
    pub(super) cut_at: u64,
    /// When it was idle last.
    pub(super) busy_since: u64,
    /// A task was sent here since, to wait for the CPU.
    pub(super) awaited: bool,
    /// Who runs here slept soon the last time.
    pub(super) brief: bool,
    /// When who runs here came.
    pub(super) began: u64,
    /// Its slice was cut for a task about which the agent is asked.
    pub(super) called: bool,
    /// It is to wait for what the agent says of the task that ran here.
    pub(super) asked: bool,
    pub(super) rescued_at: u64,
    pub(super) overran_at: u64,
    /// Decisions that came before their task: the kept part of `struct batch`.
    pub(super) kept: Vec<RawDecision>,
}

pub(super) const BUCKETS: usize = 64;

/// `struct qm_view`, as far as it is not counted elsewhere.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct View {
    pub(in crate::sim) idle: CpuSet,
    pub(in crate::sim) normal: bool,
    pub(in crate::sim) kernel: bool,
    pub(in crate::sim) epoch: u64,
    pub(in crate::sim) degraded_since: u64,
    pub(in crate::sim) dwell: u64,
    pub(in crate::sim) reason: usize,
    pub(in crate::sim) entered: [u64; 5],
    pub(in crate::sim) left: u64,
    pub(in crate::sim) degraded_ns: u64,
    pub(in crate::sim) longest_late: u64,
    pub(in crate::sim) agent_ran_at: u64,
    pub(in crate::sim) agent_pid: i32,
    pub(in crate::sim) agent_tgid: i32,
    pub(in crate::sim) nr_online: u64,
    pub(in crate::sim) exited: bool,
    pub(in crate::sim) nr_cgroups: u64,
    pub(in crate::sim) cgroup_changes: u64,
    pub(in crate::sim) cgroups_untold: u64,
    pub(in crate::sim) nr_limits: u64,
    /// The CPU that the agent has for itself while the core does not decide.
    pub(in crate::sim) dedicated: Option<Cpu>,
    /// Idle until the agent answers for the task that ran there.
    pub(in crate::sim) asking: CpuSet,
}

/// The executable specification of the core: what `qumun-bpf/bpf/*.h` does, in Rust.
///
/// In our tests the C core, compiled for the host, runs in lock-step with it on random histories; a change to either
/// side alone fails there. One CPU at a time runs code here, so a step of the C core that guards against another CPU
/// in between has nothing to guard against. Not here: real-time tasks that take a CPU, legs, partial mode.
#[derive(Debug)]
pub struct Reference {
    pub(in crate::sim) settings: Settings,
    pub(super) events: Events,
    pub(super) sabotage: Sabotage,
    pub(in crate::sim) view: View,
    pub(super) ack: u64,
    pub(super) tasks: Vec<TaskCtx>,
    pub(super) cpus: Vec<CpuCtx>,
    pub(in crate::sim) counters: Counters,
    /// `struct core_state`.
    pub(super) vnow: u64,
    pub(super) checked: u64,
    pub(super) left_at: u64,
    pub(super) last_rescue: u64,
    pub(super) rescue_cpu: u32,
    pub(super) agent_ran_at: u64,
    pub(super) agent_cpu: Option<Cpu>,
    pub(super) agent_last_cpu: Option<Cpu>,
    pub(super) agent_queued: bool,
    /// An earlier agent may wait beside it.
    pub(super) crowd: bool,
    pub(super) decisions_left: u32,
    pub(super) shared: bool,
    /// The queue of the core's own may hold a task, as of this time.
    pub(super) filled: bool,
    pub(super) filled_at: u64,
    pub(super) shared_at: u64,
    /// The queue of the undecided may hold a task, while the core decides, as of this time.
    pub(super) parked: bool,
    pub(super) parked_at: u64,
    /// The words of the agent's page that end permits.
    pub(super) marks: Marks,
    pub(super) preempt_at: u64,
    /// When the agent was first called in vain since its last turn; 0: it was not.
    pub(super) called_at: u64,
    /// The timer is on that ends that wait.
    pub(super) alarm: bool,
    /// Decisions taken, as the agent's own CPU saw it last.
    pub(super) own_taken: Option<u64>,
    /// When a task was sent to a CPU to wait there; kept where the agent has one for itself.
    pub(super) waited_at: u64,
    pub(super) rules: Book,
    /// When all that tasks took ahead of others is paid for.
    pub(super) ahead_paid: u64,
    /// How often counting the runnable tasks has begun.
    pub(super) shares: u32,
    /// Weights of all runnable tasks.
    pub(super) rivals: i64,
    pub(super) undecided: [i64; BUCKETS],
    pub(super) released_at: u64,
    pub(super) held: bool,
    pub(super) release_word: u32,
    pub(super) shown: Vec<Shown>,
    pub(super) groups: Vec<Group>,
    pub(super) held_bits: Box<[u64; WORDS]>,
    /// What each cgroup's storage says: its slot, and whether it is its own.
    pub(super) slots: BTreeMap<u64, (u32, bool)>,
    /// Events sent though the core had taken over, and generations sent twice: for checks.
    pub(in crate::sim) sent_degraded: u64,
    pub(in crate::sim) repeated: u64,
}

impl Reference {
    /// A core with these settings, not loaded yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            events: Events::NONE,
            sabotage: Sabotage::None,
            view: View::default(),
            ack: 0,
            tasks: Vec::new(),
            cpus: Vec::new(),
            counters: Counters::default(),
            vnow: 0,
            checked: 0,
            left_at: 0,
            last_rescue: 0,
            rescue_cpu: 0,
            agent_ran_at: 0,
            agent_cpu: None,
            agent_last_cpu: None,
            agent_queued: false,
            crowd: false,
            decisions_left: 0,
            shared: false,
            filled: false,
            filled_at: 0,
            shared_at: 0,
            parked: false,
            parked_at: 0,
            marks: Marks::default(),
            preempt_at: 0,
            called_at: 0,
            alarm: false,
            own_taken: None,
            waited_at: 0,
            rules: Book::default(),
            ahead_paid: 0,
            shares: 1,
            rivals: 0,
            undecided: [0; BUCKETS],
            released_at: 0,
            held: false,
            release_word: 0,
            shown: Vec::new(),
            groups: Vec::new(),
            held_bits: Box::new([0; WORDS]),
            slots: BTreeMap::new(),
            sent_degraded: 0,
            repeated: 0,
        }
    }

    /// Breaks one rule.
    #[doc(hidden)]
    #[must_use]
    pub fn sabotaged(mut self, how: Sabotage) -> Self {
        self.sabotage = how;
        self
    }

    pub(super) fn ctx(&self, task: Thread) -> &TaskCtx {
        &self.tasks[task.0 as usize]
    }

    pub(super) fn ctx_mut(&mut self, task: Thread) -> &mut TaskCtx {
        &mut self.tasks[task.0 as usize]
    }

    pub(super) fn cpu(&self, cpu: Cpu) -> &CpuCtx {
        &self.cpus[cpu.0 as usize]
    }

    pub(super) fn cpu_mut(&mut self, cpu: Cpu) -> &mut CpuCtx {
        &mut self.cpus[cpu.0 as usize]
    }

    /// The slice of a task for which no decision names one.
    pub(super) fn own_slice(&self, task: Thread) -> u64 {
        match self.ctx(task).slice {
            0 => self.settings.slice,
            own => own,
        }
    }

    pub(super) fn is_agent(&self, linux: &Linux, task: Thread) -> bool {
        linux.task(task).pid.0 == self.view.agent_pid
    }

    /// Is this a CPU that a kfunc may see?
    pub(super) fn cpu_usable(&self, cpu: Cpu) -> bool {
        self.cpus.get(cpu.0 as usize).is_some_and(|state| state.online)
    }

    pub(super) fn cpu_is_idle(&self, cpu: Cpu) -> bool {
        self.view.idle.contains(cpu)
    }

    /// May the core's own queue hold a task? One look at a word, which is believed for a while.
    pub(super) fn core_waits(&mut self, linux: &Linux, now: u64) -> bool {
        if !self.filled {
            return false;
        }
        if linux.nr_queued(Dsq::Core) > 0 {
            return true;
        }
        self.filled = !is_stale(linux, self.filled_at, now);
        false
    }

    /// The same of the queue of the undecided.
    pub(super) fn park_waits(&mut self, linux: &Linux, now: u64) -> bool {
        if !self.parked {
            return false;
        }
        if linux.nr_queued(Dsq::Park) > 0 {
            return true;
        }
        self.parked = !is_stale(linux, self.parked_at, now);
        false
    }

    /// The same of the queue of what was placed for any CPU; only looks.
    pub(super) fn shared_waits(&self, linux: &Linux, now: u64) -> bool {
        self.shared && (!is_stale(linux, self.shared_at, now) || linux.nr_queued(Dsq::Shared) > 0)
    }

    pub(super) fn shared_filled(&mut self, now: u64) {
        (self.shared, self.shared_at) = (true, now);
    }

    pub(super) fn core_filled(&mut self, now: u64) {
        (self.filled, self.filled_at) = (true, now);
    }

    pub(super) fn any_idle(&self) -> bool {
        !self.view.idle.is_empty()
    }

    /// A CPU on its way offline would send itself an interrupt that never comes.
    pub(super) fn may_kick(&self, linux: &Linux) -> bool {
        self.cpu(linux.this_cpu()).online
    }

    pub(super) fn kick_if_idle(&mut self, linux: &mut Linux, cpu: Cpu) -> bool {
        let kick = self.cpu_is_idle(cpu) && self.cpu_open(cpu) && self.may_kick(linux);
        if kick {
            self.counters.kicks += 1;
            linux.kick(cpu, KICK_IDLE);
        }
        kick
    }

    pub(super) fn kick_busy(&mut self, linux: &mut Linux, cpu: Cpu) {
        self.counters.preempts += 1;
        linux.kick(cpu, KICK_PREEMPT);
    }

    /// Wakes one idle CPU that may run the task, its last one if possible.
    pub(super) fn kick_for(&mut self, linux: &mut Linux, task: Thread, last: Cpu) {
        if self.kick_if_idle(linux, last) || !self.any_idle() {
            return;
        }
        if let Some(cpu) = linux.pick_idle(task).filter(|&cpu| self.cpu_open(cpu) && self.may_kick(linux)) {
            self.counters.kicks += 1;
            linux.kick(cpu, KICK_IDLE);
        }
    }
}

/// Is `a` before `b`, on a clock that may wrap around?
pub(super) fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The same with the distance: is `a` more than `by` after `b`?
pub(super) fn later_by(a: u64, b: u64, by: u64) -> bool {
    a.wrapping_sub(b) as i64 > by as i64
}

/// For who looks from outside.
impl Reference {
    /// The agent that greeted last, if it lives.
    pub(crate) fn agent(&self) -> Option<crate::Pid> {
        (self.view.agent_pid != 0).then_some(crate::Pid(self.view.agent_pid))
    }

    pub(crate) fn is_normal(&self) -> bool {
        self.view.normal
    }

    pub(crate) fn agent_ran_at(&self) -> u64 {
        self.agent_ran_at
    }

    /// Events that are open.
    pub(crate) fn outstanding(&self) -> u64 {
        self.tasks.iter().filter(|t| t.custody == Custody::Parked).count() as u64
    }

    /// Is there a limit that tasks must be charged for?
    pub(crate) fn has_limits(&self) -> bool {
        self.view.nr_limits > 0 || self.held
    }

    /// Changes of the table of cgroups.
    pub(crate) fn cgroup_changes(&self) -> u64 {
        self.view.cgroup_changes
    }

    /// Decisions that came too early and wait.
    pub(crate) fn kept(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.kept.len() as u64).sum()
    }

    /// When the oldest open event was sent.
    pub(crate) fn oldest_undecided(&self) -> Option<crate::Nanos> {
        let open = self.tasks.iter().filter(|t| t.custody == Custody::Parked);
        open.map(|t| crate::Nanos(t.enqueued_at)).min()
    }
}

/// As an agent looks it up.
impl Table for Reference {
    fn version(&self, slot: usize) -> u64 {
        self.shown.get(slot).map_or(0, |row| row.version)
    }

    fn row(&self, slot: usize) -> Row {
        let Shown { version, id, parent, limit: [quota_us, period_us, _], weight, above } =
            self.shown.get(slot).copied().unwrap_or_default();
        Row { version, id, parent, above, weight, quota_us, period_us }
    }
}

/// As the C core shows the same, for the lock-step test.
#[doc(hidden)]
impl Reference {
    /// `struct qm_view`.
    pub fn view_words(&self, linux: &Linux) -> Vec<u64> {
        let v = &self.view;
        let mut online = CpuSet::EMPTY;
        self.cpus.iter().zip(0..).for_each(|(cpu, i)| online.set(Cpu(i), cpu.online));
        let pids = u64::from(v.agent_tgid as u32) << 32 | u64::from(v.agent_pid as u32);
        let mut words = v.idle.words().to_vec();
        let mode = if v.kernel { 3 } else { u64::from(v.normal) };
        words.extend([mode, v.epoch, v.degraded_since, v.dwell, self.counters.activations]);
        words.extend([u64::from(v.exited), u64::from(linux.nr_cpus()), v.reason as u64, pids]);
        words.extend(v.entered);
        words.extend([
            v.left,
            v.degraded_ns,
            v.longest_late,
            self.counters.rescued,
            v.agent_ran_at,
            v.nr_online,
            v.nr_cgroups,
        ]);
        words.extend(online.words());
        words.extend([v.cgroup_changes, v.cgroups_untold, v.nr_limits]);
        words.push(v.dedicated.map_or(0, |cpu| u64::from(cpu.0) + 1));
        words.extend(v.asking.words());
        words
    }

    /// `struct core_state`.
    pub fn state_words(&self) -> Vec<u64> {
        let cpu = |cpu: Option<Cpu>| cpu.map_or(u64::MAX, |cpu| u64::from(cpu.0));
        let mut words =
            vec![self.vnow, self.checked, self.left_at, self.last_rescue, u64::from(self.rescue_cpu)];
        words.extend([self.agent_ran_at, cpu(self.agent_cpu), cpu(self.agent_last_cpu)]);
        words.extend([u64::from(self.agent_queued), self.decisions_left.into(), self.shared.into()]);
        words.extend([u64::from(self.filled), self.filled_at, self.shared_at]);
        words.extend([u64::from(self.parked), self.parked_at]);
        words.extend([self.preempt_at, self.called_at, self.alarm.into(), self.ahead_paid, self.waited_at]);
        words.extend([u64::from(self.shares), self.rivals as u64]);
        let payers = self.rules.payers.iter().copied().chain(std::iter::repeat((0, 0)));
        words.extend(payers.take(4).flat_map(|(key, paid)| [key, paid]));
        words.extend([self.released_at, u64::from(self.held), u64::from(self.release_word)]);
        words.extend(self.undecided.map(|n| n as u64));
        words
    }

    /// `struct cpu_ctx`.
    pub fn cpu_words(&self, cpu: Cpu) -> Vec<u64> {
        let c = self.cpu(cpu);
        let mut words = [c.served_at, c.clock].concat();
        words.extend([c.charged_at, c.side as u64, c.side_n, c.next_side as u64, c.next_n, c.sample]);
        words.extend([c.pinned, c.placed, c.online].map(u64::from));
        words.extend([
            u64::from(c.turn),
            u64::from(c.deferred),
            u64::from(c.urgent) | u64::from(c.given) << 1,
            c.cut_at,
            c.busy_since,
            u64::from(c.awaited)
                | u64::from(c.brief) << 1
                | u64::from(c.called) << 2
                | u64::from(c.asked) << 3,
            c.began,
        ]);
        words.extend([
            c.rescued_at,
            c.overran_at,
            c.kept.len() as u64,
            c.order,
            u64::from(c.rank) | u64::from(c.favour) << 32,
        ]);
        words
    }

    /// `struct task_ctx`.
    pub fn task_words(&self, task: Thread) -> Vec<u64> {
        let t = self.ctx(task);
        vec![
            t.generation,
            t.custody as u64,
            t.vtime,
            t.exec_runtime,
            t.last_run,
            t.started_at,
            t.stopped_at,
            t.enqueued_at,
            t.placed_at,
            t.label,
            t.slice,
            t.bucket as u64,
            u64::from(t.sampled),
            u64::from(t.reclaim),
            t.charged_at,
            u64::from(t.group),
            u64::from(t.pass),
            u64::from(t.safe),
            u64::from(t.dry_ticks),
            t.ran,
            t.slept,
            t.order,
            u64::from(t.permit.left),
            u64::from(t.permitted),
            t.permit.until,
            t.permit.vtime,
            t.permit.slice,
            t.left,
            u64::from(t.permit.rate),
            u64::from(t.permit.flags),
            u64::from(t.permit.mark),
            u64::from(t.permit.epoch),
            u64::from(t.permit.weight),
            u64::from(t.ruled.table),
            u64::from(t.ruled.rule),
            t.ruled.paid,
            u64::from(t.ruled.rank) | u64::from(t.ruled.favour) << 32,
            u64::from(t.counted) | u64::from(t.counted_weight) << 32,
        ]
    }

    /// `struct qm_cgroup`, `struct group` and whether tasks are held back, of the first slots.
    pub fn cgroup_words(&self, slots: usize) -> Vec<[u64; 21]> {
        let rows = (0..slots).map(|slot| {
            let c = self.shown.get(slot).copied().unwrap_or_default();
            let g = self.groups.get(slot).copied().unwrap_or_default();
            let [quota, period, burst] = c.limit;
            let held = self.held_bits[slot / 64] >> (slot & 63) & 1;
            [
                c.version,
                c.id,
                c.parent,
                quota,
                period,
                burst,
                c.weight.into(),
                c.above.into(),
                g.quota,
                g.budget as u64,
                g.period,
                g.refilled_at,
                g.most,
                g.debt,
                g.since,
                g.held_at,
                g.parent.into(),
                g.weight.into(),
                g.rivals as u64,
                g.competing as u64,
                held,
            ]
        });
        rows.collect()
    }
}
