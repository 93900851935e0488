//! `lab profile`: where the instructions of a wakeup go, function by function. Not sampled: all that one CPU executes in
//! a steady stretch of a pipe's round trips is written down by the emulator, one instruction after the other.

use crate::ProfileArgs;
use crate::guest::{self, GuestSpec};
use crate::initramfs;
use crate::kernel::{self, Cache};
use crate::lab::{build_programs, report};
use crate::ui::{Context, Result, capture, error, say};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const READY: &str = "profile,ready";
/// Bytes of the emulator's log: about two million instructions.
const ENOUGH: u64 = 160 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(400);
/// What is called once for each wakeup.
const PER_WAKEUP: &str = "try_to_wake_up";
const LINES: usize = 300;
/// Whose functions are named.
const AGENT: &str = "gthulhu-daemon";

/// Measures, prints and writes.
pub(crate) fn profile(args: &ProfileArgs) -> Result<ExitCode> {
    build_programs()?;
    let cache = Cache::open()?;
    let kernel = kernel::get(&cache, &args.kernel)?;
    let mut columns = Vec::new();
    for scheduler in &args.scheduler {
        let spec =
            GuestSpec { smp: "1".into(), icount: true, timeout: TIMEOUT, ..GuestSpec::new(kernel.clone()) };
        let command = ["lab-guest", "profile", "--scheduler", scheduler].map(String::from);
        let log = Log(std::env::temp_dir().join(format!("qumun-profile-{}", std::process::id())));
        let (mut map, mut writer) = (Map::default(), None);
        map.read(&initramfs::release_dir()?.join(AGENT))?;
        let outcome = guest::run_in(&spec, &command, &mut |line, monitor| {
            if line == READY {
                say(format_args!("{scheduler}: writing down what is executed"));
                writer = Some(write_down(monitor.to_owned(), log.0.clone()));
            } else if !map.learn(line) {
                println!("{line}");
            }
        })?;
        let code = report(&spec, &outcome);
        if code != 0 {
            return Ok(ExitCode::from(code));
        }
        let done = writer.ok_or_else(|| error("the guest never was ready"))?.join();
        done.map_err(|_| error("the log's thread panicked"))??;
        columns.push(map.count(&log.0)?);
    }
    let text = table(&args.scheduler, &columns);
    print!("{text}");
    let date = capture(Command::new("date").arg("+%F"))?;
    let folder = initramfs::workspace_root()?.join("benches/runs").join(format!(
        "{}-{}-profile",
        date.trim(),
        kernel.version
    ));
    fs::create_dir_all(&folder).cannot(format_args!("make {}", folder.display()))?;
    let file = folder.join("profile.txt");
    fs::write(&file, text).cannot(format_args!("write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Gone when dropped.
struct Log(PathBuf);

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Has the emulator log each instruction until there are enough.
fn write_down(monitor: PathBuf, log: PathBuf) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut monitor = UnixStream::connect(&monitor).cannot("reach QEMU's monitor")?;
        // The older and the newer name of the same: one instruction in each block.
        for order in
            ["singlestep on", "one-insn-per-tb on", &format!("logfile {}", log.display()), "log exec,nochain"]
        {
            writeln!(monitor, "{order}").cannot("ask QEMU's monitor")?;
        }
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&log).map_or(0, |m| m.len()) < ENOUGH && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for order in ["log none", "singlestep off", "one-insn-per-tb off"] {
            writeln!(monitor, "{order}").cannot("ask QEMU's monitor")?;
        }
        Ok(())
    })
}

/// What lies where.
#[derive(Debug, Default)]
struct Map {
    symbols: BTreeMap<u64, String>,
    ranges: Vec<Range>,
    /// Functions of a program of ours, by where its file has them.
    functions: BTreeMap<u64, String>,
}

#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    /// In the file.
    offset: u64,
    name: String,
}

/// Instructions per wakeup, by function.
#[derive(Debug, Default, PartialEq)]
struct Column {
    wakeups: u64,
    by_name: BTreeMap<String, u64>,
}

impl Map {
    /// Takes a line of the guest, if it is one of ours.
    fn learn(&mut self, line: &str) -> bool {
        let mut parts = line.splitn(6, ',');
        if parts.next() != Some("profile") {
            return false;
        }
        let hex = |s: Option<&str>| u64::from_str_radix(s.unwrap_or_default(), 16).ok();
        match parts.next() {
            Some("symbol") => {
                if let (Some(at), Some(name)) = (hex(parts.next()), parts.next()) {
                    self.symbols.insert(at, name.to_owned());
                }
            }
            Some("range") => {
                if let (Some(start), Some(end), Some(offset), Some(name)) =
                    (hex(parts.next()), hex(parts.next()), hex(parts.next()), parts.next())
                {
                    self.ranges.push(Range { start, end, offset, name: name.to_owned() });
                }
            }
            _ => return false,
        }
        true
    }

    fn name(&self, pc: u64) -> &str {
        if pc < 1 << 63 {
            let found = self.ranges.iter().find(|range| (range.start..range.end).contains(&pc));
            let Some(range) = found else { return "other programs" };
            let at = pc - range.start + range.offset;
            let function = self.functions.range(..=at).next_back().filter(|_| range.name.ends_with(AGENT));
            return function.map_or(&range.name, |(_, name)| name);
        }
        self.symbols.range(..=pc).next_back().map_or("?", |(_, name)| name)
    }

    /// Reads what lies where in a program's file.
    fn read(&mut self, file: &Path) -> Result<()> {
        // Where a segment is in memory, and where in the file: the kernel's map of a process has the latter.
        let segments: Vec<[u64; 3]> = capture(Command::new("readelf").arg("-lW").arg(file))?
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("LOAD"))
            .filter_map(|line| {
                let mut numbers = line
                    .split_ascii_whitespace()
                    .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
                let [offset, address, _, size] = std::array::from_fn(|_| numbers.next().flatten());
                Some([offset?, address?, size?])
            })
            .collect();
        for line in capture(Command::new("nm").args(["-C", "--defined-only"]).arg(file))?.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(at), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next().and_then(|at| u64::from_str_radix(at, 16).ok()), words.next(), words.next())
            else {
                continue;
            };
            let segment = segments.iter().find(|[_, address, size]| (*address..address + size).contains(&at));
            if let Some([offset, address, _]) = segment {
                self.functions.insert(at - address + offset, format!("agent {}", short(name)));
            }
        }
        Ok(())
    }

    fn count(&self, log: &Path) -> Result<Column> {
        let file = File::open(log).cannot("read QEMU's log")?;
        let wakeup = self.symbols.iter().find(|(_, name)| *name == PER_WAKEUP).map(|(at, _)| *at);
        let (mut column, mut counts) = (Column::default(), BTreeMap::<u64, u64>::new());
        for line in BufReader::new(file).split(b'\n') {
            let line = line.cannot("read QEMU's log")?;
            let Some(pc) = counter(&String::from_utf8_lossy(&line)) else { continue };
            *counts.entry(pc).or_default() += 1;
            column.wakeups += u64::from(Some(pc) == wakeup);
        }
        if column.wakeups < 10 {
            return Err(error(format!("only {} wakeups were written down", column.wakeups)));
        }
        for (pc, count) in counts {
            *column.by_name.entry(self.name(pc).to_owned()).or_default() += count;
        }
        Ok(column)
    }
}

/// A function's name without what its types are made of: `<a::B<c::D> as e::F>::g` is `B::g`.
fn short(name: &str) -> String {
    let mut depth = 0;
    let plain: String = match name.strip_prefix('<').and_then(|rest| rest.rsplit_once(">::")) {
        Some((of, function)) => format!("{}::{function}", of.split(" as ").next().unwrap_or(of)),
        None => name.to_owned(),
    }
    .chars()
    .filter(|c| {
        depth += i32::from(*c == '<');
        let inside = depth > 0;
        depth -= i32::from(*c == '>');
        !inside
    })
    .collect();
    let parts: Vec<&str> = plain.split("::").filter(|part| !part.is_empty()).collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}

/// The program counter of `Trace 0: 0x7f… [CS/PC/FLAGS/CFLAGS] …`.
fn counter(line: &str) -> Option<u64> {
    let inside = line.strip_prefix("Trace ")?.split_once('[')?.1;
    u64::from_str_radix(inside.split('/').nth(1)?, 16).ok()
}

/// Is it ours, in the kernel?
fn part(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("agent") => "agent, in user space",
        _ if name.starts_with("load") || name == "other programs" => "load, in user space",
        _ if name.starts_with("bpf_prog_") => "BPF programs",
        _ if name.contains("scx") || name.contains("dsq") || name.contains("ext_sched") => {
            "kernel, sched_ext"
        }
        _ if name.contains("bpf") => "kernel, for BPF",
        _ if name.contains("fair") || name.contains("cfs") || name.contains("eevdf") => "kernel, fair class",
        _ => "kernel, other",
    }
}

fn table(names: &[String], columns: &[Column]) -> String {
    let per = |column: &Column, count: u64| count as f64 / column.wakeups.max(1) as f64;
    let mut text = String::from("Instructions of one wakeup, of which a pipe's round trip has two.\n\n");
    let mut row = |name: &str, values: &[f64]| {
        let values: String = values.iter().fold(String::new(), |mut text, value| {
            let _ = write!(text, "{value:>12.0}");
            text
        });
        let _ = writeln!(text, "{name:<48}{values}");
    };
    let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut functions: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (at, column) in columns.iter().enumerate() {
        for (name, count) in &column.by_name {
            let add = |to: &mut BTreeMap<_, Vec<f64>>, name| {
                to.entry(name).or_insert_with(|| vec![0.0; columns.len()])[at] += per(column, *count);
            };
            add(&mut parts, "all");
            add(&mut parts, part(name));
            add(&mut functions, name.as_str());
        }
    }
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    for (name, values) in &parts {
        row(name, values);
    }
    row("", &[]);
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by(|a, b| largest(&b.1).total_cmp(&largest(&a.1)));
    for (name, values) in functions.iter().take(LINES) {
        row(name, values);
    }
    let heads: String = names.iter().fold(String::new(), |mut text, name| {
        let _ = write!(text, "{name:>12}");
        text
    });
    text.replacen("\n\n", &format!("\n\n{:<48}{heads}\n", ""), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened() {
        for (name, expected) in [
            ("<qumun::agent::Agent<B, S> as core::fmt::Debug>::fmt", "Agent::fmt"),
            ("qumun::agent::Agent<B,S>::turn", "Agent::turn"),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(short(name), expected);
        }
    }

    #[test]
    fn instructions_are_counted_by_what_lies_where() {
        let mut map = Map::default();
        let guest = "profile,symbol,ffffffff81000000,try_to_wake_up\n\
            profile,symbol,ffffffff81000100,bpf_prog_1_qumun_enqueue\n\
            profile,range,400000,500000,0,agent exe";
        assert!(guest.lines().all(|line| map.learn(line)));
        assert!(!map.learn("path,EEVDF,1,2"));
        let pcs = [0xffff_ffff_8100_0000_u64, 0xffff_ffff_8100_0004, 0xffff_ffff_8100_0101, 0x40_1000, 0x10];
        let line = |pc: &u64| format!("Trace 0: 0x7f0000 [00000000/{pc:016x}/0000c0b3/ff000201] x\n");
        let log = Log(std::env::temp_dir().join(format!("qumun-profile-test-{}", std::process::id())));
        fs::write(&log.0, pcs.iter().map(line).collect::<String>().repeat(10) + "Stopped execution\n")
            .unwrap();
        let column = map.count(&log.0).unwrap();
        assert_eq!(column.wakeups, 10);
        let text = table(&["gthulhu".into()], &[column]);
        for expected in [
            "try_to_wake_up                                             2",
            "all                                                        5",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
