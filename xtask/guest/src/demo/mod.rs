//! What the scheduler does, for people: the same load with it and without it, then its agent frozen and killed.

mod screen;

use crate::check::ensure;
use crate::drill::{self, Death, Freeze, MAX_GAP_NS, Pressure, hogs, ms};
use crate::process::Background;
use crate::sched::{Daemon, Outcome, Scx, mode, number, times_entered};
use crate::{Result, suites, sys};
use screen::Screen;
use serde_json::Value;
use std::time::Duration;

/// Length of each of the two measurements, of the cold start before them, and of the freeze.
const MEASURE: u64 = 12;
const WARM_UP: u64 = 3;
const FREEZE: Duration = Duration::from_secs(9);
/// Hogs and beat alone, before each drill.
const CALM: Duration = Duration::from_secs(2);
const SECOND: u64 = 1_000_000_000;
/// A load ends later than told when all CPUs are busy.
const GRACE: Duration = Duration::from_secs(10);
const PLUGIN: &str = suites::PLUGINS[0];

/// Runs the show; says whether every promise was kept.
///
/// # Errors
/// When something does not work at all.
pub fn demo() -> Result<bool> {
    let screen = Screen::new();
    introduce(&screen)?;
    sys::be_real_time();
    let own = measure_own(&screen)?;

    screen.title(&format!("2. the same under Gthulhu (plugin {PLUGIN}), {MEASURE} s"));
    let daemon = Daemon::start(PLUGIN, &[])?;
    let loaded = Scx::read()?;
    screen.line(&format!(
        "loaded {:?}, enable_seq {}; the agent decides after {} ms",
        loaded.ops,
        loaded.enable_seq,
        daemon.started_in.as_millis()
    ));
    let (ours, activity) =
        measure_ours(&screen, &daemon).map_err(|e| format!("{e}; the daemon said: {}", daemon.log_tail()))?;
    let drills = drills(&screen, &daemon);

    let (scx, last) = (Scx::read()?, daemon.status());
    let outcome = daemon.stop()?;
    // A daemon whose scheduler the kernel has removed answers no more, but it reports.
    let last = last.unwrap_or_else(|_| outcome.report.clone());
    screen.title("The same load, twice");
    compare(&screen, &own, &ours);
    screen.title("What was done");
    summarize(&screen, &activity, &last, &outcome.report);
    screen.title("What was promised");
    Ok(promises(&screen, &loaded, &scx, &outcome, &drills))
}

fn introduce(screen: &Screen) -> Result<()> {
    let scx = Scx::read()?;
    ensure(scx.state == "disabled", || format!("another scheduler is loaded: {:?}", scx.ops))?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    screen.title(&format!("Gthulhu on Linux {}, {cpus} CPUs", release.trim()));
    screen
        .line("A program of the kernel asks a process, the agent, which task runs next, where and how long.");
    if model.contains("QEMU") {
        screen
            .warn("These CPUs are emulated: only ratios mean something, and a busy host shifts even these.");
    }
    Ok(())
}

/// A task that wakes every 2 ms and computes a little, hogs, and two processes that talk through pipes.
struct Mix {
    wake: Background,
    hogs: Background,
    pipe: Background,
}

/// What the three of a [`Mix`] found.
struct Figures {
    wake: Value,
    hogs: Value,
    pipe: Value,
}

impl Mix {
    fn start(secs: u64) -> Result<Self> {
        let count = (secs * 500).to_string();
        let secs = secs.to_string();
        let wake = ["wake", "--period-us", "2000", "--work-us", "100", "--count", &count, "--secs", &secs];
        Ok(Self {
            wake: Background::load(&wake)?,
            hogs: Background::load(&["hogs", &hogs().to_string(), "--secs", &secs])?,
            pipe: Background::load(&["pipe", "--rounds", "1000000000", "--secs", &secs])?,
        })
    }

    fn end(self) -> Result<Figures> {
        Ok(Figures {
            wake: self.wake.figures(GRACE)?,
            hogs: self.hogs.figures(GRACE)?,
            pipe: self.pipe.figures(GRACE)?,
        })
    }
}

fn measure_own(screen: &Screen) -> Result<Figures> {
    screen.title(&format!("1. a mixed load under the kernel's own scheduler (EEVDF), {MEASURE} s"));
    screen.line(&format!("{} hogs; a task that wakes every 2 ms; a pair that talks through pipes", hogs()));
    let warm = Mix::start(WARM_UP)?;
    sys::sleep(Duration::from_secs(WARM_UP));
    warm.end()?;
    let mix = Mix::start(MEASURE)?;
    for second in 1..=MEASURE {
        sys::sleep(Duration::from_secs(1));
        if second % 4 == 0 {
            screen.line(&format!("{second:>3} s  measured"));
        }
    }
    mix.end()
}

/// What happened while it was measured.
struct Activity {
    decisions: u64,
    enqueues: u64,
}

fn measure_ours(screen: &Screen, daemon: &Daemon) -> Result<(Figures, Activity)> {
    let first = daemon.status()?;
    let mix = Mix::start(MEASURE)?;
    let start = sys::now_ns();
    let (mut before, mut before_at) = (first.clone(), start);
    for second in 1..=MEASURE {
        sys::sleep_until(start + second * SECOND);
        let now = daemon.status()?;
        let now_at = sys::now_ns();
        let secs = (now_at - before_at) as f64 / SECOND as f64;
        let grew = |pointer| -> Result<f64> {
            Ok(number(&now, pointer)?.saturating_sub(number(&before, pointer)?) as f64)
        };
        let (published, batches) = (grew("/agent/published")?, grew("/agent/batches")?);
        screen.line(&format!(
            "{second:>3} s  {:>6.0} events/s  {:>6.0} decisions/s  {:>6.0} batches/s  {:>4.1} a batch  {:<8}  \
             takeovers {}  longest wait for a decision {} ms",
            grew("/counters/ev_sent")? / secs,
            grew("/counters/dec_applied")? / secs,
            batches / secs,
            published / batches.max(1.0),
            mode(&now)?,
            takeovers(&now)?,
            ms(number(&now, "/counters/max_parked_ns")?),
        ));
        (before, before_at) = (now, now_at);
    }
    let grew = |name: &str| -> Result<u64> {
        let pointer = format!("/counters/{name}");
        Ok(number(&before, &pointer)?.saturating_sub(number(&first, &pointer)?))
    };
    let mut enqueues = 0;
    for name in ["ev_sent", "core_enqueued", "congested", "kernel_direct"] {
        enqueues += grew(name)?;
    }
    let activity = Activity { decisions: grew("dec_applied")?, enqueues };
    Ok((mix.end()?, activity))
}

/// Degraded periods but the first: every scheduler starts with one.
fn takeovers(status: &Value) -> Result<u64> {
    Ok(times_entered(status)?.saturating_sub(1))
}

/// What the two accidents showed, each as far as it came.
struct Drills {
    freeze: Result<Freeze>,
    death: Result<Death>,
}

fn drills(screen: &Screen, daemon: &Daemon) -> Drills {
    screen.title(&format!(
        "3. accidents, with {} hogs and a heart that starts a process ten times a second",
        hogs()
    ));
    let mut pressure = match Pressure::start() {
        Ok(pressure) => pressure,
        Err(e) => return Drills { freeze: Err(e.clone()), death: Err(e) },
    };
    let beat = &mut pressure.beat;
    sys::sleep(CALM);
    screen.line(&format!("supervisor and agent are frozen for {} s …", FREEZE.as_secs()));
    let start = sys::now_ns();
    let mut shown = 0;
    let freeze = drill::freeze(daemon, beat, FREEZE, |passed, beat| {
        if passed.as_secs() > shown {
            shown = passed.as_secs();
            let gap = beat.longest_gap(start)?;
            let beats = beat.times()?.iter().filter(|time| **time > start).count();
            screen.line(&format!(
                "{shown:>3} s  agent frozen, scheduler still loaded; {beats:>3} beats, longest gap {} ms",
                ms(gap)
            ));
        }
        Ok(())
    });
    match &freeze {
        Ok(f) => screen.line(&format!(
            "thawed: the agent decides again after {} ms; longest gap between beats {} ms",
            f.back.as_millis(),
            ms(f.gap)
        )),
        Err(e) => screen.warn(e),
    }
    sys::sleep(CALM);
    screen.line("the agent is killed (SIGKILL) …");
    let death = drill::kill_agent(daemon, beat);
    match &death {
        Ok(d) => screen.line(&format!(
            "a new agent after {} ms, it decides after {} ms; longest gap between beats {} ms",
            d.back.as_millis(),
            d.normal.as_millis(),
            ms(d.gap)
        )),
        Err(e) => screen.warn(e),
    }
    Drills { freeze, death }
}

fn compare(screen: &Screen, own: &Figures, ours: &Figures) {
    screen.row(&["", "EEVDF", "Gthulhu", "ratio", ""]);
    for (name, key) in [("median", "p50_us"), ("99 %", "p99_us"), ("worst", "max_us")] {
        let (own, ours) = (&own.wake[key], &ours.wake[key]);
        screen.comparison(&format!("wake latency, {name}"), own, ours, "us", false);
    }
    screen.comparison("hogs, units of work", &own.hogs["per_second"], &ours.hogs["per_second"], "/s", true);
    let (own, ours) = (&own.pipe["ns_per_round"], &ours.pipe["ns_per_round"]);
    screen.comparison("pipe round trip", own, ours, "ns", false);
}

fn summarize(screen: &Screen, activity: &Activity, last: &Value, report: &Value) {
    let share = 100.0 * activity.decisions as f64 / activity.enqueues.max(1) as f64;
    screen.line(&format!(
        "{} decisions of the agent in {MEASURE} s: {share:.0} % of all times that a task queued up",
        activity.decisions
    ));
    let entered = |why: &str| &last["transitions"]["entered"][why];
    screen.line(&format!(
        "takeovers by the core: agent late {}, agent gone {}, new agent {}; tasks rescued {}",
        entered("late"),
        entered("agent exit"),
        entered("new agent"),
        last["transitions"]["rescued"]
    ));
    screen.line(&format!("exit reason: {}", report["exit"]["reason"].as_str().unwrap_or("none")));
}

fn promises(screen: &Screen, loaded: &Scx, last: &Scx, outcome: &Outcome, drills: &Drills) -> bool {
    let gap = |name: &str, gap: Result<u64>| {
        let text = format!("{name}: longest gap {} ms, promised {}", ms(gap.clone()?), ms(MAX_GAP_NS));
        if gap? <= MAX_GAP_NS { Ok(text) } else { Err(text) }
    };
    let clean = || {
        let (code, exit) = (outcome.code, &outcome.report["exit"]);
        if code == 0 {
            return Ok("exit code 0, the kernel's own scheduler is back".to_string());
        }
        Err(format!("exit code {code}: {} {}", exit["reason"], exit["message"]))
    };
    let stayed = format!(
        "never removed: enable_seq {} at the start, {} at the end",
        loaded.enable_seq, last.enable_seq
    );
    let kept = [
        screen.promise(if loaded == last { Ok(stayed) } else { Err(stayed) }),
        screen.promise(suites::balanced(&outcome.report)),
        screen.promise(gap("agent frozen", drills.freeze.clone().map(|f| f.gap))),
        screen.promise(gap("agent killed", drills.death.clone().map(|d| d.gap))),
        screen.promise(clean()),
    ];
    kept.iter().all(|kept| *kept)
}
