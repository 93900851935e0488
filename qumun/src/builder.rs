//! Options, by name.

use std::path::PathBuf;

use crate::{
    Agent, Backend, Cpu, Events, Limits, Nanos, Reach, Result, Scheduler, Selector, StopHandle, Topology,
};

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
    pub(crate) core: CoreOptions,
    pub(crate) agent_cpus: Vec<Cpu>,
    pub(crate) dedicated: Option<Cpu>,
    pub(crate) topology: Option<Topology>,
    pub(crate) reach: Reach,
}

/// How events get to the policy, and decisions back to the core. Which is cheaper is measured in `docs/core.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The kernel's ring buffers: a BPF ring buffer for events, a user ring buffer for decisions.
    Rings,
    /// Two arrays in memory that core and agent share.
    #[default]
    Shared,
}

/// What the core is told at load, and only a kernel understands.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "kernel"), allow(dead_code, reason = "only a kernel reads them"))]
pub(crate) struct CoreOptions {
    pub(crate) partial: bool,
    pub(crate) kernel_idle: bool,
    pub(crate) keep_local: bool,
    pub(crate) early_kthreads: bool,
    pub(crate) limits: bool,
    pub(crate) transport: Transport,
    pub(crate) max_run: Nanos,
    pub(crate) stall_timeout: Nanos,
    pub(crate) late_after: Nanos,
    pub(crate) heartbeat: Nanos,
    pub(crate) preempt_after: Nanos,
    pub(crate) dump_len: u32,
    pub(crate) custom_btf: Option<PathBuf>,
    pub(crate) beside: bool,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            partial: false,
            kernel_idle: false,
            keep_local: false,
            early_kthreads: false,
            limits: true,
            transport: Transport::default(),
            max_run: Nanos::from_millis(500),
            stall_timeout: Nanos::from_millis(5_000),
            late_after: Nanos::from_millis(30),
            heartbeat: Nanos::from_millis(500),
            preempt_after: Nanos::ZERO,
            dump_len: 0,
            custom_btf: None,
            beside: false,
        }
    }
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
        core: CoreOptions::default(),
        agent_cpus: Vec::new(),
        dedicated: None,
        topology: None,
        reach: Reach::Cache,
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

    /// Bytes for the policy's own collections ([`Context::pool`](crate::Context::pool)), rounded up to
    /// whole pages; 4 MiB unless told. What is rounded to a power of two is each request, see
    /// [`pool`](crate::pool).
    pub fn pool(mut self, bytes: usize) -> Self {
        self.limits.pool = bytes;
        self
    }

    /// The machine that [`Context::pick`](crate::Context::pick) picks from. Unless told, a kernel's is read from
    /// sysfs, and any other is flat: CPUs that have nothing in common.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// The same if nothing was said yet.
    #[cfg(feature = "sim")]
    pub(crate) fn topology_unless_told(mut self, topology: &Topology) -> Self {
        self.topology.get_or_insert_with(|| topology.clone());
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

    /// Schedules only tasks of the class `SCHED_EXT`; off unless told, and then all tasks of the
    /// normal, batch and idle classes are scheduled. Before kernels had a reserve of CPU time for
    /// sched_ext (its *ext server*, `gthulhu-daemon doctor` tells), busy tasks of the kernel's own scheduler
    /// can starve such tasks, until the kernel's watchdog removes the scheduler.
    pub fn partial(mut self, on: bool) -> Self {
        self.core.partial = on;
        self
    }

    /// Lets a task that wakes up while a CPU is idle go there at once, by the kernel's own selection,
    /// without asking the policy; off unless told.
    pub fn kernel_idle(mut self, on: bool) -> Self {
        self.core.kernel_idle = on;
        self
    }

    /// How far [`Context::pick`](crate::Context::pick) sends a task; [`Reach::Cache`] unless told.
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Never picks an idle CPU of another NUMA node than the task ran on last: [`Reach::Node`].
    pub fn numa_local(self, on: bool) -> Self {
        self.reach(if on { Reach::Node } else { Reach::Cache })
    }

    /// Keeps tasks that may use one CPU only in the kernel's queue of that CPU; off unless told.
    pub fn keep_local(mut self, on: bool) -> Self {
        self.core.keep_local = on;
        self
    }

    /// Never asks the policy about kernel threads, the core places them by its own rule; off unless told. (Those
    /// that may use one CPU only never wait for a policy.)
    pub fn early_kthreads(mut self, on: bool) -> Self {
        self.core.early_kthreads = on;
        self
    }

    /// Enforces `cpu.max` of cgroups; on unless told, and then without effect before Linux 6.17, which does not tell
    /// schedulers (`Loaded::enforces_limits` of the core knows).
    pub fn limits(mut self, on: bool) -> Self {
        self.core.limits = on;
        self
    }

    /// How events and decisions travel; see [`Transport`] for what it is unless told.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.core.transport = transport;
        self
    }

    /// No run of a task is longer than this while others wait, whatever slices it was given; zero for no
    /// limit. 500 ms unless told. A task that is alone is not disturbed.
    pub fn max_run(mut self, time: Nanos) -> Self {
        self.core.max_run = time;
        self
    }

    /// The kernel's watchdog: a task that waits for this long ejects the scheduler. 1 to 30 s (the
    /// kernel's limit); 5 s unless told.
    pub fn stall_timeout(mut self, time: Nanos) -> Self {
        self.core.stall_timeout = time;
        self
    }

    /// D: the core takes over when an event is undecided for this long. 8 to 200 ms; 30 ms unless told.
    pub fn late_after(mut self, time: Nanos) -> Self {
        self.core.late_after = time;
        self
    }

    /// The agent gets a turn this often also when there is nothing to decide; 500 ms unless told. At
    /// most half of the stall timeout.
    pub fn heartbeat(mut self, time: Nanos) -> Self {
        self.core.heartbeat = time;
        self
    }

    /// With all CPUs busy, a running slice is cut for the agent when an event has waited for this long. Zero, and that is
    /// so unless told: only once in a millisecond and a few times in a row, and else the agent waits for the next clock
    /// interrupt (4 ms at 250 Hz). Less than 10 us counts as that: each time is a timer's interrupt and two switches.
    pub fn preempt_after(mut self, time: Nanos) -> Self {
        self.core.preempt_after = if time == Nanos::ZERO { time } else { time.max(Nanos::from_micros(10)) };
        self
    }

    /// Length in bytes of the kernel's dump when it ejects the scheduler; 0, the kernel's default of
    /// 32 KiB, unless told. Of a longer one the first 32 KiB are kept.
    pub fn dump_len(mut self, bytes: u32) -> Self {
        self.core.dump_len = bytes;
        self
    }

    /// Fits the core to the type information (BTF) in this file instead of the kernel's own. The
    /// kernel's own must be there all the same: it checks the scheduler's operations against it.
    pub fn custom_btf(mut self, path: impl Into<PathBuf>) -> Self {
        self.core.custom_btf = Some(path.into());
        self
    }

    /// Loads the core also while another scheduler is attached, off unless told: most of the time that a start takes is the
    /// kernel's check of the program, and that is over then when the other one goes. It has to be gone before this one
    /// is attached.
    pub fn beside(mut self, on: bool) -> Self {
        self.core.beside = on;
        self
    }

    /// Lets the agent's thread run on these CPUs only; on all unless told (or told none).
    pub fn agent_cpus(mut self, cpus: impl IntoIterator<Item = Cpu>) -> Self {
        self.agent_cpus = cpus.into_iter().collect();
        self
    }

    /// Gives the agent's thread this CPU for itself: it polls for events there and never sleeps. Nothing else is placed on it
    /// but tasks that may use no other. Nobody waits for the agent to get a CPU then, and the machine has one less: it
    /// pays on machines of many CPUs with many wakeups; figures are in `docs/core.md`. On no CPU unless told.
    ///
    /// While the core decides by itself (the agent is late or dead, kernel mode) the CPU serves all. When it goes offline the
    /// agent goes on as one without such a CPU, until the next agent starts with the CPU online.
    ///
    /// [`load`](Self::load) refuses a CPU that is not online or is the only one, [`Transport::Rings`], and together with it
    /// [`agent_cpus`](Self::agent_cpus), [`preempt_after`](Self::preempt_after) and [`partial`](Self::partial).
    pub fn dedicated_cpu(mut self, cpu: Cpu) -> Self {
        self.dedicated = Some(cpu);
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
    ///
    /// # Panics
    /// If the system does not have the memory, as [`try_agent`](Self::try_agent) can say.
    pub fn agent<B: Backend, S: Scheduler>(&self, backend: B, policy: S) -> Agent<B, S> {
        match self.try_agent(backend, policy) {
            Ok(agent) => agent,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Puts a policy to work on a backend of your choice.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) if the system does not have the memory.
    pub fn try_agent<B: Backend, S: Scheduler>(&self, backend: B, policy: S) -> Result<Agent<B, S>> {
        let flat = || Topology::flat(backend.idle().nr_cpus());
        let topology = self.topology.clone().unwrap_or_else(flat);
        let selector = Selector::new(topology).with_reach(self.reach);
        let mut agent = Agent::try_on(backend, policy, self.limits, selector)?;
        agent.set_stop_handle(self.stop.clone());
        Ok(agent)
    }
}
