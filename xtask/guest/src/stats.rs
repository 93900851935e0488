//! Order statistics and pseudo-random numbers.

use serde_json::{Map, Value, json};

/// Samples in order.
#[derive(Debug, Clone, Default)]
pub struct Sorted(Vec<u64>);

impl Sorted {
    /// Takes the samples in any order.
    pub fn new(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The sample below or at which this share of all lies (nearest rank); 0 when there is none.
    pub fn at(&self, share: f64) -> u64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(0)
    }

    /// The largest; 0 when there is none.
    pub fn max(&self) -> u64 {
        self.at(1.0)
    }

    /// How many samples there are below each power of two and not below its half; none that are empty.
    pub fn doubling(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = Vec::new();
        for sample in &self.0 {
            let below = (sample + 1).next_power_of_two();
            match all.last_mut() {
                Some((last, count)) if *last == below => *count += 1,
                _ => all.push((below, 1)),
            }
        }
        all
    }

    /// Keys `min_UNIT`, `p50_UNIT` … `max_UNIT`, the samples divided by `per`.
    pub fn json(&self, unit: &str, per: f64) -> Map<String, Value> {
        let shares =
            [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];
        let value = |share| json!((self.at(share) as f64 / per * 10.0).round() / 10.0);
        shares.into_iter().map(|(name, share)| (format!("{name}_{unit}"), value(share))).collect()
    }
}

/// xorshift64: the same numbers in every run, so that a failure can be seen again.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Different numbers for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let samples = Sorted::new((1..=1000).rev().collect());
        let ranks = [0.0, 0.5, 0.99, 0.999, 1.0].map(|share| samples.at(share));
        assert_eq!(ranks, [1, 500, 990, 999, 1000]);
        assert_eq!(Sorted::default().max(), 0);
        assert_eq!(
            Sorted::new(vec![0, 1, 2, 3, 4, 7, 8]).doubling(),
            [(1, 1), (2, 1), (4, 2), (8, 2), (16, 1)]
        );
        assert_eq!(samples.json("us", 10.0)["p50_us"], json!(50.0));
    }
}
