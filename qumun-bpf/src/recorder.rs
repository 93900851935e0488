//! What tasks and CPUs do, under any scheduler: an object of its own on the scheduler's tracepoints, and a ring buffer.
//!
//! Needs a kernel of 5.18 or later with type information (BTF), and the right to load BPF programs.

use std::cell::RefCell;
use std::rc::Rc;

use libbpf_rs::{Link, MapCore, Object, ObjectBuilder, RingBuffer, RingBufferBuilder};

use crate::loader::{collect_messages, unlimited_memlock};
use crate::map::{Mapping, page_size, read_words};
use crate::probe::Probe;
use crate::{Error, ErrorKind, Result};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder.bpf.o"));
const HEAD: usize = 24;
const TASK: usize = 200;
/// CPUs whose losses are counted apart, and the bytes of each.
const LOST: (usize, usize) = (1024, 64);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// `CLOCK_MONOTONIC`, in ns.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What happened. Pids are those of the initial namespace; 0 is an idle CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A task is met for the first time, or something about it has changed.
    Task(Box<TaskSeen>),
    /// A task was made.
    Fork {
        /// By this one.
        parent: i32,
        /// The new one.
        child: i32,
    },
    /// A task begins to end.
    Exit {
        /// This one.
        pid: i32,
    },
    /// A task wants to run.
    Wake {
        /// This one.
        pid: i32,
        /// Who woke it: a pid, -1 for an interrupt, -2 if that is not known.
        by: i32,
        /// The CPU that it goes to first.
        cpu: u16,
    },
    /// A CPU goes from one task to another.
    Switch {
        /// This CPU.
        cpu: u16,
        /// Who was there.
        from: i32,
        /// 0: it waits for something; 1: it still wants to run; 2: it has ended.
        why: u8,
        /// Who is there now.
        to: i32,
    },
}

/// What the kernel tells of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSeen {
    /// It was not known before.
    pub new: bool,
    /// The thread.
    pub pid: i32,
    /// Its process.
    pub tgid: i32,
    /// 100 to 139: nice -20 to 19, and 120 is nice 0.
    pub static_prio: i32,
    /// Below 100: real-time.
    pub prio: i32,
    /// `SCHED_NORMAL` and so on.
    pub policy: u32,
    /// Is it a kernel thread?
    pub kthread: bool,
    /// On how many CPUs it may run.
    pub nr_cpus: u32,
    /// Its cgroup's number: the inode of its folder.
    pub cgroup: u64,
    /// Its name.
    pub comm: String,
    /// Where it may run; bits of CPUs that the machine does not have mean nothing.
    pub cpus: [u64; 16],
}

/// At work until dropped.
pub struct Recorder {
    // In the order in which they have to go.
    ring: RingBuffer<'static>,
    _links: Vec<Link>,
    lost: Mapping,
    _object: Object,
    got: Rc<RefCell<Vec<Happened>>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins to record, into a ring of so many bytes: a power of two, 64 KiB to 1 GiB.
    ///
    /// # Errors
    /// The kernel has no type information, this process may not load programs, or the kernel refuses them.
    pub fn start(ring_bytes: u32) -> Result<Self> {
        if !ring_bytes.is_power_of_two() || !((64 << 10)..=(1 << 30)).contains(&ring_bytes) {
            let what = format!("a ring of {ring_bytes} bytes: a power of two from 64 KiB to 1 GiB is needed");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let probe = Probe::here();
        if !probe.btf {
            let what = "this kernel offers no type information (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF=y";
            return Err(Error::new(ErrorKind::NoBtf, what));
        }
        if !probe.privileged {
            let what = "recording needs the right to load BPF programs: run it as root, or with CAP_BPF and CAP_PERFMON";
            return Err(Error::new(ErrorKind::Permission, what));
        }
        unlimited_memlock();
        let collected = collect_messages();
        let refused = |e: libbpf_rs::Error, what: &str| {
            let said = collected.tail();
            let what = format!("kernel {} refused {what}; it said:\n{said}", probe.release);
            Error::new(ErrorKind::Load, what).because(e)
        };
        let open = |by_trace: bool| {
            let mut open = ObjectBuilder::default()
                .name("qumun_recorder")
                .and_then(|builder| builder.open_memory(OBJECT))
                .map_err(|e| {
                    Error::new(ErrorKind::Load, "the embedded recorder cannot be read").because(e)
                })?;
            for mut map in open.maps_mut().filter(|map| map.name() == "qr_ring") {
                map.set_max_entries(ring_bytes).map_err(|e| refused(e, "the size of the ring"))?;
            }
            for mut program in open.progs_mut() {
                let name = program.name().to_string_lossy().into_owned();
                program.set_autoload(wanted(&name, by_trace));
            }
            Ok(open)
        };
        // Who wakes in an interrupt is known from the count of their nesting, where the kernel shows it
        // (CONFIG_KALLSYMS_ALL); else from the tracepoints of interrupts, which cost a little.
        let (object, by_trace) = match open(false)?.load() {
            Ok(object) => (object, false),
            Err(_) => (open(true)?.load().map_err(|e| refused(e, "the recorder"))?, true),
        };
        let map = |suffix: &str| {
            object.maps().find(|map| map.name().to_string_lossy().ends_with(suffix)).ok_or_else(|| {
                Error::new(
                    ErrorKind::Load,
                    format!("the embedded recorder has no map {suffix}: it was built wrongly"),
                )
            })
        };
        let bytes = (LOST.0 * LOST.1).next_multiple_of(page_size());
        let lost = {
            use std::os::fd::AsFd;
            Mapping::new(map("qr_lost")?.as_fd(), bytes, 0, false, "the counts of lost records")?
        };
        let got: Rc<RefCell<Vec<Happened>>> = Rc::default();
        let into = Rc::clone(&got);
        let mut builder = RingBufferBuilder::new();
        let ring = map("qr_ring")?;
        builder
            .add(&ring, move |bytes: &[u8]| {
                into.borrow_mut().extend(parse(bytes));
                0
            })
            .map_err(|e| refused(e, "the ring"))?;
        let ring = builder.build().map_err(|e| refused(e, "the ring"))?;
        let mut links = Vec::new();
        // Switches come last: a task that was seen going to sleep must be seen waking up.
        for last in [false, true] {
            for program in object.progs_mut() {
                let name = program.name().to_string_lossy().into_owned();
                if wanted(&name, by_trace) && (name == "qr_switch") == last {
                    links.push(program.attach().map_err(|e| refused(e, &format!("to attach {name}")))?);
                }
            }
        }
        drop(collected);
        Ok(Self { ring, _links: links, lost, _object: object, got })
    }

    /// The clock of the records.
    pub fn now() -> u64 {
        crate::agent::monotonic_ns()
    }

    /// Hands over all that is in the ring, in the order in which it happened to each task and CPU. Times may go back by
    /// a little from one record to the next.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn drain(&mut self, mut each: impl FnMut(Happened)) -> Result<usize> {
        self.ring
            .consume()
            .map_err(|e| Error::new(ErrorKind::System, "cannot read the recorder's ring").because(e))?;
        let mut got = self.got.borrow_mut();
        let count = got.len();
        got.drain(..).for_each(&mut each);
        Ok(count)
    }

    /// How many records found no room, since the start.
    pub fn lost(&self) -> u64 {
        let one = |cpu: usize| {
            let at = self.lost.at(cpu * LOST.1, 8).cast::<u64>();
            // SAFETY: in bounds; the kernel writes it, hence volatile.
            unsafe { read_words(at) }
        };
        (0..LOST.0).map(one).sum()
    }
}

/// Which programs there have to be.
fn wanted(name: &str, by_trace: bool) -> bool {
    match name {
        "qr_waking" | "qr_wakeup_new" => !by_trace,
        "qr_waking_trace" | "qr_wakeup_new_trace" => by_trace,
        "qr_layout" => !by_trace && cfg!(target_arch = "x86_64"),
        "qr_local_timer_entry" | "qr_local_timer_exit" => by_trace && cfg!(target_arch = "x86_64"),
        name => by_trace || !(name.ends_with("_entry") || name.ends_with("_exit")) || name == "qr_exit",
    }
}

/// `None` for what this version does not know.
fn parse(bytes: &[u8]) -> Option<Happened> {
    fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at..at + N)?.try_into().ok()
    }
    let signed = |at| Some(i32::from_ne_bytes(array(bytes, at)?));
    let unsigned = |at| Some(u32::from_ne_bytes(array(bytes, at)?));
    let long = |at| Some(u64::from_ne_bytes(array(bytes, at)?));
    let (kind, small) = (*bytes.get(8)?, *bytes.get(9)?);
    let cpu = u16::from_ne_bytes(array(bytes, 10)?);
    let (a, b) = (signed(12)?, signed(16)?);
    let what = match kind {
        1 if bytes.len() >= TASK => {
            let comm: [u8; 16] = array(bytes, HEAD + 32)?;
            let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
            let mut cpus = [0; 16];
            for (word, at) in cpus.iter_mut().zip((HEAD + 48..).step_by(8)) {
                *word = long(at)?;
            }
            What::Task(Box::new(TaskSeen {
                new: small != 0,
                pid: a,
                tgid: b,
                static_prio: signed(HEAD)?,
                prio: signed(HEAD + 4)?,
                policy: unsigned(HEAD + 8)?,
                kthread: unsigned(HEAD + 12)? != 0,
                nr_cpus: unsigned(HEAD + 16)?,
                cgroup: long(HEAD + 24)?,
                comm: String::from_utf8_lossy(&comm[..end]).into_owned(),
                cpus,
            }))
        }
        2 => What::Fork { parent: a, child: b },
        3 => What::Exit { pid: a },
        4 => What::Wake { pid: a, by: b, cpu },
        5 => What::Switch { cpu, from: a, why: small, to: b },
        _ => return None,
    };
    Some(Happened { at: long(0)?, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let mut bytes = [0u8; TASK];
        bytes[..8].copy_from_slice(&77u64.to_ne_bytes());
        bytes[8] = 5;
        bytes[9] = 1;
        bytes[10..12].copy_from_slice(&3u16.to_ne_bytes());
        bytes[12..16].copy_from_slice(&10i32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&11i32.to_ne_bytes());
        let what = What::Switch { cpu: 3, from: 10, why: 1, to: 11 };
        assert_eq!(parse(&bytes[..HEAD]), Some(Happened { at: 77, what }));
        bytes[8] = 1;
        assert_eq!(parse(&bytes[..HEAD]), None);
        bytes[HEAD + 24..HEAD + 32].copy_from_slice(&9u64.to_ne_bytes());
        bytes[HEAD + 32..HEAD + 34].copy_from_slice(b"sh");
        bytes[HEAD + 48] = 5;
        let Some(Happened { what: What::Task(task), .. }) = parse(&bytes) else { panic!("no task") };
        assert_eq!((task.pid, task.tgid, task.new, task.comm.as_str()), (10, 11, true, "sh"));
        assert_eq!((task.cgroup, task.cpus[0], task.cpus[1]), (9, 5, 0));
        for len in 0..HEAD {
            assert_eq!(parse(&bytes[..len.min(HEAD - 1)]), None);
        }
    }
}
