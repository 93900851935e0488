//! The arithmetic of a budget.

use crate::Budget;

/// A token bucket: one token is a nanosecond of boosted run time.
///
/// It fills at the budget's share and holds no more than its burst. Run time is known only when it is over,
/// so more can be spent than there is; the rest is *debt*. New tokens pay it off first, and until then there
/// are none.
///
/// A boost moves time and gives none: a policy charges what was boosted by the clock, as all run time, so that
/// who ran ahead stays behind until it is even. Debt comes on top, as virtual time by which its owner is
/// queued further back.
///
/// Over any interval, what is spent less the debt that is left is never more than
/// `share * interval + burst`. Whoever asks for [`tokens`](Self::tokens) first and runs for no longer has no
/// debt.
///
/// Times are nanoseconds of one clock (`CLOCK_MONOTONIC` in qumun). A time before one that was seen
/// already changes nothing: events of several CPUs come out of order, and what was filled for an interval
/// must not be filled for it again.
///
/// ```
/// use gthulhu_model::{Budget, TokenBucket};
///
/// const MS: u64 = 1_000_000;
/// let mut bucket = TokenBucket::full(Budget::DEFAULT, 0); // 20 ms in 100 ms
/// let slice = bucket.tokens().min(5 * MS);
/// assert_eq!(bucket.spend(slice), 0);
/// assert_eq!(bucket.spend(18 * MS), 3 * MS, "there were 15 ms left");
///
/// bucket.refill(10 * MS);
/// assert_eq!((bucket.tokens(), bucket.debt()), (0, MS), "10 ms earn 2 ms, which pay debt");
/// bucket.refill(100 * MS);
/// assert_eq!((bucket.tokens(), bucket.debt()), (17 * MS, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    /// Thousandths of a CPU.
    rate: u32,
    /// Thousandths of a token: without them a bucket that is looked at each 4 ns would never fill.
    fraction: u16,
    burst: u64,
    // Not both: a token that there is pays debt.
    tokens: u64,
    debt: u64,
    /// The latest time that was seen.
    filled_at: u64,
}

impl TokenBucket {
    /// Of this budget, with the whole burst in it.
    pub const fn full(budget: Budget, now_ns: u64) -> Self {
        Self::with_rate(budget.share() as u32, budget.burst_ns(), now_ns)
    }

    /// Of this budget, with nothing in it yet: for what a boosted task has forked. With a full one, each fork
    /// would be worth a burst.
    pub const fn empty(budget: Budget, now_ns: u64) -> Self {
        Self { tokens: 0, ..Self::full(budget, now_ns) }
    }

    /// Of any rate, in thousandths of a CPU, and any burst; full. For a machine, see
    /// [`Floor::bucket`](crate::Floor::bucket).
    pub const fn with_rate(millicpu: u32, burst_ns: u64, now_ns: u64) -> Self {
        Self { rate: millicpu, fraction: 0, burst: burst_ns, tokens: burst_ns, debt: 0, filled_at: now_ns }
    }

    /// Adds what has been earned since the last time. Debt is paid first.
    pub const fn refill(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.saturating_add(passed);
        // Below 2^96 + 2^16: nothing can overflow.
        let earned = passed as u128 * self.rate as u128 + self.fraction as u128;
        self.fraction = (earned % 1_000) as u16;
        let earned = earned / 1_000;

        if earned < self.debt as u128 {
            self.debt -= earned as u64;
            return;
        }
        let earned = earned - self.debt as u128;
        self.debt = 0;
        let room = self.burst - self.tokens;
        if earned >= room as u128 {
            self.tokens = self.burst;
            self.fraction = 0;
        } else {
            self.tokens += earned as u64;
        }
    }

    /// Takes what was run; says how much of it was more than there was, which is debt now.
    pub const fn spend(&mut self, ran_ns: u64) -> u64 {
        let over = ran_ns.saturating_sub(self.tokens);
        self.tokens = self.tokens.saturating_sub(ran_ns);
        self.debt = self.debt.saturating_add(over);
        over
    }

    /// From here on by another budget. Tokens beyond the new burst are lost, and none are given.
    pub const fn set_budget(&mut self, budget: Budget) {
        self.rate = budget.share() as u32;
        self.burst = budget.burst_ns();
        if self.tokens >= self.burst {
            self.tokens = self.burst;
            self.fraction = 0;
        }
    }

    /// For how long its owner may run ahead of others, in nanoseconds, as of the last
    /// [`refill`](Self::refill).
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How much more was spent than there was, and is not paid off yet, in nanoseconds.
    pub const fn debt(&self) -> u64 {
        self.debt
    }

    /// How fast it fills, in thousandths of a CPU.
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// How much it holds, in nanoseconds.
    pub const fn burst(&self) -> u64 {
        self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn small_steps_fill_as_much_as_large_ones() {
        let budget = Budget::millicpu(333).unwrap();
        let [mut steps, mut leap] = [TokenBucket::empty(budget, 0); 2];
        (0..=3_000_001).for_each(|now| steps.refill(now));
        leap.refill(3_000_001);
        assert_eq!(steps, leap);
        assert_eq!((leap.tokens(), leap.fraction), (999_000, 333));
    }

    #[test]
    fn a_full_bucket_keeps_no_fraction_for_later() {
        let mut bucket = TokenBucket::full(Budget::millicpu(500).unwrap(), 0);
        bucket.refill(1);
        bucket.spend(1_000);
        let tokens = bucket.tokens();
        bucket.refill(2);
        assert_eq!(bucket.tokens(), tokens);
        bucket.refill(3);
        assert_eq!(bucket.tokens(), tokens + 1);
    }

    #[test]
    fn a_bucket_of_nothing_gives_nothing() {
        let mut bucket = TokenBucket::default();
        bucket.refill(u64::MAX);
        assert_eq!((bucket.tokens(), bucket.spend(7), bucket.debt()), (0, 7, 7));
    }

    #[test]
    fn nothing_overflows() {
        let mut bucket = TokenBucket::with_rate(u32::MAX, u64::MAX, 0);
        assert_eq!(bucket.spend(u64::MAX), 0);
        assert_eq!(bucket.spend(u64::MAX), u64::MAX);
        assert_eq!(bucket.spend(u64::MAX), u64::MAX);
        assert_eq!(bucket.debt(), u64::MAX, "saturated");
        bucket.refill(u64::MAX);
        assert_eq!((bucket.tokens(), bucket.debt()), (u64::MAX, 0));
        bucket.refill(0);
        bucket.refill(u64::MAX);
        assert_eq!(bucket.tokens(), u64::MAX);
    }

    #[test]
    fn time_that_goes_backwards_gives_and_takes_nothing() {
        let mut bucket = TokenBucket::empty(Budget::DEFAULT, S);
        bucket.refill(S + 1_000);
        let before = bucket;
        for now in [0, S, S + 999, S + 1_000] {
            bucket.refill(now);
            assert_eq!(bucket, before);
        }
        bucket.refill(S + 2_000);
        assert_eq!(bucket.tokens(), 400, "the 1000 ns that were repeated count once");
    }

    #[test]
    fn another_budget_is_no_gift() {
        let small = Budget::millicpu(100).unwrap().with_burst_ms(1).unwrap();
        let mut bucket = TokenBucket::full(Budget::DEFAULT, 0);
        bucket.set_budget(small);
        assert_eq!(bucket.tokens(), 1_000_000);
        bucket.set_budget(Budget::DEFAULT);
        assert_eq!(bucket.tokens(), 1_000_000);
        bucket.spend(3_000_000);
        bucket.set_budget(small);
        assert_eq!(bucket.debt(), 2_000_000, "debt stays");
    }

    /// A step of a life: some time (or a leap back), then a run of this length; greedy ones run for
    /// all that there is.
    fn steps() -> impl Strategy<Value = Vec<(i64, u64, bool)>> {
        let time = prop_oneof![
            8 => 0..50_000_000i64,
            1 => -1_000_000_000..0i64,
            1 => 0..20_000_000_000i64,
        ];
        prop::collection::vec((time, 0..30_000_000u64, any::<bool>()), 1..60)
    }

    proptest! {
        /// The bound over *every* interval, with overdraft: what was spent in it less the debt left at its end.
        #[test]
        fn no_interval_gets_more_than_its_share_and_a_burst(
            (millicpu, burst_ms) in (1..=4_000u16, 1..=100u16), steps in steps(), overdraw in any::<bool>(),
        ) {
            let budget = Budget::millicpu(millicpu).unwrap().with_burst_ms(burst_ms).unwrap();
            let mut bucket = TokenBucket::full(budget, 5 * S);
            let (mut now, mut latest) = (5 * S, 5 * S);
            // After each step: the time, all that was spent so far, and the debt.
            let mut history = vec![(latest, 0u128, 0u64)];
            for (time, run, greedy) in steps {
                now = now.saturating_add_signed(time);
                latest = latest.max(now);
                bucket.refill(now);
                let run = if greedy { bucket.tokens() } else { run };
                let run = if overdraw { run } else { run.min(bucket.tokens()) };
                let over = bucket.spend(run);
                prop_assert!(over == 0 || overdraw);
                prop_assert!(bucket.tokens() == 0 || bucket.debt() == 0);
                prop_assert!(bucket.tokens() <= bucket.burst());
                let spent = history[history.len() - 1].1 + u128::from(run);
                history.push((latest, spent, bucket.debt()));
            }
            for (i, from) in history.iter().enumerate() {
                for to in &history[i..] {
                    let granted = 1_000 * (to.1 - from.1).saturating_sub(u128::from(to.2));
                    let bound = u128::from(to.0 - from.0) * u128::from(millicpu)
                        + 1_000 * u128::from(budget.burst_ns());
                    prop_assert!(granted <= bound, "{granted} > {bound} from {from:?} to {to:?}");
                }
            }
        }

        /// A bucket that gave nothing would hold the bound, too: who always asks gets all of its share.
        #[test]
        fn who_always_asks_gets_its_whole_share(millicpu in 1..=4_000u16, gaps in prop::collection::vec(1..5_000u64, 1..300)) {
            let budget = Budget::millicpu(millicpu).unwrap();
            let mut bucket = TokenBucket::full(budget, 0);
            let (mut now, mut got) = (0, 0u128);
            for gap in gaps {
                now += gap;
                got += u128::from(bucket.tokens());
                bucket.spend(bucket.tokens());
                bucket.refill(now);
            }
            got += u128::from(bucket.tokens());
            let due = u128::from(budget.burst_ns()) + u128::from(now) * u128::from(millicpu) / 1_000;
            prop_assert_eq!(got, due);
        }

        #[test]
        fn anything_may_come(rate: u32, burst: u64, steps in prop::collection::vec((any::<u64>(), any::<u64>()), 0..50)) {
            let mut bucket = TokenBucket::with_rate(rate, burst, 0);
            for (now, run) in steps {
                bucket.refill(now);
                let (tokens, debt) = (bucket.tokens(), bucket.debt());
                prop_assert!(tokens <= burst);
                let over = bucket.spend(run);
                prop_assert_eq!(bucket.tokens(), tokens.saturating_sub(run));
                prop_assert_eq!(bucket.debt(), debt.saturating_add(over));
            }
        }
    }
}
