//! Hand-made cgroups with real processes in them, and nothing left behind.
#![allow(dead_code, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gthulhu_discovery::{Discovery, Options, Proc, Source, Tree};

/// A cgroup of our own in one hierarchy, and the processes that were started in it.
pub(crate) struct Sandbox {
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// Our cgroup, from there.
    pub(crate) name: String,
    count: u32,
    children: Vec<Child>,
}

/// In v2. `None`, and why, where that cannot be.
pub(crate) fn unified() -> Option<Sandbox> {
    if !is_root() {
        println!("skip: cgroups are made by root only");
        return None;
    }
    let Ok(Some(mount)) = Tree::mount(&Proc::host().unwrap()) else {
        println!("skip: cgroup v2 is not mounted");
        return None;
    };
    Sandbox::new(mount)
}

/// In a hierarchy of v1 that has this controller or name. `None`, and why, where that cannot be.
pub(crate) fn v1(controller: &str) -> Option<Sandbox> {
    if !is_root() {
        println!("skip: cgroups are made by root only");
        return None;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let of_controller = |line: &&str| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields[2] == "cgroup" && fields[3].split(',').any(|option| option == controller)
    };
    let Some(line) = mounts.lines().find(of_controller) else {
        println!("skip: no hierarchy of cgroup v1 has {controller}");
        return None;
    };
    Sandbox::new(line.split(' ').nth(1).unwrap().into())
}

fn is_root() -> bool {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() == 0 }
}

impl Sandbox {
    fn new(mount: PathBuf) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep(&mount);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/gthulhu-discovery-test-{}-{count}", std::process::id());
        if let Err(error) = fs::create_dir(mount.join(&name[1..])) {
            println!("skip: cannot make a cgroup in {} ({error})", mount.display());
            return None;
        }
        Some(Self { mount, name, count, children: Vec::new() })
    }

    /// The UID of a pod that no other test has.
    pub(crate) fn uid(&self, number: u32) -> String {
        format!("{:08x}-{:04x}-4000-8000-{number:012x}", std::process::id(), self.count)
    }

    /// The same for a pod from a file: a hash without dashes.
    pub(crate) fn hash(&self) -> String {
        format!("{:016x}{:016x}", std::process::id(), self.count)
    }

    /// The path of a cgroup below ours, from the root of its hierarchy.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("{}{below}", self.name)
    }

    pub(crate) fn directory(&self, below: &str) -> PathBuf {
        self.mount.join(self.path(below).trim_start_matches('/'))
    }

    pub(crate) fn make(&self, below: &str) {
        fs::create_dir_all(self.directory(below)).unwrap();
    }

    /// Moves a process.
    pub(crate) fn put(&self, pid: u32, below: &str) {
        fs::write(self.directory(below).join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Starts a process here, which ends by itself if nobody ends it.
    pub(crate) fn start(&mut self, below: &str, command: &mut Command) -> u32 {
        self.make(below);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        self.put(pid, below);
        pid
    }

    pub(crate) fn sleep(&mut self, below: &str) -> u32 {
        self.start(below, Command::new("sleep").arg("120"))
    }

    /// Starts a process with more than one thread.
    pub(crate) fn workers(&mut self, below: &str) -> u32 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process_of_two_threads", "--ignored", "--test-threads=2"]);
        let pid = self.start(below, &mut command);
        let tasks = format!("/proc/{pid}/task");
        until("it has two threads", || fs::read_dir(&tasks).is_ok_and(|tasks| tasks.count() > 1));
        pid
    }

    /// Ends one that was started here.
    pub(crate) fn end(&mut self, pid: u32) {
        let at = self.children.iter().position(|child| child.id() == pid).unwrap();
        end(self.children.swap_remove(at));
    }

    /// Looks at the machine in this way, without watches of other tests' cgroups.
    pub(crate) fn discovery(&self, source: Source) -> Discovery {
        let mut options = Options::default();
        options.source = source;
        Discovery::new(options).unwrap()
    }
}

/// Ends what was started and removes what was made, also when a test fails.
impl Drop for Sandbox {
    fn drop(&mut self) {
        for child in self.children.drain(..) {
            end(child);
        }
        let directory = self.directory("");
        let begun = Instant::now();
        // The kernel lets go of a cgroup a moment after its last process.
        while !remove(&directory) && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Removes a cgroup and all below it. Says whether it is gone.
fn remove(directory: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(directory).is_ok() || !directory.exists()
}

/// Removes what a test left behind that was killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("gthulhu-discovery-test-")) else {
            continue;
        };
        let Some((pid, _)) = rest.split_once('-') else { continue };
        if !Path::new("/proc").join(pid).exists() {
            remove(&entry.path());
        }
    }
}

/// Waits until something is so. Panics after a minute: other work may have the machine.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
