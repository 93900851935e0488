//! `cargo xtask setup`: from a bare Debian to one that builds and tests everything.

use crate::ui::{Result, capture, error, find_in_path, is_root, run, say};
use std::process::{Command, ExitCode};

/// Package and what needs it.
pub(crate) type Packages = &'static [(&'static str, &'static str)];

/// What the build and the tests need. The C compiler for BPF is apart, see [`CLANG`].
const PACKAGES: Packages = &[
    ("gcc", "linking, libbpf"),
    ("make", "building libbpf"),
    ("pkg-config", "finding libelf"),
    ("libelf-dev", "libbpf"),
    ("zlib1g-dev", "libbpf"),
    ("libhwloc-dev", "qumun's feature hwloc"),
    ("libudev-dev", "libhwloc, linked"),
    ("qemu-system-x86", "the lab's guests"),
    ("busybox-static", "the guests' user space"),
    ("stress-ng", "load in tests"),
    ("rt-tests", "hackbench and cyclictest"),
    ("xz-utils", "unpacking kernels"),
    ("ca-certificates", "fetching"),
];

/// What it takes to build a kernel from source; installed when one is to be built, not before.
pub(crate) const KERNEL_BUILD: Packages = &[
    ("gcc", "the kernel"),
    ("make", "the kernel"),
    ("flex", "the kernel's configuration"),
    ("bison", "the kernel's configuration"),
    ("bc", "the kernel's constants"),
    ("libelf-dev", "objtool, BTF"),
    ("pahole", "BTF"),
    ("xz-utils", "unpacking the source"),
];

/// What it takes to compile C for aarch64 beside a clang.
pub(crate) const CROSS: Packages = &[
    ("libc6-dev-arm64-cross", "headers of the C library for aarch64"),
    ("libelf-dev", "libbpf"),
    ("zlib1g-dev", "libbpf"),
];

/// The compiler of the BPF core: this one, or any from [`CLANG_AT_LEAST`] on.
const CLANG: &str = "clang-19";
const CLANG_AT_LEAST: u32 = 16;

/// Installs what is missing, or only says what is (`check`).
pub(crate) fn setup(check: bool) -> Result<ExitCode> {
    let mut missing = missing_of(PACKAGES);
    if !has_clang() {
        say(format_args!("missing: {CLANG} or any clang >= {CLANG_AT_LEAST} (the BPF core)"));
        missing.push(CLANG);
    }
    if !missing.is_empty() {
        provide(PACKAGES, missing, if check { "run `cargo xtask setup`, or " } else { "" })?;
        let left = missing_of(PACKAGES);
        if !left.is_empty() || !has_clang() {
            return Err(error(format!(
                "still missing after the installation: {} (clang: {})",
                left.join(" "),
                has_clang()
            )));
        }
        say("all is there");
    }
    // Only tests want it, and they say that they were skipped.
    if !check && let Err(e) = crate::prometheus::provide() {
        say(format_args!("no prometheus: {e}; the tests that ask it are skipped"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs those of `packages` that are missing: for work that few people ask for.
pub(crate) fn ensure(packages: Packages) -> Result<()> {
    let missing = missing_of(packages);
    if missing.is_empty() {
        return Ok(());
    }
    provide(packages, missing, "")?;
    match missing_of(packages).as_slice() {
        [] => Ok(()),
        left => Err(error(format!("still missing after the installation: {}", left.join(" ")))),
    }
}

/// Installs `missing`; with a `hint`, which then starts the error, only says what it would install.
fn provide(packages: Packages, missing: Vec<&str>, hint: &str) -> Result<()> {
    for (name, what) in packages.iter().filter(|(name, _)| missing.contains(name)) {
        say(format_args!("missing: {name} ({what})"));
    }
    let by_hand = format!("as root: apt-get update && apt-get install {}", missing.join(" "));
    if !hint.is_empty() {
        return Err(error(format!("{hint}{by_hand}")));
    }
    if find_in_path("apt-get").is_none() {
        return Err(error(format!("this is not a Debian; install what it calls: {}", missing.join(" "))));
    }
    let Some(prefix) = become_root() else {
        return Err(error(format!("not root, and sudo is not there or asks for a password; {by_hand}")));
    };
    install(prefix, missing)
}

fn install(prefix: &[&str], mut missing: Vec<&str>) -> Result<()> {
    let root = |command: &[&str]| {
        let words = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive"], command].concat();
        let mut c = Command::new(words[0]);
        c.args(&words[1..]);
        c
    };
    // An earlier setup may have been interrupted between unpacking and configuring.
    if !capture(Command::new("dpkg").arg("--audit"))?.trim().is_empty() {
        say("dpkg --configure -a");
        run(&mut root(&["dpkg", "--configure", "-a"]))?;
    }
    say("apt-get update");
    if let Err(e) = run(&mut root(&["apt-get", "update", "-qq"])) {
        say(format_args!("{e}; going on with the package lists that are there"));
    }
    if missing.last() == Some(&CLANG) && capture(Command::new("apt-cache").args(["show", CLANG])).is_err() {
        say(format_args!("{CLANG} is not in this suite; taking clang"));
        missing.pop();
        missing.push("clang");
    }
    say(format_args!("apt-get install {}", missing.join(" ")));
    let options =
        ["-y", "-qq", "--no-install-recommends", "-oDPkg::Lock::Timeout=300", "-oAcquire::Retries=3"];
    run(&mut root(&[&["apt-get", "install"], &options[..], &missing].concat()))
}

/// What must stand before a command that root runs; `None` when root is out of reach without a question.
fn become_root() -> Option<&'static [&'static str]> {
    if is_root() {
        return Some(&[]);
    }
    capture(Command::new("sudo").args(["-n", "true"])).ok().map(|_| &["sudo", "-n"][..])
}

fn missing_of(packages: Packages) -> Vec<&'static str> {
    let names = packages.iter().map(|(name, _)| *name);
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(names.clone())
        .output();
    // It fails when one is unknown, and still prints the others.
    let known = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    names.filter(|name| !known.lines().any(|line| line.strip_prefix(name) == Some(" installed"))).collect()
}

fn has_clang() -> bool {
    find_clang().is_some()
}

/// The newest clang that is new enough, by the name to start it.
pub(crate) fn find_clang() -> Option<String> {
    let numbered =
        (CLANG_AT_LEAST..100).rev().map(|n| format!("clang-{n}")).find(|c| find_in_path(c).is_some());
    let plain = || {
        let version = capture(Command::new("clang").arg("-dumpversion")).ok()?;
        let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok())?;
        (major >= CLANG_AT_LEAST).then(|| "clang".to_string())
    };
    numbered.or_else(plain)
}
