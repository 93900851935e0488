//! Memory taken until the kernel has to look for some, given back, and taken again.

use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CHUNK: usize = 1 << 20;
const HOLD: Duration = Duration::from_millis(50);

/// Two processes for `time`: one takes memory until little is free, holds it for a moment and gives half of it
/// back; one fills the cache of names, which the kernel can reclaim (a guest has neither disk nor swap, so its other
/// pages it cannot). If anybody must be killed for want of memory, it is these two.
///
/// # Errors
/// When a process cannot be made.
pub fn squeeze(time: Duration) -> Result<Value> {
    fs::write("/proc/self/oom_score_adj", "1000").cannot("offer this process to the OOM killer")?;
    let counts = sys::shared_slots(3)?;
    let [rounds, names, least] = [0, 1, 2].map(|i| &counts[i].0);
    least.store(u64::MAX, Ordering::Relaxed);
    let end = sys::now_ns() + time.as_nanos() as u64;
    let taker = sys::fork(|| take_and_give(rounds, least))?;
    let namer = sys::fork(|| name_what_is_not(names));
    if let Ok(namer) = &namer {
        sys::sleep_until(end);
        sys::reap(*namer);
    }
    sys::reap(taker);
    namer?;
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    Ok(json!({"rounds": read(rounds), "names": read(names), "least_free_kb": read(least)}))
}

fn take_and_give(rounds: &AtomicU64, least: &AtomicU64) {
    let mut taken = Vec::new();
    let floor_kb = watermark_kb();
    loop {
        let mut free_kb = sys::free_kb();
        while free_kb > floor_kb {
            let Some(chunk) = sys::Taken::new(CHUNK) else { break };
            taken.push(chunk);
            free_kb = sys::free_kb();
            least.fetch_min(free_kb, Ordering::Relaxed);
        }
        least.fetch_min(free_kb, Ordering::Relaxed);
        rounds.fetch_add(1, Ordering::Relaxed);
        sys::sleep(HOLD);
        taken.truncate(taken.len() / 2);
    }
}

/// Below this much free memory kswapd is at work: its low mark is 1.25 times the minimum for each zone.
fn watermark_kb() -> u64 {
    let min_kb = fs::read_to_string("/proc/sys/vm/min_free_kbytes").unwrap_or_default();
    min_kb.trim().parse().unwrap_or(4096) * 9 / 8
}

/// The kernel remembers in sysfs, unlike in a RAM disk, also which names do not exist.
fn name_what_is_not(names: &AtomicU64) {
    loop {
        let number = names.fetch_add(1, Ordering::Relaxed);
        let _ = fs::metadata(format!("/sys/kernel/nobody-{number}"));
    }
}
