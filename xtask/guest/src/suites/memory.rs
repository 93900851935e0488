//! Memory is short: kswapd and kcompactd run, tasks reclaim for themselves, and the agent must not wait for any.

use super::scene::{GAP, Scene};
use crate::check::{Checks, ensure};
use crate::process::Background;
use crate::{Context, Result, sys};
use std::fs;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);
/// Enough for processes to start.
const LEFT_KB: u64 = 20 << 10;
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let scene = Scene::start("memory", &[])?;
    // Not this process, which holds most of the memory, if anybody must be killed for it.
    fs::write("/proc/self/oom_score_adj", "-1000").cannot("protect this process from the OOM killer")?;
    let ballast = ballast();
    checks.check("memory.reclaim", || {
        let before = Reclaim::read()?;
        let secs = time.as_secs_f64().to_string();
        let load = Background::load(&["squeeze", "--secs", &secs])?;
        let wakes = Background::load(&["race", "--secs", &secs, "sleepers:4:work_us=200:sleep_us=3000"])?;
        let end = sys::now_ns() + time.as_nanos() as u64;
        while sys::now_ns() < end {
            // Has kcompactd walk all memory; without the file there is no compaction to wait for.
            let _ = fs::write("/proc/sys/vm/compact_memory", "1");
            sys::sleep(LOOK);
            scene.healthy()?;
        }
        let figures = load.figures(GRACE)?;
        let waits = wakes.figures(GRACE)?;
        let after = Reclaim::read()?;
        let text = format!(
            "{} kB free at least; kswapd ran {} times ({} ms), direct reclaim {} times, \
             {} objects scanned, kcompactd {} ms; a sleeper was {} ms late at most",
            figures["least_free_kb"],
            after.kswapd - before.kswapd,
            after.kswapd_ms - before.kswapd_ms,
            after.direct - before.direct,
            after.scanned - before.scanned,
            after.kcompactd_ms - before.kcompactd_ms,
            waits["sleepers"]["gap_ms"]
        );
        let is_short = after.kswapd > before.kswapd && after.scanned > before.scanned;
        if is_short { Ok(text) } else { Err(format!("memory was not short: {text}")) }
    });
    drop(ballast);
    scene.end(checks, GAP);
    Ok(())
}

/// All memory but a little: the load need not take it, which is slow where every page is written by an emulator.
fn ballast() -> Vec<sys::Taken> {
    let mut taken = Vec::new();
    while sys::free_kb() > LEFT_KB {
        let Some(more) = sys::Taken::new(1 << 20) else { break };
        taken.push(more);
    }
    taken
}

/// What the kernel did about it since boot.
struct Reclaim {
    kswapd: u64,
    direct: u64,
    scanned: u64,
    kswapd_ms: u64,
    kcompactd_ms: u64,
}

impl Reclaim {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/vmstat").cannot("read vmstat")?;
        // Direct reclaim and its kind are counted for each zone.
        let sum = |name: &str| -> u64 {
            let lines =
                text.lines().filter_map(|line| line.split_once(' ')).filter(|(n, _)| n.starts_with(name));
            lines.filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
        };
        ensure(text.contains("pageoutrun "), || "vmstat does not count runs of kswapd".into())?;
        Ok(Self {
            kswapd: sum("pageoutrun"),
            direct: sum("allocstall"),
            scanned: sum("slabs_scanned"),
            kswapd_ms: thread_ms("kswapd0"),
            kcompactd_ms: thread_ms("kcompactd0"),
        })
    }
}

/// CPU time of a kernel's thread.
fn thread_ms(name: &str) -> u64 {
    let dirs = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_it =
        |path: &std::path::Path| fs::read_to_string(path.join("comm")).is_ok_and(|c| c.trim() == name);
    let found = dirs.map(|dir| dir.path()).find(|path| is_it(path));
    let text = found.and_then(|path| fs::read_to_string(path.join("schedstat")).ok()).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
}
