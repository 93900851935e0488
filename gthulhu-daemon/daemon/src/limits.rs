//! Limits of cgroups (`cpu.max`): how many there are, and how many of them nobody enforces.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qumun::kernel::wire::View;

/// One moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The core enforces those that it knows.
    pub(crate) enforced: bool,
    /// cgroups that have a limit.
    pub(crate) set: u64,
    /// Those of them in which nobody enforces it.
    pub(crate) unenforced: u64,
}

impl Limits {
    /// The core knows its own; the files are read only where that is not all.
    pub(crate) fn of(enforced: bool, view: &View, scan: &Scan) -> Self {
        if enforced && view.cgroups_untold == 0 {
            return Self { enforced, set: view.nr_limits, unenforced: 0 };
        }
        let set = scan.limits();
        let known = if enforced { view.nr_limits } else { 0 };
        Self { enforced, set: set.max(known), unenforced: set.saturating_sub(known) }
    }
}

/// Reads cgroupfs, and not again for each question.
#[derive(Debug)]
pub(crate) struct Scan {
    root: PathBuf,
    last: Cell<Option<(Instant, u64)>>,
}

/// How long a count is good.
const FRESH: Duration = Duration::from_secs(5);
/// The supervisor has other things to do: of more directories than this the rest is not read.
const MOST: usize = 20_000;

impl Default for Scan {
    fn default() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"))
    }
}

impl Scan {
    fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), last: Cell::new(None) }
    }

    /// cgroups that have a limit.
    fn limits(&self) -> u64 {
        if let Some((at, count)) = self.last.get()
            && at.elapsed() < FRESH
        {
            return count;
        }
        let count = count(&self.root);
        self.last.set(Some((Instant::now(), count)));
        count
    }
}

/// Without a message: cgroups come and go while they are read.
fn count(root: &Path) -> u64 {
    let (mut open, mut seen, mut limited) = (vec![root.to_owned()], 0, 0);
    while let Some(folder) = open.pop() {
        seen += 1;
        if seen > MOST {
            break;
        }
        let max = std::fs::read_to_string(folder.join("cpu.max")).unwrap_or_default();
        limited += u64::from(max.split_whitespace().next().is_some_and(|quota| quota != "max"));
        let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    limited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_counted_at_every_depth() {
        let root = std::env::temp_dir().join(format!("limits-{}", std::process::id()));
        for (folder, max) in
            [("a", "max 100000\n"), ("a/b", "50000 100000\n"), ("a/b/c", "1000 1000000\n"), ("d/e", "")]
        {
            std::fs::create_dir_all(root.join(folder)).expect("made");
            std::fs::write(root.join(folder).join("cpu.max"), max).expect("written");
        }
        let scan = Scan::below(&root);
        assert_eq!(scan.limits(), 2);
        std::fs::remove_dir_all(&root).expect("removed");
        assert_eq!(scan.limits(), 2, "a question soon after reads nothing");
        assert_eq!(Scan::below(&root).limits(), 0, "nothing there is no error");
    }
}
