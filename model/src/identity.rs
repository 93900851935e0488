//! Who is meant: threads, processes, cgroups, names.

use std::fmt;
use std::num::NonZeroU64;

use crate::Error;

/// A thread: its pid, and which of the threads that had this pid it is.
///
/// The kernel reuses pids. So a pid alone is never an identity here, and there is no type for one.
/// A process is named by its first thread, whose pid is the tgid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct ThreadId {
    /// The kernel's number of the thread, as `gettid` returns it.
    pub pid: i32,
    /// The generation of the pid: when the thread was started, in clock ticks (100 a second) since boot.
    /// `starttime` in `/proc/PID/task/TID/stat`, field 22.
    pub started: u64,
}

impl ThreadId {
    /// The nanoseconds of one clock tick.
    const TICK: u64 = 10_000_000;

    /// The thread of this pid that began so many nanoseconds after the boot of the machine, as `qumun::Queued::born` says.
    pub const fn born(pid: i32, ns: u64) -> Self {
        Self { pid, started: ns / Self::TICK }
    }
}

/// The kernel's own 64-bit number of a task, never used twice. Kernels before 7.2 have none, as
/// `qumun::Queued::tid` says; for them there is [`ThreadId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TaskNumber(NonZeroU64);

impl TaskNumber {
    /// This number; `None` for 0, by which events say that the kernel has none.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// A cgroup v2 directory: its inode number. It means the tasks in this very cgroup, not those of the groups
/// below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CgroupId(pub u64);

/// The name of a thread, as in `/proc/PID/comm`: 1 to 15 bytes, of any kind but zero.
///
/// Anybody may call a thread anything. A name is the weakest way to say who is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String"))]
pub struct Comm([u8; Comm::CAPACITY]);

impl Comm {
    /// Bytes of a name with its zero: the kernel's `TASK_COMM_LEN`.
    pub const CAPACITY: usize = 16;

    /// The name of exactly these bytes.
    ///
    /// # Errors
    /// No byte, more than 15, or a zero. Longer names are not cut: the kernel does that when a thread is
    /// named, and what is cut here by mistake matches more than was meant.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(Error::name("is empty"));
        }
        if name.contains(&0) {
            return Err(Error::name("has a zero byte"));
        }
        let mut bytes = [0; Self::CAPACITY];
        match bytes[..Self::CAPACITY - 1].get_mut(..name.len()) {
            Some(room) => room.copy_from_slice(name),
            None => return Err(Error::name("is too long")),
        }
        Ok(Self(bytes))
    }

    /// From the kernel's bytes: what stands before the first zero, and no more than 15. `None` if
    /// nothing does.
    pub fn from_kernel(mut bytes: [u8; Self::CAPACITY]) -> Option<Self> {
        bytes[Self::CAPACITY - 1] = 0;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        // Names are compared with all their bytes.
        bytes[end..].fill(0);
        (end > 0).then_some(Self(bytes))
    }

    /// The bytes of the name, without the zero.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// The name, with a mark in place of what is no UTF-8.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm(\"{}\")", self.as_bytes().escape_ascii())
    }
}

impl TryFrom<&str> for Comm {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// Whom a strategy is for, from the most specific to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum Target {
    /// One thread, by the kernel's number.
    Task(TaskNumber),
    /// One thread.
    Thread(ThreadId),
    /// All threads of a process, by its first one.
    Process(ThreadId),
    /// All threads in a cgroup.
    Cgroup(CgroupId),
    /// All threads of this name.
    Comm(Comm),
}

/// A thread that is asked about, as far as it is known: what is `None` matches nothing.
///
/// ```
/// # use gthulhu_model::{CgroupId, Comm, Subject, TaskNumber, ThreadId};
/// // From an event of the core, on a kernel that has no task numbers.
/// let (pid, born_ns) = (4711, 120_034_000_000);
/// let (tid, cgroup_id, comm) = (0, 4242, *b"nginx\0\0\0\0\0\0\0\0\0\0\0");
/// let subject = Subject {
///     task: TaskNumber::new(tid),
///     thread: Some(ThreadId::born(pid, born_ns)),
///     cgroup: Some(CgroupId(cgroup_id)),
///     comm: Comm::from_kernel(comm),
///     ..Subject::default()
/// };
/// assert_eq!(subject.task, None);
/// assert_eq!(subject.thread, Some(ThreadId { pid: 4711, started: 12_003 }));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The kernel's number of it.
    pub task: Option<TaskNumber>,
    /// The thread.
    pub thread: Option<ThreadId>,
    /// The first thread of its process.
    pub process: Option<ThreadId>,
    /// The cgroup it is in.
    pub cgroup: Option<CgroupId>,
    /// Its name.
    pub comm: Option<Comm>,
}

impl Target {
    /// Is this thread meant?
    pub fn matches(&self, subject: &Subject) -> bool {
        match *self {
            Self::Task(task) => subject.task == Some(task),
            Self::Thread(thread) => subject.thread == Some(thread),
            Self::Process(process) => subject.process == Some(process),
            Self::Cgroup(cgroup) => subject.cgroup == Some(cgroup),
            Self::Comm(comm) => subject.comm == Some(comm),
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for Comm {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// A name that is no UTF-8 is refused: written in any other way it would match another thread.
#[cfg(feature = "serde")]
impl serde::Serialize for Comm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.as_bytes()) {
            Ok(name) => serializer.serialize_str(name),
            Err(_) => Err(serde::ser::Error::custom(Error::name("is no UTF-8, which text needs"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_name_has_1_to_15_bytes() {
        for (name, fits) in [("", false), ("a", true), ("fifteen-bytes-x", true), ("sixteen-bytes-xx", false)]
        {
            match Comm::new(name) {
                Ok(comm) => assert!(fits && comm.as_bytes() == name.as_bytes()),
                Err(error) => assert!(!fits && error.kind() == ErrorKind::InvalidName),
            }
        }
        let error = Comm::new("a\0b").unwrap_err().to_string();
        assert!(error.starts_with("thread name has a zero byte: give 1 to 15 bytes"), "{error}");
    }

    #[test]
    fn what_the_kernel_left_behind_the_zero_is_no_part_of_the_name() {
        let comm = Comm::from_kernel(*b"sh\0ginx\0\0\0\0\0\0\0\0\0").unwrap();
        assert_eq!(comm, Comm::new("sh").unwrap());
        assert_eq!(Comm::from_kernel([0; 16]), None);
        assert_eq!(Comm::from_kernel([b'x'; 16]).unwrap().as_bytes(), [b'x'; 15]);
    }

    #[test]
    fn a_name_of_any_bytes_can_be_shown() {
        let comm = Comm::new([b'a', 0xff, b'b']).unwrap();
        assert_eq!(comm.to_string(), "a\u{fffd}b");
        assert_eq!(format!("{comm:?}"), r#"Comm("a\xffb")"#);
    }

    /// A pid that was given to another thread is another identity.
    #[test]
    fn a_reused_pid_is_not_matched() {
        let target = Target::Thread(ThreadId { pid: 7, started: 100 });
        let subject = |started| Subject { thread: Some(ThreadId { pid: 7, started }), ..Subject::default() };
        assert!(target.matches(&subject(100)) && !target.matches(&subject(101)));
        assert!(!target.matches(&Subject::default()), "what is unknown matches nothing");
    }
}
