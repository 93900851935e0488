//! Only tasks that ask for it are ours: `gthulhu-daemon run --partial`.

use super::scene::{GAP, Scene};
use crate::Result;
use crate::check::{Checks, ensure, skip};
use crate::process::{self, Background};
use crate::sched::daemon_program;
use std::process::Command;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// A task of ours that may use a CPU without ordinary tasks waits for its equals only; but one that was sent to an
/// idle CPU on which an ordinary task began to run just then waits until the core looks for such, after 500 ms, every
/// 50 ms, and then for its turn among six.
const WAIT_MS: u64 = 700;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let help = process::run(Command::new(daemon_program()).args(["run", "--help"]), GRACE)?;
    if !help.out.contains("--partial") {
        skip("partial", "this daemon has no --partial");
        return Ok(());
    }
    let scene = Scene::start("partial", &["--partial"])?;
    checks.check("partial.only_ours", || {
        let before = scene.healthy()?;
        let secs = time.as_secs_f64().to_string();
        // One CPU is the ordinary tasks'. Above ours, they would leave nothing of it.
        let plain = ["plain:2:cpus=1", "plain_sleepers:4:cpus=1:work_us=200:sleep_us=2000"];
        let alone = Background::load(&[&["race", "--secs", &secs][..], &plain].concat())?;
        alone.figures(time + GRACE)?;
        let quiet = scene.healthy()?;
        let runs = |from, to| -> Result<u64> {
            Ok(crate::sched::number(to, "/counters/runs")? - crate::sched::number(from, "/counters/runs")?)
        };
        let theirs = runs(&before, &quiet)?;
        let ours = ["ours:2:policy=ext", "our_sleepers:4:policy=ext:work_us=200:sleep_us=2000"];
        let both = Background::load(&[&["race", "--secs", &secs][..], &plain, &ours].concat())?;
        let figures = both.figures(time + GRACE)?;
        let busy = scene.healthy()?;
        let asked = runs(&quiet, &busy)?;
        let wait = |name: &str| figures[name]["gap_ms"].as_u64().unwrap_or(u64::MAX);
        let text = format!(
            "{theirs} runs of ordinary tasks, {asked} of ours; waits: ours {} ms, our sleepers {} ms (limit \
             {WAIT_MS}), plain {} ms",
            wait("ours"),
            wait("our_sleepers"),
            wait("plain")
        );
        ensure(asked > 500 && theirs < asked / 20, || format!("not only ours: {text}"))?;
        let in_time = wait("ours") <= WAIT_MS && wait("our_sleepers") <= WAIT_MS;
        if in_time { Ok(text) } else { Err(text) }
    });
    scene.end(checks, GAP);
    Ok(())
}
