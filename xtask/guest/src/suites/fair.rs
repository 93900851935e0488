//! Nobody starves: tasks bound to a CPU beside free ones, of the smallest and the largest weight.

use super::scene::{GAP, Scene, own_gap};
use crate::Result;
use crate::check::{Checks, ensure};
use crate::process::Background;
use serde_json::Value;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// The core serves whoever has waited for 500 ms; one nice -20 task and eight others may each be first.
const WAIT_MS: u64 = 1_500;
/// Eight tasks of the smallest weight wait for each other too: the search finds one each 50 ms, after 500 ms.
const IDLE_WAIT_MS: u64 = 2_000;
/// Against the kernel's own scheduler, in the same boot.
const MAX_RATIO: f64 = 2.0;
/// Jain's index of the CPU time of equals.
const JAIN: f64 = 0.99;
/// How far from what its weight says a share may be, and for how long that is measured at least.
const TOLERANCE: f64 = 0.03;
const WINDOW: Duration = Duration::from_secs(10);

/// What starved once: free hogs beside a CPU with a crowd of its own.
const CROWD: [&str; 4] =
    ["free:2", "idlers:8:nice=19:cpus=1", "master:1:nice=-20:cpus=1", "sleepers:6:work_us=200:sleep_us=3000"];
/// Two of each weight, as nice values that are a factor of two apart, and what they weigh: the kernel's 137, 272, 526 and
/// 1024 in hundredths of the last, rounded as it rounds them for schedulers.
const WEIGHTS: [(&str, f64); 4] =
    [("w13:2:nice=9", 13.0), ("w27:2:nice=6", 27.0), ("w51:2:nice=3", 51.0), ("w100:2", 100.0)];

/// Equals, on two CPUs: half a CPU for each is possible.
const EQUALS: [&str; 2] = ["free:2", "bound:2:cpus=1"];

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let own = race(&EQUALS, time)?;
    let own_crowd = race(&CROWD, time)?;
    let scene = Scene::start("fair", &[])?;
    checks.check("fair.progress", || {
        let crowd = race(&CROWD, time)?;
        let mut text = Vec::new();
        let mut late = false;
        for (name, limit) in
            [("free", WAIT_MS), ("sleepers", WAIT_MS), ("master", WAIT_MS), ("idlers", IDLE_WAIT_MS)]
        {
            let (gap, eevdf) = (gap(&crowd, name)?, gap(&own_crowd, name)?);
            text.push(format!("{name} {gap} ms (limit {limit}, EEVDF {eevdf})"));
            late |= gap > limit;
        }
        for (name, group) in crowd.as_object().into_iter().flatten().filter(|(_, g)| g.is_object()) {
            let ran = |v: &Value| v.as_u64().is_some_and(|ms| ms > 0);
            let all = group["cpu_ms"].as_array().is_some_and(|all| all.iter().all(ran));
            ensure(all, || format!("one of {name} never ran: {group}"))?;
        }
        let text = format!("longest waits: {}", text.join(", "));
        if late { Err(text) } else { Ok(text) }
    });
    checks.check("fair.shares", || {
        let ours = race(&EQUALS, time)?;
        let (own, ours) = (free_to_bound(&own)?, free_to_bound(&ours)?);
        let ratio = (ours / own).max(own / ours);
        let text = format!("free to bound {ours:.2}, EEVDF {own:.2}, ratio {ratio:.2} (limit {MAX_RATIO})");
        if ratio <= MAX_RATIO { Ok(text) } else { Err(text) }
    });
    // The crowd is 11 busy tasks and 6 that wake: 3 busy ones for the other CPU and 12 for the first, where a beat
    // that begins there waits five times behind half of them.
    scene.end(checks, GAP);
    Ok(())
}

/// Shares to the percent, of threads and of cgroups, in windows that are long enough for that.
pub(super) fn run_exact(checks: &mut Checks, time: Duration) -> Result<()> {
    own_gap()?;
    let scene = Scene::start("exact", &[])?;
    checks.check("exact.equals", || {
        let figures = race(&["hogs:7"], time.max(WINDOW))?;
        let shares = cpu_ms(&figures, "hogs")?;
        let index = jain(&shares);
        let text = format!("Jain {index:.5} (limit {JAIN}) of {shares:?} ms");
        if index >= JAIN { Ok(text) } else { Err(text) }
    });
    checks.check("exact.weights", || {
        let figures = race(&WEIGHTS.map(|(kind, _)| kind), time.max(WINDOW))?;
        let mut got = Vec::new();
        for (kind, weight) in WEIGHTS {
            let name = kind.split(':').next().unwrap_or(kind);
            got.push((cpu_ms(&figures, name)?.iter().sum(), weight));
        }
        within(&got, TOLERANCE)
    });
    super::cgroups::shares_exact(checks);
    scene.end(checks, GAP);
    Ok(())
}

fn race(kinds: &[&str], time: Duration) -> Result<Value> {
    let secs = time.as_secs_f64().to_string();
    Background::load(&[&["race", "--secs", &secs], kinds].concat())?.figures(time + GRACE)
}

/// Fails unless each of these has its part of what all of them got, by weight.
pub(super) fn within(got: &[(f64, f64)], tolerance: f64) -> Result<String> {
    let (all, weights): (f64, f64) = got.iter().fold((0.0, 0.0), |(t, w), (ms, weight)| (t + ms, w + weight));
    let off: Vec<f64> = got.iter().map(|(ms, weight)| ms / all / (weight / weights) - 1.0).collect();
    let worst = off.iter().fold(0.0_f64, |worst, off| worst.max(off.abs()));
    let each: Vec<String> = got
        .iter()
        .zip(&off)
        .map(|((ms, weight), off)| format!("weight {weight}: {ms:.0} ms, {:+.2} %", off * 100.0))
        .collect();
    let text = format!("{} (limit {} %)", each.join("; "), tolerance * 100.0);
    if worst <= tolerance { Ok(text) } else { Err(text) }
}

pub(super) fn cpu_ms(figures: &Value, name: &str) -> Result<Vec<f64>> {
    let all = figures[name]["cpu_ms"].as_array().ok_or_else(|| format!("no {name} in {figures}"))?;
    Ok(all.iter().filter_map(Value::as_f64).collect())
}

/// Jain's index of fairness: 1 for equal shares, 1/n for one that gets all (Jain, Chiu, Hawe 1984).
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares).max(f64::MIN_POSITIVE)
}

fn gap(figures: &Value, name: &str) -> Result<u64> {
    figures[name]["gap_ms"].as_u64().ok_or_else(|| format!("no {name} in {figures}"))
}

fn free_to_bound(figures: &Value) -> Result<f64> {
    let sum = |name: &str| -> Result<u64> {
        let all = figures[name]["cpu_ms"].as_array().ok_or_else(|| format!("no {name} in {figures}"))?;
        Ok(all.iter().filter_map(Value::as_u64).sum())
    };
    Ok(sum("free")? as f64 / sum("bound")?.max(1) as f64)
}
