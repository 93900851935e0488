//! Dispatch latency through the real rings, natively: a SYSCALL program sends events, the agent loop runs, a SYSCALL
//! program takes the decisions. Beside it, in the same process and in turn, one task at a time through libbpf.
//! `cargo bench -p qumun-benches --bench dispatch [-- --help]`; root, any kernel from 6.1 on.
//!
//! What is told:
//!
//! * the agent's CPU time per decision (`CLOCK_THREAD_CPUTIME_ID` around the loop), with what it does between two
//!   batches: one `sched_yield`, by which it gives the CPU away;
//! * from sent until taken, per task, as the programs see it;
//! * system calls per decision, counted by the kernel;
//! * where the time goes, step by step.
//!
//! What it cannot tell: what a real core does before and behind the rings, and what a switch to another task costs
//! beyond the yield (`crowded` is a lower bound of that). The lab measures the whole way.

mod parts;
mod tell;
mod ways;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use qumun_benches::{Clocks, Lane, Spent, Stand, quantile};
use tell::{Latency, Pair, Report, Syscalls};
use ways::{Policy, Way};

/// Tasks between two looks at the clock, which are system calls.
const WINDOW: u32 = 512;

#[derive(Parser, Clone, Debug)]
#[command(about = "Dispatch latency through the real rings, against one task at a time through libbpf")]
struct Options {
    /// Pairs of measurements, one of each way
    #[arg(long, default_value_t = 15)]
    pairs: u32,
    /// Decisions in each measurement of a pair
    #[arg(long, default_value_t = 16_384)]
    decisions: u32,
    /// Tasks in one batch
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 512])]
    batch: Vec<u32>,
    /// How many different tasks there are
    #[arg(long, default_value_t = 256)]
    tasks: u32,
    /// CPUs that the agent is to believe in
    #[arg(long, default_value_t = 8)]
    cpus: u32,
    /// The policies on the agent's way
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Policy::ALL)]
    policy: Vec<Policy>,
    /// Measure nothing: only let the agent decide for so many seconds, for a profiler to look at
    #[arg(long, value_name = "SECONDS")]
    spin: Option<u64>,
    /// Write raw figures into this folder, too
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let stand = match Stand::load(options.cpus) {
        Ok(stand) => stand,
        Err(why) => return println!("skipped: dispatch - {why}"),
    };
    let mut report = Report::default();
    if let Some(seconds) = options.spin {
        return spin(&options, &stand, Duration::from_secs(seconds));
    }
    if let Err(why) = measure(&options, &stand, &mut report) {
        eprintln!("dispatch: {why}");
        std::process::exit(1);
    }
    report.print();
    if let Some(folder) = &options.write {
        report.write(folder, &options);
    }
}

fn measure(options: &Options, stand: &Stand, report: &mut Report) -> Result<(), String> {
    for &policy in &options.policy {
        for &batch in &options.batch {
            eprintln!("dispatch: {policy}, batches of {batch}, both ways");
            pairs(options, stand, policy, batch, "alone", report)?;
        }
    }
    for &batch in &options.batch {
        eprintln!("dispatch: latencies and system calls, batches of {batch}");
        for &policy in &options.policy {
            latency(options, stand, Way::agent(stand, policy, batch)?, batch, report);
            syscalls(options, stand, Way::agent(stand, policy, batch)?, batch, report);
        }
        latency(options, stand, Way::single(stand)?, batch, report);
        syscalls(options, stand, Way::single(stand)?, batch, report);
    }
    let companion = Companion::start()?;
    for &batch in &options.batch {
        eprintln!("dispatch: {}, batches of {batch}, beside another task on the same CPU", Policy::Fifo);
        pairs(options, stand, Policy::Fifo, batch, "crowded", report)?;
    }
    drop(companion);
    eprintln!("dispatch: step by step");
    report.parts = parts::measure(stand, options.tasks)?;
    Ok(())
}

/// The agent's loop and what feeds it, and nothing else.
fn spin(options: &Options, stand: &Stand, time: Duration) {
    let (policy, batch) = (options.policy[0], options.batch[0]);
    let mut way = Way::agent(stand, policy, batch).expect("an agent");
    let end = Instant::now() + time;
    let mut decisions = 0;
    while Instant::now() < end {
        spend(options, stand, &mut way, batch);
        decisions += u64::from(options.decisions);
    }
    println!("{policy}, batches of {batch}: {decisions} decisions in {} s", time.as_secs());
}

/// Both ways by turns; which one begins alternates, so that what changes on the machine meets both.
fn pairs(
    options: &Options,
    stand: &Stand,
    policy: Policy,
    batch: u32,
    setting: &'static str,
    report: &mut Report,
) -> Result<(), String> {
    let (mut agent, mut single) = (Way::agent(stand, policy, batch)?, Way::single(stand)?);
    for pair in 0..=options.pairs {
        let run = |way: &mut Way| spend(options, stand, way, batch);
        let (agent, single) = if pair % 2 == 0 {
            let first = run(&mut agent);
            (first, run(&mut single))
        } else {
            let first = run(&mut single);
            (run(&mut agent), first)
        };
        // The first one is for caches and branch predictors.
        if pair > 0 {
            let decisions = options.decisions.next_multiple_of(WINDOW.max(batch));
            report.pairs.push(Pair { setting, policy, batch, pair, decisions, agent, single });
        }
    }
    stand.check(Lane::Agent)?;
    stand.check(Lane::Single)
}

/// What a way's loop takes for all decisions. What the programs do before and behind it is not in it.
fn spend(options: &Options, stand: &Stand, way: &mut Way, batch: u32) -> Spent {
    let window = WINDOW.max(batch);
    let mut spent = Spent::default();
    for _ in 0..options.decisions.div_ceil(window) {
        stand.send(way.lane(), window, options.tasks);
        let clocks = Clocks::start();
        way.decide(window);
        spent += clocks.spent();
        assert_eq!(stand.take(way.lane()), window, "each event is answered in its window");
    }
    spent
}

/// Each batch by itself: sent, decided, taken.
fn latency(options: &Options, stand: &Stand, mut way: Way, batch: u32, report: &mut Report) {
    let mut times = Vec::with_capacity(options.decisions as usize + batch as usize);
    for _ in 0..options.decisions.div_ceil(batch) {
        stand.send(way.lane(), batch, options.tasks);
        way.decide(batch);
        stand.take(way.lane());
        times.extend(stand.latencies(way.lane(), batch));
    }
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(&times, part));
    report.latencies.push(Latency { way: way.name(), batch, samples: times.len(), p50, p99, most });
}

/// What the kernel is asked for, counted by the kernel: nothing else is measured meanwhile.
fn syscalls(options: &Options, stand: &Stand, mut way: Way, batch: u32, report: &mut Report) {
    let meter = match stand.meter() {
        Ok(meter) => meter,
        Err(why) => {
            report.uncounted = Some(why);
            return;
        }
    };
    let window = WINDOW.max(batch);
    let windows = options.decisions.div_ceil(window);
    for _ in 0..windows {
        stand.send(way.lane(), window, options.tasks);
        meter.count(true);
        way.decide(window);
        meter.count(false);
        stand.take(way.lane());
    }
    let decisions = u64::from(windows * window);
    report.syscalls.push(Syscalls { way: way.name(), batch, decisions, calls: meter.take() });
}

/// Another task on the CPU of this thread, that gives it back at once: each yield is a switch, then.
struct Companion {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    cpus: Vec<u32>,
}

impl Companion {
    fn start() -> Result<Self, String> {
        let cpus = (0..std::thread::available_parallelism().map_or(1, |n| n.get() as u32)).collect();
        let here = qumun_bpf::agent::current_cpu().unwrap_or(0);
        qumun_bpf::agent::pin(&[here]).map_err(|e| e.to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                qumun_bpf::agent::yield_now();
            }
        });
        Ok(Self { stop, thread: Some(thread), cpus })
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // What is measured next may run anywhere again; if not, it is measured on this CPU.
        let _ = qumun_bpf::agent::pin(&self.cpus);
    }
}
