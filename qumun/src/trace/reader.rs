//! Bytes to records. Whatever the bytes are, the answer is records or an error with its place.

use std::io::Read;

use super::bytes::{Cursor, Got, crc32};
use super::header::fill;
use super::writer::{END, RECORDS, kind};
use super::{
    CounterRef, GroupRef, Header, Known, Record, TaskInfo, TaskRef, TraceError, TraceErrorKind, Waker, Why,
};
use crate::{Cpu, Nanos};

/// No block is larger.
const LARGEST: u32 = 1 << 20;

/// A record, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened, on the clock of [`Header::start`].
    pub at: Nanos,
    /// Its first byte in the file.
    pub offset: u64,
    /// What happened.
    pub record: Record,
}

/// Reads a trace from the beginning to the end: an iterator, which ends after an error. Keeps one block in memory, at
/// most 1 MiB; `input` need not be buffered.
///
/// Only what each record says for itself is checked: that it is whole, that tasks, groups and CPUs are known, that no
/// task wakes itself. Whether one could follow from those before is the business of who uses it.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    known: Known,
    block: Vec<u8>,
    /// In `block`.
    at: usize,
    left: u32,
    /// In the file, of the first byte of `block`.
    block_at: u64,
    /// Of what comes after it.
    next_at: u64,
    partial: bool,
    ended: bool,
    cut: Option<TraceError>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It cannot be read, is no trace, of another version, truncated, corrupt, or tells of a machine that cannot be.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        let (header, next_at) = Header::read(&mut input)?;
        let known = Known { nr_cpus: header.topology.nr_cpus(), at: header.start, ..Known::default() };
        Ok(Self {
            input,
            header,
            known,
            block: Vec::new(),
            at: 0,
            left: 0,
            block_at: 0,
            next_at,
            partial: false,
            ended: false,
            cut: None,
        })
    }

    /// Takes what there is: a trace that is truncated or corrupt ends with its last good block. What was wrong is in
    /// [`cut`](Self::cut) then.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Where the trace comes from.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Why a [partial](Self::partial) trace ended where it did; `None` if it is whole, or not read to its end yet.
    pub fn cut(&self) -> Option<&TraceError> {
        self.cut.as_ref()
    }

    /// How many records were lost when it was made, as far as it has been read.
    pub fn dropped(&self) -> u64 {
        self.known.dropped
    }

    fn step(&mut self) -> Result<Option<Entry>, TraceError> {
        while self.left == 0 {
            if self.at < self.block.len() {
                let offset = self.block_at + self.at as u64;
                let what = "there is something behind the last record of a block";
                return Err(TraceError::new(TraceErrorKind::Corrupt, offset, what));
            }
            if !self.next_block()? {
                return Ok(None);
            }
        }
        let offset = self.block_at + self.at as u64;
        let wrong = |what: &str| TraceError::new(TraceErrorKind::Corrupt, offset, what);
        let mut cursor = Cursor { bytes: &self.block, at: self.at };
        let (passed, record) = decode(&mut cursor).map_err(wrong)?;
        let at = self.known.at.0.checked_add(passed).ok_or_else(|| wrong("a time of more than 64 bits"))?;
        self.at = cursor.at;
        self.left -= 1;
        self.known.at = Nanos(at);
        let impossible = |what| TraceError::new(TraceErrorKind::Impossible, offset, what);
        self.known.note(&record).map_err(impossible)?;
        Ok(Some(Entry { at: Nanos(at), offset, record }))
    }

    /// `false` at the end.
    fn next_block(&mut self) -> Result<bool, TraceError> {
        let start = self.next_at;
        let wrong = |kind, what: &str| Err(TraceError::new(kind, start, what));
        let mut front = [0; 17];
        let got = fill(&mut self.input, &mut front[..1], start)?;
        if got == 0 {
            return wrong(
                TraceErrorKind::Truncated,
                "it ends between two blocks: whoever wrote it did not finish",
            );
        }
        match front[0] {
            RECORDS => {}
            END => return self.end(start),
            _ => return wrong(TraceErrorKind::Corrupt, "no block begins like this"),
        }
        if fill(&mut self.input, &mut front[1..], start)? < 16 {
            return wrong(TraceErrorKind::Truncated, "it ends within a block");
        }
        let word = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
        let (len, count) = (word(1), word(5));
        let base = u64::from(word(9)) | u64::from(word(13)) << 32;
        if len > LARGEST || count == 0 {
            return wrong(TraceErrorKind::Corrupt, "a block of more than 1 MiB, or of nothing");
        }
        let (want, mut rest) = (u64::from(len) + 4, std::mem::take(&mut self.block));
        rest.clear();
        let read = (&mut self.input).take(want).read_to_end(&mut rest);
        read.map_err(|error| TraceError::io(start, "cannot read", error))?;
        if (rest.len() as u64) < want {
            return wrong(TraceErrorKind::Truncated, "it ends within a block");
        }
        let crc = rest.split_off(len as usize);
        if crc32(&[&front, &rest]).to_le_bytes() != *crc {
            return wrong(TraceErrorKind::Corrupt, "the checksum of a block is wrong");
        }
        if base < self.known.at.0 {
            return wrong(TraceErrorKind::Impossible, "a block is older than the one before it");
        }
        (self.block, self.at, self.left) = (rest, 0, count);
        self.known.at = Nanos(base);
        self.block_at = start + 17;
        self.next_at = start + 17 + want;
        Ok(true)
    }

    fn end(&mut self, start: u64) -> Result<bool, TraceError> {
        let wrong = |kind, what: &str| Err(TraceError::new(kind, start, what));
        let mut rest = [0; 29];
        let got = fill(&mut self.input, &mut rest, start)?;
        if got < 28 {
            return wrong(TraceErrorKind::Truncated, "it ends within its end");
        }
        if crc32(&[&[END], &rest[..24]]).to_le_bytes() != rest[24..28] {
            return wrong(TraceErrorKind::Corrupt, "the checksum of the end is wrong");
        }
        if got > 28 {
            return wrong(TraceErrorKind::Corrupt, "something follows the end");
        }
        let said =
            rest[..24].chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        if !said.eq([self.known.records, self.known.dropped, self.known.at.0]) {
            return wrong(TraceErrorKind::Impossible, "the end counts other records than there are");
        }
        Ok(false)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Entry, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.step() {
            Ok(Some(entry)) => return Some(Ok(entry)),
            Ok(None) => {}
            Err(error) if self.partial && error.kind != TraceErrorKind::Io => self.cut = Some(error),
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ended = true;
        None
    }
}

fn decode(cursor: &mut Cursor<'_>) -> Got<(u64, Record)> {
    let first = cursor.byte()?;
    let passed = cursor.number()?;
    let small = first >> 4;
    let task = |cursor: &mut Cursor<'_>| cursor.number32().map(TaskRef);
    let option = |cursor: &mut Cursor<'_>| -> Got<Option<TaskRef>> {
        Ok(match cursor.number()? {
            0 => None,
            n => Some(TaskRef(u32::try_from(n - 1).map_err(|_| "a number of more than 32 bits")?)),
        })
    };
    let cpu = |cursor: &mut Cursor<'_>| cursor.number32().map(Cpu);
    let record = match first & 15 {
        kind::GROUP => Record::Group { id: cursor.number()?, name: cursor.name()? },
        kind::CGROUP => Record::Cgroup {
            group: GroupRef(cursor.number32()?),
            parent: option(cursor)?.map(|TaskRef(n)| GroupRef(n)),
            weight: cursor.number32()?,
        },
        kind::TASK => {
            let signed = |n: u32| i32::try_from(n).map_err(|_| "a pid that cannot be");
            Record::Task(Box::new(TaskInfo {
                pid: signed(cursor.number32()?)?,
                tgid: signed(cursor.number32()?)?,
                weight: cursor.number32()?,
                group: GroupRef(cursor.number32()?),
                name: cursor.name()?,
                cpus: cursor.cpus()?,
                kthread: small & 1 != 0,
                agent: small & 2 != 0,
                realtime: small & 4 != 0,
            }))
        }
        kind::COUNTER_NAME => Record::CounterName(cursor.name()?),
        kind::FORK => Record::Fork { parent: option(cursor)?, child: task(cursor)? },
        kind::EXIT => Record::Exit { task: task(cursor)? },
        kind::WAKE => {
            let (who, cpu) = (task(cursor)?, cpu(cursor)?);
            let by = match small {
                0 => Waker::Task(task(cursor)?),
                1 => Waker::Interrupt,
                2 => Waker::Unknown,
                _ => return Err("a wakeup by nobody that is known"),
            };
            Record::Wake { task: who, by, cpu }
        }
        kind::SWITCH => {
            let why = match small {
                0 => Why::Blocked,
                1 => Why::Preempted,
                2 => Why::Exited,
                _ => return Err("a switch for no reason that is known"),
            };
            Record::Switch { cpu: cpu(cursor)?, from: option(cursor)?, why, to: option(cursor)? }
        }
        kind::WEIGHT => Record::Weight { task: task(cursor)?, weight: cursor.number32()? },
        kind::AFFINITY => Record::Affinity { task: task(cursor)?, cpus: cursor.cpus()? },
        kind::MOVE => Record::Move { task: task(cursor)?, group: GroupRef(cursor.number32()?) },
        kind::NAME => Record::Name { task: task(cursor)?, name: cursor.name()? },
        kind::ONLINE => Record::Online { cpu: cpu(cursor)?, online: small & 1 != 0 },
        kind::COUNTER => Record::Counter { counter: CounterRef(cursor.number32()?), value: cursor.number()? },
        kind::DROPPED => Record::Dropped { count: cursor.number()? },
        _ => return Err("a record of no kind that is known"),
    };
    Ok((passed, record))
}
