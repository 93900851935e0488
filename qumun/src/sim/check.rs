//! Have all rules been kept?

use std::collections::BTreeMap;

use super::latch::{DWELL_MAX, DWELL_MIN, TICK};
use super::model::{Model, Place};
use crate::{Cpu, Pid};

/// Fails with the words that follow unless the condition holds.
macro_rules! rule {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

impl Model {
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_places()?;
        self.check_affinity()?;
        self.check_ledgers()?;
        self.check_latch()
    }

    /// Every task that can run is in one place, and where it believes to be.
    fn check_places(&self) -> Result<(), String> {
        let mut found: BTreeMap<Pid, Vec<Place>> = BTreeMap::new();
        let queues =
            [(Place::Parked, &self.parked), (Place::Shared, &self.shared), (Place::Core, &self.core)];
        let of_cpus = self
            .cpus
            .iter()
            .zip(0..)
            .flat_map(|(c, i)| [(Place::Placed(Cpu(i)), &c.placed), (Place::Pinned(Cpu(i)), &c.pinned)]);
        for (place, queue) in queues.into_iter().chain(of_cpus) {
            for pid in queue.values() {
                found.entry(*pid).or_default().push(place);
            }
        }
        for (cpu, i) in self.cpus.iter().zip(0..) {
            rule!(!cpu.idle || cpu.online && cpu.running.is_none(), "CPU {i} is not idle");
            if let Some(pid) = cpu.running {
                found.entry(pid).or_default().push(Place::Running(Cpu(i)));
            }
        }
        for (pid, task) in &self.tasks {
            let places = found.remove(pid).unwrap_or_default();
            let right = if task.place == Place::Asleep { vec![] } else { vec![task.place] };
            rule!(
                task.runnable != places.is_empty(),
                "pid {pid} runnable {}, found {places:?}",
                task.runnable
            );
            rule!(places == right, "pid {pid} should be at {right:?} and is at {places:?}");
        }
        rule!(found.is_empty(), "queued, though gone: {found:?}");
        Ok(())
    }

    fn check_affinity(&self) -> Result<(), String> {
        for (pid, task) in &self.tasks {
            let allowed = |cpu: Cpu| task.allowed >> cpu.0 & 1 == 1;
            match task.place {
                Place::Running(cpu) => {
                    rule!(allowed(cpu), "pid {pid} runs on CPU {cpu}, allowed are {:#b}", task.allowed);
                    rule!(self.cpus[cpu.0 as usize].online, "pid {pid} runs on CPU {cpu}, which is offline");
                }
                Place::Placed(cpu) => {
                    rule!(allowed(cpu), "pid {pid} waits for CPU {cpu}, allowed are {:#b}", task.allowed);
                    rule!(
                        self.cpus[cpu.0 as usize].online,
                        "pid {pid} waits for CPU {cpu}, which is offline"
                    );
                }
                Place::Pinned(cpu) => {
                    rule!(task.allowed == 1 << cpu.0, "pid {pid} is not pinned to CPU {cpu}")
                }
                Place::Parked => {
                    rule!(!task.allowed.is_power_of_two(), "pid {pid} has one CPU only and is parked");
                }
                Place::Asleep | Place::Shared | Place::Core => {}
            }
        }
        Ok(())
    }

    fn check_ledgers(&self) -> Result<(), String> {
        let c = &self.counters;
        let open = self.outstanding();
        let ended = c.ev_dispatched + c.ev_bounced + c.ev_cancelled + c.ev_dead + c.ev_taken_over;
        rule!(c.ev_sent == ended + open, "{} events sent, {ended} ended, {open} open", c.ev_sent);
        let settled = c.dec_applied + c.dec_bounced + c.dec_stale + c.dec_refused;
        rule!(c.dec_drained == settled, "{} decisions drained, {settled} settled", c.dec_drained);
        rule!(c.ev_dispatched == c.dec_applied, "events dispatched and decisions applied differ");
        rule!(c.ev_bounced == c.dec_bounced, "events and decisions bounced differ");
        rule!(self.events.len() <= self.config.event_ring, "the event ring overflowed");
        rule!(self.decisions.len() <= self.config.decision_ring, "the decision ring overflowed");
        rule!(self.repeated == 0, "{} events with a generation that was used before", self.repeated);
        Ok(())
    }

    fn check_latch(&self) -> Result<(), String> {
        rule!(self.sent_degraded == 0, "{} events sent while the core schedules", self.sent_degraded);
        let dwell = self.latch.dwell;
        rule!(dwell >= DWELL_MIN && dwell <= DWELL_MAX, "the dwell is {dwell}");
        if let Some(at) = self.oldest_undecided().filter(|_| self.is_normal()) {
            let age = self.now - at;
            let limit = self.config.late + TICK;
            rule!(age <= limit, "an event is undecided for {age}, and the core has not taken over");
        }
        Ok(())
    }
}
