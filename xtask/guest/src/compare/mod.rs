//! The inside of `cargo xtask lab compare`: loads under each scheduler in turn, in one boot.
//!
//! One line for each thing that the outside keeps. The last field may hold commas, the others do not:
//!
//! ```text
//! compare,cell,N,TOTAL,LOAD,ROUND,WATCHED,SCHEDULER    a measurement begins
//! compare,value,LOAD,ROUND,WATCHED,KEY,VALUE,SCHEDULER
//! compare,latency,LOAD,NS,COUNT,SCHEDULER              from wakeup to run: so many below NS and not below its half
//! compare,strip,LOAD,CPU,START,LENGTH,AGENT,WHO,SCHEDULER
//! compare,problem,KIND,LOAD,ROUND,SCHEDULER,TEXT       refused, ejected, failed, skipped: no value
//! compare,loaded,OPS,SCHEDULER                         what the kernel calls it
//! ```
//!
//! The scheduler at work is asserted before and after each measurement. The observer is a load itself, so it has rounds
//! of its own, whose other figures are kept apart.

mod loads;
mod schedulers;

pub use loads::{Load, Size};

use crate::observer::{Account, Observer};
use crate::sched::Scx;
use crate::{Result, sys};
use schedulers::{Running, Scheduler};
use std::collections::HashMap;

/// What to do.
#[derive(Debug, Clone)]
pub struct Compare {
    /// In this order.
    pub loads: Vec<Load>,
    /// Names of the table in `schedulers.rs`.
    pub schedulers: Vec<String>,
    /// Measurements of each load under each scheduler.
    pub rounds: u32,
    /// And so many with the observer.
    pub watched: u32,
    /// How long a load is.
    pub size: Size,
    /// Seconds before the first measurement: the first ones of a boot are cold.
    pub warm_up: u64,
}

/// A scheduler that could not be loaded so often is not tried again.
const TRIES: u32 = 3;

/// Why there is no figure.
#[derive(Debug)]
struct Problem {
    kind: &'static str,
    text: String,
}

impl Problem {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    load: Load,
    scheduler: usize,
    round: u32,
    watched: bool,
}

/// Prints the lines.
///
/// # Errors
/// When a scheduler is unknown, or the machine is not as it must be before the first measurement. What goes wrong
/// later is a line, and the rest goes on.
pub fn compare(what: &Compare) -> Result<()> {
    let schedulers = what.schedulers.iter().map(|name| schedulers::find(name)).collect::<Result<Vec<_>>>()?;
    let cpus = sys::affinity(0)?.count_ones() as usize;
    // Above the tasks of the loads: who asserts and stops must not itself wait for the scheduler under test.
    sys::be_real_time();
    crate::sched::assert_disabled()?;
    for load in &what.loads {
        load.prepare()?;
    }
    sys::sleep(std::time::Duration::from_secs(what.warm_up));
    // Once each, unseen: programs and pages are in memory before anything counts.
    for load in &what.loads {
        load.measure(Size::Quick, cpus)?;
    }
    let cells = plan(&what.loads, schedulers.len(), what.rounds, what.watched);
    let mut refused: HashMap<usize, u32> = HashMap::new();
    for (n, cell) in (1..).zip(&cells) {
        let scheduler = schedulers[cell.scheduler];
        let Cell { load, round, watched, .. } = *cell;
        println!("compare,cell,{n},{},{load},{round},{},{}", cells.len(), u8::from(watched), scheduler.name);
        let tries = refused.entry(cell.scheduler).or_default();
        if *tries >= TRIES {
            continue;
        }
        match measure(scheduler, *cell, what.size, cpus) {
            Ok(()) => *tries = 0,
            Err(Problem { kind, text }) => {
                *tries += u32::from(kind == "refused");
                let text = text.trim().replace('\n', " | ");
                println!("compare,problem,{kind},{load},{round},{},{text}", scheduler.name);
                if *tries >= TRIES {
                    let text =
                        format!("was refused {TRIES} times in a row and is not tried again in this boot");
                    println!("compare,problem,skipped,{load},{round},{},{text}", scheduler.name);
                }
            }
        }
    }
    Ok(())
}

/// Load by load and round by round, all schedulers in turn; each round begins with another one, so that none is always
/// the first after something.
fn plan(loads: &[Load], schedulers: usize, rounds: u32, watched: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &load in loads {
        let all = (1..=rounds).map(|round| (round, false)).chain((1..=watched).map(|round| (round, true)));
        for (at, (round, watched)) in all.enumerate() {
            let order = (0..schedulers).map(|n| (n + at) % schedulers);
            cells.extend(order.map(|scheduler| Cell { load, scheduler, round, watched }));
        }
    }
    cells
}

fn measure(scheduler: &Scheduler, cell: Cell, size: Size, cpus: usize) -> std::result::Result<(), Problem> {
    let failed = |e: String| Problem::new("failed", e);
    let mut running = Running::start(scheduler)?;
    let before = running.scx().map_err(failed)?;
    let counted = running.counters().map_err(failed)?;
    let observer = if cell.watched { Some(Observer::start().map_err(failed)?) } else { None };
    let figures = cell.load.measure(size, cpus);
    let account = match observer {
        Some(observer) => Some(observer.finish(running.agent().map_err(failed)?, cpus).map_err(failed)?),
        None => None,
    };
    // An ejection explains a load that failed; so it is looked for first.
    running.assert_still(&before)?;
    let counted = running.counters().map_err(failed)?.since(&counted);
    running.stop()?;
    let figures = figures.map_err(failed)?;
    let Cell { load, round, watched, .. } = cell;
    let name = scheduler.name;
    let value = |key: &str, value: f64| {
        println!("compare,value,{load},{round},{},{key},{value},{name}", u8::from(watched));
    };
    figures.iter().for_each(|(key, figure)| value(key, *figure));
    counted.each(|key, figure| value(key, figure));
    if let Some(account) = account {
        tell(load, name, &account, cpus, round, value);
    }
    if round == 1 && !watched {
        println!("compare,loaded,{},{name}", name_of(&before));
    }
    Ok(())
}

fn name_of(scx: &Scx) -> &str {
    if scx.state == "disabled" { "none" } else { &scx.ops }
}

fn tell(load: Load, name: &str, account: &Account, cpus: usize, round: u32, value: impl Fn(&str, f64)) {
    let all = account.length.max(1) as f64 * cpus.max(1) as f64;
    let percent = |ns: u64| 100.0 * ns as f64 / all;
    let us = |ns: u64| ns as f64 / 1e3;
    value("seen_lost", account.lost as f64);
    value("seen_seconds", account.length as f64 / 1e9);
    value("seen_wakeups", account.wakeups as f64);
    value("seen_wake_p50_us", us(account.latency.at(0.5)));
    value("seen_wake_p99_us", us(account.latency.at(0.99)));
    value("seen_wake_max_us", us(account.latency.max()));
    value("seen_idle_percent", percent(account.idle));
    value("seen_idle_while_waiting_percent", 100.0 * account.wasted_share(cpus));
    value("seen_idle_untold_percent", percent(account.idle_long_while_waiting));
    value("seen_idle_while_waiting_max_us", us(account.longest_idle_while_waiting));
    value("seen_idle_while_waiting_max_at_ms", account.longest_idle_ended as f64 / 1e6);
    value("seen_switches", account.switches as f64);
    value("seen_agent_switches", account.to_agent as f64);
    value("seen_agent_percent", 100.0 * account.agent_ran as f64 / account.length.max(1) as f64);
    value("seen_after_agent_percent", 100.0 * account.after_agent as f64 / account.wakeups.max(1) as f64);
    for (below, count) in account.latency.doubling() {
        println!("compare,latency,{load},{below},{count},{name}");
    }
    if round == 1 {
        for slice in &account.strip {
            let who = if slice.who.is_empty() { "idle" } else { &slice.who };
            println!(
                "compare,strip,{load},{},{},{},{},{who},{name}",
                slice.cpu,
                slice.start,
                slice.length,
                u8::from(slice.is_agent)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_take_turns_and_none_is_always_the_first() {
        let cells = plan(&[Load::Pipe, Load::Forks], 3, 3, 1);
        assert_eq!(cells.len(), 2 * 3 * 4);
        for round in cells.chunks(3) {
            let mut who: Vec<usize> = round.iter().map(|cell| cell.scheduler).collect();
            who.sort_unstable();
            assert_eq!(who, [0, 1, 2], "each once in a round");
            assert!(
                round.iter().all(
                    |c| (c.load, c.round, c.watched) == (round[0].load, round[0].round, round[0].watched)
                )
            );
        }
        let first: Vec<usize> = cells.chunks(3).take(3).map(|round| round[0].scheduler).collect();
        assert_eq!(first, [0, 1, 2]);
        assert_eq!(cells.iter().filter(|cell| cell.watched).count(), 2 * 3);
    }
}
