//! Which QEMU to use: not every one survives a kernel that patches its own code while other CPUs run it.
//!
//! Before 8.1 a thread of QEMU could translate code that another was changing and keep the stale translation
//! (mended by "accel/tcg: Always lock pages before translation", deba78709a). A kernel changes its code whenever a static key is
//! switched, so when a sched_ext scheduler attaches, and dies with "Oops: int3". Measured here: 8 vCPUs on two
//! cores, 150 switches of a key under hackbench: 7.2 died in 5 of 6 runs, 10.0 in none of 6.

use crate::apt::World;
use crate::kernel::{Cache, Lock, Version};
use crate::ui::{Context, Result, capture, error, find_in_path, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "qemu-system-x86_64";
/// The first with the mend.
const SOUND: &str = "8.1";
const PACKAGES: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];

/// A QEMU that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where its firmware is, when it does not know by itself.
    firmware: Vec<PathBuf>,
    /// Whether several vCPU threads are safe in it.
    pub(crate) sound: bool,
}

impl Qemu {
    /// The system's, when it is sound; else the one of the system's backports, fetched once into the cache; else
    /// the system's all the same. `$GTHULHU_QEMU` names another.
    pub(crate) fn find(cache: &Cache) -> Result<Self> {
        let own = std::env::var_os("GTHULHU_QEMU").map(PathBuf::from);
        let program = own.or_else(|| find_in_path(PROGRAM));
        let program =
            program.ok_or_else(|| error(format!("{PROGRAM} is missing: run `cargo xtask setup`")))?;
        let mut system = Self { program, firmware: Vec::new(), sound: false };
        let version = system.version()?;
        system.sound = Some(&version) >= Version::leading(SOUND).as_ref();
        if system.sound {
            return Ok(system);
        }
        let dir = cache.dir("qemu");
        if let Some(cached) = Self::load(&dir) {
            return Ok(cached);
        }
        say(format_args!(
            "QEMU {version} is not safe with several vCPU threads, {SOUND} or later is; fetching one"
        ));
        fetch(cache, &dir).or_else(|e| {
            say(format_args!("{e}"));
            say(format_args!("going on with QEMU {version} and one thread for all vCPUs: sound, but slow"));
            Ok(system)
        })
    }

    /// The start of its command line.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.firmware.iter().for_each(|dir| {
            command.arg("-L").arg(dir);
        });
        command
    }

    /// Its version, as it says itself.
    pub(crate) fn version(&self) -> Result<Version> {
        let text = capture(self.command().arg("--version"))?;
        let word = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
        word.and_then(Version::leading)
            .ok_or_else(|| error(format!("{}: what version?", self.program.display())))
    }

    fn load(dir: &Path) -> Option<Self> {
        let share = dir.join("usr/share");
        let firmware = vec![share.join("qemu"), share.join("seabios")];
        let qemu = Self { program: dir.join("usr/bin").join(PROGRAM), firmware, sound: true };
        (qemu.version().ok()? >= Version::leading(SOUND)?).then_some(qemu)
    }
}

/// Debian's backports are built for this release, so their needs are met by the libraries of the system's QEMU.
fn fetch(cache: &Cache, to: &Path) -> Result<Qemu> {
    let release = fs::read_to_string("/etc/os-release").cannot("read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename =
        codename.ok_or_else(|| error("/etc/os-release has no VERSION_CODENAME"))?.trim_matches('"');
    let world = World::open(cache, "apt-qemu", &format!("{codename}-backports"))?;
    let _lock = Lock::take(&cache.dir("apt-qemu").join("lock"))?;
    if let Some(qemu) = Qemu::load(to) {
        return Ok(qemu); // Another xtask fetched it while we waited.
    }
    let scratch = cache.scratch()?;
    let root = scratch.0.join("root");
    world.update()?;
    world.unpack(&PACKAGES.map(String::from), &scratch.0, &root)?;
    let useless = || error("the QEMU of the backports is too old or lacks libraries");
    Qemu::load(&root).ok_or_else(useless)?;
    let _ = fs::remove_dir_all(to);
    fs::rename(&root, to).cannot(format_args!("keep {}", to.display()))?;
    Qemu::load(to).ok_or_else(useless)
}
