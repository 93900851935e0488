//! Threads whose allowed CPUs change all the time, by their own hand and by others'.

use super::spin;
use crate::stats::Random;
use crate::{Result, sys};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Threads that change the masks of the tasks.
const FOREIGN_HANDS: u64 = 2;
/// Units of [`spin`] and microseconds of sleep between two changes, at most.
const MAX_SPIN: u64 = 100;
const MAX_SLEEP_US: u64 = 1000;

/// What was changed.
#[derive(Debug, Default)]
pub struct Hammer {
    own: AtomicU64,
    foreign: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// `tasks` threads, and two more that change the masks of these, for `time`. A mask is never empty; one CPU only
/// is as likely as any other mask, so tasks turn pinned and free again while they wait, run and sleep.
///
/// # Errors
/// When the CPUs of this process cannot be read, or are all beyond the 64th.
pub fn affinity(tasks: usize, time: Duration) -> Result<Value> {
    let allowed = sys::affinity(0)?;
    if allowed == 0 {
        return Err("none of the first 64 CPUs is allowed".into());
    }
    let tids: Vec<AtomicI32> = (0..tasks).map(|_| AtomicI32::new(0)).collect();
    let hammer = Hammer::default();
    thread::scope(|scope| {
        for (seed, tid) in (1..).zip(&tids) {
            let hammer = &hammer;
            scope.spawn(move || hammer.task(tid, allowed, Random::new(seed)));
        }
        for seed in 0..FOREIGN_HANDS {
            let (hammer, tids) = (&hammer, &tids);
            scope.spawn(move || hammer.hand(tids, allowed, Random::new(1000 + seed)));
        }
        sys::sleep(time);
        hammer.stop.store(true, Ordering::Relaxed);
    });
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(json!({
        "tasks": tasks,
        "own": read(&hammer.own),
        "foreign": read(&hammer.foreign),
        "failed": read(&hammer.failed),
    }))
}

impl Hammer {
    fn task(&self, tid: &AtomicI32, allowed: u64, mut random: Random) {
        tid.store(sys::thread_id(), Ordering::Relaxed);
        let mut state = 1;
        while !self.stop.load(Ordering::Relaxed) {
            self.change(0, some_of(allowed, &mut random), &self.own);
            for _ in 0..random.below(MAX_SPIN) {
                state = spin(state);
            }
            if random.below(2) == 0 {
                sys::sleep(Duration::from_micros(random.below(MAX_SLEEP_US)));
            }
        }
        // The others may still aim at it: 0 means "nobody" to them.
        tid.store(0, Ordering::Relaxed);
    }

    fn hand(&self, tids: &[AtomicI32], allowed: u64, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) && !tids.is_empty() {
            let tid = tids[random.below(tids.len() as u64) as usize].load(Ordering::Relaxed);
            if tid != 0 {
                self.change(tid, some_of(allowed, &mut random), &self.foreign);
            }
            sys::sleep(Duration::from_micros(random.below(MAX_SLEEP_US)));
        }
    }

    fn change(&self, tid: i32, mask: u64, counter: &AtomicU64) {
        match sys::set_affinity(tid, mask) {
            Ok(()) => counter.fetch_add(1, Ordering::Relaxed),
            // The thread ended between the look and the call.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => 0,
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Some of the CPUs, at least one.
fn some_of(allowed: u64, random: &mut Random) -> u64 {
    loop {
        let mask = allowed & random.number();
        if mask != 0 {
            return mask;
        }
    }
}
