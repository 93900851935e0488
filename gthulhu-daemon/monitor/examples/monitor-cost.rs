//! What the monitor costs: a pipe's round trip (two wakeups, two switches) with and without it, in turn, on one CPU.
//!
//! `cargo run --release -p gthulhu-monitor --example monitor-cost`, as root. Prints a line for each pair, and the median of
//! their ratios. In a guest that counts instructions this is the length of the path:
//! `cargo xtask lab run --icount --smp 1 -- monitor-cost --pairs 9 --round-trips 4000 --warm-up 20`.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use gthulhu_monitor::{Monitor, Options, WaitSource};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Args {
    /// How often, with and without
    #[arg(long, default_value_t = 40)]
    pairs: usize,
    /// Round trips of each measurement
    #[arg(long, default_value_t = 30_000)]
    round_trips: u32,
    /// In the way of kernels that keep no run delay
    #[arg(long)]
    wakeups: bool,
    /// Fail if the median is above this ratio
    #[arg(long)]
    limit: Option<f64>,
    /// Seconds before the first: the first measurements of a boot are cold
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut options = Options::default();
    if args.wakeups {
        options.wait_source = WaitSource::Wakeups;
    }
    pin()?;
    std::thread::sleep(Duration::from_secs(args.warm_up));
    let without = || round_trip(args.round_trips);
    let with = || -> Result<f64> {
        let monitor = Monitor::start(&options)?;
        std::thread::sleep(Duration::from_millis(20));
        let ns = round_trip(args.round_trips)?;
        drop(monitor);
        // BPF programs are freed a moment later.
        std::thread::sleep(Duration::from_millis(50));
        Ok(ns)
    };
    without()?;
    with()?;
    let mut all: [Vec<f64>; 3] = Default::default();
    for pair in 0..args.pairs {
        // Neither is always the first.
        let (off, on) = if pair % 2 == 0 {
            (without()?, with()?)
        } else {
            let on = with()?;
            (without()?, on)
        };
        println!("pair {pair}: {off:.0} ns without, {on:.0} ns with, {:.4}", on / off);
        all[0].push(off);
        all[1].push(on);
        all[2].push(on / off);
    }
    options.measure_self = true;
    let mut monitor = Monitor::start(&options)?;
    without()?;
    for program in monitor.snapshot()?.own.programs.iter().filter(|program| program.runs > 0) {
        println!("{}: {} runs of {} ns", program.name, program.runs, program.run_ns / program.runs);
    }
    let [off, on, ratio] = all.map(|mut values| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    });
    let limit = args.limit.unwrap_or(f64::INFINITY);
    let verdict = if ratio <= limit { "ok" } else { "not ok" };
    println!(
        "{verdict} path.monitor - {ratio:.4} of {off:.0} ns a round trip, the median of {} pairs ({on:.0} ns); {limit} at most",
        args.pairs
    );
    Ok(if ratio <= limit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Nanoseconds, of so many between two threads.
fn round_trip(rounds: u32) -> Result<f64> {
    let (mut there_in, mut there_out) = std::io::pipe()?;
    let (mut back_in, mut back_out) = std::io::pipe()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        for _ in 0..rounds {
            there_in.read_exact(&mut byte)?;
            back_out.write_all(&byte)?;
        }
        Ok(())
    });
    let begun = Instant::now();
    let mut byte = [0];
    for _ in 0..rounds {
        there_out.write_all(&byte)?;
        back_in.read_exact(&mut byte)?;
    }
    let ns = begun.elapsed().as_nanos() as f64 / f64::from(rounds);
    echo.join().map_err(|_| "the other thread panicked")??;
    Ok(ns)
}

fn pin() -> Result<()> {
    // SAFETY: all zero is an empty set, and the pointer is valid for the size passed.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if failed != 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}
