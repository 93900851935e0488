//! Mode `scx`: another scheduler's program, chosen by name and opened without a gap between looking and running.
//!
//! The daemon runs it as root, so nobody but root may have a say in what it is: the name is one of a list, the
//! folder and all above it are real folders that root alone can write, the program is a real file that root alone
//! can write. Every step is taken from the descriptor of the step before, and what is run is the descriptor of the
//! last: between the check and the start no name is looked up again.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};

use crate::kind::quoted;
use crate::suggest;

/// The upstream schedulers that mode `scx` runs. The original's list.
pub const SCX_NAMES: [&str; 17] = [
    "scx_beerland",
    "scx_bpfland",
    "scx_cake",
    "scx_chaos",
    "scx_cosmos",
    "scx_flash",
    "scx_lavd",
    "scx_layered",
    "scx_mitosis",
    "scx_p2dq",
    "scx_pandemonium",
    "scx_rlfifo",
    "scx_rustland",
    "scx_rusty",
    "scx_tickless",
    "scx_timely",
    "scx_wd40",
];

/// The same, for people.
pub(crate) const NAMES_TEXT: &str = "scx_beerland, scx_bpfland, scx_cake, scx_chaos, scx_cosmos, scx_flash, scx_lavd, scx_layered, \
                                     scx_mitosis, scx_p2dq, scx_pandemonium, scx_rlfifo, scx_rustland, scx_rusty, scx_tickless, \
                                     scx_timely, scx_wd40";

/// A scheduler's program that may be run: a name of the list, in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScxChoice {
    folder: PathBuf,
    name: &'static str,
}

/// Why a program is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScxRefused {
    path: PathBuf,
    why: String,
}

impl fmt::Display for ScxRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for ScxRefused {}

impl ScxChoice {
    /// The program of this name in this folder. Nothing is looked at yet.
    ///
    /// # Errors
    /// When the name is none of [`SCX_NAMES`]; when the folder is relative or has `..` in it.
    pub fn new(folder: &Path, name: &str) -> Result<Self, ScxRefused> {
        let refused = |path: &Path, why: String| Err(ScxRefused { path: path.to_owned(), why });
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !folder.is_absolute() || !folder.components().all(plain) {
            return refused(folder, "the folder of the schedulers is an absolute path without '..'".into());
        }
        match known(name) {
            Ok(name) => Ok(Self { folder: folder.to_owned(), name }),
            Err(why) => refused(folder, why),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    /// Opens the program, after looking at it and at each folder above.
    ///
    /// # Errors
    /// When a part of the path is missing, is a link, belongs to somebody else than root, or can be written by
    /// others; when the program is no file, cannot be run, or is no ELF program.
    pub fn open(&self) -> Result<ScxProgram, ScxRefused> {
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", root, Mode::empty())
            .map_err(|e| ScxRefused { path: "/".into(), why: format!("cannot be opened: {e}") })?;
        self.open_below(root.as_fd())
    }

    /// The same, with another root.
    pub(crate) fn open_below(&self, root: BorrowedFd<'_>) -> Result<ScxProgram, ScxRefused> {
        let mut path = PathBuf::from("/");
        let mut folder = step(root, OsStr::new("."), OFlags::DIRECTORY, &path)?.0;
        for part in self.folder.components().filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        }) {
            path.push(part);
            folder = step(folder.as_fd(), part, OFlags::DIRECTORY, &path)?.0;
        }
        path.push(self.name);
        let (fd, stat) = step(folder.as_fd(), OsStr::new(self.name), OFlags::empty(), &path)?;
        let refused = |why: &str| Err(ScxRefused { path: path.clone(), why: why.into() });
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return refused("is no file");
        }
        if stat.st_mode & 0o111 == 0 {
            return refused("cannot be run; chmod 755 it");
        }
        if !is_elf(&fd) {
            return refused("is no ELF program: a script would be looked up by its name again");
        }
        Ok(ScxProgram { fd, name: self.name })
    }
}

/// One step down, without following a link, and a look at what is there.
fn step(
    from: BorrowedFd<'_>,
    part: &OsStr,
    flags: OFlags,
    path: &Path,
) -> Result<(OwnedFd, Stat), ScxRefused> {
    use rustix::io::Errno;
    let refused = |why: String| ScxRefused { path: path.to_owned(), why };
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(from, part, flags, Mode::empty()).map_err(|e| {
        // With O_DIRECTORY a link is "not a directory".
        let is_link = || {
            rustix::fs::statat(from, part, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| is_link(&s))
        };
        refused(match e {
            Errno::NOENT => "is not there".into(),
            Errno::LOOP | Errno::NOTDIR if is_link() => "is a link; name the real path".into(),
            Errno::NOTDIR => "is no folder".into(),
            e => format!("cannot be opened: {e}"),
        })
    })?;
    let stat = fstat(&fd).map_err(|e| refused(format!("cannot be looked at: {e}")))?;
    if is_link(&stat) {
        return Err(refused("is a link; name the real path".into()));
    }
    if stat.st_uid != 0 {
        return Err(refused(format!("belongs to user {}, not to root", stat.st_uid)));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(refused(format!("others than root may write it (mode {:04o})", stat.st_mode & 0o7777)));
    }
    Ok((fd, stat))
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// Read through the same descriptor: O_PATH itself cannot be read.
fn is_elf(fd: &OwnedFd) -> bool {
    let mut magic = [0; 4];
    let file = std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    file.and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// A program that was looked at, and is held by its descriptor (O_PATH, close on exec).
#[derive(Debug)]
pub struct ScxProgram {
    fd: OwnedFd,
    name: &'static str,
}

impl ScxProgram {
    /// A command that runs exactly this file, under its own name. Spawn it before this is dropped.
    pub fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        command.arg0(self.name);
        command
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl AsFd for ScxProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The name as the list has it.
pub(crate) fn known(name: &str) -> Result<&'static str, String> {
    if let Some(known) = SCX_NAMES.into_iter().find(|known| *known == name) {
        return Ok(known);
    }
    let hint = match SCX_NAMES.into_iter().find(|known| known.strip_prefix("scx_") == Some(name)) {
        Some(known) => format!("; did you mean {known}?"),
        None => suggest::hint(name, SCX_NAMES),
    };
    Err(format!("{} is no scheduler that is run{hint}", quoted(name)))
}
