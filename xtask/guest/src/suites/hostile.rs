//! An agent that lies, and then breaks the ring itself: nothing may stall, and nothing be lost.

use super::scene::own_gap;
use super::{a_task_runs, balanced, enable_seq};
use crate::check::{Checks, ensure};
use crate::drill::{Pressure, ms};
use crate::process::{Background, wait_for};
use crate::sched::{Scx, number, transport};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// With two hogs for each CPU, the hammer and an agent that is late all the time a beat waits behind some ten busy
/// tasks several times over. 1.2 s and 1.6 s were seen where the host ran the guest at a fifth of its speed.
const STALL_NS: u64 = 1_000_000_000;
/// Where the machine is that slow: as many times what the kernel's own scheduler shows with hogs alone.
const MAX_RATIO: u64 = 4;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let own = own_gap()?;
    let before = enable_seq()?;
    let secs = time.as_secs().to_string();
    let mut liar = Command::new("/bin/hostile");
    liar.arg(&secs).args(transport()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let liar = liar.spawn().cannot("start /bin/hostile")?;
    // It begins with questions about idle CPUs; the load comes when it has its answers.
    wait_for("hostile scheduler", Duration::from_secs(20), || {
        Ok(Scx::read()?.is_active("gthulhu_hostile").then_some(()))
    })?;
    sys::sleep(Duration::from_secs(2));
    let mut pressure = Pressure::start()?;
    let hammer =
        Background::load(&["affinity", "--tasks", "4", "--secs", &(time.as_secs() + 50).to_string()])?;
    let start = sys::now_ns();
    let said = liar.wait_with_output().cannot("wait for /bin/hostile")?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let gap = pressure.beat.longest_gap(start)?;
    let noise = pressure.noise.worst();
    drop(hammer);
    drop(pressure);
    let phases: Vec<Value> = out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    ensure(phases.len() == 4, || format!("{} of 4 phases; it said: {} {}", phases.len(), out, err))?;
    let [lies, broken, honest, end] = &phases[..] else { return Err("not four phases".into()) };

    checks.check("hostile.lies", || {
        alive(lies, before + 1)?;
        let at_least = |name: &str, least: u64| -> Result<String> {
            let n = number(lies, &format!("/counters/{name}"))?;
            ensure(n >= least, || format!("only {n} {name}: too little was tried"))?;
            Ok(format!("{n} {name}"))
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        // With two CPUs a task that may not use one of them is bound to the other, and never asked about.
        let bounced = if cpus > 2 { 1 } else { 0 };
        Ok([
            at_least("dec_drained", 1000)?,
            at_least("dec_refused", 100)?,
            at_least("dec_stale", 100)?,
            at_least("dec_bounced", bounced)?,
            at_least("dec_applied", 100)?,
        ]
        .join(", "))
    });
    checks.check("hostile.counted", || {
        let count = |name: &str| number(lies, &format!("/counters/{name}"));
        let (written, nonsense) = (number(lies, "/written")?, number(lies, "/nonsense")?);
        let (drained, refused, stale) = (count("dec_drained")?, count("dec_refused")?, count("dec_stale")?);
        let (applied, bounced) = (count("dec_applied")?, count("dec_bounced")?);
        let foreign = number(lies, "/foreign")?;
        let text = format!(
            "{written} records written, {drained} drained; {nonsense} of them nonsense, {refused} refused; {applied} \
             applied for {} events dispatched, {bounced} bounced, {stale} stale; {foreign} for others by their own \
             generation",
            count("ev_dispatched")?
        );
        // Each decision moves one task once, whoever it was written for.
        let adds_up = applied == count("ev_dispatched")? && bounced == count("ev_bounced")?;
        let is_even = written == drained && nonsense == refused && adds_up && foreign >= 100;
        if is_even { Ok(text) } else { Err(text) }
    });
    checks.check("hostile.ring", || {
        alive(broken, before + 1)?;
        let n = number(broken, "/counters/ring_errors")?;
        ensure(n > 0, || "the broken ring was not noticed".into())?;
        Ok(format!("{n} drains refused, counted"))
    });
    checks.check("hostile.recovers", || {
        alive(honest, before + 1)?;
        ensure(honest["normal"] == true, || "the next agent did not get the machine back".into())?;
        let applied = |phase| number(phase, "/counters/dec_applied");
        let (then, now) = (applied(broken)?, applied(honest)?);
        ensure(now > then, || format!("no decision of the next agent was applied ({now})"))?;
        Ok(format!("{} decisions of the next agent applied", now - then))
    });
    checks.check("hostile.beat", || {
        let limit = STALL_NS.max(MAX_RATIO * own) + noise;
        let text = format!(
            "longest gap {} ms (limit {}; EEVDF with hogs {} ms, the host kept a CPU away for {} ms)",
            ms(gap),
            ms(limit),
            ms(own),
            ms(noise)
        );
        if gap <= limit { Ok(text) } else { Err(text) }
    });
    checks.check("hostile.end", || {
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
fn alive(phase: &Value, seq: u64) -> Result<()> {
    ensure(phase["state"] == "enabled", || format!("state {}, exit {}", phase["state"], phase["exit"]))?;
    ensure(phase["exit"].is_null(), || format!("exit {}", phase["exit"]))?;
    let now = number(phase, "/enable_seq")?;
    ensure(now == seq, || format!("enable_seq {now}, was {seq}"))
}
