//! Spinning favourites: four tasks of the strongest level on every CPU there is, beside others that only compute and a
//! health check once a second. The machine stays usable, and the favourites get what they are for: from the policy, and from
//! the core in kernel mode.
//!
//! `boosted [SECONDS]`; 10 unless told.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use gthulhu_model::{Budget, Class, Floor, Label, Level, Priority};
use gthulhu_plugin_gthulhu::{Gthulhu, rules};
use lab_guest::check::{Checks, ensure};
use lab_guest::noise::Noise;
use lab_guest::process::{Background, wait_for};
use lab_guest::{Result, sys};
use qumun::kernel::{Link, Running, TaskSettings};
use qumun::{Nanos, Pid, Scheduler, StopHandle};
use serde_json::Value;

const GRACE: Duration = Duration::from_secs(30);
/// From one question to its answer. What the host keeps a CPU away comes on top.
const ANSWER_MS: f64 = 100.0;
/// Parts of all CPU time.
const BACKGROUND: f64 = 0.1;
const BOOSTED: f64 = 0.6;
/// The core serves whoever has waited for 500 ms, and finds it within 50 ms; then it waits for a slice of 20 ms and a clock
/// interrupt; the rest is room.
const WAIT_MS: u64 = 650;

fn main() -> ExitCode {
    let mut checks = Checks::default();
    let secs = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(10);
    if let Err(e) = boosted(&mut checks, secs) {
        checks.check("boosted", || Err(e));
    }
    if checks.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn boosted(checks: &mut Checks, secs: u64) -> Result<()> {
    let text = |e: qumun::Error| e.to_string();
    let builder = qumun::builder("gthulhu_boosted").events(Gthulhu::EVENTS);
    let running = builder.load().map_err(text)?.attach().map_err(text)?;
    let stop = StopHandle::new();
    let (fds, agents) = (running.agent_fds().map_err(text)?, stop.clone());
    let agent = std::thread::spawn(move || {
        let link = Link::connect(fds).map_err(|e| e.to_string())?;
        qumun::builder("boosted").stop_handle(agents).agent(link, Gthulhu::default()).run();
        Ok::<(), String>(())
    });
    let decides = || Ok((running.inner().view().mode == qumun::kernel::wire::NORMAL).then_some(()));
    wait_for("decisions", GRACE, decides)?;
    checks.check("boosted.spinning", || spinning(&running, secs));
    checks.check("boosted.kernel-mode", || {
        running.set_kernel_mode(true).map_err(text)?;
        let rules = rules(None, [favourite()?], Floor::DEFAULT, Nanos(sys::now_ns()));
        running.set_rules(&rules).map_err(text)?;
        let (before, said) = (running.inner().totals(), spinning(&running, secs)?);
        let after = running.inner().totals();
        let (asked, ahead) = (after.dec_applied - before.dec_applied, after.ahead - before.ahead);
        ensure(asked == 0 && ahead > 0, || format!("{asked} decisions, {ahead} times ahead of others"))?;
        Ok(format!("{said}; ahead of others {ahead} times, nobody was asked"))
    });
    stop.stop();
    agent.join().map_err(|_| "the agent panicked")??;
    running.detach();
    Ok(())
}

/// What is wanted for the spinning tasks.
fn favourite() -> Result<Label> {
    let class = Class::Latency(Level::STRONGEST);
    let budget = Budget::millicpu(1_000).map_err(|e| e.to_string())?;
    Ok(Label::Priority(Priority { class, slice: None, budget: Some(budget) }))
}

fn spinning(running: &Running, secs: u64) -> Result<String> {
    let time = secs.to_string();
    let load = |args: &[&str]| {
        Background::spawn(Command::new("lab-guest").args(args).args(["--secs", &time]).stdout(Stdio::piped()))
    };
    let noise = Noise::start();
    let health = load(&["health"])?;
    let others = load(&["race", "background:4"])?;
    let label = favourite()?.pack();
    // What this thread starts now has inherited the label, and so have all that those start.
    let own = Pid(sys::thread_id());
    let set = |label| running.set_task(own, TaskSettings::label(label)).map_err(|e| e.to_string());
    set(label)?;
    let favourites = load(&["race", "boosted:4"])?;
    set(0)?;

    let limit = Duration::from_secs(secs) + GRACE;
    let (favourites, others, health) =
        (favourites.figures(limit)?, others.figures(limit)?, health.figures(limit)?);
    let share = |figures: &Value, name: &str| {
        let all = figures[name]["cpu_ms"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let elapsed = figures["elapsed_ms"].as_u64().unwrap_or(1).max(1);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        all.sum::<u64>() as f64 / elapsed as f64 / cpus as f64
    };
    let (boosted, background) = (share(&favourites, "boosted"), share(&others, "background"));
    let worst = health["max_ms"].as_f64().ok_or("the health check has no figures")?;
    let host = noise.worst() as f64 / 1e6;
    let text = format!(
        "{secs} s: boosted {:.1} %, background {:.1} % (gaps {} and {} ms), {} answers in {:.1} ms (median), \
         {worst:.1} ms at worst, {} failed; the core rescued {}, took over {:?}; the host kept a CPU away for {host:.0} ms",
        boosted * 100.0,
        background * 100.0,
        favourites["boosted"]["gap_ms"],
        others["background"]["gap_ms"],
        health["count"],
        health["p50_ms"].as_f64().unwrap_or(0.0),
        health["failed"],
        running.inner().view().rescued,
        running.inner().view().entered,
    );
    println!("# health: {health}");
    let answered = health["failed"] == 0 && health["count"].as_u64().is_some_and(|n| n + 3 >= secs);
    let gap = favourites["boosted"]["gap_ms"].as_u64().max(others["background"]["gap_ms"].as_u64());
    let waits = gap.is_some_and(|ms| ms as f64 <= WAIT_MS as f64 + host);
    let holds =
        waits && boosted >= BOOSTED && background >= BACKGROUND && worst <= ANSWER_MS + host && answered;
    if holds { Ok(text) } else { Err(text) }
}
