//! The proof that a scheduler can live outside of this workspace: `examples/out-of-tree` is built and tested as
//! anybody's crate would be, and its daemon runs in a guest (entry [`ENTRY`] of `lab test`).

use crate::initramfs::{release_dir, workspace_root};
use crate::ui::{Context, Result, error, run, say};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The entry of `lab test` that needs the program.
pub(crate) const ENTRY: &str = "out-of-tree";
/// The program, and where it is in the guest.
const PROGRAM: &str = "mine";
pub(crate) const GUEST_PATH: &str = "/bin/mine";

/// `outside`: builds it and runs its tests on the in-process backend.
pub(crate) fn outside() -> Result<ExitCode> {
    say("a crate outside of the workspace: clippy, test, build");
    run(cargo()?.args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo()?.args(["test", "--quiet"]))?;
    println!("{}", build()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the program for guests.
pub(crate) fn build() -> Result<PathBuf> {
    run(cargo()?.args(["build", "--quiet", "--release"]))?;
    let program = release_dir()?.join(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    Err(error(format!(
        "cargo succeeded and left no {}: is the crate's program still called {PROGRAM}?",
        program.display()
    )))
}

/// Cargo in the crate's folder, with the workspace's own target folder: what both need is built once.
fn cargo() -> Result<Command> {
    let release = release_dir()?;
    let target = release.parent().ok_or_else(|| error("no target folder"))?;
    let folder = workspace_root()?.join("examples/out-of-tree");
    folder.metadata().cannot(format_args!("read {}", folder.display()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target);
    Ok(cargo)
}
