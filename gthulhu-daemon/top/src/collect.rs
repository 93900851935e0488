//! Looks at the machine, again and again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use gthulhu_discovery::{FileNames, Names, NoNames};
use gthulhu_monitor::{Counts, Monitor, Options, Snapshot, Which};

use crate::args::By;
use crate::cpus::{self, Ticks};
use crate::format::printable;
use crate::place::Place;
use crate::sample::{Group, Sample, Thread, Threads};
use crate::scheduler::Watch;
use crate::{Args, Error, Result};

/// The monitor, and what it said last.
#[derive(Debug)]
pub(crate) struct Collector {
    monitor: Monitor,
    names: Box<dyn Names>,
    socket: PathBuf,
    watch: Watch,
    before: Snapshot,
    ticks: Vec<Ticks>,
    /// Threads by number and begin, and when they were looked at; `None`: nobody asks for them.
    threads: Option<(Instant, Known)>,
}

type Known = HashMap<(i32, u64), gthulhu_monitor::Thread>;

impl Collector {
    /// Begins to watch.
    ///
    /// # Errors
    /// The file of names cannot be used, or the monitor cannot start.
    pub(crate) fn start(args: &Args) -> Result<Self> {
        let names: Box<dyn Names> = match &args.names {
            Some(path) => Box::new(FileNames::open(path)?),
            None => Box::new(NoNames),
        };
        let mut options = Options::default();
        options.hierarchy = args.hierarchy.into();
        options.cgroup_root.clone_from(&args.cgroup_root);
        let mut monitor = Monitor::start(&options)?;
        let before = monitor.snapshot()?;
        let mut watch = Watch::default();
        watch.look(&args.socket);
        let socket = args.socket.clone();
        let mut this = Self { monitor, names, socket, watch, before, ticks: ticks()?, threads: None };
        if args.by == By::Threads {
            this.look_at_threads()?;
        }
        Ok(this)
    }

    /// What happened since the last call.
    ///
    /// # Errors
    /// The kernel does not let us look any more.
    pub(crate) fn sample(&mut self) -> Result<Sample> {
        let warning = self.names.refresh().err().map(|e| printable(&e.to_string()));
        let now = self.monitor.snapshot()?;
        let elapsed = Duration::from_nanos(now.at_ns.saturating_sub(self.before.at_ns).max(1));
        let groups = groups(&self.before, &now, &*self.names);
        let threads = if self.threads.is_some() { self.look_at_threads()? } else { None };
        let ticks = ticks()?;
        let read = |path: &str| printable(std::fs::read_to_string(path).unwrap_or_default().trim());
        let sample = Sample {
            at: SystemTime::now(),
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: cpus::between(&self.ticks, &ticks),
            elapsed,
            groups,
            threads,
            blames: now.blames.clone(),
            scheduler: self.watch.look(&self.socket),
            warning,
            missed: now.own.missed,
            rows: (now.own.rows_used, now.own.rows),
        };
        self.before = now;
        self.ticks = ticks;
        Ok(sample)
    }

    /// Looks at threads from now on, or does not any more.
    pub(crate) fn want_threads(&mut self, wanted: bool) -> Result<()> {
        match (wanted, self.threads.is_some()) {
            (true, false) => self.look_at_threads().map(drop),
            (false, true) => {
                self.threads = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `None` for the first look.
    fn look_at_threads(&mut self) -> Result<Option<Threads>> {
        let at = Instant::now();
        let now = self.monitor.threads(Which::All)?;
        let told = self.threads.as_ref().map(|(then, before)| Threads {
            elapsed: at.duration_since(*then).max(Duration::from_nanos(1)),
            threads: now
                .iter()
                .map(|thread| grown(thread, before.get(&(thread.tid, thread.start_ns))))
                .collect(),
        });
        let by_id = now.into_iter().map(|thread| ((thread.tid, thread.start_ns), thread)).collect();
        self.threads = Some((at, by_id));
        Ok(told)
    }
}

fn ticks() -> Result<Vec<Ticks>> {
    let text = std::fs::read_to_string("/proc/stat");
    text.map(|text| cpus::parse(&text)).map_err(|e| Error::system("cannot read /proc/stat", &e))
}

/// What each group did between two snapshots.
fn groups(before: &Snapshot, now: &Snapshot, names: &dyn Names) -> Vec<Group> {
    let was: HashMap<u64, &Counts> = before.groups.iter().map(|group| (group.id, &group.counts)).collect();
    // A group is counted from when it is first seen, and the monitor had seen nothing before its first snapshot.
    let none = Counts::default();
    let mut groups: Vec<Group> = now
        .groups
        .iter()
        .map(|group| Group {
            id: group.id,
            path: group.path.clone(),
            place: Place::of(group.id, group.path.as_deref(), names),
            counts: group.counts.since(was.get(&group.id).unwrap_or(&&none)),
        })
        .collect();
    if now.other != none {
        let counts = now.other.since(&before.other);
        groups.push(Group { id: 0, path: None, place: Place::others(), counts });
    }
    groups
}

fn grown(now: &gthulhu_monitor::Thread, before: Option<&gthulhu_monitor::Thread>) -> Thread {
    let since = |part: fn(&gthulhu_monitor::Thread) -> u64| part(now).saturating_sub(before.map_or(0, part));
    let throttled_ns = since(|t| t.throttled_ns);
    Thread {
        tid: now.tid,
        pid: now.pid,
        start_ns: now.start_ns,
        comm: printable(&now.comm),
        group: now.group,
        cpu: now.cpu,
        running: now.running,
        run_ns: since(|t| t.run_ns),
        // The kernel's wait of a thread has the time in which it was throttled in it.
        run_delay_ns: since(|t| t.wait_ns).saturating_sub(throttled_ns),
        throttled_ns,
        voluntary: since(|t| t.voluntary),
        involuntary: since(|t| t.involuntary),
        migrations: since(|t| t.migrations),
    }
}

/// The collector's thread: a sample each interval, until nobody takes them any more. A slow disk, socket or kernel
/// holds up the figures then, and not the keys.
pub(crate) fn run(args: &Args, wanted: &Receiver<By>, samples: &Sender<Result<Sample>>) {
    let done = Collector::start(args).and_then(|mut collector| {
        // Nobody should look at nothing for a minute.
        let mut next = Instant::now() + args.interval.min(Duration::from_secs(1));
        loop {
            match wanted.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(by) => collector.want_threads(by == By::Threads)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    if samples.send(Ok(collector.sample()?)).is_err() {
                        return Ok(());
                    }
                    // Late looks are not made up for.
                    next = (next + args.interval).max(Instant::now());
                }
            }
        }
    });
    if let Err(error) = done {
        let _ = samples.send(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_did_is_told_also_when_it_came_or_went_meanwhile() {
        let counts = |run_ns| Counts { run_ns, ..Counts::default() };
        let group = |id, path: Option<&str>, run_ns| gthulhu_monitor::Group {
            id,
            path: path.map(str::to_owned),
            removed: path.is_none(),
            counts: counts(run_ns),
        };
        let before =
            Snapshot { groups: vec![group(5, Some("/a"), 100)], other: counts(7), ..Snapshot::default() };
        let now = Snapshot {
            groups: vec![group(5, Some("/a"), 130), group(6, Some("/b"), 40), group(8, None, 2)],
            other: counts(9),
            ..Snapshot::default()
        };
        let found = groups(&before, &now, &NoNames);
        let runs: Vec<(u64, u64)> = found.iter().map(|group| (group.id, group.counts.run_ns)).collect();
        assert_eq!(runs, [(5, 30), (6, 40), (8, 2), (0, 2)]);
        assert!(groups(&Snapshot::default(), &Snapshot::default(), &NoNames).is_empty());
    }

    #[test]
    fn a_threads_delay_is_without_throttling() {
        let before = gthulhu_monitor::Thread {
            tid: 7,
            pid: 7,
            comm: "a".into(),
            start_ns: 1,
            group: 5,
            cpu: 0,
            running: false,
            run_ns: 100,
            wait_ns: 50,
            voluntary: 1,
            involuntary: 2,
            migrations: 3,
            throttled_ns: 10,
        };
        let now = gthulhu_monitor::Thread {
            run_ns: 160,
            wait_ns: 90,
            throttled_ns: 35,
            voluntary: 4,
            ..before.clone()
        };
        let thread = grown(&now, Some(&before));
        assert_eq!((thread.run_ns, thread.run_delay_ns, thread.throttled_ns), (60, 15, 25));
        assert_eq!((thread.voluntary, thread.involuntary), (3, 0));
        assert_eq!(grown(&now, None).run_ns, 160);
    }
}
