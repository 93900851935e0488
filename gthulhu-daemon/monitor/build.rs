//! Compiles the BPF programs and leaves the object in `OUT_DIR`, from where `load` embeds it.
//! embed them.
//!
//! Nothing is written into the source tree. The compiler is `$CLANG`, else the newest clang found. A published
//! package carries the object itself (`cargo xtask package` puts it there) and needs no compiler; `$CLANG` set
//! compiles all the same.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Only in packages, never in the repository: a copy of an object would not follow its source.
const PREBUILT: &str = "prebuilt";
const OBJECTS: [&str; 1] = ["monitor.bpf"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Plain `bpf` would be the byte order of the machine that compiles.
    let little = std::env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("big");
    for name in OBJECTS {
        let out = out.join(format!("{name}.o"));
        let prebuilt = Path::new(PREBUILT).join(format!("{name}.o"));
        if std::env::var_os("CLANG").is_none() && little && prebuilt.is_file() {
            if let Err(error) = std::fs::copy(&prebuilt, &out) {
                fail(&format!("cannot copy {} to {}: {error}", prebuilt.display(), out.display()));
            }
        } else {
            compile(&format!("bpf/{name}.c"), &out, little);
        }
    }
}

fn compile(source: &str, out: &Path, little: bool) {
    let clang = find_clang();
    let run = Command::new(&clang)
        // -g: the loader relocates by BTF. v3: 32-bit subregisters and fetching atomics (5.12).
        .args(["-target", if little { "bpfel" } else { "bpfeb" }, "-mcpu=v3", "-O2", "-g", "-std=gnu11"])
        // No path of this machine in what a package carries: the same source gives the same object anywhere.
        .arg("-fdebug-compilation-dir=.")
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"])
        .args(["-Wno-sign-compare", "-c", source, "-o"])
        .arg(out)
        .status();
    match run {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{clang} could not compile {source} ({status})")),
        Err(error) => fail(&format!("cannot run {clang}: {error}")),
    }
}

fn find_clang() -> String {
    if let Ok(named) = std::env::var("CLANG") {
        return named;
    }
    let candidates = (16..=22).rev().map(|n| format!("clang-{n}")).chain(["clang".to_owned()]);
    for candidate in candidates {
        if Command::new(&candidate).arg("--version").output().is_ok_and(|o| o.status.success()) {
            return candidate;
        }
    }
    fail("no clang found: install clang 16 or newer (Debian: clang-19), or set CLANG")
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    eprintln!("error: {message}");
    std::process::exit(1)
}
