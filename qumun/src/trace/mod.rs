//! What happened on a machine, CPU by CPU: one format for what was simulated and what was recorded from a kernel.
//!
//! A [`Writer`] makes a trace, a [`Reader`] reads it, record by record; neither keeps more than one block of it in
//! memory. The bytes are described in `docs/trace.md`.
//!
//! ```
//! use qumun::trace::{Header, Origin, Reader, Record, TaskInfo, Waker, Why, Writer};
//! use qumun::{Cpu, Nanos, Topology};
//!
//! let header = Header::new(Origin::Simulated, "fifo", Topology::flat(2));
//! let mut writer = Writer::new(Vec::new(), &header)?;
//! let group = writer.group(1, "web")?;
//! let task = writer.task(Nanos(10), &TaskInfo::new(100, "worker", group))?;
//! writer.record(Nanos(20), &Record::Wake { task, by: Waker::Interrupt, cpu: Cpu(1) })?;
//! let on = Record::Switch { cpu: Cpu(1), from: None, why: Why::Preempted, to: Some(task) };
//! writer.record(Nanos(35), &on)?;
//! let (bytes, summary) = writer.finish()?;
//! assert_eq!(summary.records, 4);
//!
//! let mut reader = Reader::new(bytes.as_slice())?;
//! assert_eq!(reader.header().scheduler, "fifo");
//! let last = reader.by_ref().last().unwrap()?;
//! assert_eq!((last.at, last.record), (Nanos(35), on));
//! # Ok::<(), qumun::trace::TraceError>(())
//! ```

mod bytes;
mod header;
mod reader;
mod writer;

use std::fmt;

pub use header::{Header, Origin};
pub use reader::{Entry, Reader};
pub use writer::Writer;

use crate::{Cpu, CpuSet, Nanos};

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u16 = 1;

/// Bytes of names that are kept: of tasks, groups, counters, schedulers.
pub const NAME_MAX: usize = 255;

/// A task of a trace, by the order in which they are made known: a number that is never used again, unlike a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef(pub u32);

/// A group of tasks, by the order in which they are made known. In a recorded trace each is a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupRef(pub u32);

/// A counter, by the order in which they are made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterRef(pub u32);

/// What a trace tells of a task when it is met for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// The thread's number, 0 or more.
    pub pid: i32,
    /// Its process.
    pub tgid: i32,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupRef,
    /// 1..=10000; 100 is nice 0.
    pub weight: u32,
    /// Where it may run; `None`: anywhere.
    pub cpus: Option<Box<CpuSet>>,
    /// Is it a kernel thread?
    pub kthread: bool,
    /// Is it the thread that runs the policy?
    pub agent: bool,
    /// Is it above all normal tasks: real-time, deadline, stop?
    pub realtime: bool,
}

impl TaskInfo {
    /// A normal task that may run anywhere, a process of its own, with weight 100.
    pub fn new(pid: i32, name: &str, group: GroupRef) -> Self {
        Self {
            pid,
            tgid: pid,
            name: name.to_owned(),
            group,
            weight: 100,
            cpus: None,
            kthread: false,
            agent: false,
            realtime: false,
        }
    }
}

/// Who woke a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waker {
    /// This task, which ran.
    Task(TaskRef),
    /// A timer or another interrupt.
    Interrupt,
    /// The source does not tell.
    Unknown,
}

/// Why a task left its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It waits for something.
    Blocked,
    /// It still wants to run: its slice ended, it yielded, or somebody else came first.
    Preempted,
    /// It ended.
    Exited,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// From here on there is this group.
    Group {
        /// The number of the cgroup, or of the group in a simulation.
        id: u64,
        /// Its name or path.
        name: String,
    },
    /// A group is a cgroup with a cpu controller, and has this weight among those of its parent.
    Cgroup {
        /// This one.
        group: GroupRef,
        /// The nearest one above it that has such a controller; `None`: the root.
        parent: Option<GroupRef>,
        /// `cpu.weight`, 1..=10000.
        weight: u32,
    },
    /// From here on this task is known. It need not be new.
    Task(Box<TaskInfo>),
    /// From here on there is this counter.
    CounterName(String),
    /// A task was made.
    Fork {
        /// By this one, if it is known.
        parent: Option<TaskRef>,
        /// The new one.
        child: TaskRef,
    },
    /// A task begins to end. It leaves its CPU with [`Why::Exited`].
    Exit {
        /// This one.
        task: TaskRef,
    },
    /// A sleeping task wants to run.
    Wake {
        /// This one.
        task: TaskRef,
        /// Who did it.
        by: Waker,
        /// The CPU that it goes to first.
        cpu: Cpu,
    },
    /// A CPU goes from one task to another.
    Switch {
        /// This CPU.
        cpu: Cpu,
        /// Who was there; `None`: it was idle.
        from: Option<TaskRef>,
        /// Why it left. Without meaning if nobody was there.
        why: Why,
        /// Who is there now; `None`: it is idle.
        to: Option<TaskRef>,
    },
    /// A task got another weight.
    Weight {
        /// This one.
        task: TaskRef,
        /// 1..=10000.
        weight: u32,
    },
    /// A task may run elsewhere.
    Affinity {
        /// This one.
        task: TaskRef,
        /// Where; `None`: anywhere.
        cpus: Option<Box<CpuSet>>,
    },
    /// A task went to another group.
    Move {
        /// This one.
        task: TaskRef,
        /// That group.
        group: GroupRef,
    },
    /// A task got another name.
    Name {
        /// This one.
        task: TaskRef,
        /// The new name.
        name: String,
    },
    /// A CPU came or went.
    Online {
        /// This one.
        cpu: Cpu,
        /// Is it there now?
        online: bool,
    },
    /// What a counter shows.
    Counter {
        /// This one.
        counter: CounterRef,
        /// Its value.
        value: u64,
    },
    /// So many records are missing here: what is known of tasks and CPUs may be wrong from here on.
    Dropped {
        /// How many.
        count: u64,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Records that were lost before they could be written.
    pub dropped: u64,
    /// Bytes.
    pub bytes: u64,
    /// Time of the last record.
    pub end: Nanos,
}

/// What sort of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceErrorKind {
    /// The file could not be read or written.
    Io,
    /// It is no trace.
    NotATrace,
    /// It is of a version that this program does not know.
    Version,
    /// It ends too early.
    Truncated,
    /// Its bytes are not those that were written.
    Corrupt,
    /// It is as it was written, and tells what cannot have happened.
    Impossible,
}

/// What is wrong with a trace, and where: `{}` says both.
#[derive(Debug)]
pub struct TraceError {
    kind: TraceErrorKind,
    offset: u64,
    what: String,
    source: Option<std::io::Error>,
}

impl TraceError {
    /// An error in the record or block that begins at this byte.
    pub fn new(kind: TraceErrorKind, offset: u64, what: impl Into<String>) -> Self {
        Self { kind, offset, what: what.into(), source: None }
    }

    fn io(offset: u64, what: &str, error: std::io::Error) -> Self {
        Self { kind: TraceErrorKind::Io, offset, what: what.to_owned(), source: Some(error) }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> TraceErrorKind {
        self.kind
    }

    /// The byte of the file at which the wrong thing begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = match self.kind {
            TraceErrorKind::Io => "",
            TraceErrorKind::NotATrace => "not a trace: ",
            TraceErrorKind::Version => "unknown version: ",
            TraceErrorKind::Truncated => "truncated: ",
            TraceErrorKind::Corrupt => "corrupt: ",
            TraceErrorKind::Impossible => "impossible: ",
        };
        write!(f, "byte {}: {sort}{}", self.offset, self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// What a reader or a writer has been told to exist.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    tasks: u32,
    groups: u32,
    counters: u32,
    nr_cpus: u32,
    at: Nanos,
    records: u64,
    dropped: u64,
}

impl Known {
    /// Takes a record in. The answer is what about it cannot be.
    fn note(&mut self, record: &Record) -> Result<(), String> {
        let task = |task: TaskRef| match task.0 < self.tasks {
            true => Ok(()),
            false => Err(format!("task {} of {}", task.0, self.tasks)),
        };
        let group = |group: GroupRef| match group.0 < self.groups {
            true => Ok(()),
            false => Err(format!("group {} of {}", group.0, self.groups)),
        };
        let cpu = |cpu: Cpu| match cpu.0 < self.nr_cpus {
            true => Ok(()),
            false => Err(format!("CPU {cpu} of {}", self.nr_cpus)),
        };
        let weight = |weight: u32| match weight {
            1..=10_000 => Ok(()),
            _ => Err(format!("a weight of {weight}, which is not in 1..=10000")),
        };
        match record {
            Record::Group { .. } => self.groups = self.groups.saturating_add(1),
            Record::Cgroup { group: of, parent, weight: new } => {
                group(*of)?;
                parent.map_or(Ok(()), group)?;
                weight(*new)?;
                // So that no cgroup is above itself.
                if parent.is_some_and(|parent| parent == *of) {
                    return Err(format!("cgroup {} is in itself", of.0));
                }
            }
            Record::CounterName(_) => self.counters = self.counters.saturating_add(1),
            Record::Task(info) => {
                group(info.group)?;
                weight(info.weight)?;
                if info.pid < 0 || info.tgid < 0 {
                    return Err(format!("pid {} of process {}", info.pid, info.tgid));
                }
                self.tasks = self.tasks.saturating_add(1);
            }
            Record::Fork { parent, child } => {
                parent.map_or(Ok(()), task)?;
                task(*child)?;
                if *parent == Some(*child) {
                    return Err(format!("task {} made itself", child.0));
                }
            }
            Record::Exit { task: who }
            | Record::Name { task: who, .. }
            | Record::Affinity { task: who, .. } => {
                task(*who)?;
            }
            Record::Wake { task: who, by, cpu: at } => {
                task(*who)?;
                cpu(*at)?;
                if let Waker::Task(by) = by {
                    task(*by)?;
                    if by == who {
                        return Err(format!("task {} woke itself", who.0));
                    }
                }
            }
            Record::Switch { cpu: at, from, to, .. } => {
                cpu(*at)?;
                from.map_or(Ok(()), task)?;
                to.map_or(Ok(()), task)?;
                if from == to {
                    return Err(format!("CPU {at} went from one task to the same"));
                }
            }
            Record::Weight { task: who, weight: new } => {
                task(*who)?;
                weight(*new)?;
            }
            Record::Move { task: who, group: to } => {
                task(*who)?;
                group(*to)?;
            }
            Record::Online { cpu: at, .. } => cpu(*at)?,
            Record::Counter { counter, .. } => {
                if counter.0 >= self.counters {
                    return Err(format!("counter {} of {}", counter.0, self.counters));
                }
            }
            Record::Dropped { count } => self.dropped = self.dropped.saturating_add(*count),
        }
        self.records += 1;
        Ok(())
    }
}
