//! `lab test`, tier C: a table of guest runs, each of which prints one line per check.
//!
//! Lines that count: `ok NAME - text`, `not ok NAME - text`, `skip NAME - reason`. An entry that ends badly, or
//! prints no `ok` at all, has failed: silence is never success.

use crate::TestArgs;
use crate::guest::{self, GuestSpec};
use crate::kernel::{self, Cache, Kernel};
use crate::lab::{build_programs, report};
use crate::outside;
use crate::qemu::Qemu;
use crate::ui::{Result, error, say};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The kernels when none is named: the newest, and the oldest series that has the image apart.
const KERNELS: &[&str] = &[kernel::NEWEST, "6.19"];

/// One guest run.
struct Entry {
    name: &'static str,
    /// QEMU's `-smp`.
    smp: &'static str,
    icount: bool,
    /// Seconds of wall time, boot included.
    timeout: u64,
    /// Only with `--long`.
    long: bool,
    argv: &'static [&'static str],
}

const SMT: &str = "8,sockets=2,cores=2,threads=2";

/// Short cells: ten seconds of each load. The hostile agent gets four CPUs: with two, a task that may
/// not use one of them is bound to the other and never asked about, so nothing could bounce.
#[rustfmt::skip]
const ENTRIES: &[Entry] = &[
    Entry { name: "smoke", smp: "2", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "smoke"] },
    Entry { name: "inputs", smp: "2", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "inputs"] },
    Entry { name: "options", smp: "2", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "options"] },
    Entry { name: outside::ENTRY, smp: "2", icount: false, timeout: 120, long: false, argv: &["env", "LAB_DAEMON=/bin/mine", "lab-guest", "check", "plugin"] },
    Entry { name: "freeze", smp: "2", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "freeze"] },
    Entry { name: "freeze-exact", smp: "2", icount: true, timeout: 300, long: false, argv: &["lab-guest", "check", "freeze"] },
    Entry { name: "kill", smp: "2", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "kill"] },
    Entry { name: "hostile", smp: "4", icount: false, timeout: 150, long: false, argv: &["lab-guest", "check", "hostile"] },
    Entry { name: "hotplug", smp: "4", icount: false, timeout: 60, long: false, argv: &["lab-guest", "check", "hotplug"] },
    Entry { name: "stress", smp: "2", icount: false, timeout: 200, long: false, argv: &["lab-guest", "check", "stress"] },
    Entry { name: "stress-smt", smp: SMT, icount: false, timeout: 300, long: false, argv: &["lab-guest", "check", "stress"] },
    Entry { name: "stress-long", smp: "2", icount: false, timeout: 500, long: true, argv: &["lab-guest", "check", "stress", "--secs", "60"] },
    Entry { name: "stress-smt-long", smp: SMT, icount: false, timeout: 900, long: true, argv: &["lab-guest", "check", "stress", "--secs", "60"] },
];

/// Runs the table.
pub(crate) fn test(args: &TestArgs) -> Result<ExitCode> {
    let exact = |s: &String| ENTRIES.iter().any(|e| e.name == s);
    let names = |e: &Entry, s: &String| if exact(s) { e.name == s } else { e.name.contains(s.as_str()) };
    let is_wanted = |e: &&Entry| match args.only.as_slice() {
        [] => args.long || !e.long,
        only => only.iter().any(|s| names(e, s) && (args.long || !e.long || exact(s))),
    };
    let entries: Vec<&Entry> = ENTRIES.iter().filter(is_wanted).collect();
    if entries.is_empty() {
        return Err(error("no entry of the table is wanted; the names are in xtask/src/lab_test.rs"));
    }
    build_programs()?;
    let is_outside = |e: &&Entry| e.name == outside::ENTRY;
    let mine = if entries.iter().any(is_outside) { Some(outside::build()?) } else { None };
    let cache = Cache::open()?;
    let series: Vec<&str> = if args.kernel.is_empty() {
        KERNELS.to_vec()
    } else {
        args.kernel.iter().map(String::as_str).collect()
    };
    let kernels = series.iter().map(|s| kernel::get(&cache, s)).collect::<Result<Vec<_>>>()?;
    let qemu = Qemu::find(&cache)?;
    let threads = if qemu.sound { "one thread per vCPU" } else { "one thread for all vCPUs" };
    let releases: Vec<&str> = kernels.iter().map(|k| k.release.as_str()).collect();
    println!("kernels {}; QEMU {}, emulated, {threads}", releases.join(", "), qemu.version()?);
    let (mut tally, total) = (Tally::default(), kernels.len() * entries.len() * args.repeat);
    let once = || kernels.iter().flat_map(|k| entries.iter().map(move |e| (k, *e)));
    let runs = (0..args.repeat).flat_map(|_| once());
    for (number, (kernel, entry)) in (1..).zip(runs) {
        let title = format!("[{number}/{total}] {} smp={} {}", kernel.version, entry.smp, entry.name);
        println!("{title} …");
        let seconds = run_entry(kernel, entry, mine.as_deref(), &mut tally)?.as_secs_f32();
        println!("{title} … {seconds:.0} s");
    }
    Ok(tally.print())
}

fn run_entry(kernel: &Kernel, entry: &Entry, mine: Option<&Path>, tally: &mut Tally) -> Result<Duration> {
    let spec = GuestSpec {
        smp: entry.smp.into(),
        icount: entry.icount,
        timeout: Duration::from_secs(entry.timeout),
        files: mine.map(|p| (p.to_path_buf(), Some(outside::GUEST_PATH.into()))).into_iter().collect(),
        ..GuestSpec::new(kernel.clone())
    };
    let label = format!("{} {}", kernel.version, entry.name);
    let argv: Vec<String> = entry.argv.iter().map(ToString::to_string).collect();
    let (passed, failed) = (tally.passed, tally.failed.len());
    let outcome = guest::run(&spec, &argv, &mut |line| {
        println!("{label} | {line}");
        tally.line(&label, line);
    })?;
    let code = report(&spec, &outcome);
    if code != 0 && tally.failed.len() == failed {
        tally.failed.push(format!("{label}: ended with status {code}"));
    } else if code == 0 && tally.passed == passed {
        say(format_args!("{label}: no check passed"));
        tally.failed.push(format!("{label}: printed no `ok` line"));
    }
    Ok(outcome.wall)
}

/// What all entries said.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    fn line(&mut self, label: &str, line: &str) {
        if line.starts_with("ok ") {
            self.passed += 1;
        } else if let Some(what) = line.strip_prefix("not ok ") {
            self.failed.push(format!("{label}: {what}"));
        } else if let Some(what) = line.strip_prefix("skip ") {
            self.skipped.push(format!("{label}: {what}"));
        }
    }

    fn print(&self) -> ExitCode {
        println!();
        self.skipped.iter().for_each(|what| println!("skipped {what}"));
        self.failed.iter().for_each(|what| println!("failed  {what}"));
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_verdicts_count() {
        let mut tally = Tally::default();
        for line in
            ["ok a - fine", "not ok b - broke", "skip c - no PSI", "okay", " ok d", "noise", "notok e"]
        {
            tally.line("7.3.4 smoke", line);
        }
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["7.3.4 smoke: b - broke"]);
        assert_eq!(tally.skipped, ["7.3.4 smoke: c - no PSI"]);
    }
}
