//! What is known: cgroups, pods, processes and threads, each found from the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gthulhu_model::{CgroupId, Comm, Subject, ThreadId};

use crate::{Cgroup, Command, ContainerId, PodUid, Qos, Workload};

/// What was found at the last look, and has been told since.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) cgroups: HashMap<CgroupId, Arc<Cgroup>>,
    pub(crate) by_path: HashMap<Arc<str>, CgroupId>,
    pub(crate) processes: HashMap<i32, Process>,
    /// From each thread to its process.
    pub(crate) threads: HashMap<i32, i32>,
    pub(crate) pods: HashMap<PodUid, Pod>,
}

/// A process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its first thread: who it is.
    pub id: ThreadId,
    /// The pid of the process that made it, or of who took over when that ended.
    pub parent: i32,
    /// Whether it is one of the kernel's own threads.
    pub kernel: bool,
    /// What it runs.
    pub command: Command,
    /// The cgroup of v2 that its first thread is in. `None`: not below the tree that is looked at.
    pub cgroup: Option<CgroupId>,
    /// What it belongs to. Where pods live in v1 this tells more than `cgroup` does.
    pub workload: Arc<Workload>,
    /// By pid.
    pub(crate) threads: Vec<Thread>,
    pub(crate) token: u64,
    /// In which pass its command is read again.
    pub(crate) due: u64,
    pub(crate) seen: u64,
}

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thread {
    /// Who it is.
    pub id: ThreadId,
    /// Its name, which may have changed since.
    pub comm: Option<Comm>,
    /// The cgroup of v2 that it is in: that of its process, unless it was moved by itself.
    pub cgroup: Option<CgroupId>,
    pub(crate) seen: u64,
    pub(crate) token: u64,
}

/// A pod, as cgroups and processes show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pod {
    /// Which pod.
    pub uid: PodUid,
    /// Its class.
    pub qos: Qos,
    pub(crate) cgroups: BTreeSet<CgroupId>,
    pub(crate) processes: BTreeSet<i32>,
}

impl Process {
    /// All its threads by pid, the first one included.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// Whether it is the process that holds a pod's namespaces open and does nothing else. Nobody means it when
    /// they speak of a pod.
    pub fn is_pause(&self) -> bool {
        self.workload.pod().is_some()
            && self.command.comm.is_some_and(|comm| comm.as_bytes() == b"pause")
            && self.command.exe.as_ref().is_none_or(|exe| exe.file_name().is_some_and(|name| name == "pause"))
    }

    pub(crate) fn thread(&self, pid: i32) -> Option<&Thread> {
        self.threads.binary_search_by_key(&pid, |thread| thread.id.pid).ok().map(|at| &self.threads[at])
    }

    pub(crate) fn thread_mut(&mut self, pid: i32) -> Option<&mut Thread> {
        let at = self.threads.binary_search_by_key(&pid, |thread| thread.id.pid).ok()?;
        Some(&mut self.threads[at])
    }

    /// Puts a thread in its place; answers the one of the same pid that was there.
    pub(crate) fn put(&mut self, thread: Thread) -> Option<Thread> {
        match self.threads.binary_search_by_key(&thread.id.pid, |thread| thread.id.pid) {
            Ok(at) => Some(std::mem::replace(&mut self.threads[at], thread)),
            Err(at) => {
                self.threads.insert(at, thread);
                None
            }
        }
    }
}

impl Index {
    /// The cgroup of this id, as events of the kernel name it.
    pub fn cgroup(&self, id: CgroupId) -> Option<&Arc<Cgroup>> {
        self.cgroups.get(&id)
    }

    /// The cgroup at this path of the tree, such as `/system.slice`.
    pub fn cgroup_at(&self, path: &str) -> Option<&Arc<Cgroup>> {
        self.cgroups.get(self.by_path.get(path)?)
    }

    /// All cgroups, in no order.
    pub fn cgroups(&self) -> impl ExactSizeIterator<Item = &Arc<Cgroup>> {
        self.cgroups.values()
    }

    /// The process of this pid, whichever that is now: to be sure, compare `id`, or ask
    /// [`thread`](Self::thread).
    pub fn process(&self, pid: i32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// All processes, in no order.
    pub fn processes(&self) -> impl ExactSizeIterator<Item = &Process> {
        self.processes.values()
    }

    /// How many threads are known.
    pub fn thread_count(&self) -> usize {
        self.threads.len()
    }

    /// The thread of this identity and its process. Another thread that has the same pid is not it.
    pub fn thread(&self, id: ThreadId) -> Option<(&Process, &Thread)> {
        let (process, thread) = self.thread_of(id.pid)?;
        (thread.id == id).then_some((process, thread))
    }

    /// The thread that has this pid now, and its process.
    pub fn thread_of(&self, pid: i32) -> Option<(&Process, &Thread)> {
        let process = self.processes.get(self.threads.get(&pid)?)?;
        Some((process, process.thread(pid)?))
    }

    /// What a strategy table is asked about this thread.
    pub fn subject(&self, pid: i32) -> Option<Subject> {
        let (process, thread) = self.thread_of(pid)?;
        Some(Subject {
            thread: Some(thread.id),
            process: Some(process.id),
            cgroup: thread.cgroup,
            comm: thread.comm,
            ..Subject::default()
        })
    }

    /// The pod of this UID, in the common spelling.
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Pod> {
        self.pods.values()
    }

    /// The cgroups of a pod in v2, its own and those of its containers.
    pub fn cgroups_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Arc<Cgroup>> {
        pod.cgroups.iter().filter_map(|id| self.cgroups.get(id))
    }

    /// The processes of a pod by pid.
    pub fn processes_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Process> {
        pod.processes.iter().filter_map(|pid| self.processes.get(pid))
    }

    /// The containers of a pod that have processes, and which; `None` is the pod's own cgroup.
    pub fn containers_of<'a>(&'a self, pod: &'a Pod) -> BTreeMap<Option<&'a ContainerId>, Vec<&'a Process>> {
        let mut containers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for process in self.processes_of(pod) {
            let container = process.workload.container().map(|container| &container.id);
            containers.entry(container).or_default().push(process);
        }
        containers
    }

    pub(crate) fn link_cgroup(&mut self, cgroup: &Arc<Cgroup>) -> bool {
        self.by_path.insert(Arc::clone(&cgroup.path), cgroup.id);
        let new = self.cgroups.insert(cgroup.id, Arc::clone(cgroup)).is_none();
        match pod_of(&mut self.pods, &cgroup.workload) {
            Some((pod, new_pod)) => {
                pod.cgroups.insert(cgroup.id);
                debug_assert!(!new_pod || new);
                new_pod
            }
            None => false,
        }
    }

    /// Answers the pod that has nothing left.
    pub(crate) fn unlink_cgroup(&mut self, cgroup: &Cgroup) -> Option<PodUid> {
        self.cgroups.remove(&cgroup.id);
        if self.by_path.get(&cgroup.path) == Some(&cgroup.id) {
            self.by_path.remove(&cgroup.path);
        }
        self.release(&cgroup.workload, |pod| {
            pod.cgroups.remove(&cgroup.id);
        })
    }

    /// Says whether the pod is new.
    pub(crate) fn link_process(&mut self, pid: i32, workload: &Workload) -> bool {
        match pod_of(&mut self.pods, workload) {
            Some((pod, new)) => {
                pod.processes.insert(pid);
                new
            }
            None => false,
        }
    }

    /// Answers the pod that has nothing left.
    pub(crate) fn unlink_process(&mut self, pid: i32, workload: &Workload) -> Option<PodUid> {
        self.release(workload, |pod| {
            pod.processes.remove(&pid);
        })
    }

    fn release(&mut self, workload: &Workload, take: impl FnOnce(&mut Pod)) -> Option<PodUid> {
        let (uid, _) = workload.pod()?;
        let pod = self.pods.get_mut(uid)?;
        take(pod);
        (pod.cgroups.is_empty() && pod.processes.is_empty())
            .then(|| self.pods.remove(uid))
            .flatten()
            .map(|pod| pod.uid)
    }
}

fn pod_of<'a>(pods: &'a mut HashMap<PodUid, Pod>, workload: &Workload) -> Option<(&'a mut Pod, bool)> {
    let (uid, qos) = workload.pod()?;
    let new = !pods.contains_key(uid);
    let pod = pods.entry(uid.clone()).or_insert_with(|| Pod {
        uid: uid.clone(),
        qos,
        cgroups: BTreeSet::new(),
        processes: BTreeSet::new(),
    });
    Some((pod, new))
}
