//! What others tell between two looks: events of the kernel, which a BPF program sees as they happen.

use std::sync::Arc;

use gthulhu_model::{Comm, ThreadId};

use super::{Discovery, Event, Forked, Places};
use crate::Result;
use crate::index::{Process, Thread};

impl Discovery {
    /// A thread was made. It belongs where its parent belongs until something else is told; nothing is
    /// read for that. A thread whose process is not known is left for the next look.
    ///
    /// # Errors
    /// There are more threads than the limit.
    pub fn forked(&mut self, fork: &Forked) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if self.index.thread(fork.thread).is_some() {
            return Ok(events);
        }
        let is_process = fork.thread.pid == fork.process;
        let parent = if is_process { fork.parent } else { fork.process };
        let Some(parent) = self.index.processes.get(&parent) else { return Ok(events) };
        let cgroup = fork.cgroup.or(parent.cgroup);
        let comm = fork.comm.or(parent.command.comm);
        let mut process_id = parent.id;
        if is_process {
            process_id = fork.thread;
            let mut process = Process {
                id: fork.thread,
                parent: fork.parent,
                kernel: parent.kernel,
                command: parent.command.clone(),
                cgroup,
                workload: Arc::clone(&parent.workload),
                threads: Vec::new(),
                // No listing has this number: the next look reads all of it.
                token: 0,
                due: 0,
                seen: self.pass,
            };
            process.command.comm = comm;
            // Born into another cgroup (CLONE_INTO_CGROUP), and the tree is what counts.
            if let Some(cgroup) =
                fork.cgroup.filter(|_| self.by_tree).and_then(|id| self.index.cgroups.get(&id))
            {
                process.workload = Arc::clone(&cgroup.workload);
            }
            let pid = fork.process;
            self.drop_process(pid, &mut events);
            self.drop_thread(pid, &mut events);
            if self.index.link_process(pid, &process.workload) {
                events.extend(process.workload.pod().map(|(uid, _)| Event::PodAdded(uid.clone())));
            }
            self.index.processes.insert(pid, process);
            events.push(Event::ProcessAdded(fork.thread));
        }
        let thread = Thread { id: fork.thread, comm, cgroup, seen: self.pass, token: 0 };
        self.put_thread(process_id, thread, &mut events)?;
        Ok(events)
    }

    /// A process runs another program: what it runs is read again, and only that.
    ///
    /// # Errors
    /// A file of it cannot be read. A process that has ended since is no error.
    pub fn executed(&mut self, pid: i32) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let proc = Arc::clone(&self.proc);
        if !self.index.processes.contains_key(&pid) {
            self.look_at_process(pid, None, &mut Places::new(), &mut events)?;
            return Ok(events);
        }
        let Some(entry) = proc.entry(pid)? else { return Ok(events) };
        let Some(stat) = entry.stat()? else { return Ok(events) };
        let command = entry.command_of(&stat)?;
        let Some(process) = self.index.processes.get_mut(&pid) else { return Ok(events) };
        if process.id.started == stat.started && process.command != command {
            process.command = command;
            process.due = 0;
            let comm = process.command.comm;
            if let Some(first) = process.thread_mut(pid) {
                first.comm = comm;
            }
            events.push(Event::ProcessChanged(process.id));
        }
        Ok(events)
    }

    /// A thread has another name (`prctl(PR_SET_NAME)`, `pthread_setname_np`).
    pub fn renamed(&mut self, thread: ThreadId, comm: Comm) -> Vec<Event> {
        let Some((process, _)) = self.index.thread(thread) else { return Vec::new() };
        let pid = process.id.pid;
        let Some(process) = self.index.processes.get_mut(&pid) else { return Vec::new() };
        if let Some(thread) = process.thread_mut(thread.pid) {
            thread.comm = Some(comm);
        }
        if thread.pid == pid && process.command.comm != Some(comm) {
            process.command.comm = Some(comm);
            return vec![Event::ProcessChanged(process.id)];
        }
        Vec::new()
    }

    /// A thread ended. With its last thread a process ends; a first thread that ends before others stays in
    /// the index, as it does in `/proc`.
    pub fn exited(&mut self, thread: ThreadId) -> Vec<Event> {
        let mut events = Vec::new();
        let Some((process, _)) = self.index.thread(thread) else { return events };
        match (process.id.pid, process.threads.len()) {
            (pid, 1) => self.drop_process(pid, &mut events),
            (pid, _) if pid == thread.pid => {}
            _ => self.drop_thread(thread.pid, &mut events),
        }
        events
    }
}
