//! Custody: who may run a task now, and how an event ends. See `qumun-bpf/bpf/custody.h`.

use super::latch::TICK;
use super::model::{Model, Place, Queue, Task};
use super::values::{RawDecision, Sabotage};
use crate::{Cpu, Event, Generation, Nanos, Pid};

/// How far behind the clock of virtual time a task may wake up.
pub(super) const LAG: Nanos = Nanos::from_millis(20);
/// The core's own queues, and those of the agent, are looked at this often on each CPU.
const SHARE: Nanos = Nanos::from_millis(40);
/// What a side may be owed that had nothing to run for a while.
const SIDE_LAG: Nanos = Nanos::from_millis(20);
/// A task, as the sides count them.
const SHARER: u64 = 16;
/// The two sides of a CPU.
const CORE: usize = 0;
const AGENT: usize = 1;
/// A placed task that waited this long goes to the core's queue.
const RESCUE_AFTER: Nanos = Nanos::from_millis(500);
/// Decisions taken from the ring in one dispatch.
const BATCH: usize = 32;

/// Into a queue of the machine.
impl Model {
    /// A task wants to run.
    pub(super) fn enqueue(&mut self, pid: Pid, wakeup: bool) {
        self.latch_check();
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        let (now, floor) = (self.now, self.vclock.saturating_sub(LAG.as_u64()));
        let keep_generation = self.config.sabotage == Sabotage::KeepGeneration;
        let Some(t) = self.tasks.get_mut(&pid) else { return };
        if !(keep_generation && t.generation != Generation(0)) {
            t.generation = generation;
        }
        t.enqueued_at = now;
        t.vtime = t.vtime.max(floor);
        if t.allowed.is_power_of_two() {
            self.counters.kernel_direct += 1;
            return self.enqueue_core(pid);
        }
        if !self.is_normal() && self.config.sabotage != Sabotage::SendDegraded {
            self.counters.core_enqueued += 1;
            return self.enqueue_core(pid);
        }
        if self.events.len() >= self.config.event_ring {
            self.counters.congested += 1;
            if self.config.sabotage != Sabotage::LoseWhenFull {
                self.enqueue_core(pid);
            }
            return;
        }
        self.park(pid, wakeup);
    }

    fn park(&mut self, pid: Pid, wakeup: bool) {
        let Some(event) = self.event(pid, wakeup) else { return };
        self.events.push_back(Event::Queued(event));
        self.counters.ev_sent += 1;
        self.sent_degraded += u64::from(!self.is_normal());
        if let Some(t) = self.tasks.get_mut(&pid) {
            self.repeated += u64::from(t.generation <= t.sent);
            t.sent = t.generation;
        }
        self.insert(pid, Place::Parked, event.vtime);
    }

    /// Into the core's own order: its queue, or the CPU's if the task may run on one only.
    pub(super) fn enqueue_core(&mut self, pid: Pid) {
        let Some(t) = self.tasks.get_mut(&pid) else { return };
        t.slice = self.config.slice;
        let (vtime, allowed) = (t.vtime, t.allowed);
        let pinned = allowed.is_power_of_two().then(|| Cpu(allowed.trailing_zeros()));
        self.insert(pid, pinned.map_or(Place::Core, Place::Pinned), vtime);
    }

    fn insert(&mut self, pid: Pid, place: Place, vtime: u64) {
        self.seq += 1;
        let key = (vtime, self.seq);
        let Some(t) = self.tasks.get_mut(&pid) else { return };
        (t.place, t.key) = (place, key);
        if let Some(queue) = self.queue(place) {
            queue.insert(key, pid);
        }
    }

    /// Takes a task out of wherever it is. How its event ended is for the caller to count.
    pub(super) fn dequeue(&mut self, pid: Pid) {
        let Some(t) = self.tasks.get(&pid) else { return };
        let (place, key) = (t.place, t.key);
        if let Place::Running(cpu) = place {
            self.stop(cpu);
        } else if let Some(queue) = self.queue(place) {
            queue.remove(&key);
        }
        if let Some(t) = self.tasks.get_mut(&pid) {
            t.place = Place::Asleep;
        }
    }

    fn queue(&mut self, place: Place) -> Option<&mut Queue> {
        match place {
            Place::Parked => Some(&mut self.parked),
            Place::Shared => Some(&mut self.shared),
            Place::Core => Some(&mut self.core),
            Place::Placed(cpu) => self.cpus.get_mut(cpu.0 as usize).map(|c| &mut c.placed),
            Place::Pinned(cpu) => self.cpus.get_mut(cpu.0 as usize).map(|c| &mut c.pinned),
            Place::Asleep | Place::Running(_) => None,
        }
    }
}

/// The rings.
impl Model {
    pub(super) fn receive(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn send(&mut self, decision: RawDecision) -> bool {
        let room = self.decisions.len() < self.config.decision_ring;
        if room {
            self.decisions.push_back(decision);
        }
        room
    }

    pub(super) fn send_raw(&mut self, decision: RawDecision) -> bool {
        let sent = self.send(decision);
        self.publish();
        sent
    }

    pub(super) fn publish(&mut self) {
        self.published = self.decisions.len();
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.tasks.values().filter(|t| t.place == Place::Parked).count() as u64
    }

    /// Takes what the agent has decided and moves the tasks.
    fn take_decisions(&mut self) {
        for _ in 0..BATCH.min(self.published) {
            let Some(decision) = self.decisions.pop_front() else { return };
            self.published -= 1;
            self.counters.dec_drained += 1;
            self.apply(decision);
        }
    }

    fn apply(&mut self, d: RawDecision) {
        let cpu = u32::try_from(d.cpu).ok().filter(|&cpu| cpu < self.config.nr_cpus).map(Cpu);
        if d.flags != 0 || d.cpu != -1 && cpu.is_none() {
            self.counters.dec_refused += 1;
            return;
        }
        let pid = Pid(d.pid);
        let open = |t: &&mut Task| t.place == Place::Parked && t.generation == Generation(d.generation);
        let Some(t) = self.tasks.get_mut(&pid).filter(open) else {
            self.counters.dec_stale += 1;
            if self.config.sabotage == Sabotage::StaleEndsEvent {
                self.counters.ev_cancelled += 1;
            }
            return;
        };
        let parked = self.now - t.enqueued_at;
        self.counters.max_parked_ns = self.counters.max_parked_ns.max(parked.as_u64());
        let key = t.key;
        let ignore = self.config.sabotage == Sabotage::IgnoreAffinity;
        let fits =
            cpu.is_none_or(|cpu| (ignore || t.allowed >> cpu.0 & 1 == 1) && self.cpus[cpu.0 as usize].online);
        if self.config.sabotage != Sabotage::DoublePlace {
            self.parked.remove(&key);
        }
        if !fits {
            self.counters.ev_bounced += 1;
            self.counters.dec_bounced += 1;
            return self.enqueue_core(pid);
        }
        t.slice = match Nanos(d.slice) {
            Nanos::ZERO => self.config.slice,
            asked => asked.clamp(self.config.slice_min, self.config.slice_max),
        };
        t.placed_at = self.now;
        self.counters.ev_dispatched += 1;
        self.counters.dec_applied += 1;
        self.insert(pid, cpu.map_or(Place::Shared, Place::Placed), d.vtime);
    }
}

/// Onto a CPU and off it.
impl Model {
    pub(super) fn dispatch(&mut self, cpu: Cpu) -> Option<Pid> {
        let state = self.cpus.get(cpu.0 as usize)?;
        if state.running.is_some() || !state.online {
            return state.running;
        }
        self.latch_check();
        if self.is_normal() {
            self.take_decisions();
        }
        let pid = self.pick(cpu);
        self.cpus[cpu.0 as usize].idle = pid.is_none();
        self.start(pid?, cpu);
        pid
    }

    /// The next task for this CPU. Parked tasks are a finite lot while the core has taken over, and strictly
    /// first; then the core's side or the agent's.
    fn pick(&mut self, cpu: Cpu) -> Option<Pid> {
        let at = cpu.0 as usize;
        self.cpus[at].sides.running = None;
        if !self.is_normal()
            && self.config.sabotage != Sabotage::LeaveParked
            && let Some(pid) = self.first(&self.parked, cpu)
        {
            return Some(pid);
        }
        if self.core.is_empty() && self.cpus[at].pinned.is_empty() {
            return self.pick_side(AGENT, cpu);
        }
        if self.shared.is_empty() && self.cpus[at].placed.is_empty() {
            return self.pick_side(CORE, cpu);
        }
        let first = self.first_side(cpu);
        for side in [first, 1 - first] {
            let n = self.sharers(side, cpu);
            if let Some(pid) = self.pick_side(side, cpu) {
                self.cpus[at].sides.running = Some((side, n));
                self.cpus[at].sides.charged_at = self.now;
                return Some(pid);
            }
        }
        None
    }

    /// Both sides have tasks: the one whose clock is behind, unless the other was not looked at for too long.
    fn first_side(&mut self, cpu: Cpu) -> usize {
        if self.config.sabotage == Sabotage::NoAgentShare {
            return CORE;
        }
        let now = self.now;
        let sides = &mut self.cpus[cpu.0 as usize].sides;
        let [core, agents] = sides.clock;
        let owed = SIDE_LAG.as_u64();
        sides.clock = [core.max(agents.saturating_sub(owed)), agents.max(core.saturating_sub(owed))];
        let waits = sides.served_at.map(|at| now - at);
        if waits[CORE].max(waits[AGENT]) > SHARE {
            return if waits[CORE] >= waits[AGENT] { CORE } else { AGENT };
        }
        if sides.clock[AGENT] < sides.clock[CORE] { AGENT } else { CORE }
    }

    /// How many tasks share what a side gets here, in parts of [`SHARER`].
    fn sharers(&self, side: usize, cpu: Cpu) -> u64 {
        let state = &self.cpus[cpu.0 as usize];
        let (own, common) =
            if side == CORE { (&state.pinned, &self.core) } else { (&state.placed, &self.shared) };
        let online = self.cpus.iter().filter(|c| c.online).count().max(1);
        (own.len() as u64 * SHARER + common.len() as u64 * SHARER / online as u64).max(1)
    }

    fn pick_side(&mut self, side: usize, cpu: Cpu) -> Option<Pid> {
        let now = self.now;
        let state = &mut self.cpus[cpu.0 as usize];
        state.sides.served_at[side] = now;
        if side == CORE {
            let heads = [&self.cpus[cpu.0 as usize].pinned, &self.core].map(|queue| self.first(queue, cpu));
            return heads.into_iter().flatten().min_by_key(|pid| self.tasks.get(pid).map(|t| t.key));
        }
        // What is placed for this CPU and for any, in turns.
        let placed_first = state.turn;
        state.turn = !placed_first;
        let placed = self.first(&self.cpus[cpu.0 as usize].placed, cpu);
        let shared = self.first(&self.shared, cpu);
        if placed_first { placed.or(shared) } else { shared.or(placed) }
    }

    fn first(&self, queue: &Queue, cpu: Cpu) -> Option<Pid> {
        queue.values().copied().find(|&pid| self.may_run(pid, cpu))
    }

    fn may_run(&self, pid: Pid, cpu: Cpu) -> bool {
        let may = self.tasks.get(&pid).is_some_and(|t| t.allowed >> cpu.0 & 1 == 1);
        may || self.config.sabotage == Sabotage::IgnoreAffinity
    }

    fn start(&mut self, pid: Pid, cpu: Cpu) {
        let Some(place) = self.tasks.get(&pid).map(|t| t.place) else { return };
        self.dequeue(pid);
        let now = self.now;
        self.cpus[cpu.0 as usize].running = Some(pid);
        let Some(t) = self.tasks.get_mut(&pid) else { return };
        if place == Place::Parked {
            // Only a core that has taken over looks there.
            self.counters.ev_taken_over += 1;
            self.counters.max_parked_ns = self.counters.max_parked_ns.max((now - t.enqueued_at).as_u64());
            t.slice = self.config.slice;
        }
        t.place = Place::Running(cpu);
        t.started_at = now;
        t.cpu = cpu;
        t.runs += 1;
        self.vclock = self.vclock.max(t.vtime);
        self.counters.runs += 1;
    }

    /// Takes the task off this CPU and charges it.
    pub(super) fn stop(&mut self, cpu: Cpu) -> Option<Pid> {
        let now = self.now;
        let state = self.cpus.get_mut(cpu.0 as usize)?;
        let pid = state.running.take()?;
        if let Some((side, n)) = state.sides.running.take() {
            state.sides.clock[side] += (now - state.sides.charged_at).as_u64() * SHARER / n;
        }
        let t = self.tasks.get_mut(&pid)?;
        let ran = self.now - t.started_at;
        t.place = Place::Asleep;
        t.stopped_at = self.now;
        t.total = t.total + ran;
        t.exec_runtime = t.exec_runtime + ran;
        t.vtime = t.vtime.saturating_add(ran.as_u64().saturating_mul(100) / u64::from(t.weight));
        Some(pid)
    }
}

/// Time.
impl Model {
    /// `busy`: a CPU whose slice ended looks for work at once; otherwise it is left idle.
    pub(super) fn advance(&mut self, time: Nanos, busy: bool) {
        let end = self.now + time;
        while self.now < end {
            let slice = self.until_slice_end().map_or(Nanos::MAX, |left| self.now + left);
            self.now = slice.min(self.next_tick).min(end);
            if self.now == self.next_tick {
                self.next_tick = self.next_tick + TICK;
                self.tick();
            }
            for i in 0..self.config.nr_cpus {
                if self.slice_left(Cpu(i)) == Some(Nanos::ZERO) {
                    self.slice_end(Cpu(i));
                    if busy {
                        self.dispatch(Cpu(i));
                    }
                }
            }
        }
    }

    pub(super) fn until_slice_end(&self) -> Option<Nanos> {
        (0..self.config.nr_cpus).filter_map(|i| self.slice_left(Cpu(i))).min()
    }

    fn slice_left(&self, cpu: Cpu) -> Option<Nanos> {
        let t = self.tasks.get(&self.cpus[cpu.0 as usize].running?)?;
        Some((t.started_at + t.slice) - self.now)
    }

    fn tick(&mut self) {
        self.latch_check();
        let waited = |t: &Task| {
            matches!(t.place, Place::Shared | Place::Placed(_)) && self.now - t.placed_at > RESCUE_AFTER
        };
        let late: Vec<_> = self.tasks.iter().filter(|(_, t)| waited(t)).map(|(&pid, _)| pid).collect();
        for pid in late {
            self.dequeue(pid);
            self.enqueue_core(pid);
            self.counters.rescued += 1;
        }
    }
}
