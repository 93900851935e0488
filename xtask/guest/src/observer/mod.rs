//! The observer: a BPF object of its own (bpf/observer.bpf.c) that sees what tasks and CPUs do under any scheduler, and
//! knows nothing of ours. It is what the daemon's own counters are checked against.

mod account;

pub use account::{Account, Slice};

use crate::{Context, Result, sys};
use libbpf_rs::{Link, MapCore, Object, ObjectBuilder, RingBufferBuilder};
use std::cell::RefCell;
use std::time::Duration;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/observer.bpf.o"));

/// Attaching stops the machine for moments: what is seen before this is over tells who is where, and is not counted.
const SETTLE: Duration = Duration::from_millis(100);

/// The last of the programs to be attached: a task that was seen going to sleep must be seen waking up.
const LAST: &str = "ob_switch";

/// Something that happened. The same in bpf/observer.bpf.c.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// `CLOCK_MONOTONIC`, ns.
    pub at: u64,
    /// CPUs, of the first 64, that the woken task or the one that leaves may use.
    pub allowed: u64,
    /// Where it happened.
    pub cpu: u32,
    /// Who leaves the CPU; 0 is its idle task.
    pub prev: i32,
    /// Who is woken, or gets the CPU.
    pub task: i32,
    /// The process of `task`.
    pub tgid: i32,
    /// The name of `task`.
    pub comm: [u8; 16],
    /// [`WAKEUP`] or [`SWITCH`].
    pub kind: u32,
    /// [`RUNNABLE`] or something else.
    pub prev_state: u32,
}

/// A task wants to run.
pub const WAKEUP: u32 = 1;
/// A CPU goes from one task to another.
pub const SWITCH: u32 = 2;
/// Who leaves still wants to run.
pub const RUNNABLE: u32 = 1;

/// At work until dropped or asked.
pub struct Observer {
    links: Vec<Link>,
    object: Object,
    started: u64,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Observer {
    /// Looks from now on.
    ///
    /// # Errors
    /// When the kernel refuses the programs: it has no BTF, or this is not root.
    pub fn start() -> Result<Self> {
        let open = ObjectBuilder::default().open_memory(OBJECT).cannot("read the embedded observer")?;
        let object = open.load().cannot("load the observer (it needs root and a kernel with BTF)")?;
        let mut links = Vec::new();
        for last in [false, true] {
            for program in object.progs_mut().filter(|program| (program.name() == LAST) == last) {
                let name = program.name().to_string_lossy().into_owned();
                links.push(program.attach().cannot(format_args!("attach the observer's {name}"))?);
            }
        }
        sys::sleep(SETTLE);
        Ok(Self { links, object, started: sys::now_ns() })
    }

    /// Stops looking, and works out what was seen. `agent` is the thread that decides, if there is one.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn finish(self, agent: Option<i32>, cpus: usize) -> Result<Account> {
        let Self { links, object, started } = self;
        let ended = sys::now_ns();
        drop(links);
        let find = |name: &str| {
            let found = object.maps().find(|map| map.name().to_string_lossy().ends_with(name));
            found.ok_or_else(|| format!("the embedded observer has no map {name}: it was built wrongly"))
        };
        let lost = find("ob_lost")?
            .lookup(&0_u32.to_ne_bytes(), libbpf_rs::MapFlags::ANY)
            .cannot("read what the observer lost")?;
        let lost = lost.and_then(|bytes| Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?)));
        let records = RefCell::new(Vec::new());
        let ring = find("ob_ring")?;
        let mut builder = RingBufferBuilder::new();
        let take = |bytes: &[u8]| {
            records.borrow_mut().extend(Record::parse(bytes));
            0
        };
        builder.add(&ring, take).cannot("open the observer's ring")?;
        let reader = builder.build().cannot("open the observer's ring")?;
        reader.consume().cannot("read the observer's ring")?;
        drop(reader);
        let mut records = records.into_inner();
        // The place in the ring is taken after the clock was read on another CPU, rarely the other way round.
        records.sort_by_key(|record| record.at);
        Ok(Account::of(&records, started..ended, agent, cpus, lost.unwrap_or(u64::MAX)))
    }
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            at: u64_at(0)?,
            allowed: u64_at(8)?,
            cpu: u32_at(16)?,
            prev: u32_at(20)?.cast_signed(),
            task: u32_at(24)?.cast_signed(),
            tgid: u32_at(28)?.cast_signed(),
            comm: bytes.get(32..48)?.try_into().ok()?,
            kind: u32_at(48)?,
            prev_state: u32_at(52)?,
        })
    }

    /// The name of `task`, without what could end a field of ours.
    pub fn name(&self) -> String {
        let end = self.comm.iter().position(|b| *b == 0).unwrap_or(self.comm.len());
        let text = String::from_utf8_lossy(&self.comm[..end]);
        text.chars().map(|c| if c.is_alphanumeric() || "-_./".contains(c) { c } else { '_' }).collect()
    }
}
