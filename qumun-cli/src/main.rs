//! `qumun`: see `--help`.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use qumun::Nanos;
use qumun::sim::{Replay, Scenario, Shape};
use qumun::trace::{Header, Origin, Reader, TraceError, TraceErrorKind};
use qumun_cli::{By, Policy, Run};

/// Scheduling policies off the kernel: simulate them, replay what was recorded, compare.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = POLICIES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const POLICIES: &str = "\
Policies:
  gthulhu      virtual deadlines; options slice-us, slice-min-us
  simple       weighted virtual time; options slice-us, fifo
  simple-fifo  first come, first served; option slice-us
Options follow the name: gthulhu:slice-us=3000,slice-min-us=500

Exit codes: 0, all is well; 1, a rule of the core was broken, or a file could not be written; 64, wrong usage;
65, a trace or a scenario is wrong (the message says where); 66, a file cannot be read";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario, or work of a classic shape, under one or more policies
    Sim(SimArgs),
    /// Do the work of a trace again, under one or more policies, and compare with the trace
    Replay(ReplayArgs),
    /// Compare traces; the first is what the others are compared with
    Diff {
        /// Traces
        #[arg(required = true, num_args = 2.., value_name = "TRACE")]
        traces: Vec<PathBuf>,
        #[command(flatten)]
        reading: Reading,
        #[command(flatten)]
        out: Output,
    },
    /// Print the records of a trace, one a line: byte, time since the start in ns, what happened
    Dump {
        /// The trace
        trace: PathBuf,
        #[command(flatten)]
        reading: Reading,
    },
    /// Show the figures of one trace
    Show {
        /// The trace
        trace: PathBuf,
        #[command(flatten)]
        reading: Reading,
        #[command(flatten)]
        out: Output,
    },
}

#[derive(Debug, Args)]
struct SimArgs {
    /// A scenario, see the documentation of qumun::sim::Scenario
    #[arg(required_unless_present = "shape")]
    scenario: Option<PathBuf>,
    /// Work of this shape instead: hogs, periodic, requests, pipes, fork-storm, make, containers
    #[arg(long, value_name = "NAME", conflicts_with = "scenario")]
    shape: Option<Shape>,
    /// A machine in the words of a scenario, such as "cpus=8" or "l3s=2 cores=4 threads=2" [default for --shape: cpus=4]
    #[arg(long, value_name = "WORDS", requires = "shape")]
    machine: Option<String>,
    /// For how many milliseconds of simulated time, instead of what the scenario says
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    time_ms: Option<u64>,
    /// The seed of everything random, instead of what the scenario says
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the trace here; with several policies the name gets theirs
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    policies: Policies,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The trace
    trace: PathBuf,
    /// The seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Replay no more than so many milliseconds of it
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    limit_ms: Option<u64>,
    /// Put right what contradicts itself, by what the later record says, as after lost records
    #[arg(long)]
    mend: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    policies: Policies,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Policies {
    /// The policy, see below; may be repeated
    #[arg(short, long = "policy", value_name = "NAME", default_value = "gthulhu")]
    policy: Vec<Policy>,
}

#[derive(Debug, Args)]
struct Reading {
    /// Take what there is of a trace that is truncated or corrupt: all before the first bad block
    #[arg(long)]
    partial: bool,
    /// What makes tasks a group: their group in the trace (a cgroup), their name, or the name if all are in one group
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Grouping::Auto)]
    by: Grouping,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Grouping {
    Auto,
    Group,
    Name,
}

impl From<Grouping> for By {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Auto => Self::Auto,
            Grouping::Group => Self::Group,
            Grouping::Name => Self::Name,
        }
    }
}

#[derive(Debug, Args)]
struct Output {
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Write a report to look at: one file that needs no other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a trace for the Perfetto viewer (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
}

/// What went wrong, and with which code the process ends (`sysexits.h`).
struct Failure(u8, String);

const BROKEN: u8 = 1;
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;

/// A longer trace takes so long to replay that it must be asked for.
const LONG: Nanos = Nanos::from_millis(3_600_000);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, what)) => {
            eprintln!("qumun: {what}");
            code.into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Sim(args) => simulate(&args),
        Command::Replay(args) => replay(&args),
        Command::Diff { traces, reading, out } => {
            let names = names(&traces);
            let read = traces.iter().zip(names).map(|(path, name)| load(path, &name, &reading));
            let runs = read.collect::<Result<Vec<_>, _>>()?;
            write("Traces, compared", &runs, &out)
        }
        Command::Dump { trace, reading } => dump(&trace, &reading),
        Command::Show { trace, reading, out } => {
            let name = trace.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let run = load(&trace, &name, &reading)?;
            write(&format!("Trace {name}"), &[run], &out)
        }
    }
}

fn simulate(args: &SimArgs) -> Result<(), Failure> {
    let mut scenario = match (&args.scenario, args.shape) {
        (Some(path), _) => {
            let code = if path.is_file() { DATA } else { NO_INPUT };
            Scenario::read(path).map_err(|error| Failure(code, error.to_string()))?
        }
        (None, shape) => {
            let words = args.machine.as_deref().unwrap_or("cpus=4");
            let wrong = |error| Failure(USAGE, format!("--machine \"{words}\": {error}"));
            let mut scenario = Scenario::on(words).map_err(wrong)?;
            let cpus = scenario.setup.topology.nr_cpus();
            scenario.work = shape.map(|shape| shape.workload(cpus)).unwrap_or_default();
            scenario
        }
    };
    if let Some(ms) = args.time_ms {
        scenario.time = Nanos::from_millis(ms);
    }
    if let Some(seed) = args.seed {
        scenario.setup.seed = seed;
    }
    let mut runs = Vec::new();
    for policy in &args.policies.policy {
        let trace =
            policy.simulate(&scenario).map_err(|error| Failure(BROKEN, format!("{policy}: {error}")))?;
        if let Some(path) = &args.out {
            let path = match args.policies.policy.len() {
                1 => path.clone(),
                _ => with_name(path, &policy.to_string()),
            };
            save(&path, &trace)?;
        }
        runs.push(understood(policy, By::Auto, &trace)?);
    }
    let title = match (&args.scenario, args.shape) {
        (_, Some(shape)) => format!("Simulated: {shape}"),
        (Some(path), _) => format!("Simulated: {}", path.file_stem().unwrap_or_default().to_string_lossy()),
        _ => "Simulated".to_owned(),
    };
    write(&title, &runs, &args.output)
}

fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let path = &args.trace;
    let at = |error: TraceError| Failure(DATA, format!("{}: {error}{}", path.display(), hint(&error)));
    let reader = open(path, &args.reading)?;
    let mut replay = if args.mend { Replay::mend(reader) } else { Replay::read(reader) }.map_err(at)?;
    if let Some(ms) = args.limit_ms {
        replay.time = replay.time.min(Nanos::from_millis(ms));
    } else if replay.time > LONG {
        let what = format!("{}: {} long; say how much of it with --limit-ms", path.display(), replay.time);
        return Err(Failure(USAGE, what));
    }
    if replay.dropped > 0 {
        eprintln!(
            "qumun: {}: {} records were lost when it was made; what tasks did around them is a guess",
            path.display(),
            replay.dropped
        );
    }
    let mut runs = vec![load(path, original(&replay.header), &args.reading)?];
    for policy in &args.policies.policy {
        let trace = policy
            .replay(&replay, args.seed)
            .map_err(|error| Failure(BROKEN, format!("{policy}: {error}")))?;
        runs.push(understood(policy, args.reading.by.into(), &trace)?);
    }
    let title = format!("Replay of {}", path.file_name().unwrap_or_default().to_string_lossy());
    write(&title, &runs, &args.output)
}

fn dump(path: &Path, reading: &Reading) -> Result<(), Failure> {
    let reader = open(path, reading)?;
    let start = reader.header().start;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for entry in reader {
        let entry = entry.map_err(|error| Failure(DATA, format!("{}: {error}", path.display())))?;
        let at = (entry.at - start).as_u64();
        // A reader that has gone away is no error.
        if writeln!(out, "{:>9} {at:>12} {:?}", entry.offset, entry.record).is_err() {
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

/// What the first column of a replay is called.
fn original(header: &Header) -> &'static str {
    match header.origin {
        Origin::Kernel(_) => "as recorded",
        Origin::Simulated => "the trace",
    }
}

fn understood(policy: &Policy, by: By, trace: &[u8]) -> Result<Run, Failure> {
    let read = Reader::new(trace).and_then(|reader| Run::read_by(by, &policy.to_string(), reader));
    read.map_err(|error| Failure(BROKEN, format!("{policy}: the trace that was just written: {error}")))
}

fn open(path: &Path, reading: &Reading) -> Result<Reader<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(|error| Failure(NO_INPUT, format!("{}: {error}", path.display())))?;
    let reader = Reader::new(BufReader::new(file))
        .map_err(|error| Failure(DATA, format!("{}: {error}", path.display())))?;
    Ok(if reading.partial { reader.partial() } else { reader })
}

fn load(path: &Path, name: &str, reading: &Reading) -> Result<Run, Failure> {
    Run::read_by(reading.by.into(), name, open(path, reading)?)
        .map_err(|error| Failure(DATA, format!("{}: {error}{}", path.display(), hint(&error))))
}

/// What can be done about it.
fn hint(error: &TraceError) -> &'static str {
    match error.kind() {
        TraceErrorKind::Truncated | TraceErrorKind::Corrupt => "; --partial takes what is whole",
        TraceErrorKind::Impossible => "; replay --mend puts what contradicts itself right",
        _ => "",
    }
}

/// Short, and each another.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: Vec<String> = paths.iter().map(stem).collect();
    let unique = (0..stems.len()).all(|i| !stems[..i].contains(&stems[i]));
    if unique { stems } else { paths.iter().map(|path| path.display().to_string()).collect() }
}

/// `a/b.trace` of policy `x:y=1` is `a/b-x-y-1.trace`.
fn with_name(path: &Path, policy: &str) -> PathBuf {
    let policy: String = policy.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{policy}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn write(title: &str, runs: &[Run], out: &Output) -> Result<(), Failure> {
    if let Some(path) = &out.html {
        save(path, qumun_cli::html(title, runs).as_bytes())?;
    }
    if let Some(path) = &out.perfetto {
        save(path, &qumun_cli::perfetto(runs))?;
    }
    let text = if out.json {
        format!("{}\n", qumun_cli::json(runs))
    } else {
        let mut text = qumun_cli::text(runs);
        if !io::stdout().is_terminal() {
            // No blanks at the ends of lines in files.
            text = text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n");
        }
        text
    };
    // A reader that has gone away (`| head`) is no error.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(BROKEN, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure(BROKEN, format!("cannot write {}: {error}", path.display())))
}
