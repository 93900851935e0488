//! Where tasks run after each wakeup: does a task come back to the cache that it left?

use super::spin;
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A periodic task's work and sleep: a quarter of a CPU.
const WORK_NS: u64 = 1_000_000;
const SLEEP: Duration = Duration::from_millis(3);

/// Wakeups of one process: all, on the CPU of the last one, in its cache.
const SLOTS: usize = 3;

/// `periodic` processes with a timer and `pairs` of processes that wake each other, for `time`. Each notes after
/// each wakeup on which CPU it is. Shares in percent of all wakeups.
///
/// # Errors
/// When a process or a pipe cannot be made.
pub fn hop(periodic: usize, pairs: usize, time: Duration) -> Result<Value> {
    let caches = caches()?;
    let slots = sys::shared_slots((periodic + 2 * pairs) * SLOTS)?;
    let mut watches = slots.chunks_exact(SLOTS).map(|slots| Watch::new(&caches, slots));
    let mut next = || watches.next().ok_or("no slots left");
    let mut pids = Vec::new();
    let mut start = || -> Result<()> {
        for _ in 0..periodic {
            let mut watch = next()?;
            pids.push(sys::fork(|| keep_time(&mut watch))?);
        }
        for _ in 0..pairs {
            let (mut ping_in, mut ping_out) = std::io::pipe().cannot("make a pipe")?;
            let (mut pong_in, mut pong_out) = std::io::pipe().cannot("make a pipe")?;
            let (mut one, mut other) = (next()?, next()?);
            ping_out.write_all(b"x").cannot("fill a pipe")?;
            pids.push(sys::fork(|| pass_on(&mut ping_in, &mut pong_out, &mut one))?);
            pids.push(sys::fork(|| pass_on(&mut pong_in, &mut ping_out, &mut other))?);
        }
        Ok(())
    };
    let started = start();
    if started.is_ok() {
        sys::sleep(time);
    }
    pids.into_iter().for_each(sys::reap);
    started?;
    let kind = |slots: &[sys::Slot]| {
        let sum = |at| slots.iter().skip(at).step_by(SLOTS).map(|s| s.0.load(Ordering::Relaxed)).sum::<u64>();
        let percent = |n: u64| (1000.0 * n as f64 / sum(0).max(1) as f64).round() / 10.0;
        json!({"wakeups": sum(0), "same_cpu": percent(sum(1)), "same_cache": percent(sum(2))})
    };
    let (timed, paired) = slots.split_at(periodic * SLOTS);
    let distinct = caches.iter().collect::<std::collections::BTreeSet<_>>().len();
    Ok(json!({"caches": distinct, "periodic": kind(timed), "pairs": kind(paired), "all": kind(slots)}))
}

struct Watch<'a> {
    caches: &'a [u64],
    counts: [&'a AtomicU64; SLOTS],
    last: usize,
}

impl<'a> Watch<'a> {
    fn new(caches: &'a [u64], slots: &'a [sys::Slot]) -> Self {
        Self { caches, counts: [&slots[0].0, &slots[1].0, &slots[2].0], last: usize::MAX }
    }

    fn woke(&mut self) {
        let cpu = sys::current_cpu();
        if let Some(before) = self.caches.get(self.last) {
            let is = [true, cpu == self.last, self.caches.get(cpu) == Some(before)];
            for (count, is) in self.counts.iter().zip(is) {
                count.fetch_add(u64::from(is), Ordering::Relaxed);
            }
        }
        self.last = cpu;
    }
}

fn keep_time(watch: &mut Watch<'_>) {
    sys::exact_timers();
    let mut state = 1;
    loop {
        let end = sys::now_ns() + WORK_NS;
        while sys::now_ns() < end {
            state = spin(state);
        }
        // Where it went to sleep: it may have been moved while it ran.
        watch.last = sys::current_cpu();
        sys::sleep(SLEEP);
        watch.woke();
    }
}

fn pass_on(from: &mut std::io::PipeReader, to: &mut std::io::PipeWriter, watch: &mut Watch<'_>) {
    let mut byte = [0];
    loop {
        watch.last = sys::current_cpu();
        if from.read_exact(&mut byte).is_err() {
            return;
        }
        watch.woke();
        if to.write_all(&byte).is_err() {
            return;
        }
    }
}

/// For each CPU the CPUs with which it shares its last cache, or its socket where caches are not shown.
fn caches() -> Result<Vec<u64>> {
    let cpus = sys::affinity(0)?;
    (0..64 - cpus.leading_zeros())
        .map(|cpu| {
            let dir = format!("/sys/devices/system/cpu/cpu{cpu}");
            let shared = fs::read_to_string(format!("{dir}/cache/index3/shared_cpu_map"));
            let text = shared.or_else(|_| fs::read_to_string(format!("{dir}/topology/package_cpus")));
            let text = text.cannot(format_args!("tell the cache of CPU {cpu}"))?;
            u64::from_str_radix(&text.trim().replace(',', ""), 16).cannot("understand a mask of CPUs")
        })
        .collect()
}
