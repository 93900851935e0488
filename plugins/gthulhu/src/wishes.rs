//! What is asked for a task: by its label, or by the strategy that is for it.

use gthulhu_model::{
    CgroupId, Class, Comm, Label, Lease, Level, Priority, Reader, StrategyTable, Subject, TaskNumber,
    ThreadId,
};
use qumun::{Nanos, Queued};

use crate::boost::Payer;

/// Where wishes come from.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    reader: Option<Reader<StrategyTable>>,
    /// How many labels no value has.
    malformed: u64,
}

/// What was asked for a task, and until when the answer holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) priority: Priority,
    pub(crate) payer: Payer,
    /// What the answer depends on.
    born: Nanos,
    label: u64,
    cgroup: u64,
    comm: [u8; 16],
    generation: u64,
    expires_at: u64,
}

impl Wishes {
    pub(crate) fn new(reader: Reader<StrategyTable>) -> Self {
        Self { reader: Some(reader), malformed: 0 }
    }

    /// Takes a newer table, if there is one, and says whether there was. Never waits.
    pub(crate) fn refresh(&mut self) -> bool {
        self.reader.as_mut().is_some_and(Reader::refresh)
    }

    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    fn table(&self) -> Option<&StrategyTable> {
        self.reader.as_ref()?.get()
    }

    /// What is asked for this task now. The answer of the last time is taken while nothing has changed. `true` if it is
    /// a new one.
    pub(crate) fn of(&mut self, last: &mut Wish, task: &Queued, now: Nanos) -> bool {
        let generation = self.table().map_or(0, |table| table.generation().0);
        let same = (last.born, last.label, last.cgroup, last.comm, last.generation)
            == (task.born, task.label, task.cgroup_id, task.comm_bytes, generation);
        if same && now.as_u64() < last.expires_at {
            return false;
        }
        let found = self.ask(task, now);
        let (priority, payer, expires_at) = match found {
            Found::Said(priority) => (priority, Payer::Task, u64::MAX),
            Found::Leased(lease) => {
                (lease.strategy.priority, Payer::Strategy(lease.strategy.id), lease.expires_at_ns)
            }
            Found::Nothing => (Priority::default(), Payer::Nobody, u64::MAX),
        };
        let payer = if priority.boost().is_some() { payer } else { Payer::Nobody };
        let changed = (priority, payer) != (last.priority, last.payer);
        *last = Wish {
            priority,
            payer,
            born: task.born,
            label: task.label,
            cgroup: task.cgroup_id,
            comm: task.comm_bytes,
            generation,
            expires_at,
        };
        changed
    }

    /// The label first: it is of this very task or of one that it descends from.
    fn ask(&mut self, task: &Queued, now: Nanos) -> Found {
        let lease = |lease: Option<&Lease>| lease.map_or(Found::Nothing, |lease| Found::Leased(*lease));
        match Label::unpack(task.label) {
            Ok(Label::Priority(priority)) => return Found::Said(priority),
            Ok(Label::Strategy(id)) => {
                if let Some(found) = self.table().and_then(|table| table.get(id, now.as_u64())) {
                    return Found::Leased(*found);
                }
            }
            Ok(Label::Nothing) => {}
            Err(_) => self.malformed += 1,
        }
        let subject = Subject {
            task: TaskNumber::new(task.tid),
            thread: Some(ThreadId::born(task.id.pid.0, task.born.as_u64())),
            process: Some(ThreadId::born(task.tgid.0, task.process_born.as_u64())),
            cgroup: (task.cgroup_id != 0).then_some(CgroupId(task.cgroup_id)),
            comm: Comm::from_kernel(task.comm_bytes),
        };
        lease(self.table().and_then(|table| table.find(&subject, now.as_u64())))
    }
}

enum Found {
    Nothing,
    Said(Priority),
    Leased(Lease),
}

impl Wish {
    /// Until when this is what was asked for; for ever where nothing was leased.
    pub(crate) fn expires_at(&self) -> Nanos {
        Nanos(self.expires_at)
    }

    /// The level by which it goes ahead of others while it has tokens; `None`: it stays in the queue.
    pub(crate) fn ahead(&self) -> Option<Level> {
        match self.priority.class {
            Class::Latency(level) if level.is_preempting() => Some(level),
            // Elsewhere than on its CPUs it is ahead if it has a budget for it.
            Class::Isolated if self.payer != Payer::Nobody => Some(Level::STRONGEST),
            _ => None,
        }
    }

    /// By how much its runs are charged less while it has tokens, in percent.
    pub(crate) fn discount(&self) -> Option<u64> {
        match self.priority.class {
            Class::Latency(level) => level.discount_percent().map(u64::from),
            _ => None,
        }
    }
}
