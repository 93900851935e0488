//! The control socket: who may ask, and what is asked.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clerk::Clerk;
use crate::control::{self, Order, PATIENCE, Said};
use crate::events::Hub;
use crate::log::Log;
use crate::strategies;
use crate::{Error, ExitCode, Result};

/// The socket, removed again when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    strangers: Refusals,
    garbage: Arc<Refusals>,
}

/// Callers that are answered before the supervisor looks after the scheduler again: each may be silent for a while.
const AT_ONCE: usize = 8;
/// How often refusals are said.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl Listener {
    /// Listens for root only.
    pub(crate) fn bind(path: &Path, log: &Log) -> Result<Self> {
        let fail = |what: &str, e: &std::io::Error| Error::system(format!("{what} {}", path.display()), e);
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|e| fail("cannot make the folder of", &e))?;
        }
        // One that nobody answers is left over from a daemon that was killed.
        if UnixStream::connect(path).is_ok() {
            return Err(Error::new(ExitCode::Busy, format!("another daemon answers on {}", path.display())));
        }
        if let Ok(there) = std::fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                let what =
                    format!("{} is there and is no socket; name another with --socket", path.display());
                return Err(Error::new(ExitCode::Usage, what));
            }
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).map_err(|e| fail("cannot listen on", &e))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| fail("cannot protect", &e))?;
        listener.set_nonblocking(true).map_err(|e| fail("cannot listen on", &e))?;
        let (strangers, garbage) = (Refusals::new(log), Arc::new(Refusals::new(log)));
        Ok(Self { listener, path: path.to_owned(), strangers, garbage })
    }

    /// Answers those who wait, a few at a time, and nobody who may not ask. What takes time is the clerk's.
    pub(crate) fn answer(
        &self,
        (clerk, strategies): (&Clerk, &strategies::Handle),
        events: &Hub,
        mut answer: impl FnMut(Option<Order>) -> std::result::Result<Value, String>,
    ) {
        for _ in 0..AT_ONCE {
            let Ok((mut stream, _)) = self.listener.accept() else { return };
            // A client that does not read must not hold the supervisor.
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            if let Err(uid) = may_ask(&stream) {
                let why = format!("only root and whoever runs the daemon may ask, not user {uid}");
                self.strangers.note(&format!("user {uid} asked on the control socket and was refused"));
                let _ = stream.write_all(json!({ "error": why }).to_string().as_bytes());
                continue;
            }
            let said = match control::read(&mut stream, Vec::new(), PATIENCE) {
                Said::Line(Ok(order @ Order::Mode(_)), _) => answer(Some(order)),
                Said::Nothing => answer(None),
                Said::Line(Ok(Order::Strategies(command)), said) => {
                    strategies.serve(command, said, stream);
                    continue;
                }
                Said::Line(Ok(Order::Events), _) => match events.welcome(stream) {
                    Ok(()) => continue,
                    Err((back, why)) => {
                        stream = back;
                        Err(why)
                    }
                },
                said => {
                    clerk.take(stream, said);
                    continue;
                }
            };
            let said = said.unwrap_or_else(|why| json!({ "error": why }));
            let _ = stream.write_all(said.to_string().as_bytes());
        }
    }

    /// What is no order is counted there.
    pub(crate) fn garbage(&self) -> Arc<Refusals> {
        Arc::clone(&self.garbage)
    }

    /// For `status`: who asked and may not, and what was no order.
    pub(crate) fn refused(&self) -> (u64, u64) {
        (self.strangers.count(), self.garbage.count())
    }
}

/// What is counted each time, and said at times.
#[derive(Debug)]
pub(crate) struct Refusals {
    log: Log,
    /// How often, and when it was said last.
    state: Mutex<(u64, Option<Instant>)>,
}

impl Refusals {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), state: Mutex::default() }
    }

    fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts it.
    pub(crate) fn note(&self, what: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        if state.1.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            state.1 = Some(Instant::now());
            self.log.warn(format_args!("{what} ({} so far)", state.0));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Root, or whoever runs the daemon; else who it is.
fn may_ask(stream: &UnixStream) -> std::result::Result<(), u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: valid pointers to a ucred and its length.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    // SAFETY: no arguments, cannot fail.
    let ours = got == 0 && (peer.uid == 0 || peer.uid == unsafe { libc::geteuid() });
    if ours { Ok(()) } else { Err(peer.uid) }
}
