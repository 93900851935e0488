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
const WARM_UP: Duration = Duration::from_secs(20);

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
        // And once more through the kernel's ring buffers.
        let plugins = crate::suites::PLUGINS.map(|plugin| (plugin, None));
        for (plugin, transport) in plugins.into_iter().chain([(crate::suites::PLUGINS[1], Some("rings"))]) {
            let args = transport.map_or(Vec::new(), |name| vec!["--transport", name]);
            let daemon = Daemon::start(plugin, &args)?;
            let before = number(&daemon.status()?, "/counters/ev_dispatched")?;
            let name = transport.map_or(plugin.to_owned(), |name| format!("{plugin}/{name}"));
            print(&name, round, round_trips)?;
            assert_active(OPS_PREFIX)?;
            let decided = number(&daemon.status()?, "/counters/ev_dispatched")? - before;
            // Two wakeups in a round trip. If the core decides, this is not the path of a decision.
            ensure(decided >= 2 * round_trips * 9 / 10, || {
                format!("{plugin}: {decided} decisions in {round_trips} round trips")
            })?;
            daemon.stop()?;
        }
        core_alone(round, round_trips)?;
    }
    Ok(())
}

/// The price of the core by itself: the agent is stopped, and everything goes by the core's own rule.
fn core_alone(round: u32, round_trips: u64) -> Result<()> {
    let daemon = Daemon::start(crate::suites::PLUGINS[0], &[])?;
    let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
    sys::signal(agent, libc::SIGSTOP)?;
    wait_for("degraded mode", Duration::from_secs(5), || {
        // Something has to wait for the agent before it can be late.
        sys::sleep(Duration::from_millis(5));
        Ok((mode(&daemon.status()?)? == "degraded").then_some(()))
    })?;
    print("core alone", round, round_trips)?;
    ensure(mode(&daemon.status()?)? == "degraded", || "the stopped agent is back".into())?;
    sys::signal(agent, libc::SIGCONT)?;
    daemon.stop()?;
    Ok(())
}

fn print(name: &str, round: u32, round_trips: u64) -> Result<()> {
    let figures = load::pipe(round_trips, None)?;
    let ns = figures["ns_per_round"].as_f64().ok_or("no figure")?;
    println!("path,{name},{round},{ns:.0}");
    Ok(())
}
