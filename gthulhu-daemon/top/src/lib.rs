//! `gthulhu-daemon top`: what scheduling does to the pods, services and threads of this machine, live in a terminal.
//!
//! It watches by itself: the monitor's programs ([`gthulhu_monitor`]) run as long as it does, with or without a daemon
//! and with or without sched_ext. That takes root. Cgroups are called by what runs in them ([`gthulhu_discovery`]).
//!
//! ```no_run
//! #[derive(clap::Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     top: gthulhu_top::Args,
//! }
//! let cli = <Cli as clap::Parser>::parse();
//! gthulhu_top::run(&cli.top)?;
//! # Ok::<(), gthulhu_top::Error>(())
//! ```
//!
//! # `--once --json`
//! One object, of one interval. Units are in the names: `_ns` are nanoseconds, `_ratio` is a part of a whole (of
//! `cpu_ratio` and `waiting_ratio` the whole is one CPU or one thread, all the time, so it may be above 1). Numbers
//! without a unit are how many there were in the interval.
//!
//! | field | what |
//! | --- | --- |
//! | `host`, `kernel`, `at_unix_ms` | where, and when the interval ended |
//! | `interval_ns`, `by`, `sort` | how long it was; what a row is; by what rows are sorted, most first |
//! | `cpus[]` | `cpu`, `busy_ratio` = `user_ratio` + `system_ratio` + `irq_ratio`; `steal_ratio` |
//! | `scheduler.sched_ext_state`, `scheduler.ops` | what the kernel says; null: no sched_ext, no scheduler of it |
//! | `scheduler.daemon` | null, or `mode`, `plugin`, `agent_pid`, `restarts`, `takeovers`, `degraded_ms`, `uptime_ms`, `decided`, `permitted`, `kernel_mode`, `taken_over` (all since its start) and `legs[]` of `name`, `count`, `p50_ns`, `p99_ns` |
//! | `scheduler.daemon_error` | why that is null |
//! | `rows[]` | see below |
//! | `monitor` | `missed` runs that could not be counted; `rows_used` of `rows` for cgroups |
//! | `warning` | null, or what does not work of what was asked for |
//!
//! Of each row: `key` (the same from one interval to the next), `kind` (`pod`, `container`, `service`, `scope`, `slice`,
//! `unit`, `cgroup`, `root`, `others`, `thread`), `name`, `cgroups[]` (paths), `interval_ns`, `cpu_ratio`, `run_ns`,
//! `waiting_ratio`, `run_delay_ns` (runnable until running, throttling apart), `throttled_ns`, `voluntary_switches`,
//! `involuntary_switches`, `migrations`. Rows that are no threads have `run_delay_p99_ns` and `run_delay_p50_ns` (null if
//! nothing waited), `histograms` with `run_delay`, `on_cpu_burst` and `wake_to_run`, each of as many counts as
//! `bucket_ends_ns` has ends, the last end being null; and `waited_for[]`: `name` and `ns` of who ran while it waited,
//! sampled. Threads have `tid`, `pid`, `cpu`, `running` and `run_delay_mean_ns`.
#![forbid(unsafe_code)]

mod args;
mod collect;
mod cpus;
mod error;
#[cfg(test)]
mod fixture;
mod format;
mod history;
mod once;
mod place;
mod rows;
mod sample;
mod scheduler;
mod sixteen;
mod state;
mod terminal;
mod view;

pub use args::Args;
pub use error::{Error, ErrorKind, Result};

/// Shows what it was asked for, until it is ended.
///
/// A signal that ends programs ends it as it would anybody else, after the terminal was given back.
///
/// # Errors
/// This process may not watch, the kernel cannot, the file of names has a mistake in it, or there is no terminal.
pub fn run(args: &Args) -> Result<()> {
    if args.once { once::run(args) } else { terminal::run(args) }
}
