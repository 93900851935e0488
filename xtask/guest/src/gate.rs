//! The gate: no wakeup's path may become longer than it was, relative to the kernel's own scheduler in the same boot.
//!
//! As [`path`](crate::path) measures, in a guest that counts instructions, but shorter: five measurements of each
//! scheduler in one life of it, and their median.

use crate::check::{Checks, ensure, skip};
use crate::path::{WARM_UP, asserted, degrade, in_kernel_mode};
use crate::sched::{Daemon, assert_disabled};
use crate::{Result, load, sys};
use std::fs;

const ROUND_TRIPS: u64 = 4_000;
const ROUNDS: usize = 5;

/// As the target for permits has it. What the daemon gives unless told holds for longer.
const PERMITS: &[&str] = &["--permit", "8", "--permit-us", "10000"];

/// What is measured, and the options of the daemon.
const ROWS: [(&str, &str, &[&str]); 6] = [
    ("simple-fifo", "simple-fifo", &["--permit", "0"]),
    ("gthulhu", "gthulhu", &["--permit", "0"]),
    ("simple-fifo-permits", "simple-fifo", PERMITS),
    ("gthulhu-permits", "gthulhu", PERMITS),
    ("simple-fifo-default", "simple-fifo", &[]),
    ("gthulhu-default", "gthulhu", &[]),
];
const CORE: &str = "core-alone";
const KERNEL: &str = "kernel-mode";

/// The longest that each may be, in parts of EEVDF's path, by the series of the kernel: a little above what was reached.
/// A ratio is a property of a kernel and its configuration, so a series that is not here has no gate.
#[rustfmt::skip]
const LIMITS: &[(&str, [f64; ROWS.len() + 2])] = &[
    // In the order of ROWS, then the core alone, then kernel mode.
    ("7.3.", [2.05, 2.28, 1.13, 1.16, 1.08, 1.10, 1.01, 1.01]),
];

/// Prints a verdict for each. Returns whether all held.
///
/// # Errors
/// When EEVDF cannot be measured.
pub fn gate() -> Result<bool> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| format!("the kernel's release: {e}"))?;
    let Some((_, limits)) = LIMITS.iter().find(|(series, _)| release.starts_with(series)) else {
        skip(
            "path",
            &format!("no limits are known for {} (LIMITS in xtask/guest/src/gate.rs)", release.trim()),
        );
        return Ok(true);
    };
    sys::sleep(WARM_UP);
    load::pipe(2 * ROUND_TRIPS, None)?;
    assert_disabled()?;
    let own = median()?;
    let mut checks = Checks::default();
    for ((name, plugin, options), limit) in ROWS.iter().zip(limits) {
        checks.check(&format!("path.{name}"), || {
            let daemon = Daemon::start(plugin, options)?;
            let trips = ROUND_TRIPS * ROUNDS as u64;
            let ns = asserted(&daemon, name, !options.contains(&"0"), trips, median)?;
            daemon.stop()?;
            verdict(ns, own, *limit)
        });
    }
    checks.check(&format!("path.{CORE}"), || {
        let daemon = degrade()?;
        let ns = median()?;
        daemon.stop()?;
        verdict(ns, own, limits[ROWS.len()])
    });
    checks.check(&format!("path.{KERNEL}"), || {
        let daemon = Daemon::start(ROWS[0].1, &["--kernel-mode"])?;
        let ns = in_kernel_mode(&daemon, ROUND_TRIPS * ROUNDS as u64, median)?;
        daemon.stop()?;
        verdict(ns, own, limits[ROWS.len() + 1])
    });
    Ok(checks.all_held())
}

fn verdict(ns: f64, own: f64, limit: f64) -> Result<String> {
    let ratio = ns / own;
    let text = || format!("{ratio:.3} of EEVDF ({ns:.0} and {own:.0} ns a round trip); {limit} at most");
    ensure(ratio <= limit, text)?;
    Ok(text())
}

/// Nanoseconds of a round trip.
fn median() -> Result<f64> {
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        all.push(load::pipe(ROUND_TRIPS, None)?["ns_per_round"].as_f64().ok_or("no figure")?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[ROUNDS / 2])
}
