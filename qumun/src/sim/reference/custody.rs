//! Custody: who may run a task now, and how an event ends. See `custody.h`.

use super::latch::BUCKET_SHIFT;
use super::permit::{CLOCK, CUTS};
use super::state::{BATCH, BUCKETS, Custody, Reference, SEEN_MAX};
use crate::Cpu;
use crate::Pid;
use crate::sim::linux::{Dsq, Iter, Linux, Thread};
use crate::sim::values::{RawDecision, Sabotage};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Settled,
    Early,
}

impl Reference {
    pub(super) fn bucket_open(&mut self, now: u64) -> usize {
        let bucket = (now >> BUCKET_SHIFT) as usize & (BUCKETS - 1);
        self.undecided[bucket] += 1;
        bucket
    }

    pub(super) fn bucket_close(&mut self, bucket: usize) {
        self.undecided[bucket] -= 1;
    }

    pub(super) fn parked_for(&mut self, from: u64, now: u64) {
        let wait = now.wrapping_sub(from);
        if wait as i64 > 0 && wait > self.counters.max_parked_ns {
            self.counters.max_parked_ns = wait;
        }
    }

    /// The task is in no queue of the agent's any more. Returns true if that ended an open event.
    pub(super) fn end_event(&mut self, task: Thread) -> bool {
        let t = self.ctx_mut(task);
        let was = std::mem::replace(&mut t.custody, Custody::None);
        let bucket = t.bucket;
        if was == Custody::Parked {
            self.bucket_close(bucket);
        }
        was == Custody::Parked
    }

    pub(super) fn cancel_event(&mut self, task: Thread) {
        if self.end_event(task) {
            self.counters.ev_cancelled += 1;
        }
    }

    /// Checks and applies one decision. `free`: the local queue is empty, and nothing else waits for this CPU.
    fn apply(
        &mut self,
        linux: &mut Linux,
        iter: &Iter,
        d: &RawDecision,
        turn: (Cpu, u64),
        free: &mut bool,
    ) -> Outcome {
        let (here, now) = turn;
        let named = u32::try_from(d.cpu).ok().filter(|&cpu| cpu < linux.nr_cpus()).map(Cpu);
        if d.flags & !(CLOCK | CUTS) != 0 || d.cpu != -1 && named.is_none() {
            self.counters.dec_refused += 1;
            return Outcome::Settled;
        }
        let open = |task: &Thread| {
            let t = self.ctx(*task);
            t.custody == Custody::Parked && t.generation == d.generation
        };
        let Some(task) = linux.find(Pid(d.pid)).filter(open) else {
            self.counters.dec_stale += 1;
            if self.sabotage == Sabotage::StaleEndsEvent {
                self.counters.ev_cancelled += 1;
            }
            return Outcome::Settled;
        };
        let slice = match if d.slice == 0 { self.ctx(task).slice } else { d.slice } {
            0 => self.settings.slice,
            asked => asked.clamp(self.settings.slice_min, self.settings.slice_max),
        };
        let ignore = self.sabotage == Sabotage::IgnoreAffinity;
        let t = self.ctx_mut(task);
        let (bucket, enqueued_at, vtime) = (t.bucket, t.enqueued_at, t.vtime);
        t.custody = Custody::Placed;
        t.placed_at = now;
        self.grant(linux, task, d, slice, now);
        let last = linux.task(task).cpu;
        let named = named.filter(|&cpu| !self.agent_owns(cpu));
        let fits = |cpu: Cpu| ignore || linux.task(task).may_run(cpu);
        let moved = match named {
            Some(cpu) if !self.cpu_usable(cpu) || !fits(cpu) => {
                let t = self.ctx_mut(task);
                (t.permit.left, t.order) = (0, 0);
                self.core_filled(now);
                if linux.move_task(iter, task, Dsq::Core, self.settings.slice, vtime) {
                    self.bucket_close(bucket);
                    self.parked_for(enqueued_at, now);
                    self.counters.ev_bounced += 1;
                    self.counters.dec_bounced += 1;
                    self.answered(linux, last);
                    self.kick_for(linux, task, last);
                    return Outcome::Settled;
                }
                false
            }
            _ if *free && (named == Some(here) || named.is_none() && linux.task(task).may_run(here)) => {
                let moved = linux.move_task(iter, task, Dsq::Local(here), slice, 0);
                *free &= !moved;
                moved
            }
            None => {
                let moved = linux.move_task(iter, task, Dsq::Shared, slice, d.vtime);
                if moved {
                    self.shared = true;
                    self.kick_for(linux, task, last);
                }
                moved
            }
            Some(cpu) => {
                let moved = linux.move_task(iter, task, Dsq::Placed(cpu), slice, d.vtime);
                if moved {
                    self.cpu_mut(cpu).placed = true;
                    if self.is_dedicated() {
                        self.waited_at = now;
                    }
                    self.kick_if_idle(linux, cpu);
                }
                moved
            }
        };
        if moved {
            self.answered(linux, last);
            self.bucket_close(bucket);
            self.parked_for(enqueued_at, now);
            self.counters.ev_dispatched += 1;
            self.counters.dec_applied += 1;
            return Outcome::Settled;
        }
        // It is not in the queue yet: the event is open again, and the decision waits.
        self.ctx_mut(task).custody = Custody::Parked;
        Outcome::Early
    }

    /// Takes what the agent has decided and moves the tasks. Returns whether the local queue is still empty.
    pub(super) fn take_decisions(
        &mut self,
        linux: &mut Linux,
        here: Cpu,
        now: u64,
        local_free: bool,
    ) -> bool {
        let mut free = local_free;
        let mut batch = std::mem::take(&mut self.cpu_mut(here).kept);
        let mut seen = 0;
        let is_there = !self.settings.shared || linux.published().len() > 0;
        let busy = linux.ring_busy && batch.len() < BATCH && is_there;
        if !busy {
            while batch.len() < BATCH && seen < SEEN_MAX {
                let Some(decision) = linux.next_decision() else { break };
                self.counters.dec_drained += 1;
                seen += 1;
                batch.push(decision);
            }
        }
        // Busy: whoever reads may have looked for the last time before what we came for was published.
        self.decisions_left = match (busy, batch.len() >= BATCH || seen >= SEEN_MAX) {
            (true, _) => self.decisions_left + 1,
            (false, true) => self.decisions_left.max(1),
            (false, false) => 0,
        };
        if batch.is_empty() {
            self.cpu_mut(here).kept = batch;
            return free;
        }
        for _ in 0..3 {
            let iter = linux.iter(Dsq::Park, false);
            batch.retain(|d| self.apply(linux, &iter, d, (here, now), &mut free) == Outcome::Early);
            if batch.is_empty() {
                break;
            }
            self.counters.retried += batch.len() as u64;
        }
        self.cpu_mut(here).kept = batch;
        free
    }
}
