//! `/proc`: processes and their threads, read in a way that a process which ends meanwhile is no error.
//!
//! Each process is read through a descriptor of its directory. That holds on to the process, not to the pid:
//! once it has ended every read fails, even where the pid was given to another one. So what is read
//! together belongs together.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gthulhu_model::{Comm, ThreadId};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result};

mod stat;

pub use stat::Stat;

/// Bytes of a command line that are read. The rest is left out: a command line may have megabytes, and
/// what a pattern looks for stands in front.
pub const MAX_CMDLINE: usize = 4096;
/// Bytes that any other file here may have. `/proc/PID/cgroup` has a line for each of at most a few dozen
/// hierarchies, each path at most 4,096 bytes.
const MAX_FILE: usize = 256 << 10;

/// A mount of the proc file system.
#[derive(Debug)]
pub struct Proc {
    root: PathBuf,
    dir: OwnedFd,
}

/// What a directory of `/proc` says about a process or thread without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) pid: i32,
    /// The inode number: made anew for each process, also when the pid is used again (`pid_revalidate()`
    /// and `proc_flush_pid()` in fs/proc/base.c). The same number means the same process; another may
    /// mean only that the kernel was short of memory.
    pub(crate) token: u64,
}

/// What a process runs: as it was at its last `exec`, if it did not rename itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The name of its first thread, `/proc/PID/comm`: at most 15 bytes, and whatever the process likes.
    pub comm: Option<Comm>,
    /// The program's file, `/proc/PID/exe`, at most 4,096 bytes: `None` for threads of the kernel, and where
    /// we may not look. A file that is gone ends with ` (deleted)`. The path is that of the process' own
    /// mount namespace.
    pub exe: Option<PathBuf>,
    /// Its arguments with blanks between them, at most [`MAX_CMDLINE`] bytes; empty for threads of the kernel.
    /// A process may overwrite them.
    pub cmdline: Vec<u8>,
}

impl Proc {
    /// The proc file system mounted here; in a container, the host's at, say, `/host/proc`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(&root, flags, Mode::empty()).map_err(|error| Error::io("open", &root, error))?;
        Ok(Self { root, dir })
    }

    /// The machine's own, `/proc`.
    ///
    /// # Errors
    /// As [`Proc::at`].
    pub fn host() -> Result<Self> {
        Self::at("/proc")
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pids of all processes now, in no order.
    ///
    /// # Errors
    /// The directory cannot be read, or there is no process in it: then it is no `/proc`, for at least the
    /// reader would be there. So an answer is never empty by mistake.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Ok(self.list()?.iter().map(|listed| listed.pid).collect())
    }

    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        // A descriptor of its own: where a listing stands is kept in it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = rustix::fs::openat(&self.dir, c".", flags, Mode::empty()).and_then(list);
        let list = list.map_err(|error| Error::io("list", &self.root, error))?;
        if list.is_empty() {
            let what =
                format!("{} shows no process: give the path of a proc file system", self.root.display());
            return Err(Error::new(ErrorKind::Io, what));
        }
        Ok(list)
    }

    /// Holds on to a process, or to a thread by its own number. `None`: there is none (any more).
    ///
    /// # Errors
    /// Anything else, such as too many open files: what was not looked at is not reported as gone.
    pub fn entry(&self, pid: i32) -> Result<Option<Entry<'_>>> {
        let mut path = [0; 16];
        let path = decimal(&mut path, pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, path, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Entry { proc: self, pid, dir })),
            Err(error) if has_ended(error) || is_forbidden(error) => Ok(None),
            Err(error) => Err(Error::io("open", self.root.join(pid.to_string()), error)),
        }
    }

    /// The time in clock ticks (100 a second) since boot, as start times count it.
    pub(crate) fn now(&self) -> Result<u64> {
        let path = self.root.join("uptime");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
        // Seconds with two digits behind the point.
        let digits: String = text.chars().take_while(|c| !c.is_whitespace()).filter(|c| *c != '.').collect();
        digits.parse().map_err(|_| {
            Error::new(ErrorKind::Io, format!("{} is not what proc_uptime(5) says", path.display()))
        })
    }

    /// Whether pids here are those that this very process sees elsewhere, such as in `cgroup.threads`. They are
    /// not where the host's `/proc` is mounted into a container with a pid namespace of its own.
    pub(crate) fn has_own_pids(&self) -> bool {
        std::fs::read_link(self.root.join("self"))
            .is_ok_and(|link| link.as_os_str().as_bytes() == std::process::id().to_string().as_bytes())
    }
}

/// A process or thread that is being read. Whatever is asked answers `None` once it has ended.
#[derive(Debug)]
pub struct Entry<'a> {
    proc: &'a Proc,
    pid: i32,
    dir: OwnedFd,
}

impl Entry<'_> {
    /// Who it is: of the process, its first thread.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn stat(&self) -> Result<Option<Stat>> {
        let mut buffer = [0; 1024];
        let Some(length) = self.read(c"stat", &mut buffer)? else { return Ok(None) };
        match Stat::parse(&buffer[..length]) {
            Some(stat) => Ok(Some(stat)),
            None => Err(Error::new(
                ErrorKind::Io,
                format!("{}/{}/stat is not what proc_pid_stat(5) says", self.proc.root.display(), self.pid),
            )),
        }
    }

    /// The pid of its process: itself, or for a thread that of the first one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn process(&self) -> Result<Option<i32>> {
        let mut buffer = [0; 1024];
        let Some(length) = self.read(c"status", &mut buffer)? else { return Ok(None) };
        let line = buffer[..length].split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"));
        Ok(line.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok()))
    }

    /// The text of its `cgroup` file, for [`Membership::parse`](crate::Membership::parse).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn cgroup(&self) -> Result<Option<Vec<u8>>> {
        self.read_all(c"cgroup", MAX_FILE)
    }

    /// What it runs. What we may not see is left out.
    ///
    /// # Errors
    /// A file cannot be read for another reason.
    pub fn command(&self) -> Result<Option<Command>> {
        match self.stat()? {
            Some(stat) => Ok(Some(self.command_of(&stat)?)),
            None => Ok(None),
        }
    }

    /// The same, where `stat` has been read already.
    pub(crate) fn command_of(&self, stat: &Stat) -> Result<Command> {
        let exe = match rustix::fs::readlinkat(&self.dir, c"exe", Vec::new()) {
            Ok(path) => Some(PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes()))),
            // ENOENT: a thread of the kernel.
            Err(error) if has_ended(error) || is_forbidden(error) => None,
            Err(error) => return Err(self.failed("read", c"exe", error)),
        };
        let mut cmdline = self.read_all(c"cmdline", MAX_CMDLINE)?.unwrap_or_default();
        while cmdline.last() == Some(&0) {
            cmdline.pop();
        }
        for byte in &mut cmdline {
            if *byte == 0 {
                *byte = b' ';
            }
        }
        Ok(Command { comm: stat.comm, exe, cmdline })
    }

    /// Its threads, itself included.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn threads(&self) -> Result<Vec<(ThreadId, Option<Comm>)>> {
        let mut threads = Vec::new();
        for listed in self.list_threads()? {
            if let Some(stat) = self.thread(listed.pid)? {
                threads.push((ThreadId { pid: listed.pid, started: stat.started }, stat.comm));
            }
        }
        Ok(threads)
    }

    pub(crate) fn list_threads(&self) -> Result<Vec<Listed>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&self.dir, c"task", flags, Mode::empty()).and_then(list);
        match found {
            Ok(list) => Ok(list),
            Err(error) if has_ended(error) || is_forbidden(error) => Ok(Vec::new()),
            Err(error) => Err(self.failed("list", c"task", error)),
        }
    }

    /// One of its threads.
    pub(crate) fn thread(&self, tid: i32) -> Result<Option<Stat>> {
        let mut path = *b"task/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let mut number = [0; 16];
        let digits = decimal(&mut number, tid).to_bytes();
        path[5..5 + digits.len()].copy_from_slice(digits);
        path[5 + digits.len()..][..5].copy_from_slice(b"/stat");
        let Ok(path) = CStr::from_bytes_until_nul(&path) else { return Ok(None) };
        let mut buffer = [0; 1024];
        Ok(self.read(path, &mut buffer)?.and_then(|length| Stat::parse(&buffer[..length])))
    }

    /// Fills the buffer as far as the file goes. `None`: ended, or not allowed.
    fn read(&self, name: &CStr, buffer: &mut [u8]) -> Result<Option<usize>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let read = || {
            let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty())?;
            let mut length = 0;
            while length < buffer.len() {
                match rustix::io::read(&file, &mut buffer[length..]) {
                    Ok(0) => break,
                    Ok(bytes) => length += bytes,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(length)
        };
        match { read }() {
            Ok(length) => Ok(Some(length)),
            Err(error) if has_ended(error) || is_forbidden(error) => Ok(None),
            Err(error) => Err(self.failed("read", name, error)),
        }
    }

    fn read_all(&self, name: &CStr, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; limit.min(1024)];
        loop {
            let Some(length) = self.read(name, &mut buffer)? else { return Ok(None) };
            if length < buffer.len() || length == limit {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            buffer.resize((buffer.len() * 8).min(limit), 0);
        }
    }

    fn failed(&self, what: &str, name: &CStr, error: Errno) -> Error {
        let path = self.proc.root.join(self.pid.to_string()).join(name.to_string_lossy().as_ref());
        Error::io(what, path, error)
    }
}

/// Whom the kernel does not know any more, while looked for or while read.
fn has_ended(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

/// What belongs to others: mounted with `hidepid`, or without CAP_SYS_PTRACE.
fn is_forbidden(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

/// The entries that are numbers.
fn list(dir: impl AsFd) -> Result<Vec<Listed>, Errno> {
    let mut list = Vec::new();
    // 32 KiB is what the kernel fills at most (fs/readdir.c); most directories are those of few threads.
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if let Some(pid) = number(entry.file_name().to_bytes()) {
            list.push(Listed { pid, token: entry.ino() });
        }
    }
    Ok(list)
}

/// A pid in digits, as it stands in directories and in `cgroup.threads`.
pub(crate) fn number(text: &[u8]) -> Option<i32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0i32, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit as i32)
    })
}

/// The digits of a pid, without an allocation: this is done some 10,000 times in a scan.
fn decimal(buffer: &mut [u8; 16], pid: i32) -> &CStr {
    let mut rest = pid.unsigned_abs();
    let mut at = buffer.len() - 1;
    buffer[at] = 0;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return CStr::from_bytes_until_nul(&buffer[at..]).unwrap_or_default();
        }
    }
}
