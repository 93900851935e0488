//! The stand-in for the core: bpf/stand.bpf.c, loaded.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

use libbpf_rs::{Link, MapCore, MapHandle, Object, ObjectBuilder, ProgramInput, ProgramMut};
use qumun::kernel::{AgentFds, wire};
use qumun_bpf::ring::Transport;

use crate::page::Page;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stand.bpf.o"));

/// Events whose answer is kept (`OPEN`).
const OPEN: usize = 8192;
const ANSWERED: u64 = 1 << 63;
const CALLS: usize = 512;

/// Which pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The agent's: the shared arrays.
    Agent,
    /// The kernel's ring buffers, of the core's names and sizes.
    Rings,
    /// Of the way that the agent is compared with.
    Single,
}

impl Lane {
    /// The maps of events and of decisions.
    fn maps(self) -> [&'static str; 2] {
        match self {
            Self::Agent => Transport::Shared.maps(),
            Self::Rings => Transport::Rings.maps(),
            Self::Single => ["single_events", "single_answers"],
        }
    }

    /// The programs that send events and take decisions.
    fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Agent => ["bench_send_agent", "bench_take_agent"],
            Self::Rings => ["bench_send_rings", "bench_take_rings"],
            Self::Single => ["bench_send_single", "bench_take_single"],
        }
    }
}

/// `struct lane`
#[repr(C)]
struct LaneState {
    sent: u64,
    answered: u64,
    wrong: u64,
    tasks: u64,
    open: [u64; OPEN],
}

/// `struct meter`
#[repr(C)]
struct MeterState {
    open: u32,
    tid: i32,
    calls: [u64; CALLS],
}

/// `struct batch`
#[repr(C)]
#[derive(Clone, Copy)]
struct Batch {
    n: u32,
    tasks: u32,
}

/// The stand-in, loaded until the process ends.
pub struct Stand {
    object: &'static Object,
    /// By lane, what sends events and what takes decisions.
    programs: [[ProgramMut<'static>; 2]; 3],
    lanes: Page<[LaneState; 3]>,
    cpus: u32,
}

impl std::fmt::Debug for Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stand").field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneState").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Stand {
    /// Loads it, for an agent that shall believe in so many CPUs, all idle.
    ///
    /// # Errors
    /// Why not, in words: a bench says so and goes on with what it can measure.
    pub fn load(cpus: u32) -> Result<Self, String> {
        // SAFETY: no arguments.
        if unsafe { libc::geteuid() } != 0 {
            return Err("loading BPF needs root".into());
        }
        // What libbpf would print is in the error, as far as it matters here.
        libbpf_rs::set_print(None);
        let mut open = ObjectBuilder::default()
            .open_memory(OBJECT)
            .map_err(|e| format!("the embedded object cannot be read: {e}"))?;
        for mut map in open.maps_mut() {
            if !map.name().to_string_lossy().ends_with("qm_view") {
                continue;
            }
            let bytes = map.initial_value_mut().ok_or("the view has no contents")?;
            let mut set = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            set(std::mem::offset_of!(wire::View, mode), wire::NORMAL);
            set(std::mem::offset_of!(wire::View, epoch), 1);
            set(std::mem::offset_of!(wire::View, nr_cpu_ids), u64::from(cpus));
            set(std::mem::offset_of!(wire::View, nr_online), u64::from(cpus));
            for cpu in 0..cpus.min(1024) as usize {
                for at in [std::mem::offset_of!(wire::View, idle), std::mem::offset_of!(wire::View, online)] {
                    bytes[at + cpu / 8] |= 1 << (cpu % 8);
                }
            }
        }
        let object = open
            .load()
            .map_err(|e| format!("this kernel does not load the programs (6.1 or later is needed): {e}"))?;
        // Never freed, so that programs can be kept at hand.
        let object: &'static Object = Box::leak(Box::new(object));
        let lanes =
            Page::new(map(object, "lanes")?.as_fd()).map_err(|e| format!("cannot map the lanes: {e}"))?;
        let of_lane = |lane: Lane| {
            let [send, take] = lane.programs();
            Ok::<_, String>([program(object, send)?, program(object, take)?])
        };
        let programs = [of_lane(Lane::Agent)?, of_lane(Lane::Rings)?, of_lane(Lane::Single)?];
        Ok(Self { object, programs, lanes, cpus })
    }

    /// How many CPUs it has.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// What an agent of this library connects with.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn agent_fds(&self) -> Result<AgentFds, String> {
        let dup = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map(IntoRawFd::into_raw_fd).map_err(|e| format!("no descriptor: {e}"))
        };
        let of_map = |name| dup(map(self.object, name)?.as_fd());
        // Nobody asks these here: an agent that did would get no answer.
        let hello = || dup(program(self.object, "bench_hello")?.as_fd());
        let [events, decisions] = Lane::Agent.maps();
        let raw = [
            of_map(events)?,
            of_map(decisions)?,
            of_map("qm_view")?,
            of_map("qm_agent")?,
            hello()?,
            hello()?,
            hello()?,
            of_map("qm_table")?,
            hello()?,
        ];
        // SAFETY: just duplicated, and nothing else uses the copies.
        unsafe { AgentFds::inherit(raw) }.map_err(|e| e.to_string())
    }

    /// The maps of a lane: events and decisions.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn rings(&self, lane: Lane) -> Result<[MapHandle; 2], String> {
        let [events, decisions] = lane.maps();
        Ok([map(self.object, events)?, map(self.object, decisions)?])
    }

    /// Sends `n` events about `tasks` tasks.
    ///
    /// # Panics
    /// If they do not fit: the bench is wrong then.
    pub fn send(&self, lane: Lane, n: u32, tasks: u32) {
        let mut batch = Batch { n, tasks };
        run(&self.programs[lane as usize][0], &mut batch);
        assert_eq!(batch.n, n, "the ring of events is full");
    }

    /// Takes all decisions that there are, and returns how many.
    pub fn take(&self, lane: Lane) -> u32 {
        let mut batch = Batch { n: 0, tasks: 0 };
        run(&self.programs[lane as usize][1], &mut batch);
        batch.n
    }

    /// Has every event been answered, once, and nothing else?
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, lane: Lane) -> Result<(), String> {
        let state = self.lane(lane);
        // SAFETY: plain words of a live mapping, read when no program runs.
        let [sent, answered, wrong] = unsafe {
            [&raw const (*state).sent, &raw const (*state).answered, &raw const (*state).wrong]
                .map(|word| word.read_volatile())
        };
        if sent == answered && wrong == 0 {
            return Ok(());
        }
        Err(format!("{sent} events, {answered} answered, {wrong} decisions that answer none"))
    }

    /// From sent until taken, in nanoseconds, of the last `n` events of this lane, which were answered.
    pub fn latencies(&self, lane: Lane, n: u32) -> impl Iterator<Item = u64> + '_ {
        let state = self.lane(lane);
        // SAFETY: as in `check`.
        let last = unsafe { (&raw const (*state).sent).read_volatile() };
        (last + 1 - u64::from(n)..=last).filter_map(move |generation| {
            // SAFETY: as in `check`, and in bounds by the remainder.
            let word = unsafe { (&raw const (*state).open[generation as usize % OPEN]).read_volatile() };
            (word & ANSWERED != 0).then_some(word & !ANSWERED)
        })
    }

    /// Counts the system calls of the calling thread, as the kernel sees them.
    ///
    /// # Errors
    /// When the kernel has no tracepoint for them.
    pub fn meter(&self) -> Result<SyscallMeter, String> {
        let page = Page::<MeterState>::new(map(self.object, "meter")?.as_fd()).map_err(|e| e.to_string())?;
        let link = program(self.object, "bench_meter")?
            .attach()
            .map_err(|e| format!("this kernel cannot count system calls: {e}"))?;
        // SAFETY: a live mapping; gettid has no arguments.
        unsafe { (&raw mut (*page.at()).tid).write_volatile(libc::gettid()) };
        Ok(SyscallMeter { page, _link: link })
    }

    /// What answers which CPU a task gets (`struct question`).
    pub(crate) fn select(&self) -> Result<ProgramMut<'static>, String> {
        program(self.object, "bench_select")
    }

    /// A call of a program that does nothing.
    ///
    /// # Errors
    /// When it is not there.
    pub fn empty_call(&self) -> Result<impl Fn() + use<>, String> {
        let program = program(self.object, "bench_empty")?;
        Ok(move || run(&program, &mut [0u32; 2]))
    }

    fn lane(&self, lane: Lane) -> *const LaneState {
        // SAFETY: in bounds: there are three.
        unsafe { self.lanes.at().cast::<LaneState>().add(lane as usize) }
    }
}

/// Counts system calls of one thread until dropped.
#[derive(Debug)]
pub struct SyscallMeter {
    page: Page<MeterState>,
    _link: Link,
}

impl std::fmt::Debug for MeterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeterState").field("tid", &self.tid).finish_non_exhaustive()
    }
}

impl SyscallMeter {
    /// Counts from here on, or no longer. A store, no system call.
    pub fn count(&self, on: bool) {
        // SAFETY: a live mapping.
        unsafe { (&raw mut (*self.page.at()).open).write_volatile(u32::from(on)) };
    }

    /// What was counted so far, as number of the system call and count; and begins anew.
    pub fn take(&self) -> Vec<(usize, u64)> {
        (0..CALLS)
            .filter_map(|number| {
                // SAFETY: a live mapping, in bounds, read when nothing is counted.
                let word = unsafe { &raw mut (*self.page.at()).calls[number] };
                // SAFETY: as above.
                let count = unsafe { word.read_volatile() };
                // SAFETY: as above.
                unsafe { word.write_volatile(0) };
                (count > 0).then_some((number, count))
            })
            .collect()
    }
}

fn map(object: &Object, suffix: &str) -> Result<MapHandle, String> {
    let found = object.maps().find(|map| {
        let name = map.name().to_string_lossy();
        name == suffix || name.ends_with(&format!(".{suffix}"))
    });
    let found = found.ok_or_else(|| format!("the embedded object has no map {suffix}"))?;
    MapHandle::try_from(&found).map_err(|e| format!("no descriptor of {suffix}: {e}"))
}

fn program(object: &'static Object, name: &str) -> Result<ProgramMut<'static>, String> {
    let found = object.progs_mut().find(|program| program.name() == name);
    found.ok_or_else(|| format!("the embedded object has no program {name}"))
}

/// Runs a SYSCALL program on `args`, which are plain words; the kernel writes what it changes back to where they are.
pub(crate) fn run<T: Copy>(program: &ProgramMut<'static>, args: &mut T) {
    // SAFETY: as many bytes as there are.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(args).cast::<u8>(), size_of::<T>()) };
    let input = ProgramInput { context_in: Some(bytes), ..ProgramInput::default() };
    match program.test_run(input) {
        Ok(output) if output.return_value == 0 => {}
        Ok(output) => panic!("{} returned {}", program.name().to_string_lossy(), output.return_value as i32),
        Err(e) => panic!("{} could not be run: {e}", program.name().to_string_lossy()),
    }
}
