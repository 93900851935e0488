//! The agent as a task of the machine: what it reads at the beginning of a turn and what the core sees at its end.

use std::collections::VecDeque;

use super::{Own, Place, Sim};
use crate::alloc::Guard;
use crate::permit::Marks;
use crate::sim::core::Core;
use crate::sim::reference::MAX_CGROUPS;
use crate::sim::values::RawDecision;
use crate::{
    Backend, Cpu, CpuSet, Decision, Epoch, Event, Events, ExitInfo, Full, IdleView, Nanos, Pid, Scheduler,
};

/// What a turn of the agent takes, in CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Costs {
    /// A turn, whatever it does.
    pub turn: Nanos,
    /// Each event.
    pub event: Nanos,
    /// Each decision.
    pub decision: Nanos,
}

impl Default for Costs {
    fn default() -> Self {
        Self { turn: Nanos(700), event: Nanos(120), decision: Nanos(80) }
    }
}

/// The agent's end of both rings.
#[derive(Debug)]
pub struct Wire {
    events: VecDeque<Event>,
    sent: Vec<RawDecision>,
    room: usize,
    epoch: Epoch,
    acknowledged: Option<Epoch>,
    now: Nanos,
    idle: IdleView,
    online: CpuSet,
    here: Option<Cpu>,
    own: Own,
    /// CPUs that are not the agent's own.
    open: CpuSet,
    received: u64,
    /// The words of its page that end permits, and what the core has not seen of them yet.
    marks: Marks,
    revoked: Vec<Option<Pid>>,
    pub(super) kicked: Vec<Cpu>,
}

impl Wire {
    pub(super) fn new(nr_cpus: u32) -> Self {
        Self {
            events: VecDeque::new(),
            sent: Vec::new(),
            room: 0,
            epoch: Epoch(0),
            acknowledged: None,
            now: Nanos::ZERO,
            idle: IdleView::new(nr_cpus),
            online: CpuSet::first_n(nr_cpus),
            here: None,
            own: Own::default(),
            open: CpuSet::first_n(nr_cpus),
            received: 0,
            marks: Marks::default(),
            revoked: Vec::new(),
            kicked: Vec::new(),
        }
    }
}

impl Wire {
    pub(super) fn set_online(&mut self, cpu: Cpu, online: bool) {
        self.online.set(cpu, online);
    }
}

impl Backend for Wire {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.acknowledged = Some(epoch);
    }

    fn refresh(&mut self) {}

    fn subscribe(&mut self, _: Events) {}

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn online(&self) -> Option<&CpuSet> {
        Some(&self.open)
    }

    fn here(&self) -> Option<Cpu> {
        self.here
    }

    fn now(&self) -> Nanos {
        self.now
    }

    fn receive(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.received += 1;
        if let Event::Queued(task) = &event {
            self.own.asked_from(task.cpu);
        }
        Some(event)
    }

    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        if self.sent.len() >= self.room {
            return Err(Full(*decision));
        }
        self.own.sent_to(decision.cpu());
        self.sent.push(RawDecision::from(decision).marked(self.marks.of(decision.id().pid)));
        Ok(())
    }

    fn revoke(&mut self, task: Option<Pid>) {
        self.marks.revoke(task);
        self.revoked.push(task);
    }

    fn publish(&mut self) {}

    fn rest(&mut self, _: bool) {}

    fn exited(&mut self) -> Option<ExitInfo> {
        None
    }
}

impl<S: Scheduler> Sim<S> {
    /// A new agent greets, and wants a CPU.
    pub(super) fn greet(&mut self) {
        self.told.begin(if S::EVENTS.contains(Events::CGROUPS) { MAX_CGROUPS } else { 0 });
        let pid = self.host.linux.task(self.agent_task).pid;
        let cpu = self.host.linux.task(self.agent_task).cpu;
        self.host.hello(cpu, pid, pid);
        self.host.wake(self.agent_task, None);
        self.see_to_kicks();
    }

    /// Reads what there is and lets the policy decide. The core sees the decisions when the turn's time has passed.
    pub(super) fn begin_turn(&mut self, cpu: Cpu) {
        let mut told = 0;
        let wire = self.agent.backend_mut();
        std::mem::swap(&mut wire.events, &mut self.host.linux.events);
        // What is left over from the turn before is older: it comes first.
        while let Some(event) = self.host.linux.events.pop_back() {
            wire.events.push_front(event);
        }
        while let Some(note) = self.told.next(self.host.core.cgroup_changes(), &self.host.core) {
            wire.events.push_front(Event::Note(note));
            told += 1;
        }
        wire.events.make_contiguous()[..told].reverse();
        wire.received = 0;
        wire.now = self.host.linux.now;
        wire.epoch = self.host.core.epoch();
        let own = self.host.core.own_cpu();
        wire.own.set(own);
        wire.open = wire.own.others(wire.online);
        wire.here = Some(cpu).filter(|_| own.is_none());
        // A ring has its memory from the start.
        wire.sent.reserve(self.host.linux.decision_room);
        wire.room = self.host.linux.decision_room.saturating_sub(self.host.linux.decisions.len());
        // Who only waits for an answer is not free.
        let free = self.host.core.idle() - self.host.core.view.asking;
        for (index, &word) in free.words().iter().enumerate() {
            wire.idle.set_word(index, word);
        }
        if let Some(own) = own {
            wire.idle.set(own, false);
        }
        self.looked_at = self.host.core.idle();
        let guard = Guard::new();
        self.agent.turn();
        self.allocations += guard.count();
        drop(guard);
        let wire = self.agent.backend_mut();
        let costs = self.setup.costs;
        let time = costs.turn.0 + costs.event.0 * wire.received + costs.decision.0 * wire.sent.len() as u64;
        self.agent_left = Some(time.max(1));
    }

    pub(super) fn end_turn(&mut self) {
        self.agent_left = None;
        let wire = self.agent.backend_mut();
        if let Some(epoch) = wire.acknowledged.take() {
            self.host.core.acknowledge(epoch);
        }
        for task in wire.revoked.drain(..) {
            self.host.core.revoke(task);
        }
        for decision in wire.sent.drain(..) {
            self.host.linux.write_decision(decision);
        }
        self.host.linux.publish();
        if let Some(own) = wire.own.cpu() {
            let cpus = wire.own.wakes(self.host.core.idle());
            if !cpus.is_empty() {
                self.host.wake_cpus(own, cpus);
            }
        }
        self.tape_counters();
    }

    /// Its turn is over. Does it go on looking, on a CPU of its own?
    pub(super) fn polls(&self, cpu: Cpu) -> bool {
        self.host.core.own_cpu() == Some(cpu)
    }

    /// The agent looks at its own CPU: has something happened since its last turn?
    pub(super) fn look(&mut self) {
        if self.setup.settings.dedicated.is_none() || self.agent_dead || self.agent_left.is_some() {
            return;
        }
        let Place::Running(cpu) = self.host.linux.task(self.agent_task).place else { return };
        let keeps = self.agent.stats().held > 0 && self.looked_at != self.host.core.idle();
        let new = self.agent.backend().epoch != self.host.core.epoch();
        if self.host.linux.pending_events() > 0 || keeps || new || !self.polls(cpu) {
            self.account(cpu);
            self.begin_turn(cpu);
            self.plan(cpu);
        }
    }
}
