//! Processes that only compute.

use crate::{Result, sys};
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Steps of one unit of work: a few microseconds, so that counting costs nothing.
const UNIT: u32 = 1000;

/// `count` spinning processes (not threads: each has its own memory and, with autogroups, its own weight) for
/// `time`; how many units of work each did, and what all did in a second.
///
/// # Errors
/// When a process cannot be made.
pub fn hogs(count: usize, time: Duration) -> Result<Value> {
    let done = sys::shared_slots(count)?;
    let start = sys::now_ns();
    let mut pids = Vec::with_capacity(count);
    for (seed, slot) in (1..).zip(done) {
        let work = || {
            let mut state = seed;
            loop {
                state = spin(state);
                slot.0.fetch_add(1, Ordering::Relaxed);
            }
        };
        match sys::fork(work) {
            Ok(pid) => pids.push(pid),
            Err(e) => {
                pids.into_iter().for_each(sys::reap);
                return Err(e);
            }
        }
    }
    sys::sleep_until(start + time.as_nanos() as u64);
    let read = || done.iter().map(|slot| slot.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // Taken together: under load this process may wake late, and the rate must not profit from that.
    let (per_hog, elapsed) = (read(), sys::now_ns() - start);
    pids.into_iter().for_each(sys::reap);
    let total: u64 = per_hog.iter().sum();
    Ok(json!({
        "hogs": count,
        "elapsed_ms": elapsed / 1_000_000,
        "unit": format!("{UNIT} xorshift steps"),
        "total": total,
        "per_hog": per_hog,
        "per_second": total as f64 / (elapsed as f64 / 1e9),
    }))
}

/// One unit of work: steps of which each needs the one before, kept from the optimiser.
pub fn spin(mut state: u64) -> u64 {
    for _ in 0..UNIT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state = black_box(state);
    }
    state
}
