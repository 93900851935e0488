//! Each plugin starts, decides and leaves.

use super::{ALL_PLUGINS, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{Daemon, Scx, decided, in_kernel_mode, number};
use crate::{Result, sys};
use std::thread;
use std::time::Duration;

/// Threads that sleep and wake, and for how long.
const SLEEPERS: u64 = 16;
const TIME: Duration = Duration::from_secs(1);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    for plugin in ALL_PLUGINS {
        let mut daemon = None;
        let is_up = checks.check(&format!("smoke.{plugin}.start"), || {
            let started = daemon.insert(Daemon::start(plugin, &[])?);
            let status = healthy(started, enable_seq()?)?;
            ensure(status["plugin"] == plugin, || format!("plugin {}", status["plugin"]))?;
            Ok(format!("{} decides after {} ms", status["ops"], started.started_in.as_millis()))
        });
        let Some(daemon) = daemon.filter(|_| is_up) else { continue };
        checks.check(&format!("smoke.{plugin}.decides"), || {
            let before = number(&daemon.status()?, decided())?;
            sleep_and_wake();
            let status = healthy(&daemon, enable_seq()?)?;
            let (sent, applied) = (number(&status, "/counters/ev_sent")?, number(&status, decided())?);
            let new = applied - before;
            ensure((sent > 0 || in_kernel_mode()) && new > 0, || {
                format!("{sent} events, {new} new decisions")
            })?;
            Ok(format!("{sent} events sent, {applied} decisions applied, {new} of them in the last second"))
        });
        let mut report = None;
        checks.check(&format!("smoke.{plugin}.stop"), || {
            let (outcome, text) = stop_well(daemon)?;
            report = Some(outcome.report);
            Ok(text)
        });
        checks.check(&format!("smoke.{plugin}.ledgers"), || balanced(&report.ok_or("there is no report")?));
    }
    checks.check("smoke.example", || one_process("/bin/fifo", "fifo"));
    Ok(())
}

/// A scheduler in one process: no daemon, a name of its own, gone when it is killed.
pub(super) fn one_process(program: &str, name: &str) -> Result<String> {
    let seq = enable_seq()?;
    let mut process = Background::quiet(program, &[])?;
    let limit = Duration::from_secs(5);
    wait_for("scheduler of its name", limit, || Ok(Scx::read()?.is_active(name).then_some(())))?;
    sleep_and_wake();
    let scx = Scx::read()?;
    ensure(scx.is_active(name) && scx.enable_seq == seq + 1, || format!("{scx:?}"))?;
    ensure(process.is_running()?, || "it ended by itself".into())?;
    drop(process);
    let (_, took) =
        wait_for("kernel's own scheduler", limit, || Ok((Scx::read()?.state == "disabled").then_some(())))?;
    Ok(format!("scheduled for {TIME:?}; killed, and disabled after {} ms", took.as_millis()))
}

pub(super) fn sleep_and_wake() {
    let end = sys::now_ns() + TIME.as_nanos() as u64;
    thread::scope(|scope| {
        for sleeper in 0..SLEEPERS {
            scope.spawn(move || {
                while sys::now_ns() < end {
                    sys::sleep(Duration::from_millis(10 + sleeper));
                }
            });
        }
    });
}
