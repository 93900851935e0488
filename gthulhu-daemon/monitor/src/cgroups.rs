//! From a cgroup's number to its path.
//!
//! The number is the inode of its folder. The kernel opens a folder by that (`open_by_handle_at`, with the handle that
//! kernfs exports: the number alone); where this process may not, the tree is searched.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// Which tree of cgroups says what a task's group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hierarchy {
    /// That of version 2 where it is mounted and holds a group, else the `cpu` tree of version 1.
    #[default]
    Auto,
    /// Version 2, also beside version 1 ("hybrid", usually `/sys/fs/cgroup/unified`).
    V2,
    /// The tree of version 1 that has the controller `cpu`.
    V1Cpu,
}

/// A mounted tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    folder: File,
    pub(crate) v1: bool,
}

impl Tree {
    pub(crate) fn find(hierarchy: Hierarchy, root: Option<&Path>) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| Error::new(ErrorKind::System, "cannot read /proc/self/mountinfo").because(e))?;
        let mounted = |v1: bool| mounts.lines().find_map(|line| mount_point(line, v1));
        let (path, v1) = match (hierarchy, root) {
            (Hierarchy::V1Cpu, Some(root)) => (root.to_owned(), true),
            (_, Some(root)) => (root.to_owned(), false),
            (Hierarchy::V2, None) => (mounted(false).ok_or_else(|| missing("version 2"))?, false),
            (Hierarchy::V1Cpu, None) => {
                (mounted(true).ok_or_else(|| missing("the controller cpu, version 1"))?, true)
            }
            (Hierarchy::Auto, None) => match (mounted(false), mounted(true)) {
                (Some(v2), Some(v1)) if !has_folder(&v2) && has_folder(&v1) => (v1, true),
                (Some(v2), _) => (v2, false),
                (None, Some(v1)) => (v1, true),
                (None, None) => return Err(missing("either version")),
            },
        };
        let folder = File::open(&path).map_err(|e| {
            Error::new(ErrorKind::NoCgroups, format!("cannot open the cgroups at {}", path.display()))
                .because(e)
        })?;
        Ok(Self { root: path, folder, v1 })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Is the group with this number still where it was?
    pub(crate) fn is_at(&self, id: u64, path: &str) -> bool {
        fs::metadata(self.folder_of(path)).is_ok_and(|folder| folder.ino() == id)
    }

    fn folder_of(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The paths of these groups, from the root of the tree. Those that are not there any more are left out.
    pub(crate) fn paths(&self, ids: &[u64]) -> HashMap<u64, String> {
        let mut found = HashMap::new();
        for &id in ids {
            match self.by_handle(id) {
                Ok(Some(path)) => drop(found.insert(id, path)),
                Ok(None) => {}
                Err(_) => {
                    let wanted: std::collections::HashSet<u64> = ids.iter().copied().collect();
                    self.search(&self.root, &wanted, &mut found);
                    return found;
                }
            }
        }
        found
    }

    fn search(&self, at: &Path, wanted: &std::collections::HashSet<u64>, found: &mut HashMap<u64, String>) {
        if let Ok(folder) = fs::metadata(at)
            && wanted.contains(&folder.ino())
        {
            found.insert(folder.ino(), self.name(at));
        }
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.search(&entry.path(), wanted, found);
            }
        }
    }

    fn name(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        format!("/{}", below.display())
    }

    /// `None`: there is no such group any more. An error: this way is closed to us.
    fn by_handle(&self, id: u64) -> std::io::Result<Option<String>> {
        /// FILEID_KERNFS (include/linux/exportfs.h).
        const KERNFS: libc::c_int = 0xfe;
        #[repr(C)]
        struct Handle {
            bytes: libc::c_uint,
            kind: libc::c_int,
            id: [u8; 8],
        }
        let mut handle = Handle { bytes: 8, kind: KERNFS, id: id.to_ne_bytes() };
        // SAFETY: the handle is a struct file_handle with its 8 bytes; the call only reads it.
        let fd = unsafe {
            libc::open_by_handle_at(
                self.folder.as_raw_fd(),
                std::ptr::from_mut(&mut handle).cast(),
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ESTALE | libc::ENOENT) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: just opened, and nobody else's.
        let folder = unsafe { File::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
        // A group that was removed while it was open.
        if path.as_os_str().to_string_lossy().ends_with(" (deleted)") || !path.starts_with(&self.root) {
            return Ok(None);
        }
        Ok(Some(self.name(&path)))
    }
}

fn missing(which: &str) -> Error {
    let what = format!(
        "no cgroups of {which} are mounted here (/proc/self/mountinfo); mount them, for example: \
         mount -t cgroup2 none /sys/fs/cgroup"
    );
    Error::new(ErrorKind::NoCgroups, what)
}

fn has_folder(path: &Path) -> bool {
    fs::read_dir(path)
        .is_ok_and(|dir| dir.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
}

/// Where a line of mountinfo (proc_pid_mountinfo(5)) mounts the whole tree of this kind.
fn mount_point(line: &str, v1: bool) -> Option<PathBuf> {
    let (mount, what) = line.split_once(" - ")?;
    let mut what = what.split(' ');
    let (kind, _, options) = (what.next()?, what.next()?, what.next()?);
    let wanted = if v1 {
        kind == "cgroup" && options.split(',').any(|option| option == "cpu")
    } else {
        kind == "cgroup2"
    };
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    (wanted && root == "/").then(|| PathBuf::from(point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trees_are_found_in_mountinfo() {
        let v1 = "31 26 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let v2 = "35 24 0:30 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let part = "35 24 0:30 /docker/1 /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(v1, true), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(mount_point(v1, false), None);
        assert_eq!(mount_point(v2, false), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point(v2, true), None);
        assert_eq!(mount_point(part, false), None);
        let cpuset = "31 26 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset";
        assert_eq!(mount_point(cpuset, true), None);
    }
}
