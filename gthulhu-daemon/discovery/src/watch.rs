//! inotify on the tree of cgroups: new ones, removed ones, and those whose threads changed.
//!
//! mkdir and rmdir of a cgroup are ordinary calls on its file system, and so told. So are writes to
//! `cgroup.procs` and `cgroup.threads`, by which processes are moved; and where a process is born into a
//! cgroup (`CLONE_INTO_CGROUP`), the kernel says that `cgroup.events` changed (`cgroup_file_notify()` in
//! kernel/cgroup/cgroup.c) when it is the first one there. What is born to processes already there is not told:
//! that is what fork events are for.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::{Cgroup, Error, ErrorKind, Result};

/// What happened to a path of the tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A cgroup was made here.
    Made(String),
    /// A cgroup was removed from here.
    Removed(String),
    /// Threads came or went.
    Threads(Arc<str>),
    /// The kernel dropped notices: look at everything.
    Lost,
}

/// Watches on directories of the tree.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: OwnedFd,
    paths: HashMap<i32, Arc<str>>,
}

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|error| {
            let remedy = "too many inotify instances? sysctl fs.inotify.max_user_instances";
            Error::new(ErrorKind::Io, format!("cannot watch cgroups, so they are polled: {error} ({remedy})"))
        })?;
        Ok(Self { fd, paths: HashMap::new() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Watches a cgroup. One that is gone again is no error.
    pub(crate) fn add(&mut self, directory: &Path, cgroup: &Cgroup) -> Result<()> {
        let wanted = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MODIFY | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.fd, directory, wanted) {
            Ok(number) => {
                self.paths.insert(number, Arc::clone(&cgroup.path));
                Ok(())
            }
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => Ok(()),
            Err(error) => {
                let at = directory.display();
                let remedy = "more cgroups than watches? sysctl fs.inotify.max_user_watches";
                Err(Error::new(
                    ErrorKind::Io,
                    format!("cannot watch {at}, so cgroups are polled: {error} ({remedy})"),
                ))
            }
        }
    }

    /// What happened since the last call. Does not wait.
    pub(crate) fn read(&mut self) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::new(ErrorKind::Io, format!("cannot read inotify: {error}"))),
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                notices.push(Notice::Lost);
                continue;
            }
            if what.contains(ReadFlags::IGNORED) {
                self.paths.remove(&event.wd());
                continue;
            }
            let Some(parent) = self.paths.get(&event.wd()) else { continue };
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            let path = || if &**parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") };
            if what.contains(ReadFlags::ISDIR) {
                if what.contains(ReadFlags::CREATE) {
                    notices.push(Notice::Made(path()));
                } else if what.contains(ReadFlags::DELETE) {
                    notices.push(Notice::Removed(path()));
                }
            } else if matches!(name, "cgroup.procs" | "cgroup.threads" | "cgroup.events") {
                let notice = Notice::Threads(Arc::clone(parent));
                // Each move of a burst is told by itself; the file is read once.
                if !notices.contains(&notice) {
                    notices.push(notice);
                }
            }
        }
        Ok(notices)
    }
}
