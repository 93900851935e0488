//! Numbers, names and sets as bytes, and their checksum.

use super::NAME_MAX;
use crate::{Cpu, CpuSet, MAX_CPUS};

/// CRC-32 as in Ethernet and gzip (reflected 0xEDB88320).
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

pub(super) fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
    !parts.iter().flat_map(|part| part.iter()).fold(!0, step)
}

/// 7 bits a byte, the lowest first (LEB128).
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A name is cut where it is too long, between two characters.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    let mut end = name.len().min(NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    put(out, end as u64);
    out.extend_from_slice(&name.as_bytes()[..end]);
}

/// Runs of CPUs: how many, and of each the gap before it and its length less one. No run: anywhere.
pub(super) fn put_cpus(out: &mut Vec<u8>, cpus: Option<&CpuSet>) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus.into_iter().flat_map(CpuSet::iter) {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == cpu.0 => *len += 1,
            _ => runs.push((cpu.0, 1)),
        }
    }
    put(out, runs.len() as u64);
    let mut next = 0;
    for (first, len) in runs {
        put(out, u64::from(first - next));
        put(out, u64::from(len - 1));
        next = first + len;
    }
}

/// What is left of a block. Each answer may be "that is not there".
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

pub(super) type Got<T> = Result<T, &'static str>;

impl<'a> Cursor<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Got<u8> {
        let byte = *self.bytes.get(self.at).ok_or("it ends within a record")?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Got<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits")
    }

    pub(super) fn number32(&mut self) -> Got<u32> {
        u32::try_from(self.number()?).map_err(|_| "a number of more than 32 bits")
    }

    pub(super) fn slice(&mut self, len: u64) -> Got<&'a [u8]> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let len = usize::try_from(len).map_err(|_| "it ends within a record")?;
        let slice = left.get(..len).ok_or("it ends within a record")?;
        self.at += len;
        Ok(slice)
    }

    pub(super) fn name(&mut self) -> Got<String> {
        let len = self.number()?;
        if len > NAME_MAX as u64 {
            return Err("a name that is too long");
        }
        let bytes = self.slice(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a name that is not UTF-8")
    }

    pub(super) fn cpus(&mut self) -> Got<Option<Box<CpuSet>>> {
        let runs = self.number()?;
        if runs == 0 {
            return Ok(None);
        }
        let (mut set, mut next) = (Box::new(CpuSet::EMPTY), 0u64);
        for _ in 0..runs {
            let first = next.saturating_add(self.number()?);
            let last = first.saturating_add(self.number()?);
            if last >= u64::from(MAX_CPUS) {
                return Err("a set with a CPU that cannot be");
            }
            (first..=last).for_each(|cpu| set.insert(Cpu(cpu as u32)));
            next = last + 1;
        }
        Ok(Some(set))
    }
}
