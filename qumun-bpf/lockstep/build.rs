//! Compiles the C core for this machine, with a kernel of ours under it: native/core.c.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-changed=../bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = find_clang();
    let (object, library) = (out.join("core.o"), out.join("libcore_native.a"));
    run(Command::new(&clang)
        .args(["-O2", "-g", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"])
        .args(["-Wno-sign-compare", "-Wno-missing-field-initializers", "-c", "native/core.c", "-o"])
        .arg(&object));
    let _ = std::fs::remove_file(&library);
    run(Command::new("ar").arg("crs").arg(&library).arg(&object));
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=core_native");
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{command:?}: {status}")),
        Err(error) => fail(&format!("cannot run {command:?}: {error}")),
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
