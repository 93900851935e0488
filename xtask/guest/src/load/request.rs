//! A messenger and its workers: who waits for a request sleeps, is woken with it, computes, and asks for the next.
//!
//! The form of the load is that of schbench: the time from the wake to the first instruction of the worker is what a
//! user of a service waits for, and the requests in a second are what is left of the machine for work.

use super::spin;
use crate::stats::Sorted;
use crate::{Result, sys};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Threads that work.
    pub workers: usize,
    /// Units of work (see [`spin`]) in each request.
    pub units: u32,
    /// For how long.
    pub time: Duration,
}

/// Samples that a worker keeps; what comes later is counted, not kept.
const KEPT: usize = 1 << 18;

const WORKING: u32 = 0;
const WAITING: u32 = 1;
const GIVEN: u32 = 2;
const STOP: u32 = 3;

/// Where a worker finds its requests; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Desk {
    state: AtomicU32,
    /// When the request was given.
    at: AtomicU64,
}

/// Hands out requests for a time.
///
/// # Errors
/// When no thread can be made.
pub fn request(what: Request) -> Result<Value> {
    if what.workers == 0 {
        return Err("a load without workers asks for nothing: --workers must be 1 or more".into());
    }
    let desks: Vec<Desk> = (0..what.workers).map(|_| Desk::default()).collect();
    let inbox = &AtomicU32::new(0);
    let start = sys::now_ns();
    let end = start + what.time.as_nanos() as u64;
    let (done, late, elapsed) = thread::scope(|scope| {
        let workers: Vec<_> = (1..)
            .zip(&desks)
            .map(|(seed, desk)| scope.spawn(move || work(seed, desk, inbox, what.units)))
            .collect();
        messenger(&desks, inbox, end);
        let elapsed = sys::now_ns() - start;
        let (mut done, mut late) = (0, Vec::new());
        for worker in workers {
            let (count, times) = worker.join().map_err(|_| "a worker panicked")?;
            done += count;
            late.extend(times);
        }
        Ok::<_, String>((done, late, elapsed))
    })?;
    let mut result = Sorted::new(late).json("us", 1e3);
    result.insert("requests".into(), json!(done));
    result.insert("per_second".into(), json!(done as f64 / (elapsed as f64 / 1e9)));
    result.insert("workers".into(), json!(what.workers));
    result.insert("units".into(), json!(what.units));
    Ok(Value::Object(result))
}

fn messenger(desks: &[Desk], inbox: &AtomicU32, end: u64) {
    loop {
        let seen = inbox.load(Ordering::Acquire);
        let mut has_given = false;
        for desk in desks.iter().filter(|desk| desk.state.load(Ordering::Acquire) == WAITING) {
            desk.at.store(sys::now_ns(), Ordering::Relaxed);
            desk.state.store(GIVEN, Ordering::Release);
            sys::futex_wake(&desk.state);
            has_given = true;
        }
        if sys::now_ns() >= end {
            break;
        }
        if !has_given {
            sys::futex_wait(inbox, seen);
        }
    }
    for desk in desks {
        // A worker at its work would overwrite the word: each is met when it waits.
        while desk.state.compare_exchange(WAITING, STOP, Ordering::AcqRel, Ordering::Acquire).is_err() {
            sys::sleep(Duration::from_micros(200));
        }
        sys::futex_wake(&desk.state);
    }
}

/// How many requests were done, and how late the first ones began, in ns.
fn work(seed: u64, desk: &Desk, inbox: &AtomicU32, units: u32) -> (u64, Vec<u64>) {
    // Every page is there before the first request: a fault would be measured as a late wakeup.
    let mut late = vec![u64::MAX; KEPT];
    let (mut done, mut state) = (0, seed);
    loop {
        desk.state.store(WAITING, Ordering::Release);
        inbox.fetch_add(1, Ordering::AcqRel);
        sys::futex_wake(inbox);
        while desk.state.load(Ordering::Acquire) == WAITING {
            sys::futex_wait(&desk.state, WAITING);
        }
        if desk.state.load(Ordering::Acquire) == STOP {
            late.truncate(KEPT.min(done));
            return (done as u64, late);
        }
        if let Some(sample) = late.get_mut(done) {
            *sample = sys::now_ns() - desk.at.load(Ordering::Relaxed);
        }
        desk.state.store(WORKING, Ordering::Relaxed);
        for _ in 0..units {
            state = spin(state);
        }
        done += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_done_and_all_workers_end() {
        let what = Request { workers: 3, units: 1, time: Duration::from_millis(50) };
        let figures = request(what).unwrap();
        assert!(figures["requests"].as_u64().unwrap() > 0, "{figures}");
        assert!(figures["p99_us"].as_f64().unwrap() >= figures["p50_us"].as_f64().unwrap(), "{figures}");
        assert!(request(Request { workers: 0, ..what }).is_err());
    }
}
