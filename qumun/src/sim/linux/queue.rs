//! Dispatch queues, and the functions that put tasks there and take them out.

use std::collections::BTreeMap;

use super::{Insert, Linux, Place, Thread};
use crate::Cpu;
use crate::sim::core::KICK_PREEMPT;

/// A dispatch queue: those of the kernel, and those that our core makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dsq {
    /// The kernel's own for all CPUs.
    Global,
    /// What runs next on the CPU that a task is queued on (`SCX_DSQ_LOCAL`): only for inserts.
    Own,
    /// What runs next on a CPU (`SCX_DSQ_LOCAL_ON`).
    Local(Cpu),
    /// Tasks whose event is undecided.
    Park,
    /// Placed by the agent for any CPU.
    Shared,
    /// The core's own.
    Core,
    /// The agent's thread.
    Agent,
    /// Tasks of one CPU, in the core's order.
    Pinned(Cpu),
    /// Placed by the agent for this CPU.
    Placed(Cpu),
    /// Held back in the cgroup of this slot, which has used up its limit.
    Throttled(u32),
}

/// The order in a queue: virtual time, then arrival. (The kernel's comparison of virtual times wraps around, this one
/// does not.)
pub(crate) type Key = (u64, u64);
type Queue = BTreeMap<Key, Thread>;

const COMMON: usize = 5;

#[derive(Debug)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// By slot, as far as they were used.
    throttled: Vec<Queue>,
    empty: Queue,
    nr_cpus: usize,
}

impl Queues {
    pub(crate) fn new(nr_cpus: u32) -> Self {
        let nr_cpus = nr_cpus as usize;
        let queues = (0..COMMON + 2 * nr_cpus).map(|_| Queue::new()).collect();
        Self { queues, throttled: Vec::new(), empty: Queue::new(), nr_cpus }
    }

    fn index(&self, dsq: Dsq) -> usize {
        match dsq {
            Dsq::Park => 0,
            Dsq::Shared => 1,
            Dsq::Core => 2,
            Dsq::Agent => 3,
            Dsq::Global | Dsq::Local(_) | Dsq::Own => 4,
            Dsq::Pinned(cpu) => COMMON + cpu.0 as usize,
            Dsq::Placed(cpu) => COMMON + self.nr_cpus + cpu.0 as usize,
            Dsq::Throttled(slot) => slot as usize,
        }
    }

    fn get(&self, dsq: Dsq) -> &Queue {
        match dsq {
            Dsq::Throttled(slot) => self.throttled.get(slot as usize).unwrap_or(&self.empty),
            _ => &self.queues[self.index(dsq)],
        }
    }

    fn get_mut(&mut self, dsq: Dsq) -> &mut Queue {
        if let Dsq::Throttled(slot) = dsq {
            let slots = self.throttled.len().max(slot as usize + 1);
            self.throttled.resize_with(slots, Queue::new);
            return &mut self.throttled[slot as usize];
        }
        let index = self.index(dsq);
        &mut self.queues[index]
    }
}

/// A walk through a queue (`struct bpf_iter_scx_dsq`). It does not see what is inserted after it was made, and may
/// only move what it saw.
#[derive(Clone, Copy, Debug)]
pub struct Iter {
    dsq: Dsq,
    made: u64,
    reverse: bool,
    at: Option<Key>,
}

/// From `enqueue` and `select_cpu`: carried out when they have returned.
impl Linux {
    /// Wants a task in a queue (`scx_bpf_dsq_insert_vtime`; virtual time 0: `scx_bpf_dsq_insert`).
    pub fn insert(&mut self, task: Thread, dsq: Dsq, slice: u64, vtime: u64) {
        self.pending = Some(Insert { task, dsq, slice, vtime, preempt: false });
    }

    /// The same for its CPU's local queue, before all others, and instead of who runs there (`SCX_ENQ_PREEMPT`).
    pub fn insert_first(&mut self, task: Thread, slice: u64) {
        self.pending = Some(Insert { task, dsq: Dsq::Own, slice, vtime: 0, preempt: true });
    }

    /// Carries out what `enqueue` wanted.
    pub(crate) fn settle(&mut self) {
        let Some(Insert { task, dsq, slice, vtime, preempt }) = self.pending.take() else { return };
        let t = self.task_mut(task);
        if t.place != Place::Between {
            return;
        }
        t.slice = slice;
        let dsq = if dsq == Dsq::Own { Dsq::Local(t.cpu) } else { dsq };
        match dsq {
            Dsq::Local(cpu) => {
                self.insert_local(task, cpu, preempt);
                if preempt {
                    self.kick(cpu, KICK_PREEMPT);
                }
            }
            _ => {
                t.vtime = vtime;
                self.insert_now(task, dsq);
            }
        }
    }
}

/// From anywhere.
impl Linux {
    /// How many tasks are in a queue (`scx_bpf_dsq_nr_queued`).
    pub fn nr_queued(&self, dsq: Dsq) -> usize {
        match dsq {
            Dsq::Local(cpu) => self.cpus[cpu.0 as usize].local.len(),
            _ => self.queues.get(dsq).len(),
        }
    }

    /// Begins a walk, from the front or from the back.
    pub fn iter(&self, dsq: Dsq, reverse: bool) -> Iter {
        Iter { dsq, made: self.next_seq, reverse, at: None }
    }

    /// The next task of a walk.
    pub fn next(&self, iter: &mut Iter) -> Option<Thread> {
        use std::ops::Bound::{Excluded, Unbounded};
        let queue = self.queues.get(iter.dsq);
        let seen = |(_, task): &(&Key, &Thread)| self.task(**task).since < iter.made;
        let found = match (iter.reverse, iter.at) {
            (false, None) => queue.iter().find(seen),
            (false, Some(at)) => queue.range((Excluded(at), Unbounded)).find(seen),
            (true, None) => queue.iter().rev().find(seen),
            (true, Some(at)) => queue.range((Unbounded, Excluded(at))).rev().find(seen),
        };
        let (key, task) = found?;
        iter.at = Some(*key);
        Some(*task)
    }

    /// The first task of a queue.
    pub fn first(&self, dsq: Dsq) -> Option<Thread> {
        self.queues.get(dsq).values().next().copied()
    }

    /// Moves a task that a walk may have seen to the local queue of the CPU in dispatch or to a queue with a virtual
    /// time (`scx_bpf_dsq_move`, `scx_bpf_dsq_move_vtime`). `false`: it is not there, or came after the walk began.
    pub fn move_task(&mut self, iter: &Iter, task: Thread, to: Dsq, slice: u64, vtime: u64) -> bool {
        let t = self.task(task);
        if t.place != Place::Queue(iter.dsq) || t.since >= iter.made {
            return false;
        }
        if !self.doubles {
            self.remove(task);
        }
        self.task_mut(task).slice = slice;
        self.moved += 1;
        if let Dsq::Local(cpu) = to {
            self.insert_local(task, cpu, false);
        } else {
            self.task_mut(task).vtime = vtime;
            self.insert_now(task, to);
        }
        true
    }

    /// Moves the first task of a queue that may run on the CPU in dispatch to its local queue
    /// (`scx_bpf_dsq_move_to_local`).
    pub fn move_to_local(&mut self, dsq: Dsq) -> bool {
        let cpu = self.this_cpu;
        if !self.cpus[cpu.0 as usize].online {
            return false;
        }
        let fits = |task: &&Thread| self.task(**task).may_run(cpu);
        let Some(&task) = self.queues.get(dsq).values().find(fits) else { return false };
        self.remove(task);
        self.moved += 1;
        self.insert_local(task, cpu, false);
        true
    }

    /// Sets what is left of a task's slice (`scx_bpf_task_set_slice`).
    pub fn set_slice(&mut self, task: Thread, slice: u64) {
        self.task_mut(task).slice = slice;
    }

    /// Asks for a CPU to look for work (`scx_bpf_kick_cpu`).
    pub fn kick(&mut self, cpu: Cpu, flags: u64) {
        if cpu.0 >= self.nr_cpus() {
            return self.eject(format!("kick of CPU {cpu}, which does not exist"));
        }
        self.kicks.push((cpu, flags));
    }
}

/// The kernel's own.
impl Linux {
    fn insert_now(&mut self, task: Thread, dsq: Dsq) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let ordered = !matches!(dsq, Dsq::Agent | Dsq::Global | Dsq::Throttled(_));
        let t = self.task_mut(task);
        // The kernel compares the difference with zero (time_before64): what lies before zero comes before it.
        t.key = (if ordered { t.vtime.wrapping_add(1 << 63) } else { 0 }, seq);
        t.since = seq;
        t.place = Place::Queue(dsq);
        let key = t.key;
        self.queues.get_mut(dsq).insert(key, task);
        if dsq == Dsq::Global {
            self.woken.extend(self.idle.iter());
        }
    }

    pub(crate) fn insert_local(&mut self, task: Thread, cpu: Cpu, at_head: bool) {
        let t = self.task(task);
        if !t.may_run(cpu) {
            let words = format!("pid {} put on CPU {cpu}, which is not allowed", t.pid);
            return self.eject(words);
        }
        self.task_mut(task).place = Place::Queue(Dsq::Local(cpu));
        let rq = &mut self.cpus[cpu.0 as usize];
        if at_head {
            rq.local.push_front(task);
        } else {
            rq.local.push_back(task);
        }
        if rq.idle {
            self.woken.push(cpu);
        }
    }

    /// Takes a task out of the queue it is in.
    pub(crate) fn remove(&mut self, task: Thread) {
        let t = self.task(task);
        let key = t.key;
        match t.place {
            Place::Queue(Dsq::Local(cpu)) => {
                self.cpus[cpu.0 as usize].local.retain(|other| *other != task);
            }
            Place::Queue(dsq) => {
                self.queues.get_mut(dsq).remove(&key);
            }
            Place::Between | Place::Asleep | Place::Running(_) => {}
        }
    }

    /// All queues with what is in them: for checks.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (Dsq, Thread)> + '_ {
        let cpus = || (0..self.nr_cpus()).map(Cpu);
        let dsqs = [Dsq::Park, Dsq::Shared, Dsq::Core, Dsq::Agent, Dsq::Global];
        let throttled = (0..self.queues.throttled.len() as u32).map(Dsq::Throttled);
        let dsqs =
            dsqs.into_iter().chain(cpus().map(Dsq::Pinned)).chain(cpus().map(Dsq::Placed)).chain(throttled);
        let local = cpus()
            .flat_map(|cpu| self.cpus[cpu.0 as usize].local.iter().map(move |&task| (Dsq::Local(cpu), task)));
        dsqs.flat_map(|dsq| self.queues.get(dsq).values().map(move |&task| (dsq, task))).chain(local)
    }

    /// CPUs that found nothing to run.
    pub(crate) fn nr_idle(&self) -> u32 {
        self.idle.len()
    }
}
