//! What the core tells the agent. See `events.h`.

use super::state::{AHEAD, Custody, LAG, Reference, before};
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::sim::values::Sabotage;
use crate::{Event, Events, Generation, Nanos, Note, Queued, TaskId};

impl Reference {
    /// Virtual time, within bounds around the clock.
    pub(super) fn settle_vtime(&mut self, task: Thread) -> u64 {
        let clock = self.vnow;
        let t = self.ctx_mut(task);
        if t.reclaim || before(t.vtime, clock.wrapping_sub(LAG)) {
            t.vtime = clock.wrapping_sub(LAG);
        } else if before(clock.wrapping_add(AHEAD), t.vtime) {
            t.vtime = clock.wrapping_add(AHEAD);
        }
        t.vtime
    }

    pub(super) fn id(&self, linux: &Linux, task: Thread) -> TaskId {
        TaskId { pid: linux.task(task).pid, generation: Generation(self.ctx(task).generation) }
    }

    /// Tells the agent something that needs no answer. Not while degraded.
    pub(super) fn note(&mut self, linux: &mut Linux, kind: Events, what: impl FnOnce(&Self, &Linux) -> Note) {
        if !self.events.contains(kind) || !self.may_note(linux, false) {
            return;
        }
        let note = what(self, linux);
        linux.push_event(Event::Note(note));
    }

    pub(super) fn note_exit(&mut self, linux: &mut Linux, task: Thread) {
        if self.may_note(linux, true) {
            let id = self.id(linux, task);
            linux.push_event(Event::Exit(id));
        }
    }

    fn may_note(&mut self, linux: &Linux, is_exit: bool) -> bool {
        if !self.view.normal || self.view.exited {
            return false;
        }
        let room = linux.has_event_room();
        match (room, is_exit) {
            (true, _) => self.counters.notes_sent += 1,
            (false, true) => self.counters.exit_dropped += 1,
            (false, false) => self.counters.notes_dropped += 1,
        }
        room
    }

    /// Parks the task and sends the event. Returns false when the ring is full.
    pub(super) fn offer(&mut self, linux: &mut Linux, task: Thread, flags: u64, now: u64) -> bool {
        if !linux.has_event_room() {
            return false;
        }
        self.settle_vtime(task);
        let here = self.cpu_mut(linux.this_cpu());
        let sampled = here.sample & 63 == 0;
        here.sample += 1;
        let bucket = self.bucket_open(now);
        let keep = self.sabotage == Sabotage::KeepGeneration;
        let t = self.ctx_mut(task);
        (t.enqueued_at, t.sampled, t.bucket) = (now, sampled, bucket);
        t.generation += u64::from(!keep);
        t.custody = Custody::Parked;
        self.repeated += u64::from(keep);
        self.sent_degraded += u64::from(!self.view.normal);
        let event = self.event(linux, task, flags);
        let t = self.ctx_mut(task);
        (t.ran, t.slept, t.permitted, t.permit.left) = (0, 0, 0, 0);
        linux.insert(task, Dsq::Park, self.settings.slice, event.vtime);
        self.counters.ev_sent += 1;
        linux.push_event(Event::Queued(event));
        true
    }

    fn event(&self, linux: &Linux, task: Thread, flags: u64) -> Queued {
        let (p, t) = (linux.task(task), self.ctx(task));
        let wakeup = flags & crate::sim::core::ENQ_WAKEUP != 0;
        let mut event = Queued::new(self.id(linux, task));
        event.tgid = p.tgid;
        event.cpu = p.cpu;
        event.waker = linux.current().filter(|_| wakeup).map(|waker| linux.task(waker).pid);
        event.cgroup_id = p.cgroup_id;
        if self.events.contains(Events::CGROUPS) {
            let cgroup = &self.shown[t.group as usize];
            (event.cpu_cgroup_id, event.cgroup_weight) = (cgroup.id, cgroup.weight);
        }
        event.label = t.label;
        (event.born, event.process_born) = (p.born, p.process_born);
        event.weight = p.weight;
        event.wakeup = wakeup;
        event.kthread = p.kthread;
        event.sampled = t.sampled;
        event.enqueued_at = Nanos(t.enqueued_at);
        event.started_at = Nanos(t.started_at);
        event.stopped_at = Nanos(t.stopped_at);
        event.exec_runtime = Nanos(t.exec_runtime);
        (event.ran, event.slept, event.permitted) = (Nanos(t.ran), Nanos(t.slept), t.permitted);
        event.vtime = t.vtime;
        event.allowed = linux.affinity(task);
        event.enq_flags = flags;
        event.comm_bytes = p.comm;
        event
    }
}
