//! Two caches, half of the machine idle: does a task come back to the cache that it left?

use super::scene::{GAP, Scene};
use crate::Result;
use crate::check::{Checks, ensure, skip};
use crate::process::Background;
use serde_json::Value;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// Percent of all wakeups.
const LEAST: f64 = 95.0;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let own = hop(time)?;
    if own["caches"].as_u64().unwrap_or(0) < 2 {
        skip("local", "this machine has one cache");
        return Ok(());
    }
    let scene = Scene::start("local", &[])?;
    checks.check("local.cache", || {
        let ours = hop(time)?;
        let share = |v: &Value| v["all"]["same_cache"].as_f64().unwrap_or(0.0);
        let one = |v: &Value, kind: &str| format!("{} % of {}", v[kind]["same_cache"], v[kind]["wakeups"]);
        let text = format!(
            "same cache {} % (least {LEAST}; EEVDF {} %): periodic {} (EEVDF {}), pipes {} (EEVDF {}); same CPU {} % \
             (EEVDF {} %)",
            share(&ours),
            share(&own),
            one(&ours, "periodic"),
            one(&own, "periodic"),
            one(&ours, "pairs"),
            one(&own, "pairs"),
            ours["all"]["same_cpu"],
            own["all"]["same_cpu"]
        );
        ensure(ours["all"]["wakeups"].as_u64() > Some(1000), || format!("too few wakeups: {text}"))?;
        if share(&ours) >= LEAST { Ok(text) } else { Err(text) }
    });
    // Eight vCPUs on few CPUs of the host: the noise is measured, the emulated work is four times as slow.
    scene.end(checks, 2 * GAP);
    Ok(())
}

fn hop(time: Duration) -> Result<Value> {
    let secs = time.as_secs_f64().to_string();
    Background::load(&["hop", "--periodic", "4", "--pairs", "1", "--secs", &secs])?.figures(time + GRACE)
}
