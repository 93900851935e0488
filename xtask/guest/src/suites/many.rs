//! Ten thousand tasks: loads, schedules, leaves.

use super::PLUGIN;
use super::scene::{Scene, own_gap};
use crate::check::{Checks, ensure};
use crate::process::Background;
use crate::sched::{Daemon, number};
use crate::{Result, sys};
use std::time::Duration;

const TASKS: u64 = 10_000;
const RUNNERS: u64 = 2;
/// Until all threads are there, on an emulated machine.
const MAKE_LIMIT: Duration = Duration::from_secs(60);
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// 10,000 threads that end take their time whoever schedules them.
const END_LIMIT: Duration = Duration::from_secs(30);
/// A runner for each CPU and 1,000 wakeups a second: as for the other drills, and the kernel walks all tasks.
const GAP: Duration = Duration::from_millis(800);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let (secs, tasks, runners) =
        ((time.as_secs() + 3600).to_string(), TASKS.to_string(), RUNNERS.to_string());
    own_gap()?;
    let start = sys::now_ns();
    let crowd = Background::load(&["crowd", &tasks, "--runners", &runners, "--secs", &secs])?;
    let threads = || {
        let path = format!("/proc/{}/status", crowd.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("Threads:")?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    crate::process::wait_for("crowd", MAKE_LIMIT, || Ok((threads() > TASKS + RUNNERS).then_some(())))?;
    let made = Duration::from_nanos(sys::now_ns() - start);
    let mut scene = None;
    checks.check("many.load", || {
        let daemon = Daemon::start_within(PLUGIN, &[], LOAD_LIMIT)?;
        let scene = scene.insert(Scene::of("many", daemon)?);
        let took = scene.daemon.started_in.as_millis();
        Ok(format!(
            "{} threads made in {} ms; decides {took} ms after the start",
            threads(),
            made.as_millis()
        ))
    });
    let Some(mut scene) = scene else { return Ok(()) };
    checks.check("many.schedules", || {
        let from = scene.healthy()?;
        sys::sleep(time);
        let to = scene.healthy()?;
        let grew = |pointer| Ok::<_, String>(number(&to, pointer)? - number(&from, pointer)?);
        let decided = grew(crate::sched::decided())?;
        let text = format!(
            "{decided} decisions in {time:?}, {} runs, {} congested, {} degraded periods, {} threads",
            grew("/counters/runs")?,
            grew("/counters/congested")?,
            grew("/transitions/left")?,
            threads()
        );
        ensure(threads() > TASKS && decided > 300, || format!("too little happened: {text}"))?;
        Ok(text)
    });
    checks.check("many.beat_busy", || scene.pulse.verdict(GAP));
    let mut end = Duration::ZERO;
    checks.check("many.exits", || {
        let start = sys::now_ns();
        let pid = crowd.pid();
        drop(crowd);
        let took = Duration::from_nanos(sys::now_ns() - start);
        end = took;
        ensure(took < END_LIMIT && !sys::is_alive(pid), || format!("threads still there after {took:?}"))?;
        scene.healthy()?;
        Ok(format!("{TASKS} threads gone after {} ms", took.as_millis()))
    });
    // A signal wakes them all at once, and each needs a CPU to end: a beat may have to wait for all of them.
    scene.end(checks, GAP + end);
    Ok(())
}
