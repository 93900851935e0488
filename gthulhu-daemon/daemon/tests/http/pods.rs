//! Pods made by hand: cgroups where the kubelet would have them, and a process in each.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait_for;

/// A pod with one container, whose process sleeps and wakes up all the time. Gone when dropped.
pub(crate) struct HandMade {
    pub(crate) uid: String,
    pub(crate) container: String,
    process: Child,
    /// From the pod inwards.
    folders: Vec<PathBuf>,
}

impl HandMade {
    /// `None` where cgroups cannot be made: then a line says why.
    pub(crate) fn new(command: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-1111-2222-3333-{number:012x}", std::process::id());
        let container = format!("{:032x}{number:032x}", std::process::id());
        let mut folders = Vec::new();
        for mount in mounts() {
            let pod = mount.join(format!("kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_")));
            let inner = pod.join(format!("cri-containerd-{container}.scope"));
            if let Err(error) = fs::create_dir_all(&inner) {
                println!("skip: cannot make {} ({error})", inner.display());
                return None;
            }
            folders.extend([pod, inner]);
        }
        // It waits until it is where it belongs: what it starts before would be elsewhere.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("read -r go; {command}")]).stdin(Stdio::piped()).stdout(Stdio::null());
        let process = shell.spawn().expect("started");
        let mut made = Self { uid, container, process, folders };
        for scope in made.folders.iter().skip(1).step_by(2) {
            fs::write(scope.join("cgroup.procs"), made.process.id().to_string()).expect("moved");
        }
        let go = made.process.stdin.take().map(|mut stdin| stdin.write_all(b"go\n"));
        go.expect("piped").expect("written");
        (!made.folders.is_empty()).then_some(made)
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        for pid in self.folders.iter().flat_map(|folder| fs::read_to_string(folder.join("cgroup.procs"))) {
            for pid in pid.lines().filter_map(|pid| pid.parse().ok()) {
                // SAFETY: no pointer is passed; the process is one of ours, in a group of ours.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let _ = self.process.wait();
        for folder in self.folders.iter().rev() {
            // Children of the process may be there for a moment; its sleep is short.
            wait_for("an empty cgroup", || {
                (!folder.exists() || fs::remove_dir(folder).is_ok()).then_some(())
            });
        }
        // What other tests still have is not empty.
        for mount in mounts() {
            let _ = fs::remove_dir(mount.join("kubepods.slice"));
        }
    }
}

/// Where a monitor may look: version 2, and the hierarchy of version 1 that has the controller cpu.
fn mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let of = |line: &str| {
        let (at, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let wanted = match kind.next()? {
            "cgroup2" => true,
            "cgroup" => kind.nth(1)?.split(',').any(|option| option == "cpu"),
            _ => false,
        };
        wanted.then(|| PathBuf::from(at.split(' ').nth(4).unwrap_or_default()))
    };
    text.lines().filter_map(of).collect()
}
