//! Which kernels there are, which one is meant, and the cache that keeps them.
//!
//! `CACHE/kernels/VERSION/` holds `vmlinuz`, `config` where the package has one, and `VERSION`, the release as
//! `uname -r` says it. A folder of that form made by hand is used like any other; one that [`source`] built has a hash
//! of its configuration behind the version.

use crate::apt::{self, Release};
use crate::source;
use crate::ui::{Context, Error, Result, error, say};
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The series that stands for "the newest".
pub(crate) const NEWEST: &str = "7";

/// Numbers between dots, compared as numbers: 7.2.13 comes after 7.2.9.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(Vec<u32>);

impl Version {
    /// The numbers at the start of `text`, up to the first thing that is no number or dot.
    pub(crate) fn leading(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].split('.').map(|n| n.parse().ok()).collect::<Option<_>>().map(Self)
    }

    /// Whether this is of the series: 7.3.4 is of 7, of 7.3 and of 7.3.4.
    pub(crate) fn is_of(&self, series: &Self) -> bool {
        self.0.starts_with(&series.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
    }
}

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Such as 7.3.4.
    pub(crate) version: Version,
    /// Such as `7.3.4+deb13-cloud-amd64`.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// Its configuration: libbpf reads it for kconfig externs.
    pub(crate) config: Option<PathBuf>,
}

/// The folder outside the repository that keeps what is costly to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// `$GTHULHU_CACHE`, or `$XDG_CACHE_HOME/gthulhu`, or `~/.cache/gthulhu`.
    pub(crate) fn open() -> Result<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = var("GTHULHU_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("gthulhu")))
            .or_else(|| var("HOME").map(|d| d.join(".cache/gthulhu")))
            .ok_or_else(|| error("none of GTHULHU_CACHE, XDG_CACHE_HOME and HOME is set"))?;
        let root = std::path::absolute(root).cannot("tell the cache's path")?;
        fs::create_dir_all(&root).cannot(format_args!("make {}", root.display()))?;
        Ok(Self(root))
    }

    /// A folder in the cache; it need not exist.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// An empty folder of our own that goes when the guard goes. What dead processes left is removed.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let tmp = self.dir("tmp");
        fs::create_dir_all(&tmp).cannot(format_args!("make {}", tmp.display()))?;
        for old in fs::read_dir(&tmp).into_iter().flatten().flatten() {
            let name = old.file_name().to_string_lossy().into_owned();
            let pid = name.split('-').next().unwrap_or_default();
            if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        let own = (0..).map(|n| tmp.join(format!("{}-{n}", std::process::id())));
        for path in own {
            match fs::create_dir(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return made.cannot(format_args!("make {}", path.display())).map(|()| Scratch(path)),
            }
        }
        unreachable!("the numbers do not end")
    }
}

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A lock between processes, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read: closing it unlocks")] File);

impl Lock {
    /// Waits for the lock.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let what = format!("lock {}", path.display());
        let file = File::options().create(true).append(true).open(path).cannot(&what)?;
        // SAFETY: the descriptor is open for the whole call; flock touches no memory of ours.
        match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } {
            0 => Ok(Self(file)),
            _ => Err(std::io::Error::last_os_error()).cannot(&what),
        }
    }
}

/// All kernels in the cache, oldest first.
pub(crate) fn cached(cache: &Cache) -> Vec<Kernel> {
    let dirs = fs::read_dir(cache.dir("kernels")).into_iter().flatten().flatten();
    let mut all: Vec<Kernel> = dirs.filter_map(|dir| load(&dir.path())).collect();
    all.sort_by(|a, b| a.version.cmp(&b.version));
    all
}

/// The newest kernel of a series (or a version), from the cache if that has it, else from the archive.
pub(crate) fn get(cache: &Cache, wanted: &str) -> Result<Kernel> {
    let none =
        || error(format!("the archive has no kernel {wanted}; `cargo xtask lab kernel --list` shows all"));
    find(cache, wanted)?.ok_or_else(none)
}

/// The same; `None` when neither the cache nor the archive has one.
pub(crate) fn find(cache: &Cache, wanted: &str) -> Result<Option<Kernel>> {
    let series = parse(wanted)?;
    if source::is_built(&series) {
        return source::find(cache, &series);
    }
    let here = cached(cache).into_iter().rfind(|k| k.version.is_of(&series));
    if here.as_ref().is_some_and(|k| k.version == series) {
        return Ok(here); // One version cannot get newer.
    }
    let or_cached = |e: Error| match here.clone() {
        Some(kernel) => {
            say(format_args!("{e}"));
            say(format_args!("using the cached {}", kernel.version));
            Ok(Some(kernel))
        }
        None => Err(e),
    };
    if !apt::fresh(cache)
        && let Err(e) = apt::refresh(cache)
    {
        return or_cached(e);
    }
    let known = apt::known(cache);
    match known.iter().rfind(|r| r.version.is_of(&series)) {
        Some(best) if here.as_ref().is_none_or(|k| k.version < best.version) => {
            fetch(cache, best).map(Some).or_else(or_cached)
        }
        _ => Ok(here),
    }
}

/// A series as the user writes it.
pub(crate) fn parse(wanted: &str) -> Result<Version> {
    let series = Version::leading(wanted).filter(|v| v.to_string() == wanted && v.0.len() <= 3);
    series.ok_or_else(|| error(format!("{wanted:?} is not a kernel series (7.3) or version (7.2.13)")))
}

/// Downloads and unpacks into a scratch folder, then renames: a cached kernel is always whole.
fn fetch(cache: &Cache, release: &Release) -> Result<Kernel> {
    let scratch = cache.scratch()?;
    let (root, kept) = (scratch.0.join("root"), scratch.0.join("kept"));
    fs::create_dir_all(&kept).cannot("make a folder in the cache")?;
    apt::unpack(cache, release, &scratch.0, &root)?;
    let name = &release.name;
    for (file, must) in [("vmlinuz", true), ("config", false)] {
        let places = [format!("boot/{file}-{name}"), format!("usr/lib/modules/{name}/{file}")];
        match places.iter().map(|p| root.join(p)).find(|p| p.is_file()) {
            Some(from) => {
                fs::rename(&from, kept.join(file)).cannot(format_args!("keep {}", from.display()))?
            }
            None if must => return Err(error(format!("no {file} in {}", release.packages.join(", ")))),
            None => {}
        }
    }
    keep(cache, &kept, name, &release.version.to_string())
}

/// Puts a folder with `vmlinuz` and perhaps `config` among the kernels, under `folder`.
pub(crate) fn keep(cache: &Cache, kept: &Path, release: &str, folder: &str) -> Result<Kernel> {
    fs::write(kept.join("VERSION"), format!("{release}\n")).cannot("write VERSION")?;
    let to = cache.dir("kernels").join(folder);
    fs::create_dir_all(cache.dir("kernels")).cannot("make a folder in the cache")?;
    // If another xtask was faster the rename fails, and its result is as good.
    if let Err(e) = fs::rename(kept, &to)
        && load(&to).is_none()
    {
        return Err(e).cannot(format_args!("keep {}", to.display()));
    }
    load(&to).ok_or_else(|| error(format!("{} is incomplete", to.display())))
}

/// The kernel in a folder, whose name starts with its version.
pub(crate) fn load(dir: &Path) -> Option<Kernel> {
    let version = Version::leading(dir.file_name()?.to_str()?)?;
    let image = Some(dir.join("vmlinuz")).filter(|p| p.is_file())?;
    let release = fs::read_to_string(dir.join("VERSION")).map(|t| t.trim().to_string());
    let config = Some(dir.join("config")).filter(|p| p.is_file());
    Some(Kernel { release: release.unwrap_or_else(|_| version.to_string()), version, image, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_and_belong_to_series() {
        let v = |text: &str| Version::leading(text).unwrap();
        assert!(v("7.2.13+deb14-cloud-amd64") > v("7.2.9"));
        assert!(v("7.10") > v("7.9.99"));
        assert!(v("7.3.4").is_of(&v("7")) && v("7.3.4").is_of(&v("7.3")) && v("7.3.4").is_of(&v("7.3.4")));
        assert!(!v("7.30.1").is_of(&v("7.3")) && !v("7.3").is_of(&v("7.3.4")));
        assert_eq!(Version::leading("cloud-amd64"), None);
    }

    #[test]
    fn what_is_no_series_is_refused() {
        assert!(["7", "7.3", "7.3.4"].into_iter().all(|ok| parse(ok).is_ok()));
        assert!(["", "7.", "v7.3", "7.3-rc1", "7.3.4.5", "../7"].into_iter().all(|bad| parse(bad).is_err()));
    }

    #[test]
    fn an_interrupted_fetch_leaves_nothing_that_counts() {
        let root = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
        let cache = Cache(root.clone());
        let dir = cache.dir("kernels").join("7.3.4");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("VERSION"), "7.3.4+x\n").unwrap();
        assert!(cached(&cache).is_empty(), "a folder without an image is no kernel");
        fs::write(dir.join("vmlinuz"), "").unwrap();
        assert_eq!(cached(&cache)[0].release, "7.3.4+x");
        let (a, b) = (cache.scratch().unwrap(), cache.scratch().unwrap());
        assert_ne!(a.0, b.0);
        let path = a.0.clone();
        drop(a);
        assert!(!path.exists() && b.0.exists());
        fs::remove_dir_all(root).unwrap();
    }
}
