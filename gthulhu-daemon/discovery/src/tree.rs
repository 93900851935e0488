//! The tree of cgroup v2: which cgroups there are, their ids, and which threads are in them.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gthulhu_model::CgroupId;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::proc::number;
use crate::{Error, ErrorKind, Proc, Result, Workload};

/// How deep cgroups are looked for. The kernel allows more only to those who ask for it by hand; a pod in a
/// kind cluster is at depth 8.
const MAX_DEPTH: usize = 64;
/// Bytes of one `cgroup.threads`: 8 million threads.
const MAX_THREADS_FILE: usize = 64 << 20;

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id: the inode number of its directory, and on 64-bit kernels what `bpf_get_current_cgroup_id()`
    /// says (`kernfs_ino()` and `cgroup_id()` are the same number there). Never used twice while the machine
    /// runs.
    pub id: CgroupId,
    /// Its path from the root of the tree that was looked at, such as `/system.slice/cron.service`.
    pub path: Arc<str>,
    /// What runs in it.
    pub workload: Arc<Workload>,
}

/// A mounted tree of cgroup v2.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    dir: OwnedFd,
    /// What paths mean does not change, so each is read once.
    known: HashMap<Arc<str>, Arc<Cgroup>>,
}

/// A cgroup that is visited.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) cgroup: &'a Arc<Cgroup>,
    dir: &'a OwnedFd,
    root: &'a Path,
}

impl Tree {
    /// The tree mounted here, or a part of one.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let dir = rustix::fs::open(&root, DIRECTORY, Mode::empty())
            .map_err(|error| Error::io("open", &root, error))?;
        Ok(Self { root, dir, known: HashMap::new() })
    }

    /// Where cgroup v2 is mounted, as this process sees it: usually `/sys/fs/cgroup`, on hybrid systems
    /// `/sys/fs/cgroup/unified`. `None`: nowhere.
    ///
    /// # Errors
    /// `self/mountinfo` cannot be read.
    pub fn mount(proc: &Proc) -> Result<Option<PathBuf>> {
        let path = proc.root().join("self/mountinfo");
        let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        Ok(mount(&text))
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of this cgroup.
    pub fn directory(&self, cgroup: &Cgroup) -> PathBuf {
        self.root.join(cgroup.path.trim_start_matches('/'))
    }

    /// The cgroup that is at this path now.
    pub(crate) fn id_at(&self, path: &str) -> Option<CgroupId> {
        let below = path.trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let stat = rustix::fs::statat(&self.dir, below, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(CgroupId(stat.st_ino))
    }

    /// All cgroups now, parents before their children.
    ///
    /// # Errors
    /// A directory cannot be read, for another reason than that it is gone.
    pub fn cgroups(&mut self) -> Result<Vec<Arc<Cgroup>>> {
        let mut found = Vec::new();
        self.walk("/", usize::MAX, true, &mut |visit| {
            found.push(Arc::clone(visit.cgroup));
            Ok(())
        })?;
        Ok(found)
    }

    /// Visits the cgroup of this path, and if `deep` all below it, parents first. What vanishes meanwhile is
    /// skipped. Says whether the path was there.
    pub(crate) fn walk(
        &mut self,
        path: &str,
        limit: usize,
        deep: bool,
        visit: &mut dyn FnMut(&Visit<'_>) -> Result<()>,
    ) -> Result<bool> {
        let below = path.trim_start_matches('/');
        let start = if below.is_empty() { Ok(c".".into()) } else { std::ffi::CString::new(below) };
        let Ok(start) = start else { return Ok(false) };
        let dir = match rustix::fs::openat(&self.dir, &start, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(dir) => dir,
            Err(error) if is_gone(error) => return Ok(false),
            Err(error) => return Err(self.failed(path, error)),
        };
        let mut left = limit;
        // One open directory for each level of the path that is being walked.
        let mut entered = self.enter(path, &dir, &mut left, visit)?;
        if !deep {
            entered.1.clear();
        }
        let mut stack = vec![(entered, dir)];
        while let Some(((path, children), dir)) = stack.last_mut() {
            let Some(name) = children.pop() else {
                stack.pop();
                continue;
            };
            let Ok(text) = name.to_str() else {
                // No runtime and no systemd writes such names; they would have no path to be told by.
                continue;
            };
            let path = if &**path == "/" { format!("/{text}") } else { format!("{path}/{text}") };
            let child =
                match rustix::fs::openat(&*dir, name.as_c_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                {
                    Ok(child) => child,
                    Err(error) if is_gone(error) => continue,
                    Err(error) => return Err(self.failed(&path, error)),
                };
            let mut entered = self.enter(&path, &child, &mut left, visit)?;
            if stack.len() >= MAX_DEPTH {
                entered.1.clear();
            }
            stack.push((entered, child));
        }
        Ok(true)
    }

    /// Visits one directory; answers its path and the names of the directories in it.
    fn enter(
        &mut self,
        path: &str,
        dir: &OwnedFd,
        left: &mut usize,
        visit: &mut dyn FnMut(&Visit<'_>) -> Result<()>,
    ) -> Result<(Arc<str>, Vec<std::ffi::CString>)> {
        let stat = rustix::fs::fstat(dir).map_err(|error| self.failed(path, error))?;
        let Some(rest) = left.checked_sub(1) else {
            let what =
                format!("{} has more cgroups than the limit: raise Limits::cgroups", self.root.display());
            return Err(Error::new(ErrorKind::Limit, what));
        };
        *left = rest;
        let cgroup = self.remember(path, CgroupId(stat.st_ino));
        visit(&Visit { cgroup: &cgroup, dir, root: &self.root })?;
        // Listed after the visit, which may have put a watch on it: so no child is missed by both.
        let children = match children(dir) {
            Ok(children) => children,
            Err(error) if is_gone(error) => Vec::new(),
            Err(error) => return Err(self.failed(path, error)),
        };
        Ok((Arc::clone(&cgroup.path), children))
    }

    fn remember(&mut self, path: &str, id: CgroupId) -> Arc<Cgroup> {
        if let Some(known) = self.known.get(path)
            && known.id == id
        {
            return Arc::clone(known);
        }
        let path: Arc<str> = path.into();
        let workload = Arc::new(Workload::of_cgroup(&*path));
        let cgroup = Arc::new(Cgroup { id, path: Arc::clone(&path), workload });
        self.known.insert(path, Arc::clone(&cgroup));
        cgroup
    }

    /// Forgets a cgroup that is gone.
    pub(crate) fn forget(&mut self, cgroup: &Cgroup) {
        if self.known.get(&cgroup.path).is_some_and(|known| known.id == cgroup.id) {
            self.known.remove(&cgroup.path);
        }
    }

    fn failed(&self, path: &str, error: Errno) -> Error {
        Error::io("read", self.root.join(path.trim_start_matches('/')), error)
    }
}

impl Visit<'_> {
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join(self.cgroup.path.trim_start_matches('/'))
    }

    /// The threads that are in this very cgroup. Those that this process cannot see, in another pid namespace,
    /// are left out; the kernel shows them as 0.
    pub(crate) fn threads(&self) -> Result<Vec<i32>> {
        match read_numbers(self.dir, c"cgroup.threads") {
            Ok(threads) => Ok(threads),
            // ENODEV: removed since it was opened.
            Err(error) if is_gone(error) => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", self.directory().join("cgroup.threads"), error)),
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
}

fn children(dir: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    // Most cgroups are leaves, with some sixty files each that need not be listed: a directory has two links
    // and one for each directory in it (kernfs_refresh_inode() in fs/kernfs/inode.c).
    if rustix::fs::fstat(dir)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn read_numbers(dir: &OwnedFd, name: &CStr) -> Result<Vec<i32>, Errno> {
    let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Most have a handful.
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        match rustix::io::read(&file, &mut text[length..]) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if length == text.len() {
            if length >= MAX_THREADS_FILE {
                return Err(Errno::FBIG);
            }
            text.resize(length * 4, 0);
        }
    }
    let lines = text[..length].split(|&byte| byte == b'\n');
    Ok(lines.filter_map(number).filter(|pid| *pid > 0).collect())
}

/// The first mount of cgroup v2: `ID PARENT DEV ROOT MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS`
/// (proc_pid_mountinfo(5)); blanks in paths are `\040`.
fn mount(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let at = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (kind == b"cgroup2").then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&octal(at))))
    })
}

fn octal(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_v2_is_found_among_those_of_v1() {
        let text = b"25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            33 25 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            34 33 0:29 / /sys/fs/cgroup/my\\040unified rw shared:10 master:3 - cgroup2 cgroup2 rw,nsdelegate\n\
            35 33 0:30 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n";
        assert_eq!(mount(text), Some(PathBuf::from("/sys/fs/cgroup/my unified")));
        assert_eq!(mount(b"33 25 0:28 / /cgroup2 rw - tmpfs cgroup2 rw\n\nx\n"), None);
    }

    #[test]
    fn a_tree_is_walked_parents_first_and_its_limit_holds() {
        let root = std::env::temp_dir().join(format!("gthulhu-tree-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a.slice/b.service")).unwrap();
        std::fs::create_dir_all(root.join("c")).unwrap();
        std::fs::write(root.join("a.slice/b.service/cgroup.threads"), "12\n0\n4711\n").unwrap();
        let mut tree = Tree::at(&root).unwrap();
        let (mut paths, mut threads) = (Vec::new(), Vec::new());
        let found = tree.walk("/", 10, true, &mut |visit| {
            paths.push(visit.cgroup.path.to_string());
            threads.extend(visit.threads()?);
            Ok(())
        });
        assert!(found.unwrap());
        let at = |path: &str| paths.iter().position(|known| known == path).unwrap();
        assert_eq!((paths.len(), at("/")), (4, 0));
        assert!(at("/a.slice") < at("/a.slice/b.service") && at("/c") > 0);
        assert_eq!(threads, [12, 4711], "a thread of a namespace that cannot be seen has no number");
        let error = tree.walk("/", 3, true, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(!tree.walk("/d", 10, true, &mut |_| Ok(())).unwrap());
        std::fs::remove_dir_all(root).unwrap();
    }
}
