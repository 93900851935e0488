//! A process that answers pings in the place of the kernel: so a ping waits for two wakeups, as it does on a path through
//! a tunnel in user space.

use crate::{Context, Result};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const IGNORE: &str = "/proc/sys/net/ipv4/icmp_echo_ignore_all";
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Answers every ping to this network namespace until the process is killed. Only for a namespace of one's own: the
/// kernel's own answers are switched off in it.
///
/// # Errors
/// When this is not root, or the socket breaks.
pub fn echo() -> Result<()> {
    fs::write(IGNORE, "1").cannot(format_args!("write {IGNORE}"))?;
    // SAFETY: socket takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMP) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).cannot("open a raw socket");
    }
    // SAFETY: just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut buffer = [0_u8; 2048];
    loop {
        // SAFETY: a sockaddr_in is plain numbers, for which zero is a value.
        let mut from: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        let mut size = size_of_val(&from) as libc::socklen_t;
        // SAFETY: buffer, address and its size are valid for the writes, of the sizes that are given.
        let got = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut size,
            )
        };
        let Ok(got) = usize::try_from(got) else {
            return Err(io::Error::last_os_error()).cannot("receive a ping");
        };
        let Some(reply) = reply(&mut buffer[..got]) else { continue };
        // SAFETY: reply and address are valid for the reads, of the sizes that are given.
        unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                reply.as_ptr().cast(),
                reply.len(),
                0,
                (&raw const from).cast(),
                size,
            )
        };
    }
}

/// The answer to an IP packet with a ping, made in its place.
fn reply(packet: &mut [u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let icmp = packet.get_mut(header..)?;
    if icmp.len() < 8 || icmp[0] != ECHO {
        return None;
    }
    icmp[0] = ECHO_REPLY;
    icmp[2..4].fill(0);
    let sum = checksum(icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    Some(icmp)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_and_nothing_else() {
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet.extend([ECHO, 0, 0, 0, 0x12, 0x34, 0, 1, b'a', b'b', b'c']);
        let answer = reply(&mut packet).unwrap().to_vec();
        assert_eq!((answer[0], &answer[4..]), (ECHO_REPLY, &[0x12, 0x34, 0, 1, b'a', b'b', b'c'][..]));
        assert_eq!(checksum(&answer), 0, "the sum over a packet with its checksum is 0");
        assert!(reply(&mut packet).is_none(), "an answer is not answered");
        assert!(reply(&mut []).is_none());
    }
}
