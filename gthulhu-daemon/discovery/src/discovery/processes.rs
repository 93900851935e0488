//! The part of a look that is about processes and threads.

use std::sync::Arc;

use gthulhu_model::{CgroupId, ThreadId};

use super::cgroups::Found;
use super::{Discovery, Event, Place, Places};
use crate::index::{Process, Thread};
use crate::proc::{Entry, Listed};
use crate::{Error, ErrorKind, Membership, Result, Stat, Workload};

/// Clock ticks for which a process is young: until then it may still become what it is to be, by `exec` and
/// `prctl(PR_SET_NAME)`. Ten seconds.
const YOUNG: u64 = 1000;
/// Old ones are read again every so many passes.
const ROTATION: u64 = 16;

impl Discovery {
    pub(super) fn look_at_processes(
        &mut self,
        listed: &[Listed],
        places: &mut Places,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        for listed in listed {
            let known = self.index.processes.get_mut(&listed.pid);
            match known.filter(|process| process.token == listed.token && process.due > self.pass) {
                None => self.look_at_process(listed.pid, Some(listed.token), places, events)?,
                Some(process) => {
                    process.seen = self.pass;
                    // What the tree does not hold it cannot tell about.
                    if !self.by_tree || process.cgroup.is_none() {
                        self.look_where(listed.pid, places, events)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads all of a process. One that has ended meanwhile is not marked as seen.
    pub(super) fn look_at_process(
        &mut self,
        pid: i32,
        token: Option<u64>,
        places: &mut Places,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let proc = Arc::clone(&self.proc);
        let Some(entry) = proc.entry(pid)? else { return Ok(()) };
        let (Some(stat), Some(command), Some(text)) = (entry.stat()?, entry.command()?, entry.cgroup()?)
        else {
            return Ok(());
        };
        let id = ThreadId { pid, started: stat.started };
        let place = self.place(text, places, events)?;
        let due = match self.now.saturating_sub(stat.started) < YOUNG {
            true => self.pass + 1,
            // Not all in the same pass.
            false if token.is_some() => {
                self.pass + ROTATION - (self.pass + u64::from(pid.unsigned_abs())) % ROTATION
            }
            false => self.pass,
        };
        match self.index.processes.get_mut(&pid) {
            Some(process) if process.id == id => {
                process.parent = stat.parent;
                process.token = token.unwrap_or(process.token);
                (process.due, process.seen) = (due, self.pass);
                if process.command != command {
                    process.command = command;
                    events.push(Event::ProcessChanged(id));
                }
                let ended = stat.state == 'Z';
                if !ended && (!self.by_tree || process.cgroup.is_none()) {
                    self.move_process(pid, place, events);
                }
            }
            known => {
                // The same pid, another process: its predecessor is gone.
                if known.is_some() {
                    self.drop_process(pid, events);
                }
                // A thread of this pid, of another process, is gone as well.
                self.drop_thread(pid, events);
                if self.index.link_process(pid, &place.workload) {
                    events.extend(place.workload.pod().map(|(uid, _)| Event::PodAdded(uid.clone())));
                }
                events.push(Event::ProcessAdded(id));
                self.index.processes.insert(
                    pid,
                    Process {
                        id,
                        parent: stat.parent,
                        kernel: stat.kernel,
                        command,
                        cgroup: place.cgroup,
                        workload: place.workload,
                        threads: Vec::new(),
                        token: token.unwrap_or_default(),
                        due,
                        seen: self.pass,
                    },
                );
            }
        }
        self.look_at_threads(&entry, pid, Some(&stat), events)
    }

    /// Where a known process is by now, and which threads it has: what may change without a trace in the
    /// listing of `/proc`.
    pub(super) fn look_where(
        &mut self,
        pid: i32,
        places: &mut Places,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let proc = Arc::clone(&self.proc);
        let Some(entry) = proc.entry(pid)? else { return Ok(()) };
        let Some(text) = entry.cgroup()? else { return Ok(()) };
        let place = self.place(text, places, events)?;
        // Of a process that ended and is not waited for, v1 says that it is in the root (proc_cgroup_show()).
        let lost = *place.workload == Workload::Root
            && self.index.processes.get(&pid).is_some_and(|process| *process.workload != Workload::Root);
        if !lost || entry.stat()?.is_some_and(|stat| stat.state != 'Z') {
            self.move_process(pid, place, events);
        }
        self.look_at_threads(&entry, pid, None, events)
    }

    /// The threads by `/proc/PID/task`. `first` is that of the first one, where it has been read already.
    fn look_at_threads(
        &mut self,
        entry: &Entry<'_>,
        pid: i32,
        first: Option<&Stat>,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let listed = entry.list_threads()?;
        let Some(process) = self.index.processes.get(&pid) else { return Ok(()) };
        let (id, cgroup) = (process.id, process.cgroup);
        for listed in &listed {
            let known =
                self.index.processes.get(&pid).and_then(|process| process.thread(listed.pid)).copied();
            // Read with all of its process, while it is young, and when it is another one.
            let is_same = |known: &Thread| known.token == listed.token && !self.is_young(known.id);
            if let Some(known) = known.filter(|known| first.is_none() && is_same(known)) {
                self.see_thread(pid, known.id.pid);
                continue;
            }
            let stat = match first.filter(|_| listed.pid == pid) {
                Some(first) => Some(*first),
                None => entry.thread(listed.pid)?,
            };
            let Some(stat) = stat else { continue };
            let thread = ThreadId { pid: listed.pid, started: stat.started };
            let comm = stat.comm;
            let cgroup = match known.filter(|known| known.id == thread) {
                Some(known) => known.cgroup,
                None => cgroup,
            };
            let thread = Thread { id: thread, comm, cgroup, seen: self.pass, token: listed.token };
            self.put_thread(id, thread, events)?;
        }
        // None at all: it ended while it was read, and the next look tells.
        if !listed.is_empty() {
            self.drop_threads(pid, |pass, thread| thread.seen != pass, events);
        }
        Ok(())
    }

    fn is_young(&self, id: ThreadId) -> bool {
        self.now.saturating_sub(id.started) < YOUNG
    }

    fn see_thread(&mut self, pid: i32, tid: i32) {
        let pass = self.pass;
        if let Some(thread) = self.index.processes.get_mut(&pid).and_then(|process| process.thread_mut(tid)) {
            thread.seen = pass;
        }
    }

    /// Puts a thread into a known process, and tells if it is new there.
    pub(super) fn put_thread(
        &mut self,
        process: ThreadId,
        thread: Thread,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let tid = thread.id.pid;
        match self.index.threads.get(&tid) {
            Some(other) if *other != process.pid => self.drop_thread(tid, events),
            Some(_) => {}
            None if self.index.threads.len() >= self.limits.threads => {
                let what = format!(
                    "{} shows more than {} threads: raise Limits::threads",
                    self.proc.root().display(),
                    self.limits.threads
                );
                return Err(Error::new(ErrorKind::Limit, what));
            }
            None => {}
        }
        let Some(known) = self.index.processes.get_mut(&process.pid) else { return Ok(()) };
        self.index.threads.insert(tid, process.pid);
        match known.put(thread) {
            Some(old) if old.id == thread.id => {
                if old.cgroup != thread.cgroup {
                    events.push(Event::ThreadMoved {
                        thread: thread.id,
                        from: old.cgroup,
                        to: thread.cgroup,
                    });
                }
                return Ok(());
            }
            Some(old) => events.push(Event::ThreadRemoved { process, thread: old.id }),
            None => {}
        }
        events.push(Event::ThreadAdded { process, thread: thread.id });
        Ok(())
    }

    /// What the text of `/proc/PID/cgroup` means.
    fn place(&mut self, text: Vec<u8>, places: &mut Places, events: &mut Vec<Event>) -> Result<Place> {
        if let Some(place) = places.get(&text) {
            return Ok(place.clone());
        }
        let membership = Membership::parse(&text);
        let unified = membership.unified().and_then(|path| std::str::from_utf8(path).ok()).map(String::from);
        let cgroup = match unified {
            Some(path) if self.index.by_path.contains_key(&*path) => self.index.by_path.get(&*path).copied(),
            // Made since the cgroups were looked at.
            Some(path) if !path.contains("/..") => {
                self.look_at_cgroup(&path, events)?.map(|found| found.cgroup.id)
            }
            _ => None,
        };
        let mut workload = Arc::new(Membership::parse(&text).workload());
        // One of each in memory.
        if let Some(cgroup) = cgroup.and_then(|id| self.index.cgroups.get(&id))
            && cgroup.workload == workload
        {
            workload = Arc::clone(&cgroup.workload);
        }
        let place = Place { cgroup, workload };
        places.insert(text, place.clone());
        Ok(place)
    }

    /// A known process is here now, with all its threads that were with it.
    fn move_process(&mut self, pid: i32, place: Place, events: &mut Vec<Event>) {
        let Some(process) = self.index.processes.get_mut(&pid) else { return };
        if process.cgroup != place.cgroup {
            let from = std::mem::replace(&mut process.cgroup, place.cgroup);
            for thread in process.threads.iter_mut().filter(|thread| thread.cgroup == from) {
                thread.cgroup = place.cgroup;
                events.push(Event::ThreadMoved { thread: thread.id, from, to: place.cgroup });
            }
        }
        self.set_workload(pid, place.workload, events);
    }

    fn set_workload(&mut self, pid: i32, workload: Arc<Workload>, events: &mut Vec<Event>) {
        let Some(process) = self.index.processes.get_mut(&pid) else { return };
        if process.workload == workload {
            return;
        }
        let id = process.id;
        let from = std::mem::replace(&mut process.workload, Arc::clone(&workload));
        if self.index.link_process(pid, &workload) {
            events.extend(workload.pod().map(|(uid, _)| Event::PodAdded(uid.clone())));
        }
        let same_pod = from.pod().is_some() && from.pod() == workload.pod();
        let emptied = if same_pod { None } else { self.index.unlink_process(pid, &from) };
        events.push(Event::ProcessMoved { process: id, from, to: workload });
        events.extend(emptied.map(Event::PodRemoved));
    }

    /// What the tree says about where threads are.
    pub(super) fn place_threads(
        &mut self,
        found: &[Found],
        places: &mut Places,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        for Found { cgroup, threads } in found {
            for &tid in threads {
                if !self.place_thread(tid, cgroup.id, &cgroup.workload, events) {
                    self.look_at_thread(tid, places, events)?;
                    self.place_thread(tid, cgroup.id, &cgroup.workload, events);
                }
            }
        }
        Ok(())
    }

    /// Says whether the thread is known.
    fn place_thread(
        &mut self,
        tid: i32,
        cgroup: CgroupId,
        workload: &Arc<Workload>,
        events: &mut Vec<Event>,
    ) -> bool {
        let pass = self.pass;
        let Some(&pid) = self.index.threads.get(&tid) else { return false };
        let Some(process) = self.index.processes.get_mut(&pid) else { return false };
        let Some(thread) = process.thread_mut(tid) else { return false };
        thread.seen = pass;
        if thread.cgroup != Some(cgroup) {
            let from = thread.cgroup.replace(cgroup);
            let thread = thread.id;
            events.push(Event::ThreadMoved { thread, from, to: Some(cgroup) });
        }
        if tid == pid && process.cgroup != Some(cgroup) {
            process.cgroup = Some(cgroup);
        }
        if tid == pid && process.workload != *workload {
            self.set_workload(pid, Arc::clone(workload), events);
        }
        true
    }

    /// Reads a thread that was seen in the tree and is not known yet.
    fn look_at_thread(&mut self, tid: i32, places: &mut Places, events: &mut Vec<Event>) -> Result<()> {
        let proc = Arc::clone(&self.proc);
        let Some(entry) = proc.entry(tid)? else { return Ok(()) };
        let (Some(pid), Some(stat)) = (entry.process()?, entry.stat()?) else { return Ok(()) };
        let Some(process) = self.index.processes.get(&pid) else {
            return self.look_at_process(pid, None, places, events);
        };
        let (process, cgroup) = (process.id, process.cgroup);
        let id = ThreadId { pid: tid, started: stat.started };
        let thread = Thread { id, comm: stat.comm, cgroup, seen: self.pass, token: 0 };
        self.put_thread(process, thread, events)
    }

    /// Threads that the tree showed before and does not show now are gone, unless they were moved while it was
    /// walked, or wait to be waited for: the kernel leaves those out.
    pub(super) fn look_for_missing(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let pass = self.pass;
        let mut missing = Vec::new();
        for process in self.index.processes.values().filter(|process| process.seen == pass) {
            missing
                .extend(process.threads.iter().filter(|thread| thread.seen != pass).map(|thread| thread.id));
        }
        let proc = Arc::clone(&self.proc);
        for id in missing {
            let stat = match proc.entry(id.pid)? {
                Some(entry) => entry.stat()?,
                None => None,
            };
            if stat.is_none_or(|stat| stat.started != id.started) {
                self.drop_thread(id.pid, events);
            }
        }
        Ok(())
    }

    /// Threads that are told to be in cgroups that changed. Where the tree is not what counts, their
    /// processes are asked.
    pub(super) fn take_threads(
        &mut self,
        found: &[Found],
        places: &mut Places,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        if self.by_tree {
            return self.place_threads(found, places, events);
        }
        for &tid in found.iter().flat_map(|found| &found.threads) {
            match self.index.threads.get(&tid) {
                Some(&pid) => self.look_where(pid, places, events)?,
                None => self.look_at_thread(tid, places, events)?,
            }
        }
        Ok(())
    }

    /// Processes that the listing of `/proc` does not have any more.
    pub(super) fn drop_unseen(&mut self, events: &mut Vec<Event>) {
        let pass = self.pass;
        let gone = self.index.processes.values().filter(|process| process.seen != pass);
        let gone: Vec<i32> = gone.map(|process| process.id.pid).collect();
        for pid in gone {
            self.drop_process(pid, events);
        }
    }

    pub(super) fn drop_process(&mut self, pid: i32, events: &mut Vec<Event>) {
        let Some(process) = self.index.processes.remove(&pid) else { return };
        for thread in process.threads {
            if self.index.threads.get(&thread.id.pid) == Some(&pid) {
                self.index.threads.remove(&thread.id.pid);
            }
            events.push(Event::ThreadRemoved { process: process.id, thread: thread.id });
        }
        let emptied = self.index.unlink_process(pid, &process.workload);
        events.push(Event::ProcessRemoved { process: process.id, workload: process.workload });
        events.extend(emptied.map(Event::PodRemoved));
    }

    pub(super) fn drop_thread(&mut self, tid: i32, events: &mut Vec<Event>) {
        let Some(pid) = self.index.threads.remove(&tid) else { return };
        let Some(process) = self.index.processes.get_mut(&pid) else { return };
        if let Ok(at) = process.threads.binary_search_by_key(&tid, |thread| thread.id.pid) {
            let thread = process.threads.remove(at).id;
            events.push(Event::ThreadRemoved { process: process.id, thread });
        }
    }

    fn drop_threads(&mut self, pid: i32, gone: impl Fn(u64, &Thread) -> bool, events: &mut Vec<Event>) {
        let pass = self.pass;
        let Some(process) = self.index.processes.get(&pid) else { return };
        let gone: Vec<i32> =
            process.threads.iter().filter(|thread| gone(pass, thread)).map(|thread| thread.id.pid).collect();
        for tid in gone {
            self.drop_thread(tid, events);
        }
    }
}
