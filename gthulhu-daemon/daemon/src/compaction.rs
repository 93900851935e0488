//! The agent's locked pages stay in memory, but the kernel may still move them to make room for large blocks, and a
//! thread that touches a page under way faults and waits for the move. `vm.compact_unevictable_allowed` says
//! whether it may (Documentation/admin-guide/sysctl/vm.rst); the real-time kernel's default is 0 for the same reason.

use std::path::{Path, PathBuf};

const SYSCTL: &str = "/proc/sys/vm/compact_unevictable_allowed";

/// While it lives, locked pages stay where they are. Dropped, it puts the setting back as it was.
#[derive(Debug)]
pub(crate) struct LockedPagesStay {
    path: PathBuf,
    before: Option<String>,
}

impl LockedPagesStay {
    /// Sees to it, where the kernel has the setting and we may change it; `doctor` tells where not.
    pub(crate) fn begin() -> Self {
        Self::at(Path::new(SYSCTL))
    }

    fn at(path: &Path) -> Self {
        let now = std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let before = now.filter(|now| now != "0" && std::fs::write(path, "0").is_ok());
        Self { path: path.to_owned(), before }
    }

    /// Did it have to change the setting?
    pub(crate) fn changed(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for LockedPagesStay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(&self.path, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_changed_only_if_need_be_and_put_back() {
        let path = std::env::temp_dir().join(format!("compaction-{}", std::process::id()));
        let read = || std::fs::read_to_string(&path).expect("written by this test");
        std::fs::write(&path, "1\n").expect("a file");
        let stay = LockedPagesStay::at(&path);
        assert!(stay.changed() && read() == "0");
        assert!(!LockedPagesStay::at(&path).changed(), "it is 0 already");
        assert_eq!(read(), "0", "and who did not change it does not put it back");
        drop(stay);
        assert_eq!(read(), "1");
        std::fs::remove_file(&path).expect("the file");
        assert!(!LockedPagesStay::at(&path).changed(), "a kernel without the setting");
    }
}
