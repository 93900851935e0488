//! cgroups made, left, weighted and removed while tasks run in them.

use super::scene::{GAP, Pulse, Scene, own_gap};
use crate::check::{Checks, ensure};
use crate::process::Background;
use crate::stats::Random;
use crate::{Context, Result, sys};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
const GROUPS: usize = 6;
/// How far from what its weight says a group's share may be, and for how long that is measured.
const TOLERANCE: f64 = 0.03;
const WINDOW: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    own_gap()?;
    let mut pulse = Pulse::start();
    churn(time / 2)?;
    // A cgroup bound to a CPU may hold half of the load: that is a long queue for any scheduler.
    let own = Duration::from_nanos(pulse.gap()?);
    drop(pulse);
    let scene = Scene::start("cgroups", &[])?;
    checks.check("cgroups.churn", || {
        let churn = churn(time)?;
        let text = format!("{}; the same under EEVDF: longest gap {} ms", churn.text(), own.as_millis());
        ensure(churn.least() > 2, || format!("too little was done: {text}"))?;
        drop(churn);
        scene.healthy()?;
        Ok(text)
    });
    scene.end(checks, GAP.max(2 * own));
    Ok(())
}

/// Two groups of weights 100 and 300.
pub(super) fn shares_exact(checks: &mut Checks) {
    // How many busy threads there are in the group of weight 100, and in that of 300.
    for (name, light, heavy) in
        [("exact.cgroups_2_2", 2, 2), ("exact.cgroups_6_2", 6, 2), ("exact.cgroups_2_6", 2, 6)]
    {
        checks.check(name, || shares(light, heavy, TOLERANCE));
    }
}

/// Busy threads in two cgroups of weights 100 and 300: each group has what its weight says, or nearly.
pub(super) fn shares(light: usize, heavy: usize, tolerance: f64) -> Result<String> {
    let groups = [Own::new("share-100", 100)?, Own::new("share-300", 300)?];
    let secs = WINDOW.as_secs().to_string();
    let mut races = Vec::new();
    for (group, count) in groups.iter().zip([light, heavy]) {
        // What it starts is where it is.
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec lab-guest race hogs:{count} --secs {secs}",
            group.0.display()
        );
        races.push(Background::spawn(Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()))?);
    }
    let mut got = Vec::new();
    for (race, weight) in races.into_iter().zip([100.0, 300.0]) {
        let figures = race.figures(WINDOW * 4)?;
        got.push((super::fair::cpu_ms(&figures, "hogs")?.iter().sum(), weight));
    }
    super::fair::within(&got, tolerance)
}

/// A cgroup with a weight, gone when dropped.
struct Own(PathBuf);

impl Own {
    fn new(name: &str, weight: u32) -> Result<Self> {
        let path = PathBuf::from(format!("{ROOT}/{name}"));
        fs::create_dir(&path).cannot("make a cgroup")?;
        let own = Self(path);
        fs::write(own.0.join("cpu.weight"), weight.to_string()).cannot("weight a cgroup")?;
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let gone = || Ok((empty(&self.0).is_ok() && fs::remove_dir(&self.0).is_ok()).then_some(()));
        let _ = crate::process::wait_for("end of a cgroup", Duration::from_secs(2), gone);
    }
}

fn churn(time: Duration) -> Result<Churn> {
    let mut churn = Churn::new()?;
    let end = sys::now_ns() + time.as_nanos() as u64;
    while sys::now_ns() < end {
        churn.step()?;
        sys::sleep(PAUSE);
    }
    Ok(churn)
}

/// Groups that come and go, and tasks that move between them. Dropped, all groups are gone.
pub(super) struct Churn {
    random: Random,
    tasks: Vec<Background>,
    groups: Vec<Option<PathBuf>>,
    has_cpuset: bool,
    cpus: u64,
    made: u32,
    removed: u32,
    moved: u32,
    weighted: u32,
    bound: u32,
}

impl Churn {
    pub(super) fn new() -> Result<Self> {
        let controllers =
            fs::read_to_string(format!("{ROOT}/cgroup.controllers")).cannot("read controllers")?;
        let has = |name: &str| controllers.split_whitespace().any(|c| c == name);
        ensure(has("cpu"), || format!("no cpu controller: {controllers}"))?;
        let mut tasks = Vec::new();
        for _ in 0..2 {
            tasks.push(Background::quiet("sh", &["-c", "while :; do :; done"])?);
            tasks.push(Background::quiet(
                "/bin/lab-guest",
                &["wake", "--period-us", "2000", "--work-us", "200", "--count", "1000000"],
            )?);
        }
        tasks.push(Background::hackbench(1)?);
        let has_cpuset = has("cpuset");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let groups = vec![None; GROUPS];
        let random = Random::new(7);
        let [made, removed, moved, weighted, bound] = [0; 5];
        Ok(Self { random, tasks, groups, has_cpuset, cpus, made, removed, moved, weighted, bound })
    }

    /// One random change.
    pub(super) fn step(&mut self) -> Result<()> {
        let at = self.random.below(GROUPS as u64) as usize;
        let Some(group) = &self.groups[at] else {
            let group = PathBuf::from(format!("{ROOT}/drill-{at}"));
            fs::create_dir(&group).cannot("make a cgroup")?;
            self.groups[at] = Some(group);
            self.made += 1;
            return Ok(());
        };
        match self.random.below(8) {
            0 => {
                empty(group)?;
                // The kernel may still hold a task that is on its way out.
                if fs::remove_dir(group).is_ok() {
                    self.groups[at] = None;
                    self.removed += 1;
                }
            }
            1 | 2 => {
                let weight = 1 + self.random.below(10_000);
                fs::write(group.join("cpu.weight"), weight.to_string()).cannot("weight a cgroup")?;
                self.weighted += 1;
            }
            3 if self.has_cpuset => {
                let cpu = self.random.below(self.cpus + 1);
                // All of them in turn, not none: a group with tasks may not lose its last CPU.
                let cpus = if cpu == self.cpus { format!("0-{}", cpu - 1) } else { cpu.to_string() };
                fs::write(group.join("cpuset.cpus"), cpus).cannot("bind a cgroup to CPUs")?;
                self.bound += 1;
            }
            _ => {
                let task = self.random.below(self.tasks.len() as u64) as usize;
                let pid = self.tasks[task].pid();
                fs::write(group.join("cgroup.procs"), pid.to_string()).cannot("move a task")?;
                self.moved += 1;
            }
        }
        Ok(())
    }

    fn least(&self) -> u32 {
        let bound = if self.has_cpuset { self.bound } else { u32::MAX };
        [self.made, self.removed, self.moved, self.weighted, bound].into_iter().min().unwrap_or(0)
    }

    pub(super) fn text(&self) -> String {
        let cpuset = if self.has_cpuset { format!("bound {}", self.bound) } else { "no cpuset".into() };
        format!(
            "cgroups made {}, removed {}, weighted {}, {cpuset}; tasks moved {}",
            self.made, self.removed, self.weighted, self.moved
        )
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.tasks.clear();
        for group in self.groups.iter().flatten() {
            let gone = || Ok((empty(group).is_ok() && fs::remove_dir(group).is_ok()).then_some(()));
            let _ = crate::process::wait_for("end of a cgroup", Duration::from_secs(2), gone);
        }
    }
}

/// Moves all that is in a group to the root.
fn empty(group: &std::path::Path) -> Result<()> {
    let procs = fs::read_to_string(group.join("cgroup.procs")).cannot("read a cgroup")?;
    for pid in procs.lines() {
        // It may have ended.
        let _ = fs::write(format!("{ROOT}/cgroup.procs"), pid);
    }
    Ok(())
}
