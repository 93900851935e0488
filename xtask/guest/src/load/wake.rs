//! How long after its timer an ordinary task runs: cyclictest without its privileges.

use super::spin;
use crate::stats::Sorted;
use crate::{Result, sys};
use serde_json::{Value, json};
use std::time::Duration;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Wake {
    /// Time between two wakeups.
    pub period: Duration,
    /// Wakeups.
    pub count: u64,
    /// CPU time that each wakeup computes for.
    pub work: Duration,
    /// Stop after this even when wakeups are missing.
    pub limit: Option<Duration>,
}

/// Sleeps to absolute times and notes how much later it runs.
///
/// # Errors
/// Never; the other loads can fail.
pub fn wake(what: Wake) -> Result<Value> {
    sys::exact_timers();
    let period = what.period.as_nanos().max(1) as u64;
    let start = sys::now_ns();
    let end = what.limit.map_or(u64::MAX, |limit| start + limit.as_nanos() as u64);
    let mut late = Vec::with_capacity(what.count as usize);
    let mut missed = 0;
    let mut mark = start + period;
    while (late.len() as u64) < what.count && mark < end {
        sys::sleep_until(mark);
        late.push(sys::now_ns() - mark);
        work(what.work);
        // As cyclictest: marks that went by meanwhile are counted, not taken.
        let passed = sys::now_ns().saturating_sub(mark) / period;
        missed += passed;
        mark += (passed + 1) * period;
    }
    let count = late.len();
    let mut result = Sorted::new(late).json("us", 1e3);
    result.insert("count".into(), json!(count));
    result.insert("missed".into(), json!(missed));
    result.insert("period_us".into(), json!(what.period.as_micros() as u64));
    result.insert("work_us".into(), json!(what.work.as_micros() as u64));
    Ok(Value::Object(result))
}

/// Computes until this much CPU time of the thread is gone: the same work however often it is interrupted.
fn work(time: Duration) {
    let time = time.as_nanos() as u64;
    if time == 0 {
        return;
    }
    let start = sys::thread_cpu_ns();
    let mut state = start | 1;
    while sys::thread_cpu_ns() - start < time {
        state = spin(state);
    }
}
