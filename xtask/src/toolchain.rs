//! The same code by other toolchains: `cargo xtask cross` for aarch64, `cargo xtask msrv` for the oldest Rust.

use crate::initramfs::{release_dir, workspace_root};
use crate::kernel::Cache;
use crate::setup;
use crate::ui::{Context, Result, capture, error, find_in_path, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// What is checked for it: the library with the loader of the core.
const CRATES: [&str; 4] = ["-p", "qumun", "-p", "qumun-bpf"];
/// The C library's headers for it. The compiler is the clang that the core needs anyway.
const SYSROOT: &str = "/usr/aarch64-linux-gnu/include";
/// Headers that libbpf includes and that say the same for every processor.
const HEADERS: [&str; 4] = ["libelf.h", "gelf.h", "zlib.h", "zconf.h"];
const HEADER_DIRS: [&str; 2] = ["/usr/include", "/usr/include/x86_64-linux-gnu"];

/// `cross`: libbpf, the core and the library for aarch64; compiled, not linked.
pub(crate) fn cross() -> Result<ExitCode> {
    let root = workspace_root()?;
    if find_in_path("rustup").is_none() {
        println!("skip cross - no rustup, so no standard library for {TARGET}");
        return Ok(ExitCode::SUCCESS);
    }
    let targets = capture(Command::new("rustup").args(["target", "list", "--installed"]).current_dir(&root))?;
    if !targets.lines().any(|line| line == TARGET) {
        say(format_args!("rustup target add {TARGET}"));
        run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(&root))?;
    }
    setup::ensure(setup::CROSS)?;
    let clang = setup::find_clang().ok_or_else(|| error("no clang: run `cargo xtask setup`"))?;
    let scratch = Cache::open()?.scratch()?;
    copy_headers(&scratch.0)?;
    // A stable place, or cargo would build libbpf anew for each new path in the flags.
    let headers = release_dir()?.with_file_name("cross-headers");
    let _ = fs::remove_dir_all(&headers);
    fs::create_dir_all(headers.with_file_name("")).cannot("make the target folder")?;
    copy_dir(&scratch.0, &headers)?;
    let flags = format!("--target=aarch64-linux-gnu -isystem {SYSROOT} -I{}", headers.display());
    let check = |target: &[&str]| {
        let mut check = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        check
            .current_dir(&root)
            .args(["check", "--quiet", "--message-format", "json"])
            .args(CRATES)
            .args(target);
        check.env("CC_aarch64_unknown_linux_gnu", &clang).env("CFLAGS_aarch64_unknown_linux_gnu", &flags);
        // libelf and zlib are linked only by programs; nobody is asked where they are.
        check.env("PKG_CONFIG_ALLOW_CROSS", "1");
        capture(&mut check)
    };
    say(format_args!("checking for {TARGET}"));
    let (there, here) = (check(&["--target", TARGET])?, check(&[])?);
    let object = |messages: &str| {
        let out =
            out_dir(messages, "qumun-bpf").ok_or_else(|| error("cargo told no OUT_DIR of qumun-bpf"))?;
        let object = out.join("core.bpf.o");
        fs::read(&object).cannot(format_args!("read {}", object.display()))
    };
    if object(&there)? != object(&here)? {
        return Err(error(
            "the core's object for aarch64 is not that for this machine: it depends on the processor",
        ));
    }
    println!("ok cross - qumun, qumun-bpf and libbpf compile for {TARGET}; the core's object is the same");
    Ok(ExitCode::SUCCESS)
}

fn copy_headers(to: &Path) -> Result<()> {
    for name in HEADERS {
        let from = HEADER_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
        let from = from.ok_or_else(|| error(format!("{name} is missing: run `cargo xtask setup`")))?;
        fs::copy(&from, to.join(name)).cannot(format_args!("copy {}", from.display()))?;
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).cannot(format_args!("make {}", to.display()))?;
    for file in fs::read_dir(from).cannot(format_args!("read {}", from.display()))?.flatten() {
        fs::copy(file.path(), to.join(file.file_name())).cannot("copy a header")?;
    }
    Ok(())
}

/// Where the build script of a crate has put its files, out of cargo's messages in JSON.
///
/// The line is `{"reason":"build-script-executed","package_id":"…#qumun-bpf@…", … ,"out_dir":"…"}`. Paths of ours
/// need no unescaping; one that does is not found.
pub(crate) fn out_dir(messages: &str, name: &str) -> Option<PathBuf> {
    let line = messages.lines().find(|line| {
        line.contains("\"reason\":\"build-script-executed\"")
            && (line.contains(&format!("/{name}#")) || line.contains(&format!("#{name}@")))
    })?;
    let (_, rest) = line.split_once("\"out_dir\":\"")?;
    rest.split('"').next().map(PathBuf::from).filter(|dir| dir.is_dir())
}

/// `msrv`: the workspace by the oldest Rust that it promises, where that is installed. Downloads nothing.
pub(crate) fn msrv() -> Result<ExitCode> {
    let root = workspace_root()?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).cannot("read Cargo.toml")?;
    let version = rust_version(&manifest).ok_or_else(|| error("Cargo.toml: no rust-version"))?;
    let list =
        find_in_path("rustup").and_then(|_| capture(Command::new("rustup").args(["toolchain", "list"])).ok());
    let Some(toolchain) = list.as_deref().and_then(|list| toolchain(list, version)) else {
        println!("skip msrv - Rust {version} is not installed (rustup toolchain install {version})");
        return Ok(ExitCode::SUCCESS);
    };
    say(format_args!("checking with Rust {version}"));
    let mut check = Command::new("rustup");
    check
        .args(["run", toolchain, "cargo", "check", "--quiet", "--workspace", "--all-targets"])
        .current_dir(root);
    // Set by the cargo above us, for its own compiler.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        check.env_remove(name);
    }
    run(&mut check)?;
    println!("ok msrv - the workspace compiles with Rust {version}");
    Ok(ExitCode::SUCCESS)
}

fn rust_version(manifest: &str) -> Option<&str> {
    let value = manifest.lines().find_map(|line| line.strip_prefix("rust-version"))?;
    value.split('"').nth(1)
}

/// `1.88-HOST` or `1.88.0-HOST`.
fn toolchain<'a>(list: &'a str, version: &str) -> Option<&'a str> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.into_iter().find(|name| {
        name.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_out_dir_is_that_of_the_crate() {
        let dir = std::env::temp_dir();
        let line = |id: &str, out: &str| {
            format!(
                "{{\"reason\":\"build-script-executed\",\"package_id\":\"{id}\",\"out_dir\":\"{out}\"}}\n"
            )
        };
        let ours = dir.display().to_string();
        let messages =
            line("registry+x#libc@0.2.1", "/nowhere") + &line("path+file:///w/qumun-bpf#0.1.0", &ours);
        assert_eq!(out_dir(&messages, "qumun-bpf"), Some(dir));
        assert_eq!(out_dir(&messages, "qumun"), None);
    }

    #[test]
    fn the_oldest_rust_is_found_by_its_number() {
        assert_eq!(rust_version("edition = \"2024\"\nrust-version = \"1.88\"\n"), Some("1.88"));
        let list =
            "stable-x86_64-unknown-linux-gnu (active, default)\n1.880.1-x\n1.88.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain(list, "1.88"), Some("1.88.0-x86_64-unknown-linux-gnu"));
        assert_eq!(toolchain("1.8-x\nstable-x\n", "1.88"), None);
    }
}
