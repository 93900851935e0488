//! Options, by name.

use crate::{Agent, Backend, Events, Limits, Nanos, Scheduler, StopHandle};

/// Everything that can be set before a scheduler starts. See [`builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until a policy runs"]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) slice: Nanos,
    pub(crate) debug: bool,
    pub(crate) events: Events,
    pub(crate) stop: StopHandle,
}

/// Begins a scheduler of this name (the kernel shows it in `/sys/kernel/sched_ext/root/ops`).
pub fn builder(name: impl Into<String>) -> Builder {
    Builder {
        name: name.into(),
        limits: Limits::default(),
        slice: Nanos::from_millis(5),
        debug: false,
        events: Events::NONE,
        stop: StopHandle::new(),
    }
}

impl Builder {
    /// For how many tasks the framework remembers the policy's state; 16,384 unless told. When there
    /// are more, the one not seen for longest is forgotten.
    pub fn tasks(mut self, capacity: usize) -> Self {
        self.limits.tasks = capacity;
        self
    }

    /// How many decisions may wait for room in the ring; 1,024 unless told.
    pub fn retry(mut self, capacity: usize) -> Self {
        self.limits.retry = capacity;
        self
    }

    /// How many events a turn takes at most; 1,024 unless told.
    pub fn batch(mut self, events: usize) -> Self {
        self.limits.batch = events;
        self
    }

    /// The slice of a task for which the policy sets none; 5 ms unless told.
    pub fn default_slice(mut self, slice: Nanos) -> Self {
        self.slice = slice;
        self
    }

    /// Lets the core print to `trace_pipe`, at most 20 lines a second; off unless told.
    pub fn debug(mut self, on: bool) -> Self {
        self.debug = on;
        self
    }

    /// What the policy will want to hear of: [`Scheduler::EVENTS`] of the policies that may run.
    /// [`agent`](Self::agent) cannot add to it later: the core is loaded without what nobody wants.
    pub fn events(mut self, events: Events) -> Self {
        self.events |= events;
        self
    }

    /// What ends the run.
    pub fn stop_handle(mut self, stop: StopHandle) -> Self {
        self.stop = stop;
        self
    }

    /// The name given to [`builder`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts a policy to work on a backend of your choice, such as the in-process one.
    pub fn agent<B: Backend, S: Scheduler>(&self, backend: B, policy: S) -> Agent<B, S> {
        let mut agent = Agent::with_limits(backend, policy, self.limits);
        agent.set_stop_handle(self.stop.clone());
        agent
    }
}
