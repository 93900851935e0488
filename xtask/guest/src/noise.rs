//! What the host does to the guest, told apart from what a scheduler does in it.

use crate::sys;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Rare enough to change nothing.
const PERIOD: Duration = Duration::from_millis(50);
/// Above the real-time tasks of the drills: what those take is not the host's.
const PRIORITY: i32 = 50;

/// A real-time thread on each CPU that only sleeps, until dropped. No scheduler of ordinary tasks can make it
/// late: when it is, the host did not run the virtual CPU.
#[derive(Debug)]
pub struct Noise {
    worst: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Noise {
    /// Listens from now on; to nothing where real-time threads are not allowed.
    pub fn start() -> Self {
        let (worst, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let cpus = sys::affinity(0).unwrap_or(0);
        let listen = |cpu: u32| {
            let (worst, stop) = (Arc::clone(&worst), Arc::clone(&stop));
            thread::spawn(move || {
                if sys::set_affinity(0, 1 << cpu).is_ok() && sys::be_real_time_at(PRIORITY) {
                    listen_until(&stop, &worst);
                }
            })
        };
        let threads = (0..64).filter(|cpu| cpus & 1 << cpu != 0).map(listen).collect();
        Self { worst, stop, threads }
    }

    /// The longest that a CPU was away, in ns.
    pub fn worst(&self) -> u64 {
        self.worst.load(Ordering::Relaxed)
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen_until(stop: &AtomicBool, worst: &AtomicU64) {
    sys::exact_timers();
    while !stop.load(Ordering::Relaxed) {
        let mark = sys::now_ns() + PERIOD.as_nanos() as u64;
        sys::sleep_until(mark);
        worst.fetch_max(sys::now_ns() - mark, Ordering::Relaxed);
    }
}
