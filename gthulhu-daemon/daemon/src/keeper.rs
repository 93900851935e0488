//! Keeps an agent alive: starts it, looks at it, and starts another one when it has ended.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qumun::kernel::{LoadedCore, Running, wire};

use crate::process::Stat;
use crate::progress::{Hang, Look, Progress};
use crate::settings::Settings;
use crate::strategies::{self, AgentLink, Table};
use crate::{Error, Result, handover};

/// An agent that lived for this long was a good one: the next restart is immediate again.
pub(crate) const GOOD_LIFE: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// This many short lives in a row are a crash loop: the kernel's own scheduler takes over.
pub(crate) const SHORT_LIVES: u32 = 8;

/// When the next agent starts: at once after a good life, later after each short one.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    short_lives: u32,
    pub(crate) due: Option<Instant>,
}

impl Restart {
    /// Plans the next start. False: this is a crash loop.
    pub(crate) fn plan(&mut self, life: Duration) -> bool {
        self.short_lives = if life >= GOOD_LIFE { 0 } else { self.short_lives + 1 };
        if self.short_lives >= SHORT_LIVES {
            return false;
        }
        let backoff = if self.short_lives == 0 {
            Duration::ZERO
        } else {
            BACKOFF_FIRST * (1 << (self.short_lives - 1))
        };
        self.due = Some(Instant::now() + backoff);
        true
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pidfd: OwnedFd,
    pub(crate) started: Instant,
    progress: Progress,
    hang: Option<Hang>,
    strategies: AgentLink,
    /// It had no room for the last table.
    owed: Option<Table>,
}

impl Agent {
    pub(crate) fn start(settings: &Settings, running: &Running) -> Result<Self> {
        let fds = running.agent_fds()?;
        let (link, theirs) = strategies::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("agent")
            .args(["--supervisor", &std::process::id().to_string()])
            .args(settings.policy.to_args())
            // What the service manager wants to hear is said by the supervisor.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null());
        let mut all = [theirs.fd(); handover::ALL];
        all.iter_mut().zip(fds.raw()).for_each(|(place, fd)| *place = fd);
        handover::give(&mut command, all);
        // Kept across exec: no huge pages are merged in the agent while it starts (see lock_memory).
        // SAFETY: one async-signal-safe call on plain numbers.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
                Ok(())
            })
        };
        let child = command.spawn().map_err(|e| Error::system("cannot start the agent", &e))?;
        // SAFETY: plain numbers; the child has not been waited for, so the pid is its own.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        if pidfd < 0 {
            return Err(Error::system("cannot watch the agent", &std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor that nothing else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) };
        let progress = Progress::new(settings.max_turn);
        let started = Instant::now();
        Ok(Self { child, pidfd, started, progress, hang: None, strategies: link, owed: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands a table of strategies to it, now or when it reads again.
    pub(crate) fn want(&mut self, table: &Table) {
        // A table that cannot be made is as one for which there is no room.
        let sent = self.strategies.send(table.generation, &table.leases).unwrap_or(false);
        self.owed = (!sent).then(|| table.clone());
    }

    /// The table that it has, if that is news.
    pub(crate) fn has(&mut self) -> Option<strategies::Has> {
        if let Some(owed) = self.owed.take() {
            self.want(&owed);
        }
        self.strategies.heard()
    }

    /// Becomes readable when it ends.
    pub(crate) fn fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }

    /// Ends it if it makes no progress, and says why.
    pub(crate) fn look(&mut self, core: &LoadedCore) -> Option<Hang> {
        if self.hang.is_some() {
            return None;
        }
        let stat = Stat::of(self.pid())?;
        let (view, page) = (core.view(), core.agent_page());
        let at = Instant::now();
        let unanswered = view.mode == wire::DEGRADED && view.agent_pid != 0 && page.ack != view.epoch;
        let counters = page.events.wrapping_add(page.batches).wrapping_add(page.resyncs);
        self.hang = self.progress.look(Look { at, unanswered, counters, stat });
        if self.hang.is_some() {
            // It is waited for as any other that ended.
            let _ = self.child.kill();
        }
        self.hang
    }

    /// How it ended, if it has, and the reason as `status` names it.
    pub(crate) fn ended(&mut self) -> Option<(String, &'static str)> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some((status.to_string(), self.reason(status))),
            Ok(None) => None,
            Err(error) => Some((format!("it cannot be waited for: {error}"), "exited")),
        }
    }

    fn reason(&self, status: ExitStatus) -> &'static str {
        match self.hang {
            Some(hang) => hang.name(),
            None if status.signal().is_some() => "killed",
            None => "exited",
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has nothing to save, and must not outlive us.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_wait_longer_and_end_in_a_crash_loop() {
        let mut restart = Restart::default();
        let mut waits = Vec::new();
        while restart.plan(Duration::from_millis(5)) {
            waits.push(restart.due.expect("planned").saturating_duration_since(Instant::now()));
        }
        assert_eq!(waits.len() as u32, SHORT_LIVES - 1);
        assert!(waits.windows(2).all(|w| w[0] < w[1]), "{waits:?}");
        assert!(waits[0] <= BACKOFF_FIRST);
    }

    #[test]
    fn a_good_life_forgives() {
        let mut restart = Restart::default();
        for _ in 0..100 {
            assert!(restart.plan(Duration::from_millis(5)));
            assert!(restart.plan(GOOD_LIFE));
        }
    }
}
