//! The length of the path: a pipe's round trip (two wakeups) under each scheduler in turn, in one boot.
//!
//! Meant for guests that count instructions, where it repeats to a few in a thousand. One CSV line per
//! measurement: `path,SCHEDULER,ROUND,NS`. Before and after each, the scheduler at work is asserted.

use crate::check::ensure;
use crate::process::wait_for;
use crate::sched::{Daemon, OPS_PREFIX, assert_active, assert_disabled, mode, number};
use crate::{Result, load, sys};
use std::time::Duration;

/// The first measurements of a boot are cold.
pub(crate) const WARM_UP: Duration = Duration::from_secs(20);

/// Prints the lines.
///
/// # Errors
/// When a scheduler does not start, is not the one at work, or leaves what it should decide to the core.
pub fn path(round_trips: u64, rounds: u32) -> Result<()> {
    sys::sleep(WARM_UP);
    load::pipe(round_trips, None)?;
    for round in 1..=rounds {
        assert_disabled()?;
        print("EEVDF", round, round_trips)?;
        assert_disabled()?;
        for plugin in crate::suites::PLUGINS {
            under(plugin, plugin, &["--permit", "0"], round, round_trips)?;
            under(&format!("{plugin} permits"), plugin, &[], round, round_trips)?;
        }
        // And once more through the kernel's ring buffers.
        let plugin = crate::suites::PLUGINS[1];
        let options = ["--permit", "0", "--transport", "rings"];
        under(&format!("{plugin} rings"), plugin, &options, round, round_trips)?;
        core_alone(round, round_trips)?;
        let daemon = Daemon::start(plugin, &["--kernel-mode"])?;
        in_kernel_mode(&daemon, round_trips, || print("kernel mode", round, round_trips))?;
        daemon.stop()?;
    }
    Ok(())
}

/// Measures so many round trips, of which nobody asks the agent.
pub(crate) fn in_kernel_mode<T>(
    daemon: &Daemon,
    round_trips: u64,
    measure: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let before = number(&daemon.status()?, "/counters/kernel_mode")?;
    let measured = measure()?;
    let status = daemon.status()?;
    let alone = number(&status, "/counters/kernel_mode")? - before;
    let is_so = mode(&status)? == "kernel" && alone >= 2 * round_trips * 9 / 10;
    ensure(is_so, || format!("kernel mode: {alone} enqueues in {round_trips} round trips"))?;
    Ok(measured)
}

/// With one of our policies.
fn under(name: &str, plugin: &str, options: &[&str], round: u32, round_trips: u64) -> Result<()> {
    let daemon = Daemon::start(plugin, options)?;
    asserted(&daemon, name, options.is_empty(), round_trips, || print(name, round, round_trips))?;
    daemon.stop()?;
    Ok(())
}

/// Measures so many round trips, with `permits` or without, and asserts that they went that way.
pub(crate) fn asserted<T>(
    daemon: &Daemon,
    name: &str,
    permits: bool,
    round_trips: u64,
    measure: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let count = |what| number(&daemon.status()?, what);
    let before = (count("/counters/ev_dispatched")?, count("/counters/permitted")?);
    let measured = measure()?;
    assert_active(OPS_PREFIX)?;
    let decided = count("/counters/ev_dispatched")? - before.0;
    let permitted = count("/counters/permitted")? - before.1;
    // Two wakeups in a round trip. If the core decides, this is not the path of a decision. Of nine, a permit of eight
    // lets eight in.
    let enough = 2 * round_trips * 9 / 10;
    let as_named = match permits {
        true => decided + permitted >= enough && decided <= enough / 4,
        false => decided >= enough && permitted == 0,
    };
    ensure(as_named, || {
        format!("{name}: {decided} decisions and {permitted} permitted wakeups in {round_trips} round trips")
    })?;
    Ok(measured)
}

/// The price of the core by itself: the agent is stopped, and everything goes by the core's own rule.
fn core_alone(round: u32, round_trips: u64) -> Result<()> {
    let daemon = degrade()?;
    print("core alone", round, round_trips)?;
    ensure(mode(&daemon.status()?)? == "degraded", || "the stopped agent is back".into())?;
    daemon.stop()?;
    Ok(())
}

/// A daemon whose agent is stopped, and its core in degraded mode.
pub(crate) fn degrade() -> Result<Daemon> {
    let daemon = Daemon::start(crate::suites::PLUGINS[0], &[])?;
    let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
    sys::signal(agent, libc::SIGSTOP)?;
    wait_for("degraded mode", Duration::from_secs(5), || {
        // Something has to wait for the agent before it can be late.
        sys::sleep(Duration::from_millis(5));
        Ok((mode(&daemon.status()?)? == "degraded").then_some(()))
    })?;
    Ok(daemon)
}

fn print(name: &str, round: u32, round_trips: u64) -> Result<()> {
    let figures = load::pipe(round_trips, None)?;
    let ns = figures["ns_per_round"].as_f64().ok_or("no figure")?;
    println!("path,{name},{round},{ns:.0}");
    Ok(())
}
