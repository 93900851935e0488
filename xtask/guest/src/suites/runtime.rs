//! The daemon's configuration is changed over HTTP while it schedules; agents that do not live; metrics through all of it.

use super::control::{FOLDER, STATE, change, decides, http_status, metric};
use super::{balanced, enable_seq, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, assert_disabled, number};
use crate::{Context, Result, sys};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const FLIPS: usize = 100;
const SWITCHES: usize = 20;
/// The core is loaded before the other one goes, so that this is only the time in which tasks are handed over, on a machine
/// that may be emulated and busy.
const GAP_MS: u64 = 600;
/// Eight agents start, on a machine that may be emulated.
const CRASH_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let _ = std::fs::remove_dir_all(FOLDER);
    let daemon = Daemon::start("", &["--set", STATE, "--set", "monitor.enabled=on"])?;
    let seq = enable_seq()?;
    let secs = (time * 2 + Duration::from_secs(2)).as_secs_f64().to_string();
    let hogs =
        Background::load(&["race", "--secs", &secs, "hogs:3", "sleepers:4:work_us=200:sleep_us=2000"])?;
    checks.check("runtime.flips", || {
        let mut slowest = 0;
        for n in 0..FLIPS {
            let begun = sys::now_ns();
            change(json!({ "kernelMode": n % 2 == 0 }), "", 200)?;
            slowest = slowest.max(sys::now_ns() - begun);
            let mode = sched::mode(&daemon.status()?)?;
            ensure((mode == "kernel") == (n % 2 == 0), || format!("mode {mode} after flip {n}"))?;
            sys::sleep(time / FLIPS as u32);
        }
        decides(&daemon, seq)?;
        Ok(format!("{FLIPS} times, at most {} ms each; nothing was detached", slowest / 1_000_000))
    });
    checks.check("runtime.plugins", || {
        for n in 0..SWITCHES {
            let plugin = ["simple", "gthulhu", "simple-fifo", "gthulhu"][n % 4];
            let slice = 2_000_000 + n as u64 * 100_000;
            change(json!({ "mode": plugin, "sliceNsDefault": slice, "permit": n % 3 }), "", 200)?;
            let status = decides(&daemon, seq)?;
            ensure(status["plugin"] == plugin, || {
                format!("plugin {} instead of {plugin}", status["plugin"])
            })?;
            sys::sleep(time / SWITCHES as u32);
        }
        let status = daemon.status()?;
        let replaced = number(&status, "/agent/replaced")?;
        ensure(replaced == SWITCHES as u64, || format!("{replaced} agents were replaced"))?;
        ensure(number(&status, "/agent/restarts")? == 0, || "an agent ended by itself".into())?;
        Ok(format!("{SWITCHES} times with other slices and permits; nothing was detached"))
    });
    drop(hogs);
    checks.check("runtime.reattach", || {
        let refused = change(json!({ "builtinIdle": true }), "", 409)?;
        ensure(refused["reattach"][0]["key"] == "builtin_idle", || format!("{refused}"))?;
        decides(&daemon, seq)?;
        let done = change(json!({ "builtinIdle": true }), "?reattach=true", 200)?;
        ensure(done["reattached"] == true, || format!("{done}"))?;
        decides(&daemon, seq + 1)?;
        let (gap, load) = (number(&done, "/gapMs")?, number(&done, "/loadMs")?);
        let text =
            format!("refused, then done when asked for: loaded within {load} ms, then a gap of {gap} ms");
        ensure(gap <= GAP_MS, || format!("{text}; allowed {GAP_MS}"))?;
        // Every switch of the core, on and off, in one change each.
        let all =
            ["debug", "earlyProcessing", "builtinIdle", "maxTimeWatchdog", "keepLocal", "limits", "partial"];
        for (n, on) in [false, true].into_iter().enumerate() {
            let body = all.map(|name| (name.to_owned(), json!(on && name != "partial")));
            change(body.into_iter().collect(), "?reattach=true", 200)?;
            decides(&daemon, seq + 2 + n as u64)?;
            let status = http_status()?;
            let wrong = all.iter().find(|name| status[**name] != json!(on && **name != "partial"));
            ensure(wrong.is_none(), || format!("{wrong:?} after all were set to {on}: {status}"))?;
        }
        Ok(format!("{text}; {} switches of the core off and on", all.len()))
    });
    checks.check("runtime.none", || {
        change(json!({ "mode": "none" }), "", 200)?;
        assert_disabled()?;
        metric("gthulhu_scheduler_mode{mode=\"none\"} 1")?;
        metric("gthulhu_monitor_running 1")?;
        change(json!({ "schedulerEnabled": false, "mode": "gthulhu" }), "", 200)?;
        assert_disabled()?;
        change(json!({ "schedulerEnabled": true }), "", 200)?;
        decides(&daemon, seq + 4)?;
        metric("gthulhu_scheduler_mode{mode=\"normal\"} 1")?;
        Ok("off and on by mode and by schedulerEnabled; monitor and metrics went on".into())
    });
    checks.check("runtime.crash", || {
        let mut killed = 0;
        wait_for("the end of the crash loop", CRASH_LIMIT, || {
            let status = daemon.status()?;
            if status["mode"] == "none" {
                return Ok(Some(()));
            }
            if let Some(pid) = sched::agent_pid(&status) {
                // It may be gone already.
                killed += u32::from(sys::signal(pid, libc::SIGKILL).is_ok());
            }
            Ok(None)
        })?;
        assert_disabled()?;
        let status = daemon.status()?;
        ensure(status["reason"] == "crash loop", || format!("{status}"))?;
        metric("gthulhu_scheduler_off_info{why=\"crash loop\"} 1")?;
        metric("gthulhu_monitor_running 1")?;
        let out = Command::new(sched::daemon_program()).args(["mode", "agent"]).output().cannot("run it")?;
        ensure(out.status.success(), || String::from_utf8_lossy(&out.stderr).into_owned())?;
        decides(&daemon, seq + 5)?;
        Ok(format!("{killed} kills: the kernel's own scheduler, and ours again when asked for"))
    });
    checks.check("runtime.restart", || {
        stop_well(daemon).and_then(|(outcome, _)| balanced(&outcome.report))?;
        let seq = enable_seq()?;
        let daemon = Daemon::start("", &["--set", STATE, "--set", "monitor.enabled=on"])?;
        let status = http_status()?;
        ensure(status["builtinIdle"] == true && status["applied"] == true, || format!("{status}"))?;
        decides(&daemon, seq + 1)?;
        let (outcome, _) = stop_well(daemon)?;
        balanced(&outcome.report)
    });
    let _ = std::fs::remove_dir_all(FOLDER);
    Ok(())
}
