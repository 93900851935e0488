//! Have all rules been kept?

use std::collections::BTreeMap;

use super::host::Host;
use super::linux::{Dsq, Place, Thread};
use super::machine::TIMER;
use super::reference::{DWELL_MAX, DWELL_MIN, Reference};
use super::values::Reason;
use crate::{Cpu, Nanos};

/// Fails with the words that follow unless the condition holds.
macro_rules! rule {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

impl Host<Reference> {
    pub(super) fn check(&self) -> Result<(), String> {
        // First: a task that was put where it may not be is nowhere.
        if let Some(why) = &self.linux.ejected {
            return Err(format!("the kernel has removed the scheduler: {why}"));
        }
        self.check_places()?;
        self.check_affinity()?;
        self.check_ledgers()?;
        self.core.check_latch(self.linux.now)
    }

    /// Every task that can run is in one place, and where it believes to be.
    fn check_places(&self) -> Result<(), String> {
        let linux = &self.linux;
        let mut found: BTreeMap<Thread, Vec<Place>> = BTreeMap::new();
        for (dsq, task) in linux.contents() {
            found.entry(task).or_default().push(Place::Queue(dsq));
        }
        for (cpu, i) in linux.cpus.iter().zip(0..) {
            rule!(!cpu.idle || cpu.online && cpu.running.is_none(), "CPU {i} is not idle");
            if let Some(task) = cpu.running {
                found.entry(task).or_default().push(Place::Running(Cpu(i)));
            }
        }
        for (task, t) in linux.threads() {
            let places = found.remove(&task).unwrap_or_default();
            rule!(t.runnable != places.is_empty(), "pid {} runnable {}, found {places:?}", t.pid, t.runnable);
            let right = if t.place == Place::Asleep { vec![] } else { vec![t.place] };
            rule!(places == right, "pid {} should be at {right:?} and is at {places:?}", t.pid);
        }
        rule!(found.is_empty(), "queued, though gone: {found:?}");
        Ok(())
    }

    fn check_affinity(&self) -> Result<(), String> {
        for (_, t) in self.linux.threads() {
            let pid = t.pid;
            let online = |cpu: Cpu| self.linux.online.contains(cpu);
            match t.place {
                Place::Running(cpu) => {
                    rule!(t.may_run(cpu), "pid {pid} runs on CPU {cpu}, which is not allowed");
                    rule!(online(cpu), "pid {pid} runs on CPU {cpu}, which is offline");
                }
                Place::Queue(Dsq::Placed(cpu)) => {
                    rule!(t.may_run(cpu), "pid {pid} waits for CPU {cpu}, which is not allowed");
                    rule!(online(cpu), "pid {pid} waits for CPU {cpu}, which is offline");
                }
                Place::Queue(Dsq::Pinned(cpu)) => {
                    rule!(t.nr_allowed() == 1 && t.may_run(cpu), "pid {pid} is not pinned to CPU {cpu}");
                }
                Place::Queue(Dsq::Park) => {
                    let one = t.nr_allowed() == 1 && self.linux.nr_cpus() > 1;
                    rule!(!one, "pid {pid} has one CPU only and is parked");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_ledgers(&self) -> Result<(), String> {
        let (c, linux) = (&self.core.counters, &self.linux);
        let open = self.core.outstanding();
        let ended = c.ev_dispatched + c.ev_bounced + c.ev_cancelled + c.ev_dead + c.ev_taken_over;
        rule!(c.ev_sent == ended + open, "{} events sent, {ended} ended, {open} open", c.ev_sent);
        let settled = c.dec_applied + c.dec_bounced + c.dec_stale + c.dec_refused + self.core.kept();
        rule!(c.dec_drained == settled, "{} decisions drained, {settled} settled", c.dec_drained);
        rule!(c.ev_dispatched == c.dec_applied, "events dispatched and decisions applied differ");
        rule!(c.ev_bounced == c.dec_bounced, "events and decisions bounced differ");
        rule!(linux.events.len() <= linux.event_room, "the event ring overflowed");
        rule!(linux.decisions.len() <= linux.decision_room, "the decision ring overflowed");
        let repeated = self.core.repeated;
        rule!(repeated == 0, "{repeated} events with a generation that was used before");
        Ok(())
    }
}

impl Reference {
    fn check_latch(&self, now: Nanos) -> Result<(), String> {
        let sent = self.sent_degraded;
        rule!(sent == 0, "{sent} events sent while the core schedules");
        let dwell = self.view.dwell;
        let back = self.view.reason == Reason::Mode as usize && dwell == 0;
        rule!(back || (DWELL_MIN..=DWELL_MAX).contains(&dwell), "the dwell is {}", Nanos(dwell));
        if let Some(at) = self.oldest_undecided().filter(|_| self.view.normal) {
            let age = now - at;
            // Ages are looked at in buckets of 4.2 ms, of which the youngest and the oldest may be cut.
            let limit = Nanos(self.settings.late) + TIMER + Nanos::from_millis(9);
            rule!(age <= limit, "an event is undecided for {age}, and the core has not taken over");
        }
        Ok(())
    }
}
