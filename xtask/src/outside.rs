//! The proof that a scheduler can live outside of this workspace: `examples/out-of-tree`, and one that `new-scheduler`
//! makes, are built and tested as anybody's crate would be, and run in a guest (entry [`ENTRY`] of `lab test`).

use crate::initramfs::{release_dir, workspace_root};
use crate::new_scheduler;
use crate::ui::{Context, Result, error, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The entry of `lab test` that needs the program.
pub(crate) const ENTRY: &str = "out-of-tree";
/// The programs, which the guest has in `/bin`.
const MINE: &str = "mine";
const MADE: &str = "made-scheduler";

/// `outside`: builds them and runs their tests in simulated time.
pub(crate) fn outside() -> Result<ExitCode> {
    for folder in [out_of_tree()?, made()?] {
        say(format_args!("a crate outside of the workspace: {}: clippy, test, build", folder.display()));
        run(cargo(&folder)?.args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))?;
        run(cargo(&folder)?.args(["test", "--quiet"]))?;
    }
    build()?.iter().for_each(|(program, _)| println!("{}", program.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs for guests: each with its path there.
pub(crate) fn build() -> Result<Vec<(PathBuf, Option<String>)>> {
    let build = |folder: PathBuf, program: &str| {
        run(cargo(&folder)?.args(["build", "--quiet", "--release"]))?;
        let path = release_dir()?.join(program);
        if path.is_file() {
            return Ok((path, Some(format!("/bin/{program}"))));
        }
        let path = path.display();
        Err(error(format!(
            "cargo succeeded and left no {path}: is the crate's program still called {program}?"
        )))
    };
    Ok(vec![build(out_of_tree()?, MINE)?, build(made()?, MADE)?])
}

fn out_of_tree() -> Result<PathBuf> {
    Ok(workspace_root()?.join("examples/out-of-tree"))
}

/// A new crate, as `new-scheduler` makes it. Only its lock file stays from the last time.
fn made() -> Result<PathBuf> {
    let root = workspace_root()?;
    let folder = target()?.join("new-scheduler").join(MADE);
    let lock = fs::read(folder.join("Cargo.lock")).ok();
    if folder.is_dir() {
        fs::remove_dir_all(&folder).cannot(format_args!("remove {}", folder.display()))?;
    }
    new_scheduler::make(MADE, &folder, &root)?;
    if let Some(lock) = lock {
        fs::write(folder.join("Cargo.lock"), lock).cannot("keep the lock file")?;
    }
    Ok(folder)
}

fn target() -> Result<PathBuf> {
    let release = release_dir()?;
    Ok(release.parent().ok_or_else(|| error("no target folder"))?.to_path_buf())
}

/// Cargo in the crate's folder, with the workspace's own target folder: what both need is built once.
fn cargo(folder: &Path) -> Result<Command> {
    folder.metadata().cannot(format_args!("read {}", folder.display()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target()?);
    Ok(cargo)
}
