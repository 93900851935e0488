//! Options of `run`, and what the daemon says about plugins and the machine.

use super::inputs::{Hidden, refused};
use super::smoke::sleep_and_wake;
use super::{ALL_PLUGINS, PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{self, Background};
use crate::sched::{Daemon, SCHED_EXT, assert_disabled, daemon_program, number};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::process::Command;
use std::thread;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);
const USAGE: i32 = 64;
const CANNOT_RUN: i32 = 78;
/// The class SCHED_EXT in sched(7).
const EXT: i32 = 7;

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    checks.check("options.doctor", doctor);
    checks.check("options.doctor_no_sched_ext", || {
        let _hidden = Hidden::new(SCHED_EXT)?;
        let (code, report) = json(&["doctor"])?;
        let first = &report["findings"][0];
        ensure(code == CANNOT_RUN && report["can_run"] == false && first["severity"] == "error", || {
            format!("exit code {code}, first finding {first}")
        })?;
        Ok(format!("exit code {code}: {}; {}", first["text"], first["remedy"]))
    });
    checks.check("options.plugins", || {
        let (code, list) = json(&["plugins"])?;
        let has =
            |name: &str| list["plugins"].as_array().is_some_and(|l| l.iter().any(|p| p["name"] == name));
        ensure(code == 0 && ALL_PLUGINS.into_iter().all(has), || format!("exit code {code}: {list}"))?;
        Ok(format!("{ALL_PLUGINS:?}"))
    });
    checks.check("options.fifo", || well("simple", &["--option", "fifo=true"]));
    checks.check("options.wrong", || {
        let run = |args: &[&str], words: &[&str]| {
            refused(Command::new(daemon_program()).arg("run").args(args), USAGE, words)
        };
        run(&["--plugin", "simple", "--option", "lifo=true"], &["lifo", "fifo"])?;
        run(&["--btf", "/etc/passwd"], &["/etc/passwd"])?;
        run(&["--stall-timeout-ms", "2000", "--heartbeat-ms", "1500"], &["heartbeat"])?;
        let said = run(&["--agent-cpus", "7-3"], &["7-3"])?;
        assert_disabled()?;
        Ok(said)
    });
    checks.check("options.core", || {
        let args = ["--stall-timeout-ms", "10000", "--late-ms", "60", "--dump-len", "16384", "--btf"];
        well(PLUGIN, &[&args[..], &["/sys/kernel/btf/vmlinux"]].concat())
    });
    checks.check("options.agent_cpus", || {
        let daemon = Daemon::start(PLUGIN, &["--agent-cpus", "1"])?;
        let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
        let cpus = sys::affinity(agent)?;
        ensure(cpus == 0b10, || format!("the agent may use the CPUs {cpus:#b}"))?;
        finish(daemon)
    });
    checks.check("options.partial", partial);
    checks.check("options.kernel_idle", || {
        let bypassed = |args: &[&str]| counted(args, &[], "idle_bypass");
        let (off, on) = (bypassed(&[])?, bypassed(&["--kernel-idle"])?);
        ensure(off == 0 && on > 50, || {
            format!("{off} wakeups bypassed the policy without it, {on} with it")
        })?;
        Ok(format!("{on} wakeups bypassed the policy, {off} without the option"))
    });
    checks.check("options.max_run", || {
        // A slice is longer than this, so with others waiting there is a run to cut at almost every tick.
        let cut = |ms: &str| {
            counted(&["--max-run-ms", ms, "--slice-us", "20000"], &["hogs", "6", "--secs", "3"], "overruns")
        };
        let (short, never) = (cut("2")?, cut("0")?);
        ensure(short > 10 && never == 0, || format!("{short} runs cut at 2 ms, {never} without a limit"))?;
        Ok(format!("{short} runs cut at 2 ms, {never} without a limit"))
    });
    checks.check("options.transport", || {
        let chosen = |name: &str| -> Result<String> {
            let daemon = Daemon::start(PLUGIN, &["--transport", name])?;
            let status = daemon.status()?;
            ensure(status["transport"] == name, || format!("status says {}", status["transport"]))?;
            Ok(format!("{name}: {}", finish(daemon)?))
        };
        Ok([chosen("shared")?, chosen("rings")?].join("; "))
    });
    checks.check("options.preempt", || well(PLUGIN, &["--permit", "0", "--preempt-us", "200"]));
    checks.check("options.early_kthreads", || well(PLUGIN, &["--early-kthreads", "on"]));
    checks.check("options.keep_local", || well(PLUGIN, &["--keep-local", "--numa-local"]));
    Ok(())
}

/// Its exit code and its JSON.
fn json(args: &[&str]) -> Result<(i32, Value)> {
    let said = process::run(Command::new(daemon_program()).args(args).arg("--json"), LIMIT)?;
    let report =
        serde_json::from_str(&said.out).cannot(format_args!("understand {:?} {:?}", said.out, said.err))?;
    Ok((said.code, report))
}

fn doctor() -> Result<String> {
    let said = process::run(Command::new(daemon_program()).arg("doctor"), LIMIT)?;
    said.out.lines().for_each(|line| println!("# {line}"));
    let (code, report) = json(&["doctor"])?;
    let can_run = code == 0 && said.code == 0 && report["can_run"] == true;
    ensure(can_run, || format!("exit code {code}: {report}"))?;
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    ensure(findings >= 15, || format!("only {findings} findings"))?;
    Ok(format!("{findings} findings, {} warnings", report["warnings"]))
}

fn well(plugin: &str, args: &[&str]) -> Result<String> {
    finish(Daemon::start(plugin, args)?)
}

/// A counter after a second and a half with these options, under a load if one is named; the daemon ends well.
fn counted(args: &[&str], load: &[&str], counter: &str) -> Result<u64> {
    let daemon = Daemon::start(PLUGIN, args)?;
    let seq = enable_seq()?;
    let load = (!load.is_empty()).then(|| Background::load(load)).transpose()?;
    sleep_and_wake();
    sys::sleep(Duration::from_millis(500));
    let count = number(&healthy(&daemon, seq)?, &format!("/counters/{counter}"))?;
    drop(load);
    let (outcome, _) = stop_well(daemon)?;
    balanced(&outcome.report)?;
    Ok(count)
}

/// Lets it decide for a second, and stops it.
fn finish(daemon: Daemon) -> Result<String> {
    let seq = enable_seq()?;
    let before = number(&daemon.status()?, "/counters/dec_applied")?;
    sleep_and_wake();
    let applied = number(&healthy(&daemon, seq)?, "/counters/dec_applied")? - before;
    ensure(applied > 0, || "no decision was applied".into())?;
    let (outcome, _) = stop_well(daemon)?;
    Ok(format!("{applied} decisions in a second; {}", balanced(&outcome.report)?))
}

/// Only tasks of the class SCHED_EXT, the agent among them, are ours.
fn partial() -> Result<String> {
    let daemon = Daemon::start(PLUGIN, &["--partial"])?;
    let seq = enable_seq()?;
    let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
    ensure(sys::class(agent) == EXT, || format!("the agent's class is {}", sys::class(agent)))?;
    let sent = || number(&healthy(&daemon, seq)?, "/counters/ev_sent");
    let start = sent()?;
    sleep_and_wake();
    let (others, start) = (sent()? - start, sent()?);
    thread::spawn(|| sys::set_policy(0, sys::Policy::Ext).map(|()| sleep_and_wake()))
        .join()
        .map_err(|_| "a thread panicked")??;
    let ours = sent()? - start;
    ensure(others < 50 && ours > 200, || {
        format!("{others} events of tasks that are not ours, {ours} of those that are")
    })?;
    let (outcome, _) = stop_well(daemon)?;
    Ok(format!("{ours} events of SCHED_EXT tasks, {others} of others; {}", balanced(&outcome.report)?))
}
