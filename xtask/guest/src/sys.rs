//! The system calls that std does not have, each behind a safe function.

use crate::{Context, Result};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the scheduler's own figures.
pub fn now_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that this thread has spent on a CPU.
pub fn thread_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write; both clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps until the clock of [`now_ns`] shows this, whatever signals come; not at all when it is past.
pub fn sleep_until(ns: u64) {
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `time` is valid for the read, and a null remainder is allowed with TIMER_ABSTIME.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

/// Sleeps for a while.
pub fn sleep(time: Duration) {
    sleep_until(now_ns() + time.as_nanos() as u64);
}

/// Timers of this thread fire when they are due, not up to 50 us later, which is the default for ordinary tasks.
pub fn exact_timers() {
    // SAFETY: this prctl takes a number and changes only the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0, 0, 0) };
}

/// The kernel kills this process when the thread that made it ends. Async-signal-safe.
pub fn die_with_parent() {
    // SAFETY: this prctl takes a number and changes only the calling process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

/// Runs this thread, not its children, above all ordinary tasks: who stops and wakes others in a drill must not
/// itself wait for the scheduler under test. Says whether the kernel agreed.
pub fn be_real_time() -> bool {
    be_real_time_at(1)
}

/// The same with a priority: 1 is the lowest, 99 the highest.
pub fn be_real_time_at(sched_priority: i32) -> bool {
    let param = libc::sched_param { sched_priority };
    // SAFETY: `param` is valid for the read; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) == 0 }
}

/// Kernel and libc agree on these numbers, but not every libc crate names the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Whatever the machine does with ordinary tasks.
    Normal,
    /// Asks for sched_ext by name: the only way to it where it does not take every ordinary task.
    Ext,
    /// Above all ordinary tasks.
    Fifo,
}

/// Gives a thread a scheduling class; 0 is this one.
///
/// # Errors
/// When there is no such thread, or the kernel has no such class.
pub fn set_policy(tid: i32, policy: Policy) -> Result<()> {
    const SCHED_EXT: i32 = 7;
    let (number, sched_priority) = match policy {
        Policy::Normal => (libc::SCHED_OTHER, 0),
        Policy::Ext => (SCHED_EXT, 0),
        Policy::Fifo => (libc::SCHED_FIFO, 1),
    };
    let param = libc::sched_param { sched_priority };
    // SAFETY: `param` is valid for the read.
    match unsafe { libc::sched_setscheduler(tid, number, &param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).cannot(format_args!("make thread {tid} {policy:?}")),
    }
}

/// Gives this thread a nice value.
///
/// # Errors
/// When a smaller one than now is not allowed.
pub fn set_nice(nice: i32) -> Result<()> {
    // SAFETY: setpriority takes three numbers; 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).cannot(format_args!("set nice {nice}")),
    }
}

/// The CPU on which this thread runs, or ran a moment ago.
pub fn current_cpu() -> usize {
    // SAFETY: sched_getcpu takes no argument; it fails only where the kernel lacks getcpu.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// The scheduling class of a thread, as sched(7) numbers them.
pub fn class(tid: i32) -> i32 {
    // SAFETY: sched_getscheduler takes a number.
    unsafe { libc::sched_getscheduler(tid) }
}

/// Sends a signal to a process, or with a negative number to a process group.
///
/// # Errors
/// When there is no such process or it is not ours to signal.
pub fn signal(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two numbers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).cannot(format_args!("send signal {signal} to {pid}")),
    }
}

/// Runs `work` in a child process that dies with this one, and returns its pid. Wait for it with [`reap`].
///
/// # Errors
/// When this process has several threads: a lock that another of them holds would stay locked in the child.
pub fn fork(work: impl FnOnce()) -> Result<i32> {
    let threads = fs::read_dir("/proc/self/task").cannot("count the own threads")?.count();
    if threads != 1 {
        return Err(format!("cannot fork: {threads} threads"));
    }
    // SAFETY: there is one thread, so the child's copy of memory is consistent and it may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).cannot("fork"),
        0 => {
            die_with_parent();
            // A panic must not unwind into the caller's frames, which belong to the parent.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: _exit ends the process; nothing of it is used afterwards.
            unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) }
        }
        pid => Ok(pid),
    }
}

/// Kills a child made by [`fork`] and waits until it is gone.
pub fn reap(pid: i32) {
    let _ = signal(pid, libc::SIGKILL);
    let mut status = 0;
    // SAFETY: `status` is valid for the write; the pid is a child of ours that nobody else waits for.
    unsafe { libc::waitpid(pid, &mut status, 0) };
}

/// Says whether a process runs: a zombie, which only waits for its parent to look, does not.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name, in parentheses, may hold anything; the state is the first word behind it.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// The kernel's number of this thread.
pub fn thread_id() -> i32 {
    // SAFETY: gettid takes no argument and cannot fail.
    unsafe { libc::gettid() }
}

/// The CPUs, of the first 64, that a thread may use; 0 is this one.
///
/// # Errors
/// When there is no such thread.
pub fn affinity(tid: i32) -> Result<u64> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for the write of the size that is given.
    if unsafe { libc::sched_getaffinity(tid, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error()).cannot(format_args!("read the CPUs of thread {tid}"));
    }
    // SAFETY: `set` is initialised and 64 is less than the CPUs that it holds.
    Ok((0..64).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).fold(0, |mask, cpu| mask | 1 << cpu))
}

/// Restricts a thread to the CPUs of the mask; 0 is this one.
///
/// # Errors
/// When there is no such thread or the mask names no CPU of the machine.
pub fn set_affinity(tid: i32, mask: u64) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in (0..64).filter(|cpu| mask & 1 << cpu != 0) {
        // SAFETY: `set` is initialised and `cpu` is less than the CPUs that it holds.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid for the read of the size that is given.
    match unsafe { libc::sched_setaffinity(tid, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Memory that nobody uses, in KiB; 0 where the kernel does not tell.
pub fn free_kb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Memory that is there, every page of it, until dropped.
#[derive(Debug)]
pub struct Taken {
    at: *mut libc::c_void,
    bytes: usize,
}

impl Taken {
    /// Takes it from the kernel; `None` when the kernel refuses.
    pub fn new(bytes: usize) -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory in use.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        (at != libc::MAP_FAILED).then_some(Self { at, bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, of this size, and nobody has a reference into it.
        unsafe { libc::munmap(self.at, self.bytes) };
    }
}

/// Sleeps until [`futex_wake`], or a signal, unless `word` is another than `seen` by now. Only between threads.
pub fn futex_wait(word: &AtomicU32, seen: u32) {
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` lives through the call, which only reads it; a null time-out waits for ever.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            forever,
        )
    };
}

/// Wakes one thread that sleeps on `word`, if there is one.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the kernel uses the address as a name and touches no memory there.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

/// One number on a cache line of its own, so that two writers do not slow each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Slot(pub AtomicU64);

/// Numbers that this process and the children it forks see alike. Never unmapped: it lives as long as they do.
///
/// # Errors
/// When there is no memory.
pub fn shared_slots(count: usize) -> Result<&'static [Slot]> {
    let bytes = count.max(1) * size_of::<Slot>();
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory in use.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error()).cannot("map shared memory");
    }
    // SAFETY: the mapping has this size, page alignment, zeroes (a valid Slot) and is never unmapped; all access
    // goes through atomics.
    Ok(unsafe { std::slice::from_raw_parts(at.cast::<Slot>(), count) })
}
