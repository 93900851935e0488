//! The supervisor: loads the core, holds the link, keeps an agent alive, answers `status`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qumun::kernel::{ExitRecord, LoadedCore, Running, wire};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::compaction::LockedPagesStay;
use crate::limits::{Limits, Scan};
use crate::options::{CoreArgs, PolicyArgs};
use crate::process::Stat;
use crate::progress::{Hang, Look, Progress};
use crate::registry::Registry;
use crate::status::{Facts, Listener, Snapshot};
use crate::{Error, ExitCode, Result, handover, status};

/// Says a line on stderr. Whoever reads it may have gone away: that must not end the scheduler, as
/// `eprintln!` would, which panics then.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

/// What `run` was told.
#[derive(Debug)]
pub(crate) struct Settings {
    /// How this program calls itself.
    pub(crate) program: String,
    pub(crate) policy: PolicyArgs,
    pub(crate) core: CoreArgs,
    pub(crate) max_turn: Duration,
    pub(crate) keep_compaction: bool,
    pub(crate) socket: PathBuf,
    pub(crate) report: Option<PathBuf>,
}

/// How often the supervisor looks whether the kernel has removed the scheduler.
const LOOK: Duration = Duration::from_millis(100);
/// An agent that lived for this long was a good one: the next restart is immediate again.
const GOOD_LIFE: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// This many short lives in a row are a crash loop: the kernel's own scheduler takes over.
const SHORT_LIVES: u32 = 8;

/// Runs until a signal, an ejection or a crash loop. Returns the exit code of the process.
pub(crate) fn run(registry: &Registry, settings: &Settings) -> Result<u8> {
    let plugin = registry.find(settings.policy.plugin.as_deref())?;
    let options = settings.policy.plugin_options().map_err(|e| Error::new(ExitCode::Usage, e))?;
    plugin.check(&options)?;
    let ops = plugin.ops_name();
    let signals = Signals::new()?;
    let running =
        settings.core.apply(settings.policy.builder(ops.clone()).events(plugin.events)).load()?.attach()?;
    // After the load: the kernel's answer about another scheduler is the better one.
    let listener = Listener::bind(&settings.socket)?;
    let mut facts = Facts::new(&plugin.name);
    say!("{}: {ops} schedules, supervisor {}", settings.program, std::process::id());
    let pages = (!settings.keep_compaction).then(LockedPagesStay::begin);
    if pages.as_ref().is_some_and(LockedPagesStay::changed) {
        say!("{}: vm.compact_unevictable_allowed is 0 while it runs", settings.program);
    }
    let mut agent = None;
    let end = supervise(settings, &running, &signals, &listener, &mut facts, &mut agent);
    // The agent outlives the scheduler: if it cannot be waited for, the machine is free all the same.
    let done = finish(settings, running, facts, end);
    drop(agent);
    done
}

/// Why supervision ended.
enum End {
    Signal,
    Removed(ExitRecord),
    CrashLoop(String),
}

fn supervise(
    settings: &Settings,
    running: &Running,
    signals: &Signals,
    listener: &Listener,
    facts: &mut Facts,
    agent: &mut Option<Agent>,
) -> Result<End> {
    *agent = Some(Agent::start(settings, running)?);
    facts.agent = agent.as_ref().map(Agent::pid);
    let mut restart = Restart::default();
    let scan = Scan::default();
    loop {
        let until = restart.due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        wait(
            &[
                signals.fd(),
                listener.listener.as_raw_fd(),
                agent.as_ref().map_or(-1, |a| a.pidfd.as_raw_fd()),
            ],
            until,
        )?;
        if signals.arrived() {
            return Ok(End::Signal);
        }
        if let Some(record) = running.exited() {
            return Ok(End::Removed(record));
        }
        if let Some(hang) = agent.as_mut().and_then(|a| a.look(running.inner())) {
            say!(
                "{}: the agent makes no progress ({}): its turn lasts longer than {} ms; it is ended",
                settings.program,
                hang.name(),
                settings.max_turn.as_millis()
            );
        }
        if let Some((how, reason)) = agent.as_mut().and_then(Agent::ended) {
            facts.agent = None;
            facts.ended(reason);
            let life = agent.take().map_or(Duration::ZERO, |a| a.started.elapsed());
            say!(
                "{}: the agent ended ({how}) after {:.1} s; the core goes on",
                settings.program,
                life.as_secs_f64()
            );
            if !restart.plan(life) {
                return Ok(End::CrashLoop(how));
            }
        }
        if restart.due.is_some_and(|due| due <= Instant::now()) {
            restart.due = None;
            let started = Agent::start(settings, running)?;
            facts.restarts += 1;
            facts.agent = Some(started.pid());
            say!("{}: agent {} started (restart {})", settings.program, started.pid(), facts.restarts);
            *agent = Some(started);
        }
        listener.answer(|| status::object(facts, &snapshot(running.inner(), &scan)));
    }
}

fn snapshot(core: &LoadedCore, scan: &Scan) -> Snapshot {
    let view = core.view();
    let limits = Limits::of(core.enforces_limits(), &view, scan);
    let (page, totals, legs) = (core.agent_page(), core.totals(), core.legs());
    Snapshot { view, page, totals, legs, limits, transport: core.transport().to_string() }
}

/// Detaches, reports, and says how it ended.
fn finish(settings: &Settings, running: Running, mut facts: Facts, end: Result<End>) -> Result<u8> {
    let (record, core) = running.detach();
    let end = end?;
    facts.agent = None;
    facts.exit = match &end {
        End::Removed(record) => Some(record.clone()),
        _ => record,
    };
    let last = status::object(&facts, &snapshot(&core, &Scan::default()));
    if let Some(path) = &settings.report {
        std::fs::write(path, format!("{last}\n"))
            .map_err(|e| Error::system(format!("cannot write the report {}", path.display()), &e))?;
    }
    say!("{}", status::describe(&last).trim_end());
    match end {
        End::Signal => Ok(0),
        End::Removed(record) => {
            if record.is_error() && !record.dump.is_empty() {
                say!("----- the kernel's dump -----\n{}\n----- end of dump -----", record.dump);
            }
            let what = format!("the kernel removed the scheduler: {} ({})", record.reason, record.message);
            if record.is_error() {
                return Err(Error::new(ExitCode::Failed, what));
            }
            say!("{}: {what}", settings.program);
            Ok(0)
        }
        End::CrashLoop(how) => Err(Error::new(
            ExitCode::Failed,
            format!(
                "the agent ended {SHORT_LIVES} times in a row within {} s (last: {how}); \
                 the kernel's own scheduler is back",
                GOOD_LIFE.as_secs()
            ),
        )),
    }
}

/// When the next agent starts: at once after a good life, later after each short one.
#[derive(Debug, Default)]
struct Restart {
    short_lives: u32,
    due: Option<Instant>,
}

impl Restart {
    /// Plans the next start. False: this is a crash loop.
    fn plan(&mut self, life: Duration) -> bool {
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
struct Agent {
    child: Child,
    pidfd: OwnedFd,
    started: Instant,
    progress: Progress,
    hang: Option<Hang>,
}

impl Agent {
    fn start(settings: &Settings, running: &Running) -> Result<Self> {
        let fds = running.agent_fds()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("agent")
            .args(["--supervisor", &std::process::id().to_string()])
            .args(settings.policy.to_args())
            .stdin(Stdio::null());
        handover::give(&mut command, fds.raw());
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
        Ok(Self { child, pidfd, started: Instant::now(), progress, hang: None })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it if it makes no progress, and says why.
    fn look(&mut self, core: &LoadedCore) -> Option<Hang> {
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
    fn ended(&mut self) -> Option<(String, &'static str)> {
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

/// SIGINT and SIGTERM, as a descriptor to wait for.
#[derive(Debug)]
struct Signals {
    receiver: std::os::unix::net::UnixStream,
}

impl Signals {
    fn new() -> Result<Self> {
        let fail = |e: std::io::Error| Error::system("cannot handle signals", &e);
        let (receiver, sender) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
        receiver.set_nonblocking(true).map_err(fail)?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone().map_err(fail)?)
                .map_err(fail)?;
        }
        Ok(Self { receiver })
    }

    fn fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }

    fn arrived(&self) -> bool {
        let mut byte = [0];
        matches!(std::io::Read::read(&mut &self.receiver, &mut byte), Ok(1..))
    }
}

/// Waits until one of the descriptors is readable (negative ones are ignored) or the time is over.
fn wait(fds: &[RawFd], timeout: Duration) -> Result<()> {
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
