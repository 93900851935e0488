//! The heartbeat of a machine that is still usable: a new process, ten times a second.

use crate::stats::Sorted;
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Gaps longer than this are listed one by one.
const LONG_GAP_NS: u64 = 200_000_000;

/// A heart that beats until dropped, in a thread of its own. A beat is fork, exec of `/bin/true`, and the wait for
/// its end: what a shell does for a user.
#[derive(Debug)]
pub struct Beat {
    started: u64,
    done: Vec<u64>,
    /// A channel, not a lock: a beat that is descheduled must not hold up its observer.
    news: Receiver<Result<u64>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    /// The first beat comes at once.
    pub fn start(period: Duration) -> Self {
        let (sender, news) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || beat_until(&is_over, period.as_nanos() as u64, &sender));
        Self { started: sys::now_ns(), done: Vec::new(), news, stop, thread: Some(thread) }
    }

    /// When each beat so far was completed.
    ///
    /// # Errors
    /// When a beat could not be made.
    pub fn times(&mut self) -> Result<&[u64]> {
        for time in self.news.try_iter() {
            self.done.push(time?);
        }
        Ok(&self.done)
    }

    /// The longest time without a beat since `from`, in ns; one that has not ended yet counts.
    ///
    /// # Errors
    /// When a beat could not be made.
    pub fn longest_gap(&mut self, from: u64) -> Result<u64> {
        self.longest_gap_in(from, sys::now_ns())
    }

    /// The same between two moments.
    ///
    /// # Errors
    /// When a beat could not be made.
    pub fn longest_gap_in(&mut self, from: u64, to: u64) -> Result<u64> {
        let started = self.started;
        Ok(longest_gap(self.times()?, from.max(started), to))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn beat_until(is_over: &AtomicBool, period: u64, news: &Sender<Result<u64>>) {
    sys::exact_timers();
    let mut mark = sys::now_ns();
    while !is_over.load(Ordering::Relaxed) {
        let status = Command::new("/bin/true").stdin(Stdio::null()).status().cannot("run /bin/true");
        let done = status.and_then(|s| if s.success() { Ok(sys::now_ns()) } else { Err(s.to_string()) });
        if news.send(done).is_err() {
            return;
        }
        // A late beat is not made up for: that would hide how long the next one takes.
        let now = sys::now_ns();
        mark += ((now - mark) / period + 1) * period;
        sys::sleep_until(mark);
    }
}

/// The longest stretch without any of `times` (in order) that reaches into `from..to`. What lies before `from`
/// counts only if it reaches in; the stretch after the last one is cut at `to`.
pub fn longest_gap(times: &[u64], from: u64, to: u64) -> u64 {
    let mut last = from;
    let mut longest = 0;
    for &time in times.iter().take_while(|time| **time < to).chain([&to]) {
        if time > from {
            longest = longest.max(time - last);
        }
        last = time;
    }
    longest
}

/// Beats for `time`.
///
/// # Errors
/// When a beat could not be made.
pub fn beat(period: Duration, time: Duration) -> Result<Value> {
    let mut beat = Beat::start(period);
    sys::sleep(time);
    let end = sys::now_ns();
    let started = beat.started;
    let times = beat.times()?;
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let long: Vec<Value> = (times.iter().zip(&gaps))
        .filter(|(_, gap)| **gap > LONG_GAP_NS)
        .map(|(at, gap)| json!({"at_ms": (at - started) / 1_000_000, "gap_ms": gap / 1_000_000}))
        .collect();
    let mut result = Sorted::new(gaps).json("ms", 1e6);
    result.insert("beats".into(), json!(times.len()));
    result.insert("max_gap_ms".into(), json!(longest_gap(times, started, end) as f64 / 1e6));
    result.insert("long_gaps".into(), json!(long));
    Ok(Value::Object(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reaches_into_the_window() {
        let times = [10, 20, 50, 60];
        assert_eq!(longest_gap(&times, 0, 61), 30);
        assert_eq!(longest_gap(&times, 30, 61), 30, "began before the window");
        assert_eq!(longest_gap(&times, 50, 61), 10, "ended at its start");
        assert_eq!(longest_gap(&times, 0, 45), 25, "cut at the end");
        assert_eq!(longest_gap(&times, 0, 200), 140, "no beat any more");
        assert_eq!(longest_gap(&[], 5, 25), 20);
        assert_eq!(longest_gap(&[30], 0, 35), 30, "late to start");
    }
}
