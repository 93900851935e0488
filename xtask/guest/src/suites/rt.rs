//! A real-time task takes a CPU for a while, again and again: what waited there goes elsewhere.

use super::scene::{GAP, Scene};
use crate::Result;
use crate::check::{Checks, ensure};
use crate::process::Background;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// Free tasks wait for a burst of 50 ms at most, as the one that ran there, then among two for a CPU.
const WAIT_MS: u64 = 400;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let scene = Scene::start("rt", &[])?;
    checks.check("rt.elsewhere", || {
        let secs = time.as_secs_f64().to_string();
        let kinds = [
            "bursts:1:policy=fifo:cpus=2:work_us=50000:sleep_us=50000",
            "hogs:3",
            "sleepers:6:work_us=200:sleep_us=2000",
        ];
        let load = Background::load(&[&["race", "--secs", &secs][..], &kinds].concat())?;
        let figures = load.figures(time + GRACE)?;
        let status = scene.healthy()?;
        let handed_back = scene.grew(&status, "/counters/reenqueued")?;
        let wait = |name: &str| figures[name]["gap_ms"].as_u64().unwrap_or(u64::MAX);
        let burst = figures["bursts"]["cpu_ms"][0].as_u64().unwrap_or(0);
        let text = format!(
            "the real-time task had {burst} ms; hogs waited {} ms, sleepers {} ms (limit {WAIT_MS}); handed back \
             {handed_back} times",
            wait("hogs"),
            wait("sleepers")
        );
        ensure(burst > time.as_millis() as u64 / 4, || format!("too few bursts: {text}"))?;
        let in_time = wait("hogs") <= WAIT_MS && wait("sleepers") <= WAIT_MS;
        if in_time && handed_back > 0 { Ok(text) } else { Err(text) }
    });
    scene.end(checks, GAP);
    Ok(())
}
