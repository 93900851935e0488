//! Who decides is changed a hundred times under load: nothing is detached, and nobody waits for it.

use super::scene::{GAP, Scene};
use crate::check::{Checks, ensure};
use crate::drill::ms;
use crate::process::{Background, wait_for};
use crate::sched::{self, number};
use crate::{Context, Result, sys};
use std::process::Command;
use std::time::Duration;

const SWITCHES: u64 = 100;
/// The longest that one waits who runs for a moment, sleeps for a moment, and shares two CPUs with hogs. A turn of theirs is a
/// slice of 5 ms.
const WAIT: Duration = Duration::from_millis(20);
/// How far from what its weight says a cgroup's share may be in kernel mode.
const TOLERANCE: f64 = 0.05;
const GRACE: Duration = Duration::from_secs(30);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let scene = Scene::start("mode", &[])?;
    let secs = (time + Duration::from_secs(2)).as_secs_f64().to_string();
    let kinds = ["hogs:3", "sleepers:4:work_us=200:sleep_us=2000"];
    let race = Background::load(&[&["race", "--secs", &secs][..], &kinds].concat())?;
    checks.check("mode.switches", || {
        for number in 0..SWITCHES {
            decide(if number % 2 == 0 { "kernel" } else { "agent" })?;
            sys::sleep(time / SWITCHES as u32);
        }
        wait_for("the agent", Duration::from_secs(2), || {
            Ok((sched::mode(&scene.healthy()?)? == "normal").then_some(()))
        })?;
        let status = scene.healthy()?;
        let (alone, asked) =
            (scene.grew(&status, "/counters/kernel_mode")?, scene.grew(&status, "/counters/dec_applied")?);
        let text = format!(
            "{SWITCHES} times; {alone} enqueues in kernel mode, {asked} decisions; nothing was detached"
        );
        ensure(alone > SWITCHES && asked > SWITCHES, || text.clone())?;
        Ok(text)
    });
    checks.check("mode.waits", || {
        let figures = race.figures(time + GRACE)?;
        let gap = figures["sleepers"]["gap_ms"].as_u64().ok_or("no figure")?;
        let noise = scene.pulse.noise();
        let text = format!(
            "sleepers waited {gap} ms at most (limit {} ms; the host kept a CPU away for {} ms)",
            WAIT.as_millis(),
            ms(noise)
        );
        if gap * 1_000_000 <= WAIT.as_nanos() as u64 + noise { Ok(text) } else { Err(text) }
    });
    checks.check("mode.cgroups", || {
        decide("kernel")?;
        let shares = super::cgroups::shares(6, 2, TOLERANCE)?;
        decide("agent")?;
        Ok(format!("weights of cgroups hold where the core decides: {shares}"))
    });
    checks.check("mode.ends", || {
        // What was begun in kernel mode ends there: the agent is killed, and nobody notices at all.
        decide("kernel")?;
        let agent = scene.daemon.agent_pid()?.ok_or("there is no agent")?;
        let before = number(&scene.daemon.status()?, "/agent/restarts")?;
        sys::signal(agent, libc::SIGKILL)?;
        wait_for("another agent", Duration::from_secs(5), || {
            Ok((number(&scene.daemon.status()?, "/agent/restarts")? > before).then_some(()))
        })?;
        let mode = sched::mode(&scene.daemon.status()?)?;
        ensure(mode == "kernel", || format!("mode {mode} after the agent's death"))?;
        decide("agent")?;
        wait_for("the agent", Duration::from_secs(2), || {
            Ok((sched::mode(&scene.daemon.status()?)? == "normal").then_some(()))
        })?;
        Ok("kernel mode outlives an agent, and the next one is asked again".into())
    });
    scene.end_with_another_agent(checks, GAP);
    Ok(())
}

fn decide(who: &str) -> Result<()> {
    let out = Command::new(sched::daemon_program())
        .args(["mode", who])
        .output()
        .cannot("run gthulhu-daemon mode")?;
    ensure(out.status.success(), || format!("mode {who}: {}", String::from_utf8_lossy(&out.stderr)))
}
