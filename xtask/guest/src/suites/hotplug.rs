//! CPUs that go and come back under load, with tasks bound to them. Without cpu_online and cpu_offline the
//! kernel would end the scheduler at the first of them.

use super::scene::{Pulse, own_gap};
use super::{PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill::hogs;
use crate::process::{Background, wait_for};
use crate::sched::Daemon;
use crate::{Context, Result, sys};
use std::fs;
use std::time::Duration;

const AWAY: Duration = Duration::from_millis(400);
/// A CPU that goes stops the whole machine for a moment, and its tasks wait for that.
const GAP: Duration = Duration::from_millis(1000);
/// Until a task that was bound runs there.
const BIND_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    ensure(cpus > 1, || "one CPU: nothing can go".into())?;
    own_gap()?;
    let daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    // Bound to CPUs that will go: nobody else could take them if they were parked. One that computes and one that
    // wakes for each, both a process of one thread, whose number is known.
    let mut bound = Vec::new();
    for cpu in 1..cpus {
        bound.push((cpu, Background::quiet("sh", &["-c", "while :; do :; done"])?));
        let wakes = ["wake", "--period-us", "2000", "--work-us", "200", "--count", "1000000"];
        bound.push((cpu, Background::quiet("/bin/lab-guest", &wakes)?));
    }
    let hogs = Background::load(&["hogs", &hogs().to_string(), "--secs", "600"])?;
    let mut pulse = Pulse::start();
    let start = sys::now_ns();
    checks.check("hotplug.stays", || {
        let (mut rounds, end) = (0, start + time.as_nanos() as u64);
        while sys::now_ns() < end {
            let cpu = 1 + rounds % (cpus - 1);
            // The kernel has broken their bond when the CPU went the last time.
            for (_, task) in bound.iter().filter(|(its, _)| *its == cpu) {
                sys::set_affinity(task.pid(), 1 << cpu).cannot("bind a task again")?;
            }
            let is_there = || bound.iter().all(|(its, task)| *its != cpu || last_cpu(task) == Some(cpu));
            wait_for("bound task on its CPU", BIND_LIMIT, || Ok(is_there().then_some(())))?;
            set_online(cpu, false)?;
            sys::sleep(AWAY);
            set_online(cpu, true)?;
            sys::sleep(AWAY / 4);
            healthy(&daemon, seq)?;
            rounds += 1;
        }
        ensure(rounds > 1, || "no time for two rounds".into())?;
        Ok(format!("enabled after {rounds} times a CPU went and came, enable_seq {seq}"))
    });
    for cpu in 1..cpus {
        set_online(cpu, true)?;
    }
    checks.check("hotplug.beat", || pulse.verdict(GAP));
    drop(bound);
    drop(hogs);
    drop(pulse);
    checks.check("hotplug.stop", || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

/// Where a process ran last: field 39 of its stat, behind a name that may hold anything.
fn last_cpu(task: &Background) -> Option<usize> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", task.pid())).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(36)?.parse().ok()
}

fn set_online(cpu: usize, online: bool) -> Result<()> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let is = fs::read_to_string(&path).cannot(format_args!("read {path}"))?;
    if is.trim() == if online { "1" } else { "0" } {
        return Ok(());
    }
    fs::write(&path, if online { "1" } else { "0" }).cannot(format_args!("write {path}"))
}
