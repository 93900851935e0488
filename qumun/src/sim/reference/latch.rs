//! Degraded mode: a latch, never a flicker. See `latch.h`.

use super::state::{BUCKETS, MS, Reference};
use crate::sim::linux::{Dsq, Linux};
use crate::sim::values::{Reason, Sabotage};

pub(in crate::sim) const DWELL_MIN: u64 = 100 * MS;
pub(in crate::sim) const DWELL_MAX: u64 = 2_000 * MS;
/// A takeover this soon after the last return doubles the dwell.
const RELAPSE: u64 = 1_000 * MS;
/// A bucket of `undecided` is 2^22 ns wide.
pub(super) const BUCKET_SHIFT: u32 = 22;
/// The largest age, in buckets, that is looked at: 200 ms.
const OLDEST: u64 = 48;

impl Reference {
    pub(super) fn latch_fall(&mut self, now: u64, reason: Reason) -> bool {
        let view = &mut self.view;
        if !view.normal {
            return false;
        }
        view.normal = false;
        view.epoch += 1;
        self.shares_begin();
        let view = &mut self.view;
        (self.parked, self.parked_at) = (true, now);
        view.dwell = if view.dwell < DWELL_MIN || now.wrapping_sub(self.left_at) > RELAPSE {
            DWELL_MIN
        } else {
            (view.dwell * 2).min(DWELL_MAX)
        };
        view.degraded_since = now;
        view.reason = reason as usize;
        view.entered[reason as usize] += 1;
        true
    }

    fn latch_try_lift(&mut self, linux: &Linux, now: u64) {
        let view = &mut self.view;
        if view.kernel {
            return;
        }
        if view.agent_pid == 0 || self.ack != view.epoch || now.wrapping_sub(view.degraded_since) < view.dwell
        {
            return;
        }
        if linux.nr_queued(Dsq::Park) > 0 {
            return;
        }
        view.left += 1;
        view.degraded_ns += now.wrapping_sub(view.degraded_since);
        view.degraded_since = 0;
        self.left_at = now;
        view.normal = true;
    }

    /// Lets the core decide alone, or asks the agent again. Returns whether it did before.
    pub(super) fn kernel_mode(&mut self, now: u64, on: bool) -> bool {
        let view = &mut self.view;
        let was = view.kernel;
        if was == on {
            return was;
        }
        view.epoch += 1;
        let was_normal = view.normal;
        if on {
            if !view.normal {
                view.left += 1;
                view.degraded_ns += now.wrapping_sub(view.degraded_since);
            }
            (self.parked, self.parked_at) = (true, now);
        } else {
            view.dwell = 0;
            view.reason = Reason::Mode as usize;
            view.entered[Reason::Mode as usize] += 1;
        }
        (view.degraded_since, view.normal, view.kernel) = (now, false, on);
        if on && was_normal {
            self.shares_begin();
        }
        was
    }

    /// Is an event older than the limit still undecided? Looks once per bucket of time.
    fn oldest_late(&mut self, now: u64) -> u64 {
        let bucket = now >> BUCKET_SHIFT;
        let young = (self.settings.late >> BUCKET_SHIFT) as u32 as u64 + 1;
        if bucket.wrapping_sub(self.checked) as i64 <= 0 {
            return 0;
        }
        self.checked = bucket;
        let is_open = |age: &u64| self.undecided[(bucket.wrapping_sub(*age) as usize) & (BUCKETS - 1)] > 0;
        (young..=OLDEST).rev().find(is_open).map_or(0, |age| age << BUCKET_SHIFT)
    }

    /// Checks the latch both ways and says whether it is down.
    pub(super) fn latch_check(&mut self, linux: &Linux, now: u64) -> bool {
        if self.view.normal {
            let late = self.oldest_late(now);
            let blind = self.sabotage == Sabotage::NeverLate;
            if late > 0 && !blind && self.latch_fall(now, Reason::Late) && late > self.view.longest_late {
                self.view.longest_late = late;
            }
        } else {
            self.latch_try_lift(linux, now);
        }
        !self.view.normal
    }
}
