//! `lab test`, tier C: a table of guest runs, each of which prints one line per check.
//!
//! Lines that count: `ok NAME - text`, `not ok NAME - text`, `skip NAME - reason`. An entry that ends badly, or
//! prints no `ok` at all, has failed: silence is never success.
//!
//! Two long forms of it: `lab matrix`, the entries that matter on every series, and `lab soak`, hours of one entry.

use crate::guest::{self, GuestSpec};
use crate::kernel::{self, Cache, Kernel};
use crate::lab::{build_programs, report};
use crate::outside;
use crate::qemu::Qemu;
use crate::stuck;
use crate::ui::{Result, error, say};
use crate::{MatrixArgs, SoakArgs, TestArgs};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The kernels when none is named: the newest, and the oldest series that has the image apart.
const KERNELS: &[&str] = &[kernel::NEWEST, "6.19"];

/// What is asked of the older kernel unless entries are named: what kernels differ in, and what must hold on each.
const OLDER_ENTRIES: &[&str] =
    &["smoke", "freeze", "kill", "hostile", "hotplug", "stress", "shares", "limits"];

/// What the matrix asks of every series that the design names.
const MATRIX_KERNELS: &[&str] = &["6.12", "6.16", "6.18", "6.19", "7.1", "7.2", "7.3"];
const MATRIX_ENTRIES: &[&str] = &["smoke", "stress", "freeze", "kill", "hostile", "hotplug"];

/// What a soak may take longer than its load: boot, warm-up, checks at the end, a busy host.
const SOAK_MARGIN: Duration = Duration::from_secs(600);

/// One guest run.
struct Entry {
    name: &'static str,
    /// QEMU's `-smp`.
    smp: &'static str,
    /// QEMU's `-m`; empty for the usual.
    mem: &'static str,
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
    Entry { name: "smoke", smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "smoke"] },
    Entry { name: "inputs", smp: "2", mem: "", icount: false, timeout: 200, long: false, argv: &["lab-guest", "check", "inputs", "options"] },
    Entry { name: outside::ENTRY, smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["env", "LAB_DAEMON=/bin/mine", "lab-guest", "check", "plugin"] },
    Entry { name: "events", smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["/bin/listener"] },
    Entry { name: "freeze", smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "freeze"] },
    Entry { name: "path", smp: "1", mem: "", icount: true, timeout: 900, long: false, argv: &["lab-guest", "gate"] },
    Entry { name: "monitor-path", smp: "1", mem: "", icount: true, timeout: 300, long: false, argv: &["monitor-cost", "--pairs", "9", "--round-trips", "3000", "--warm-up", "20", "--limit", "1.08"] },
    Entry { name: "monitor-path-wakeups", smp: "1", mem: "", icount: true, timeout: 300, long: false, argv: &["monitor-cost", "--wakeups", "--pairs", "5", "--round-trips", "3000", "--warm-up", "20", "--limit", "1.08"] },
    Entry { name: "freeze-exact", smp: "2", mem: "", icount: true, timeout: 300, long: false, argv: &["lab-guest", "check", "freeze"] },
    Entry { name: "kill", smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "kill"] },
    Entry { name: "hostile", smp: "4", mem: "", icount: false, timeout: 150, long: false, argv: &["lab-guest", "check", "hostile"] },
    Entry { name: "rings", smp: "2", mem: "", icount: false, timeout: 200, long: false, argv: &["env", "LAB_TRANSPORT=rings", "lab-guest", "check", "smoke", "kill"] },
    Entry { name: "rings-hostile", smp: "4", mem: "", icount: false, timeout: 150, long: false, argv: &["env", "LAB_TRANSPORT=rings", "lab-guest", "check", "hostile"] },
    Entry { name: "hotplug", smp: "4", mem: "", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "hotplug"] },
    Entry { name: "stress", smp: "2", mem: "", icount: false, timeout: 200, long: false, argv: &["lab-guest", "check", "stress"] },
    Entry { name: "stress-smt", smp: SMT, mem: "", icount: false, timeout: 300, long: false, argv: &["lab-guest", "check", "stress"] },
    Entry { name: "faulty", smp: "2", mem: "", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "storm", "slow", "stuck"] },
    Entry { name: "shares", smp: "2", mem: "", icount: false, timeout: 300, long: false, argv: &["lab-guest", "check", "fair", "rt"] },
    Entry { name: "boosted", smp: "2", mem: "", icount: false, timeout: 120, long: true, argv: &["/bin/boosted"] },
    Entry { name: "limits", smp: "2", mem: "", icount: false, timeout: 300, long: false, argv: &["lab-guest", "check", "limits"] },
    Entry { name: "memory", smp: "2", mem: "320M", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "sysrq", "partial", "memory"] },
    Entry { name: "many", smp: "2", mem: "", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "many"] },
    Entry { name: "one", smp: "1", mem: "", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "smoke", "freeze", "--secs", "4"] },
    Entry { name: "mode", smp: "2", mem: "", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "mode"] },
    Entry { name: "runtime", smp: "2", mem: "", icount: false, timeout: 400, long: false, argv: &["lab-guest", "check", "runtime", "top"] },
    Entry { name: "drills", smp: "2", mem: "", icount: false, timeout: 200, long: false, argv: &["lab-guest", "check", "drills"] },
    Entry { name: "switch", smp: "2", mem: "", icount: false, timeout: 200, long: false, argv: &["lab-guest", "check", "eject", "switch"] },
    Entry { name: "strategies", smp: "2", mem: "", icount: false, timeout: 240, long: true, argv: &["lab-guest", "check", "strategies"] },
    Entry { name: "kernel-drills", smp: "2", mem: "", icount: false, timeout: 300, long: false, argv: &["env", "LAB_OPTIONS=--kernel-mode", "lab-guest", "check", "kill", "freeze", "hotplug"] },
    Entry { name: "decided-drills", smp: "2", mem: "", icount: false, timeout: 300, long: false, argv: &["env", "LAB_OPTIONS=--permit=0", "lab-guest", "check", "kill", "freeze", "hotplug"] },
    Entry { name: "preempt-drills", smp: "2", mem: "", icount: false, timeout: 300, long: false, argv: &["env", "LAB_OPTIONS=--permit=0 --preempt-us=200", "lab-guest", "check", "kill", "freeze", "hotplug"] },
    Entry { name: "dedicated-drills", smp: "2", mem: "", icount: false, timeout: 300, long: true, argv: &["env", "LAB_OPTIONS=--dedicated-cpu=1", "lab-guest", "check", "kill", "freeze", "hotplug"] },
    Entry { name: "kernel-loads", smp: "2", mem: "", icount: false, timeout: 500, long: true, argv: &["env", "LAB_OPTIONS=--kernel-mode", "lab-guest", "check", "smoke", "stress", "limits", "cgroups", "rt", "many"] },
    Entry { name: "decided-loads", smp: "2", mem: "", icount: false, timeout: 500, long: true, argv: &["env", "LAB_OPTIONS=--permit=0", "lab-guest", "check", "smoke", "stress", "limits", "cgroups", "rt", "many"] },
    Entry { name: "dedicated-loads", smp: "3", mem: "", icount: false, timeout: 500, long: true, argv: &["env", "LAB_OPTIONS=--dedicated-cpu=1", "lab-guest", "check", "smoke", "stress", "limits", "cgroups", "rt", "many"] },
    Entry { name: "local", smp: SMT, mem: "", icount: false, timeout: 240, long: false, argv: &["lab-guest", "check", "local"] },
    Entry { name: "record", smp: "2", mem: "", icount: false, timeout: 240, long: true, argv: &["lab-guest", "check", "record"] },
    Entry { name: "soak", smp: "2", mem: "", icount: false, timeout: 400, long: true, argv: &["lab-guest", "check", "soak", "--secs", "240"] },
    Entry { name: "boosted-long", smp: "2", mem: "", icount: false, timeout: 240, long: true, argv: &["/bin/boosted", "60"] },
    Entry { name: "cgroups", smp: "2", mem: "", icount: false, timeout: 120, long: false, argv: &["lab-guest", "check", "cgroups"] },
    Entry { name: "shares-exact", smp: "2", mem: "", icount: false, timeout: 300, long: true, argv: &["lab-guest", "check", "exact"] },
    Entry { name: "limits-tiny", smp: "2", mem: "", icount: false, timeout: 200, long: true, argv: &["lab-guest", "check", "tiny"] },
    Entry { name: "stress-long", smp: "2", mem: "", icount: false, timeout: 500, long: true, argv: &["lab-guest", "check", "stress", "--secs", "60"] },
    Entry { name: "stress-smt-long", smp: SMT, mem: "", icount: false, timeout: 900, long: true, argv: &["lab-guest", "check", "stress", "--secs", "60"] },
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
    let mine = if entries.iter().any(is_outside) { outside::build()? } else { Vec::new() };
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
    let usual = args.kernel.is_empty() && args.only.is_empty() && !args.long;
    let is_run = |nth: usize, e: &Entry| nth == 0 || !usual || OLDER_ENTRIES.contains(&e.name);
    let mut once = Vec::new();
    for (nth, kernel) in kernels.iter().enumerate() {
        once.extend(entries.iter().filter(|e| is_run(nth, e)).map(|e| (kernel, *e)));
    }
    if usual {
        println!("all entries on {}, on the others: {}", kernels[0].release, OLDER_ENTRIES.join(", "));
    }
    let (mut tally, total) = (Tally::default(), once.len() * args.repeat);
    let runs = (0..args.repeat).flat_map(|_| once.iter());
    for (number, (kernel, entry)) in (1..).zip(runs) {
        run_entry(kernel, entry, &format!("[{number}/{total}]"), &mine, &mut tally)?;
    }
    Ok(tally.print())
}

/// `lab matrix`: every series by every entry, one table at the end.
pub(crate) fn matrix(args: &MatrixArgs) -> Result<ExitCode> {
    let series: Vec<&str> = match args.kernel.as_slice() {
        [] => MATRIX_KERNELS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let is_wanted = |e: &&Entry| match args.only.as_slice() {
        [] => MATRIX_ENTRIES.contains(&e.name),
        only => only.iter().any(|name| name == e.name),
    };
    let entries: Vec<&Entry> = ENTRIES.iter().filter(is_wanted).collect();
    if entries.is_empty() {
        return Err(error("no entry of the table has such a name; they are in xtask/src/lab_test.rs"));
    }
    series.iter().try_for_each(|s| kernel::parse(s).map(drop))?;
    build_programs()?;
    let cache = Cache::open()?;
    let mut tally = Tally::default();
    let mut rows: Vec<(String, Vec<Cell>)> = Vec::new();
    for (row, name) in (1..).zip(&series) {
        // A kernel that cannot be had for another reason than that there is none must not stop the others.
        let kernel = match kernel::find(&cache, name) {
            Ok(Some(kernel)) => kernel,
            Ok(None) => {
                say(format_args!("the archive has no kernel {name}"));
                rows.push((name.to_string(), vec![Cell::NotAvailable; entries.len()]));
                continue;
            }
            Err(e) => {
                say(&e);
                tally.failed.push(format!("{name}: no kernel: {e}"));
                rows.push((name.to_string(), vec![Cell::NoKernel; entries.len()]));
                continue;
            }
        };
        let mut cells = Vec::new();
        for (column, entry) in (1..).zip(&entries) {
            let place = format!("[kernel {row}/{}, entry {column}/{}]", series.len(), entries.len());
            cells.push(run_entry(&kernel, entry, &place, &[], &mut tally)?);
        }
        rows.push((kernel.version.to_string(), cells));
    }
    let code = tally.print();
    println!("\n{}", table(&entries.iter().map(|e| e.name).collect::<Vec<_>>(), &rows));
    let ran = rows
        .iter()
        .any(|(_, cells)| cells.iter().any(|c| matches!(c, Cell::Ok(_) | Cell::Failed(_) | Cell::Skipped)));
    if !ran {
        return Err(error("no kernel of the matrix is available, so nothing was tested"));
    }
    Ok(code)
}

/// `lab soak`: one entry for hours.
pub(crate) fn soak(args: &SoakArgs) -> Result<ExitCode> {
    if !(args.hours > 0.0 && args.hours <= 24.0 * 365.0) {
        return Err(error(format!("--hours {}: more than 0, and no more than a year", args.hours)));
    }
    let load = Duration::from_secs_f64((args.hours * 3600.0).ceil());
    build_programs()?;
    let kernel = kernel::get(&Cache::open()?, &args.kernel)?;
    let spec =
        GuestSpec { smp: args.smp.clone(), timeout: soak_timeout(load), ..GuestSpec::new(kernel.clone()) };
    let argv = ["lab-guest", "check", "soak", "--secs", &load.as_secs().to_string()].map(String::from);
    println!(
        "{} s of load on Linux {}, smp={}; killed after {} s",
        load.as_secs(),
        kernel.release,
        spec.smp,
        spec.timeout.as_secs()
    );
    let mut tally = Tally::default();
    run_guest(&spec, "soak", &argv, &mut tally)?;
    Ok(tally.print())
}

/// The load, a tenth for a guest whose clock falls behind, and the margin.
fn soak_timeout(load: Duration) -> Duration {
    load + load / 10 + SOAK_MARGIN
}

fn run_entry(
    kernel: &Kernel,
    entry: &Entry,
    place: &str,
    programs: &[(PathBuf, Option<String>)],
    tally: &mut Tally,
) -> Result<Cell> {
    let title = format!("{place} {} smp={} {}", kernel.version, entry.smp, entry.name);
    println!("{title} …");
    let usual = GuestSpec::new(kernel.clone());
    let spec = GuestSpec {
        smp: entry.smp.into(),
        mem: if entry.mem.is_empty() { usual.mem.clone() } else { entry.mem.into() },
        icount: entry.icount,
        timeout: Duration::from_secs(entry.timeout),
        files: if entry.name == outside::ENTRY { programs.to_vec() } else { Vec::new() },
        ..usual
    };
    let argv: Vec<String> = entry.argv.iter().map(ToString::to_string).collect();
    let cell = run_guest(&spec, entry.name, &argv, tally)?;
    println!("{title} … {cell}");
    Ok(cell)
}

/// Runs one guest and counts what it says, under the kernel's version and `name`.
fn run_guest(spec: &GuestSpec, name: &str, argv: &[String], tally: &mut Tally) -> Result<Cell> {
    let label = format!("{} {name}", spec.kernel.version);
    tally.last = None;
    let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
    let outcome = guest::run(spec, argv, &mut |line| {
        println!("{label} | {line}");
        tally.line(&label, line);
    })?;
    let code = report(spec, &outcome);
    if code != 0 && tally.failed.len() == failed {
        let why = stuck::essence(&outcome.console_tail).join("\n            ");
        let last = tally.last.take().unwrap_or_default();
        tally.failed.push(format!("{label}: ended with status {code} after \"{last}\"\n            {why}"));
    } else if code == 0
        && tally.passed == passed
        && tally.failed.len() == failed
        && tally.skipped.len() > skipped
    {
        // All of it, for a reason that it gave: the list at the end says so.
        return Ok(Cell::Skipped);
    } else if code == 0 && tally.passed == passed {
        say(format_args!("{label}: no check passed"));
        tally.failed.push(format!("{label}: printed no `ok` line"));
    }
    let seconds = outcome.wall.as_secs();
    Ok(if tally.failed.len() == failed { Cell::Ok(seconds) } else { Cell::Failed(seconds) })
}

/// How one entry ended on one kernel; seconds of wall time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    Ok(u64),
    Failed(u64),
    /// Nothing of it can run on this kernel; never counted as passed.
    Skipped,
    /// The archive has no such kernel.
    NotAvailable,
    /// There should be one, but it could not be fetched or built.
    NoKernel,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(s) => f.pad(&format!("ok {s} s")),
            Self::Failed(s) => f.pad(&format!("FAILED {s} s")),
            Self::Skipped => f.pad("skipped"),
            Self::NotAvailable => f.pad("not available"),
            Self::NoKernel => f.pad("NO KERNEL"),
        }
    }
}

/// A line per kernel, a column per entry, and what it sums up to.
fn table(entries: &[&str], rows: &[(String, Vec<Cell>)]) -> String {
    let mut text = format!("{:<10}", "kernel");
    entries.iter().for_each(|name| text.push_str(&format!(" {name:<14}")));
    for (kernel, cells) in rows {
        text.push_str(&format!("\n{kernel:<10}"));
        cells.iter().for_each(|cell| text.push_str(&format!(" {cell:<14}")));
    }
    let count = |is: fn(&Cell) -> bool| rows.iter().flat_map(|(_, cells)| cells).filter(|c| is(c)).count();
    text.push_str(&format!(
        "\n{} ok, {} failed, {} skipped, {} not available",
        count(|c| matches!(c, Cell::Ok(_))),
        count(|c| matches!(c, Cell::Failed(_) | Cell::NoKernel)),
        count(|c| *c == Cell::Skipped),
        count(|c| *c == Cell::NotAvailable)
    ));
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// What all entries said.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// The last line of any kind.
    last: Option<String>,
}

impl Tally {
    fn line(&mut self, label: &str, line: &str) {
        self.last = Some(line.to_owned());
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

    #[test]
    fn what_is_not_available_is_neither_passed_nor_failed() {
        let rows = [
            ("6.12.1".to_string(), vec![Cell::Ok(12), Cell::Failed(120)]),
            ("6.13".to_string(), vec![Cell::NotAvailable; 2]),
            ("7.1".to_string(), vec![Cell::NoKernel; 2]),
        ];
        assert_eq!(
            table(&["smoke", "kill"], &rows),
            "kernel     smoke          kill\n\
             6.12.1     ok 12 s        FAILED 120 s\n\
             6.13       not available  not available\n\
             7.1        NO KERNEL      NO KERNEL\n\
             1 ok, 3 failed, 0 skipped, 2 not available"
        );
    }

    #[test]
    fn the_matrix_and_the_older_kernel_name_entries_of_the_table() {
        let is_short = |name: &&str| ENTRIES.iter().any(|e| e.name == *name && !e.long);
        assert!(MATRIX_ENTRIES.iter().chain(OLDER_ENTRIES).all(is_short));
    }

    #[test]
    fn a_soak_may_take_longer_than_its_load() {
        assert_eq!(soak_timeout(Duration::from_secs(3600)), Duration::from_secs(3600 + 360 + 600));
    }
}
