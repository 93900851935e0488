//! A scheduler by a stranger: built by `cargo xtask package` on the packed crates alone, run in a guest.
//!
//! First come, first served, for three seconds, over threads that sleep and wake, with the monitor beside it. Ends
//! with 0 when the kernel had it loaded, it decided, and the monitor counted what ran.

use gthulhu_monitor::Monitor;
use qumun::{Context, Exit, Queued, Scheduler, StopHandle, Verdict};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const NAME: &str = "packaged_fifo";
/// That it decides is to be shown, not how often: this build is not optimised, and an emulated guest's agent is
/// often late, so that the core decides instead.
const ENOUGH: u64 = 10;

struct Fifo(Arc<AtomicU64>);

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        task.anywhere().into()
    }
}

fn main() -> ExitCode {
    let (decided, stop) = (Arc::new(AtomicU64::new(0)), StopHandle::default());
    let stopper = thread::spawn({
        let stop = stop.clone();
        move || {
            let loaded = wait_for_load();
            let sleepers: Vec<_> = (0..8).map(|_| thread::spawn(sleep_and_wake)).collect();
            sleepers.into_iter().for_each(|s| drop(s.join()));
            stop.stop();
            loaded
        }
    });
    let monitor = Monitor::start(&gthulhu_monitor::Options::default());
    let exit = qumun::builder(NAME).stop_handle(stop).run(Fifo(Arc::clone(&decided)));
    let loaded = stopper.join().unwrap_or_default();
    let count = decided.load(Ordering::Relaxed);
    match monitor.and_then(|mut monitor| monitor.snapshot()) {
        Ok(snapshot) if snapshot.own.events >= count => {
            println!("ok packaged-monitor - {} runs counted", snapshot.own.events);
        }
        Ok(snapshot) => {
            println!("not ok packaged-monitor - {} runs counted", snapshot.own.events);
            return ExitCode::FAILURE;
        }
        Err(e) => {
            println!("not ok packaged-monitor - {e}");
            return ExitCode::FAILURE;
        }
    }
    match exit {
        Ok(Exit::Stopped) if loaded.contains(NAME) && count >= ENOUGH => {
            println!("ok packaged-fifo - loaded as {loaded}, {count} decisions");
            ExitCode::SUCCESS
        }
        Ok(exit) => {
            println!("not ok packaged-fifo - loaded: {loaded:?}, {count} decisions, ended with {exit}");
            ExitCode::FAILURE
        }
        Err(e) => {
            println!("not ok packaged-fifo - {e}");
            ExitCode::FAILURE
        }
    }
}

/// What the kernel calls the scheduler at work; the verifier takes seconds on an emulated CPU.
fn wait_for_load() -> String {
    for _ in 0..400 {
        if let Ok(ops) = std::fs::read_to_string("/sys/kernel/sched_ext/root/ops") {
            return ops.trim().to_owned();
        }
        thread::sleep(Duration::from_millis(100));
    }
    String::new()
}

fn sleep_and_wake() {
    for _ in 0..1500 {
        thread::sleep(Duration::from_millis(2));
    }
}
