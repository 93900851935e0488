//! A machine as its files show it.

use std::path::{Path, PathBuf};

use qumun::kernel::Features;

/// The files below a root.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
    /// What the kernel's type information says; tests cannot write such a file.
    pub(crate) features: Option<Features>,
}

impl System {
    /// The machine we run on.
    pub(crate) fn here() -> Self {
        Self::below(Path::new("/"))
    }

    /// The machine whose files are below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        let features = Features::read(&root.join("sys/kernel/btf/vmlinux")).ok();
        Self { root: root.to_owned(), features }
    }

    /// Where the files are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The text of a file, without white space at its ends. `None`: it is not there, or empty.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Names in a folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let folder = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        folder.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// `uname -r`.
    pub(crate) fn release(&self) -> String {
        self.read("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into())
    }

    /// Version and level, if the release begins with them.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let release = self.release();
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// A line of /proc/self/status, without its name.
    pub(crate) fn status(&self, name: &str) -> Option<String> {
        let status = self.read("proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Has this process a capability (a number of capability.h)?
    pub(crate) fn has_cap(&self, number: u32) -> bool {
        let effective = self.status("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        effective.is_some_and(|bits| bits >> number & 1 == 1)
    }

    /// A setting of the kernel's build, where its configuration is kept as text.
    pub(crate) fn config(&self, name: &str) -> Option<String> {
        let text = self.read(&format!("boot/config-{}", self.release()))?;
        let set = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        Some(set.unwrap_or_else(|| "n".into()))
    }
}

/// How many numbers a list such as `0-3,8` has, and the largest.
pub(crate) fn count_list(list: &str) -> (usize, Option<u32>) {
    let mut count = 0;
    let mut last = None;
    for part in list.split(',').filter(|part| !part.trim().is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<u32>(), to.trim().parse::<u32>()) {
            count += (to.saturating_sub(from) + 1) as usize;
            last = last.max(Some(to));
        }
    }
    (count, last)
}
