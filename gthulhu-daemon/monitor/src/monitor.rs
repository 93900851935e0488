//! The monitor: rows that the kernel fills, added up by group.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapFlags};

use crate::cgroups::{Hierarchy, Tree};
use crate::layout::{self, Row, SharedState};
use crate::load::{Loaded, now_ns};
use crate::values::{Blame, Counts, Group, Own, Snapshot, Thread, Which};
use crate::{Error, ErrorKind, Result};

/// A slot is given to another group only after this: a task that was just ending when its group was removed has
/// counted by then.
const QUARANTINE_NS: u64 = 1_000_000_000;
/// Memory for rows if nobody says how many, and the bounds of what that makes.
const MEMORY: usize = 64 << 20;
const ROWS: (u32, u32) = (256, 4096);

/// How to monitor.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Groups that have a row of their own at the same time; others are counted together. `None`: what 64 MiB hold (half a
    /// KiB for each group and possible CPU), but 256 to 4096.
    pub max_groups: Option<u32>,
    /// Which tree of cgroups.
    pub hierarchy: Hierarchy,
    /// Where that tree is mounted, if not where `/proc/self/mountinfo` says: in a container, say `/host/sys/fs/cgroup`.
    pub cgroup_root: Option<PathBuf>,
    /// How waits are measured.
    pub wait_source: WaitSource,
    /// Have the kernel measure our programs' run time ([`Own::programs`]). It measures all BPF programs then, which costs
    /// two clock readings for each run.
    pub measure_self: bool,
}

/// How waits are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitSource {
    /// The kernel's own figures where it keeps them (CONFIG_SCHED_INFO, which every distribution's kernel has), else wakeups.
    #[default]
    Auto,
    /// By watching wakeups. Costs more.
    Wakeups,
}

impl Options {
    /// Rows, with the one for all others.
    pub(crate) fn rows(&self, nr_cpus: u32) -> Result<u32> {
        match self.max_groups {
            None => {
                let fit = MEMORY / size_of::<Row>() / nr_cpus.max(1) as usize;
                Ok(u32::try_from(fit).unwrap_or(ROWS.1).clamp(ROWS.0, ROWS.1))
            }
            Some(groups @ 1..=65535) => Ok(groups + 1),
            Some(groups) => Err(Error::new(
                ErrorKind::Invalid,
                format!("rows for {groups} groups: 1 to 65535 can be asked for"),
            )),
        }
    }
}

/// Watches the machine until dropped.
#[derive(Debug)]
pub struct Monitor {
    loaded: Loaded,
    tree: Tree,
    /// Each row as it was last read, by slot; empty for a slot that never was in use.
    read: Vec<Vec<Row>>,
    groups: BTreeMap<u64, Known>,
    other: Counts,
    gone: Counts,
}

#[derive(Debug)]
struct Known {
    slot: usize,
    path: Option<String>,
    counts: Counts,
    /// The most that was ever told as run time: runs that were not over are estimates.
    told_run_ns: u64,
    removed: Option<u64>,
}

impl Monitor {
    /// Loads the programs and begins to count.
    ///
    /// # Errors
    /// The kernel has no type information, this process may not load programs, the kernel refuses them, there are no
    /// cgroups, or the options cannot be.
    pub fn start(options: &Options) -> Result<Self> {
        let tree = Tree::find(options.hierarchy, options.cgroup_root.as_deref())?;
        let loaded = Loaded::new(options, tree.v1)?;
        let read = vec![Vec::new(); loaded.nr_rows];
        Ok(Self {
            loaded,
            tree,
            read,
            groups: BTreeMap::new(),
            other: Counts::default(),
            gone: Counts::default(),
        })
    }

    /// Where the tree of cgroups is mounted.
    pub fn cgroup_root(&self) -> &std::path::Path {
        self.tree.root()
    }

    /// Are waits measured by watching wakeups, because the kernel does not keep them?
    pub fn watches_wakeups(&self) -> bool {
        self.loaded.own_wait
    }

    /// Reads everything. To be called every few seconds or minutes, once an hour at the least: the kernel's side counts
    /// events in 32 bits, and a group that is gone keeps its row until it is noticed here.
    ///
    /// # Errors
    /// When the kernel does not let us read.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let at_ns = now_ns();
        let other = self.take_rows(0);
        self.other.add(&other);
        self.meet_groups();
        let ids: Vec<u64> = self.groups.keys().copied().collect();
        for id in &ids {
            let slot = self.groups[id].slot;
            let grown = self.take_rows(slot);
            if let Some(known) = self.groups.get_mut(id) {
                known.counts.add(&grown);
            }
        }
        let freed = self.free_gone(at_ns)?;
        let running = self.running()?;
        let mut groups = Vec::with_capacity(self.groups.len());
        for (id, known) in &mut self.groups {
            let mut counts = known.counts.clone();
            counts.run_ns += running.get(id).copied().unwrap_or(0);
            known.told_run_ns = known.told_run_ns.max(counts.run_ns);
            counts.run_ns = known.told_run_ns;
            let removed = known.removed.is_some();
            groups.push(Group { id: *id, path: known.path.clone(), removed, counts });
        }
        // These are told once more, as long as they are not in `gone`.
        let gone = self.gone.clone();
        for (id, known) in freed {
            self.gone.add(&known.counts);
            let mut counts = known.counts;
            self.gone.run_ns += known.told_run_ns.saturating_sub(counts.run_ns);
            counts.run_ns = counts.run_ns.max(known.told_run_ns);
            groups.push(Group { id, path: known.path, removed: true, counts });
        }
        groups.sort_by_key(|group| group.id);
        let blames = self.take_blames()?;
        let mut snapshot =
            Snapshot { at_ns, groups, other: self.other.clone(), gone, blames, own: self.own() };
        snapshot.own.events = snapshot.total().runs();
        Ok(snapshot)
    }

    /// Threads as they are now, by process and thread.
    ///
    /// # Errors
    /// When the kernel does not let us look.
    pub fn threads(&mut self, which: Which) -> Result<Vec<Thread>> {
        let (what, tgid, group) = match which {
            Which::All => (layout::ITER_ALL, 0, 0),
            Which::Process(pid) => (layout::ITER_PROCESS, pid, 0),
            Which::Group(id) => (layout::ITER_GROUP, 0, id),
        };
        let mut threads: Vec<Thread> = self.loaded.iterate(what, tgid, group)?.iter().map(thread).collect();
        threads.sort_by_key(|thread| (thread.pid, thread.tid));
        Ok(threads)
    }

    /// What the rows of a slot have grown by since they were last taken.
    fn take_rows(&mut self, slot: usize) -> Counts {
        let cpus = self.loaded.nr_cpus;
        let before = &mut self.read[slot];
        before.resize(cpus, Row::ZERO);
        let mut grown = Counts::default();
        for (cpu, before) in before.iter_mut().enumerate() {
            let now = self.loaded.rows.read(slot * cpus + cpu);
            grown.add(&Counts::grown(&now, before));
            *before = now;
        }
        grown
    }

    /// Groups that got a row since the last look.
    fn meet_groups(&mut self) {
        let mut new = Vec::new();
        for slot in 1..self.loaded.nr_rows {
            let id = self.loaded.groups.word(slot, 0).load(Ordering::Acquire);
            if id != 0 && self.groups.get(&id).is_none_or(|known| known.slot != slot) {
                new.push((id, slot));
            }
        }
        let ids: Vec<u64> = new.iter().map(|(id, _)| *id).collect();
        let mut paths = self.tree.paths(&ids);
        for (id, slot) in new {
            // A task that was ending when its group lost its row brought the group back: it goes on where it was.
            let known = self.groups.entry(id).or_insert_with(|| Known {
                slot,
                path: None,
                counts: Counts::default(),
                told_run_ns: 0,
                removed: None,
            });
            if known.slot == slot {
                known.path = paths.remove(&id);
            }
        }
    }

    /// Notices groups that were removed, and frees the rows of those that were so a while ago.
    fn free_gone(&mut self, now: u64) -> Result<Vec<(u64, Known)>> {
        let mut doubtful = Vec::new();
        for (id, known) in &self.groups {
            let there = known.path.as_ref().is_some_and(|path| self.tree.is_at(*id, path));
            if known.removed.is_none() && !there {
                doubtful.push(*id);
            }
        }
        let slots = self.loaded.map("mon_slots")?;
        let mut found = self.tree.paths(&doubtful);
        let mut changed = false;
        for id in doubtful {
            let Some(known) = self.groups.get_mut(&id) else { continue };
            if let Some(path) = found.remove(&id) {
                known.path = Some(path);
                continue;
            }
            known.removed = Some(now);
            // From here on nobody gets to the slot who did not have it already.
            let _ = slots.delete(&id.to_ne_bytes());
            changed = true;
        }
        let late = |known: &Known| known.removed.is_some_and(|since| now - since >= QUARANTINE_NS);
        let ids: Vec<u64> = self.groups.iter().filter(|(_, known)| late(known)).map(|(id, _)| *id).collect();
        let free = self.loaded.map("mon_free")?;
        let mut freed = Vec::new();
        for id in ids {
            let Some(known) = self.groups.remove(&id) else { continue };
            self.loaded.groups.word(known.slot, 0).store(0, Ordering::Release);
            free.update(&[], &(known.slot as u32).to_ne_bytes(), MapFlags::ANY)
                .map_err(|e| Error::new(ErrorKind::System, "cannot give back a row").because(e))?;
            freed.push((id, known));
            changed = true;
        }
        if changed {
            self.loaded.new_epoch();
        }
        Ok(freed)
    }

    /// Run time of runs that are not over, by group.
    fn running(&mut self) -> Result<HashMap<u64, u64>> {
        let mut running = HashMap::new();
        for thread in self.loaded.iterate(layout::ITER_RUNNING, 0, 0)? {
            *running.entry(thread.group).or_default() += thread.pending_run_ns;
        }
        Ok(running)
    }

    /// Empties the kernel's table of who ran while who waited. What is added to a pair at that very moment is lost: it is
    /// a sample anyway.
    fn take_blames(&mut self) -> Result<Vec<Blame>> {
        const BATCH: usize = 1024;
        const KEY: usize = 16;
        let map = self.loaded.map("mon_blame")?;
        let mut blames = Vec::new();
        let (mut keys, mut values) = (vec![0u8; BATCH * KEY], vec![0u8; BATCH * KEY]);
        let (mut position, mut first) = (0u32, true);
        loop {
            let mut count = BATCH as u32;
            let from = if first { std::ptr::null_mut() } else { (&raw mut position).cast() };
            // SAFETY: keys and values hold `count` elements of the map's sizes (16 bytes each, bpf/layout.h), and the
            // position is a u32 for hash maps.
            let failed = unsafe {
                libbpf_sys::bpf_map_lookup_and_delete_batch(
                    map.as_fd().as_raw_fd(),
                    from,
                    (&raw mut position).cast(),
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    &raw mut count,
                    std::ptr::null(),
                )
            };
            let error = std::io::Error::last_os_error();
            let done = failed < 0 && error.raw_os_error() == Some(libc::ENOENT);
            if failed < 0 && !done {
                return Err(
                    Error::new(ErrorKind::System, "cannot read who ran while who waited").because(error)
                );
            }
            for (key, value) in keys.chunks_exact(KEY).zip(values.chunks_exact(KEY)).take(count as usize) {
                if let (Some([waited, ran]), Some([ns, samples])) =
                    (layout::from_bytes::<[u64; 2]>(key), layout::from_bytes::<[u64; 2]>(value))
                {
                    blames.push(Blame { waited, ran, ns, samples });
                }
            }
            if done {
                break;
            }
            first = false;
        }
        blames.sort_by_key(|blame| std::cmp::Reverse(blame.ns));
        Ok(blames)
    }

    fn own(&self) -> Own {
        let shared: SharedState = self.loaded.shared.read(0);
        let mut own = Own {
            refused: shared.refused,
            rows: self.loaded.nr_rows as u32,
            rows_used: self.groups.len() as u32 + 1,
            programs: self.loaded.costs(),
            ..Own::default()
        };
        for cpu in 0..self.loaded.nr_cpus {
            let lane = self.loaded.lanes.read(cpu);
            own.missed += lane.missed;
            own.resolved += lane.resolved;
            own.blamed += lane.blamed;
            own.unblamed += lane.unblamed;
        }
        own
    }
}

fn thread(record: &layout::ThreadRecord) -> Thread {
    let end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
    Thread {
        tid: record.pid,
        pid: record.tgid,
        comm: String::from_utf8_lossy(&record.comm[..end]).into_owned(),
        start_ns: record.start_ns,
        group: record.group,
        cpu: record.cpu,
        running: record.on_cpu != 0,
        run_ns: record.run_ns,
        wait_ns: record.wait_ns,
        voluntary: record.voluntary,
        involuntary: record.involuntary,
        migrations: record.migrations,
        throttled_ns: record.throttled_ns,
    }
}
