//! The "newc" cpio archive that the kernel unpacks as its first root file system.
//!
//! Format: kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Each entry is the magic
//! `070701`, thirteen fields of eight hex digits, the NUL-ended name and the data, each padded to four bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

const S_IFDIR: u32 = 0o040000;
const S_IFREG: u32 = 0o100000;
const S_IFLNK: u32 = 0o120000;
const S_IFCHR: u32 = 0o020000;

/// What a path in the archive is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// A folder, mode 0755.
    Dir,
    /// A file with its permission bits and its bytes.
    Bytes(u32, Vec<u8>),
    /// A file with its permission bits, read from this machine when the archive is written.
    Copy(u32, PathBuf),
    /// A symbolic link and its target.
    Link(String),
    /// A character device: permission bits, major, minor.
    Char(u32, u32, u32),
}

/// A file tree in the making. Paths are absolute; parents come by themselves, and before their children.
///
/// `/bin`, `/sbin` and `/lib*` are links into `/usr`, as Debian has it, so that a library is found by either name.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// A tree that holds nothing but the links into `/usr`.
    pub(crate) fn new() -> Self {
        let mut tree = Self { nodes: BTreeMap::new() };
        for (name, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/bin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
            ("usr/sbin", "bin"),
        ] {
            tree.insert(name.into(), Node::Link(target.into()));
        }
        for dir in ["/usr/bin", "/usr/lib", "/usr/lib64"] {
            tree.add(dir, Node::Dir);
        }
        tree
    }

    /// Adds or replaces one path.
    pub(crate) fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        let path = match path.split_once('/') {
            Some(("bin" | "sbin", rest)) => format!("usr/bin/{rest}"),
            Some((lib @ ("lib" | "lib64"), rest)) => format!("usr/{lib}/{rest}"),
            Some(("usr", rest)) if rest.starts_with("sbin/") => format!("usr/bin/{}", &rest[5..]),
            _ => path.to_string(),
        };
        self.insert(path, node);
    }

    /// Whether a path of exactly this name (below `/usr` where a link leads there) is in the tree.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/'))
    }

    fn insert(&mut self, path: String, node: Node) {
        let mut end = 0;
        while let Some(slash) = path[end..].find('/') {
            end += slash;
            self.nodes.entry(path[..end].to_string()).or_insert(Node::Dir);
            end += 1;
        }
        self.nodes.insert(path, node);
    }

    /// Writes the archive.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (ino, (path, node)) in (1..).zip(&self.nodes) {
            match node {
                Node::Dir => entry(out, ino, path, S_IFDIR | 0o755, (0, 0), &[])?,
                Node::Bytes(mode, data) => entry(out, ino, path, S_IFREG | mode, (0, 0), data)?,
                Node::Link(target) => entry(out, ino, path, S_IFLNK | 0o777, (0, 0), target.as_bytes())?,
                Node::Char(mode, major, minor) => {
                    entry(out, ino, path, S_IFCHR | mode, (*major, *minor), &[])?;
                }
                Node::Copy(mode, from) => {
                    let told = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
                    let mut file = File::open(from).map_err(told)?;
                    let size = file.metadata().map_err(told)?.len();
                    header(out, ino, path, S_IFREG | mode, (0, 0), size)?;
                    if io::copy(&mut file, out).map_err(told)? != size {
                        return Err(io::Error::other(format!(
                            "{} changed while it was read",
                            from.display()
                        )));
                    }
                    pad(out, size)?;
                }
            }
        }
        entry(out, 0, "TRAILER!!!", 0, (0, 0), &[])
    }
}

fn entry(
    out: &mut impl Write,
    ino: u32,
    path: &str,
    mode: u32,
    dev: (u32, u32),
    data: &[u8],
) -> io::Result<()> {
    header(out, ino, path, mode, dev, data.len() as u64)?;
    out.write_all(data)?;
    pad(out, data.len() as u64)
}

fn header(
    out: &mut impl Write,
    ino: u32,
    path: &str,
    mode: u32,
    dev: (u32, u32),
    size: u64,
) -> io::Result<()> {
    let size = u32::try_from(size).map_err(|_| io::Error::other(format!("{path} is larger than 4 GiB")))?;
    let name_size = path.len() as u32 + 1;
    // ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check
    write!(out, "070701{ino:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{size:08X}", 0, 0, 1, 0)?;
    write!(out, "{:08X}{:08X}{:08X}{:08X}{name_size:08X}{:08X}{path}\0", 0, 0, dev.0, dev.1, 0)?;
    pad(out, 110 + u64::from(name_size))
}

fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    out.write_all(&[0; 3][..(written.wrapping_neg() % 4) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// A reader of its own: (path, mode, rdev, data) of each entry, from the format's description alone.
    fn read(archive: &[u8]) -> Vec<Entry> {
        let (mut at, mut entries) = (0, Vec::new());
        loop {
            assert_eq!(&archive[at..at + 6], b"070701", "magic at {at}");
            let field = |n: usize| {
                let digits = &archive[at + 6 + 8 * n..at + 14 + 8 * n];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, rdev, name_size) =
                (field(1), field(6) as usize, (field(9), field(10)), field(11) as usize);
            assert_eq!(archive[at + 110 + name_size - 1], 0, "the name ends in NUL");
            let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let data_at = (at + 110 + name_size).next_multiple_of(4);
            at = (data_at + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push((name, mode, rdev, archive[data_at..data_at + size].to_vec()));
        }
    }

    fn archive(tree: &Tree) -> Vec<Entry> {
        let mut out = Vec::new();
        tree.write(&mut out).unwrap();
        read(&out)
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut tree = Tree::new();
        for size in 0..9u8 {
            tree.add(
                &format!("/data/{}", "n".repeat(size.into()) + "x"),
                Node::Bytes(0o640, vec![size; size.into()]),
            );
        }
        tree.add("/dev/console", Node::Char(0o600, 5, 1));
        let from = std::env::temp_dir().join(format!("xtask-cpio-{}", std::process::id()));
        std::fs::write(&from, "seven b").unwrap();
        tree.add("/bin/copied", Node::Copy(0o755, from.clone()));
        let entries = archive(&tree);
        std::fs::remove_file(from).unwrap();
        let get =
            |path: &str| entries.iter().find(|e| e.0 == path).unwrap_or_else(|| panic!("{path} is missing"));
        for size in 0..9u8 {
            let (_, mode, _, data) = get(&format!("data/{}", "n".repeat(size.into()) + "x"));
            assert_eq!((*mode, data.as_slice()), (0o100640, vec![size; size.into()].as_slice()));
        }
        assert_eq!((get("dev/console").1, get("dev/console").2), (0o020600, (5, 1)));
        assert_eq!(
            (get("usr/bin/copied").1, get("usr/bin/copied").3.as_slice()),
            (0o100755, &b"seven b"[..])
        );
        assert_eq!((get("lib64").1, get("lib64").3.as_slice()), (0o120777, &b"usr/lib64"[..]));
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut tree = Tree::new();
        tree.add("/lib/x/y/z.so", Node::Bytes(0o644, vec![]));
        tree.add("/usr/lib/x/y/z.so", Node::Bytes(0o755, vec![1]));
        tree.add("/usr/sbin/tool", Node::Bytes(0o755, vec![]));
        let paths: Vec<String> = archive(&tree).into_iter().map(|e| e.0).collect();
        let at = |path: &str| {
            assert_eq!(paths.iter().filter(|p| *p == path).count(), 1, "{path}");
            paths.iter().position(|p| p == path).unwrap()
        };
        assert!(
            at("usr") < at("usr/lib")
                && at("usr/lib") < at("usr/lib/x")
                && at("usr/lib/x") < at("usr/lib/x/y")
        );
        assert!(at("usr/lib/x/y") < at("usr/lib/x/y/z.so"));
        at("usr/bin/tool");
        assert!(tree.contains("/usr/bin/tool") && !tree.contains("/usr/bin/none"));
    }
}
