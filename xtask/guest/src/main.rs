//! `lab-guest`: see the library.

use clap::{Parser, Subcommand};
use lab_guest::check::Checks;
use lab_guest::compare::{self, Compare, Size};
use lab_guest::load::{self, Request, Runners, Wake};
use lab_guest::sched::Scx;
use lab_guest::{Result, demo, gate, path, profile, suites};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(
    about = "Loads, checks of the daemon and the demonstration, inside a lab guest",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Processes that only compute
    Hogs {
        /// How many
        count: usize,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// A new process at each mark of a clock: the longest time without one
    Beat {
        /// Time between two marks
        #[arg(long, default_value_t = 100)]
        period_ms: u64,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// How long after its timer an ordinary task runs
    Wake {
        /// Time between two wakeups
        #[arg(long, default_value_t = 2000)]
        period_us: u64,
        /// Wakeups
        #[arg(long, default_value_t = 5000)]
        count: u64,
        /// CPU time that each wakeup computes for
        #[arg(long, default_value_t = 0)]
        work_us: u64,
        /// Stop after this even when wakeups are missing
        #[arg(long)]
        secs: Option<f64>,
    },
    /// Two processes that wake each other through two pipes
    Pipe {
        /// Round trips
        #[arg(long, default_value_t = 20_000)]
        rounds: u64,
        /// Stop after this even when round trips are missing
        #[arg(long)]
        secs: Option<f64>,
    },
    /// Threads whose allowed CPUs change all the time
    Affinity {
        /// Threads
        #[arg(long, default_value_t = 8)]
        tasks: usize,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Processes of several kinds beside each other: what each got, and how long it went without
    Race {
        /// NAME:COUNT[:nice=N][:cpus=HEX][:policy=ext|fifo][:work_us=N][:sleep_us=N]
        #[arg(required = true)]
        kinds: Vec<Runners>,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Very many threads with random wakeups
    Crowd {
        /// How many
        sleepers: usize,
        /// Threads that compute beside them
        #[arg(long, default_value_t = 0)]
        runners: usize,
        /// For how long, once they are all there
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Takes memory until the kernel has to look for some
    Squeeze {
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Tasks that note on which CPU they wake up
    Hop {
        /// Processes with a timer
        #[arg(long, default_value_t = 4)]
        periodic: usize,
        /// Pairs of processes that wake each other
        #[arg(long, default_value_t = 0)]
        pairs: usize,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// A server and a client over HTTP: how long each answer took
    Health {
        /// Time between two questions
        #[arg(long, default_value_t = 1000)]
        period_ms: u64,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// A messenger that wakes workers with requests: how late they begin, and how many are done
    Request {
        /// Threads that work
        #[arg(long, default_value_t = 4)]
        workers: usize,
        /// Work of a request, in units of a few microseconds
        #[arg(long, default_value_t = 10)]
        units: u32,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Processes that fork, exec /bin/true and wait for its end
    Forks {
        /// How many
        count: usize,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
    },
    /// Answer pings in the place of the kernel, in a network namespace of one's own, until killed
    Echo,
    /// Which scheduler is at work
    Scx,
    /// Check the daemon
    Check {
        /// What to check, in turn
        #[arg(required = true)]
        suites: Vec<suites::Suite>,
        /// Length of each load, where a suite has one
        #[arg(long)]
        secs: Option<u64>,
    },
    /// The length of a wakeup's path under each scheduler in turn, as CSV
    Path {
        /// Round trips of each measurement
        #[arg(long, default_value_t = 20_000)]
        round_trips: u64,
        /// Measurements of each scheduler
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Whether that path is as short as it was, on a kernel whose limits are known
    Gate,
    /// Loads under each scheduler in turn: the inside of `lab compare`
    Compare {
        /// What to do, in this order
        #[arg(long, value_delimiter = ',', required = true)]
        loads: Vec<compare::Load>,
        /// Under which schedulers; against the first, the others are measured
        #[arg(long, value_delimiter = ',', required = true)]
        schedulers: Vec<String>,
        /// Measurements of each load under each scheduler
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// And so many with the observer
        #[arg(long, default_value_t = 1)]
        watched: u32,
        /// Short loads, to see that it works
        #[arg(long)]
        quick: bool,
        /// Seconds before the first measurement
        #[arg(long, default_value_t = 20)]
        warm_up: u64,
    },
    /// A steady load under one scheduler, and what lies at which address: the inside of `lab profile`
    Profile {
        /// A plugin, or EEVDF for the kernel's own
        #[arg(long)]
        scheduler: String,
    },
    /// What the scheduler does, for people
    Demo,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Cmd::Check { suites, secs } => {
            let mut checks = Checks::default();
            if let Some(why) = suites::useless_kernel() {
                suites.iter().for_each(|suite| println!("skip {suite:?} - {why}"));
                return ExitCode::SUCCESS;
            }
            suites.into_iter().for_each(|suite| suites::run(suite, secs, &mut checks));
            return if checks.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Cmd::Path { round_trips, rounds } => path::path(round_trips, rounds).map(|()| true),
        Cmd::Gate => gate::gate(),
        Cmd::Echo => load::echo().map(|()| true),
        Cmd::Compare { loads, schedulers, rounds, watched, quick, warm_up } => {
            let size = if quick { Size::Quick } else { Size::Full };
            let what = Compare { loads, schedulers, rounds, watched, size, warm_up };
            compare::compare(&what).map(|()| true)
        }
        Cmd::Profile { scheduler } => profile::profile(&scheduler).map(|()| true),
        Cmd::Demo => demo::demo(),
        load => run_load(load).map(|figures| {
            println!("{figures}");
            true
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("lab-guest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run_load(load: Cmd) -> Result<Value> {
    let secs = Duration::from_secs_f64;
    match load {
        Cmd::Hogs { count, secs: time } => load::hogs(count, secs(time)),
        Cmd::Beat { period_ms, secs: time } => load::beat(Duration::from_millis(period_ms), secs(time)),
        Cmd::Wake { period_us, count, work_us, secs: limit } => load::wake(Wake {
            period: Duration::from_micros(period_us),
            count,
            work: Duration::from_micros(work_us),
            limit: limit.map(secs),
        }),
        Cmd::Pipe { rounds, secs: limit } => load::pipe(rounds, limit.map(secs)),
        Cmd::Affinity { tasks, secs: time } => load::affinity(tasks, secs(time)),
        Cmd::Race { kinds, secs: time } => load::race(&kinds, secs(time)),
        Cmd::Crowd { sleepers, runners, secs: time } => load::crowd(sleepers, runners, secs(time)),
        Cmd::Squeeze { secs: time } => load::squeeze(secs(time)),
        Cmd::Hop { periodic, pairs, secs: time } => load::hop(periodic, pairs, secs(time)),
        Cmd::Health { period_ms, secs: time } => load::health(Duration::from_millis(period_ms), secs(time)),
        Cmd::Request { workers, units, secs: time } => {
            load::request(Request { workers, units, time: secs(time) })
        }
        Cmd::Forks { count, secs: time } => load::forks(count, secs(time)),
        Cmd::Scx => {
            let scx = Scx::read()?;
            Ok(json!({"state": scx.state, "ops": scx.ops, "enable_seq": scx.enable_seq}))
        }
        Cmd::Check { .. }
        | Cmd::Compare { .. }
        | Cmd::Echo
        | Cmd::Gate
        | Cmd::Path { .. }
        | Cmd::Profile { .. }
        | Cmd::Demo => Err("not a load".into()),
    }
}
