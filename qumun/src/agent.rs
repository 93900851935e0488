//! The loop: events in, policy, decisions out.

use std::collections::VecDeque;
use std::fmt;

use crate::placement::Placement;
use crate::pool::{AllocError, Arena, Handle};
use crate::tasks::TaskPool;
use crate::{
    Backend, Context, Decision, Epoch, Error, ErrorExt, ErrorKind, Event, Exit, Full, Nanos, Note, Queued,
    Result, Scheduler, Selector, Stats, StopHandle, TaskId, Topology, Verdict, alloc,
};

/// A batch of so many events takes long enough for its view of idle CPUs to be old: microseconds. Each look costs
/// as much as half a decision.
const STALE: usize = 16;

/// A policy at work on a backend.
#[derive(Debug)]
pub struct Agent<B, S: Scheduler> {
    backend: B,
    policy: S,
    tasks: TaskPool<S::Task>,
    /// The policy's. The states of tasks have an arena of their own, so that a policy cannot use it up.
    pool: Handle,
    placement: Placement,
    retry: Retry,
    stats: Stats,
    batch: usize,
    /// The epoch acknowledged last.
    agreed: Option<Epoch>,
    started: bool,
    stop: StopHandle,
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events given to the policy.
    pub events: usize,
    /// Decisions handed to the core.
    pub decisions: usize,
    /// The core had taken over, and the agent began anew.
    pub resynced: bool,
}

impl Turn {
    /// Was there nothing to do?
    pub fn is_idle(&self) -> bool {
        self.events == 0 && self.decisions == 0 && !self.resynced
    }
}

/// Sizes of what an agent allocates when it is made; it allocates nothing later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Tasks with a state.
    pub tasks: usize,
    /// Decisions of the policy that wait for room in the ring.
    pub retry: usize,
    /// Events in one turn: what comes above is left for the next one, so that a stream of events
    /// cannot keep decisions from being published.
    pub batch: usize,
    /// Bytes of the arena for the policy's own collections ([`Context::pool`]).
    pub pool: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tasks: 16_384, retry: 1_024, batch: 1_024, pool: 4 << 20 }
    }
}

impl<B: Backend, S: Scheduler> Agent<B, S> {
    /// Puts a policy to work with the default limits.
    ///
    /// # Panics
    /// See [`with_limits`](Self::with_limits).
    pub fn new(backend: B, policy: S) -> Self {
        Self::with_limits(backend, policy, Limits::default())
    }

    /// Puts a policy to work. A limit of 0 counts as 1.
    ///
    /// # Panics
    /// If the system does not have the memory, as [`try_with_limits`](Self::try_with_limits) can say.
    pub fn with_limits(backend: B, policy: S, limits: Limits) -> Self {
        match Self::try_with_limits(backend, policy, limits) {
            Ok(agent) => agent,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Puts a policy to work. A limit of 0 counts as 1.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if the system does not have the memory.
    pub fn try_with_limits(backend: B, policy: S, limits: Limits) -> Result<Self> {
        let flat = Topology::flat(backend.idle().nr_cpus());
        Self::try_on(backend, policy, limits, Selector::new(flat))
    }

    /// Puts a policy to work on a machine of this topology. A limit of 0 counts as 1.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if the system does not have the memory.
    pub fn try_on(mut backend: B, policy: S, limits: Limits, selector: Selector) -> Result<Self> {
        backend.subscribe(S::EVENTS);
        let bytes = TaskPool::<S::Task>::bytes(limits.tasks).unwrap_or(usize::MAX);
        let tasks = Arena::new(bytes).context("the states of the tasks")?;
        let tasks = TaskPool::new(limits.tasks, &tasks.handle())
            .map_err(|AllocError| Error::new(ErrorKind::OutOfMemory, "the states of the tasks"))?;
        let pool = Arena::new(limits.pool).context("the memory of the policy")?.handle();
        let mut agent = Self {
            backend,
            policy,
            tasks,
            pool,
            placement: Placement::new(selector),
            retry: Retry::new(limits.retry.max(1)),
            stats: Stats::default(),
            batch: limits.batch.max(1),
            agreed: None,
            started: false,
            stop: StopHandle::new(),
        };
        agent.note_fill();
        Ok(agent)
    }

    /// Takes turns until somebody stops the agent or the kernel removes the scheduler.
    pub fn run(&mut self) -> Exit {
        self.start();
        self.backend.start();
        let _watched = alloc::Guard::new();
        loop {
            if let Some(info) = self.backend.exited() {
                return Exit::Removed(info);
            }
            if self.stop.is_stopped() {
                return Exit::Stopped;
            }
            let turn = self.turn();
            self.backend.rest(turn.is_idle());
        }
    }

    /// One turn: takes the events there are, asks the policy, hands its decisions over.
    pub fn turn(&mut self) -> Turn {
        self.start();
        let (decisions_before, events_before) = (self.stats.decisions, self.stats.events);
        let epoch = self.backend.epoch();
        let resynced = self.agreed != Some(epoch);
        if resynced {
            self.resync(epoch);
        }
        self.look();
        self.retry_sends();
        if self.drain() >= STALE {
            self.look();
        }
        let (policy, mut cx) = self.split();
        policy.dispatch(&mut cx);

        let decisions = self.stats.decisions - decisions_before;
        if decisions > 0 {
            self.backend.publish();
        }
        let events = self.stats.events - events_before;
        self.stats.batches += u64::from(events + decisions > 0);
        self.stats.held = self.tasks.held();
        self.note_fill();
        self.backend.report(&self.stats);
        Turn { events: events as usize, decisions: decisions as usize, resynced }
    }

    /// What was done since the beginning.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many tasks have a state now.
    pub fn nr_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// A handle that ends [`run`](Self::run).
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Lets another handle end [`run`](Self::run), instead of the agent's own.
    pub fn set_stop_handle(&mut self, stop: StopHandle) {
        self.stop = stop;
    }

    /// The policy.
    pub fn policy(&self) -> &S {
        &self.policy
    }

    /// The policy, to change it between turns.
    pub fn policy_mut(&mut self) -> &mut S {
        &mut self.policy
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend, between turns.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Ends the agent and gives back what it was made of.
    pub fn into_parts(self) -> (B, S) {
        (self.backend, self.policy)
    }

    /// Lets the policy take what memory it needs, the first time.
    fn start(&mut self) {
        if !self.started {
            self.started = true;
            let (policy, mut cx) = self.split();
            policy.start(&mut cx);
            self.note_fill();
        }
    }

    fn note_fill(&mut self) {
        let fill = self.pool.fill();
        self.stats.pool_capacity = fill.capacity as u64;
        self.stats.pool_in_use = fill.in_use as u64;
        self.stats.pool_high_water = fill.high_water as u64;
        self.stats.pool_failures = fill.failures;
    }

    /// The core has taken over. Whatever was sent or kept before is void: throw it away, then say so.
    fn resync(&mut self, epoch: Epoch) {
        // Ends: while it has taken over, the core sends no new tasks.
        while let Some(event) = self.backend.receive() {
            match event {
                Event::Queued(_) => self.stats.discarded += 1,
                // An end is an end in every epoch.
                Event::Exit(id) => self.exit(id),
                Event::Note(note) => self.note(&note),
            }
        }
        self.retry.queue.clear();
        self.tasks.release_all();
        let (policy, mut cx) = self.split();
        policy.reset(&mut cx);
        self.agreed = Some(epoch);
        self.stats.resyncs += 1;
        self.backend.acknowledge(epoch);
    }

    fn look(&mut self) {
        self.backend.refresh();
        self.placement.look(&self.backend);
    }

    /// Returns how many events there were.
    fn drain(&mut self) -> usize {
        for taken in 0..self.batch {
            // A verdict must find room. What is not taken stays in the ring; nothing is lost.
            if self.retry.is_full() {
                return taken;
            }
            match self.backend.receive() {
                None => return taken,
                Some(Event::Exit(id)) => self.exit(id),
                Some(Event::Note(note)) => self.note(&note),
                Some(Event::Queued(mut task)) => self.enqueue(&mut task),
            }
        }
        self.batch
    }

    fn enqueue(&mut self, task: &mut Queued) {
        self.stats.events += 1;
        // Once for each sampled event, not once a batch: they are few, and an event that comes while
        // the batch is drained would seem to be seen before it was sent.
        task.seen_at = if task.sampled { self.backend.now() } else { Nanos::ZERO };
        self.tasks.saw(task, &mut self.stats);
        self.placement.left(task.id.pid);
        self.placement.saw(task.enqueued_at);
        let (policy, mut cx) = self.split();
        match policy.enqueue(&mut cx, task) {
            Verdict::Keep => self.tasks.keeps(task.id.pid),
            Verdict::Place(decision) => {
                if let Err(Full(decision)) = cx.send(decision) {
                    self.retry.queue.push_back(decision);
                }
            }
        }
    }

    fn note(&mut self, note: &Note) {
        self.stats.notes += 1;
        let (policy, mut cx) = self.split();
        policy.note(&mut cx, note);
    }

    fn exit(&mut self, id: TaskId) {
        self.stats.events += 1;
        self.placement.left(id.pid);
        if let Some(mut state) = self.tasks.remove(id) {
            let (policy, mut cx) = self.split();
            policy.exit(&mut cx, id.pid, &mut state);
        }
    }

    /// Decisions that found the ring full go first, in their order.
    fn retry_sends(&mut self) {
        while let Some(decision) = self.retry.queue.pop_front() {
            let empty = &Retry::NONE;
            let mut out = Outbox { backend: &mut self.backend, stats: &mut self.stats, waiting: empty };
            if let Err(Full(decision)) = out.send(decision) {
                self.retry.queue.push_front(decision);
                break;
            }
        }
    }

    fn split(&mut self) -> (&mut S, Context<'_, S::Task>) {
        let out = Outbox { backend: &mut self.backend, stats: &mut self.stats, waiting: &self.retry };
        (
            &mut self.policy,
            Context { tasks: &mut self.tasks, pool: &self.pool, placement: &mut self.placement, out },
        )
    }
}

/// Decisions that wait for room in the ring.
#[derive(Debug)]
pub(crate) struct Retry {
    queue: VecDeque<Decision>,
    capacity: usize,
}

impl Retry {
    const NONE: Self = Self { queue: VecDeque::new(), capacity: 0 };

    fn new(capacity: usize) -> Self {
        Self { queue: VecDeque::with_capacity(capacity), capacity }
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= self.capacity
    }
}

/// The way of a decision to the core.
pub(crate) struct Outbox<'a> {
    pub(crate) backend: &'a mut dyn Backend,
    pub(crate) stats: &'a mut Stats,
    waiting: &'a Retry,
}

impl Outbox<'_> {
    pub(crate) fn send(&mut self, mut decision: Decision) -> Result<(), Full> {
        // Others wait already; overtaking them would change the policy's order.
        if !self.waiting.queue.is_empty() {
            return Err(Full(decision));
        }
        if decision.seen_at() != Nanos::ZERO {
            decision = decision.decided(self.backend.now());
        }
        let mut sent = self.backend.send(&decision);
        if sent.is_err() {
            self.stats.ring_full += 1;
            // The core makes room by what it sees. It may have done so already.
            self.backend.publish();
            sent = self.backend.send(&decision);
        }
        self.stats.decisions += u64::from(sent.is_ok());
        sent
    }
}

impl fmt::Debug for Outbox<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.waiting.queue.len()).finish_non_exhaustive()
    }
}
