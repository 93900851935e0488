//! What stands at the beginning: where a trace comes from, and on which machine.

use std::io::Read;

use super::bytes::{Cursor, crc32, put, put_name};
use super::{TraceError, TraceErrorKind, VERSION};
use crate::{CpuInfo, Level, Nanos, Topology};

const MAGIC: [u8; 8] = *b"QUMUNTR\n";
/// Of the fields, in bytes. 1024 CPUs take about 20 KiB.
const LONGEST: u32 = 1 << 20;

/// Where a trace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The simulator.
    Simulated,
    /// A kernel of this release.
    Kernel(String),
}

/// What is known before anything happens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// Where it comes from.
    pub origin: Origin,
    /// The policy; for a kernel what `/sys/kernel/sched_ext/root/ops` says, or `kernel` for its own scheduler.
    pub scheduler: String,
    /// The machine.
    pub topology: Topology,
    /// When it begins, on the clock of its records.
    pub start: Nanos,
    /// What all that is random came from. 0 where nothing did.
    pub seed: u64,
}

impl Header {
    /// A trace that begins at 0.
    pub fn new(origin: Origin, scheduler: &str, topology: Topology) -> Self {
        Self { origin, scheduler: scheduler.to_owned(), topology, start: Nanos::ZERO, seed: 0 }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut field = |tag: u64, fill: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            fill(&mut bytes);
            put(&mut fields, tag);
            put(&mut fields, bytes.len() as u64);
            fields.extend(bytes);
        };
        field(ORIGIN, &|out| match &self.origin {
            Origin::Simulated => put(out, 0),
            Origin::Kernel(release) => {
                put(out, 1);
                put_name(out, release);
            }
        });
        field(SCHEDULER, &|out| put_name(out, &self.scheduler));
        field(TOPOLOGY, &|out| put_topology(out, &self.topology));
        field(START, &|out| put(out, self.start.0));
        field(SEED, &|out| put(out, self.seed));
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend((fields.len() as u32).to_le_bytes());
        out.extend(fields);
        let crc = crc32(&[&out]);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads it, and says how many bytes it took.
    pub(super) fn read(input: &mut impl Read) -> Result<(Self, u64), TraceError> {
        let wrong = |kind, offset: u64, what: &str| Err(TraceError::new(kind, offset, what));
        let mut front = [0; 16];
        let got = fill(input, &mut front, 0)?;
        if got < 8 || front[..8] != MAGIC {
            return wrong(TraceErrorKind::NotATrace, 0, "it does not begin with QUMUNTR");
        }
        if got < 16 {
            return wrong(TraceErrorKind::Truncated, got as u64, "it ends within its header");
        }
        let version = u16::from_le_bytes([front[8], front[9]]);
        if version == 0 || version > VERSION {
            let what = format!("{version}; this program reads 1 to {VERSION}: use a newer one");
            return Err(TraceError::new(TraceErrorKind::Version, 8, what));
        }
        let len = u32::from_le_bytes([front[12], front[13], front[14], front[15]]);
        if len > LONGEST {
            return wrong(TraceErrorKind::Corrupt, 12, "a header of more than 1 MiB");
        }
        let mut rest = Vec::new();
        let want = u64::from(len) + 4;
        let read = input.take(want).read_to_end(&mut rest);
        read.map_err(|error| TraceError::io(16, "cannot read", error))?;
        if (rest.len() as u64) < want {
            let at = 16 + rest.len() as u64;
            return wrong(TraceErrorKind::Truncated, at, "it ends within its header");
        }
        let (fields, crc) = rest.split_at(len as usize);
        if crc32(&[&front, fields]).to_le_bytes() != crc {
            return wrong(TraceErrorKind::Corrupt, 0, "the checksum of the header is wrong");
        }
        Ok((Self::parse(fields)?, 16 + want))
    }

    fn parse(fields: &[u8]) -> Result<Self, TraceError> {
        let (mut origin, mut scheduler, mut topology, mut start, mut seed) = (None, None, None, None, 0);
        let mut cursor = Cursor { bytes: fields, at: 0 };
        while !cursor.is_empty() {
            let at = 16 + cursor.at as u64;
            let wrong = |what: &str| TraceError::new(TraceErrorKind::Corrupt, at, format!("header: {what}"));
            let tag = cursor.number().map_err(wrong)?;
            let len = cursor.number().map_err(wrong)?;
            let mut field = Cursor { bytes: cursor.slice(len).map_err(wrong)?, at: 0 };
            match tag {
                ORIGIN => {
                    origin = Some(match field.number().map_err(wrong)? {
                        0 => Origin::Simulated,
                        1 => Origin::Kernel(field.name().map_err(wrong)?),
                        _ => return Err(wrong("it comes from nowhere that is known")),
                    });
                }
                SCHEDULER => scheduler = Some(field.name().map_err(wrong)?),
                TOPOLOGY => topology = Some(get_topology(&mut field, at)?),
                START => start = Some(Nanos(field.number().map_err(wrong)?)),
                SEED => seed = field.number().map_err(wrong)?,
                // A later minor addition: what it says is not needed to read the rest.
                _ => {}
            }
        }
        let missing = |what: &str| {
            TraceError::new(TraceErrorKind::Corrupt, 16, format!("the header does not tell the {what}"))
        };
        Ok(Self {
            origin: origin.ok_or_else(|| missing("origin"))?,
            scheduler: scheduler.ok_or_else(|| missing("scheduler"))?,
            topology: topology.ok_or_else(|| missing("topology"))?,
            start: start.ok_or_else(|| missing("start"))?,
            seed,
        })
    }
}

const ORIGIN: u64 = 1;
const SCHEDULER: u64 = 2;
const TOPOLOGY: u64 = 3;
const START: u64 = 4;
const SEED: u64 = 5;

/// Reads until the buffer or the input is at its end.
pub(super) fn fill(input: &mut impl Read, buffer: &mut [u8], offset: u64) -> Result<usize, TraceError> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TraceError::io(offset + got as u64, "cannot read", error)),
        }
    }
    Ok(got)
}

fn put_topology(out: &mut Vec<u8>, topology: &Topology) {
    put(out, u64::from(topology.known().len()));
    for info in topology.known().iter().filter_map(|cpu| topology.cpu(cpu)) {
        let CpuInfo { cpu, core, l2, l3, node, package, capacity } = info;
        for number in [cpu.0, core, l2, l3, node, package, capacity] {
            put(out, u64::from(number));
        }
    }
}

fn get_topology(field: &mut Cursor<'_>, at: u64) -> Result<Topology, TraceError> {
    let wrong = |what: &str| TraceError::new(TraceErrorKind::Corrupt, at, format!("topology: {what}"));
    let impossible =
        |what: String| TraceError::new(TraceErrorKind::Impossible, at, format!("topology: {what}"));
    let count = field.number().map_err(wrong)?;
    let mut cpus = Vec::new();
    for _ in 0..count {
        let mut number = || field.number32().map_err(wrong);
        let info = CpuInfo {
            cpu: crate::Cpu(number()?),
            core: number()?,
            l2: number()?,
            l3: number()?,
            node: number()?,
            package: number()?,
            capacity: number()?,
        };
        if !(1..=crate::topology::FULL_CAPACITY).contains(&info.capacity) {
            return Err(impossible(format!("CPU {} has a capacity of {}", info.cpu, info.capacity)));
        }
        cpus.push(info);
        // From here on it is known to be too many, whatever follows.
        if cpus.len() > crate::MAX_CPUS as usize {
            break;
        }
    }
    let topology = Topology::from_cpus(&cpus).map_err(|error| impossible(error.to_string()))?;
    // What shares a core shares all else; what shares a level 2 cache shares a level 3 cache.
    let wider = [Level::L2, Level::L3, Level::Node, Level::Package].map(|level| (Level::Core, level));
    for (inner, outer) in wider.into_iter().chain([(Level::L2, Level::L3)]) {
        for domain in topology.domains(inner) {
            let Some(first) = domain.first() else { continue };
            if !domain.is_subset(topology.domain(first, outer)) {
                let what =
                    format!("the CPUs of one {inner:?} (CPU {first} is in it) are in two of {outer:?}");
                return Err(impossible(what));
            }
        }
    }
    Ok(topology)
}
