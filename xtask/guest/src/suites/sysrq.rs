//! The magic keys: a dump that disturbs nobody, and the end of the scheduler by hand.

use super::scene::{GAP, Pulse, own_gap};
use super::{PLUGIN, a_task_runs, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::wait_for;
use crate::sched::{self, Daemon, Scx};
use crate::{Context, Result, sys};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);
/// `SCX_EXIT_SYSRQ`.
const KIND: u64 = 67;

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    own_gap()?;
    let daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    let mut pulse = Pulse::start();
    checks.check("sysrq.dump", || {
        press("D")?;
        sys::sleep(Duration::from_secs(2));
        let status = healthy(&daemon, seq)?;
        ensure(status["mode"] == sched::usual_mode(), || format!("mode {}", status["mode"]))?;
        Ok(format!("enable_seq {seq}; {}", pulse.verdict(GAP)?))
    });
    drop(pulse);
    checks.check("sysrq.end", || {
        press("S")?;
        wait_for("end of the scheduler", LIMIT, || Ok((Scx::read()?.state == "disabled").then_some(())))?;
        let (outcome, said) = daemon.ended(LIMIT)?;
        let exit = &outcome.report["exit"];
        ensure(exit["kind"] == KIND, || format!("exit {exit}, wanted kind {KIND}"))?;
        ensure(said.to_lowercase().contains("sysrq"), || format!("it does not name SysRq: {said}"))?;
        // Somebody wanted it: that is no failure of the scheduler.
        ensure(outcome.code != 1, || format!("exit code 1, as for an ejection: {said}"))?;
        balanced(&outcome.report)?;
        a_task_runs()?;
        Ok(format!("exit code {}, {exit}", outcome.code))
    });
    checks.check("sysrq.again", || {
        let next = Daemon::start(PLUGIN, &[])?;
        let started_in = next.started_in;
        let (outcome, text) = stop_well(next)?;
        balanced(&outcome.report)?;
        Ok(format!("the next daemon decides after {} ms; {text}", started_in.as_millis()))
    });
    Ok(())
}

fn press(key: &str) -> Result<()> {
    fs::write("/proc/sysrq-trigger", key).cannot(format_args!("press SysRq-{key}"))
}
