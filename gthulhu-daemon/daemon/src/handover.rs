//! Descriptors from the supervisor to the agent, across exec.
//!
//! They keep their numbers; an environment variable names them. Nothing is moved to fixed numbers in the
//! child: std keeps a pipe of its own open there until exec, to report an exec that failed, and any
//! number could be that pipe's. Numbers that this process holds open cannot be.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use qumun::kernel::AgentFds;

/// Names the descriptors, in order, separated by commas.
const VARIABLE: &str = "GTHULHU_AGENT_FDS";

/// How many an agent gets: those of the core, and behind them that of the strategies.
pub(crate) const ALL: usize = AgentFds::COUNT + 1;

/// Lets the child of `command` inherit `fds`. They must stay open in this process until it has started.
pub(crate) fn give<const N: usize>(command: &mut Command, fds: [RawFd; N]) {
    command.env(VARIABLE, fds.map(|fd| fd.to_string()).join(","));
    let keep = move || {
        for fd in fds {
            // SAFETY: plain numbers.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: only async-signal-safe calls on numbers copied before the fork. The child has its own table
    // of descriptors, so close-on-exec stays set in this process.
    unsafe { command.pre_exec(keep) };
}

/// What [`give`] gave to this process, if it gave `N`.
pub(crate) fn given<const N: usize>() -> Option<[RawFd; N]> {
    parse(&std::env::var(VARIABLE).ok()?)
}

fn parse<const N: usize>(text: &str) -> Option<[RawFd; N]> {
    let fds: Vec<RawFd> = text.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    // Never the standard three, nor one twice: each will be owned and closed.
    let odd = fds.iter().enumerate().any(|(i, fd)| *fd < 3 || fds[..i].contains(fd));
    if odd { None } else { fds.try_into().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::process::Stdio;

    /// A pipe with `text` in it and nobody who writes more, at number `from` or the next free one.
    fn pipe_with(text: &str, from: RawFd) -> OwnedFd {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        // SAFETY: plain numbers.
        let fd = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_DUPFD_CLOEXEC, from) };
        assert!(fd >= from);
        // SAFETY: a new descriptor that nothing else owns.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn pipes(from: RawFd) -> [OwnedFd; 8] {
        std::array::from_fn(|i| pipe_with(&format!("{i}\n"), from))
    }

    fn numbers(fds: &[OwnedFd; 8]) -> [RawFd; 8] {
        std::array::from_fn(|i| fds[i].as_raw_fd())
    }

    /// Reads a line from each descriptor in the order of the variable, by numbers of any length.
    const READER: &str =
        "IFS=,; for fd in $GTHULHU_AGENT_FDS; do read -r line < /proc/self/fd/$fd; printf %s \"$line\"; done";

    #[test]
    fn each_descriptor_arrives_whatever_else_is_open() {
        let mut others: Vec<std::fs::File> = Vec::new();
        for crowd in 0..24 {
            // std's pipe gets the lowest free numbers: behind the crowd, among ours, in front of them.
            for from in [3, 40, 200] {
                let fds = pipes(from);
                let mut command = Command::new("/bin/sh");
                command.args(["-c", READER]).stdin(Stdio::null());
                give(&mut command, numbers(&fds));
                let out = command.output().unwrap();
                assert_eq!(String::from_utf8_lossy(&out.stdout), "01234567", "{crowd} others, from {from}");
                // SAFETY: plain numbers.
                let flags = unsafe { libc::fcntl(fds[0].as_raw_fd(), libc::F_GETFD) };
                assert_eq!(flags, libc::FD_CLOEXEC, "no other child inherits it");
            }
            others.push(std::fs::File::open("/dev/null").unwrap());
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_reported() {
        let mut others: Vec<std::fs::File> = Vec::new();
        for crowd in 0..24 {
            for from in [3, 40, 200] {
                let fds = pipes(from);
                let mut command = Command::new("/nonexistent/agent");
                give(&mut command, numbers(&fds));
                let error = command.spawn().expect_err("nothing to execute");
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{crowd} others, from {from}");
            }
            others.push(std::fs::File::open("/dev/null").unwrap());
        }
    }

    #[test]
    fn a_descriptor_that_is_closed_is_reported() {
        let mut command = Command::new("/bin/true");
        give(&mut command, [1_000_000]);
        assert_eq!(command.spawn().expect_err("not open").raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn only_a_list_of_that_length_is_taken() {
        assert_eq!(parse("3,70,4"), Some([3, 70, 4]));
        for text in ["3,70", "3,70,4,5", "3,,4", "3,x,4", "-1,3,4", "2,3,4", "3,4,3", ""] {
            assert_eq!(parse::<3>(text), None, "{text}");
        }
    }
}
