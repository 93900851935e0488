//! The kernel ejects our scheduler. That needs something that the core cannot help: nobody may run but real-time tasks, the
//! kernel's own reserve for others included.

use super::control::{FOLDER, STATE, decides, metric, metric_sum};
use super::{a_task_runs, balanced, enable_seq, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{Daemon, Scx, number};
use crate::{Context, Result, sys};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The kernel's watchdog, in ms, and for how long nobody else gets a CPU.
const STALL: &str = "1000";
const HOG_US: u64 = 3_000_000;
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    let _ = fs::remove_dir_all(FOLDER);
    let args = ["--set", STATE, "--set", "monitor.enabled=on", "--stall-timeout-ms", STALL];
    let daemon = Daemon::start("", &args)?;
    let (seq, supervisor) = (enable_seq()?, daemon.supervisor_pid());
    let events = metric_sum("gthulhu_monitor_events_total")?;
    let ejected = checks.check("eject.reported", || {
        let _own = NoReserve::new()?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kind = format!("bursts:{cpus}:policy=fifo:work_us={HOG_US}:sleep_us=10000000");
        let hogs = Background::load(&["race", "--secs", "4", &kind])?;
        sys::sleep(Duration::from_micros(HOG_US));
        let (status, _) = wait_for("an ejection", LIMIT, || {
            Ok(Some(daemon.status()?).filter(|status| status["ejections"]["count"] == 1))
        })?;
        drop(hogs);
        let last = &status["ejections"]["last"];
        let dump = last["dump"].as_str().unwrap_or_default().len();
        let text = format!(
            "{} after {} ms: {} ({})",
            last["ops"], last["after_ms"], last["reason"], last["message"]
        );
        ensure(number(last, "/kind")? >= 1024 && dump > 100, || format!("{text}, a dump of {dump} bytes"))?;
        Ok(format!("{text}, with a dump of {dump} bytes"))
    });
    if !ejected {
        return Ok(());
    }
    checks.check("eject.back", || {
        let ((), took) = wait_for("the scheduler", LIMIT, || {
            Ok((Scx::read()?.enable_seq > seq && daemon.status()?["mode"] == "normal").then_some(()))
        })?;
        decides(&daemon, seq + 1)?;
        a_task_runs()?;
        ensure(sys::is_alive(supervisor), || "the daemon ended".into())?;
        metric("gthulhu_scheduler_ejections_total 1")?;
        metric("gthulhu_monitor_running 1")?;
        let now = metric_sum("gthulhu_monitor_events_total")?;
        ensure(now > events, || format!("the monitor had seen {events} events, and now {now}"))?;
        let status = daemon.status()?;
        let kept = status["ejections"]["last"]["dump"].as_str().is_some_and(|dump| !dump.is_empty());
        ensure(kept, || "the dump is not kept".into())?;
        Ok(format!(
            "it decides again {} ms later; the monitor counted on; reason and dump are kept",
            took.as_millis()
        ))
    });
    checks.check("eject.end", || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    let _ = fs::remove_dir_all(FOLDER);
    Ok(())
}

/// Real-time tasks may use all of each CPU, until dropped.
struct NoReserve(Vec<(String, String)>);

impl NoReserve {
    fn new() -> Result<Self> {
        let mut before = Vec::new();
        let mut set = |path: String, value: &str| -> Result<()> {
            let now = fs::read_to_string(&path).cannot(format_args!("read {path}"))?;
            fs::write(&path, value).cannot(format_args!("write {path}"))?;
            before.push((path, now));
            Ok(())
        };
        // The throttle of real-time tasks, and (6.12 and later) the deadline servers that replaced it.
        set("/proc/sys/kernel/sched_rt_runtime_us".into(), "-1")?;
        for server in ["fair_server", "ext_server"] {
            let folder = Path::new("/sys/kernel/debug/sched").join(server);
            for cpu in fs::read_dir(folder).into_iter().flatten().flatten() {
                set(cpu.path().join("runtime").to_string_lossy().into_owned(), "0")?;
            }
        }
        Ok(Self(before))
    }
}

impl Drop for NoReserve {
    fn drop(&mut self) {
        for (path, value) in self.0.iter().rev() {
            let _ = fs::write(path, value.trim());
        }
    }
}
