//! Compiles the C core to BPF and leaves the object in `OUT_DIR`, from where `loader` embeds it.
//!
//! Nothing is written into the source tree. The compiler is `$CLANG`, else the newest clang found.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_LOADER").is_none() {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("core.bpf.o");
    let clang = find_clang();
    let run = Command::new(&clang)
        // -g: the loader relocates by BTF. v3: 32-bit subregisters and fetching atomics (5.12).
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"])
        .args(["-Wno-sign-compare", "-c", "bpf/core.bpf.c", "-o"])
        .arg(&out)
        .status();
    match run {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{clang} could not compile bpf/core.bpf.c ({status})")),
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
