//! What is told about strategies: status, metrics, and how long it took.

use gthulhu_model::Generation;
use serde_json::{Value, json};

/// Buckets by powers of two of microseconds: the last one is 17 minutes and more.
const BUCKETS: usize = 31;

/// Each power is counted in so many parts, for quantiles that mean something beside a limit.
const PARTS: usize = 8;

/// How long something took, by parts of powers of two of microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    counts: [[u64; PARTS]; BUCKETS],
    sum_us: u64,
    max_us: u64,
}

impl Times {
    pub(crate) fn count(&mut self, ns: u64) {
        let us = ns / 1_000;
        let bucket = ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1);
        // The bucket is of 2^(bucket - 1) to 2^bucket.
        let from = (1u64 << bucket) / 2;
        let part = (us - from.min(us)) * PARTS as u64 / from.max(1);
        self.counts[bucket][(part as usize).min(PARTS - 1)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    fn all(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// An upper bound of the time below which this part was; never above the longest.
    fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.all() as f64 * part).ceil() as u64;
        let mut so_far = 0;
        for (bucket, parts) in self.counts.iter().enumerate() {
            let from = (1u64 << bucket) / 2;
            for (part, count) in (1..).zip(parts) {
                so_far += count;
                if so_far >= wanted {
                    return (from + (from * part).div_ceil(PARTS as u64)).min(self.max_us);
                }
            }
        }
        self.max_us
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "count": self.all(),
            "p50_us": self.quantile(0.5),
            "p99_us": self.quantile(0.99),
            "max_us": self.max_us,
            "sum_us": self.sum_us,
            // How many took less than 2^i us and no less than the one before.
            "log2_us": self.counts.iter().map(|parts| parts.iter().sum()).collect::<Vec<u64>>(),
        })
    }
}

/// What the supervisor knows: what is in the tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// As the strategies' thread tells it.
    pub(crate) told: Value,
    /// The table that is in force in the core.
    pub(crate) core: Option<Generation>,
    /// The table that the agent has said to have.
    pub(crate) agent: Option<Generation>,
    /// Receipt to the core's table, and to the agent's.
    pub(crate) to_core: Times,
    pub(crate) to_agent: Times,
    /// Why the core does not have it.
    pub(crate) error: Option<String>,
}

impl Facts {
    pub(crate) fn json(&self) -> Value {
        let mut object = match &self.told {
            Value::Object(told) => Value::Object(told.clone()),
            _ => json!({}),
        };
        object["generation_in_core"] = json!(self.core.map(|generation| generation.0));
        object["generation_in_agent"] = json!(self.agent.map(|generation| generation.0));
        object["receipt_to_core"] = self.to_core.json();
        object["receipt_to_agent"] = self.to_agent.json();
        object["error"] = json!(self.error);
        object
    }
}

/// A line for people; none while nobody wants anything.
pub(crate) fn line(o: &Value) -> Option<String> {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let sources = o["sources"].as_object()?;
    let wanted: u64 = sources.values().map(|source| number(&source["targets"])).sum();
    let silent: Vec<String> = sources
        .iter()
        .filter_map(|(name, source)| Some(format!("; {name}: {}", source["error"].as_str()?)))
        .collect();
    if wanted == 0 && silent.is_empty() && number(&o["faded"]) == 0 {
        return None;
    }
    let more = [("left_out", "no room for"), ("refused", "refused"), ("gone", "for nobody who is there")];
    let more: String = more
        .iter()
        .filter(|(name, _)| number(&o[*name]) > 0)
        .map(|(name, what)| format!("; {what} {}", o[*name]))
        .collect();
    let error = o["error"].as_str().map(|e| format!("; NOT IN THE CORE: {e}")).unwrap_or_default();
    Some(format!(
        "strategies for {wanted} targets (generation {}); from receipt to the core p50 <= {} us, p99 <= {} us ({} times); \
         faded {}{more}{error}{}",
        number(&o["generation"]),
        number(&o["receipt_to_core"]["p50_us"]),
        number(&o["receipt_to_core"]["p99_us"]),
        number(&o["receipt_to_core"]["count"]),
        number(&o["faded"]),
        silent.concat()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_where_they_belong() {
        let mut times = Times::default();
        assert_eq!((times.quantile(0.99), times.all()), (0, 0));
        for us in 1..=100 {
            times.count(us * 1_000);
        }
        times.count(u64::MAX);
        let told = times.json();
        assert_eq!((&told["count"], &told["p50_us"]), (&json!(101), &json!(52)));
        let log2 = |i: usize| told["log2_us"][i].as_u64().expect("a count");
        assert_eq!([0, 1, 2, 3].map(log2), [0, 1, 2, 4], "below 1, 2, 4, 8 us");
        assert_eq!((log2(BUCKETS - 1), &told["p99_us"]), (1, &json!(104)));
    }

    #[test]
    fn nothing_is_said_while_nobody_wants_anything() {
        assert_eq!(line(&json!({})), None);
        let source = |targets: u64, error: Value| json!({ "sources": { "decision-maker": { "targets": targets, "error": error } } });
        assert_eq!(line(&source(0, Value::Null)), None);
        assert!(line(&source(2, Value::Null)).is_some_and(|line| line.contains("for 2 targets")));
        assert!(
            line(&source(0, json!("silent"))).is_some_and(|line| line.ends_with("; decision-maker: silent"))
        );
    }
}
