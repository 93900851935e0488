//! The recorder, and what the simulator makes of its traces.

use super::PLUGIN;
use crate::check::{Checks, ensure};
use crate::process::{self, Background, exit_code};
use crate::sched::{Daemon, daemon_program};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
const TRACE: &str = "/tmp/record.trace";
/// Cgroups, and who is in each: two that want all they can get, two that want the same and are nicer, and four that
/// compute a little and sleep.
const GROUPS: [(&str, &str); 3] =
    [("first", "free:2"), ("nicer", "free:2:nice=4"), ("sleepers", "free:4:work_us=600:sleep_us=5000")];
/// Between what a group had in the guest and what it has in the simulator, as part of it.
const APART: f64 = 0.05;
const GRACE: Duration = Duration::from_secs(60);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let load = Load::start(time * 4)?;
    checks.check("record.kernel", || {
        record(Duration::from_secs(2))?;
        let run = shown()?;
        ensure(run["scheduler"] == "kernel", || format!("the scheduler is {}", run["scheduler"]))?;
        told(&run)
    });
    let daemon = Daemon::start(PLUGIN, &[])?;
    checks.check("record.whole", || {
        record(time)?;
        let run = shown()?;
        ensure(run["scheduler"] == "gthulhu", || format!("the scheduler is {}", run["scheduler"]))?;
        ensure(run["agent_ns"].as_u64() > Some(0), || "the agent is not in the trace".into())?;
        told(&run)
    });
    checks.check("record.replay", || {
        let said = qumun(&["replay", TRACE, "--policy", PLUGIN, "--json"])?;
        let runs = said["runs"].as_array().ok_or("no runs")?;
        let [guest, simulated] = runs.as_slice() else { return Err(format!("{} runs", runs.len())) };
        let (mut text, mut apart) = (Vec::new(), false);
        for (group, _) in GROUPS {
            let (was, is) = (share(guest, group)?, share(simulated, group)?);
            text.push(format!("{group} {:.2} % and {:.2} %", was * 100.0, is * 100.0));
            apart |= (is - was).abs() > APART * was;
        }
        let text = format!("shares in guest and simulator: {}", text.join(", "));
        if apart { Err(text) } else { Ok(text) }
    });
    checks.check("record.interrupted", || {
        let mut recorder = spawn("600", "/tmp/interrupted.trace")?;
        // The verifier alone may take seconds, on a machine that is emulated and busy.
        sys::sleep(Duration::from_secs(8));
        sys::signal(recorder.pid(), libc::SIGINT)?;
        let status = recorder.wait(GRACE)?;
        ensure(exit_code(status) == 0, || format!("{status}"))?;
        let said = qumun(&["show", "/tmp/interrupted.trace", "--json"])?;
        told(&said["runs"][0])
    });
    checks.check("record.full", || {
        let small = "/mnt/small";
        fs::create_dir_all(small).cannot("make a folder")?;
        let mount = ["-t", "tmpfs", "-o", "size=16k", "none", small];
        process::run(Command::new("mount").args(mount), GRACE)?;
        let file = format!("{small}/x.trace");
        let said = process::run(&mut recorder("3", &file), GRACE)?;
        let left = fs::read_dir(small).cannot("read a folder")?.count();
        process::run(Command::new("umount").arg(small), GRACE)?;
        ensure(said.code != 0 && said.err.contains(&file), || format!("code {}: {}", said.code, said.err))?;
        ensure(left == 0, || format!("{left} files are left"))?;
        Ok(said.err.trim().to_owned())
    });
    drop(load);
    super::stop_well(daemon).map(drop)
}

/// Tasks in cgroups of their own. Dropped, both are gone.
struct Load(Vec<Background>);

impl Load {
    fn start(time: Duration) -> Result<Self> {
        let secs = (time + GRACE).as_secs();
        let mut load = Self(Vec::new());
        for (group, kind) in GROUPS {
            let folder = Path::new(ROOT).join(group);
            fs::create_dir_all(&folder).cannot("make a cgroup")?;
            let line = format!(
                "echo $$ >{}/cgroup.procs; exec lab-guest race --secs {secs} {kind}",
                folder.display()
            );
            load.0.push(Background::quiet("sh", &["-c", &line])?);
        }
        sys::sleep(Duration::from_secs(1));
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for (group, _) in GROUPS {
            // Those that were forked, too.
            let _ = fs::write(Path::new(ROOT).join(group).join("cgroup.kill"), "1");
        }
        self.0.clear();
        for (group, _) in GROUPS {
            let folder = Path::new(ROOT).join(group);
            let gone = || Ok(fs::remove_dir(&folder).is_ok().then_some(()));
            let _ = process::wait_for("end of a cgroup", Duration::from_secs(2), gone);
        }
    }
}

fn recorder_args<'a>(seconds: &'a str, file: &'a str) -> [&'a str; 6] {
    ["record", "--seconds", seconds, "-o", file, "--quiet"]
}

fn recorder(seconds: &str, file: &str) -> Command {
    let mut command = Command::new(daemon_program());
    command.args(recorder_args(seconds, file));
    command
}

fn spawn(seconds: &str, file: &str) -> Result<Background> {
    Background::quiet(&daemon_program().to_string_lossy(), &recorder_args(seconds, file))
}

fn record(time: Duration) -> Result<()> {
    let said = process::run(&mut recorder(&time.as_secs().to_string(), TRACE), time + GRACE)?;
    ensure(said.code == 0, || format!("code {}: {}", said.code, said.err))
}

fn qumun(args: &[&str]) -> Result<Value> {
    let said = process::run(Command::new("qumun").args(args), GRACE)?;
    ensure(said.code == 0, || format!("qumun {args:?}: code {}: {}", said.code, said.err))?;
    serde_json::from_str(&said.out).cannot("understand qumun")
}

fn shown() -> Result<Value> {
    qumun(&["show", TRACE, "--json"]).map(|said| said["runs"][0].clone())
}

fn share(run: &Value, group: &str) -> Result<f64> {
    let name = format!("/{group}");
    let groups = run["groups"].as_array().ok_or("no groups")?;
    let found = groups.iter().find(|one| one["name"] == *name).ok_or_else(|| format!("no group {name}"))?;
    found["share"].as_f64().ok_or_else(|| format!("no share in {found}"))
}

/// What a trace has; that nothing is lost, or that it says so, is seen here.
fn told(run: &Value) -> Result<String> {
    let shares: Result<Vec<String>> = GROUPS
        .iter()
        .map(|(group, _)| share(run, group).map(|share| format!("{group} {:.2} %", share * 100.0)))
        .collect();
    let size = fs::metadata(TRACE).map_or(0, |meta| meta.len() / 1024);
    Ok(format!(
        "{} ms, {} switches, {size} KiB, {} records lost; {}",
        run["time_ns"].as_u64().unwrap_or(0) / 1_000_000,
        run["switches"],
        run["dropped"],
        shares?.join(", ")
    ))
}
