//! What the agent's process holds: rings, pages and SYSCALL programs, by file descriptor.
//!
//! No C library is needed here, so that the process that runs a policy can be a small one: it inherits
//! the descriptors from the process that loaded the core, which alone holds the link.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::map::{Shared, read_words};
use crate::protocol::{Agreement, Words};
use crate::ring::{self, DecisionRing, EventRing};
use crate::wire::{
    AgentPage, Cgroup, Hello, MAX_CGROUPS, Preempt, REVOKE_WORDS, Request, SELECT_MAX, Select, View, Wake,
};
use crate::{Error, ErrorKind, Result};

/// The descriptors that an agent needs, owned.
#[derive(Debug)]
pub struct AgentFds {
    pub(crate) events: OwnedFd,
    pub(crate) decisions: OwnedFd,
    pub(crate) view: OwnedFd,
    pub(crate) agent: OwnedFd,
    pub(crate) hello: OwnedFd,
    pub(crate) select_cpu: OwnedFd,
    pub(crate) preempt: OwnedFd,
    pub(crate) cgroups: OwnedFd,
    pub(crate) wake: OwnedFd,
}

impl AgentFds {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// In the order in which [`AgentFds::inherit`] expects them.
    pub fn raw(&self) -> [RawFd; Self::COUNT] {
        [
            &self.events,
            &self.decisions,
            &self.view,
            &self.agent,
            &self.hello,
            &self.select_cpu,
            &self.preempt,
            &self.cgroups,
            &self.wake,
        ]
        .map(AsRawFd::as_raw_fd)
    }

    /// Takes over descriptors that this process inherited, in the order of [`AgentFds::raw`].
    ///
    /// # Errors
    /// When one of them is not open.
    ///
    /// # Safety
    /// Nothing else in this process may own or use these descriptors.
    pub unsafe fn inherit(raw: [RawFd; Self::COUNT]) -> Result<Self> {
        let take = |index: usize| -> Result<OwnedFd> {
            let fd = raw[index];
            // SAFETY: fcntl on any number is harmless.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                return Err(Error::system(format!("descriptor {fd} was not inherited")));
            }
            // SAFETY: it is open, and the caller promises that nothing else here owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        Ok(Self {
            events: take(0)?,
            decisions: take(1)?,
            view: take(2)?,
            agent: take(3)?,
            hello: take(4)?,
            select_cpu: take(5)?,
            preempt: take(6)?,
            cgroups: take(7)?,
            wake: take(8)?,
        })
    }
}

/// The agent's end of the core.
#[derive(Debug)]
pub struct Agent {
    fds: AgentFds,
    /// Events from the core.
    pub events: EventRing,
    /// Decisions to the core.
    pub decisions: DecisionRing,
    view: Shared<View>,
    page: Shared<AgentPage>,
    cgroups: Shared<[Cgroup; MAX_CGROUPS]>,
    agreement: Agreement,
}

impl Agent {
    /// Maps everything that the agent will touch. The core does not know of it yet.
    ///
    /// # Errors
    /// When the maps cannot be mapped.
    pub fn map(fds: AgentFds) -> Result<Self> {
        let (events, decisions) = ring::map(fds.events.as_fd(), fds.decisions.as_fd())?;
        Ok(Self {
            events,
            decisions,
            view: Shared::new(fds.view.as_fd(), false, "the core's view")?,
            page: Shared::new(fds.agent.as_fd(), true, "the agent's page")?,
            cgroups: Shared::new(fds.cgroups.as_fd(), false, "the table of cgroups")?,
            agreement: Agreement::default(),
            fds,
        })
    }

    /// Makes the calling thread the agent. From now on the core gives it a CPU when there is something
    /// to decide; events come after the first [`Agent::acknowledge`].
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn hello(&mut self) -> Result<()> {
        let mut hello = Hello::default();
        run(self.fds.hello.as_fd(), &mut hello, "qumun_hello")?;
        // It is to have a CPU for itself, and greets from there. Not earlier: until now it had the whole machine to get ready
        // on. If that CPU is offline the core has heard of an agent like any other.
        if hello.dedicated != 0 && pin(&[hello.dedicated - 1]).is_ok() {
            run(self.fds.hello.as_fd(), &mut hello, "qumun_hello")?;
        }
        // The core reads no decisions any more; one last drain may still be under way.
        std::thread::sleep(Duration::from_millis(1));
        self.decisions.resync();
        Ok(())
    }

    /// A view on the core's page that reads single words, for use in the loop.
    pub fn view_word(&self, field: ViewWord) -> u64 {
        view_word(&self.view, field, Ordering::Acquire)
    }

    /// The core's present epoch.
    pub fn epoch(&self) -> u64 {
        self.agreement.epoch(&AgreementWords { view: &self.view, page: &self.page })
    }

    /// One word of the idle bitmap: 64 CPUs.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn idle_word(&self, word: usize) -> u64 {
        self.bitmap_word(std::mem::offset_of!(View, idle), word)
    }

    /// One word of the bitmap of CPUs that may be used.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn online_word(&self, word: usize) -> u64 {
        self.bitmap_word(std::mem::offset_of!(View, online), word)
    }

    /// One word of the bitmap of CPUs that are idle until the agent answers for a task.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn asking_word(&self, word: usize) -> u64 {
        self.bitmap_word(std::mem::offset_of!(View, asking), word)
    }

    #[inline]
    fn bitmap_word(&self, offset: usize, word: usize) -> u64 {
        assert!(word < crate::wire::MAX_CPUS / 64, "there is no word {word}");
        // SAFETY: an aligned word inside one of the bitmaps of View, by the line above.
        let at = unsafe { self.view.ptr().cast::<u8>().add(offset + 8 * word).cast::<u64>() };
        // SAFETY: as above; the kernel writes whole words.
        unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Relaxed)
    }

    /// The version of a slot of the table of cgroups: changed since it was read last?
    ///
    /// # Panics
    /// If the slot is [`MAX_CGROUPS`] or more.
    pub fn cgroup_version(&self, slot: usize) -> u64 {
        self.slot_version(self.slot(slot)).load(Ordering::Acquire)
    }

    fn slot(&self, slot: usize) -> *mut Cgroup {
        assert!(slot < MAX_CGROUPS, "there is no slot {slot}");
        // SAFETY: in bounds by the line above.
        unsafe { self.cgroups.ptr().cast::<Cgroup>().add(slot) }
    }

    fn slot_version(&self, at: *mut Cgroup) -> &AtomicU64 {
        // SAFETY: from `slot`, whose aligned first word it is; the kernel writes whole words.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    /// One slot of the table of cgroups, as of one moment. Where it never stops changing, its version stays odd.
    ///
    /// # Panics
    /// If the slot is [`MAX_CGROUPS`] or more.
    pub fn cgroup(&self, slot: usize) -> Cgroup {
        let at = self.slot(slot);
        let version = self.slot_version(at);
        let mut copy = Cgroup::default();
        for _ in 0..8 {
            // Pairs with the atomic operations, full barriers, around the core's change (cgroups.h).
            let before = version.load(Ordering::Acquire);
            // SAFETY: in bounds; plain data of whole words, for which every bit pattern is valid.
            copy = unsafe { read_words(at) };
            fence(Ordering::Acquire);
            if before & 1 == 0 && version.load(Ordering::Relaxed) == before {
                copy.version = before;
                return copy;
            }
        }
        copy.version |= 1;
        copy
    }

    /// Whether this process could write what only the core should: for tests.
    #[doc(hidden)]
    pub fn view_is_writable(&self) -> bool {
        Shared::<View>::new(self.fds.view.as_fd(), true, "the core's view").is_ok()
    }

    /// Tells the core that everything older than `epoch` has been thrown away.
    pub fn acknowledge(&mut self, epoch: u64) {
        self.agreement.acknowledge(&AgreementWords { view: &self.view, page: &self.page }, epoch);
    }

    /// Does an event that carries `epoch` belong to the epoch acknowledged last? One that was sent on
    /// the eve of a new epoch does not: the core has that task already.
    pub fn is_current(&self, epoch: u32) -> bool {
        self.agreement.covers(epoch)
    }

    /// One counter of the agent's page, for the loop to keep.
    pub fn page_word(&self, word: PageWord) -> &AtomicU64 {
        page_word(&self.page, word)
    }

    /// What a permit for this task has to carry now.
    pub fn mark(&self, pid: i32) -> u32 {
        let all = page_word(&self.page, PageWord::RevokedAll).load(Ordering::Relaxed);
        all.wrapping_add(self.revoked(pid).load(Ordering::Relaxed)) as u32
    }

    /// Ends the permits of this task (and of those that share its word), or all of them.
    pub fn revoke(&self, pid: Option<i32>) {
        let word = match pid {
            Some(pid) => self.revoked(pid),
            None => page_word(&self.page, PageWord::RevokedAll),
        };
        // Nobody else writes it. Release: whatever the agent does after has this before it.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    fn revoked(&self, pid: i32) -> &AtomicU64 {
        let offset = std::mem::offset_of!(AgentPage, revoked) / 8 + pid as u32 as usize % REVOKE_WORDS;
        // SAFETY: an aligned u64 inside AgentPage; all access is atomic.
        unsafe { AtomicU64::from_ptr(self.page.ptr().cast::<u64>().add(offset)) }
    }

    /// Asks the core for idle CPUs for a batch of tasks: one system call for up to [`SELECT_MAX`].
    /// Each request's `cpu` is where to look first, and then the CPU that was claimed, or -1.
    ///
    /// # Errors
    /// When there are none or too many requests, or the call fails.
    pub fn select_cpus(&mut self, requests: &mut [Request]) -> Result<usize> {
        if requests.is_empty() || requests.len() > SELECT_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} requests for CPUs in one call; 1 to {SELECT_MAX} are possible", requests.len()),
            ));
        }
        // SAFETY: in bounds by the check; the page is plain data shared with the kernel.
        let slots = unsafe { (&raw mut (*self.page.ptr()).requests).cast::<Request>() };
        for (i, request) in requests.iter().enumerate() {
            // SAFETY: as above.
            unsafe { slots.add(i).write_volatile(*request) };
        }
        let mut select = Select { count: requests.len() as u32, answered: 0 };
        run(self.fds.select_cpu.as_fd(), &mut select, "qumun_select_cpu")?;
        for (i, request) in requests.iter_mut().enumerate() {
            // SAFETY: as above.
            *request = unsafe { slots.add(i).read_volatile() };
        }
        Ok(select.answered as usize)
    }

    /// Wakes those of some CPUs, one bit each, that are idle. Returns how many were.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn wake(&mut self, cpus: &[u64; crate::wire::MAX_CPUS / 64]) -> Result<u32> {
        // SAFETY: inside the page, which is plain data shared with the kernel.
        let words = unsafe { &raw mut (*self.page.ptr()).wake };
        // SAFETY: as above.
        unsafe { words.write_volatile(*cpus) };
        let mut wake = Wake::default();
        run(self.fds.wake.as_fd(), &mut wake, "qumun_wake")?;
        Ok(wake.woken)
    }

    /// Ends the slice of whatever runs on `cpu`.
    ///
    /// # Errors
    /// When there is no such CPU online.
    pub fn preempt(&self, cpu: i32) -> Result<()> {
        let mut preempt = Preempt { cpu, reserved: 0 };
        run(self.fds.preempt.as_fd(), &mut preempt, "qumun_preempt")
    }
}

fn view_word(view: &Shared<View>, field: ViewWord, order: Ordering) -> u64 {
    let base: *mut u8 = view.ptr().cast();
    // SAFETY: the offset is that of an aligned u64 inside View; the kernel writes whole words.
    unsafe { AtomicU64::from_ptr(base.add(field.offset()).cast()) }.load(order)
}

fn page_word(page: &Shared<AgentPage>, word: PageWord) -> &AtomicU64 {
    // SAFETY: an aligned u64 inside AgentPage; all access is atomic.
    unsafe { AtomicU64::from_ptr(page.ptr().cast::<u64>().add(word as usize)) }
}

/// The agreement's two words in the pages that the kernel maps.
struct AgreementWords<'a> {
    view: &'a Shared<View>,
    page: &'a Shared<AgentPage>,
}

impl Words for AgreementWords<'_> {
    fn epoch(&self, order: Ordering) -> u64 {
        view_word(self.view, ViewWord::Epoch, order)
    }

    fn set_ack(&self, epoch: u64, order: Ordering) {
        page_word(self.page, PageWord::Ack).store(epoch, order);
    }
}

/// A word of [`View`] that the loop reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewWord {
    /// [`View::mode`].
    Mode,
    /// [`View::epoch`].
    Epoch,
    /// [`View::agent_runs`].
    AgentRuns,
    /// [`View::exited`].
    Exited,
    /// [`View::nr_cpu_ids`].
    NrCpuIds,
    /// [`View::cgroup_changes`].
    CgroupChanges,
    /// [`View::dedicated`].
    Dedicated,
}

impl ViewWord {
    fn offset(self) -> usize {
        match self {
            Self::Mode => std::mem::offset_of!(View, mode),
            Self::Epoch => std::mem::offset_of!(View, epoch),
            Self::AgentRuns => std::mem::offset_of!(View, agent_runs),
            Self::Exited => std::mem::offset_of!(View, exited),
            Self::NrCpuIds => std::mem::offset_of!(View, nr_cpu_ids),
            Self::CgroupChanges => std::mem::offset_of!(View, cgroup_changes),
            Self::Dedicated => std::mem::offset_of!(View, dedicated),
        }
    }
}

/// A word of [`AgentPage`], by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum PageWord {
    /// [`AgentPage::ack`].
    Ack,
    /// [`AgentPage::events`].
    Events,
    /// [`AgentPage::discarded`].
    Discarded,
    /// [`AgentPage::published`].
    Published,
    /// [`AgentPage::batches`].
    Batches,
    /// [`AgentPage::ring_full`].
    RingFull,
    /// [`AgentPage::allocations`].
    Allocations,
    /// [`AgentPage::resyncs`].
    Resyncs,
    /// [`AgentPage::held`].
    Held,
    /// [`AgentPage::pool_size`].
    PoolSize,
    /// [`AgentPage::pool_used`].
    PoolUsed,
    /// [`AgentPage::minor_faults`].
    MinorFaults,
    /// [`AgentPage::major_faults`].
    MajorFaults,
    /// [`AgentPage::revoked_all`].
    RevokedAll,
}

/// `BPF_PROG_RUN` of a SYSCALL program with `args` as its context.
pub(crate) fn run<T>(program: BorrowedFd<'_>, args: &mut T, name: &str) -> Result<()> {
    /// The part of `union bpf_attr` that BPF_PROG_RUN reads (include/uapi/linux/bpf.h).
    #[repr(C)]
    #[derive(Default)]
    struct ProgRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        // Without the size a SYSCALL program is refused, whatever old documentation says.
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    const BPF_PROG_RUN: libc::c_int = 10;
    let mut attr = ProgRun {
        prog_fd: program.as_raw_fd() as u32,
        ctx_size_in: size_of::<T>() as u32,
        ctx_in: std::ptr::from_mut(args) as u64,
        ..ProgRun::default()
    };
    // SAFETY: attr is large enough for this command and args lives until the call returns.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_RUN, std::ptr::from_mut(&mut attr), size_of::<ProgRun>())
    };
    if ret < 0 {
        return Err(Error::system(format!("cannot run the core's program {name}")));
    }
    match attr.retval as i32 {
        0 => Ok(()),
        code => Err(Error::new(ErrorKind::Invalid, format!("{name} refused its arguments"))
            .because(std::io::Error::from_raw_os_error(-code))),
    }
}

/// `CLOCK_MONOTONIC`, the clock of all times here.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer and a clock that every kernel has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Locks all memory of this process, present and to come, and touches the stack that the loop will
/// use. An agent that waits for a page fault can deadlock the machine: the kernel thread that would
/// resolve it may wait for the agent.
///
/// # Errors
/// When the limit on locked memory forbids it.
pub fn lock_memory() -> Result<()> {
    // khugepaged holds a process's memory map while it merges pages; the agent would wait for it. A
    // kernel without this option has no khugepaged either.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    // SAFETY: no pointers are involved.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        return Err(Error::system("cannot lock the agent's memory (RLIMIT_MEMLOCK, CAP_IPC_LOCK)"));
    }
    // The page in which the kernel keeps the time comes with the first look at it, and mlockall does not fetch it. The
    // loop looks at the clock for sampled events only, so the first look could be much later.
    std::hint::black_box((monotonic_ns(), current_cpu()));
    let mut stack = [0u8; 256 * 1024];
    for page in stack.chunks_mut(4096) {
        std::hint::black_box(&mut page[0]);
    }
    Ok(())
}

/// Lets the calling thread, and what it starts later, run on these CPUs only.
///
/// # Errors
/// When none of them is there, or one has a number of 1024 or more.
pub fn pin(cpus: &[u32]) -> Result<()> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu as usize >= crate::wire::MAX_CPUS {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("CPU {cpu}: numbers are below {}", crate::wire::MAX_CPUS),
            ));
        }
        // SAFETY: a cpu_set_t has room for 1024.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    }
    // SAFETY: a valid set of that size; 0 is this thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(Error::system(format!("cannot run on the CPUs {cpus:?}")));
    }
    Ok(())
}

const SCHED_EXT: libc::c_int = 7;

/// Makes the calling thread one of the class `SCHED_EXT`. Where a scheduler takes all tasks this changes
/// nothing; where it takes only that class, the agent would else not be scheduled by its own core.
///
/// # Errors
/// When the kernel refuses.
pub fn join_ext() -> Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: a valid pointer; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, SCHED_EXT, &raw const param) } != 0 {
        return Err(Error::system("cannot change the agent's class to SCHED_EXT"));
    }
    Ok(())
}

/// Is the calling thread of the class `SCHED_EXT` by its own wish?
pub fn is_ext() -> bool {
    // SAFETY: 0 is this thread.
    unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK == SCHED_EXT }
}

/// The CPU on which the calling thread is; no system call on most machines.
pub fn current_cpu() -> Option<u32> {
    // SAFETY: no arguments.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Gives the CPU away once.
pub fn yield_now() {
    // SAFETY: no arguments, cannot fail on Linux.
    unsafe { libc::sched_yield() };
}
