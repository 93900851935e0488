//! CPUs that go and come back under load, with tasks bound to them. Without cpu_online and cpu_offline the
//! kernel would end the scheduler at the first of them.

use super::{PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill::{Pressure, ms};
use crate::process::Background;
use crate::sched::Daemon;
use crate::{Context, Result, sys};
use std::fs;
use std::time::Duration;

const AWAY: Duration = Duration::from_millis(400);
/// A CPU that goes stops the whole machine for a moment, and its tasks wait for that.
const STALL_NS: u64 = 2_000_000_000;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    ensure(cpus > 1, || "one CPU: nothing can go".into())?;
    let daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    let mut pressure = Pressure::start()?;
    // Bound to CPUs that will go: nobody else could take them if they were parked.
    let long = (time.as_secs() + 10).to_string();
    let bound: Vec<Background> = (1..cpus)
        .map(|cpu| {
            Background::quiet(
                "taskset",
                &[&format!("{:x}", 1u64 << cpu), "/bin/lab-guest", "hogs", "1", "--secs", &long],
            )
        })
        .collect::<Result<_>>()?;
    let start = sys::now_ns();
    checks.check("hotplug.stays", || {
        let (mut rounds, end) = (0, start + time.as_nanos() as u64);
        while sys::now_ns() < end {
            let cpu = 1 + rounds % (cpus - 1);
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
    let gap = pressure.beat.longest_gap(start)?;
    drop(bound);
    drop(pressure);
    checks.check("hotplug.beat", || {
        let text = format!("longest gap {} ms (limit {})", ms(gap), ms(STALL_NS));
        if gap <= STALL_NS { Ok(text) } else { Err(text) }
    });
    checks.check("hotplug.stop", || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

fn set_online(cpu: usize, online: bool) -> Result<()> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let is = fs::read_to_string(&path).cannot(format_args!("read {path}"))?;
    if is.trim() == if online { "1" } else { "0" } {
        return Ok(());
    }
    fs::write(&path, if online { "1" } else { "0" }).cannot(format_args!("write {path}"))
}
