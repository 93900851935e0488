//! `lab compare`: our schedulers, the kernel's own and those of others, under the same loads in the same boots.
//!
//! Three boots, for what one of them can tell and the others cannot (docs/lab.md): one CPU whose clock counts
//! instructions, for path lengths that repeat; two such CPUs, for how long who wakes up waits, without the host's noise;
//! and several CPUs in the host's time, for everything that has to do with working at the same time, in interleaved rounds
//! and by medians. Figures, summary and a page are kept under
//! benches/runs/.

mod page;
mod peers;
mod record;
mod summary;

use crate::CompareArgs;
use crate::guest::{self, GuestSpec};
use crate::initramfs::{release_dir, workspace_root};
use crate::kernel::{self, Cache, Kernel};
use crate::lab::{build_programs, report};
use crate::modules::{self, Module};
use crate::qemu::Qemu;
use crate::setup::{self, Packages};
use crate::ui::{Context, Result, capture, error, say};
use record::{Problem, Record};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What the loads need in the guest.
const TOOLS: Packages = &[
    ("linux-perf", "perf bench sched pipe"),
    ("rt-tests", "hackbench"),
    ("stress-ng", "hogs beside pings"),
    ("iputils-ping", "pings"),
    ("iproute2", "a pair of veth"),
];
const PROGRAMS: &[&str] = &["perf", "ping", "ip"];

/// In this order; the table of the guest (xtask/guest/src/compare/schedulers.rs) knows how to start each.
pub(crate) const SCHEDULERS: &[&str] = &[
    "EEVDF",
    "scx_bpfland",
    "scx_rustland",
    "simple-fifo",
    "gthulhu",
    "gthulhu permits",
    "kernel mode",
    "core alone",
];

/// One guest.
#[derive(Debug)]
struct Boot {
    name: &'static str,
    smp: &'static str,
    icount: bool,
    /// Seconds (virtual, where instructions count) before the first measurement.
    warm_up: u32,
    rounds: u32,
    watched: u32,
    loads: &'static [&'static str],
    /// What `--quick` keeps.
    quick: &'static [&'static str],
}

const BOOTS: &[Boot] = &[
    Boot {
        name: "path",
        smp: "1",
        icount: true,
        warm_up: 20,
        rounds: 5,
        watched: 1,
        loads: &["pipe", "request", "periodic"],
        quick: &["pipe"],
    },
    Boot {
        name: "wakes",
        smp: "2",
        icount: true,
        warm_up: 20,
        rounds: 5,
        watched: 1,
        loads: &["request", "periodic"],
        quick: &["request"],
    },
    Boot {
        name: "parallel",
        smp: "2",
        icount: false,
        warm_up: 5,
        rounds: 10,
        watched: 2,
        loads: &[
            "hackbench-processes",
            "hackbench-threads",
            "request",
            "hogs",
            "forks",
            "ping",
            "ping-process",
        ],
        quick: &["hackbench-processes"],
    },
];

/// Wall time of one measurement, the start of its scheduler included, before the guest is taken for dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Boot, warm-up and the first, unseen turn.
const BOOT_PATIENCE: Duration = Duration::from_secs(400);

/// Measures, prints and writes.
pub(crate) fn compare(args: &CompareArgs) -> Result<ExitCode> {
    if let Some(folder) = &args.again {
        return again(folder);
    }
    let mut plan = plan(args)?;
    let started = Instant::now();
    setup::ensure(TOOLS)?;
    build_programs()?;
    let cache = Cache::open()?;
    let kernel = kernel::get(&cache, &args.kernel)?;
    let mut all = Record::default();
    let mut files: Vec<(PathBuf, Option<String>)> = Vec::new();
    let mut schedulers = schedulers(args)?;
    for (peer, program) in peers::programs(&cache, &schedulers.clone()) {
        match program {
            Ok(program) => files.push((program, None)),
            Err(e) => {
                all.problems.push(Problem::skipped("", peer.name, &e.message));
                schedulers.retain(|name| *name != peer.name);
            }
        }
    }
    let folder = folder(args, &kernel)?;
    let mut setup = setup_text(args, &plan, &kernel, &Qemu::find(&cache)?.version()?.to_string());
    if args.boot.is_some() && folder.join(RAW).is_file() {
        // Other parts of the same comparison.
        let mut before = Record::read(&folder)?;
        before
            .without(|boot, load| plan.iter().any(|now| now.boot.name == boot && now.loads.contains(&load)));
        before.add(all);
        all = before;
        let old = folder.join(SETUP);
        let old = fs::read_to_string(&old).cannot(format_args!("read {}", old.display()))?;
        setup = joined(&old, &setup);
    }
    let mut code = 0;
    for planned in &mut plan {
        let mut files = files.clone();
        if planned.loads.iter().any(|load| load.starts_with("ping")) {
            match modules::get(&cache, &kernel, "veth", "CONFIG_VETH") {
                Ok(Module::BuiltIn) => {}
                Ok(Module::File(file)) => files.push((file, Some("/lab/veth.ko".into()))),
                Err(e) => {
                    for load in planned.loads.iter().filter(|load| load.starts_with("ping")) {
                        all.problems.push(Problem::skipped(load, "", &e.message));
                    }
                    planned.loads.retain(|load| !load.starts_with("ping"));
                }
            }
        }
        if planned.loads.is_empty() {
            continue;
        }
        code = measure(&kernel, planned, &schedulers, files, args.quick, &mut all)?;
        // What was measured is kept after each boot: whoever interrupts the next one has lost only that.
        keep(&folder, &all, &setup)?;
        if code != 0 {
            let name = planned.boot.name;
            all.problems.push(Problem::skipped("", "", &format!("the guest of boot {name} ended early")));
            break;
        }
    }
    if all.values.is_empty() {
        return Err(error("the guests measured nothing; what they said is above"));
    }
    for (scheduler, ops) in &all.loaded {
        setup = joined(&setup, &format!("{scheduler}: the kernel calls it {ops}.\n"));
    }
    write(&folder, &all, &setup)?;
    println!("written to {} after {} s", folder.display(), started.elapsed().as_secs());
    Ok(ExitCode::from(code))
}

const RAW: &str = "raw.csv";
const SETUP: &str = "SETUP.txt";

/// Summary and page anew, of figures that were kept.
fn again(folder: &Path) -> Result<ExitCode> {
    let setup = folder.join(SETUP);
    let setup = fs::read_to_string(&setup).cannot(format_args!("read {}", setup.display()))?;
    write(folder, &Record::read(folder)?, &setup)?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path, all: &Record, setup: &str) -> Result<()> {
    let order = all.order(&order_of_all());
    let summary = summary::text(all, &order);
    print!("{summary}");
    let page = page::html("Schedulers under the same loads", setup, all, &order);
    keep(folder, all, setup)?;
    for (name, text) in [("summary.txt", summary), ("report.html", page)] {
        let file = folder.join(name);
        fs::write(&file, text).cannot(format_args!("write {}", file.display()))?;
    }
    Ok(())
}

/// The figures, and how they were made.
fn keep(folder: &Path, all: &Record, setup: &str) -> Result<()> {
    fs::create_dir_all(folder).cannot(format_args!("make {}", folder.display()))?;
    for (name, text) in all.csv().into_iter().chain([(SETUP, setup.to_owned())]) {
        let file = folder.join(name);
        fs::write(&file, text).cannot(format_args!("write {}", file.display()))?;
    }
    Ok(())
}

/// The first text, and of the second what is new.
fn joined(first: &str, second: &str) -> String {
    let new = second.lines().filter(|line| !first.lines().any(|known| known == *line));
    let mut text = first.to_owned();
    new.for_each(|line| {
        text.push_str(line);
        text.push('\n');
    });
    text
}

/// A boot, and what of it is wanted.
#[derive(Debug)]
struct Planned {
    boot: &'static Boot,
    loads: Vec<&'static str>,
    /// Without the observer and with it.
    rounds: u32,
    watched: u32,
}

/// The first one always: against it the others are measured.
fn schedulers(args: &CompareArgs) -> Result<Vec<&'static str>> {
    if let Some(wrong) = args.scheduler.iter().find(|name| !SCHEDULERS.contains(&name.as_str())) {
        return Err(error(format!("--scheduler {wrong}: there are {}", SCHEDULERS.join(", "))));
    }
    let is_wanted = |(n, name): &(usize, &&str)| {
        *n == 0 || args.scheduler.is_empty() || args.scheduler.iter().any(|wanted| wanted == **name)
    };
    Ok(SCHEDULERS.iter().enumerate().filter(is_wanted).map(|(_, name)| *name).collect())
}

/// Boots, their loads and rounds.
fn plan(args: &CompareArgs) -> Result<Vec<Planned>> {
    let known = || BOOTS.iter().flat_map(|boot| boot.loads);
    for wanted in &args.only {
        if !known().any(|load| load == wanted) {
            let mut names: Vec<&str> = known().copied().collect();
            names.dedup();
            return Err(error(format!("--only {wanted}: no such load; there are {}", names.join(", "))));
        }
    }
    if args.rounds == Some(0) {
        return Err(error("--rounds 0 measures nothing: 1 or more"));
    }
    let is_boot = |boot: &&Boot| args.boot.as_ref().is_none_or(|name| name == boot.name);
    if !BOOTS.iter().any(|boot| is_boot(&boot)) {
        let names: Vec<&str> = BOOTS.iter().map(|boot| boot.name).collect();
        return Err(error(format!("--boot: no such boot; there are {}", names.join(", "))));
    }
    let mut plan = Vec::new();
    for boot in BOOTS.iter().filter(is_boot) {
        let of_size = if args.quick && args.only.is_empty() { boot.quick } else { boot.loads };
        let is_wanted = |load: &&&str| args.only.is_empty() || args.only.iter().any(|name| name == **load);
        let loads: Vec<&str> = of_size.iter().filter(is_wanted).copied().collect();
        let (rounds, watched) = if args.quick { (1, 1) } else { (boot.rounds, boot.watched) };
        if !loads.is_empty() {
            plan.push(Planned { boot, loads, rounds: args.rounds.unwrap_or(rounds), watched });
        }
    }
    Ok(plan)
}

/// Boot and load, in the order in which they are shown.
fn order_of_all() -> Vec<(&'static str, &'static str)> {
    BOOTS.iter().flat_map(|boot| boot.loads.iter().map(|load| (boot.name, *load))).collect()
}

fn measure(
    kernel: &Kernel,
    planned: &Planned,
    schedulers: &[&str],
    files: Vec<(PathBuf, Option<String>)>,
    quick: bool,
    all: &mut Record,
) -> Result<u8> {
    let Planned { boot, loads, rounds, watched } = planned;
    let cells = loads.len() as u32 * schedulers.len() as u32 * (rounds + watched);
    say(format_args!(
        "boot {}: {cells} measurements with {} CPU(s), {}",
        boot.name,
        boot.smp,
        if boot.icount { "counting instructions" } else { "in the host's time" }
    ));
    let spec = GuestSpec {
        smp: boot.smp.into(),
        icount: boot.icount,
        timeout: BOOT_PATIENCE + PATIENCE * cells,
        files,
        tools: PROGRAMS.iter().map(ToString::to_string).collect(),
        ..GuestSpec::new(kernel.clone())
    };
    let mut command: Vec<String> = ["lab-guest", "compare", "--loads", &loads.join(",")]
        .into_iter()
        .chain(["--schedulers", &schedulers.join(",")])
        .map(String::from)
        .collect();
    let warm_up = if quick { 2 } else { boot.warm_up };
    for (option, number) in [("--rounds", *rounds), ("--watched", *watched), ("--warm-up", warm_up)] {
        command.extend([option.to_owned(), number.to_string()]);
    }
    command.extend(quick.then(|| "--quick".to_owned()));
    let mut host = Host::default();
    let outcome = guest::run(&spec, &command, &mut |line| {
        if let Some(percent) = host.look(line, spec.icount) {
            all.host_waited(boot.name, percent);
        }
        if let Some(progress) = all.take(boot.name, line) {
            println!("{progress}");
        }
    })?;
    Ok(report(&spec, &outcome))
}

/// What the host does to the guest: the time that threads of QEMU wanted to run and did not. A guest cannot know it, and
/// takes it for its own idleness.
#[derive(Debug, Default)]
struct Host {
    last: Option<(Instant, u64)>,
}

impl Host {
    /// At the start of each measurement: of the one before, the per cent of one CPU's time that was spent waiting.
    fn look(&mut self, line: &str, icount: bool) -> Option<f64> {
        if icount || !line.starts_with("compare,cell,") {
            return None;
        }
        let now = (Instant::now(), waited_by_children());
        let (then, before) = self.last.replace(now)?;
        let length = now.0.duration_since(then).as_nanos().max(1) as f64;
        Some(100.0 * now.1.saturating_sub(before) as f64 / length)
    }
}

/// ns that all threads of our children have waited for a CPU so far (the second word of schedstat).
fn waited_by_children() -> u64 {
    let list = |path: String| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let mut waited = 0;
    for thread in list("/proc/self/task".into()) {
        for child in read(thread.join("children")).split_whitespace() {
            let of_thread = |thread: PathBuf| {
                read(thread.join("schedstat"))
                    .split_whitespace()
                    .nth(1)
                    .and_then(|word| word.parse::<u64>().ok())
            };
            waited += list(format!("/proc/{child}/task")).filter_map(of_thread).sum::<u64>();
        }
    }
    waited
}

/// Whole runs are kept with the repository; parts of one are not.
fn folder(args: &CompareArgs, kernel: &Kernel) -> Result<PathBuf> {
    if args.quick || !args.only.is_empty() || args.rounds.is_some() || !args.scheduler.is_empty() {
        return Ok(release_dir()?.with_file_name("compare"));
    }
    let date = capture(Command::new("date").arg("+%F"))?;
    Ok(workspace_root()?.join("benches/runs").join(format!("{}-{}-compare", date.trim(), kernel.version)))
}

fn setup_text(args: &CompareArgs, plan: &[Planned], kernel: &Kernel, qemu: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut command = format!("cargo xtask lab compare --kernel {}", args.kernel);
    args.boot.iter().for_each(|boot| command.push_str(&format!(" --boot {boot}")));
    args.only.iter().for_each(|load| command.push_str(&format!(" --only {load}")));
    args.scheduler.iter().for_each(|name| command.push_str(&format!(" --scheduler '{name}'")));
    if let Some(rounds) = args.rounds {
        command.push_str(&format!(" --rounds {rounds}"));
    }
    command.push_str(if args.quick { " --quick" } else { "" });
    let _ = writeln!(text, "Command: {command}");
    if args.quick {
        let _ =
            writeln!(text, "--quick: the loads are too short for figures. This shows only that it works.");
    }
    let _ = writeln!(text, "Guest: Linux {}, QEMU {qemu}, emulated.", kernel.release);
    for Planned { boot, loads, rounds, watched } in plan {
        let how = if boot.icount {
            "thread=single, -icount shift=1,sleep=off: the clock advances 2 ns an instruction. Ratios only; these are no latencies"
        } else {
            "thread=multi: the clock is the host's, and so is the noise. Ratios within a round, and medians of them"
        };
        let _ = writeln!(
            text,
            "Boot {}: {} CPU(s), {how}. Loads {}; {rounds} rounds, in turn, each beginning with another scheduler, \
             then {watched} with the observer.",
            boot.name,
            boot.smp,
            loads.join(", ")
        );
    }
    let version = |tool: &str, arg: &str| {
        let said = capture(Command::new(tool).arg(arg)).unwrap_or_default();
        // Behind it some tell of the machine.
        said.lines().next().unwrap_or_default().split(" (").next().unwrap_or_default().trim().to_owned()
    };
    for peer in peers::PEERS {
        let _ = writeln!(text, "{} {}, of crates.io, cargo install --locked.", peer.name, peer.version);
    }
    let _ = writeln!(
        text,
        "Tools: {}; {}; {}.",
        version("perf", "--version"),
        version("stress-ng", "--version"),
        version("ping", "-V")
    );
    let commit = capture(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]));
    let _ = writeln!(text, "Ours: commit {}.", commit.unwrap_or_default().trim());
    text.push_str(
        "The scheduler at work (/sys/kernel/sched_ext/state, root/ops, enable_seq) is asserted before and after each \
         measurement.\n\"core alone\" is our core with its agent stopped (degraded mode).\nThe observer is a program of \
         its own on the tracepoints sched_wakeup, sched_wakeup_new and sched_switch\n(xtask/guest/bpf/observer.bpf.c). \
         It costs time itself, so its rounds give no other figures.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CompareArgs {
        CompareArgs {
            kernel: "7.3".into(),
            quick: false,
            only: Vec::new(),
            scheduler: Vec::new(),
            rounds: None,
            boot: None,
            again: None,
        }
    }

    #[test]
    fn parts_can_be_asked_for() {
        let order = |plan: &[Planned]| -> Vec<(&str, &str)> {
            plan.iter().flat_map(|p| p.loads.iter().map(|load| (p.boot.name, *load))).collect()
        };
        assert_eq!(order(&plan(&args()).unwrap()), order_of_all());
        let one = plan(&CompareArgs { boot: Some("path".into()), ..args() }).unwrap();
        assert_eq!((one.len(), one[0].boot.name), (1, "path"));
        assert!(plan(&CompareArgs { boot: Some("x".into()), ..args() }).is_err());
        let one = plan(&CompareArgs { only: vec!["request".into()], rounds: Some(3), ..args() }).unwrap();
        assert_eq!(order(&one), [("path", "request"), ("wakes", "request"), ("parallel", "request")]);
        assert!(one.iter().all(|p| p.rounds == 3));
        let quick = plan(&CompareArgs { quick: true, ..args() }).unwrap();
        assert!(quick.iter().all(|p| p.loads == p.boot.quick && p.rounds == 1));
        let wrong = plan(&CompareArgs { only: vec!["nothing".into()], ..args() }).unwrap_err();
        assert!(wrong.message.contains("hackbench-threads"), "{wrong}");
        assert!(plan(&CompareArgs { rounds: Some(0), ..args() }).is_err());
        let some = CompareArgs { scheduler: vec!["kernel mode".into()], ..args() };
        assert_eq!(schedulers(&some).unwrap(), ["EEVDF", "kernel mode"]);
        let wrong = CompareArgs { scheduler: vec!["CFS".into()], ..args() };
        assert!(schedulers(&wrong).unwrap_err().message.contains("scx_bpfland"));
    }

    #[test]
    fn a_full_run_has_the_rounds_that_the_rules_ask_for() {
        for Planned { boot, rounds, watched, .. } in plan(&args()).unwrap() {
            assert!(rounds >= if boot.icount { 5 } else { 10 } && watched >= 1, "{}", boot.name);
            assert!(boot.quick.iter().all(|load| boot.loads.contains(load)));
        }
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        assert_eq!(joined("a\nb\n", "b\nc\n"), "a\nb\nc\n");
    }

    /// Two programs, so two tables: the guest's says how to start each.
    #[test]
    fn the_guest_has_all_schedulers_and_loads() {
        let table = include_str!("../guest/src/compare/schedulers.rs");
        for name in SCHEDULERS {
            assert!(table.contains(&format!("Scheduler {{ name: \"{name}\"")), "{name}");
        }
        assert_eq!(table.matches("Scheduler { name: ").count(), SCHEDULERS.len(), "and no other");
        let loads = include_str!("../guest/src/compare/loads.rs");
        for load in BOOTS.iter().flat_map(|boot| boot.loads) {
            let camel: String = load.split('-').map(|w| w[..1].to_uppercase() + &w[1..]).collect();
            assert!(loads.contains(&format!("    {camel},\n")), "{camel}");
        }
    }

    #[test]
    fn every_peer_is_among_the_schedulers() {
        assert!(peers::PEERS.iter().all(|peer| SCHEDULERS.contains(&peer.name)));
    }
}
