//! Processes of several kinds beside each other: how much each gets, and how long each went without.

use super::spin;
use crate::sys::{Policy, Slot};
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::fs;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Processes of one kind, as `NAME:COUNT[:nice=N][:cpus=HEX][:policy=ext|fifo][:work_us=N:sleep_us=N]`. Without
/// `work_us` and `sleep_us` they compute all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runners {
    name: String,
    count: usize,
    nice: i32,
    cpus: Option<u64>,
    policy: Policy,
    work: Duration,
    sleep: Duration,
}

impl FromStr for Runners {
    type Err = String;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(':');
        let (name, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut runners = Self {
            name: name.into(),
            count: count.parse().cannot(format_args!("understand the count in {text}"))?,
            nice: 0,
            cpus: None,
            policy: Policy::Normal,
            work: Duration::ZERO,
            sleep: Duration::ZERO,
        };
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("no '=' in {word}"))?;
            let micros = || Ok::<_, String>(Duration::from_micros(value.parse().cannot("read a number")?));
            match (key, value) {
                ("nice", _) => runners.nice = value.parse().cannot("read a number")?,
                ("cpus", _) => runners.cpus = Some(u64::from_str_radix(value, 16).cannot("read a mask")?),
                ("policy", "ext") => runners.policy = Policy::Ext,
                ("policy", "fifo") => runners.policy = Policy::Fifo,
                ("work_us", _) => runners.work = micros()?,
                ("sleep_us", _) => runners.sleep = micros()?,
                _ => return Err(format!("unknown {word} in {text}")),
            }
        }
        Ok(runners)
    }
}

/// What a process shows while it runs.
struct Shown<'a> {
    /// Longest time that it wanted to run and did not, in ns.
    gap: &'a Slot,
    /// When it was last seen to run, or 0 while it sleeps.
    seen: &'a Slot,
    /// Why it could not begin: 1.
    failed: &'a Slot,
}

const SLOTS: usize = 3;

impl Shown<'_> {
    fn waited(&self, ns: u64) {
        self.gap.0.fetch_max(ns, Ordering::Relaxed);
    }
}

/// Runs all of them for `time`. For each process: CPU time, and the longest that it was runnable and did not run;
/// for one that sleeps, the longest that it ran later than its timer.
///
/// # Errors
/// When a process cannot be made, or cannot have its nice value, CPUs or class.
pub fn race(kinds: &[Runners], time: Duration) -> Result<Value> {
    let total = kinds.iter().map(|kind| kind.count).sum::<usize>();
    let slots = sys::shared_slots(total * SLOTS)?;
    let start = sys::now_ns();
    let mut pids: Vec<i32> = Vec::with_capacity(total);
    let all = kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.count));
    for (kind, slots) in all.zip(slots.chunks_exact(SLOTS)) {
        let shown = Shown { gap: &slots[0], seen: &slots[1], failed: &slots[2] };
        // It is runnable from here on.
        shown.seen.0.store(sys::now_ns(), Ordering::Relaxed);
        match sys::fork(|| run(kind, &shown)) {
            Ok(pid) => pids.push(pid),
            Err(e) => {
                reap_all(&pids);
                return Err(e);
            }
        }
    }
    sys::sleep_until(start + time.as_nanos() as u64);
    let now = sys::now_ns();
    let figures: Vec<(u64, u64, u64)> = (pids.iter().zip(slots.chunks_exact(SLOTS)))
        .map(|(pid, slots)| {
            let [gap, seen, failed] = [0, 1, 2].map(|i| slots[i].0.load(Ordering::Relaxed));
            // A wait that has not ended counts.
            let open = if seen == 0 { 0 } else { now.saturating_sub(seen) };
            (gap.max(open), cpu_ns(*pid), failed)
        })
        .collect();
    reap_all(&pids);
    if figures.iter().any(|(.., failed)| *failed != 0) {
        return Err("a process could not have its nice value, CPUs or class".into());
    }
    let mut rest = &figures[..];
    let mut groups = serde_json::Map::new();
    for kind in kinds {
        let (mine, others) = rest.split_at(kind.count);
        rest = others;
        let gap = mine.iter().map(|(gap, ..)| *gap).max().unwrap_or(0);
        let cpu: Vec<u64> = mine.iter().map(|(_, cpu, _)| cpu / 1_000_000).collect();
        groups.insert(kind.name.clone(), json!({"gap_ms": gap / 1_000_000, "cpu_ms": cpu}));
    }
    groups.insert("elapsed_ms".into(), json!((now - start) / 1_000_000));
    Ok(Value::Object(groups))
}

/// All get their signal before any is waited for: one of small weight needs years to end beside one of large.
fn reap_all(pids: &[i32]) {
    for pid in pids {
        let _ = sys::signal(*pid, libc::SIGKILL);
    }
    pids.iter().copied().for_each(sys::reap);
}

fn run(kind: &Runners, shown: &Shown<'_>) {
    if begin(kind).is_err() {
        shown.failed.0.store(1, Ordering::Relaxed);
        return;
    }
    let mut state = 1;
    let mut last = shown.seen.0.load(Ordering::Relaxed);
    if kind.work.is_zero() && kind.sleep.is_zero() {
        loop {
            let now = sys::now_ns();
            shown.waited(now - last);
            shown.seen.0.store(now, Ordering::Relaxed);
            last = now;
            state = spin(state);
        }
    }
    shown.waited(sys::now_ns() - last);
    sys::exact_timers();
    loop {
        let end = sys::now_ns() + kind.work.as_nanos() as u64;
        while sys::now_ns() < end {
            state = spin(state);
        }
        let mark = sys::now_ns() + kind.sleep.as_nanos() as u64;
        // Runnable again from the mark on: whoever looks later than that sees the wait.
        shown.seen.0.store(mark, Ordering::Relaxed);
        sys::sleep_until(mark);
        let now = sys::now_ns();
        shown.waited(now - mark);
        shown.seen.0.store(0, Ordering::Relaxed);
    }
}

fn begin(kind: &Runners) -> Result<()> {
    if let Some(cpus) = kind.cpus {
        sys::set_affinity(0, cpus).cannot("choose CPUs")?;
    }
    if kind.nice != 0 {
        sys::set_nice(kind.nice)?;
    }
    if kind.policy == Policy::Normal { Ok(()) } else { sys::set_policy(0, kind.policy) }
}

/// Time on a CPU, from the first word of schedstat.
fn cpu_ns(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read() {
        let kind: Runners =
            "idlers:8:nice=19:cpus=1:policy=fifo:work_us=50:sleep_us=7".parse().expect("valid");
        assert_eq!((kind.name.as_str(), kind.count, kind.nice, kind.cpus), ("idlers", 8, 19, Some(1)));
        assert_eq!(
            (kind.policy, kind.work, kind.sleep.as_micros()),
            (Policy::Fifo, Duration::from_micros(50), 7)
        );
        for wrong in ["", "a", "a:b", "a:1:nice", "a:1:policy=idle", "a:1:x=1"] {
            assert!(wrong.parse::<Runners>().is_err(), "{wrong}");
        }
    }
}
