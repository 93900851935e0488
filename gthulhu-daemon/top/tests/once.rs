//! `--once` on this machine, with a group of our own that keeps a CPU busy. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// This test program again, as a process that does what `top` with these options does.
fn top(options: &[&str]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "top_itself", "--ignored", "--nocapture"])
        .env("GTHULHU_TOP", options.join("\n"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
#[ignore = "the process that the other tests start"]
fn top_itself() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        top: gthulhu_top::Args,
    }
    let options = std::env::var("GTHULHU_TOP").unwrap_or_default();
    let options = std::iter::once("top").chain(options.lines());
    let cli = <Cli as clap::Parser>::try_parse_from(options).unwrap_or_else(|error| error.exit());
    if let Err(error) = gthulhu_top::run(&cli.top) {
        eprintln!("top: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// `None` where the monitor cannot run: then a line says why.
fn object(arguments: &[&str]) -> Option<Value> {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skip top - it needs root");
        return None;
    }
    let output = top(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && ["no cgroups", "type information"].iter().any(|why| said.contains(why)) {
        println!("skip top - {said}");
        return None;
    }
    assert!(output.status.success(), "{said}");
    // The test program says a word of its own before.
    let text = String::from_utf8(output.stdout).unwrap();
    Some(serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap())
}

/// A group of v2 that goes, with what is in it, when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v2 = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(root) = v2.and_then(|line| line.split(' ').nth(4)) else {
            println!("skip top - no cgroup v2 is mounted");
            return None;
        };
        let path = Path::new(root).join(format!("gthulhu-top-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process, killed and reaped when dropped.
struct Busy(Child);

impl Busy {
    fn within(folder: &Folder) -> Self {
        let loops = format!("echo $$ > '{}/cgroup.procs' && while :; do :; done", folder.0.display());
        let child = Command::new("sh").arg("-c").arg(loops).stdout(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(folder.0.join("cgroup.procs")).unwrap().trim() != child.id().to_string() {
            assert!(Instant::now() < end, "it does not get into its group");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    /// What the kernel says that it used.
    fn run_ns(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        stat.split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_busy_loop_is_found_with_its_share_of_a_cpu() {
    for by in ["groups", "threads"] {
        let Some(folder) = Folder::new(by) else { return };
        let busy = Busy::within(&folder);
        let name = folder.0.file_name().unwrap().to_str().unwrap();
        let (began, before) = (Instant::now(), busy.run_ns());
        let Some(object) = object(&[
            "--once",
            "--json",
            "--interval",
            "2",
            "--by",
            by,
            "--filter",
            name,
            "--hierarchy",
            "v2",
        ]) else {
            return;
        };
        // The kernel's figure is for a longer time: from before the programs were loaded until after they were gone.
        let truth = (busy.run_ns() - before) as f64;
        let share = truth / began.elapsed().as_nanos() as f64;
        let row = &object["rows"][0];
        println!("{by}: {:.3} of a CPU, the kernel says {share:.3} of a longer time", row["cpu_ratio"]);
        assert_eq!(object["rows"].as_array().unwrap().len(), 1, "{object}");
        assert_eq!(row["cgroups"][0].as_str(), Some(format!("/{name}").as_str()));
        let (run, interval) = (row["run_ns"].as_f64().unwrap(), row["interval_ns"].as_f64().unwrap());
        assert!(interval >= 2e9 && run <= truth * 1.01, "{run} of {truth}");
        // Others use this machine, too, and not evenly: it ran or waited all the time.
        let waited = row["run_delay_ns"].as_f64().unwrap();
        println!("ran {:.3}, waited {:.3} of {:.3} s", run / 1e9, waited / 1e9, interval / 1e9);
        assert!(run > 0.0 && (0.7..1.3).contains(&((run + waited) / interval)), "{run} {waited} {interval}");
        if by == "threads" {
            assert_eq!(row["pid"].as_i64(), Some(i64::from(busy.0.id())));
        } else {
            assert_eq!(row["kind"], "cgroup");
            assert!(row["histograms"]["on_cpu_burst"].is_array());
        }
        assert!(object["cpus"].as_array().is_some_and(|cpus| !cpus.is_empty()));
    }
}

#[test]
fn what_is_missing_is_said() {
    let json_alone = top(&["--json"]);
    assert!(!json_alone.status.success());
    let names = top(&["--once", "--names", "/nowhere/pods.yaml"]);
    let said = String::from_utf8_lossy(&names.stderr);
    assert!(!names.status.success() && said.contains("/nowhere/pods.yaml"), "{said}");
    // Its output is a pipe here.
    let terminal = top(&[]);
    let said = String::from_utf8_lossy(&terminal.stderr);
    assert!(!terminal.status.success() && said.contains("--once"), "{said}");
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        println!("skip the rights that are missing - this is root, who has them");
        return;
    }
    let rights = top(&["--once"]);
    let said = String::from_utf8_lossy(&rights.stderr);
    assert!(!rights.status.success() && said.contains("root"), "{said}");
}
