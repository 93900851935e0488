//! `record`: what this machine's tasks and CPUs do, for some time, into a trace.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qumun::kernel::recorder::{Happened, Recorder, TaskSeen, What};
use qumun::trace::{
    CounterRef, GroupRef, Header, Origin, Record, Summary, TaskInfo, TaskRef, TraceError, Waker, Why, Writer,
};
use qumun::{Cpu, CpuSet, Nanos, Topology};

use crate::{Error, ExitCode, Result, status};

/// How often the ring is emptied. 8 MiB take 260,000 switches.
const EMPTIED: Duration = Duration::from_millis(10);
/// How often the daemon is asked for its counters.
const ASKED: Duration = Duration::from_millis(200);
/// How often a line says how it goes.
const SHOWN: Duration = Duration::from_millis(1_000);
/// Where version 2 of cgroups may be mounted.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `kernel/sched/core.c`: sched_prio_to_weight, nice -20 to 19; 1024 is nice 0.
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121,
    2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29,
    23, 18, 15,
];
const SCHED_IDLE: u32 = 5;

/// What `record` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// For how long; Ctrl-C ends it earlier and keeps what there is
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Where to write the trace
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Memory between kernel and this program, in MiB: a power of two. What does not fit is lost and counted
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = power_of_two)]
    buffer_mib: u32,
    /// The running daemon, which is asked for its agent and its counters if there is one
    #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
    socket: PathBuf,
    /// Say nothing while it goes on
    #[arg(long)]
    quiet: bool,
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib) if mib.is_power_of_two() && mib <= 1024 => Ok(mib),
        _ => Err("a power of two from 1 to 1024 is needed".to_owned()),
    }
}

/// Records until the time is over or somebody interrupts.
pub(crate) fn run(args: &RecordArgs) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|e| Error::system("cannot wait for signals", &e))?;
    }
    let topology = Topology::from_sysfs()?;
    let mut file = Unfinished::create(&args.out)?;
    let daemon = Asked::ask(&args.socket);
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let scheduler = read("/sys/kernel/sched_ext/root/ops").filter(|ops| !ops.is_empty());
    let scheduler = scheduler.unwrap_or_else(|| "kernel".to_owned());
    let mut recorder = Recorder::start(args.buffer_mib << 20).map_err(qumun::Error::from)?;
    let mut header = Header::new(Origin::Kernel(release), &scheduler, topology.clone());
    header.start = Nanos(Recorder::now());
    let writer = Writer::new(file.file()?, &header).map_err(|e| file.failed(&e))?;
    let mut scribe = Scribe::new(writer, topology, &daemon).map_err(|e| file.failed(&e))?;
    let begun = Instant::now();
    let end = Duration::from_secs(args.seconds);
    let (mut shown, mut asked) = (begun, begun);
    let mut over = false;
    while !over {
        over = begun.elapsed() >= end || stop.load(Ordering::Relaxed);
        let mut failed = None;
        recorder
            .drain(|happened| {
                if failed.is_none() {
                    failed = scribe.take(happened).err();
                }
            })
            .map_err(qumun::Error::from)?;
        failed.map_or(Ok(()), Err).map_err(|e| file.failed(&e))?;
        scribe.lost(recorder.lost()).map_err(|e| file.failed(&e))?;
        if daemon.is_there() && asked.elapsed() >= ASKED {
            asked = Instant::now();
            scribe.count(&Asked::ask(&args.socket)).map_err(|e| file.failed(&e))?;
        }
        if !args.quiet && std::io::stderr().is_terminal() && shown.elapsed() >= SHOWN {
            shown = Instant::now();
            eprint!("\r{} s, {}   ", begun.elapsed().as_secs(), told(&scribe.writer.summary()));
        }
        if !over {
            std::thread::sleep(EMPTIED);
        }
    }
    drop(recorder);
    let summary = scribe.writer.finish().map_err(|e| file.failed(&e))?.1;
    file.finish()?;
    let lost = match summary.dropped {
        0 => String::new(),
        _ => "; a larger --buffer-mib loses less".to_owned(),
    };
    if !args.quiet {
        let line = if std::io::stderr().is_terminal() { "\r" } else { "" };
        let took = begun.elapsed().as_millis();
        eprintln!("{line}{}: {took} ms under {scheduler}, {}{lost}", args.out.display(), told(&summary));
    }
    Ok(())
}

fn told(summary: &Summary) -> String {
    format!("{} records, {} KiB, {} lost", summary.records, summary.bytes / 1024, summary.dropped)
}

/// A file that has its name only when it is whole.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    temporary: PathBuf,
    done: bool,
}

impl Unfinished {
    fn create(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        if name.is_empty() || path.is_dir() {
            return Err(Error::new(ExitCode::Usage, format!("{} is no name for a file", path.display())));
        }
        name.push(format!(".{}.part", std::process::id()));
        let this = Self { path: path.to_owned(), temporary: path.with_file_name(name), done: false };
        // Found out now, not after the recording.
        this.file()?;
        Ok(this)
    }

    fn file(&self) -> Result<File> {
        File::create(&self.temporary)
            .map_err(|e| Error::system(format!("cannot write {}", self.temporary.display()), &e))
    }

    fn failed(&self, error: &TraceError) -> Error {
        Error::new(ExitCode::System, format!("{}: {error}; nothing was kept", self.path.display()))
    }

    fn finish(&mut self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|e| Error::system(format!("cannot rename to {}", self.path.display()), &e))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// What a running daemon says.
#[derive(Debug, Default)]
struct Asked(serde_json::Value);

impl Asked {
    fn ask(socket: &Path) -> Self {
        Self(status::fetch(socket).unwrap_or_default())
    }

    fn is_there(&self) -> bool {
        !self.0.is_null()
    }

    fn agent(&self) -> Option<i32> {
        i32::try_from(self.0["agent"]["pid"].as_i64()?).ok()
    }

    fn counters(&self) -> [Option<u64>; COUNTERS.len()] {
        let decides = self.0["mode"].as_str().map(|mode| u64::from(mode == "normal"));
        let cpu = self.0["agent"]["cpu_ms"].as_u64().map(|ms| ms * 1_000_000);
        [self.0["ledgers"]["events_outstanding"].as_u64(), decides, cpu]
    }
}

const COUNTERS: [&str; 3] = ["parked", "agent decides", "agent ns"];

/// Turns what the kernel tells into records.
#[derive(Debug)]
struct Scribe<W: Write> {
    writer: Writer<W>,
    topology: Topology,
    agent: Option<i32>,
    /// Those that are alive.
    tasks: HashMap<i32, (TaskRef, TaskInfo)>,
    groups: HashMap<u64, GroupRef>,
    names: HashMap<u64, String>,
    counters: Option<[CounterRef; COUNTERS.len()]>,
    last: Nanos,
    lost: u64,
    /// One has been seen.
    switches: bool,
}

impl<W: Write> Scribe<W> {
    fn new(mut writer: Writer<W>, topology: Topology, daemon: &Asked) -> Result<Self, TraceError> {
        let mut counters = None;
        if daemon.is_there() {
            let mut refs = [CounterRef(0); COUNTERS.len()];
            for (counter, name) in refs.iter_mut().zip(COUNTERS) {
                *counter = writer.counter(name)?;
            }
            counters = Some(refs);
        }
        let mut names = HashMap::new();
        name_cgroups(&mut names);
        let (tasks, groups) = (HashMap::new(), HashMap::new());
        let last = Nanos::ZERO;
        let agent = daemon.agent();
        Ok(Self { writer, topology, agent, tasks, groups, names, counters, last, lost: 0, switches: false })
    }

    fn take(&mut self, happened: Happened) -> Result<(), TraceError> {
        let at = Nanos(happened.at);
        self.last = self.last.max(at);
        match happened.what {
            What::Task(seen) => self.seen(at, &seen),
            // Who has run and slept again before switches are seen would seem to wait.
            What::Wake { .. } | What::Fork { .. } if !self.switches => Ok(()),
            What::Fork { parent, child } => {
                let Some(child) = self.known(child) else { return Ok(()) };
                self.writer.record(at, &Record::Fork { parent: self.known(parent), child })
            }
            What::Exit { pid } => match self.known(pid) {
                Some(task) => self.writer.record(at, &Record::Exit { task }),
                None => Ok(()),
            },
            What::Wake { pid, by, cpu } => {
                let cpu = Cpu(cpu.into());
                let Some(task) = self.known(pid) else { return Ok(()) };
                let by = match by {
                    -1 => Waker::Interrupt,
                    by => self.known(by).filter(|by| *by != task).map_or(Waker::Unknown, Waker::Task),
                };
                self.writer.record(at, &Record::Wake { task, by, cpu })
            }
            What::Switch { cpu, from, why, to } => {
                self.switches = true;
                let record = Record::Switch {
                    cpu: Cpu(cpu.into()),
                    from: self.known(from),
                    why: [Why::Blocked, Why::Preempted, Why::Exited][usize::from(why.min(2))],
                    to: self.known(to),
                };
                if why == 2 {
                    self.tasks.remove(&from);
                }
                if let Record::Switch { from: a, to: b, .. } = &record
                    && a == b
                {
                    // Between two that are not known, after losses.
                    return Ok(());
                }
                self.writer.record(at, &record)
            }
            _ => Ok(()),
        }
    }

    fn known(&self, pid: i32) -> Option<TaskRef> {
        self.tasks.get(&pid).map(|(task, _)| *task)
    }

    fn seen(&mut self, at: Nanos, seen: &TaskSeen) -> Result<(), TraceError> {
        let group = self.group(seen.cgroup)?;
        let info = TaskInfo {
            tgid: seen.tgid,
            weight: weight(seen),
            cpus: self.cpus(seen),
            kthread: seen.kthread,
            agent: self.agent == Some(seen.pid),
            realtime: seen.prio < 100,
            ..TaskInfo::new(seen.pid, &seen.comm, group)
        };
        let Some((task, old)) = self.tasks.get_mut(&seen.pid).filter(|_| !seen.new) else {
            let task = self.writer.task(at, &info)?;
            self.tasks.insert(seen.pid, (task, info));
            return Ok(());
        };
        let task = *task;
        let old = std::mem::replace(old, info.clone());
        let mut changes = Vec::new();
        if old.weight != info.weight {
            changes.push(Record::Weight { task, weight: info.weight });
        }
        if old.cpus != info.cpus {
            changes.push(Record::Affinity { task, cpus: info.cpus });
        }
        if old.name != info.name {
            changes.push(Record::Name { task, name: info.name });
        }
        if old.group != info.group {
            changes.push(Record::Move { task, group: info.group });
        }
        changes.iter().try_for_each(|record| self.writer.record(at, record))
    }

    /// Bits of CPUs that are not there mean nothing; all that are there is anywhere.
    fn cpus(&self, seen: &TaskSeen) -> Option<Box<CpuSet>> {
        let mut set = Box::new(CpuSet::EMPTY);
        for (word, bits) in seen.cpus.iter().enumerate() {
            set.set_word(word, *bits);
        }
        *set &= *self.topology.possible();
        let anywhere = set.is_empty() || self.topology.online().is_subset(&set);
        (!anywhere).then_some(set)
    }

    fn group(&mut self, cgroup: u64) -> Result<GroupRef, TraceError> {
        if let Some(group) = self.groups.get(&cgroup) {
            return Ok(*group);
        }
        if !self.names.contains_key(&cgroup) {
            // One that came since.
            name_cgroups(&mut self.names);
        }
        let name = self.names.entry(cgroup).or_insert_with(|| format!("cgroup {cgroup}")).clone();
        let group = self.writer.group(cgroup, &name)?;
        self.groups.insert(cgroup, group);
        if let Some(weight) = cpu_weight(&name) {
            let parent = self.above(&name).map(|parent| self.group(parent)).transpose()?;
            self.writer.record(self.last, &Record::Cgroup { group, parent, weight })?;
        }
        Ok(group)
    }

    /// The nearest cgroup above this one that has a cpu controller; `None`: the root.
    fn above(&self, name: &str) -> Option<u64> {
        let mut name = name;
        loop {
            name = name.rsplit_once('/').map(|(above, _)| above).filter(|above| !above.is_empty())?;
            if cpu_weight(name).is_some() {
                return self.names.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
            }
        }
    }

    fn lost(&mut self, lost: u64) -> Result<(), TraceError> {
        let count = lost - std::mem::replace(&mut self.lost, lost).min(lost);
        if count > 0 { self.writer.record(self.last, &Record::Dropped { count }) } else { Ok(()) }
    }

    fn count(&mut self, daemon: &Asked) -> Result<(), TraceError> {
        for (counter, value) in self.counters.into_iter().flatten().zip(daemon.counters()) {
            if let Some(value) = value {
                self.writer.record(self.last, &Record::Counter { counter, value })?;
            }
        }
        Ok(())
    }
}

/// As sched_ext has it: 100 is nice 0, 1 the least.
fn weight(seen: &TaskSeen) -> u32 {
    let weight = match usize::try_from(seen.static_prio - 100).ok().and_then(|nice| WEIGHTS.get(nice)) {
        Some(_) if seen.policy == SCHED_IDLE => 3,
        Some(weight) => *weight,
        None => 1024,
    };
    ((weight * 100 + 512) / 1024).clamp(1, 10_000)
}

/// `cpu.weight` of a cgroup; `None` if it has no cpu controller, as the root.
fn cpu_weight(name: &str) -> Option<u32> {
    let file = cgroups()?.join(name.trim_start_matches('/')).join("cpu.weight");
    let weight: u32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(weight.clamp(1, 10_000))
}

/// Where cgroups of version 2 are mounted.
fn cgroups() -> Option<&'static Path> {
    CGROUPS.into_iter().map(Path::new).find(|root| root.join("cgroup.controllers").exists())
}

/// The inode of a cgroup's folder is its number.
fn name_cgroups(names: &mut HashMap<u64, String>) {
    if let Some(root) = cgroups() {
        name_below(root, root, names, 0);
    }
}

/// Not deeper than any real tree.
fn name_below(root: &Path, folder: &Path, names: &mut HashMap<u64, String>, depth: u32) {
    if let Ok(meta) = std::fs::metadata(folder) {
        let path = folder.strip_prefix(root).unwrap_or(folder).display();
        names.insert(meta.ino(), format!("/{path}"));
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| depth < 16 && entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        name_below(root, &entry.path(), names, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qumun::trace::Reader;

    fn seen(pid: i32, new: bool) -> TaskSeen {
        TaskSeen {
            new,
            pid,
            tgid: pid,
            static_prio: 120,
            prio: 120,
            policy: 0,
            kthread: false,
            nr_cpus: 4,
            cgroup: 1,
            comm: "worker".to_owned(),
            cpus: [0xff; 16],
        }
    }

    #[test]
    fn weights_are_those_of_sched_ext() {
        let of = |static_prio, policy| weight(&TaskSeen { static_prio, policy, ..seen(1, true) });
        assert_eq!([of(120, 0), of(100, 0), of(139, 0), of(110, 0), of(120, 5)], [100, 8668, 1, 932, 1]);
    }

    #[test]
    fn what_happens_is_written_and_a_pid_that_comes_again_is_another_task() {
        let topology = Topology::flat(4);
        let header = Header::new(Origin::Kernel("x".into()), "kernel", topology.clone());
        let writer = Writer::new(Vec::new(), &header).unwrap();
        let mut scribe = Scribe::new(writer, topology, &Asked::default()).unwrap();
        let mut at = 0;
        let mut take = |what| {
            at += 10;
            scribe.take(Happened { at, what }).unwrap();
        };
        let task = |seen| What::Task(Box::new(seen));
        take(task(seen(7, true)));
        take(task(TaskSeen { static_prio: 110, cpus: [1; 16], comm: "other".into(), ..seen(7, false) }));
        take(What::Switch { cpu: 0, from: 0, why: 1, to: 7 });
        take(What::Wake { pid: 9, by: 7, cpu: 1 });
        take(What::Exit { pid: 7 });
        take(What::Switch { cpu: 0, from: 7, why: 2, to: 0 });
        take(task(seen(7, true)));
        take(What::Wake { pid: 7, by: -1, cpu: 1 });
        scribe.lost(3).unwrap();
        scribe.lost(3).unwrap();
        let (bytes, summary) = scribe.writer.finish().unwrap();
        assert_eq!(summary.dropped, 3);
        let records: Vec<Record> =
            Reader::new(bytes.as_slice()).unwrap().map(|entry| entry.unwrap().record).collect();
        let first = TaskRef(0);
        assert_eq!(records[2], Record::Weight { task: first, weight: 932 });
        assert_eq!(records[3], Record::Affinity { task: first, cpus: Some(Box::new(CpuSet::of(Cpu(0)))) });
        assert_eq!(records[4], Record::Name { task: first, name: "other".into() });
        assert!(matches!(records[5], Record::Switch { from: None, to: Some(TaskRef(0)), .. }));
        assert!(matches!(records[6], Record::Exit { task: TaskRef(0) }));
        assert!(matches!(records[9], Record::Wake { task: TaskRef(1), by: Waker::Interrupt, .. }));
        assert_eq!(records[10], Record::Dropped { count: 3 });
        assert_eq!(records.len(), 11);
    }

    #[test]
    fn a_file_that_was_not_finished_is_not_there() {
        let path = std::env::temp_dir().join(format!("record-{}.trace", std::process::id()));
        let file = Unfinished::create(&path).unwrap();
        let temporary = file.temporary.clone();
        assert!(temporary.exists());
        drop(file);
        assert!(!temporary.exists() && !path.exists());
        let mut file = Unfinished::create(&path).unwrap();
        file.finish().unwrap();
        drop(file);
        assert!(path.exists() && !temporary.exists());
        std::fs::remove_file(&path).unwrap();
        let nowhere = Unfinished::create(Path::new("/nowhere/x")).unwrap_err();
        assert!(nowhere.to_string().contains("cannot write /nowhere/x"), "{nowhere}");
    }
}
