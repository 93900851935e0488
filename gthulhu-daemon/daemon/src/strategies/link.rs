//! The way of a table from the supervisor to the agent's process: whole, sealed, and by its generation.
//!
//! ```text
//!   supervisor ── memory file, sealed ──►  agent's process, thread `strategies` ── hand-over ──►  the agent's thread
//!        ◄─── generation, time ───────────┘  reads it, makes a table of it                    one load, two exchanges
//! ```
//!
//! The supervisor writes a table into a memory file, seals it so that nobody can change it any more, and sends its
//! descriptor over a socket that the agent has inherited; it never waits. A second thread of the agent's process makes a table
//! of it, with all allocations that this takes, and [hands it over](gthulhu_model::handover) to the thread that schedules,
//! which takes it without lock, allocation or system call. It is a task as any other, and the agent's own: the core places
//! it without asking anybody.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use gthulhu_model::{
    CgroupId, Comm, Generation, Label, Lease, Publisher, Reader, Strategy, StrategyId, StrategyTable, Target,
    TaskNumber, ThreadId, Ttl, handover,
};

use crate::{Error, Result};

/// `GTHSTRAT`, and which layout it is.
const MAGIC: u64 = u64::from_le_bytes(*b"GTHSTRA1");
const HEAD: usize = 24;
const RECORD: usize = 64;
/// More than a core has room for.
const MOST: usize = 8_192;
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Sender(OwnedFd);

/// The agent's end, before it is used.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

/// What an agent has said: it has this table since then (ns of `CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Has {
    pub(crate) generation: Generation,
    pub(crate) at_ns: u64,
}

/// Both ends.
pub(crate) fn pair() -> Result<(Sender, Receiver)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two numbers.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return Err(Error::system("cannot make a channel to the agent", &std::io::Error::last_os_error()));
    }
    // SAFETY: two new descriptors that nothing else owns.
    let [ours, theirs] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((Sender(ours), Receiver(theirs)))
}

impl Receiver {
    /// For the child to inherit.
    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// In the child: what it has inherited under this number.
    ///
    /// # Safety
    /// Nothing else in this process owns the descriptor.
    pub(crate) unsafe fn inherited(fd: RawFd) -> Self {
        // SAFETY: as promised.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Sender {
    /// Sends a table. False: there is no room now, since the agent does not read, being stopped perhaps; or it is gone.
    pub(crate) fn send(&self, generation: Generation, leases: &[Lease]) -> Result<bool> {
        let file = sealed(&encode(generation, leases))
            .map_err(|e| Error::system("cannot make a table of strategies for the agent", &e))?;
        Ok(send_fd(&self.0, file.as_raw_fd()))
    }

    /// What the agent has said since the last time. Never waits.
    pub(crate) fn heard(&self) -> Option<Has> {
        let mut last = None;
        let mut bytes = [0u8; 16];
        loop {
            // SAFETY: room for as many bytes.
            let n = unsafe {
                libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
            };
            if n != bytes.len() as isize {
                return last;
            }
            last = Some(Has { generation: Generation(word(&bytes, 0)), at_ns: word(&bytes, 8) });
        }
    }
}

/// Readers of the strategies that plugins have asked for, to be served once the agent begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers(Arc<Mutex<Vec<Publisher<StrategyTable>>>>);

impl Readers {
    /// One more.
    pub(crate) fn reader(&self) -> Reader<StrategyTable> {
        let (publisher, reader) = handover();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(publisher);
        reader
    }

    /// Serves them, in a thread of its own, until the supervisor is gone. Nothing is done when there are none; call it
    /// when the policy has been made.
    pub(crate) fn serve(&self, from: Receiver) -> Result<()> {
        let publishers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if publishers.is_empty() {
            return Ok(());
        }
        std::thread::Builder::new()
            .name("strategies".into())
            // All of it is locked into memory.
            .stack_size(128 << 10)
            .spawn(move || receive(&from, publishers))
            .map_err(|e| Error::system("cannot start the agent's thread for strategies", &e))?;
        Ok(())
    }
}

fn receive(from: &Receiver, mut publishers: Vec<Publisher<StrategyTable>>) {
    while let Some(file) = receive_fd(&from.0) {
        let table = read_sealed(&file).and_then(|bytes| decode(&bytes));
        let Ok((generation, leases)) = table else {
            // The supervisor is this very program: a table that makes no sense is as good as none.
            continue;
        };
        let mut builder = StrategyTable::builder(generation);
        for lease in leases {
            builder.add(lease);
        }
        for publisher in &mut publishers {
            publisher.publish(builder.build());
        }
        let mut has = [0u8; 16];
        has[..8].copy_from_slice(&generation.0.to_le_bytes());
        has[8..].copy_from_slice(&now_ns().to_le_bytes());
        // SAFETY: as many bytes; whether it is heard does not matter.
        unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::send(from.0.as_raw_fd(), has.as_ptr().cast(), has.len(), flags)
        };
    }
}

/// `CLOCK_MONOTONIC`, by which leases are.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

// ----- the table as bytes

fn encode(generation: Generation, leases: &[Lease]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + leases.len() * RECORD);
    for word in [MAGIC, generation.0, leases.len() as u64] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for Lease { strategy, expires_at_ns } in leases {
        let mut name = [0; Comm::CAPACITY];
        let (kind, a, b): (u64, u64, u64) = match strategy.target {
            Target::Task(number) => (1, number.get(), 0),
            Target::Thread(id) => (2, id.pid as u32 as u64, id.started),
            Target::Process(id) => (3, id.pid as u32 as u64, id.started),
            Target::Cgroup(id) => (4, id.0, 0),
            Target::Comm(comm) => {
                name.iter_mut().zip(comm.as_bytes()).for_each(|(to, byte)| *to = *byte);
                (5, word(&name, 0), word(&name, 8))
            }
        };
        let label = Label::Priority(strategy.priority).pack();
        let ttl = u64::from(strategy.ttl.as_secs());
        for word in [strategy.id.number(), *expires_at_ns, ttl, label, kind, a, b, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

/// All of it, or nothing.
fn decode(bytes: &[u8]) -> std::result::Result<(Generation, Vec<Lease>), &'static str> {
    if bytes.len() < HEAD || word(bytes, 0) != MAGIC {
        return Err("no table of strategies, or one of another version");
    }
    let count = usize::try_from(word(bytes, 16)).unwrap_or(usize::MAX);
    if count > MOST || bytes.len() != HEAD + count * RECORD {
        return Err("it is not as long as it says");
    }
    let lease = |record: &[u8]| -> Option<Lease> {
        let of = |i: usize| word(record, i * 8);
        let thread = || Some(ThreadId { pid: i32::try_from(of(5)).ok()?, started: of(6) });
        let target = match of(4) {
            1 => Target::Task(TaskNumber::new(of(5))?),
            2 => Target::Thread(thread()?),
            3 => Target::Process(thread()?),
            4 => Target::Cgroup(CgroupId(of(5))),
            5 => {
                let mut name = [0; Comm::CAPACITY];
                name[..8].copy_from_slice(&of(5).to_le_bytes());
                name[8..].copy_from_slice(&of(6).to_le_bytes());
                Target::Comm(Comm::from_kernel(name)?)
            }
            _ => return None,
        };
        let Ok(Label::Priority(priority)) = Label::unpack(of(3)) else { return None };
        let ttl = Ttl::from_secs(u32::try_from(of(2)).ok()?).ok()?;
        let strategy = Strategy { id: StrategyId::new(of(0)).ok()?, target, priority, ttl };
        Some(Lease { strategy, expires_at_ns: of(1) })
    };
    let leases: Option<Vec<Lease>> = bytes[HEAD..].chunks_exact(RECORD).map(lease).collect();
    Ok((Generation(word(bytes, 8)), leases.ok_or("a record makes no sense")?))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(from) = bytes.get(at..at + 8) {
        word.copy_from_slice(from);
    }
    u64::from_le_bytes(word)
}

// ----- memory files and descriptors

fn sealed(bytes: &[u8]) -> std::io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a text with its zero.
    let fd = unsafe { libc::memfd_create(c"gthulhu-strategies".as_ptr(), flags) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    // SAFETY: plain numbers.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, SEALS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(file)
}

fn read_sealed(file: &File) -> std::result::Result<Vec<u8>, &'static str> {
    // SAFETY: plain numbers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    if seals & SEALS != SEALS {
        return Err("somebody could still change it");
    }
    let length = file.metadata().map_err(|_| "it cannot be read")?.len();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > HEAD + MOST * RECORD {
        return Err("it is longer than a table");
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(|_| "it cannot be read")?;
    Ok(bytes)
}

/// Room for the header of a control message and one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: plain numbers.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    message
}

fn send_fd(to: &OwnedFd, fd: RawFd) -> bool {
    let (mut byte, mut control) = ([1u8], Control([0; 64]));
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let message = message(&mut part, &mut control);
    // SAFETY: the control buffer has room for this header and one descriptor, as controllen says.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(to.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) == 1
    }
}

/// Waits for a descriptor. `None`: nobody will send one any more.
fn receive_fd(from: &OwnedFd) -> Option<File> {
    loop {
        let (mut byte, mut control) = ([0u8], Control([0; 64]));
        let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut message = message(&mut part, &mut control);
        // SAFETY: all buffers are as long as the message says.
        let n = unsafe { libc::recvmsg(from.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if n < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
            continue;
        }
        if n <= 0 {
            return None;
        }
        // SAFETY: the kernel has filled the control buffer as far as controllen says; a descriptor in it is new and ours.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null()
                && (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_RIGHTS
            {
                return Some(File::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gthulhu_model::{Budget, Class, Level, Priority, Slice, Subject};

    use super::*;

    fn leases() -> Vec<Lease> {
        let (budget, slice) = (Budget::millicpu(500).ok(), Slice::from_nanos(2_000_000).ok());
        let thread = ThreadId { pid: 4711, started: 120_034 };
        let targets = [
            Target::Task(TaskNumber::new(u64::MAX).expect("a number")),
            Target::Thread(thread),
            Target::Process(thread),
            Target::Cgroup(CgroupId(77)),
            Target::Comm(Comm::new([b'a', 0xff]).expect("a name")),
        ];
        let lease = |(i, target)| {
            let priority = Priority { class: Class::Latency(Level::STRONGEST), slice, budget };
            let strategy =
                Strategy { id: StrategyId::new(i as u64).expect("an id"), target, priority, ttl: Ttl::MAX };
            Lease { strategy, expires_at_ns: 5 + i as u64 }
        };
        targets.into_iter().enumerate().map(lease).collect()
    }

    #[test]
    fn a_table_comes_over_whole_and_nothing_else_does() {
        let bytes = encode(Generation(9), &leases());
        assert_eq!(decode(&bytes), Ok((Generation(9), leases())));
        assert_eq!(decode(&encode(Generation(1), &[])), Ok((Generation(1), vec![])));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        // Any byte may be wrong: it is refused, or another table with as many leases, and never a panic.
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xa5;
            let read = decode(&wrong);
            let in_generation = (8..16).contains(&at);
            assert!(in_generation || at >= HEAD || read.is_err(), "byte {at} of the head");
            assert!(read.is_err() || read.is_ok_and(|(_, read)| read.len() == leases().len()), "byte {at}");
        }
        assert!(decode(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn the_agent_gets_the_newest_table_and_says_so() {
        let (sender, receiver) = pair().expect("a pair");
        let readers = Readers::default();
        let mut reader = readers.reader();
        readers.serve(receiver).expect("started");
        for generation in 1..=20 {
            assert!(sender.send(Generation(generation), &leases()).expect("sent"));
        }
        let has = loop {
            match sender.heard() {
                Some(has) if has.generation == Generation(20) => break has,
                _ => std::thread::yield_now(),
            }
        };
        assert!(has.at_ns > 0 && has.at_ns <= now_ns());
        assert!(reader.refresh());
        let table = reader.get().expect("a table");
        assert_eq!(table.generation(), Generation(20));
        let subject = Subject { cgroup: Some(CgroupId(77)), ..Subject::default() };
        assert_eq!(table.find(&subject, 0).map(|lease| lease.expires_at_ns), Some(8));
    }

    #[test]
    fn an_agent_that_does_not_read_holds_nobody_up() {
        let (sender, receiver) = pair().expect("a pair");
        let refused =
            (0..100_000).find(|n| !sender.send(Generation(*n), &[]).expect("no descriptor is left open"));
        assert!(refused.is_some(), "it would take tables for ever");
        drop(receiver);
        assert!(!sender.send(Generation(1), &[]).expect("not an error"), "nobody is there");
        assert_eq!(sender.heard(), None);
    }

    #[test]
    fn what_somebody_could_change_is_not_read() {
        // SAFETY: a text with its zero; a new descriptor.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"t".as_ptr(), libc::MFD_ALLOW_SEALING)) };
        file.write_all_at(&encode(Generation(1), &[]), 0).expect("written");
        assert!(read_sealed(&file).is_err());
        assert!(sealed(&encode(Generation(1), &[])).is_ok_and(|file| read_sealed(&file).is_ok()));
    }
}
