//! From the kernel's scheduler to ours to another project's program and back, while the monitor measures. The other
//! project's is an example of this repository under a name of the list, unless a real one is in /bin (`lab run --with`).

use super::control::{FOLDER, STATE, change, decides, metric, metric_sum};
use super::{a_task_runs, enable_seq, inputs};
use crate::check::{Checks, ensure};
use crate::process::wait_for;
use crate::sched::{self, Daemon, Scx, assert_disabled, number};
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PROGRAMS: &str = "/opt/scx";
const SET: &str = "scheduler.scx_folder=/opt/scx";
/// A stand-in under this name, and another one that ends at once.
const STAND_IN: (&str, &str) = ("scx_rlfifo", "fifo");
const DEAD: &str = "scx_flash";
const REAL: (&str, &str) = ("scx_bpfland", "bpfland");
const USAGE: i32 = 64;
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    let _ = fs::remove_dir_all(FOLDER);
    let (name, ops) = if Path::new("/bin").join(REAL.0).exists() { REAL } else { STAND_IN };
    let source = if name == REAL.0 { "/bin/scx_bpfland" } else { "/bin/fifo" };
    install(source, name)?;
    install("/bin/busybox", DEAD)?;
    checks.check("switch.refused", refused);
    let mut daemon = Daemon::start("", &["--set", STATE, "--set", "monitor.enabled=on", "--set", SET])?;
    let seq = enable_seq()?;
    checks.check("switch.there", || {
        let events = metric_sum("gthulhu_monitor_events_total")?;
        change(json!({ "mode": "scx", "schedulerName": name }), "", 200)?;
        let status = schedules(&daemon, name, ops)?;
        ensure(Scx::read()?.enable_seq == seq + 1, || format!("{status}"))?;
        a_task_runs()?;
        metric("gthulhu_scheduler_mode{mode=\"scx\"} 1")?;
        metric("gthulhu_monitor_running 1")?;
        let now = metric_sum("gthulhu_monitor_events_total")?;
        ensure(now > events, || format!("the monitor had seen {events} events, and now {now}"))?;
        Ok(format!(
            "{name} schedules as {}; the gap, with its load, was {} ms; the monitor counted on",
            status["ops"], status["attaches"]["last_gap_ms"]
        ))
    });
    checks.check("switch.killed", || {
        let old = pid(&daemon.status()?)?;
        sys::signal(old, libc::SIGKILL)?;
        let ((), took) = wait_for("another", LIMIT, || {
            let status = daemon.status()?;
            Ok((status["upstream"]["state"] == "schedules" && pid(&status)? != old).then_some(()))
        })?;
        let status = schedules(&daemon, name, ops)?;
        ensure(number(&status, "/upstream_restarts")? == 1, || format!("{status}"))?;
        Ok(format!(
            "another one schedules after {} ms; the one before {}",
            took.as_millis(),
            status["upstream_last_end"]
        ))
    });
    checks.check("switch.dead", || {
        let refused = change(json!({ "schedulerName": DEAD }), "?reattach=true", 500)?;
        let why = refused["error"].as_str().unwrap_or_default().to_owned();
        ensure(why.starts_with("nothing was changed") && why.contains("applet not found"), || why.clone())?;
        schedules(&daemon, name, ops)?;
        Ok(format!("{why}; {name} schedules again"))
    });
    checks.check("switch.back", || {
        let seq = enable_seq()?;
        let done = change(json!({ "mode": "gthulhu" }), "", 200)?;
        decides(&daemon, seq + 1)?;
        let (gap, load) = (number(&done, "/gapMs")?, number(&done, "/loadMs")?);
        change(json!({ "mode": "none" }), "", 200)?;
        assert_disabled()?;
        change(json!({ "mode": "scx" }), "", 200)?;
        schedules(&daemon, name, ops)?;
        Ok(format!("gthulhu was loaded within {load} ms, then a gap of {gap} ms; none; {name} again"))
    });
    checks.check("switch.loop", || {
        // The file is replaced by one that ends at once.
        install("/bin/busybox", name)?;
        sys::signal(pid(&daemon.status()?)?, libc::SIGKILL)?;
        let (status, took) = wait_for("end of the crash loop", LIMIT, || {
            Ok(Some(daemon.status()?).filter(|status| status["reason"] == "crash loop"))
        })?;
        assert_disabled()?;
        a_task_runs()?;
        metric("gthulhu_monitor_running 1")?;
        metric("gthulhu_scheduler_off_info{why=\"crash loop\"} 1")?;
        install(source, name)?;
        change(json!({}), "", 200)?;
        schedules(&daemon, name, ops)?;
        Ok(format!("given up after {} ms: {}; again when asked for", took.as_millis(), status["message"]))
    });
    checks.check("switch.supervisor", || {
        let program = pid(&daemon.status()?)?;
        daemon.kill_supervisor()?;
        let ((), took) = wait_for("end of the scheduler", LIMIT, || Ok(assert_disabled().ok()))?;
        // The kernel's scheduler is back before the process has ended: its memory goes first.
        wait_for("end of the program", LIMIT, || Ok((!sys::is_alive(program)).then_some(())))?;
        a_task_runs()?;
        Ok(format!("killed: {name} went with it, and the kernel's own is back after {} ms", took.as_millis()))
    });
    let _ = fs::remove_dir_all(FOLDER);
    Ok(())
}

/// What is not run: nothing is loaded for it, and file, line, field and reason are said.
fn refused() -> Result<String> {
    let file = "/run/scx.yaml";
    let refuse = |name: &str, folder: &str, words: &[&str]| {
        let yaml = format!("scheduler:\n  mode: scx\n  scheduler_name: {name}\n  scx_folder: {folder}\n");
        fs::write(file, yaml).cannot(format_args!("write {file}"))?;
        let mut daemon = Command::new(sched::daemon_program());
        inputs::refused(daemon.args(["run", "--config", file]), USAGE, words)
    };
    refuse(
        "sh",
        PROGRAMS,
        &["/run/scx.yaml:3:19: scheduler.scheduler_name: 'sh' is no scheduler that is run"],
    )?;
    refuse("../../bin/sh", PROGRAMS, &["scx.yaml:3:19: scheduler.scheduler_name"])?;
    refuse(STAND_IN.0, "opt/scx", &["scx.yaml:4:15: scheduler.scx_folder: 'opt/scx' is no absolute path"])?;
    refuse(
        "scx_lavd",
        PROGRAMS,
        &["scx.yaml:3:19: scheduler.scheduler_name: /opt/scx/scx_lavd: is not there"],
    )?;
    symlink("/bin/fifo", "/opt/scx/scx_lavd").cannot("make a link")?;
    let link = refuse("scx_lavd", PROGRAMS, &["scx.yaml:3:19: ", "/opt/scx/scx_lavd: is a link"])?;
    let mode = |mode| fs::set_permissions(PROGRAMS, fs::Permissions::from_mode(mode)).cannot("change a mode");
    mode(0o777)?;
    refuse(STAND_IN.0, PROGRAMS, &["/opt/scx: others than root may write it (mode 0777)"])?;
    mode(0o755)?;
    fs::remove_file("/opt/scx/scx_lavd").cannot("remove a link")?;
    assert_disabled()?;
    Ok(link)
}

fn install(from: &str, name: &str) -> Result<()> {
    fs::create_dir_all(PROGRAMS).cannot(format_args!("make {PROGRAMS}"))?;
    let to = Path::new(PROGRAMS).join(name);
    let new = to.with_extension("new");
    fs::copy(from, &new).cannot(format_args!("copy {from}"))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).cannot("make it a program")?;
    fs::rename(&new, &to).cannot(format_args!("install {name}"))
}

fn pid(status: &Value) -> Result<i32> {
    Ok(number(status, "/upstream/pid").map(|pid| pid as i32).unwrap_or(0))
}

/// Waits until daemon and kernel agree that it schedules.
fn schedules(daemon: &Daemon, name: &str, ops: &str) -> Result<Value> {
    let look = || {
        let status = daemon.status()?;
        let said = status["mode"] == "scx"
            && status["upstream"]["name"] == name
            && status["upstream"]["state"] == "schedules";
        Ok((said && Scx::read()?.is_active(ops)).then_some(status))
    };
    Ok(wait_for(name, LIMIT, look).map_err(|e| format!("{e}; it said: {}", daemon.log_tail()))?.0)
}
