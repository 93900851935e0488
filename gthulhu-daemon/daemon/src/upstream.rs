//! Mode `scx`: another project's scheduler, run by its own program and looked after like our agent.
//!
//! What is run is decided in `gthulhu_config::scx`: a name of a list, in a folder that root alone can write, opened once
//! and run by that descriptor. Whether it schedules is not asked of the program but of the kernel
//! (/sys/kernel/sched_ext). It dies with the supervisor, and so does its scheduler: the kernel's own is back then.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gthulhu_config::ScxChoice;
use qumun::kernel::Probe;
use serde_json::{Value, json};

use crate::log::Log;
use crate::signals::wait;
use crate::words::Words;
use crate::{Error, ExitCode, Result};

/// Until it schedules: the kernel's check of such a program takes a second or two, more where CPUs are emulated.
const LOAD_TIME: Duration = Duration::from_secs(60);
/// How long whoever has asked for it waits to hear whether it schedules.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// One that was removed from the kernel ends by itself, or loads itself anew, within this time.
const AWAY_TIME: Duration = Duration::from_secs(5);
/// From SIGINT to SIGKILL, and from its end to that of its scheduler.
const STOP_TIME: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// Where it may find programs of its own; it gets nothing else of our environment.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Lines of its last words in a message; `status` has more.
const LAST_LINES: usize = 5;

/// A program of others' that schedules, or is about to. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Upstream {
    choice: ScxChoice,
    args: Vec<String>,
    child: Child,
    pidfd: OwnedFd,
    started: Instant,
    /// How many schedulers had been loaded before it.
    seq_before: u64,
    /// Since the kernel has said that it schedules: under which name, and how long that took.
    loaded: Option<(String, Duration)>,
    /// Since when the kernel says that it does not any more.
    away: Option<Instant>,
    words: Words,
}

/// What a look at it found.
#[derive(Debug)]
pub(crate) enum Found {
    /// As before.
    Fine,
    /// From now on the kernel says that it schedules.
    Schedules,
    /// It has ended, or had to be, because of this.
    Ended(String),
}

impl Upstream {
    /// Starts the program. That it schedules is seen by [`look`](Self::look).
    pub(crate) fn start(choice: ScxChoice, args: Vec<String>, log: &Log) -> Result<Self> {
        let program = choice.open().map_err(|e| Error::new(ExitCode::Usage, e.to_string()))?;
        let cannot =
            |what: &str, e: &std::io::Error| Error::system(format!("{what} {}", choice.path().display()), e);
        let (reader, writer) = std::io::pipe().map_err(|e| cannot("cannot listen to", &e))?;
        let errors = writer.try_clone().map_err(|e| cannot("cannot listen to", &e))?;
        let seq_before = Probe::here().enable_seq.unwrap_or(0);
        let us = std::process::id();
        let mut command = program.command();
        command
            .args(&args)
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            // What is typed at our terminal is for us: it is told by us.
            .process_group(0);
        let die_with_us = move || {
            // SAFETY: plain numbers, and two async-signal-safe calls.
            unsafe {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // We may have died before that.
                if libc::getppid() as u32 != us {
                    libc::_exit(1);
                }
            }
            Ok(())
        };
        // SAFETY: see there; nothing is allocated.
        unsafe { command.pre_exec(die_with_us) };
        let child = command.spawn().map_err(|e| cannot("cannot run", &e))?;
        // The writing ends are the child's alone from here on, so that its end is the end of its words.
        drop(command);
        let name = format!("{}[{}]", choice.name(), child.id());
        // SAFETY: plain numbers; the child has not been waited for, so the pid is its own.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        if pidfd < 0 {
            return Err(cannot("cannot watch", &std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor that nothing else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) };
        let words = Words::listen(reader, name, log.clone()).map_err(|e| cannot("cannot listen to", &e))?;
        let started = Instant::now();
        Ok(Self { choice, args, child, pidfd, started, seq_before, loaded: None, away: None, words })
    }

    /// Starts the program, and waits for a while until it schedules. One that needs longer is looked at later.
    pub(crate) fn begin(choice: ScxChoice, args: Vec<String>, patience: Duration, log: &Log) -> Result<Self> {
        let mut new = Self::start(choice, args, log)?;
        while new.started.elapsed() < patience {
            match new.look() {
                Found::Fine => wait(&[new.fd()], LOOK)?,
                Found::Schedules => break,
                Found::Ended(how) => {
                    return Err(Error::new(ExitCode::Failed, format!("{} {how}", new.choice.name())));
                }
            }
        }
        Ok(new)
    }

    /// Whether it is this one.
    pub(crate) fn is(&self, choice: &ScxChoice, args: &[String]) -> bool {
        self.choice == *choice && self.args == args
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.choice.name()
    }

    /// Becomes readable when it ends.
    pub(crate) fn fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }

    /// For how long it has been there.
    pub(crate) fn life(&self) -> Duration {
        self.started.elapsed()
    }

    /// As the kernel calls what it has loaded, and how long that took.
    pub(crate) fn loaded(&self) -> Option<&(String, Duration)> {
        self.loaded.as_ref()
    }

    /// All that is kept of what it said.
    pub(crate) fn words(&self) -> String {
        self.words.all()
    }

    /// Looks after it.
    pub(crate) fn look(&mut self) -> Found {
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Found::Ended(self.last_words(&format!("ended ({status})"))),
            Err(error) => return Found::Ended(format!("cannot be waited for: {error}")),
        }
        let now = Probe::here();
        let schedules = now.state.as_deref() == Some("enabled") && now.enable_seq > Some(self.seq_before);
        match (&self.loaded, schedules) {
            (None, true) => {
                self.loaded = Some((now.ops.unwrap_or_default(), self.started.elapsed()));
                return Found::Schedules;
            }
            (None, false) if self.started.elapsed() >= LOAD_TIME => {
                return self.kill(&format!("loads no scheduler within {} s", LOAD_TIME.as_secs()));
            }
            (Some(_), true) => self.away = None,
            (Some(_), false) => {
                let since = *self.away.get_or_insert_with(Instant::now);
                if since.elapsed() >= AWAY_TIME {
                    return self.kill("does not schedule any more, and does not end");
                }
            }
            (None, false) => {}
        }
        Found::Fine
    }

    fn kill(&mut self, why: &str) -> Found {
        let _ = self.child.kill();
        let _ = self.child.wait();
        Found::Ended(self.last_words(why))
    }

    fn last_words(&self, how: &str) -> String {
        // The listening thread may still be reading what was written last.
        std::thread::sleep(Duration::from_millis(20));
        match self.words.last(LAST_LINES) {
            words if words.is_empty() => how.to_owned(),
            words => format!("{how}; it said: {}", words.replace('\n', " | ")),
        }
    }

    /// For `status`.
    pub(crate) fn json(&self) -> Value {
        let now = Probe::here();
        json!({
            "name": self.name(),
            "path": self.choice.path().to_string_lossy(),
            "args": self.args,
            "pid": self.child.id(),
            "state": match (&self.loaded, self.away) {
                (None, _) => "loading",
                (Some(_), None) => "schedules",
                (Some(_), Some(_)) => "removed",
            },
            "ops": self.loaded.as_ref().map(|(ops, _)| ops),
            "load_ms": self.loaded.as_ref().map(|(_, took)| took.as_millis() as u64),
            "loads": now.enable_seq.map(|seq| seq.saturating_sub(self.seq_before)),
            "uptime_ms": self.life().as_millis() as u64,
        })
    }

    fn ended_within(&mut self, time: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            if begun.elapsed() >= time || wait(&[self.fd()], LOOK).is_err() {
                return false;
            }
        }
    }
}

impl Drop for Upstream {
    /// Asks it to end, makes it end, and waits until the kernel's own scheduler is back.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: plain numbers; the child has not been waited for, so the pid is its own.
            unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
            if !self.ended_within(STOP_TIME) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIME && Probe::here().check_free().is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
