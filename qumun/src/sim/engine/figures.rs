//! What a simulation shows.

use std::sync::Arc;

use crate::topology::Distance;
use crate::{Nanos, Pid};

/// Times, in buckets that are an eighth of their size wide: exact to 12.5 %.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u64,
    max: u64,
}

const SUB_BITS: u32 = 3;
const BUCKETS: usize = 64 << SUB_BITS;

impl Histogram {
    fn bucket(value: u64) -> usize {
        let log = 63 - (value | 1).leading_zeros();
        if log <= SUB_BITS {
            return value as usize;
        }
        let sub = (value >> (log - SUB_BITS)) & ((1 << SUB_BITS) - 1);
        ((log as usize) << SUB_BITS) + sub as usize
    }

    /// The smallest value of a bucket.
    fn low(bucket: usize) -> u64 {
        let log = (bucket >> SUB_BITS) as u32;
        if log <= SUB_BITS {
            return bucket as u64;
        }
        (1 << log) + (((bucket & ((1 << SUB_BITS) - 1)) as u64) << (log - SUB_BITS))
    }

    /// Counts a time.
    pub fn add(&mut self, time: Nanos) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[Self::bucket(time.0)] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(time.0);
        self.max = self.max.max(time.0);
    }

    /// Counts all of another one.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest.
    pub fn max(&self) -> Nanos {
        Nanos(self.max)
    }

    /// The mean; zero of nothing.
    pub fn mean(&self) -> Nanos {
        Nanos(self.sum / self.total.max(1))
    }

    /// The time that this part of them does not exceed, 0.0 to 1.0; zero of nothing.
    pub fn quantile(&self, part: f64) -> Nanos {
        let rank = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let high = if bucket + 1 < BUCKETS { Self::low(bucket + 1) - 1 } else { u64::MAX };
                return Nanos(high.min(self.max));
            }
        }
        Nanos::ZERO
    }

    /// Buckets that are not empty: the smallest time of each, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Nanos, u64)> + '_ {
        let all = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(bucket, &count)| (Nanos(Self::low(bucket)), count))
    }
}

/// What became of one task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskFigures {
    /// Its number.
    pub pid: Pid,
    /// The name of its group.
    pub name: Arc<str>,
    /// Its group, by its place in the workload.
    pub group: usize,
    /// Its weight at the end.
    pub weight: u32,
    /// For how long it was on CPUs.
    pub ran: Nanos,
    /// For how long it wanted to be on one, and was not.
    pub waited: Nanos,
    /// How often it was put on a CPU.
    pub runs: u64,
    /// How often it woke up.
    pub wakeups: u64,
    /// How often it went to another CPU, by how far (see [`Distance`]): the first is the same CPU.
    pub moves: [u64; 6],
    /// From each wakeup until it ran.
    pub wake_to_run: Histogram,
    /// The longest time that it wanted to run and did not.
    pub longest_wait: Nanos,
}

pub(crate) const DISTANCES: [Distance; 6] =
    [Distance::Same, Distance::Core, Distance::L2, Distance::L3, Distance::Node, Distance::Far];

/// Jain's index of fairness: 1 for equal shares, 1/n for one that gets all (Jain, Chiu, Hawe 1984).
pub fn jain(shares: impl IntoIterator<Item = f64>) -> f64 {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for share in shares {
        n += 1.0;
        sum += share;
        squares += share * share;
    }
    if squares == 0.0 { 1.0 } else { sum * sum / (n * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_quantiles_are_close() {
        let mut last = 0;
        for value in (0..200_000u64).chain((40..63).map(|bit| 1 << bit)).chain([u64::MAX]) {
            let bucket = Histogram::bucket(value);
            assert!(bucket >= last && Histogram::low(bucket) <= value, "{value}");
            last = bucket;
        }
        let mut times = Histogram::default();
        (1..=1_000u64).for_each(|n| times.add(Nanos(n * 1_000)));
        for (part, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let found = times.quantile(part).0 as f64;
            assert!((found / exact - 1.0).abs() <= 0.125, "{part}: {found}");
        }
        assert_eq!((times.count(), times.max()), (1_000, Nanos(1_000_000)));
    }

    #[test]
    fn jain_is_one_for_equals() {
        assert_eq!(jain([3.0; 7]), 1.0);
        assert!((jain([1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    }
}
