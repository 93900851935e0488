//! The magic keys: a dump that disturbs nobody, and the end of the scheduler by hand.

use super::scene::{GAP, Pulse, own_gap};
use super::{PLUGIN, a_task_runs, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::wait_for;
use crate::sched::{self, Daemon, Scx};
use crate::{Context, Result, sys};
use std::fs;
use std::process::Command;
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
        // Somebody wanted it: the daemon goes on, and leaves it at that.
        let (status, _) = wait_for("report of the end", LIMIT, || {
            Ok(Some(daemon.status()?).filter(|status| status["mode"] == "none"))
        })?;
        let exit = &status["exit"];
        ensure(exit["kind"] == KIND, || format!("exit {exit}, wanted kind {KIND}"))?;
        ensure(status["reason"] == "removed", || format!("reason {}", status["reason"]))?;
        let message = status["message"].as_str().unwrap_or_default();
        ensure(message.to_lowercase().contains("sysrq"), || format!("it does not name SysRq: {message}"))?;
        balanced(&status["last"])?;
        a_task_runs()?;
        sys::sleep(Duration::from_secs(1));
        ensure(Scx::read()?.state == "disabled", || "it came back by itself".into())?;
        Ok(format!("{message}; ledgers balanced"))
    });
    checks.check("sysrq.back", || {
        let told = Command::new(sched::daemon_program()).args(["mode", "agent"]).output().cannot("run it")?;
        ensure(told.status.success(), || String::from_utf8_lossy(&told.stderr).into_owned())?;
        healthy(&daemon, seq + 1)?;
        let (outcome, text) = stop_well(daemon)?;
        balanced(&outcome.report)?;
        Ok(format!("when asked for; {text}"))
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
