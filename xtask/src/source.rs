//! A kernel built from the distribution's source package, for a series whose binary packages have no sched_ext.
//!
//! The source comes by a private apt, is unpacked below the cache's `tmp` and built with `tinyconfig` and the
//! fragment of this repository. An interrupted build goes on where it was; a finished one is kept as
//! `kernels/VERSION-HASH`, where HASH is of the fragment, and its tree is removed.

use crate::apt::World;
use crate::kernel::{self, Cache, Kernel, Lock, Version};
use crate::setup;
use crate::ui::{Context, Result, capture, error, run, say};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The baseline of the design. Debian builds it without sched_ext.
const SERIES: &str = "6.12";
const PACKAGE: &str = "linux-source-6.12";
const SUITE: &str = "trixie";
const FRAGMENT: &str = include_str!("../kernel/6.12.fragment");
const FRAGMENT_PATH: &str = "xtask/kernel/6.12.fragment";

const PROGRESS: Duration = Duration::from_secs(5);
/// Lines of make's output in the error of a build that failed.
const LOG_LINES: usize = 30;
/// What a make above us, or a developer's shell, would impose on the kernel's.
const FOREIGN: &[&str] = &[
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "ARCH",
    "CROSS_COMPILE",
    "LLVM",
    "CC",
    "CFLAGS",
    "LDFLAGS",
    "KBUILD_OUTPUT",
    "KCONFIG_CONFIG",
    "KCONFIG_ALLCONFIG",
    "LOCALVERSION",
];

/// Whether kernels of this series (or this version) have to be built.
pub(crate) fn is_built(series: &Version) -> bool {
    Version::leading(SERIES).is_some_and(|ours| series.is_of(&ours))
}

/// A kernel of the series: one that was put into the cache by hand or built from the present fragment, else a new
/// build. A newer source alone is no reason to build for minutes; `6.12.N` asks for one version.
pub(crate) fn find(cache: &Cache, series: &Version) -> Result<Option<Kernel>> {
    if let Some(kernel) = cached(cache, series) {
        return Ok(Some(kernel));
    }
    let world = World::open(cache, "apt-source", SUITE)?;
    let _lock = Lock::take(&cache.dir("apt-source").join("lock"))?;
    if let Some(kernel) = cached(cache, series) {
        return Ok(Some(kernel)); // Another xtask built it while we waited.
    }
    world.update_daily()?;
    let versions = world.versions(PACKAGE)?;
    let fits = |v: &&String| Version::leading(v).is_some_and(|v| v.is_of(series));
    let Some(package_version) = versions.iter().find(fits) else { return Ok(None) };
    setup::ensure(setup::KERNEL_BUILD)?;
    let version = package_version.split('-').next().unwrap_or(package_version);
    let folder = format!("{version}-{}", hash(FRAGMENT));
    let tree = cache.dir("tmp").join(format!("linux-{folder}"));
    unpack(cache, &world, package_version, &tree)?;
    configure(&tree)?;
    build(&tree, version)?;
    let kernel = keep(cache, &tree, &folder)?;
    let _ = fs::remove_dir_all(&tree);
    Ok(Some(kernel))
}

/// The newest in the cache that is not of another fragment.
fn cached(cache: &Cache, series: &Version) -> Option<Kernel> {
    let ours = hash(FRAGMENT);
    let fits = |dir: &Path| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        name.split_once('-').is_none_or(|(_, hash)| hash == ours)
    };
    let dirs = fs::read_dir(cache.dir("kernels")).into_iter().flatten().flatten().map(|d| d.path());
    let kernels = dirs.filter(|dir| fits(dir)).filter_map(|dir| kernel::load(&dir));
    kernels.filter(|k| k.version.is_of(series)).max_by(|a, b| a.version.cmp(&b.version))
}

/// FNV-1a, 64 bits: a name for a content, not a seal.
fn hash(text: &str) -> String {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Renamed when whole: a tree that is there is complete.
fn unpack(cache: &Cache, world: &World, version: &str, tree: &Path) -> Result<()> {
    if tree.is_dir() {
        say(format_args!("going on with the build in {}", tree.display()));
        return Ok(());
    }
    let scratch = cache.scratch()?;
    let (root, new) = (scratch.0.join("root"), scratch.0.join("tree"));
    fs::create_dir_all(&new).cannot("make a folder in the cache")?;
    world.unpack(&[format!("{PACKAGE}={version}")], &scratch.0, &root)?;
    let archive = root.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    say(format_args!("unpacking {PACKAGE} {version}"));
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&new).arg("--strip-components=1"))?;
    fs::rename(&new, tree).cannot(format_args!("make {}", tree.display()))
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(tree).arg("ARCH=x86_64").env("LC_ALL", "C");
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("KBUILD_BUILD_USER", "lab").env("KBUILD_BUILD_HOST", "lab");
    command
}

/// `tinyconfig`, the fragment behind it (the last one counts), and what follows from both. Repeated on every
/// start: what has not changed is not compiled again.
fn configure(tree: &Path) -> Result<()> {
    let config = tree.join(".config");
    capture(make(tree).args(["-s", "tinyconfig"]))?;
    let tiny = fs::read_to_string(&config).cannot(format_args!("read {}", config.display()))?;
    fs::write(&config, format!("{tiny}\n{FRAGMENT}")).cannot(format_args!("write {}", config.display()))?;
    capture(make(tree).args(["-s", "olddefconfig"]))?;
    let got = fs::read_to_string(&config).cannot(format_args!("read {}", config.display()))?;
    match dropped(FRAGMENT, &got).as_slice() {
        [] => Ok(()),
        lost => Err(error(format!(
            "{FRAGMENT_PATH}: the kernel's configuration dropped {}; something they depend on is not in the fragment",
            lost.join(", ")
        ))),
    }
}

/// The settings of the fragment that the configuration does not have. What is to be off may be missing from it.
fn dropped<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let set: Vec<&str> = config.lines().collect();
    let is_lost = |line: &&str| match off(line) {
        Some(name) => set.iter().any(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
        None => line.starts_with("CONFIG_") && !set.contains(line),
    };
    fragment.lines().filter(is_lost).collect()
}

/// The option that a line switches off, as kconfig writes it.
fn off(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set").filter(|name| name.starts_with("CONFIG_"))
}

fn build(tree: &Path, version: &str) -> Result<()> {
    let log_path = tree.join("build.log");
    let log = File::create(&log_path).cannot(format_args!("write {}", log_path.display()))?;
    let errors = log.try_clone().cannot(format_args!("write {}", log_path.display()))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    say(format_args!(
        "building Linux {version} with {jobs} jobs; minutes, once. The log is {}",
        log_path.display()
    ));
    let mut command = make(tree);
    command.arg(format!("-j{jobs}")).arg("bzImage").stdin(Stdio::null()).stdout(log).stderr(errors);
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory.
    unsafe {
        // Or a killed xtask would leave a make behind that the next one's gets in the way of.
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().cannot("start make")?;
    let (start, mut told) = (Instant::now(), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().cannot("wait for make")? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(200));
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let text = fs::read(&log_path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let (objects, last) = progress(&text);
            say(format_args!(
                "Linux {version}: {:>4} s, {objects:>5} objects, {last}",
                start.elapsed().as_secs()
            ));
        }
    };
    if status.success() {
        say(format_args!("Linux {version} is built, after {} s", start.elapsed().as_secs()));
        return Ok(());
    }
    let text = fs::read(&log_path).map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    Err(error(format!("make bzImage failed ({status}); the end of {}:\n{end}", log_path.display())))
}

/// How many objects kbuild's output names so far, and what it is at.
fn progress(log: &str) -> (usize, &str) {
    let mut steps = log.lines().filter_map(|line| {
        let mut words = line.strip_prefix("  ")?.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    let objects = steps.clone().filter(|(_, what)| what.ends_with(".o")).count();
    (objects, steps.next_back().map_or("starting", |(_, what)| what))
}

fn keep(cache: &Cache, tree: &Path, folder: &str) -> Result<Kernel> {
    let release = capture(make(tree).args(["-s", "kernelrelease"]))?;
    let scratch = cache.scratch()?;
    let files: [(PathBuf, &str); 2] =
        [(tree.join("arch/x86/boot/bzImage"), "vmlinuz"), (tree.join(".config"), "config")];
    for (from, name) in files {
        fs::copy(&from, scratch.0.join(name)).cannot(format_args!("keep {}", from.display()))?;
    }
    kernel::keep(cache, &scratch.0, release.trim(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_lost_is_named() {
        let fragment = "# why\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_N=4\n";
        assert!(dropped(fragment, "CONFIG_A=y\nCONFIG_B=y\nCONFIG_N=4\nCONFIG_C=y\n").is_empty());
        assert_eq!(
            dropped(fragment, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=40\n"),
            ["CONFIG_B=y", "CONFIG_N=4"]
        );
        let fragment = "# CONFIG_T is not set\n";
        assert!(dropped(fragment, "CONFIG_TT=y\n").is_empty() && dropped(fragment, fragment).is_empty());
        assert_eq!(dropped(fragment, "CONFIG_T=y\n"), ["# CONFIG_T is not set"]);
    }

    #[test]
    fn the_fragment_is_made_of_settings() {
        let is_setting = |l: &str| l.starts_with("CONFIG_") && l.contains('=');
        assert!(FRAGMENT.lines().all(|l| l.is_empty() || l.starts_with('#') || is_setting(l)));
        assert!(FRAGMENT.contains("CONFIG_SCHED_CLASS_EXT=y"));
    }

    #[test]
    fn objects_are_counted_and_the_last_step_named() {
        let log =
            "  HOSTCC  scripts/sorttable\n  CC      a.o\nmake[1]: noise.o\n  AR      b.a\n  CC      c.o\n";
        assert_eq!(progress(log), (2, "c.o"));
        assert_eq!(progress(""), (0, "starting"));
    }

    #[test]
    fn only_the_baseline_is_built_and_another_fragment_is_another_kernel() {
        let v = |text| Version::leading(text).unwrap();
        assert!(
            is_built(&v("6.12")) && is_built(&v("6.12.107")) && !is_built(&v("6.1")) && !is_built(&v("6"))
        );
        assert_ne!(hash("a"), hash("b"));
        assert_eq!(hash(""), "cbf29ce484222325");
    }
}
