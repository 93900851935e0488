//! Records to bytes.

use std::io::Write;

use super::bytes::{crc32, put, put_cpus, put_name};
use super::{
    CounterRef, GroupRef, Header, Known, Record, Summary, TaskInfo, TaskRef, TraceError, TraceErrorKind,
    Waker, Why,
};
use crate::Nanos;

/// A block is written when it is as large as this.
const BLOCK: usize = 64 << 10;

pub(super) const RECORDS: u8 = b'R';
pub(super) const END: u8 = b'E';

/// Writes a trace, block by block. Keeps one block in memory.
///
/// A trace that is not [finished](Self::finish) is truncated, and readers say so.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    known: Known,
    block: Vec<u8>,
    in_block: u32,
    base: Nanos,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, header: &Header) -> Result<Self, TraceError> {
        let known = Known { nr_cpus: header.topology.nr_cpus(), at: header.start, ..Known::default() };
        let block = Vec::with_capacity(BLOCK + (1 << 10));
        let mut writer = Self { out, known, block, in_block: 0, base: header.start, written: 0 };
        writer.write(&header.to_bytes())?;
        Ok(writer)
    }

    /// Makes a group known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn group(&mut self, id: u64, name: &str) -> Result<GroupRef, TraceError> {
        let group = GroupRef(self.known.groups);
        self.record(self.known.at, &Record::Group { id, name: name.to_owned() })?;
        Ok(group)
    }

    /// Makes a counter known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn counter(&mut self, name: &str) -> Result<CounterRef, TraceError> {
        let counter = CounterRef(self.known.counters);
        self.record(self.known.at, &Record::CounterName(name.to_owned()))?;
        Ok(counter)
    }

    /// Makes a task known.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn task(&mut self, at: Nanos, info: &TaskInfo) -> Result<TaskRef, TraceError> {
        let task = TaskRef(self.known.tasks);
        self.record(at, &Record::Task(Box::new(info.clone())))?;
        Ok(task)
    }

    /// Writes what happened at this time. Times do not go back: an earlier one counts as that of the record before.
    ///
    /// # Errors
    /// When it cannot be written, or speaks of a task, group, counter or CPU that is not known.
    pub fn record(&mut self, at: Nanos, record: &Record) -> Result<(), TraceError> {
        let place = self.written + self.block.len() as u64;
        let impossible = |what| TraceError::new(TraceErrorKind::Impossible, place, what);
        self.known.note(record).map_err(impossible)?;
        let at = at.max(self.known.at);
        if self.in_block == 0 {
            self.base = self.known.at;
        }
        let passed = at - self.known.at;
        self.known.at = at;
        encode(&mut self.block, passed, record);
        self.in_block += 1;
        if self.block.len() >= BLOCK { self.flush_block() } else { Ok(()) }
    }

    /// Writes the last block and the end, and returns where it all was written to, flushed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<(W, Summary), TraceError> {
        self.flush_block()?;
        let Known { records, dropped, at, .. } = self.known;
        let mut end = vec![END];
        [records, dropped, at.0].iter().for_each(|number| end.extend(number.to_le_bytes()));
        let crc = crc32(&[&end]);
        end.extend(crc.to_le_bytes());
        self.write(&end)?;
        self.out.flush().map_err(|error| TraceError::io(self.written, "cannot write", error))?;
        Ok((self.out, Summary { records, dropped, bytes: self.written, end: at }))
    }

    /// What was written so far, the present block not counted in bytes.
    pub fn summary(&self) -> Summary {
        let Known { records, dropped, at, .. } = self.known;
        Summary { records, dropped, bytes: self.written, end: at }
    }

    fn flush_block(&mut self) -> Result<(), TraceError> {
        if self.in_block == 0 {
            return Ok(());
        }
        let mut front = vec![RECORDS];
        front.extend((self.block.len() as u32).to_le_bytes());
        front.extend(self.in_block.to_le_bytes());
        front.extend(self.base.0.to_le_bytes());
        let crc = crc32(&[&front, &self.block]);
        self.write(&front)?;
        let block = std::mem::take(&mut self.block);
        let done = self.write(&block);
        self.block = block;
        self.block.clear();
        self.in_block = 0;
        done?;
        self.write(&crc.to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        self.out.write_all(bytes).map_err(|error| TraceError::io(self.written, "cannot write", error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// The kinds of records: the low four bits of their first byte. The high four are small fields.
pub(super) mod kind {
    pub(crate) const GROUP: u8 = 1;
    pub(crate) const TASK: u8 = 2;
    pub(crate) const FORK: u8 = 3;
    pub(crate) const EXIT: u8 = 4;
    pub(crate) const WAKE: u8 = 5;
    pub(crate) const SWITCH: u8 = 6;
    pub(crate) const WEIGHT: u8 = 7;
    pub(crate) const AFFINITY: u8 = 8;
    pub(crate) const MOVE: u8 = 9;
    pub(crate) const NAME: u8 = 10;
    pub(crate) const ONLINE: u8 = 11;
    pub(crate) const COUNTER_NAME: u8 = 12;
    pub(crate) const COUNTER: u8 = 13;
    pub(crate) const DROPPED: u8 = 14;
    pub(crate) const CGROUP: u8 = 15;
}

fn encode(out: &mut Vec<u8>, passed: Nanos, record: &Record) {
    let first = match record {
        Record::Group { .. } => kind::GROUP,
        Record::Cgroup { .. } => kind::CGROUP,
        Record::Task(info) => {
            kind::TASK
                | u8::from(info.kthread) << 4
                | u8::from(info.agent) << 5
                | u8::from(info.realtime) << 6
        }
        Record::CounterName(_) => kind::COUNTER_NAME,
        Record::Fork { .. } => kind::FORK,
        Record::Exit { .. } => kind::EXIT,
        Record::Wake { by, .. } => {
            kind::WAKE
                | match by {
                    Waker::Task(_) => 0,
                    Waker::Interrupt => 1 << 4,
                    Waker::Unknown => 2 << 4,
                }
        }
        Record::Switch { why, .. } => {
            kind::SWITCH
                | match why {
                    Why::Blocked => 0,
                    Why::Preempted => 1 << 4,
                    Why::Exited => 2 << 4,
                }
        }
        Record::Weight { .. } => kind::WEIGHT,
        Record::Affinity { .. } => kind::AFFINITY,
        Record::Move { .. } => kind::MOVE,
        Record::Name { .. } => kind::NAME,
        Record::Online { online, .. } => kind::ONLINE | u8::from(*online) << 4,
        Record::Counter { .. } => kind::COUNTER,
        Record::Dropped { .. } => kind::DROPPED,
    };
    out.push(first);
    put(out, passed.0);
    let mut number = |value: u32| put(out, u64::from(value));
    let option = |task: &Option<TaskRef>| task.map_or(0, |task| u64::from(task.0) + 1);
    match record {
        Record::Group { id, name } => {
            put(out, *id);
            put_name(out, name);
        }
        Record::Cgroup { group, parent, weight } => {
            number(group.0);
            number(parent.map_or(0, |parent| parent.0 + 1));
            number(*weight);
        }
        Record::Task(info) => {
            number(info.pid as u32);
            number(info.tgid as u32);
            number(info.weight);
            number(info.group.0);
            put_name(out, &info.name);
            put_cpus(out, info.cpus.as_deref());
        }
        Record::CounterName(name) => put_name(out, name),
        Record::Fork { parent, child } => {
            put(out, option(parent));
            put(out, u64::from(child.0));
        }
        Record::Exit { task } => number(task.0),
        Record::Wake { task, by, cpu } => {
            number(task.0);
            number(cpu.0);
            if let Waker::Task(by) = by {
                number(by.0);
            }
        }
        Record::Switch { cpu, from, to, .. } => {
            number(cpu.0);
            put(out, option(from));
            put(out, option(to));
        }
        Record::Weight { task, weight } => {
            number(task.0);
            number(*weight);
        }
        Record::Affinity { task, cpus } => {
            number(task.0);
            put_cpus(out, cpus.as_deref());
        }
        Record::Move { task, group } => {
            number(task.0);
            number(group.0);
        }
        Record::Name { task, name } => {
            number(task.0);
            put_name(out, name);
        }
        Record::Online { cpu, .. } => number(cpu.0),
        Record::Counter { counter, value } => {
            number(counter.0);
            put(out, *value);
        }
        Record::Dropped { count } => put(out, *count),
    }
}
