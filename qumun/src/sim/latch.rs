//! Degraded mode: a latch, never a flicker. See `qumun-bpf/bpf/latch.h`.

use super::model::Model;
use super::values::{Latch, Mode, Reason, Sabotage};
use crate::{Epoch, Nanos};

/// How often the core's timer fires.
pub(super) const TICK: Nanos = Nanos::from_millis(10);
pub(super) const DWELL_MIN: Nanos = Nanos::from_millis(100);
pub(super) const DWELL_MAX: Nanos = Nanos::from_millis(2_000);
/// A takeover this soon after the last return doubles the dwell.
const RELAPSE: Nanos = Nanos::from_millis(1_000);

pub(super) fn at_start(now: Nanos) -> Latch {
    Latch {
        mode: Mode::Degraded,
        epoch: Epoch(1),
        reason: Reason::Start,
        since: now,
        dwell: DWELL_MIN,
        entered: 0,
        left: 0,
    }
}

impl Model {
    pub(super) fn is_normal(&self) -> bool {
        self.latch.mode == Mode::Normal
    }

    /// Checks the latch both ways.
    pub(super) fn latch_check(&mut self) {
        if !self.is_normal() {
            self.try_lift();
        } else if self.config.sabotage != Sabotage::NeverLate
            && self.oldest_undecided().is_some_and(|at| self.now - at > self.config.late)
        {
            self.fall(Reason::Late);
        }
    }

    /// A new agent introduces itself. What its forerunner held is void.
    pub(super) fn hello(&mut self) -> u64 {
        self.agents += 1;
        self.agent = Some(self.agents);
        self.ack = None;
        self.fall(Reason::Hello);
        self.agents
    }

    pub(super) fn agent_died(&mut self, agent: u64) {
        if self.agent == Some(agent) {
            self.agent = None;
            self.ack = None;
            self.fall(Reason::Exit);
        }
    }

    pub(super) fn acknowledge(&mut self, agent: u64, epoch: Epoch) {
        if self.agent == Some(agent) {
            self.ack = Some(epoch);
        }
    }

    pub(super) fn oldest_undecided(&self) -> Option<Nanos> {
        self.parked.values().filter_map(|pid| self.tasks.get(pid)).map(|t| t.enqueued_at).min()
    }

    fn fall(&mut self, reason: Reason) {
        if !self.is_normal() {
            return;
        }
        let latch = &mut self.latch;
        latch.mode = Mode::Degraded;
        latch.epoch.0 += 1;
        latch.dwell = if self.now - self.left_at > RELAPSE {
            DWELL_MIN
        } else {
            (latch.dwell + latch.dwell).min(DWELL_MAX)
        };
        latch.since = self.now;
        latch.reason = reason;
        latch.entered += 1;
    }

    fn try_lift(&mut self) {
        let answered = self.agent.is_some() && self.ack == Some(self.latch.epoch);
        if answered && self.now - self.latch.since >= self.latch.dwell && self.parked.is_empty() {
            self.latch.mode = Mode::Normal;
            self.latch.left += 1;
            self.left_at = self.now;
        }
    }
}
