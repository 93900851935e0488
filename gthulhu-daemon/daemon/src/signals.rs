//! What the supervisor waits for.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Error, Result};

/// SIGINT and SIGTERM, as a descriptor to wait for.
#[derive(Debug)]
pub(crate) struct Signals {
    receiver: std::os::unix::net::UnixStream,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        let fail = |e: std::io::Error| Error::system("cannot handle signals", &e);
        let (receiver, sender) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
        receiver.set_nonblocking(true).map_err(fail)?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone().map_err(fail)?)
                .map_err(fail)?;
        }
        Ok(Self { receiver })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }

    pub(crate) fn arrived(&self) -> bool {
        let mut byte = [0];
        matches!(std::io::Read::read(&mut &self.receiver, &mut byte), Ok(1..))
    }
}

/// Waits until one of the descriptors is readable (negative ones are ignored) or the time is over.
pub(crate) fn wait(fds: &[RawFd], timeout: Duration) -> Result<()> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // Rounded up: a timeout of 0 would spin until the time has come.
    let ms = timeout.as_micros().div_ceil(1000).min(1000) as libc::c_int;
    // SAFETY: a valid array of that length.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, ms) };
    if ready < 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(Error::system("cannot wait", &error));
        }
    }
    Ok(())
}
