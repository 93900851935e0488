//! The index kept up to date: by looking at everything now and then, and by what is told in between.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use gthulhu_model::{CgroupId, Comm, ThreadId};

use crate::watch::{Notice, Watch};
use crate::{Cgroup, Error, Index, Membership, PodUid, Proc, Result, Tree, Workload};

mod cgroups;
mod processes;
mod told;

/// Where to look, and how much to take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The proc file system: `/proc`, or where a container has the host's.
    pub proc: PathBuf,
    /// The tree of cgroup v2; `None` looks for it among the mounts.
    pub cgroups: Option<PathBuf>,
    /// How to learn which cgroup a thread is in.
    pub source: Source,
    /// Whether to watch the tree, so that [`Discovery::poll`] learns of new cgroups at once.
    pub watch: bool,
    /// How much to take.
    pub limits: Limits,
}

/// How to learn which cgroup a thread is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// By the tree where v2 is the only hierarchy and pids are our own; else by `/proc`.
    #[default]
    Auto,
    /// By `cgroup.threads` of every cgroup of the tree: one file for each cgroup.
    Tree,
    /// By `/proc/PID/cgroup`: one file for each process, and the only way for v1 and hybrid systems, where pods
    /// may be in hierarchies of v1 alone. Threads count as being where their process is.
    Proc,
}

/// More than this is an error, not a truncated answer: what is missing would look as if it were gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Cgroups.
    pub cgroups: usize,
    /// Threads of all processes.
    pub threads: usize,
}

impl Default for Limits {
    /// 100,000 cgroups and 1,000,000 threads.
    fn default() -> Self {
        Self { cgroups: 100_000, threads: 1_000_000 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroups: None,
            source: Source::Auto,
            watch: true,
            limits: Limits::default(),
        }
    }
}

/// What came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A pod has its first cgroup or process.
    PodAdded(PodUid),
    /// A pod has neither any more.
    PodRemoved(PodUid),
    /// A cgroup was made.
    CgroupAdded(Arc<Cgroup>),
    /// A cgroup was removed.
    CgroupRemoved(Arc<Cgroup>),
    /// A process began. Each of its threads follows as [`Event::ThreadAdded`].
    ProcessAdded(ThreadId),
    /// A process runs another command, or has another name.
    ProcessChanged(ThreadId),
    /// A process belongs to something else now.
    ProcessMoved {
        /// The process.
        process: ThreadId,
        /// What it belonged to.
        from: Arc<Workload>,
        /// What it belongs to.
        to: Arc<Workload>,
    },
    /// A process ended, and all its threads were told as [`Event::ThreadRemoved`] before.
    ProcessRemoved {
        /// The process.
        process: ThreadId,
        /// What it belonged to.
        workload: Arc<Workload>,
    },
    /// A thread began; the first one of a process, too.
    ThreadAdded {
        /// Its process.
        process: ThreadId,
        /// The thread.
        thread: ThreadId,
    },
    /// A thread is in another cgroup of v2.
    ThreadMoved {
        /// The thread.
        thread: ThreadId,
        /// Where it was.
        from: Option<CgroupId>,
        /// Where it is.
        to: Option<CgroupId>,
    },
    /// A thread ended.
    ThreadRemoved {
        /// Its process.
        process: ThreadId,
        /// The thread.
        thread: ThreadId,
    },
}

/// A new thread or process, as fork events tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The new thread.
    pub thread: ThreadId,
    /// The pid of its process: its own, if it is a process.
    pub process: i32,
    /// The pid of the process that made it.
    pub parent: i32,
    /// The cgroup that it was born into; `None` takes its parent's.
    pub cgroup: Option<CgroupId>,
    /// Its name; `None` takes its parent's.
    pub comm: Option<Comm>,
}

/// What runs on this machine and what it belongs to.
///
/// [`rescan`](Self::rescan) looks at everything: at the start, and every few seconds. In between,
/// [`poll`](Self::poll) takes what inotify tells of cgroups, and [`forked`](Self::forked),
/// [`executed`](Self::executed) and [`exited`](Self::exited) what a BPF program tells of threads. Each answers
/// what it changed. Without any of these everything is found by the next look.
///
/// ```no_run
/// # use gthulhu_discovery::{Discovery, Event, Options};
/// # fn main() -> gthulhu_discovery::Result<()> {
/// let mut discovery = Discovery::new(Options::default())?;
/// discovery.rescan()?;
/// for pod in discovery.index().pods() {
///     let threads: usize = discovery.index().processes_of(pod).map(|process| process.threads().len()).sum();
///     println!("{} {}: {threads} threads", pod.uid, pod.qos);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Discovery {
    proc: Arc<Proc>,
    tree: Option<Tree>,
    by_tree: bool,
    index: Index,
    watch: Option<Watch>,
    not_watching: Option<Error>,
    limits: Limits,
    /// How many times everything was looked at.
    pass: u64,
    /// The time of this pass in clock ticks since boot, for whether a process is young.
    now: u64,
    /// What was found before an error, and is yet to be told.
    untold: Vec<Event>,
}

/// Where a process is.
#[derive(Clone, Debug)]
struct Place {
    cgroup: Option<CgroupId>,
    workload: Arc<Workload>,
}

/// What `/proc/PID/cgroup` said in this pass, and what that means: most processes share a few texts.
type Places = HashMap<Vec<u8>, Place>;

impl Discovery {
    /// Opens what is to be looked at. Nothing is known before the first [`rescan`](Self::rescan).
    ///
    /// # Errors
    /// `/proc` or the tree of cgroups cannot be opened; [`Source::Tree`] is asked for and there is no tree.
    /// Watches that cannot be had are no error: see [`not_watching`](Self::not_watching).
    pub fn new(options: Options) -> Result<Self> {
        let proc = Arc::new(Proc::at(&options.proc)?);
        let mount = match options.cgroups {
            Some(path) => Some(path),
            None => Tree::mount(&proc)?,
        };
        let tree = mount.map(Tree::at).transpose()?;
        let by_tree = match options.source {
            Source::Proc => false,
            Source::Tree if tree.is_none() => {
                let what = "no cgroup v2 is mounted: mount it (mount -t cgroup2 none /sys/fs/cgroup), give its \
                            path, or learn the membership from /proc";
                return Err(Error::new(crate::ErrorKind::Io, what));
            }
            Source::Tree => true,
            Source::Auto => tree.is_some() && proc.has_own_pids() && is_unified_only(&proc)?,
        };
        let (watch, not_watching) = match &tree {
            Some(_) if options.watch => match Watch::new() {
                Ok(watch) => (Some(watch), None),
                Err(error) => (None, Some(error)),
            },
            _ => (None, None),
        };
        let limits = options.limits;
        Ok(Self {
            proc,
            tree,
            by_tree,
            index: Index::default(),
            watch,
            not_watching,
            limits,
            pass: 0,
            now: 0,
            untold: Vec::new(),
        })
    }

    /// What is known.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The tree of cgroup v2 that is looked at.
    pub fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }

    /// [`Source::Tree`] or [`Source::Proc`], whichever was chosen.
    pub fn source(&self) -> Source {
        if self.by_tree { Source::Tree } else { Source::Proc }
    }

    /// Becomes readable when [`poll`](Self::poll) has something to do. `None`: cgroups are not watched, and
    /// only [`rescan`](Self::rescan) learns of them.
    pub fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(Watch::fd)
    }

    /// Why cgroups are not watched although that was asked for.
    pub fn not_watching(&self) -> Option<&Error> {
        self.not_watching.as_ref()
    }

    /// Looks at everything, and tells what changed since.
    ///
    /// What is known already costs little: a process is known by a number in the listing of `/proc`, and is
    /// read again only while it is younger than 10 seconds, and else every 16th time.
    ///
    /// # Errors
    /// Something could not be read, or there is more than the limits. What was not looked at is not told as
    /// gone; what was found is told by the next call that succeeds.
    pub fn rescan(&mut self) -> Result<Vec<Event>> {
        let mut events = std::mem::take(&mut self.untold);
        let done = self.look_at_everything(&mut events);
        self.tell(done, events)
    }

    /// Takes what inotify told since the last look, and tells what changed. Does not wait. A cgroup that was
    /// made since, and the processes that were moved into it, are known after this.
    ///
    /// # Errors
    /// As [`rescan`](Self::rescan).
    pub fn poll(&mut self) -> Result<Vec<Event>> {
        let mut events = std::mem::take(&mut self.untold);
        let done = self.look_at_notices(&mut events);
        self.tell(done, events)
    }

    fn tell(&mut self, done: Result<()>, events: Vec<Event>) -> Result<Vec<Event>> {
        match done {
            Ok(()) => Ok(events),
            Err(error) => {
                self.untold = events;
                Err(error)
            }
        }
    }

    fn look_at_everything(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.pass += 1;
        self.now = self.proc.now()?;
        // What it tells is among what is looked at now.
        if let Some(watch) = &mut self.watch {
            watch.read()?;
        }
        let mut places = Places::new();
        let found = self.look_at_cgroups("/", events)?.unwrap_or_default();
        let listed = self.proc.list()?;
        self.look_at_processes(&listed, &mut places, events)?;
        if self.by_tree {
            self.place_threads(&found, &mut places, events)?;
            self.look_for_missing(events)?;
        }
        self.drop_unseen(events);
        self.drop_cgroups_but(&found, events);
        Ok(())
    }

    fn look_at_notices(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let notices = watch.read()?;
        if notices.contains(&Notice::Lost) {
            return self.look_at_everything(events);
        }
        let mut places = Places::new();
        for notice in notices {
            match notice {
                Notice::Made(path) => {
                    if let Some(found) = self.look_at_cgroups(&path, events)? {
                        self.take_threads(&found, &mut places, events)?;
                    }
                }
                Notice::Threads(path) => {
                    if let Some(found) = self.look_at_cgroup(&path, events)? {
                        self.take_threads(&[found], &mut places, events)?;
                    }
                }
                // If it was made again meanwhile, then that is told as well.
                Notice::Removed(path) => self.drop_cgroups_below(&path, events),
                Notice::Lost => {}
            }
        }
        Ok(())
    }
}

fn is_unified_only(proc: &Proc) -> Result<bool> {
    let path = proc.root().join("self/cgroup");
    let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
    Ok(Membership::parse(&text).is_unified_only())
}
