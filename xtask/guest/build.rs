//! Compiles the observer (bpf/observer.bpf.c) to BPF.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = find_clang();
    let little = std::env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("big");
    let run = Command::new(&clang)
        .args(["-target", if little { "bpfel" } else { "bpfeb" }, "-mcpu=v3", "-O2", "-g", "-std=gnu11"])
        .args(["-fdebug-compilation-dir=.", "-Wall", "-Wextra", "-Werror", "-c", "bpf/observer.bpf.c", "-o"])
        .arg(out.join("observer.bpf.o"))
        .status();
    match run {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{clang} could not compile bpf/observer.bpf.c ({status})")),
        Err(error) => fail(&format!("cannot run {clang}: {error}")),
    }
}

fn find_clang() -> String {
    if let Ok(named) = std::env::var("CLANG") {
        return named;
    }
    let mut candidates = (16..=22).rev().map(|n| format!("clang-{n}")).chain(["clang".to_owned()]);
    let works =
        |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    candidates.find(works).unwrap_or_else(|| fail("no clang found: install clang 16 or newer, or set CLANG"))
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1)
}
