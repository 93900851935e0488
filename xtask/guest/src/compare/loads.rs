//! The loads, and what each of them measures.

use crate::check::ensure;
use crate::process::{self, Background};
use crate::stats::Sorted;
use crate::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;
use std::fmt;
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

/// Something to do for a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// `perf bench sched pipe`: two processes that wake each other.
    Pipe,
    /// A messenger and two workers for each CPU.
    Request,
    /// One thread with a timer of 2 ms, among four hogs for each CPU.
    Periodic,
    /// What such hogs get done meanwhile.
    Hogs,
    /// hackbench with processes.
    HackbenchProcesses,
    /// hackbench with threads.
    HackbenchThreads,
    /// Two processes for each CPU that fork, exec and wait.
    Forks,
    /// A thousand pings over a pair of veth under `stress-ng -c` with two for each CPU; the kernel answers.
    Ping,
    /// The same, answered by a process.
    PingProcess,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("?", |name| name.get_name()))
    }
}

/// How long a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// What figures are made of.
    Full,
    /// Enough to see that it works.
    Quick,
}

impl Size {
    fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

type Figures = Vec<(&'static str, f64)>;

/// Nothing here takes so long; what does, hangs.
const LIMIT: Duration = Duration::from_secs(120);

const FAR: &str = "far";
const FAR_ADDRESS: &str = "10.77.0.2";
/// Of the modules package, when the kernel has no veth of its own.
const VETH: &str = "/lab/veth.ko";

impl Load {
    /// Makes what it needs, once in a boot.
    pub(super) fn prepare(self) -> Result<()> {
        if !matches!(self, Self::Ping | Self::PingProcess) || fs::exists("/run/netns/far").unwrap_or(false) {
            return Ok(());
        }
        if fs::exists(VETH).unwrap_or(false) {
            said("insmod", &[VETH]).cannot("load the kernel's veth")?;
        }
        for line in [
            "netns add far",
            "link add near0 type veth peer name far0 netns far",
            "addr add 10.77.0.1/24 dev near0",
            "link set near0 up",
            "-n far addr add 10.77.0.2/24 dev far0",
            "-n far link set far0 up",
        ] {
            said("ip", &line.split(' ').collect::<Vec<_>>()).cannot("make a pair of veth")?;
        }
        Ok(())
    }

    /// Does it once.
    pub(super) fn measure(self, size: Size, cpus: usize) -> Result<Figures> {
        match self {
            Self::Pipe => pipe(size),
            Self::Request => request(size, cpus),
            Self::Periodic => periodic(size, cpus),
            Self::Hogs => hogs(size, cpus),
            Self::HackbenchProcesses => hackbench(size, &[]),
            Self::HackbenchThreads => hackbench(size, &["-T"]),
            Self::Forks => forks(size, cpus),
            Self::Ping => ping(size, cpus, false),
            Self::PingProcess => ping(size, cpus, true),
        }
    }
}

fn pipe(size: Size) -> Result<Figures> {
    let text = said("perf", &["bench", "sched", "pipe", "-l", size.pick("20000", "2000")])?;
    Ok(vec![("round_trip_us", parse_pipe(&text)?)])
}

fn parse_pipe(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_suffix("usecs/op"));
    let figure = line.and_then(|figure| figure.trim().parse().ok());
    figure.ok_or_else(|| format!("perf bench says no usecs/op: {text}"))
}

fn request(size: Size, cpus: usize) -> Result<Figures> {
    let (workers, secs) = ((2 * cpus).to_string(), size.pick("2", "0.5"));
    let load = Background::load(&["request", "--workers", &workers, "--units", "20", "--secs", secs])?;
    let f = load.figures(LIMIT)?;
    Ok(vec![
        ("per_second", number(&f, "per_second")?),
        ("wake_p50_us", number(&f, "p50_us")?),
        ("wake_p99_us", number(&f, "p99_us")?),
    ])
}

fn periodic(size: Size, cpus: usize) -> Result<Figures> {
    let hogs = Background::load(&["hogs", &(4 * cpus).to_string(), "--secs", "600"])?;
    // 1,500 wakeups of 2 ms, or as many as come in six seconds.
    let args = ["wake", "--period-us", "2000", "--count", size.pick("1500", "200"), "--secs", "6"];
    let f = Background::load(&args)?.figures(LIMIT)?;
    drop(hogs);
    Ok(vec![
        ("wake_p50_us", number(&f, "p50_us")?),
        ("wake_p99_us", number(&f, "p99_us")?),
        ("wake_max_us", number(&f, "max_us")?),
        ("missed", number(&f, "missed")?),
    ])
}

fn hogs(size: Size, cpus: usize) -> Result<Figures> {
    let secs = size.pick("4", "1");
    let sleeper = Background::load(&["wake", "--period-us", "2000", "--count", "1000000", "--secs", secs])?;
    let f = Background::load(&["hogs", &(4 * cpus).to_string(), "--secs", secs])?.figures(LIMIT)?;
    sleeper.figures(LIMIT)?;
    Ok(vec![("per_second", number(&f, "per_second")?)])
}

fn hackbench(size: Size, how: &[&str]) -> Result<Figures> {
    let args = [how, &["-g", "2", "-f", "10", "-l", size.pick("800", "100")]].concat();
    let text = said("hackbench", &args)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Time: "));
    let seconds = line.and_then(|figure| figure.trim().parse().ok());
    Ok(vec![("seconds", seconds.ok_or_else(|| format!("hackbench says no time: {text}"))?)])
}

fn forks(size: Size, cpus: usize) -> Result<Figures> {
    let count = (2 * cpus).to_string();
    let f = Background::load(&["forks", &count, "--secs", size.pick("2", "1")])?.figures(LIMIT)?;
    Ok(vec![("per_second", number(&f, "per_second")?)])
}

fn ping(size: Size, cpus: usize, process: bool) -> Result<Figures> {
    let time = Duration::from_secs(600);
    let stress = Background::stress_ng(&["-c", &(2 * cpus).to_string()], time)?;
    let answers = if process {
        // The responder is a process like another: it inherits no class from us.
        let mut command = Command::new("ip");
        Some(Background::spawn(command.args(["netns", "exec", FAR, "lab-guest", "echo"]))?)
    } else {
        None
    };
    // Who answers: the process has switched the kernel's answers off, and an earlier one has left it so.
    if !process {
        said("ip", &["netns", "exec", FAR, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_all"])?;
    }
    // stress-ng takes a moment to have all its processes.
    crate::sys::sleep(Duration::from_millis(500));
    let count = size.pick("1000", "100");
    let text = said("ping", &["-n", "-c", count, "-i", "0.002", "-W", "5", FAR_ADDRESS])?;
    drop((stress, answers));
    let times = parse_ping(&text);
    let wanted: usize = count.parse().cannot("read a number of ours")?;
    ensure(times.len() * 10 >= wanted * 9, || format!("{} of {count} pings were answered", times.len()))?;
    let all = Sorted::new(times);
    let us = |share| all.at(share) as f64 / 1e3;
    Ok(vec![("rtt_p50_us", us(0.5)), ("rtt_p99_us", us(0.99)), ("rtt_max_us", us(1.0))])
}

/// Round trip times, in ns.
fn parse_ping(text: &str) -> Vec<u64> {
    let time = |line: &str| {
        let (_, rest) = line.split_once("time=")?;
        let ms: f64 = rest.strip_suffix(" ms")?.parse().ok()?;
        Some((ms * 1e6) as u64)
    };
    text.lines().filter_map(time).collect()
}

fn number(figures: &Value, key: &str) -> Result<f64> {
    figures[key].as_f64().ok_or_else(|| format!("the load has no figure {key}: {figures}"))
}

/// Runs a program to its end; its stdout goes by a file, since a pipe that nobody reads would hold it up.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let path = std::env::temp_dir().join(format!("lab-said-{}", std::process::id()));
    let file = File::create(&path).cannot(format_args!("write {}", path.display()))?;
    let errors = file.try_clone().cannot("share a file")?;
    let status =
        Background::spawn(Command::new(program).args(args).stdout(file).stderr(errors))?.wait(LIMIT)?;
    let text = fs::read(&path).cannot(format_args!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let code = process::exit_code(status);
    ensure(code == 0, || format!("{program} {}: exit {code}: {}", args.join(" "), text.trim()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_say_is_understood() {
        let text = "# Running 'sched/pipe' benchmark:\n\n     Total time: 0.023 [sec]\n\n      11.746500 usecs/op\n          85131 ops/sec\n";
        assert_eq!(parse_pipe(text), Ok(11.7465));
        assert!(parse_pipe("no figures").is_err());
        let text = "PING x\n64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms\n\
            64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=12.5 ms\nrtt min/avg/max/mdev = 0.045/6/12/1 ms\n";
        assert_eq!(parse_ping(text), [45_000, 12_500_000]);
    }

    #[test]
    fn a_load_has_the_name_of_the_command_line() {
        assert_eq!(Load::HackbenchThreads.to_string(), "hackbench-threads");
        assert_eq!(Load::PingProcess.to_string(), "ping-process");
    }
}
