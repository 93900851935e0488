//! Simulated time: a machine whose CPUs really work at the same time, tasks that follow programs, and an agent that
//! takes its turns on a CPU like any task.

mod agent;
mod clock;
mod faults;
mod figures;
mod program;
mod tape;

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use super::core::Core;
use super::host::Host;
use super::linux::{Dsq, Linux, Place, Thread};
use super::reference::{Reference, Settings};
use super::values::{Counters, Latch, Spec};
use crate::cgroups::Told;
use crate::own::Own;
use crate::{Agent, Builder, Cpu, CpuSet, Nanos, Pid, Scheduler, Topology};
pub use agent::{Costs, Wire};
use clock::{Due, Happening};
pub use faults::Fault;
use figures::DISTANCES;
pub use figures::{Histogram, TaskFigures, jain};
pub(crate) use program::Members;
pub use program::{Group, Span, Step, Workload};
pub use tape::Label;
use tape::Tape;

/// The machine and the manners of a simulation. Times are of simulated time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup {
    /// The machine.
    pub topology: Topology,
    /// What the core is loaded with.
    pub settings: Settings,
    /// How many events fit their ring, and decisions theirs.
    pub rings: (usize, usize),
    /// What the agent's turns take.
    pub costs: Costs,
    /// From one clock interrupt to the next: slices end at these. 4 ms at 250 Hz.
    pub tick: Nanos,
    /// What a context switch takes.
    pub switch: Nanos,
    /// From a kick until the other CPU looks for work: an interrupt, and the way out of idle.
    pub kick: Nanos,
    /// Everything random comes from this.
    pub seed: u64,
    /// It begins in kernel mode: see [`Sim::set_kernel_mode`].
    pub kernel_mode: bool,
}

impl Setup {
    /// This machine, with the core's defaults and costs as measured on a common server.
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            settings: Settings::default(),
            rings: (6_553, 9_362),
            costs: Costs::default(),
            tick: Nanos::from_millis(4),
            switch: Nanos(1_500),
            kick: Nanos(3_000),
            seed: 1,
            kernel_mode: false,
        }
    }
}

impl Setup {
    /// Where the thread of a new agent may run: on its own CPU, if that is online.
    fn agent_cpus(&self, linux: &Linux) -> CpuSet {
        let own = self.settings.dedicated.filter(|&cpu| linux.online().contains(cpu));
        own.map_or(CpuSet::ALL, CpuSet::of)
    }
}

/// How often the watchdog looks, and how long a task may want to run and not (the kernel's, as we set it).
const WATCH: Nanos = Nanos::from_millis(1_000);
const STALL: Nanos = Nanos::from_millis(5_000);
/// More steps than this in one moment are an endless loop, and more tasks a fork bomb.
const MOST_STEPS: usize = 10_000;
const MOST_TASKS: usize = 1_000_000;

/// What a task does now.
#[derive(Debug)]
struct Actor {
    group: usize,
    /// Its number in its group.
    number: usize,
    /// The step that it is in.
    step: usize,
    /// What is left to compute of it.
    left: u64,
    began: Nanos,
    /// Wakes that came before it blocked.
    wakes: u32,
    blocked: bool,
    joining: bool,
    parent: Option<Thread>,
    children: u32,
    /// To tell a timer of an earlier task in the same place from one of its own.
    life: u32,
    wants_since: Option<Nanos>,
    woke_at: Option<Nanos>,
    last_cpu: Option<Cpu>,
    figures: TaskFigures,
}

/// One CPU's side of the clock.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    /// Of the last thing that was to happen there: what is older is void.
    turn: u32,
    /// From when on the task there computes.
    from: u64,
    /// A kick is on its way.
    kicked: bool,
    /// CPU time of tasks here.
    busy: u64,
}

/// A simulation.
pub struct Sim<S: Scheduler> {
    host: Host<Reference>,
    setup: Setup,
    groups: Vec<program::Members>,
    names: Vec<Arc<str>>,
    members: Vec<Vec<Thread>>,
    actors: Vec<Option<Actor>>,
    gone: Vec<TaskFigures>,
    lanes: Vec<Lane>,
    agent: Agent<Wire, S>,
    agent_task: Thread,
    agent_left: Option<u64>,
    /// The idle CPUs that it saw in its last turn.
    looked_at: CpuSet,
    agent_ran: u64,
    allocations: u64,
    agent_stopped: bool,
    agent_dead: bool,
    builder: Builder,
    /// Makes the policy of an agent that comes after a killed one.
    successor: Option<Box<dyn FnMut() -> S>>,
    faults: Vec<Fault>,
    told: Told,
    queue: BinaryHeap<Due>,
    order: u64,
    tick_armed: bool,
    /// When the core's timer fires next.
    timer_due: Option<u64>,
    /// And its second one.
    alarm_due: Option<u64>,
    random: clock::Random,
    /// For faults, so that they leave the arrivals as they were.
    chaos: clock::Random,
    life: u32,
    began: Nanos,
    happened: u64,
    waiting: u32,
    idle: u32,
    idle_since: u64,
    wasted: u64,
    broken: Option<String>,
    tape: Option<Box<Tape>>,
    endless: Option<String>,
}

impl<S: Scheduler> fmt::Debug for Sim<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, happened, waiting, idle, .. } = self;
        let now = host.linux.now;
        f.debug_struct("Sim")
            .field("now", &now)
            .field("happened", happened)
            .field("waiting", waiting)
            .field("idle", idle)
            .finish_non_exhaustive()
    }
}

impl<S: Scheduler> Sim<S> {
    /// A machine that does this work under this policy. The agent is there from the start, and the core hands over to
    /// it after 100 ms.
    ///
    /// # Errors
    /// What is wrong with the workload: see [`Workload::check`].
    pub fn new(setup: Setup, work: &Workload, policy: S) -> Result<Self, String> {
        Self::with(setup, work, policy, crate::builder("sim"))
    }

    /// The same with an agent of these sizes. Unless told of another one, it knows the machine.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(mut setup: Setup, work: &Workload, policy: S, builder: Builder) -> Result<Self, String> {
        work.check()?;
        let nr_cpus = setup.topology.nr_cpus();
        if setup.settings.dedicated.is_some_and(|cpu| cpu.0 >= nr_cpus || nr_cpus == 1) {
            return Err("no CPU of its own for the agent: it must be there, and not the only one".to_owned());
        }
        // Only these can be polled.
        setup.settings.shared |= setup.settings.dedicated.is_some();
        let builder = builder.topology_unless_told(&setup.topology);
        let linux = Linux::new(setup.topology.clone(), setup.rings.0, setup.rings.1);
        let mut host = Host::new(linux, Reference::new(setup.settings.clone()));
        for cpu in (0..nr_cpus).map(Cpu) {
            let Host { linux, core, .. } = &mut host;
            core.update_idle(linux, cpu, true);
        }
        for (cgroup, id) in work.cgroups.iter().zip(2..) {
            host.make_cgroup(id, cgroup.parent, cgroup.weight);
            host.set_cgroup_limit(id, cgroup.limit);
        }
        let agent = builder.agent(Wire::new(nr_cpus), policy);
        host.core.subscribe(S::EVENTS);
        let agent_task = host.spawn(&agent_spec(), setup.agent_cpus(&host.linux), None);
        let began = host.linux.now;
        let mut sim = Self {
            host,
            groups: work.groups.clone(),
            names: work.groups.iter().map(|members| members.name.as_str().into()).collect(),
            members: vec![Vec::new(); work.groups.len()],
            actors: Vec::new(),
            gone: Vec::new(),
            lanes: vec![Lane::default(); nr_cpus as usize],
            agent,
            agent_task,
            agent_left: None,
            looked_at: CpuSet::EMPTY,
            agent_ran: 0,
            allocations: 0,
            agent_stopped: false,
            agent_dead: false,
            builder,
            successor: None,
            faults: Vec::new(),
            told: Told::default(),
            queue: BinaryHeap::new(),
            order: 0,
            tick_armed: false,
            timer_due: None,
            alarm_due: None,
            random: clock::Random(setup.seed),
            chaos: clock::Random(!setup.seed),
            life: 0,
            began,
            happened: 0,
            waiting: 0,
            idle: nr_cpus,
            idle_since: began.0,
            wasted: 0,
            broken: None,
            tape: None,
            endless: None,
            setup,
        };
        if sim.setup.kernel_mode {
            sim.set_kernel_mode(true);
        }
        sim.greet();
        sim.at(began + WATCH, Happening::Watchdog);
        for group in 0..sim.groups.len() {
            for _ in 0..sim.groups[group].count {
                let begins = sim.groups[group].begins;
                let spec = sim.groups[group].spec.clone();
                let task = sim.enter(group, &spec, spec.cpus, None);
                let life = sim.life_of(task);
                sim.at(began + begins, Happening::Wake(task, life));
            }
        }
        Ok(sim)
    }

    /// Lets simulated time pass.
    pub fn run(&mut self, time: Nanos) {
        let end = self.now() + time;
        while let Some(due) = self.queue.peek()
            && due.at <= end.0
        {
            let Some(due) = self.queue.pop() else { break };
            self.host.set_now(Nanos(due.at));
            self.happened += 1;
            self.happen(due.what);
            self.look();
            self.arm();
        }
        self.host.set_now(end);
        for cpu in (0..self.lanes.len() as u32).map(Cpu) {
            self.account(cpu);
        }
        self.count_waste();
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(task, life) => {
                if self.life_of(task) == life {
                    self.timer_rings(task);
                }
            }
            Happening::Cpu(cpu, turn) => {
                if self.lanes[cpu.0 as usize].turn == turn {
                    self.due_on(cpu);
                }
            }
            Happening::Kick(cpu) => {
                self.lanes[cpu.0 as usize].kicked = false;
                self.account(cpu);
                self.schedule(cpu);
            }
            Happening::Tick => self.tick(),
            Happening::Watchdog => self.watch(),
            Happening::AgentWakes => self.agent_goes_on(),
            Happening::AgentComes => self.agent_comes(),
            Happening::Fault(index) => self.fault(index),
            Happening::Alarm => {
                let now = self.host.linux.now.0;
                if self.host.linux.alarm() == Some(now) {
                    let cpu = self.host.linux.online.first().unwrap_or_default();
                    self.host.alarm(cpu);
                    self.tape_counters();
                    self.see_to_kicks();
                }
                self.alarm_due = self.alarm_due.filter(|due| *due != now);
            }
            Happening::Timer => {
                // One that was armed for an earlier time meanwhile has done its work.
                if self.timer_due == Some(self.host.linux.now.0) {
                    self.timer_due = None;
                    self.host.timer(Cpu(0));
                    self.tape_counters();
                    self.see_to_kicks();
                }
            }
        }
    }
}

/// CPUs.
impl<S: Scheduler> Sim<S> {
    /// Takes from slice and program what the task there has had.
    fn account(&mut self, cpu: Cpu) {
        let now = self.host.linux.now.0;
        let lane = &mut self.lanes[cpu.0 as usize];
        let Some(task) = self.host.linux.running(cpu) else { return };
        let ran = now.saturating_sub(lane.from);
        if ran == 0 {
            return;
        }
        lane.from = now;
        lane.busy += ran;
        let slice = self.host.linux.task(task).slice.saturating_sub(ran);
        self.host.linux.set_slice(task, slice);
        if task == self.agent_task {
            self.agent_ran += ran;
            self.agent_left = self.agent_left.map(|left| left.saturating_sub(ran));
        } else if let Some(actor) = self.actor(task) {
            actor.left = actor.left.saturating_sub(ran);
            actor.figures.ran = actor.figures.ran + Nanos(ran);
        }
    }

    /// The CPU looks for what to run.
    fn schedule(&mut self, cpu: Cpu) {
        let before = self.host.linux.running(cpu);
        let runs = before.map(|task| self.host.linux.task(task).runs);
        let task = self.host.schedule(cpu);
        self.tape_switch(cpu);
        self.see_to_kicks();
        let Some(task) = task else {
            self.lanes[cpu.0 as usize].turn += 1;
            return self.count_idle(cpu);
        };
        let goes_on = before == Some(task) && runs == Some(self.host.linux.task(task).runs);
        let now = self.host.linux.now.0;
        if !goes_on {
            self.lanes[cpu.0 as usize].from = now + self.setup.switch.0;
            self.put_on(task, cpu);
        }
        if let Some(before) = before.filter(|before| *before != task) {
            self.put_off(before);
        }
        if self.host.linux.running(cpu) != Some(task) {
            // Its first step was to wait.
            return self.schedule(cpu);
        }
        self.count_idle(cpu);
        if task == self.agent_task && self.agent_left.is_none() {
            self.begin_turn(cpu);
        }
        self.plan(cpu);
    }

    /// When does something happen on this CPU by itself?
    fn plan(&mut self, cpu: Cpu) {
        let Some(task) = self.host.linux.running(cpu) else { return };
        let lane = &mut self.lanes[cpu.0 as usize];
        lane.turn += 1;
        let (turn, from) = (lane.turn, lane.from);
        let left = if task == self.agent_task {
            self.agent_left.unwrap_or(if self.polls(cpu) { u64::MAX } else { 0 })
        } else {
            self.actors[task.index()].as_ref().map_or(0, |actor| actor.left)
        };
        let slice_end = from.saturating_add(self.host.linux.task(task).slice);
        let tick = self.setup.tick.0.max(1);
        let at = from.saturating_add(left).min(slice_end.div_ceil(tick).saturating_mul(tick));
        self.at(Nanos(at.max(self.host.linux.now.0)), Happening::Cpu(cpu, turn));
    }

    /// A program's step is over, or a slice.
    fn due_on(&mut self, cpu: Cpu) {
        self.account(cpu);
        let Some(task) = self.host.linux.running(cpu) else { return };
        if task == self.agent_task {
            if self.agent_left == Some(0) {
                self.end_turn();
                self.see_to_kicks();
                if self.polls(cpu) {
                    return self.plan(cpu);
                }
                // It yields.
                self.host.linux.set_slice(task, 0);
                return self.schedule(cpu);
            }
        } else if self.actor(task).is_some_and(|actor| actor.left == 0) {
            let stays = self.go_on(task);
            if !stays {
                return self.schedule(cpu);
            }
        }
        let left = self.host.linux.task(task).slice;
        if left == 0 && self.host.tick(cpu, 0) {
            return self.schedule(cpu);
        }
        self.plan(cpu);
    }

    /// The clock interrupt on all busy CPUs: only while somebody waits for the agent, or the agent for a CPU, or there are
    /// limits to be charged for.
    fn tick(&mut self) {
        self.tick_armed = false;
        for cpu in (0..self.lanes.len() as u32).map(Cpu) {
            let Some(task) = self.host.linux.running(cpu) else { continue };
            self.account(cpu);
            let left = self.host.linux.task(task).slice;
            if self.host.tick(cpu, left) {
                self.schedule(cpu);
            }
        }
        self.see_to_kicks();
    }

    fn see_to_kicks(&mut self) {
        let mut wanted = std::mem::take(&mut self.agent.backend_mut().kicked);
        self.host.take_kicks(|cpu| wanted.push(cpu));
        let at = self.host.linux.now + self.setup.kick;
        for cpu in wanted.drain(..) {
            let lane = &mut self.lanes[cpu.0 as usize];
            if !std::mem::replace(&mut lane.kicked, true) {
                self.at(at, Happening::Kick(cpu));
            }
        }
        self.agent.backend_mut().kicked = wanted;
    }

    /// Arms the clock interrupt and the core's timers where they would find something to do.
    fn arm(&mut self) {
        if let Some(due) = self.host.linux.alarm()
            && self.alarm_due != Some(due)
        {
            self.alarm_due = Some(due);
            self.at(Nanos(due), Happening::Alarm);
        }
        let open = self.host.linux.pending_events() > 0 || self.host.linux.nr_queued(Dsq::Park) > 0;
        // What runs is charged at each of them.
        let limits = self.host.core.has_limits();
        let now = self.host.linux.now.0;
        if (open || limits) && !std::mem::replace(&mut self.tick_armed, true) {
            let tick = self.setup.tick.0.max(1);
            self.at(Nanos((now / tick + 1) * tick), Happening::Tick);
        }
        let busy = open || limits || !self.host.core.is_normal() || self.waiting > 0 && self.idle > 0;
        let period = super::machine::TIMER.0;
        let next = if busy { (now / period + 1) * period } else { self.heartbeat_due(now, period) };
        if self.timer_due.is_none_or(|due| due > next) {
            self.timer_due = Some(next);
            self.at(Nanos(next), Happening::Timer);
        }
    }

    /// With nothing to do, the timer's next work is the agent's regular turn.
    fn heartbeat_due(&self, now: u64, period: u64) -> u64 {
        let due = self.host.core.agent_ran_at().saturating_add(self.setup.settings.heartbeat);
        (due.max(now) / period + 1) * period
    }

    fn at(&mut self, at: Nanos, what: Happening) {
        self.order += 1;
        self.queue.push(Due { at: at.0, order: self.order, what });
    }
}

/// Tasks.
impl<S: Scheduler> Sim<S> {
    fn actor(&mut self, task: Thread) -> Option<&mut Actor> {
        self.actors.get_mut(task.index())?.as_mut()
    }

    fn life_of(&self, task: Thread) -> u32 {
        self.actors.get(task.index()).and_then(Option::as_ref).map_or(0, |actor| actor.life)
    }

    fn enter(&mut self, group: usize, spec: &Spec, cpus: CpuSet, parent: Option<Thread>) -> Thread {
        let task = self.host.spawn(spec, cpus, parent);
        if spec.comm == Spec::default().comm {
            self.host.linux.rename(task, &self.groups[group].name);
        }
        self.life += 1;
        let t = self.host.linux.task(task);
        let figures = TaskFigures {
            pid: t.pid,
            name: self.names[group].clone(),
            group,
            weight: t.weight,
            ran: Nanos::ZERO,
            waited: Nanos::ZERO,
            runs: 0,
            wakeups: 0,
            moves: [0; 6],
            wake_to_run: Histogram::default(),
            longest_wait: Nanos::ZERO,
        };
        let actor = Actor {
            group,
            number: self.members[group].len(),
            step: usize::MAX,
            left: 0,
            began: self.host.linux.now,
            wakes: 0,
            blocked: false,
            joining: false,
            parent,
            children: 0,
            life: self.life,
            wants_since: None,
            woke_at: None,
            last_cpu: None,
            figures,
        };
        if self.actors.len() <= task.index() {
            self.actors.resize_with(task.index() + 1, || None);
        }
        self.actors[task.index()] = Some(actor);
        self.members[group].push(task);
        self.tape_task(task, parent);
        task
    }

    fn timer_rings(&mut self, task: Thread) {
        self.wake(task, None);
    }

    fn wake(&mut self, task: Thread, by: Option<Thread>) {
        if !self.host.wake(task, by) {
            return;
        }
        self.tape_wake(task, by);
        let now = self.host.linux.now;
        if let Some(actor) = self.actor(task) {
            actor.blocked = false;
            actor.figures.wakeups += 1;
            (actor.wants_since, actor.woke_at) = (Some(now), Some(now));
            self.count_waste();
            self.waiting += 1;
        }
        self.see_to_kicks();
    }

    fn put_on(&mut self, task: Thread, cpu: Cpu) {
        let now = self.host.linux.now;
        let Some(actor) = self.actors.get_mut(task.index()).and_then(Option::as_mut) else { return };
        actor.figures.runs += 1;
        if let Some(since) = actor.wants_since.take() {
            let waited = now - since;
            actor.figures.waited = actor.figures.waited + waited;
            actor.figures.longest_wait = actor.figures.longest_wait.max(waited);
        }
        if let Some(woke) = actor.woke_at.take() {
            actor.figures.wake_to_run.add(now - woke);
        }
        if let Some(last) = actor.last_cpu.replace(cpu) {
            let distance = self.setup.topology.distance(last, cpu);
            let at = DISTANCES.iter().position(|d| *d == distance).unwrap_or(DISTANCES.len() - 1);
            actor.figures.moves[at] += 1;
        }
        self.count_waste();
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// It was on a CPU and still wants to be.
    fn put_off(&mut self, task: Thread) {
        let now = self.host.linux.now;
        if !self.host.linux.task(task).runnable
            || matches!(self.host.linux.task(task).place, Place::Running(_))
        {
            return;
        }
        if let Some(actor) = self.actor(task) {
            actor.wants_since = Some(now);
            self.count_waste();
            self.waiting += 1;
        }
    }

    fn count_idle(&mut self, _cpu: Cpu) {
        self.count_waste();
        self.idle = self.host.linux.nr_idle();
    }

    /// CPUs that were idle while tasks waited, since this was looked at last.
    fn count_waste(&mut self) {
        let now = self.host.linux.now.0;
        self.wasted += (now - self.idle_since) * u64::from(self.idle.min(self.waiting));
        self.idle_since = now;
    }
}

fn agent_spec() -> Spec {
    Spec { comm: "agent", ..Spec::default() }
}

/// Programs.
impl<S: Scheduler> Sim<S> {
    /// A step is over. `false` if the task left its CPU.
    fn go_on(&mut self, task: Thread) -> bool {
        self.next_step(task);
        let mut steps = 0;
        loop {
            match self.host.linux.task(task).place {
                Place::Running(_) => {}
                _ => return false,
            }
            match self.actors[task.index()].as_ref() {
                None => return false,
                Some(actor) if actor.left > 0 => return true,
                // A wake that it gave itself, nobody to wait for: without an end, time would stand still.
                Some(actor) if steps > MOST_STEPS + self.groups[actor.group].steps.len() => {
                    let (pid, name) = (actor.figures.pid, &self.groups[actor.group].name);
                    let words = format!("pid {pid} (group {name}) goes round and round, and no time passes");
                    self.endless.get_or_insert(words);
                    self.exit(task);
                    return false;
                }
                Some(_) => self.next_step(task),
            }
            steps += 1;
        }
    }

    fn next_step(&mut self, task: Thread) {
        let Some(actor) = self.actors[task.index()].as_mut() else { return };
        let steps = &self.groups[actor.group].steps;
        actor.step = actor.step.wrapping_add(1) % steps.len();
        let step = steps[actor.step].clone();
        let (number, began, life) = (actor.number, actor.began, actor.life);
        let now = self.host.linux.now;
        match step {
            Step::Run(span) => {
                let time = self.random.span(span);
                if let Some(actor) = self.actor(task) {
                    actor.left = time;
                }
            }
            Step::Sleep(span) => {
                let time = self.random.span(span);
                self.at(now + Nanos(time), Happening::Wake(task, life));
                self.leave(task);
            }
            Step::Every(period) => {
                let passed = (now - began).0;
                let next = began + Nanos((passed / period.0 + 1) * period.0);
                self.at(next, Happening::Wake(task, life));
                self.leave(task);
            }
            Step::Until(time) => {
                let at = self.began + time;
                if at > now {
                    self.at(at, Happening::Wake(task, life));
                    self.leave(task);
                }
            }
            Step::Block => {
                let Some(actor) = self.actor(task) else { return };
                if actor.wakes > 0 {
                    actor.wakes -= 1;
                } else {
                    actor.blocked = true;
                    self.leave(task);
                }
            }
            Step::Wake(group) => {
                let peers = &self.members[group.0];
                if let Some(&peer) = peers.get(number % peers.len().max(1)) {
                    self.poke(peer, task);
                }
            }
            Step::WakeAll(group) => {
                for peer in self.members[group.0].clone() {
                    self.poke(peer, task);
                }
            }
            Step::Fork(group) => {
                if self.actors.len() >= MOST_TASKS && self.host.linux.nr_tasks() >= MOST_TASKS {
                    let words = format!("group {} forks without end: {MOST_TASKS} tasks", group.0);
                    self.endless.get_or_insert(words);
                    return;
                }
                let t = self.host.linux.task(task);
                let own = &self.groups[group.0].spec;
                let spec = Spec {
                    weight: t.weight,
                    kthread: t.kthread,
                    cgroup_id: t.cgroup_id,
                    label: own.label,
                    comm: own.comm,
                    ..Spec::default()
                };
                let cpus = self.host.linux.allowed(task);
                let child = self.enter(group.0, &spec, cpus, Some(task));
                if let Some(actor) = self.actor(task) {
                    actor.children += 1;
                }
                self.wake(child, Some(task));
            }
            Step::Join => {
                let Some(actor) = self.actor(task) else { return };
                if actor.children > 0 {
                    actor.joining = true;
                    self.leave(task);
                }
            }
            Step::Pin(cpus) => self.pin(task, cpus),
            Step::Move(cgroup) => self.move_task(task, cgroup),
            Step::Exit => self.exit(task),
        }
    }

    fn leave(&mut self, task: Thread) {
        if let Place::Running(cpu) = self.host.linux.task(task).place {
            self.host.sleep(cpu);
        }
    }

    /// Wakes a task that blocks; one that does not will not block the next time.
    fn poke(&mut self, task: Thread, by: Thread) {
        let Some(actor) = self.actor(task) else { return };
        if actor.blocked {
            self.wake(task, Some(by));
        } else {
            actor.wakes += 1;
        }
    }

    fn exit(&mut self, task: Thread) {
        let Some(actor) = self.actors[task.index()].take() else { return };
        self.members[actor.group].retain(|other| *other != task);
        for (task, number) in self.members[actor.group].clone().into_iter().zip(0..) {
            if let Some(actor) = self.actor(task) {
                actor.number = number;
            }
        }
        self.gone.push(actor.figures);
        // Whoever waits for it is woken by it, as in the kernel: its last run is not over yet.
        if let Some(parent) = actor.parent
            && let Some(waiting) = self.actor(parent)
        {
            waiting.children = waiting.children.saturating_sub(1);
            if waiting.joining && waiting.children == 0 {
                waiting.joining = false;
                self.wake(parent, Some(task));
            }
        }
        self.tape_exit(task);
        self.host.exit(task);
        self.tape_gone();
        self.see_to_kicks();
    }
}

/// The watchdog.
impl<S: Scheduler> Sim<S> {
    /// Who has waited for too long? The kernel would remove the scheduler.
    fn watch(&mut self) {
        let now = self.now();
        for actor in self.actors.iter().flatten() {
            let waits = actor.wants_since.map_or(Nanos::ZERO, |since| now - since);
            if waits > STALL {
                let words = format!("pid {} has wanted to run for {waits}, and did not", actor.figures.pid);
                self.broken.get_or_insert(words);
            }
        }
        self.at(now + WATCH, Happening::Watchdog);
    }
}

/// What is to be seen.
impl<S: Scheduler> Sim<S> {
    /// The time now; it begins at one second.
    pub fn now(&self) -> Nanos {
        self.host.linux.now
    }

    /// For how long it went on.
    pub fn passed(&self) -> Nanos {
        self.now() - self.began
    }

    /// How much has happened: wakeups, ends of steps and slices, turns of the agent, interrupts that found something to
    /// do.
    pub fn happened(&self) -> u64 {
        self.happened
    }

    /// What became of each task, of those that are gone too. A wait that is not over counts.
    pub fn tasks(&self) -> Vec<TaskFigures> {
        let now = self.now();
        let there = self.actors.iter().flatten().map(|actor| {
            let mut figures = actor.figures.clone();
            if let Some(since) = actor.wants_since {
                figures.waited = figures.waited + (now - since);
                figures.longest_wait = figures.longest_wait.max(now - since);
            }
            figures
        });
        self.gone.iter().cloned().chain(there).collect()
    }

    /// Of the tasks of one group.
    pub fn group(&self, group: Group) -> Vec<TaskFigures> {
        self.tasks().into_iter().filter(|task| task.group == group.0).collect()
    }

    /// For how long each CPU has computed, the agent's turns included.
    pub fn busy(&self) -> Vec<Nanos> {
        self.lanes.iter().map(|lane| Nanos(lane.busy)).collect()
    }

    /// CPU time that was idle while tasks waited: at most one idle CPU for each task.
    pub fn wasted(&self) -> Nanos {
        Nanos(self.wasted)
    }

    /// CPU time of the agent.
    pub fn agent_ran(&self) -> Nanos {
        Nanos(self.agent_ran)
    }

    /// How often the agent's thread allocated in its turns. Always zero unless
    /// [`CountingAllocator`](crate::alloc::CountingAllocator) is installed.
    pub fn allocations(&self) -> u64 {
        self.allocations
    }

    /// The agent and its policy.
    pub fn agent(&self) -> &Agent<Wire, S> {
        &self.agent
    }

    /// The core's counters.
    pub fn counters(&self) -> Counters {
        self.host.core.counters()
    }

    /// Who schedules, and since when.
    pub fn latch(&self) -> Latch {
        self.host.core.latch()
    }

    /// Have all rules been kept?
    ///
    /// # Errors
    /// The rule that was broken, in words.
    pub fn check(&self) -> Result<(), String> {
        match self.broken.as_ref().or(self.endless.as_ref()) {
            Some(why) => Err(why.clone()),
            None => self.host.check(),
        }
    }

    /// Which task goes round without time passing, or forks without end, if one does. It was ended, and
    /// [`check`](Self::check) fails; the policy is not to blame.
    pub fn endless(&self) -> Option<&str> {
        self.endless.as_deref()
    }

    /// The agent's task; `None` while there is none.
    pub fn agent_pid(&self) -> Option<Pid> {
        (!self.agent_dead).then(|| self.host.linux.task(self.agent_task).pid)
    }
}
