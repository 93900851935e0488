//! The running kernel as a backend: load, attach, run.
//!
//! ```text
//!   builder("name") ──load()──► Loaded ──attach()──► Running ──run(policy)──► Exit
//!                                  │                    │
//!                                  └── agent_fds() ─────┴──► another process: Link::connect(fds)
//! ```
//!
//! [`Builder::run`] is all of it in one process and on one thread: right for a first scheduler. A daemon
//! keeps [`Running`] in a process of its own and lets a child connect: when the child dies, the core
//! goes on by itself, and the next child takes over without a new load.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use qumun_bpf::agent::AgentFds;
pub use qumun_bpf::features::{Ability, Features};
pub use qumun_bpf::loader::{ExitRecord, Loaded as LoadedCore, uses_operation};
pub use qumun_bpf::probe::Probe;
pub use qumun_bpf::{recorder, stats, wire};

use qumun_bpf::agent::{self as bpf_agent, PageWord, ViewWord};
use qumun_bpf::loader::{self, Options};
use qumun_bpf::places::Places;

use crate::alloc::FaultGuard;
use crate::cgroups::{Row, Table, Told};
use crate::own::Own;
use crate::rules::{Numbers, RawRule};
use crate::{
    Affinity, Ask, Backend, Builder, Cpu, CpuSet, Decision, Epoch, Error, ErrorKind, Event, Events, Exit,
    ExitInfo, ExitKind, Full, Generation, IdleView, Level, Nanos, Note, Pid, Queued, Result, Rules,
    Scheduler, Stats, TaskId, Topology, Transport, Whom, alloc,
};

/// The core, loaded into the kernel and not yet scheduling.
#[derive(Debug)]
pub struct Loaded {
    inner: loader::Loaded,
    builder: Builder,
}

/// The core, scheduling. Dropping it gives the machine back to the kernel's own scheduler.
#[derive(Debug)]
pub struct Running {
    inner: loader::Attached,
    builder: Builder,
    numbers: Mutex<Numbers>,
}

impl Builder {
    /// Loads the core into the running kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], [`ErrorKind::NoBtf`], [`ErrorKind::PermissionDenied`] or
    /// [`ErrorKind::Busy`] when this machine cannot have it now, with what to do about it;
    /// [`ErrorKind::Load`] with the verifier's words when the kernel refuses it.
    pub fn load(mut self) -> Result<Loaded> {
        self.check_dedicated()?;
        let mut options = Options::default();
        options.name.clone_from(&self.name);
        options.config.slice_ns = self.slice.as_u64();
        options.config.slice_max_ns = options.config.slice_max_ns.max(self.slice.as_u64());
        options.config.debug = u32::from(self.debug);
        options.config.events = self.events.bits();
        options.config.late_ns = self.core.late_after.as_u64();
        options.timeout_ms = u32::try_from(self.core.stall_timeout.as_u64() / 1_000_000).unwrap_or(u32::MAX);
        options.exit_dump_len = self.core.dump_len;
        options.partial = self.core.partial;
        options.custom_btf.clone_from(&self.core.custom_btf);
        options.beside = self.core.beside;
        options.switches.kernel_idle = self.core.kernel_idle;
        options.switches.keep_local = self.core.keep_local;
        options.switches.early_kthreads = self.core.early_kthreads;
        options.switches.no_limits = !self.core.limits;
        options.transport = match self.core.transport {
            Transport::Rings => qumun_bpf::ring::Transport::Rings,
            Transport::Shared => qumun_bpf::ring::Transport::Shared,
        };
        options.config.heartbeat_ns = self.core.heartbeat.as_u64();
        options.config.preempt_after_ns = self.core.preempt_after.as_u64();
        options.config.max_run_ns = self.core.max_run.as_u64();
        options.config.dedicated = self.dedicated.map_or(0, |cpu| cpu.0.saturating_add(1));
        self.discover();
        options.places = self.topology.as_ref().map(places);
        Ok(Loaded { inner: loader::load(&options)?, builder: self })
    }

    /// What else was asked for must leave the agent's thread on its own CPU.
    fn check_dedicated(&self) -> Result<()> {
        let Some(cpu) = self.dedicated else { return Ok(()) };
        let other = if !self.agent_cpus.is_empty() {
            "a list of CPUs for the agent's thread: it is bound to this one. Leave the list out"
        } else if self.core.preempt_after != Nanos::ZERO {
            "a longest wait for the agent (preempt_after): it never waits for a CPU then. Leave that out"
        } else if self.core.partial {
            "partial mode: tasks of the kernel's own scheduler come before the agent on any CPU. Leave one of the two out"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("CPU {cpu} for the agent alone does not go together with {other}"),
        ))
    }

    /// Makes the calling thread fit to be the agent, before its [`Link`] is made: on the
    /// [CPUs](Builder::agent_cpus) it may use, and in a class that the core schedules.
    ///
    /// # Errors
    /// When there are no such CPUs, or the kernel refuses.
    pub fn prepare_agent(&self) -> Result<()> {
        if !self.agent_cpus.is_empty() {
            let cpus: Vec<u32> = self.agent_cpus.iter().map(|cpu| cpu.0).collect();
            bpf_agent::pin(&cpus)?;
        }
        if self.core.partial {
            bpf_agent::join_ext()?;
        }
        Ok(())
    }

    /// Reads the machine's topology, unless one was [given](Self::topology): from hwloc with the feature `hwloc`,
    /// else from sysfs. What cannot be read is no obstacle: then the CPUs have nothing in common. Call it
    /// before the thread becomes an agent; [`Builder::run`] does.
    pub fn discover(&mut self) {
        if self.topology.is_some() {
            return;
        }
        #[cfg(feature = "hwloc")]
        let found = Topology::from_hwloc().or_else(|_| Topology::from_sysfs());
        #[cfg(not(feature = "hwloc"))]
        let found = Topology::from_sysfs();
        self.topology = found.ok();
    }

    /// Loads, attaches and runs a policy on the calling thread until it is stopped or removed.
    ///
    /// # Errors
    /// As [`Builder::load`] and [`Loaded::attach`].
    pub fn run<S: Scheduler>(self, policy: S) -> Result<Exit> {
        self.events(S::EVENTS).load()?.attach()?.run(policy)
    }
}

fn places(topology: &Topology) -> Box<Places> {
    let mut places = Places::new();
    let numbers = |cpus: &CpuSet| cpus.iter().map(|cpu| cpu.0).collect::<Vec<_>>();
    topology.domains(Level::L3).iter().for_each(|cpus| places.share_cache(&numbers(cpus)));
    topology.domains(Level::Core).iter().for_each(|cpus| places.share_core(&numbers(cpus)));
    places
}

impl Loaded {
    /// Starts to schedule. The core does it alone until an agent connects.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(self) -> Result<Running> {
        Ok(Running { inner: self.inner.attach()?, builder: self.builder, numbers: Mutex::default() })
    }
}

impl Running {
    /// Runs a policy on the calling thread, with all memory of the process locked, until the
    /// builder's stop handle is used or the kernel removes the scheduler.
    ///
    /// # Errors
    /// When the agent's memory cannot be locked or mapped.
    pub fn run<S: Scheduler>(mut self, policy: S) -> Result<Exit> {
        self.builder.discover();
        self.builder.prepare_agent()?;
        let link = Link::connect(self.inner.agent_fds()?)?;
        let mut agent = self.builder.try_agent(link, policy)?;
        let exit = agent.run();
        drop(agent);
        let (record, _) = self.inner.detach();
        Ok(match (exit, record) {
            (Exit::Removed(_), Some(record)) => Exit::Removed(record.into()),
            (exit, _) => exit,
        })
    }

    /// Descriptors with which another process can become the agent.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn agent_fds(&self) -> Result<AgentFds> {
        Ok(self.inner.agent_fds()?)
    }

    /// What is kept about a task of this pid (a thread's, in the sense of the kernel).
    ///
    /// # Errors
    /// When there is no such task.
    pub fn task(&self, pid: Pid) -> Result<TaskInfo> {
        let raw = self.inner.task(wire::Task { pid: pid.0, ..wire::Task::default() })?;
        Ok(TaskInfo {
            settings: TaskSettings { label: raw.label, slice: Nanos(raw.slice_ns) },
            id: TaskId { pid, generation: Generation(raw.generation) },
            tid: raw.tid,
        })
    }

    /// Sets what the core keeps for a task. Threads and processes that it makes from now on get the same
    /// when they come into being, before they can run; those it has are not changed.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn set_task(&self, pid: Pid, settings: TaskSettings) -> Result<()> {
        let task = wire::Task {
            pid: pid.0,
            set: 1,
            label: settings.label,
            slice_ns: settings.slice.as_u64(),
            ..wire::Task::default()
        };
        self.inner.task(task)?;
        Ok(())
    }

    /// Kernel mode: the core decides alone, by its own rule, with what was set for tasks ([`set_task`](Self::set_task)), and
    /// the agent is not asked. Off, the agent has it again as soon as it has caught up. Nothing is detached for it. Returns
    /// whether it was on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_kernel_mode(&self, on: bool) -> Result<bool> {
        Ok(self.inner.set_kernel_mode(on)?)
    }

    /// Makes these the rules by which the core treats tasks where it decides by itself: all at once, and nothing is detached
    /// for it. Returns how many tables there were so far.
    ///
    /// # Errors
    /// When they are wrong ([`Rules::check`]) or too many; then nothing has changed.
    pub fn set_rules(&self, rules: &Rules) -> Result<u64> {
        rules.check()?;
        let mut numbers = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let raw = rules.raw(&mut numbers, self.inner.view().nr_cpu_ids as u32);
        let of = |(&number, rule): (&u32, &RawRule)| {
            let RawRule { key, until, slice, window, price, weight, saves, rank, each } = *rule;
            let (until_ns, slice_ns, window_ns, flags) = (until, slice, window, u32::from(each));
            let reserved = 0;
            (
                number,
                wire::Rule {
                    key,
                    until_ns,
                    slice_ns,
                    window_ns,
                    price,
                    weight,
                    saves,
                    rank,
                    flags,
                    reserved,
                },
            )
        };
        let target = |(whom, number): (&Whom, &u32)| {
            let (kind, a, b) = whom.words();
            wire::Target { a, b, kind, rule: number + 1 }
        };
        Ok(self.inner.set_rules(&qumun_bpf::rules::Content {
            floor_window_ns: raw.floor_window,
            floor_price: raw.floor_price,
            rules: raw.rules.iter().map(of).collect(),
            targets: raw.targets.iter().map(target).collect(),
        })?)
    }

    /// The statistics, by name.
    pub fn statistics(&self) -> stats::Statistics {
        self.inner.statistics()
    }

    /// What the core shows and counts.
    pub fn inner(&self) -> &loader::Attached {
        &self.inner
    }

    /// Was the scheduler removed by the kernel?
    pub fn exited(&self) -> Option<ExitRecord> {
        self.inner.exited()
    }

    /// Stops scheduling. Returns the kernel's record and the object with the last counters.
    pub fn detach(self) -> (Option<ExitRecord>, LoadedCore) {
        self.inner.detach()
    }
}

/// What user space can set for a task, see [`Running::set_task`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskSettings {
    /// Comes to the policy as [`Queued::label`]; means nothing to the core.
    pub label: u64,
    /// The slice where a decision names none, also while the core decides; clamped to the core's bounds.
    /// Zero for the default.
    pub slice: Nanos,
}

impl TaskSettings {
    /// A label and the default slice.
    pub const fn label(label: u64) -> Self {
        Self { label, slice: Nanos::ZERO }
    }

    /// With this slice.
    pub const fn slice(mut self, slice: Nanos) -> Self {
        self.slice = slice;
        self
    }
}

/// What the core keeps about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Set for it, or inherited.
    pub settings: TaskSettings,
    /// Its last enqueue.
    pub id: TaskId,
    /// The kernel's own number of it; 0 where the kernel has none.
    pub tid: u64,
}

/// An agent's connection with the core: the backend of a policy that runs on a kernel.
#[derive(Debug)]
pub struct Link {
    agent: bpf_agent::Agent,
    idle: IdleView,
    online: CpuSet,
    nr_cpus: u32,
    faults: Option<FaultGuard>,
    /// Only tasks of the class `SCHED_EXT` are ours; this thread had to join it.
    partial: bool,
    runs_seen: u64,
    fruitless: u32,
    cgroups: Told,
    /// Read, and to be told after what was not told of cgroups.
    read: wire::Event,
    has_read: bool,
    /// Batches, as of the last report.
    reported: u64,
    /// Why the core did not take this thread for the agent.
    refused: Option<String>,
    own: Own,
    /// The policy keeps tasks, as of the last report.
    keeps: bool,
}

/// Looks at the next event's place between two turns in which nothing happened, unless the policy keeps tasks: then some CPU
/// may have become free for them.
const LOOKS: u32 = 256;
const LOOKS_KEEPING: u32 = 16;

/// Turns without an event and without leaving the CPU after which the agent must assume that the core
/// does not schedule it (a changed scheduling class, a scheduler about to be removed), and sleeps.
const FRUITLESS: u32 = 64;

impl Link {
    /// Locks this process's memory and maps the core's. The thread that calls [`Backend::start`] (as
    /// [`Agent::run`](crate::Agent::run) does) becomes the agent, not before: from then on it gets only
    /// what CPU time an agent needs, and must not wait for a page fault or the allocator.
    ///
    /// # Errors
    /// When the memory cannot be locked or the maps cannot be mapped.
    pub fn connect(fds: AgentFds) -> Result<Self> {
        bpf_agent::lock_memory()?;
        let agent = bpf_agent::Agent::map(fds)?;
        let nr_cpus = u32::try_from(agent.view_word(ViewWord::NrCpuIds)).unwrap_or(crate::MAX_CPUS);
        Ok(Self {
            agent,
            idle: IdleView::new(nr_cpus),
            online: CpuSet::first_n(nr_cpus),
            nr_cpus,
            faults: None,
            partial: bpf_agent::is_ext(),
            runs_seen: 0,
            fruitless: 0,
            cgroups: Told::default(),
            read: wire::Event::default(),
            has_read: false,
            reported: 0,
            refused: None,
            own: Own::default(),
            keeps: false,
        })
    }

    /// Writes raw bytes into the live decision ring: for tests that play a hostile agent.
    #[doc(hidden)]
    pub fn raw(&mut self) -> &mut bpf_agent::Agent {
        &mut self.agent
    }

    /// The CPU that this thread has for itself, which it then keeps: while the core decides it has none.
    #[inline]
    fn own_cpu(&self) -> Option<Cpu> {
        let own = self.agent.view_word(ViewWord::Dedicated);
        if own == 0 || self.agent.view_word(ViewWord::Mode) != wire::NORMAL {
            return None;
        }
        u32::try_from(own - 1).ok().map(Cpu)
    }

    /// Looks out for the next event. Returns now and then without one: there are others who want something of the agent.
    fn poll(&self) {
        let looks = if self.keeps { LOOKS_KEEPING } else { LOOKS };
        for _ in 0..looks {
            if self.agent.events.may_have() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Wakes the CPUs for which something was published and which sleep: one system call, and none when all are at work.
    fn wake(&mut self) {
        // Either we see that a CPU is idle, or it sees what we have published before: see dedicated.h.
        std::sync::atomic::fence(Ordering::SeqCst);
        let mut idle = CpuSet::EMPTY;
        for word in 0..self.nr_cpus.div_ceil(64) as usize {
            idle.set_word(word, self.agent.idle_word(word));
        }
        let cpus = self.own.wakes(idle);
        if !cpus.is_empty() {
            // Fails when the scheduler is about to be removed: then nobody needs to be woken.
            let _ = self.agent.wake(cpus.words());
        }
    }

    fn event(&self, raw: &wire::Event) -> Option<Event> {
        // One that was sent on the eve of a new epoch: the core has that task already.
        if raw.kind == wire::EVENT_QUEUED && !self.agent.is_current(raw.epoch) {
            return None;
        }
        Self::decode(raw, self.nr_cpus)
    }

    /// What a record says, on a machine of so many CPUs. Public for the benches.
    #[doc(hidden)]
    pub fn decode(raw: &wire::Event, nr_cpus: u32) -> Option<Event> {
        let id = TaskId { pid: Pid(raw.pid), generation: Generation(raw.generation) };
        match raw.kind {
            wire::EVENT_EXIT => Some(Event::Exit(id)),
            wire::EVENT_FORK => Some(Event::Note(Note::Fork {
                task: id,
                tgid: Pid(raw.tgid),
                parent: Pid(raw.waker),
                label: raw.label,
            })),
            wire::EVENT_AFFINITY => Some(Event::Note(Note::Affinity {
                task: id,
                allowed: Affinity::new(raw.allowed, raw.nr_cpus_allowed, nr_cpus),
            })),
            wire::EVENT_WEIGHT => Some(Event::Note(Note::Weight { task: id, weight: raw.weight })),
            wire::EVENT_CGROUP => Some(Event::Note(Note::Moved { task: id, cgroup_id: raw.cpu_cgroup_id })),
            wire::EVENT_QUEUED => Some(Event::Queued(Queued {
                id,
                tgid: Pid(raw.tgid),
                cpu: Cpu(u32::try_from(raw.cpu).unwrap_or(0)),
                waker: (raw.waker != 0).then_some(Pid(raw.waker)),
                cgroup_id: raw.cgroup_id,
                cpu_cgroup_id: raw.cpu_cgroup_id,
                cgroup_weight: raw.cgroup_weight,
                label: raw.label,
                tid: raw.tid,
                born: Nanos(raw.born),
                process_born: Nanos(raw.process_born),
                weight: raw.weight,
                wakeup: raw.flags & wire::EVENT_WAKEUP != 0,
                kthread: raw.flags & wire::EVENT_KTHREAD != 0,
                sampled: raw.flags & wire::EVENT_SAMPLED != 0,
                enqueued_at: Nanos(raw.enqueued_at),
                seen_at: Nanos::ZERO,
                started_at: Nanos(raw.started_at),
                stopped_at: Nanos(raw.stopped_at),
                exec_runtime: Nanos(raw.exec_runtime),
                ran: Nanos(raw.ran_ns),
                slept: Nanos(raw.slept_ns),
                permitted: raw.permitted,
                vtime: raw.vtime,
                allowed: Affinity::new(raw.allowed, raw.nr_cpus_allowed, nr_cpus),
                enq_flags: raw.enq_flags,
                comm_bytes: raw.comm,
            })),
            _ => None,
        }
    }

    /// A decision as the core reads it. Public for the benches.
    #[doc(hidden)]
    #[inline]
    pub fn encode(decision: &Decision) -> wire::Decision {
        wire::Decision {
            generation: decision.id().generation.0,
            slice_ns: decision.get_slice().as_u64(),
            vtime: decision.get_vtime(),
            seen_at: decision.seen_at().as_u64(),
            decided_at: decision.decided_at().as_u64(),
            pid: decision.id().pid.0,
            // A number that is no i32 is no CPU either; the core refuses -2.
            cpu: decision.cpu().map_or(wire::CPU_ANY, |cpu| i32::try_from(cpu.0).unwrap_or(-2)),
            flags: decision.get_permit().flags(),
            permit: decision.get_permit().get_wakeups(),
            permit_ns: decision.get_permit().get_lasting().as_u64(),
            rate: decision.get_permit().pace(),
            mark: 0,
        }
    }
}

impl Table for bpf_agent::Agent {
    fn version(&self, slot: usize) -> u64 {
        self.cgroup_version(slot)
    }

    fn row(&self, slot: usize) -> Row {
        let wire::Cgroup { version, id, parent, quota_us, period_us, weight, above, .. } = self.cgroup(slot);
        Row { version, id, parent, above, weight, quota_us, period_us }
    }
}

impl Backend for Link {
    fn subscribe(&mut self, events: Events) {
        let slots = if events.contains(Events::CGROUPS) { wire::MAX_CGROUPS } else { 0 };
        self.cgroups.begin(slots);
    }

    fn start(&mut self) {
        self.refused = self.agent.hello().err().map(|error| error.to_string());
        self.faults = Some(FaultGuard::new());
    }

    #[inline]
    fn epoch(&self) -> Epoch {
        Epoch(self.agent.epoch())
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.agent.acknowledge(epoch.0);
    }

    #[inline]
    fn refresh(&mut self) {
        for word in 0..self.nr_cpus.div_ceil(64) as usize {
            self.idle.set_word(word, self.agent.idle_word(word));
            self.online.set_word(word, self.agent.online_word(word));
        }
        let own = self.own_cpu();
        self.own.set(own);
        let Some(own) = own else { return };
        for word in 0..self.nr_cpus.div_ceil(64) as usize {
            // Who only waits for an answer is not free.
            self.idle.set_word(word, self.agent.idle_word(word) & !self.agent.asking_word(word));
        }
        self.idle.set(own, false);
        self.online.set(own, false);
    }

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn online(&self) -> Option<&CpuSet> {
        Some(&self.online)
    }

    #[inline]
    fn here(&self) -> Option<Cpu> {
        // In partial mode the CPU goes back to tasks of the fair class, and what was sent there would wait for them.
        if self.partial || self.own.cpu().is_some() { None } else { bpf_agent::current_cpu().map(Cpu) }
    }

    fn claim(&mut self, asks: &mut [Ask]) -> usize {
        let mut claimed = 0;
        for some in asks.chunks_mut(wire::SELECT_MAX) {
            let mut requests = [wire::Request::default(); wire::SELECT_MAX];
            for (request, ask) in requests.iter_mut().zip(some.iter()) {
                let first = ask.cpu.map_or(-1, |cpu| i32::try_from(cpu.0).unwrap_or(-1));
                *request = wire::Request { pid: ask.pid.0, cpu: first };
            }
            let requests = &mut requests[..some.len()];
            // A refusal (the scheduler is about to be removed) is an answer, too: no CPU.
            let answered = self.agent.select_cpus(requests).is_ok();
            for (ask, request) in some.iter_mut().zip(requests.iter()) {
                ask.cpu = u32::try_from(request.cpu).ok().filter(|_| answered).map(Cpu);
                claimed += usize::from(ask.cpu.is_some());
            }
        }
        claimed
    }

    fn now(&self) -> Nanos {
        Nanos(bpf_agent::monotonic_ns())
    }

    fn receive(&mut self) -> Option<Event> {
        loop {
            // After the event was read and before it is told: its task may be in a cgroup that is new.
            if self.cgroups.listens() {
                let changes = self.agent.view_word(ViewWord::CgroupChanges);
                if let Some(note) = self.cgroups.next(changes, &self.agent) {
                    return Some(Event::Note(note));
                }
            }
            if !std::mem::take(&mut self.has_read) {
                if !self.agent.events.pop_into(&mut self.read) {
                    return None;
                }
                self.has_read = true;
                if self.read.kind == wire::EVENT_QUEUED {
                    self.own.asked_from(Cpu(self.read.cpu as u32));
                }
                continue;
            }
            let event = self.event(&self.read);
            if event.is_some() {
                return event;
            }
        }
    }

    #[inline]
    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        let mut raw = Self::encode(decision);
        if raw.permit > 0 {
            raw.mark = self.agent.mark(raw.pid);
        }
        self.agent.decisions.push(&raw).map_err(|_| Full(*decision))?;
        self.own.sent_to(decision.cpu());
        Ok(())
    }

    fn revoke(&mut self, task: Option<Pid>) {
        self.agent.revoke(task.map(|pid| pid.0));
    }

    #[inline]
    fn publish(&mut self) {
        self.agent.events.release();
        self.agent.decisions.publish();
        if self.own.cpu().is_some() {
            self.wake();
        }
    }

    #[inline]
    fn report(&mut self, stats: &Stats) {
        let put = |word, value| self.agent.page_word(word).store(value, Ordering::Relaxed);
        put(PageWord::Events, stats.events);
        put(PageWord::Published, stats.decisions);
        put(PageWord::Batches, stats.batches);
        put(PageWord::Held, stats.held);
        self.keeps = stats.held > 0;
        // What changes rarely is told when there is time, and else in turns.
        let idle = stats.batches == self.reported;
        self.reported = stats.batches;
        if !idle && !stats.batches.is_multiple_of(32) {
            return;
        }
        put(PageWord::Discarded, stats.discarded);
        put(PageWord::RingFull, stats.ring_full);
        put(PageWord::Resyncs, stats.resyncs);
        put(PageWord::Allocations, alloc::total());
        put(PageWord::PoolSize, stats.pool_capacity);
        put(PageWord::PoolUsed, stats.pool_in_use);
        // A system call, so not each time; a fault is seen the next time around.
        if stats.batches.is_multiple_of(256)
            && !(idle && self.own.cpu().is_some())
            && let Some(guard) = &self.faults
        {
            let faults = guard.faults();
            put(PageWord::MinorFaults, faults.minor);
            put(PageWord::MajorFaults, faults.major);
        }
    }

    fn rest(&mut self, idle_turn: bool) {
        self.agent.events.release();
        if self.own_cpu().is_some() {
            return self.poll();
        }
        bpf_agent::yield_now();
        let runs = self.agent.view_word(ViewWord::AgentRuns);
        if idle_turn && runs == self.runs_seen {
            self.fruitless += 1;
            if self.fruitless >= FRUITLESS {
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            self.fruitless = 0;
        }
        self.runs_seen = runs;
    }

    fn exited(&mut self) -> Option<ExitInfo> {
        if let Some(why) = &self.refused {
            return Some(ExitInfo { kind: ExitKind::Error, reason: why.clone(), ..ExitInfo::default() });
        }
        (self.agent.view_word(ViewWord::Exited) != 0).then(ExitInfo::default)
    }
}

impl From<ExitRecord> for ExitInfo {
    fn from(record: ExitRecord) -> Self {
        Self {
            kind: ExitKind::from(record.kind),
            code: record.code,
            reason: record.reason,
            message: record.message,
            dump: record.dump,
        }
    }
}

impl From<qumun_bpf::Error> for Error {
    fn from(error: qumun_bpf::Error) -> Self {
        let kind = match error.kind() {
            qumun_bpf::ErrorKind::NoSchedExt => ErrorKind::Unsupported,
            qumun_bpf::ErrorKind::NoBtf => ErrorKind::NoBtf,
            qumun_bpf::ErrorKind::Permission => ErrorKind::PermissionDenied,
            qumun_bpf::ErrorKind::Busy => ErrorKind::Busy,
            qumun_bpf::ErrorKind::Load => ErrorKind::Load,
            qumun_bpf::ErrorKind::Invalid => ErrorKind::InvalidInput,
            _ => ErrorKind::Kernel,
        };
        let what = error.to_string();
        Self::new(kind, what)
    }
}
