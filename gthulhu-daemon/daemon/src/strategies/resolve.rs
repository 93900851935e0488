//! From a pid to who is meant.

use gthulhu_discovery::{Membership, Proc, Tree};
use gthulhu_model::{CgroupId, Comm, Subject, Target, ThreadId};

/// A thread, as far as `/proc` tells.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) id: ThreadId,
    /// The first thread of its process.
    pub(crate) process: ThreadId,
    pub(crate) comm: Option<Comm>,
    /// Its cgroup (v2), as a path below the mount.
    pub(crate) cgroup: Option<String>,
    pub(crate) cgroup_id: Option<CgroupId>,
    pub(crate) kernel: bool,
    /// `SCHED_…`, by number.
    pub(crate) policy: Option<u32>,
}

impl Thread {
    /// As the table asks.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            task: None,
            thread: Some(self.id),
            process: Some(self.process),
            cgroup: self.cgroup_id,
            comm: self.comm,
        }
    }
}

/// Looks into `/proc` and the cgroups.
#[derive(Debug)]
pub(crate) struct Look {
    proc: Proc,
    cgroups: Option<std::path::PathBuf>,
}

impl Look {
    pub(crate) fn new() -> Result<Self, String> {
        let proc = Proc::host().map_err(|e| e.to_string())?;
        let cgroups = Tree::mount(&proc).ok().flatten();
        Ok(Self { proc, cgroups })
    }

    /// Who a pid is. The number of a process means all its threads, also those that it has not made yet: the core and the
    /// policy know each thread's process, with the time when it was started, so none has to be named by itself. The number of
    /// another thread means that thread alone. `None`: there is none (any more), or not the one that was started then.
    pub(crate) fn target(&self, pid: i32, started: Option<u64>) -> Result<Option<Target>, String> {
        let entry = match self.proc.entry(pid) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let text = |e: gthulhu_discovery::Error| e.to_string();
        let (Some(stat), Some(process)) = (entry.stat().map_err(text)?, entry.process().map_err(text)?)
        else {
            return Ok(None);
        };
        if started.is_some_and(|started| started != stat.started) {
            return Ok(None);
        }
        let id = ThreadId { pid, started: stat.started };
        Ok(Some(if process == pid { Target::Process(id) } else { Target::Thread(id) }))
    }

    /// All that `explain` wants to know about a thread.
    pub(crate) fn thread(&self, pid: i32) -> Result<Option<Thread>, String> {
        let text = |e: gthulhu_discovery::Error| e.to_string();
        let Some(entry) = self.proc.entry(pid).map_err(text)? else { return Ok(None) };
        let (Some(stat), Some(process)) = (entry.stat().map_err(text)?, entry.process().map_err(text)?)
        else {
            return Ok(None);
        };
        let first = match process == pid {
            true => Some(stat.started),
            false => {
                let first = self.proc.entry(process).map_err(text)?;
                first.map(|first| first.stat()).transpose().map_err(text)?.flatten().map(|stat| stat.started)
            }
        };
        let Some(first) = first else { return Ok(None) };
        let cgroup = entry.cgroup().map_err(text)?.and_then(|bytes| {
            Membership::parse(&bytes).unified().map(|path| String::from_utf8_lossy(path).into_owned())
        });
        let cgroup_id = cgroup.as_deref().and_then(|path| self.cgroup(path).ok());
        Ok(Some(Thread {
            id: ThreadId { pid, started: stat.started },
            process: ThreadId { pid: process, started: first },
            comm: stat.comm,
            cgroup,
            cgroup_id,
            kernel: stat.kernel,
            policy: policy(pid),
        }))
    }

    /// The number of a cgroup, by its path below the mount.
    pub(crate) fn cgroup(&self, path: &str) -> Result<CgroupId, String> {
        let Some(root) = &self.cgroups else { return Err("no cgroups (v2) are mounted".into()) };
        let place = root.join(path.trim_start_matches('/'));
        let meta = std::fs::metadata(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        if !meta.is_dir() {
            return Err(format!("{} is no cgroup", place.display()));
        }
        Ok(CgroupId(std::os::unix::fs::MetadataExt::ino(&meta)))
    }
}

fn policy(pid: i32) -> Option<u32> {
    // SAFETY: a plain number.
    let policy = unsafe { libc::sched_getscheduler(pid) };
    // Above is SCHED_RESET_ON_FORK.
    u32::try_from(policy).ok().map(|policy| policy & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_means_all_its_threads_and_a_thread_itself() {
        let look = Look::new().expect("a /proc");
        let pid = std::process::id() as i32;
        let Some(Target::Process(process)) = look.target(pid, None).expect("read") else {
            panic!("no process")
        };
        assert_eq!(process.pid, pid);
        assert_eq!(look.target(pid, Some(process.started)), Ok(Some(Target::Process(process))));
        assert_eq!(look.target(pid, Some(process.started + 1)), Ok(None), "another one has this pid now");
        let (thread, tid) = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    // SAFETY: no arguments, cannot fail.
                    let tid = unsafe { libc::gettid() };
                    (look.thread(tid).expect("read").expect("there"), tid)
                })
                .join()
                .expect("joined")
        });
        assert_eq!((thread.id.pid, thread.process), (tid, process));
        assert_eq!((thread.kernel, thread.policy.is_some()), (false, true));
        assert_eq!(look.target(tid, None), Ok(None), "it has ended");
        assert!(look.cgroup("/no/such/group").is_err());
    }
}
