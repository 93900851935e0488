//! Very many threads that mostly sleep.

use super::spin;
use crate::stats::Random;
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Enough for a sleep and a loop; the kernel's own stack for each thread is as large.
const STACK: usize = 16 << 10;
/// Of all threads together, so that a crowd of any size is the same work.
const WAKEUPS_PER_SECOND: u64 = 1_000;

/// `sleepers` threads with random wakeups and `runners` that compute, for `time` after the last of them was made, and
/// until the last sleeper has woken up.
///
/// # Errors
/// When a thread cannot be made.
pub fn crowd(sleepers: usize, runners: usize, time: Duration) -> Result<Value> {
    let (stop, wakeups, worst) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mean_ns = 1_000_000_000 * (sleepers.max(1) as u64) / WAKEUPS_PER_SECOND;
    let start = sys::now_ns();
    let mut made = 0;
    let result = thread::scope(|scope| {
        let (stop, wakeups, worst) = (&stop, &wakeups, &worst);
        let make = || -> Result<u64> {
            for seed in 0..sleepers as u64 {
                let sleeper = move || sleep_and_wake(mean_ns, seed, stop, wakeups, worst);
                let builder = thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, sleeper).cannot(format_args!("make thread {seed}"))?;
            }
            for seed in 0..runners as u64 {
                scope.spawn(move || {
                    let mut state = seed + 1;
                    while !stop.load(Ordering::Relaxed) {
                        state = spin(state);
                    }
                });
            }
            Ok(sys::now_ns() - start)
        };
        let result = make();
        if let Ok(took) = result {
            made = took;
            println!("{}", json!({"ready": sleepers + runners}));
            sys::sleep(time);
        }
        stop.store(true, Ordering::Relaxed);
        result
    });
    result?;
    Ok(json!({
        "threads": sleepers + runners,
        "made_in_ms": made / 1_000_000,
        "wakeups": wakeups.load(Ordering::Relaxed),
        "latest_ms": worst.load(Ordering::Relaxed) / 1_000_000,
    }))
}

fn sleep_and_wake(mean_ns: u64, seed: u64, stop: &AtomicBool, wakeups: &AtomicU64, worst: &AtomicU64) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let mark = sys::now_ns() + random.below(2 * mean_ns);
        sys::sleep_until(mark);
        worst.fetch_max(sys::now_ns() - mark, Ordering::Relaxed);
        wakeups.fetch_add(1, Ordering::Relaxed);
    }
}
