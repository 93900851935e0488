//! Boosts and what they cost: the tokens of who is boosted, and the floor that all boosts leave to everything else.

use gthulhu_model::{Budget, Floor, StrategyId, TokenBucket};
use qumun::pool::Handle;
use qumun::{Affinity, Cpu, MAX_CPUS, Nanos};

use crate::cache::Cache;

/// Strategies whose tasks share tokens; with more than these, tasks have their own.
const STRATEGIES: usize = 256;
/// All boosts together may have a CPU for this long before others get their part.
const BURST: u64 = 8_000_000;
/// What others can be owed in virtual time, since nobody knows whether they are there.
const DEBT: u64 = 40_000_000;

/// Who pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Payer {
    /// Nobody is boosted.
    #[default]
    Nobody,
    /// The task.
    Task,
    /// All tasks of the strategy.
    Strategy(StrategyId),
}

/// Where the floor puts boosted work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Ahead,
    At(u64),
}

/// All token buckets but those of tasks.
#[derive(Debug)]
pub(crate) struct Boosts {
    floor: Floor,
    /// Where all boosted work stands among the others, if it had only what the floor leaves.
    tag: u64,
    /// Of each CPU: a task that may use some of them only must leave the floor there.
    cpus: Option<qumun::pool::Vec<TokenBucket>>,
    strategies: Cache<TokenBucket>,
}

impl Boosts {
    pub(crate) fn new(floor: Floor) -> Self {
        Self { floor, tag: 0, cpus: None, strategies: Cache::default() }
    }

    pub(crate) fn start(&mut self, pool: &Handle, nr_cpus: u32, now: Nanos) {
        let nr_cpus = nr_cpus.clamp(1, MAX_CPUS);
        self.cpus = pool.vec(nr_cpus as usize).ok().map(|mut cpus| {
            cpus.resize(nr_cpus as usize, self.floor.bucket(1, now.as_u64()));
            cpus
        });
        self.strategies = Cache::new(pool, STRATEGIES);
    }

    /// From now until who pays has tokens for so much run time, and, for one that may use some CPUs only, these CPUs;
    /// zero if they have.
    pub(crate) fn wait(
        &mut self,
        own: &mut TokenBucket,
        payer: (Payer, Budget),
        allowed: &Affinity,
        time: Nanos,
        now: Nanos,
    ) -> Nanos {
        let floor = if allowed.is_unrestricted() {
            Nanos::ZERO
        } else {
            let cpus = self.cpus.as_mut().into_iter().flat_map(|cpus| cpus.iter_mut().zip(0..));
            let waits = cpus.filter(|(_, cpu)| allowed.allows(Cpu(*cpu))).map(|(bucket, _)| {
                bucket.refill(now.as_u64());
                until(bucket, time)
            });
            waits.max().unwrap_or(Nanos::ZERO)
        };
        let bucket = self.bucket(own, payer, now);
        floor.max(until(bucket, time))
    }

    /// Where boosted work stands by the floor, on the axis where those of the others are at `others` who only compute: ahead
    /// of all if others have had their part and more, else at a place among them. `None`: there are no boosts.
    pub(crate) fn place(&mut self, others: u64, load: u64) -> Option<Place> {
        let part = self.part()?;
        let cpus = self.cpus.as_ref().map_or(1, |cpus| cpus.len() as u64);
        let burst = BURST.saturating_mul(cpus).saturating_mul(part) / 10 / load;
        self.tag = self.tag.clamp(others.saturating_sub(burst), others.saturating_add(DEBT));
        // Half of it: as long as boosted work wants more than there is, it stays among the others, where those who wait
        // for events are before it.
        Some(if self.tag <= others.saturating_sub(burst / 2) { Place::Ahead } else { Place::At(self.tag) })
    }

    /// Of what boosted work has run, how much others are to have for it; `None`: there are no boosts.
    fn part(&self) -> Option<u64> {
        let share = u64::from(self.floor.share());
        (share * 1_000).checked_div(1_000_u64.checked_sub(share)?)
    }

    /// What others are to have for so much boosted run time.
    pub(crate) fn others_part(&self, ran: u64) -> u64 {
        self.part().map_or(0, |part| ran.saturating_mul(part) / 1_000)
    }

    /// How much more was spent than there was.
    pub(crate) fn debt(&mut self, own: &mut TokenBucket, payer: (Payer, Budget), now: Nanos) -> u64 {
        self.bucket(own, payer, now).debt()
    }

    /// Who was boosted has run.
    pub(crate) fn spend(
        &mut self,
        own: &mut TokenBucket,
        payer: (Payer, Budget),
        cpu: Cpu,
        ran: u64,
        now: Nanos,
    ) {
        spend(self.bucket(own, payer, now), ran);
        if let Some(bucket) = self.cpus.as_mut().and_then(|cpus| cpus.get_mut(cpu.0 as usize)) {
            bucket.refill(now.as_u64());
            spend(bucket, ran);
        }
    }

    /// So much more is owed to the others, who have this weight.
    pub(crate) fn owe(&mut self, ran: u64, weight: u64) {
        self.tag = self.tag.saturating_add(self.others_part(ran).saturating_mul(100) / weight);
    }

    fn bucket<'a>(
        &'a mut self,
        own: &'a mut TokenBucket,
        (payer, budget): (Payer, Budget),
        now: Nanos,
    ) -> &'a mut TokenBucket {
        let shared = match payer {
            Payer::Strategy(id) => self.strategies.find_or_insert(id.number()).and_then(|(at, known)| {
                let bucket = self.strategies.get_mut(at)?;
                if !known {
                    *bucket = TokenBucket::full(budget, now.as_u64());
                }
                Some(bucket)
            }),
            Payer::Task | Payer::Nobody => None,
        };
        let bucket = shared.unwrap_or(own);
        if (bucket.rate(), bucket.burst()) != (u32::from(budget.share()), budget.burst_ns()) {
            bucket.set_budget(budget);
        }
        bucket.refill(now.as_u64());
        bucket
    }
}

/// Nobody owes more than a burst: what was run while nobody else wanted to harmed nobody.
fn spend(bucket: &mut TokenBucket, ran: u64) {
    let most = bucket.tokens().saturating_add(bucket.burst().saturating_sub(bucket.debt()));
    bucket.spend(ran.min(most));
}

/// How long a bucket takes to have this.
fn until(bucket: &TokenBucket, time: Nanos) -> Nanos {
    let wanted = time.as_u64().min(bucket.burst());
    let missing = wanted.saturating_add(bucket.debt()).saturating_sub(bucket.tokens());
    if missing == 0 {
        return Nanos::ZERO;
    }
    Nanos(missing.saturating_mul(1_000) / u64::from(bucket.rate()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qumun::pool::Arena;

    const MS: u64 = 1_000_000;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    fn boosts(nr_cpus: u32) -> Boosts {
        let arena = Arena::new(1 << 20).unwrap();
        let mut boosts = Boosts::new(Floor::DEFAULT);
        boosts.start(&arena.handle(), nr_cpus, Nanos(0));
        boosts
    }

    #[test]
    fn tasks_of_a_strategy_share_tokens_and_others_do_not() {
        let mut boosts = boosts(64);
        let budget = Budget::DEFAULT;
        let strategy = (Payer::Strategy(StrategyId::new(7).unwrap()), budget);
        let [mut one, mut two] = [TokenBucket::full(budget, 0); 2];
        boosts.spend(&mut one, strategy, Cpu(0), 20 * MS, ms(0));
        // 5 ms are a quarter of the burst; at a fifth of a CPU they take 25 ms.
        assert_eq!(boosts.wait(&mut two, strategy, &Affinity::ANY, ms(5), ms(0)), ms(25));
        assert_eq!(boosts.wait(&mut two, (Payer::Task, budget), &Affinity::ANY, ms(5), ms(0)), ms(0));
        assert_eq!((one.tokens(), two.tokens()), (20 * MS, 20 * MS));
        boosts.spend(&mut two, (Payer::Task, budget), Cpu(0), 24 * MS, ms(0));
        assert_eq!(boosts.debt(&mut two, (Payer::Task, budget), ms(0)), 4 * MS);
    }

    #[test]
    fn the_floor_holds_on_the_cpus_that_a_task_may_use() {
        let mut boosts = boosts(8);
        let payer = (Payer::Task, Budget::millicpu(8_000).unwrap());
        let here = Affinity::new(0b1, 1, 8);
        // 8 ms are all that one CPU may be boosted at once; the others are not touched.
        let mut bucket = TokenBucket::full(payer.1, 0);
        boosts.spend(&mut bucket, payer, Cpu(0), 10 * MS, ms(0));
        assert!(boosts.wait(&mut bucket, payer, &here, ms(4), ms(0)) > ms(5));
        assert_eq!(boosts.wait(&mut bucket, payer, &Affinity::new(0b10, 1, 8), ms(4), ms(0)), ms(0));
        assert_eq!(boosts.wait(&mut bucket, payer, &Affinity::ANY, ms(4), ms(0)), ms(0));
    }

    #[test]
    fn nobody_owes_more_than_a_burst() {
        let mut boosts = boosts(2);
        let payer = (Payer::Task, Budget::DEFAULT);
        let mut bucket = TokenBucket::full(payer.1, 0);
        for _ in 0..100 {
            boosts.spend(&mut bucket, payer, Cpu(0), 500 * MS, ms(0));
        }
        assert_eq!(bucket.debt(), 20 * MS);
    }
}
