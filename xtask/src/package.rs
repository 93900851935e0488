//! `cargo xtask package`: the crates as they would be published, and the proof that they work for a stranger.
//!
//! The packages are made from a copy outside the repository, into which the compiled core is put, so that whoever
//! builds `qumun-bpf` needs no clang. The proof is a crate outside the workspace that depends on the packed files
//! alone and is built where no clang can be found; with `--guest` it then schedules a guest.

use crate::PackageArgs;
use crate::guest::{self, GuestSpec};
use crate::initramfs::workspace_root;
use crate::kernel::{self, Cache};
use crate::lab;
use crate::toolchain::out_dir;
use crate::ui::{Context, Result, capture, error, is_program, run, say};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// A crate that is published.
struct Published {
    name: &'static str,
    /// Where it is in the repository, and in the copy.
    folder: &'static str,
    /// What its build script compiles for the kernel.
    objects: &'static [&'static str],
}

/// What is published, in the order in which it is.
const CRATES: [Published; 3] = [
    Published { name: "qumun-bpf", folder: "qumun-bpf", objects: &["core.bpf.o", "recorder.bpf.o"] },
    Published { name: "qumun", folder: "qumun", objects: &[] },
    Published { name: "gthulhu-monitor", folder: "gthulhu-daemon/monitor", objects: &["monitor.bpf.o"] },
];
const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-GPL-2.0"];
const PREBUILT: &str = "prebuilt";
/// Crates that build or link C: not one may be below `qumun` without the feature `kernel`.
const C_BUILDERS: [&str; 5] = ["cc", "cmake", "pkg-config", "bindgen", "clang-sys"];
const PROOF_MAIN: &str = include_str!("../package/main.rs");
const PROOF: &str = "packaged-fifo";
/// The load alone takes ten seconds on a busy host.
const GUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Packs, proves, says where the packages are.
pub(crate) fn package(args: &PackageArgs) -> Result<ExitCode> {
    let root = workspace_root()?;
    let cache = Cache::open()?;
    let scratch = cache.scratch()?;
    let stage = scratch.0.join("stage");
    copy_sources(&root, &stage)?;
    CRATES.iter().filter(|c| !c.objects.is_empty()).try_for_each(|c| compile(&root, &stage, c))?;
    let packages = pack(&root, &stage)?;
    for package in &packages {
        let unpacked = capture(Command::new("tar").arg("-tzf").arg(package))?;
        let size = package.metadata().cannot("read a package")?.len();
        println!("{} {} files, {} KiB", package.display(), unpacked.lines().count(), size.div_ceil(1024));
    }
    let blind = blind_path(&scratch.0)?;
    prove_rust_alone(&root, &scratch.0, &blind)?;
    let program = prove_without_clang(&root, &scratch.0, &packages, &blind)?;
    if args.guest {
        return prove_in_guest(&cache, &args.kernel, program);
    }
    say("not run: --guest runs the scheduler in a guest");
    Ok(ExitCode::SUCCESS)
}

/// The workspace with no other member than the published ones.
fn copy_sources(root: &Path, stage: &Path) -> Result<()> {
    for Published { folder, .. } in CRATES {
        copy_tree(&root.join(folder), &stage.join(folder))?;
        for license in LICENSES {
            copy(&root.join(license), &stage.join(folder).join(license))?;
        }
    }
    copy(&root.join("Cargo.lock"), &stage.join("Cargo.lock"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).cannot("read Cargo.toml")?;
    let members = CRATES.map(|published| format!("\"{}\"", published.folder)).join(", ");
    let manifest = with_members(&manifest, &members)
        .ok_or_else(|| error("Cargo.toml: no `members = [` list to shorten for the package's copy"))?;
    fs::write(stage.join("Cargo.toml"), manifest).cannot("write the copy's Cargo.toml")
}

fn with_members(manifest: &str, members: &str) -> Option<String> {
    let (before, rest) = manifest.split_once("members = [")?;
    let (_, after) = rest.split_once(']')?;
    Some(format!("{before}members = [{members}]{after}"))
}

/// Compiles what the crate of the copy has for the kernel, as any build does, and puts the objects where the package's
/// build script looks for them.
fn compile(root: &Path, stage: &Path, published: &Published) -> Result<()> {
    let Published { name, folder, objects } = published;
    say(format_args!("compiling {} for {name}", objects.join(" and ")));
    let mut build = cargo(stage);
    // `check` runs build scripts too, which is all that is needed. In a target folder of its own: cargo takes the
    // copy's crates for the workspace's, and would leave the copy's object where theirs belongs.
    // Messages in JSON tell the build script's OUT_DIR; a stable place for it there is not.
    build.args(["check", "--quiet", "-p", name, "--message-format", "json"]);
    let messages = capture(build.env("CARGO_TARGET_DIR", stage.with_file_name("core")))?;
    let out = out_dir(&messages, name)
        .ok_or_else(|| error(format!("cargo did not tell the OUT_DIR of {name}'s build script")))?;
    let to = stage.join(folder).join(PREBUILT);
    fs::create_dir_all(&to).cannot("make a folder in the copy")?;
    for object in *objects {
        copy(&out.join(object), &to.join(object))?;
    }
    match root.join(folder).join(PREBUILT).exists() {
        true => Err(error(format!(
            "{folder}/{PREBUILT} is in the repository: remove it, it hides changes of the sources beside it"
        ))),
        false => Ok(()),
    }
}

/// Leaves the packages in `target/package/` and returns their paths.
fn pack(root: &Path, stage: &Path) -> Result<Vec<PathBuf>> {
    say("packing");
    let target = stage.with_file_name("packed");
    let mut package = cargo(stage);
    // Not verified here: the proofs build the packed files, and without a compiler.
    package.args(["package", "--quiet", "--allow-dirty", "--no-verify"]);
    CRATES.iter().for_each(|published| {
        package.args(["-p", published.name]);
    });
    run(package.env("CARGO_TARGET_DIR", &target))?;
    let folder = root.join("target/package");
    fs::create_dir_all(&folder).cannot(format_args!("make {}", folder.display()))?;
    let made = fs::read_dir(target.join("package")).cannot("read what cargo packed")?;
    let made: Vec<PathBuf> = made.flatten().map(|f| f.path()).collect();
    CRATES
        .iter()
        .map(|Published { name, .. }| {
            let from = made.iter().find(|path| is_package_of(path, name));
            let from = from.ok_or_else(|| error(format!("cargo packed no {name}")))?;
            let to = folder.join(from.file_name().unwrap_or_default());
            copy(from, &to).map(|()| to)
        })
        .collect()
}

/// `NAME-VERSION.crate`; a name may be the start of another.
fn is_package_of(path: &Path, name: &str) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let version = file.strip_suffix(".crate").and_then(|f| f.strip_prefix(name)?.strip_prefix('-'));
    version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
}

/// A folder with a link to each program of PATH but compilers of BPF: what a machine without clang has.
fn blind_path(scratch: &Path) -> Result<PathBuf> {
    let bin = scratch.join("bin");
    fs::create_dir_all(&bin).cannot("make a folder in the cache")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    for dir in std::env::split_paths(&path) {
        for program in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = program.file_name();
            let is_clang =
                ["clang", "llvm", "llc"].iter().any(|c| name.to_string_lossy().to_lowercase().contains(c));
            if !is_clang && is_program(&program.path()) {
                // An earlier folder of PATH goes first: a second link to the same name fails, as it should.
                let _ = symlink(program.path(), bin.join(name));
            }
        }
    }
    let named = (1..100).map(|n| format!("clang-{n}")).chain(["clang".into()]);
    match named.into_iter().find(|name| Command::new(name).env("PATH", &bin).output().is_ok()) {
        Some(name) => Err(error(format!("{name} can still be started, so nothing would be proven"))),
        None => Ok(bin),
    }
}

/// `qumun` without the feature `kernel` builds where there is no C compiler, and nothing below it wants one.
fn prove_rust_alone(root: &Path, scratch: &Path, bin: &Path) -> Result<()> {
    let features = ["-p", "qumun", "--no-default-features", "--features", "sim"];
    let tree = capture(cargo(root).args(["tree", "--prefix", "none", "-e", "normal,build"]).args(features))?;
    if let Some(wanting) = wants_c(&tree) {
        return Err(error(format!("qumun with `sim` alone depends on {wanting}, which builds or links C")));
    }
    let mut build = cargo(root);
    build.args(["build", "--quiet"]).args(features).env("CARGO_TARGET_DIR", scratch.join("rust-alone"));
    build.env("PATH", bin).env("CC", "/bin/false").env("CXX", "/bin/false").env("PKG_CONFIG", "/bin/false");
    run(build.env_remove("CLANG"))?;
    println!(
        "ok rust-alone - qumun with `sim` alone: no C below it ({} crates), built without",
        tree.lines().count()
    );
    Ok(())
}

/// The first crate of a `cargo tree` without prefixes that builds or links C.
fn wants_c(tree: &str) -> Option<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.into_iter().find(|name| name.ends_with("-sys") || C_BUILDERS.contains(name))
}

/// Builds a scheduler on the packed crates alone, without any clang, and returns the program.
fn prove_without_clang(root: &Path, scratch: &Path, packages: &[PathBuf], bin: &Path) -> Result<PathBuf> {
    say("building a scheduler and a monitor on the packages, without clang");
    let home = scratch.join("stranger");
    fs::create_dir_all(home.join("src")).cannot("make a folder in the cache")?;
    let mut patches = String::new();
    for (Published { name, .. }, package) in CRATES.iter().zip(packages) {
        run(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(&home))?;
        let folder = package.file_stem().unwrap_or_default().to_string_lossy();
        patches.push_str(&format!("{name} = {{ path = \"{folder}\" }}\n"));
    }
    let manifest = format!(
        "[package]\nname = \"{PROOF}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [dependencies]\ngthulhu-monitor = \"0.1\"\nqumun = \"0.1\"\n\n[patch.crates-io]\n{patches}\n[workspace]\n"
    );
    fs::write(home.join("Cargo.toml"), manifest).cannot("write a Cargo.toml")?;
    fs::write(home.join("src/main.rs"), PROOF_MAIN).cannot("write a main.rs")?;
    // The versions that were tested; and offline, for the packages are not published under these names yet.
    copy(&root.join("Cargo.lock"), &home.join("Cargo.lock"))?;
    let mut build = cargo(&home);
    build.args(["build", "--quiet", "--offline"]).env("CARGO_TARGET_DIR", scratch.join("stranger-target"));
    run(build.env("PATH", bin).env_remove("CLANG"))?;
    let program = scratch.join("stranger-target/debug").join(PROOF);
    println!(
        "ok no-clang - {PROOF} built on {} without clang",
        CRATES.map(|published| published.name).join(", ")
    );
    Ok(program)
}

fn prove_in_guest(cache: &Cache, wanted: &str, program: PathBuf) -> Result<ExitCode> {
    let spec = GuestSpec {
        timeout: GUEST_TIMEOUT,
        files: vec![(program, None)],
        ..GuestSpec::new(kernel::get(cache, wanted)?)
    };
    let mut passed = false;
    let outcome = guest::run(&spec, &[PROOF.into()], &mut |line| {
        println!("{} | {line}", spec.kernel.version);
        passed |= line.starts_with("ok ");
    })?;
    let code = lab::report(&spec, &outcome);
    if code == 0 && !passed {
        return Err(error("the guest said nothing that counts as passed"));
    }
    Ok(ExitCode::from(code))
}

/// Our cargo, in `folder`, without what the cargo above us set for this crate.
fn cargo(folder: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(folder);
    command
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).cannot(format_args!("copy {} to {}", from.display(), to.display())).map(drop)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).cannot(format_args!("make {}", to.display()))?;
    for file in fs::read_dir(from).cannot(format_args!("read {}", from.display()))?.flatten() {
        let (path, to) = (file.path(), to.join(file.file_name()));
        match path.is_dir() {
            true => copy_tree(&path, &to)?,
            false => copy(&path, &to)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_published_members_stay() {
        let manifest = "[workspace]\nmembers = [\n    \"a\",\n    \"b\",\n]\n[x]\ny = [1]\n";
        let got = with_members(manifest, "\"a\"").unwrap();
        assert_eq!(got, "[workspace]\nmembers = [\"a\"]\n[x]\ny = [1]\n");
        assert_eq!(with_members("[package]\n", "\"a\""), None);
    }

    #[test]
    fn a_package_belongs_to_one_crate() {
        let is = |file: &str, name: &str| is_package_of(Path::new(file), name);
        assert!(is("/p/qumun-0.1.0.crate", "qumun") && is("/p/qumun-bpf-0.1.0.crate", "qumun-bpf"));
        assert!(!is("/p/qumun-bpf-0.1.0.crate", "qumun") && !is("/p/qumun-0.1.0", "qumun"));
    }

    #[test]
    fn a_crate_that_wants_c_is_seen() {
        assert_eq!(wants_c("qumun v0.1.0 (/x)\nlibc v0.2\n"), None);
        assert_eq!(wants_c("qumun v0.1.0\nlibbpf-sys v1.7\n"), Some("libbpf-sys"));
        assert_eq!(wants_c("qumun v0.1.0\ncc v1.2\n"), Some("cc"));
    }
}
