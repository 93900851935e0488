//! A daemon of somebody else's: its policy runs, and one that does not return is ended.

use super::smoke::{one_process, sleep_and_wake};
use super::{balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{self, wait_for};
use crate::sched::{Daemon, daemon_program, number};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// How long a turn may last in these drills, and the longest until it was noticed.
const MAX_TURN: &str = "500";
const LIMIT: Duration = Duration::from_secs(15);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    checks.check("plugin.list", list);
    checks.check("plugin.runs", runs);
    checks.check("plugin.stuck", || hangs("stuck", "asleep=false"));
    checks.check("plugin.blocked", || hangs("blocked", "asleep=true"));
    checks.check("plugin.stopped", stopped);
    checks.check("plugin.made", || one_process("/bin/made-scheduler", "made_scheduler"));
    Ok(())
}

fn list() -> Result<String> {
    let said =
        process::run(Command::new(daemon_program()).args(["plugins", "--json"]), Duration::from_secs(3))?;
    ensure(said.code == 0, || format!("exit code {}: {}", said.code, said.err))?;
    let list: Value = serde_json::from_str(&said.out).cannot("understand the list")?;
    let first = &list["plugins"][0];
    ensure(first["name"] == "mine" && first["default"] == true, || format!("the first is {first}"))?;
    Ok(format!(
        "{} plugins, the first is {}: {}",
        list["plugins"].as_array().map_or(0, Vec::len),
        first["name"],
        first["about"]
    ))
}

fn runs() -> Result<String> {
    let daemon = Daemon::start("mine", &[])?;
    let seq = enable_seq()?;
    sleep_and_wake();
    let status = healthy(&daemon, seq)?;
    ensure(status["plugin"] == "mine" && status["ops"] == "gthulhu_mine", || {
        format!("plugin {}, ops {}", status["plugin"], status["ops"])
    })?;
    let applied = number(&status, "/counters/dec_applied")?;
    ensure(applied > 0, || "no decision was applied".into())?;
    let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
    let exe = std::fs::read_link(format!("/proc/{agent}/exe")).cannot("see the agent's program")?;
    let own = std::fs::canonicalize(daemon_program()).cannot("find the daemon's program")?;
    ensure(exe == own, || format!("the agent runs {}", exe.display()))?;
    let (outcome, _) = stop_well(daemon)?;
    Ok(format!("{applied} decisions of {} applied; {}", exe.display(), balanced(&outcome.report)?))
}

/// A call of the policy does not return: the agent is ended, another decides, and nothing is loaded anew.
fn hangs(reason: &str, how: &str) -> Result<String> {
    let options = ["--option", "after-ms=1500", "--option", how, "--max-turn-ms", MAX_TURN];
    let daemon = Daemon::start("hangs", &options)?;
    let (seq, first) = (enable_seq()?, daemon.agent_pid()?);
    let pointer = format!("/agent/restarts_by_reason/{reason}");
    let (_, noticed) = wait_for("end of the agent that hangs", LIMIT, || {
        Ok((number(&daemon.status()?, &pointer)? > 0).then_some(()))
    })?;
    let (next, back) = wait_for("decisions of the next agent", LIMIT, || {
        let status = daemon.status()?;
        let agent = crate::sched::agent_pid(&status);
        Ok((status["mode"] == "normal" && agent != first).then_some(agent))
    })?;
    let late = number(&healthy(&daemon, seq)?, "/transitions/entered/late")?;
    ensure(late > 0, || "the core was never late".into())?;
    let (outcome, _) = stop_well(daemon)?;
    Ok(format!(
        "ended after {} ms, agent {next:?} decides {} ms later; {}",
        noticed.as_millis(),
        back.as_millis(),
        balanced(&outcome.report)?
    ))
}

/// Somebody looks at the agent: it is left alone, for longer than a turn may last.
fn stopped() -> Result<String> {
    let daemon = Daemon::start("mine", &["--max-turn-ms", MAX_TURN])?;
    let seq = enable_seq()?;
    let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
    sys::signal(agent, libc::SIGSTOP)?;
    sys::sleep(Duration::from_secs(3));
    let status = daemon.status();
    sys::signal(agent, libc::SIGCONT)?;
    let state = &status?["agent"]["state"];
    ensure(state == "stopped", || format!("the status says that the agent is {state}"))?;
    let (_, back) = wait_for("decisions after the stop", LIMIT, || {
        Ok((daemon.status()?["mode"] == "normal").then_some(()))
    })?;
    sys::sleep(Duration::from_secs(1));
    let status = healthy(&daemon, seq)?;
    ensure(daemon.agent_pid()? == Some(agent) && number(&status, "/agent/restarts")? == 0, || {
        format!("it was ended: {}", status["agent"])
    })?;
    stop_well(daemon)?;
    Ok(format!("stopped for 3 s and reported so, not ended; decides {} ms later", back.as_millis()))
}
