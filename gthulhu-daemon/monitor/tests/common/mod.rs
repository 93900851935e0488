//! Groups and processes to watch.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gthulhu_monitor::{Counts, ErrorKind, Hierarchy, Monitor, Options, Snapshot};

/// `None` where the monitor cannot run: then a line says why.
pub fn start(change: impl FnOnce(&mut Options)) -> Option<Monitor> {
    let mut options = Options::default();
    options.hierarchy = Hierarchy::V2;
    change(&mut options);
    match Monitor::start(&options) {
        Ok(monitor) => Some(monitor),
        Err(error)
            if matches!(error.kind(), ErrorKind::Permission | ErrorKind::NoBtf | ErrorKind::NoCgroups) =>
        {
            println!("skip monitor - {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One test at a time: they keep CPUs busy.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cgroup of our own, gone with all that is in it when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(root: &Path, name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("gthulhu-test-{}-{number}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn id(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.0).unwrap().ino()
    }

    pub fn name(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    /// Kills what is in it and removes it.
    pub fn remove(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && self.0.exists() {
            assert!(Instant::now() < end, "cannot remove {}", self.0.display());
            for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
                // SAFETY: no pointer is passed; the process is one of ours, in a group of ours.
                unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.0.exists() {
            self.remove();
        }
    }
}

/// A process, killed and reaped when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointer is passed; the child is not reaped, so the pid is its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Stops all its threads, and waits until they are.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let end = Instant::now() + Duration::from_secs(10);
        while tasks(self.pid()).iter().any(|task| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(')').next().unwrap_or("").split_whitespace().next() != Some("T")
        }) {
            assert!(Instant::now() < end, "process {} does not stop", self.pid());
            std::thread::sleep(Duration::from_millis(2));
        }
        // The last may still be on its way off the CPU.
        std::thread::sleep(Duration::from_millis(20));
    }

    pub fn done(&mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This test program again, as a process that is in these groups from its first instruction on. `what` is for `burner`.
pub fn burn(groups: &[&Path], what: &str) -> Process {
    let join: String =
        groups.iter().map(|group| format!("echo $$ > '{}/cgroup.procs' && ", group.display())).collect();
    let child = Command::new("sh")
        .arg("-c")
        .arg(format!("{join}exec \"$0\" --exact burner --ignored --nocapture --test-threads=1"))
        .arg(std::env::current_exe().unwrap())
        .env("GTHULHU_BURN", what)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// `CPU|- SPINNERS NAPPERS FORKS IDLERS`: threads that compute, threads that compute for 0.3 ms and sleep for 1 ms,
/// processes, one after another, that compute for 0.2 ms, and threads that compute for 20 us twice a second. Without
/// forks it goes on until whoever started it ends.
pub fn burner_main() {
    // SAFETY: no pointer is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let what = std::env::var("GTHULHU_BURN").unwrap_or_default();
    let mut words = what.split(' ');
    let mut next = || words.next().unwrap_or("0").to_owned();
    if let Ok(cpu) = next().parse::<usize>() {
        bind(0, cpu);
    }
    let mut count = || next().parse::<u32>().unwrap_or(0);
    let (spinners, nappers, forks, idlers) = (count(), count(), count(), count());
    for _ in 0..spinners {
        std::thread::spawn(|| {
            loop {
                spin(Duration::from_secs(1));
            }
        });
    }
    for _ in 0..nappers {
        std::thread::spawn(|| {
            loop {
                spin(Duration::from_micros(300));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    for _ in 0..idlers {
        std::thread::spawn(|| {
            loop {
                spin(Duration::from_micros(20));
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    }
    for _ in 0..forks {
        // SAFETY: the child computes and ends; it allocates nothing and takes no lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            spin(Duration::from_micros(200));
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the child is ours; no status is asked for.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    if forks == 0 {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub fn tasks(pid: i32) -> Vec<PathBuf> {
    let dir = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    dir.map(|task| task.unwrap().path()).collect()
}

/// What the kernel says of all threads of a process since they began.
#[derive(Debug, Default)]
pub struct Truth {
    pub run_ns: u64,
    pub delay_ns: u64,
    pub runs: u64,
    pub voluntary: u64,
    pub involuntary: u64,
}

pub fn truth(pid: i32) -> Truth {
    let mut truth = Truth::default();
    for task in tasks(pid) {
        let stat = fs::read_to_string(task.join("schedstat")).unwrap();
        let mut numbers = stat.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        truth.run_ns += numbers.next().unwrap();
        truth.delay_ns += numbers.next().unwrap();
        truth.runs += numbers.next().unwrap();
        for line in fs::read_to_string(task.join("status")).unwrap().lines() {
            let number = || line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
            if line.starts_with("voluntary_ctxt_switches") {
                truth.voluntary += number();
            } else if line.starts_with("nonvoluntary_ctxt_switches") {
                truth.involuntary += number();
            }
        }
    }
    truth
}

pub fn counts(snapshot: &Snapshot, id: u64) -> Counts {
    let group = snapshot.groups.iter().find(|group| group.id == id);
    group.unwrap_or_else(|| panic!("no group {id}")).counts.clone()
}

/// Within so many percent of each other.
#[track_caller]
pub fn assert_close(what: &str, ours: u64, theirs: u64, percent: f64) {
    let off = (ours as f64 - theirs as f64) / (theirs as f64).max(1.0) * 100.0;
    println!("{what}: {ours}, the kernel says {theirs} ({off:+.3} %)");
    assert!(off.abs() <= percent, "{what}: {ours}, the kernel says {theirs}: off by {off:.2} %");
}

/// Nothing in `now` is less than in `before`.
#[track_caller]
pub fn assert_not_less(what: &str, now: &Counts, before: &Counts) {
    let mut sum = now.since(before);
    sum.add(before);
    assert_eq!(&sum, now, "{what} went down");
}

/// CPUs that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has a thread, 0 being this one, run on this CPU only.
pub fn bind(tid: i32, cpu: usize) {
    // SAFETY: all zero is an empty set, and the pointer is valid for the size passed.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(tid, size_of_val(&set), &raw const set), 0);
    }
}
