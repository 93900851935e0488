//! Counters summed over CPUs, the two ledgers, and the legs of a wakeup.

use crate::wire::{AgentPage, Counters, LEG_BUCKETS, LEGS, Legs, View};

/// Does everything that was sent or drained have exactly one end?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledgers {
    /// Events sent and not ended. After detach this must be 0.
    pub events_outstanding: i64,
    /// Decisions drained and not ended. Always 0, but for the moment in which one is being applied.
    pub decisions_open: i64,
}

/// The sum over CPUs (the maximum, for the one that is a maximum).
pub fn sum(per_cpu: &[Counters]) -> Counters {
    macro_rules! add {
        ($total:ident, $each:ident; $($field:ident)*) => { $( $total.$field = $total.$field.wrapping_add($each.$field); )* };
    }
    let mut total = Counters::default();
    for each in per_cpu {
        add!(total, each; ev_sent ev_dispatched ev_bounced ev_cancelled ev_dead ev_taken_over dec_drained
            dec_applied dec_bounced dec_stale dec_refused ring_errors congested kernel_direct core_enqueued
            exit_dropped kicks preempts activations runs kept retried reenqueued idle_bypass overruns
            notes_sent notes_dropped inherited running throttled throttled_ns limit_overruns permitted kernel_mode
            resumed ahead);
        total.max_parked_ns = total.max_parked_ns.max(each.max_parked_ns);
    }
    total
}

/// Name and value of each counter, in the order of the wire.
pub fn named(c: &Counters) -> [(&'static str, u64); 37] {
    macro_rules! list {
        ($($field:ident)*) => { [ $( (stringify!($field), c.$field) ),* ] };
    }
    list!(ev_sent ev_dispatched ev_bounced ev_cancelled ev_dead ev_taken_over dec_drained dec_applied
        dec_bounced dec_stale dec_refused ring_errors congested kernel_direct core_enqueued exit_dropped
        kicks preempts activations runs kept retried reenqueued max_parked_ns idle_bypass overruns
        notes_sent notes_dropped inherited running throttled throttled_ns limit_overruns permitted kernel_mode
        resumed ahead)
}

/// What is counted, under the names that users of the Go original know (its BSS variables), with what was
/// missing there. Each means what its name says; where that was not so, the comment tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// When the agent was put on a CPU last, in ns of `CLOCK_MONOTONIC`.
    pub usersched_last_run_at: u64,
    /// Tasks that wait for the agent to read their event, or for its decision.
    pub nr_queued: u64,
    /// Tasks that the policy has and keeps.
    pub nr_scheduled: u64,
    /// Tasks on a CPU, the agent included: never more than there are CPUs.
    pub nr_running: u64,
    /// CPUs that may be used.
    pub nr_online_cpus: u64,
    /// Decisions of the agent that were applied.
    pub nr_user_dispatches: u64,
    /// Enqueues that the core decided by itself, for whatever reason.
    pub nr_kernel_dispatches: u64,
    /// Events whose task was dequeued or changed before a decision came.
    pub nr_cancel_dispatches: u64,
    /// Decisions for a CPU that the task may not use; the core placed the task.
    pub nr_bounce_dispatches: u64,
    /// Decisions that were stale or made no sense.
    pub nr_failed_dispatches: u64,
    /// Enqueues that found the event ring full; the core placed the task.
    pub nr_sched_congested: u64,
    /// Events that ended because the core ran their task.
    pub taken_over: u64,
    /// Degraded periods begun.
    pub degraded: u64,
    /// Tasks served out of turn because they had waited too long.
    pub rescued: u64,
    /// Times a task was held back because its cgroup has used up its limit (`cpu.max`).
    pub throttled: u64,
    /// For how long, in ns.
    pub throttled_ns: u64,
    /// Tasks let out although the limit was used up, because they had waited for two seconds.
    pub limit_overruns: u64,
    /// Wakeups that a permit let in; not among `nr_user_dispatches`.
    pub permitted: u64,
    /// Both ledgers.
    pub ledgers: Ledgers,
    /// The agent's pool, in bytes.
    pub pool_size: u64,
    /// How much of it is in use.
    pub pool_used: u64,
    /// Allocations on the agent's thread since it began to schedule.
    pub allocations: u64,
    /// Its page faults.
    pub minor_faults: u64,
    /// Those that had to read a disk.
    pub major_faults: u64,
}

impl Statistics {
    /// From what the core and the agent show. What the agent says is bounded by what the core knows.
    pub fn new(c: &Counters, view: &View, page: &AgentPage) -> Self {
        let ledgers = ledgers(c);
        let outstanding = u64::try_from(ledgers.events_outstanding).unwrap_or(0);
        let held = page.held.min(outstanding);
        Self {
            usersched_last_run_at: view.agent_ran_at,
            nr_queued: outstanding - held,
            nr_scheduled: held,
            nr_running: c.running,
            nr_online_cpus: view.nr_online,
            nr_user_dispatches: c.dec_applied,
            nr_kernel_dispatches: c.kernel_direct + c.core_enqueued + c.congested + c.idle_bypass,
            nr_cancel_dispatches: c.ev_cancelled,
            nr_bounce_dispatches: c.dec_bounced,
            nr_failed_dispatches: c.dec_stale + c.dec_refused,
            nr_sched_congested: c.congested,
            taken_over: c.ev_taken_over,
            degraded: view.entered.iter().sum(),
            rescued: view.rescued,
            throttled: c.throttled,
            throttled_ns: c.throttled_ns,
            limit_overruns: c.limit_overruns,
            permitted: c.permitted,
            ledgers,
            pool_size: page.pool_size,
            pool_used: page.pool_used,
            allocations: page.allocations,
            minor_faults: page.minor_faults,
            major_faults: page.major_faults,
        }
    }

    /// The original's counters, by its names.
    pub fn original(&self) -> [(&'static str, u64); 11] {
        macro_rules! list {
            ($($field:ident)*) => { [ $( (stringify!($field), self.$field) ),* ] };
        }
        list!(usersched_last_run_at nr_queued nr_scheduled nr_running nr_online_cpus nr_user_dispatches
            nr_kernel_dispatches nr_cancel_dispatches nr_bounce_dispatches nr_failed_dispatches
            nr_sched_congested)
    }
}

/// Balances both ledgers.
pub fn ledgers(c: &Counters) -> Ledgers {
    let ended = c.ev_dispatched + c.ev_bounced + c.ev_cancelled + c.ev_dead + c.ev_taken_over;
    let settled = c.dec_applied + c.dec_bounced + c.dec_stale + c.dec_refused;
    Ledgers {
        events_outstanding: c.ev_sent.wrapping_sub(ended) as i64,
        decisions_open: c.dec_drained.wrapping_sub(settled) as i64,
    }
}

/// One leg's histogram, summed over CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Count by log2 of nanoseconds.
    pub buckets: [u64; LEG_BUCKETS],
}

impl Leg {
    /// Sums the legs of all CPUs.
    pub fn sum(per_cpu: &[Legs]) -> [Self; LEGS] {
        let mut legs = [Self { buckets: [0; LEG_BUCKETS] }; LEGS];
        for cpu in per_cpu {
            for (leg, hist) in legs.iter_mut().zip(&cpu.hist) {
                for (total, each) in leg.buckets.iter_mut().zip(hist) {
                    *total += each;
                }
            }
        }
        legs
    }

    /// How many wakeups were timed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper edge, in nanoseconds, of the bucket that holds the given quantile (0.0 to 1.0).
    /// Exact to a factor of two; 0 when nothing was timed.
    pub fn quantile(&self, q: f64) -> u64 {
        let count = self.count();
        let rank = ((count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= rank {
                return 2u64 << i;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_ends_twice_or_never_unbalances_the_ledger() {
        let mut c =
            Counters { ev_sent: 5, ev_dispatched: 3, ev_bounced: 1, ev_cancelled: 1, ..Counters::default() };
        assert_eq!(ledgers(&c).events_outstanding, 0);
        c.ev_taken_over = 1;
        assert_eq!(ledgers(&c).events_outstanding, -1);
        c.ev_dispatched = 1;
        assert_eq!(ledgers(&c).events_outstanding, 1);
    }

    #[test]
    fn sums_add_every_counter_but_the_maximum() {
        let mut one = Counters::default();
        // Every field is a u64, so a counter forgotten in `sum` shows as a zero here.
        let n = size_of::<Counters>() / 8;
        // SAFETY: Counters is repr(C) and consists of u64 only.
        let words = unsafe { std::slice::from_raw_parts_mut((&raw mut one).cast::<u64>(), n) };
        words.iter_mut().enumerate().for_each(|(i, w)| *w = i as u64 + 1);
        let total = sum(&[one, one]);
        for ((name, twice), (_, once)) in named(&total).into_iter().zip(named(&one)) {
            assert_eq!(twice, if name == "max_parked_ns" { once } else { 2 * once }, "{name}");
        }
        assert_eq!(named(&one).len(), n);
    }

    #[test]
    fn quantiles_are_upper_edges() {
        let mut leg = Leg { buckets: [0; LEG_BUCKETS] };
        assert_eq!(leg.quantile(0.5), 0);
        leg.buckets[10] = 99;
        leg.buckets[20] = 1;
        assert_eq!(leg.quantile(0.5), 2048);
        assert_eq!(leg.quantile(0.99), 2048);
        assert_eq!(leg.quantile(1.0), 2 << 20);
    }
}
