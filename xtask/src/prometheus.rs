//! Prometheus and promtool for the tests, which ask them about metrics, dashboards and rules.
//!
//! Unpacked into the cache and not installed: the package starts a server on all addresses, at the very port where
//! the daemon serves its metrics.

use crate::apt::World;
use crate::kernel::{Cache, Lock};
use crate::ui::{Context, Result, capture, error, find_in_path, say};
use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Fetches them unless they are there, in `PATH` or in the cache.
pub(crate) fn provide() -> Result<()> {
    if PROGRAMS.iter().all(|name| find_in_path(name).is_some()) {
        return Ok(());
    }
    let cache = Cache::open()?;
    let to = cache.dir("prometheus");
    if runs(&to) {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").cannot("read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename =
        codename.ok_or_else(|| error("/etc/os-release has no VERSION_CODENAME"))?.trim_matches('"');
    let world = World::open(&cache, "apt-prometheus", codename)?;
    let _lock = Lock::take(&cache.dir("apt-prometheus").join("lock"))?;
    if runs(&to) {
        return Ok(()); // Another xtask fetched them while we waited.
    }
    let scratch = cache.scratch()?;
    let root = scratch.0.join("root");
    world.update()?;
    world.unpack(&["prometheus".to_owned()], &scratch.0, &root)?;
    if !runs(&root) {
        return Err(error("the package prometheus has no programs that run here"));
    }
    let _ = fs::remove_dir_all(&to);
    // The two programs alone: its configuration, units and pages are for who installs it.
    fs::create_dir_all(to.join("usr/bin")).cannot("make a folder in the cache")?;
    for name in PROGRAMS {
        let file = Path::new("usr/bin").join(name);
        fs::rename(root.join(&file), to.join(&file)).cannot(format_args!("keep {name}"))?;
    }
    say(format_args!("prometheus and promtool are in {}", to.display()));
    Ok(())
}

fn runs(root: &Path) -> bool {
    let answers =
        |name: &str| capture(Command::new(root.join("usr/bin").join(name)).arg("--version")).is_ok();
    PROGRAMS.into_iter().all(answers)
}
