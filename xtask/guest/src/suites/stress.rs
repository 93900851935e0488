//! Each plugin, idle and under loads that fork, switch and change their CPUs.

use super::{PLUGINS, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::Background;
use crate::sched::{Daemon, number};
use crate::{Result, sys};
use serde_json::Value;
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(3);
/// A load ends later than it was told to when all CPUs are busy; this much is still no failure of the scheduler.
const GRACE: Duration = Duration::from_secs(15);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    for plugin in PLUGINS {
        let name = |what: &str| format!("stress.{plugin}.{what}");
        let daemon = Daemon::start(plugin, &[])?;
        let seq = enable_seq()?;
        let mut before = None;
        checks.check(&name("idle"), || {
            sys::sleep(IDLE);
            let status = before.insert(healthy(&daemon, seq)?);
            Ok(figures(status))
        });
        let before = before.ok_or("no status to begin with")?;
        checks.check(&name("hackbench"), || {
            let mut hackbench = Background::hackbench(2)?;
            sys::sleep(time);
            let status = healthy(&daemon, seq)?;
            ensure(hackbench.is_running()?, || "hackbench failed".into())?;
            decided(&before, &status)?;
            Ok(figures(&status))
        });
        checks.check(&name("fork_switch_affinity"), || {
            let stressors = ["--fork", "2", "--affinity", "2", "--switch", "2"];
            let mut stress = Background::stress_ng(&stressors, time)?;
            let secs = time.as_secs_f64().to_string();
            let hammer = Background::load(&["affinity", "--tasks", "8", "--secs", &secs])?;
            let hammer = hammer.figures(time + GRACE)?;
            let status = stress.wait(GRACE)?;
            ensure(status.success(), || format!("stress-ng ended with {status}"))?;
            ensure(hammer["failed"] == 0, || format!("masks: {hammer}"))?;
            let masks = format!("masks changed: {} own, {} foreign", hammer["own"], hammer["foreign"]);
            let status = healthy(&daemon, seq)?;
            decided(&before, &status)?;
            Ok(format!("{}; {masks}", figures(&status)))
        });
        checks.check(&name("no_faults"), || {
            // The agent may not wait for memory. What it touched when it started does not count.
            let after = daemon.status()?;
            let faults = |status, kind| number(status, &format!("/agent/{kind}_faults"));
            let new = faults(&after, "minor")? - faults(&before, "minor")?;
            let major = faults(&after, "major")? - faults(&before, "major")?;
            ensure(new == 0 && major == 0, || format!("{new} minor, {major} major page faults under load"))?;
            Ok("no page fault, no allocation on the agent's thread".into())
        });
        let mut report = None;
        checks.check(&name("stop"), || {
            let (outcome, text) = stop_well(daemon)?;
            report = Some(outcome.report);
            Ok(text)
        });
        checks.check(&name("ledgers"), || balanced(&report.ok_or("there is no report")?));
    }
    Ok(())
}

/// Fails unless the agent has decided under the load, and not the core alone; in kernel mode, unless that has.
fn decided(before: &Value, after: &Value) -> Result<()> {
    let applied = |status| number(status, crate::sched::decided());
    let new = applied(after)? - applied(before)?;
    ensure(new >= 100, || format!("only {new} decisions under load: {}", figures(after)))
}

fn figures(status: &Value) -> String {
    let count = |pointer: &str| number(status, pointer).unwrap_or(0);
    format!(
        "events {}, applied {}, bounced {}, stale {}, taken over {}, congested {}, mode {}, left {}, max parked {} us",
        count("/counters/ev_sent"),
        count("/counters/dec_applied"),
        count("/counters/dec_bounced"),
        count("/counters/dec_stale"),
        count("/counters/ev_taken_over"),
        count("/counters/congested"),
        status["mode"],
        count("/transitions/left"),
        count("/counters/max_parked_ns") / 1000,
    )
}
