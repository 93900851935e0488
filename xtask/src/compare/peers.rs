//! Schedulers of others, as crates.io has them: what ours are compared with.

use crate::kernel::{Cache, Lock};
use crate::setup::{self, Packages};
use crate::ui::{Context, Result, error, is_program, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One version for everybody: another one is another opponent. Built here, never changed; both are GPL-2.0-only, so
/// nothing of them is in this repository or in what it publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Of crate and program, and of the scheduler in the guest's table.
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

pub(super) const PEERS: &[Peer] =
    &[Peer { name: "scx_bpfland", version: "1.1.4" }, Peer { name: "scx_rustland", version: "1.1.4" }];

const BUILD: Packages = &[
    ("gcc", "the peers: linking, libbpf"),
    ("make", "the peers: libbpf"),
    ("pkg-config", "the peers: finding libraries"),
    ("libelf-dev", "the peers: libbpf"),
    ("zlib1g-dev", "the peers: libbpf"),
    ("libseccomp-dev", "the peers: scx_rustland"),
];

/// The program of each peer, or why there is none. What is not in the cache is built: some minutes, once.
pub(super) fn programs(cache: &Cache, wanted: &[&str]) -> Vec<(Peer, Result<PathBuf>)> {
    let all = PEERS.iter().filter(|peer| wanted.contains(&peer.name));
    all.map(|peer| (*peer, program(cache, peer))).collect()
}

fn program(cache: &Cache, peer: &Peer) -> Result<PathBuf> {
    let Peer { name, version } = peer;
    let peers = cache.dir("peers");
    let kept = peers.join(format!("{name}-{version}"));
    let program = kept.join("bin").join(name);
    if is_program(&program) {
        return Ok(program);
    }
    fs::create_dir_all(&peers).cannot(format_args!("make {}", peers.display()))?;
    let _lock = Lock::take(&peers.join("lock"))?;
    if is_program(&program) {
        return Ok(program); // Another xtask built it while we waited.
    }
    setup::ensure(BUILD)?;
    say(format_args!("building {name} {version} of crates.io; this takes some minutes, once"));
    let scratch = cache.scratch()?;
    let root = scratch.0.join("root");
    let what = format!("{name}@{version}");
    run(cargo(&scratch.0).args(["install", "--quiet", "--locked", "--root"]).arg(&root).arg(&what))
        .map_err(|e| error(format!("{what} of crates.io cannot be built (its messages are above): {e}")))?;
    let _ = fs::remove_dir_all(&kept);
    fs::rename(&root, &kept).cannot(format_args!("keep {}", kept.display()))?;
    if is_program(&program) { Ok(program) } else { Err(error(format!("{what} has no program {name}"))) }
}

/// Away from the workspace, whose configuration is not theirs.
fn cargo(scratch: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(scratch).env("CARGO_TARGET_DIR", scratch.join("target")).env_remove("RUSTFLAGS");
    if let Some(clang) = setup::find_clang() {
        cargo.env("BPF_CLANG", clang);
    }
    cargo
}
