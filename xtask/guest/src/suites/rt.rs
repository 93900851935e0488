//! A real-time task takes a CPU for a while, again and again: what waited there goes elsewhere.

use super::scene::{GAP, Scene};
use crate::Result;
use crate::check::{Checks, ensure};
use crate::process::Background;
use serde_json::Value;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// Free tasks wait for a burst of 50 ms at most, as the one that ran there, then among two for a CPU.
const WAIT_MS: u64 = 400;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let own = race(time / 2)?;
    let scene = Scene::start("rt", &[])?;
    checks.check("rt.elsewhere", || {
        let figures = race(time)?;
        let status = scene.healthy()?;
        let handed_back = scene.grew(&status, "/counters/reenqueued")?;
        let wait = |name: &str| figures[name]["gap_ms"].as_u64().unwrap_or(u64::MAX);
        let eevdf = |name: &str| own[name]["gap_ms"].as_u64().unwrap_or(0);
        let in_time = |name: &str| wait(name) <= WAIT_MS.max(2 * eevdf(name));
        let burst = figures["bursts"]["cpu_ms"][0].as_u64().unwrap_or(0);
        let text = format!(
            "the real-time task had {burst} ms; hogs waited {} ms (EEVDF {}), sleepers {} ms (EEVDF {}; limit \
             {WAIT_MS} or twice that); handed back {handed_back} times",
            wait("hogs"),
            eevdf("hogs"),
            wait("sleepers"),
            eevdf("sleepers")
        );
        ensure(burst > time.as_millis() as u64 / 4, || format!("too few bursts: {text}"))?;
        if in_time("hogs") && in_time("sleepers") && handed_back > 0 { Ok(text) } else { Err(text) }
    });
    scene.end(checks, GAP);
    Ok(())
}

fn race(time: Duration) -> Result<Value> {
    let secs = time.as_secs_f64().to_string();
    let kinds = [
        "bursts:1:policy=fifo:cpus=2:work_us=50000:sleep_us=50000",
        "hogs:3",
        "sleepers:6:work_us=200:sleep_us=2000",
    ];
    Background::load(&[&["race", "--secs", &secs][..], &kinds].concat())?.figures(time + GRACE)
}
