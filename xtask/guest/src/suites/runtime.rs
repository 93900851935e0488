//! The daemon's configuration is changed over HTTP while it schedules; agents that do not live; metrics through all of it.

use super::{balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, assert_disabled, number};
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
const CONTROL: &str = "127.0.0.1:18080";
const METRICS: &str = "127.0.0.1:9090";
const STATE: &str = "daemon.runtime_config_path=/var/lib/gthulhu-lab/runtime.json";
const FLIPS: usize = 100;
const SWITCHES: usize = 20;
const LIMIT: Duration = Duration::from_secs(10);
/// Eight agents start, on a machine that may be emulated.
const CRASH_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let _ = std::fs::remove_dir_all("/var/lib/gthulhu-lab");
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
        Ok(format!("refused, then done when asked for; the gap was {} ms", done["gapMs"]))
    });
    checks.check("runtime.none", || {
        change(json!({ "mode": "none" }), "", 200)?;
        assert_disabled()?;
        metric("gthulhu_scheduler_mode{mode=\"none\"} 1")?;
        metric("gthulhu_monitor_running 1")?;
        change(json!({ "schedulerEnabled": false, "mode": "gthulhu" }), "", 200)?;
        assert_disabled()?;
        change(json!({ "schedulerEnabled": true }), "", 200)?;
        decides(&daemon, seq + 2)?;
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
        decides(&daemon, seq + 3)?;
        Ok(format!("{killed} kills: the kernel's own scheduler, and ours again when asked for"))
    });
    checks.check("runtime.restart", || {
        stop_well(daemon).and_then(|(outcome, _)| balanced(&outcome.report))?;
        let seq = enable_seq()?;
        let daemon = Daemon::start("", &["--set", STATE, "--set", "monitor.enabled=on"])?;
        let status = ask(CONTROL, "GET", "/api/v1/status", "")?.1;
        let status: Value = serde_json::from_str(&status).cannot("understand the status")?;
        ensure(status["builtinIdle"] == true && status["applied"] == true, || format!("{status}"))?;
        decides(&daemon, seq + 1)?;
        let (outcome, _) = stop_well(daemon)?;
        balanced(&outcome.report)
    });
    let _ = std::fs::remove_dir_all("/var/lib/gthulhu-lab");
    Ok(())
}

/// Waits until the agent decides, on the core that was attached as number `seq`.
fn decides(daemon: &Daemon, seq: u64) -> Result<Value> {
    wait_for("the agent", LIMIT, || {
        let status = daemon.status()?;
        Ok((status["mode"] == "normal" && sched::agent_pid(&status).is_some()).then_some(()))
    })?;
    healthy(daemon, seq)
}

fn metric(line: &str) -> Result<()> {
    let (code, text) = ask(METRICS, "GET", "/metrics", "")?;
    ensure(code == 200 && text.lines().any(|l| l == line), || format!("no {line}: {text}"))
}

/// Posts a change, and fails unless it is answered with this code.
fn change(mut body: Value, query: &str, wanted: u16) -> Result<Value> {
    body["configVersion"] = sys::now_ns().to_string().into();
    let (code, text) = ask(CONTROL, "POST", &format!("/api/v1/runtime-config{query}"), &body.to_string())?;
    ensure(code == wanted, || format!("{body}: {code} {text}"))?;
    serde_json::from_str(&text).cannot("understand the answer")
}

fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).cannot(format_args!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT)).cannot("set a time")?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).cannot("ask")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).cannot("read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer but '{text}'"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no code")?;
    Ok((code, body.to_owned()))
}
