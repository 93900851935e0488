//! Agents with a fault of their own kind (`examples/faulty.rs`): slow, stuck in a loop, or one that never gives the
//! room of an event back. Each is killed after a while, and a sound one takes over.

use super::scene::{GAP, Pulse, own_gap};
use super::{a_task_runs, balanced, enable_seq};
use crate::check::{Checks, ensure};
use crate::drill::hogs;
use crate::process::{Background, wait_for};
use crate::sched::{Scx, number};
use crate::{Context, Result};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Of one CPU, for an agent that never gives it back: a turn of 4 ms in 10 ms, and room.
const MAX_SHARE: f64 = 0.5;

/// Which fault, and what is to be seen of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Answers each event, and never frees its room in the ring.
    Storm,
    /// Computes for 1 ms for each decision.
    Slow,
    /// Does not come back from an event.
    Stuck,
}

pub(super) fn run(checks: &mut Checks, fault: Fault, time: Duration) -> Result<()> {
    let name = match fault {
        Fault::Storm => "storm",
        Fault::Slow => "slow",
        Fault::Stuck => "stuck",
    };
    own_gap()?;
    let seq = enable_seq()? + 1;
    let mut command = Command::new("/bin/faulty");
    command.args([name, &time.as_secs().to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let agent = command.spawn().cannot("start /bin/faulty")?;
    wait_for("scheduler", Duration::from_secs(10), || {
        Ok(Scx::read()?.is_active(&format!("gthulhu_{name}")).then_some(()))
    })?;
    let mut pulse = Pulse::start();
    let load = match fault {
        Fault::Storm => vec![
            Background::stress_ng(&["--fork", "2"], time + Duration::from_secs(60))?,
            // Nothing wakes as often as pipes do.
            Background::load(&["hop", "--periodic", "0", "--pairs", "4", "--secs", "600"])?,
        ],
        _ => {
            let secs = (time.as_secs() + 30).to_string();
            let mut load = vec![Background::load(&["hogs", &hogs().to_string(), "--secs", &secs])?];
            if fault == Fault::Slow {
                // More who ask at a time than get an answer within the limit, at a millisecond each: with a few
                // only, the queue is never longer than they are.
                let sleepers = ["race", "--secs", &secs, "sleepers:64:work_us=20:sleep_us=20000"];
                load.push(Background::load(&sleepers)?);
            }
            load
        }
    };
    let said = agent.wait_with_output().cannot("wait for /bin/faulty")?;
    drop(load);
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let phases: Vec<Value> = out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let [bad, good, end] = &phases[..] else {
        return Err(format!("{} of 3 phases; it said: {out} {err}", phases.len()));
    };
    checks.check(&format!("{name}.stays"), || {
        alive(bad, seq)?;
        match fault {
            Fault::Storm => congested(bad),
            Fault::Slow => bounded(bad, time),
            Fault::Stuck => degraded(bad, time),
        }
    });
    if fault == Fault::Stuck {
        checks.check("stuck.share", || {
            let of = number(bad, "/since_ms")?;
            // It may have computed all the time until it got stuck: what is left it has had since, at least.
            let before = (time.as_millis() as u64).saturating_sub(of);
            let had = number(bad, "/took_ms")?.saturating_sub(before);
            let text =
                format!("the stuck agent had at least {had} of {of} ms (limit {} %)", 100.0 * MAX_SHARE);
            if had as f64 <= MAX_SHARE * of as f64 { Ok(text) } else { Err(text) }
        });
    }
    checks.check(&format!("{name}.recovers"), || {
        alive(good, seq)?;
        ensure(good["normal"] == true, || format!("the next agent did not get the machine back: {good}"))?;
        let (then, now) = (applied(bad)?, applied(good)?);
        ensure(now > then, || format!("no decision of the next agent was applied: {good}"))?;
        Ok(format!("{} decisions of the next agent, normal after {} ms", now - then, good["took_ms"]))
    });
    // Up to the moment that ours was removed: the load goes on after it, and some kernels' own scheduler starves this
    // one for seconds (docs/lab.md).
    checks.check(&format!("{name}.beat"), || pulse.verdict_until(GAP, number(end, "/at_ns")?));
    drop(pulse);
    checks.check(&format!("{name}.end"), || {
        ensure(said.status.success(), || format!("{}: {err}", said.status))?;
        let mut report = end.clone();
        report["ledgers"] = serde_json::json!({
            "events_outstanding": end["outstanding"], "decisions_open": end["open"],
        });
        let text = balanced(&report)?;
        ensure(Scx::read()?.state == "disabled", || "still loaded".into())?;
        a_task_runs()?;
        Ok(text)
    });
    Ok(())
}

/// Still loaded, as the same scheduler, and not ejected.
pub(super) fn alive(phase: &Value, seq: u64) -> Result<()> {
    ensure(phase["state"] == "enabled", || format!("state {}, exit {}", phase["state"], phase["exit"]))?;
    ensure(phase["exit"].is_null(), || format!("exit {}", phase["exit"]))?;
    let now = number(phase, "/enable_seq")?;
    ensure(now == seq, || format!("enable_seq {now}, was {seq}"))
}

fn applied(phase: &Value) -> Result<u64> {
    number(phase, "/counters/dec_applied")
}

fn congested(phase: &Value) -> Result<String> {
    let count = |name: &str| number(phase, &format!("/counters/{name}"));
    let (congested, sent, dropped) = (count("congested")?, count("ev_sent")?, count("exit_dropped")?);
    let text = format!("{sent} events sent, {congested} found no room, {dropped} ends not told");
    // Several times full and free again, or it was never full for long.
    ensure(congested >= 1000 && applied(phase)? > 1000, || format!("no storm: {text}: {phase}"))?;
    Ok(format!("{text}; {} decisions applied", applied(phase)?))
}

/// How many degraded periods there can be: the dwell doubles from 100 ms to 2 s, and begins anew after a second of
/// normal work. Five short ones take 3 s and a normal second makes 4 s, so five in four seconds, and five to begin.
fn bounded(phase: &Value, time: Duration) -> Result<String> {
    let (entered, left) = (number(phase, "/entered")?, number(phase, "/left")?);
    let limit = 5 + time.as_secs() * 5 / 4;
    let text = format!(
        "degraded {entered} times (limit {limit}), normal {left} times, degraded for {} ms in all, latest event {} ms",
        phase["degraded_ms"], phase["late_ms"]
    );
    ensure(entered >= 2 && left >= 1, || format!("it was never too slow, or never back: {text}"))?;
    ensure(applied(phase)? >= 5, || format!("it decided nothing: {text}"))?;
    if entered <= limit { Ok(text) } else { Err(text) }
}

/// It fell, and stayed so. (On a busy host a sound agent may be late once, too.)
fn degraded(phase: &Value, time: Duration) -> Result<String> {
    let text = format!(
        "degraded {} times, {} returns, the last time for {} ms, latest event {} ms",
        phase["entered"], phase["left"], phase["since_ms"], phase["late_ms"]
    );
    ensure(phase["normal"] == false, || format!("normal under a stuck agent: {text}"))?;
    let fell = number(phase, "/entered")? == number(phase, "/left")? + 1 && number(phase, "/left")? > 0;
    ensure(fell, || format!("it was never normal: {text}"))?;
    let most = number(phase, "/since_ms")? > time.as_millis() as u64 / 2;
    ensure(most && applied(phase)? > 0, || format!("stuck too late: {text}"))?;
    Ok(text)
}
