//! Limits of cgroups: they hold with an agent and without, alone and one in another, when they change and when they are
//! so small that nobody could live on them.

use super::scene::Scene;
use super::{PLUGIN, PLUGINS, balanced, enable_seq, healthy, no_errors, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, number};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// Of a CPU, either way.
const EXACT: f64 = 0.03;
/// CPUs of two hogs without a limit, of two: the heart that beats forks, and that takes time where it is emulated.
const FREE: f64 = 0.8;
/// A limit shows over some periods; ten seconds are a hundred.
const WINDOW: Duration = Duration::from_secs(10);
/// What was queued before the limit was set may still run.
const SETTLE: Duration = Duration::from_millis(1_500);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+cpu").cannot("turn the cpu controller on")?;
    if !tells_limits() {
        println!("skip limits - this kernel does not tell schedulers about cpu.max");
        return unenforced(checks);
    }
    for plugin in PLUGINS {
        shares(checks, plugin)?;
    }
    let mut scene = Scene::start("limits", &[])?;
    checks.check("limits.degraded", || degraded(&scene));
    beat(&mut scene)?;
    checks.check("limits.nested", nested);
    beat(&mut scene)?;
    checks.check("limits.changed", changed);
    beat(&mut scene)?;
    checks.check("limits.moved", moved);
    checks.check("limits.kernel", in_kernel);
    beat(&mut scene)?;
    checks.check("limits.counted", || {
        let after = scene.healthy()?;
        let throttled = scene.grew(&after, "/limits/throttled")?;
        ensure(throttled > 0 && number(&after, "/limits/unenforced")? == 0, || after["limits"].to_string())?;
        Ok(after["limits"].to_string())
    });
    // The beat's own tasks are in no limited group, and the hogs of one are gone.
    scene.end(checks, super::scene::GAP);
    left_behind(checks)?;
    off(checks)
}

/// A limit that nobody can live on: nobody waits for ever, and the scheduler stays.
pub(super) fn run_tiny(checks: &mut Checks, time: Duration) -> Result<()> {
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+cpu").cannot("turn the cpu controller on")?;
    if !tells_limits() {
        println!("skip tiny - this kernel does not tell schedulers about cpu.max");
        return Ok(());
    }
    let scene = Scene::start("tiny", &[])?;
    checks.check("tiny.shares", || tiny(&scene, time));
    scene.end(checks, super::scene::GAP);
    Ok(())
}

/// For whoever looks for the cause of a gap.
fn beat(scene: &mut Scene) -> Result<()> {
    println!("# longest gap so far {} ms", scene.pulse.gap()? / 1_000_000);
    Ok(())
}

/// Whether the operation exists is asked of the kernel's symbols: BTF has no text to search.
fn tells_limits() -> bool {
    fs::read_to_string("/proc/kallsyms").unwrap_or_default().contains("scx_group_set_bandwidth")
}

/// A cgroup, with all that is in it gone when dropped.
struct Cgroup {
    path: PathBuf,
    tasks: Vec<Background>,
}

impl Cgroup {
    fn new(parent: &Path, name: &str, limit: &str) -> Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).cannot(format_args!("make {}", path.display()))?;
        let cgroup = Self { path, tasks: Vec::new() };
        cgroup.limit(limit)?;
        Ok(cgroup)
    }

    fn at_root(name: &str, limit: &str) -> Result<Self> {
        Self::new(Path::new(ROOT), name, limit)
    }

    fn limit(&self, limit: &str) -> Result<()> {
        fs::write(self.path.join("cpu.max"), limit).cannot(format_args!("write {limit:?} to cpu.max"))
    }

    fn hogs(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let hog = Background::quiet("sh", &["-c", "while :; do :; done"])?;
            self.enter(&hog)?;
            self.tasks.push(hog);
        }
        Ok(())
    }

    fn enter(&self, task: &Background) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), task.pid().to_string()).cannot("move a task")
    }

    /// CPU time so far, in us.
    fn usage(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).cannot("read cpu.stat")?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        usage.and_then(|n| n.parse().ok()).ok_or_else(|| format!("no usage in {stat:?}"))
    }

    /// CPUs that it has in this time from now.
    fn cpus(&self, time: Duration) -> Result<f64> {
        cpus(&[self], time).map(|cpus| cpus[0])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.tasks.clear();
        let gone = || Ok(fs::remove_dir(&self.path).is_ok().then_some(()));
        let _ = wait_for("end of a cgroup", Duration::from_secs(5), gone);
    }
}

/// CPUs that each has in this time from now.
fn cpus(cgroups: &[&Cgroup], time: Duration) -> Result<Vec<f64>> {
    let read = || cgroups.iter().map(|cgroup| cgroup.usage()).collect::<Result<Vec<_>>>();
    let (start, before) = (sys::now_ns(), read()?);
    sys::sleep(time);
    let (after, passed) = (read()?, (sys::now_ns() - start) as f64);
    Ok(after.iter().zip(before).map(|(after, before)| (after - before) as f64 * 1e3 / passed).collect())
}

fn near(what: &str, got: f64, want: f64) -> Result<String> {
    let text = format!("{what} {got:.3} of {want}");
    if (got - want).abs() <= EXACT { Ok(text) } else { Err(text) }
}

/// Half a CPU, beside others that want all.
fn shares(checks: &mut Checks, plugin: &str) -> Result<()> {
    let daemon = Daemon::start(plugin, &[])?;
    checks.check(&format!("limits.half.{plugin}"), || {
        let mut half = Cgroup::at_root("half", "50000 100000")?;
        half.hogs(3)?;
        sys::sleep(SETTLE);
        let alone = near("alone", half.cpus(WINDOW)?, 0.5)?;
        let _others = Background::load(&["hogs", "2", "--secs", "600"])?;
        sys::sleep(SETTLE);
        let beside = near("beside two hogs", half.cpus(WINDOW)?, 0.5)?;
        Ok(format!("{alone}, {beside}"))
    });
    checks.check(&format!("limits.stop.{plugin}"), || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

/// The agent is stopped for all of the window.
fn degraded(scene: &Scene) -> Result<String> {
    let agent = sched::agent_pid(&scene.healthy()?).ok_or("there is no agent")?;
    let mut half = Cgroup::at_root("half", "50000 100000")?;
    half.hogs(3)?;
    sys::signal(agent, libc::SIGSTOP)?;
    sys::sleep(SETTLE);
    let got = half.cpus(WINDOW);
    let mode = sched::status().map(|status| status["mode"].clone());
    sys::signal(agent, libc::SIGCONT)?;
    let wanted = if sched::in_kernel_mode() { "kernel" } else { "degraded" };
    ensure(mode? == wanted, || format!("it was not {wanted}"))?;
    let text = near("without an agent", got?, 0.5)?;
    let normal = || Ok((sched::status()?["mode"] == sched::usual_mode()).then_some(()));
    wait_for("return to normal", Duration::from_secs(5), normal)?;
    Ok(text)
}

/// Children that may have 0.8 each, in a parent that has one CPU.
fn nested() -> Result<String> {
    let parent = Cgroup::at_root("parent", "100000 100000")?;
    fs::write(parent.path.join("cgroup.subtree_control"), "+cpu").cannot("turn the cpu controller on")?;
    let mut children =
        [Cgroup::new(&parent.path, "a", "80000 100000")?, Cgroup::new(&parent.path, "b", "80000 100000")?];
    for child in &mut children {
        child.hogs(2)?;
    }
    sys::sleep(SETTLE);
    let got = cpus(&[&children[0], &children[1], &parent], WINDOW)?;
    let text = format!("a {:.3}, b {:.3}, {}", got[0], got[1], near("together", got[2], 1.0)?);
    // Which of the two gets what of the parent's is the policy's business, and a host that keeps a CPU away does so to
    // whoever is on it. No child has more than its own, or next to nothing.
    ensure(got[..2].iter().all(|cpus| (0.3..=0.83).contains(cpus)), || text.clone())?;
    drop(children);
    Ok(text)
}

/// Set, made smaller, taken away, while tasks run and wait.
fn changed() -> Result<String> {
    let mut cgroup = Cgroup::at_root("changed", "max")?;
    cgroup.hogs(2)?;
    sys::sleep(SETTLE);
    let free = cgroup.cpus(Duration::from_secs(2))?;
    cgroup.limit("25000 100000")?;
    fs::write(cgroup.path.join("cpu.weight"), "300").cannot("weight a cgroup")?;
    sys::sleep(SETTLE);
    let quarter = near("a quarter", cgroup.cpus(WINDOW)?, 0.25)?;
    // From here to there tasks wait for a long time.
    cgroup.limit("1000 1000000")?;
    sys::sleep(Duration::from_millis(700));
    cgroup.limit("max")?;
    sys::sleep(Duration::from_millis(100));
    let again = cgroup.cpus(Duration::from_secs(2))?;
    let text = format!("{free:.2} CPUs without, {quarter}, {again:.2} without again");
    ensure(free > FREE && again > FREE, || text.clone())?;
    Ok(text)
}

/// Out of a cgroup that has nothing left, and back.
fn moved() -> Result<String> {
    let empty = Cgroup::at_root("empty", "1000 1000000")?;
    let mut free = Cgroup::at_root("free", "max")?;
    free.hogs(2)?;
    for hog in &free.tasks {
        empty.enter(hog)?;
    }
    sys::sleep(Duration::from_millis(500));
    let used = empty.usage()?;
    let held = empty.cpus(Duration::from_secs(1))?;
    for hog in &free.tasks {
        free.enter(hog)?;
    }
    let out = free.cpus(Duration::from_secs(2))?;
    let text = format!("{used} us, then {held:.3} CPUs inside, {out:.2} after they were moved out");
    // Two hogs, each a tick or two.
    ensure(used < 60_000 && held < 0.05 && out > FREE, || text.clone())?;
    drop(free);
    Ok(text)
}

/// In the kernel a task is left alone for some ticks: it may hold what others wait for.
fn in_kernel() -> Result<String> {
    let empty = Cgroup::at_root("empty", "1000 1000000")?;
    // One read is a long way in the kernel.
    let reader = Background::quiet("dd", &["if=/dev/zero", "of=/dev/null", "bs=64M"])?;
    sys::sleep(Duration::from_millis(500));
    empty.enter(&reader)?;
    sys::sleep(Duration::from_millis(700));
    let used = empty.usage()?;
    let held = empty.cpus(Duration::from_millis(800))?;
    let text = format!("{used} us, then {held:.3} CPUs");
    // 25 ticks are 100 ms.
    ensure((50_000..400_000).contains(&used) && held < 0.05, || text.clone())?;
    drop(reader);
    Ok(text)
}

/// A thousandth of a CPU for twenty hogs.
fn tiny(scene: &Scene, time: Duration) -> Result<String> {
    let before = scene.healthy()?;
    let mut tiny = Cgroup::at_root("tiny", "1000 1000000")?;
    tiny.hogs(20)?;
    // They begin in the kernel, where they are left alone for a while.
    sys::sleep(SETTLE);
    let (start, mut got) = (sys::now_ns(), Vec::new());
    while sys::now_ns() - start < time.as_nanos() as u64 {
        got.push(tiny.cpus(Duration::from_secs(3))?);
        scene.healthy()?;
    }
    let after = scene.healthy()?;
    let grew = |pointer| Ok::<_, String>(number(&after, pointer)? - number(&before, pointer)?);
    let overruns = grew("/limits/overruns")?;
    let most = got.iter().copied().fold(0.0, f64::max);
    let text = format!("{overruns} let out after 2 s; at most {most:.3} CPUs in 3 s");
    // Twenty hogs, each for a tick of 4 ms in two seconds, are 0.04; a tick that the host delays is a longer run. What
    // must hold is that nobody was ejected (above), and that it is a small part of the two CPUs.
    ensure(overruns > 0 && most < 0.5, || text.clone())?;
    Ok(text)
}

/// The daemon ends while tasks are held back: the kernel's own scheduler has them all.
fn left_behind(checks: &mut Checks) -> Result<()> {
    let daemon = Daemon::start(PLUGIN, &[])?;
    let mut cgroup = Cgroup::at_root("behind", "1000 1000000")?;
    cgroup.hogs(4)?;
    sys::sleep(SETTLE);
    checks.check("limits.detach", || {
        let (outcome, text) = stop_well(daemon)?;
        cgroup.limit("max")?;
        sys::sleep(Duration::from_millis(500));
        let got = cgroup.cpus(Duration::from_secs(2))?;
        ensure(got > FREE, || format!("{got:.2} CPUs after the end"))?;
        Ok(format!("{text}; {}; {got:.2} CPUs after the end", balanced(&outcome.report)?))
    });
    Ok(())
}

/// Not wanted: no limit, and said so.
fn off(checks: &mut Checks) -> Result<()> {
    let daemon = Daemon::start(PLUGIN, &["--limits", "off"])?;
    checks.check("limits.off", || told(&daemon));
    drop(daemon);
    Ok(())
}

/// Where the kernel does not tell, it is said.
fn unenforced(checks: &mut Checks) -> Result<()> {
    let daemon = Daemon::start(PLUGIN, &[])?;
    checks.check("limits.unenforced", || told(&daemon));
    checks.check("limits.stop", || stop_well(daemon).map(|(_, text)| text));
    checks.check("limits.doctor", || {
        let mut doctor = std::process::Command::new(sched::daemon_program());
        let said = crate::process::run(doctor.args(["doctor", "--json"]), Duration::from_secs(20))?;
        let said: Value = serde_json::from_str(&said.out).cannot("understand doctor")?;
        let findings = said["findings"].as_array().cloned().unwrap_or_default();
        let found = findings.iter().find(|f| f["id"] == "cpu.max" && f["severity"] == "warning");
        found.map(|f| f["text"].to_string()).ok_or_else(|| format!("no warning in {said}"))
    });
    Ok(())
}

fn told(daemon: &Daemon) -> Result<String> {
    let seq = enable_seq()?;
    let mut half = Cgroup::at_root("half", "50000 100000")?;
    half.hogs(2)?;
    sys::sleep(SETTLE);
    let got = half.cpus(Duration::from_secs(2))?;
    // A count is good for five seconds.
    let counted = || {
        let limits = daemon.status()?["limits"].clone();
        Ok((limits["unenforced"] == 1 && limits["enforced"] == false).then_some(limits))
    };
    let (limits, _) = wait_for("count of limits", Duration::from_secs(8), counted)?;
    let status = healthy(daemon, seq)?;
    no_errors(&status)?;
    ensure(got > 1.0, || format!("{got:.2} CPUs, though nobody enforces the limit"))?;
    Ok(format!("{got:.2} CPUs under a limit of a half; {limits}"))
}
