//! The schedulers that are compared, and how each is started, asked and stopped.

use super::Problem;
use crate::process::{Background, wait_for};
use crate::sched::{Daemon, OPS_PREFIX, Scx, assert_disabled, mode, number};
use crate::{Context, Result, sys};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What stands in a table's column.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The kernel's own.
    Kernel,
    /// A policy in our daemon, with options of `gthulhu-daemon run`.
    Ours { plugin: &'static str, args: &'static [&'static str] },
    /// Our core without an answer from the agent.
    CoreAlone { plugin: &'static str },
    /// Another project's program, and how the kernel calls what it loads. `decides`: its first thread takes decisions.
    Peer { program: &'static str, ops: &'static str, decides: bool },
}

/// All of them. Against the first one, the others are measured.
#[rustfmt::skip]
const SCHEDULERS: &[Scheduler] = &[
    Scheduler { name: "EEVDF", kind: Kind::Kernel },
    Scheduler { name: "scx_bpfland", kind: Kind::Peer { program: "scx_bpfland", ops: "bpfland", decides: false } },
    Scheduler { name: "scx_rustland", kind: Kind::Peer { program: "scx_rustland", ops: "rustland", decides: true } },
    Scheduler { name: "simple-fifo", kind: Kind::Ours { plugin: "simple-fifo", args: &["--permit", "0"] } },
    Scheduler { name: "gthulhu", kind: Kind::Ours { plugin: "gthulhu", args: &["--permit", "0"] } },
    Scheduler { name: "gthulhu permits", kind: Kind::Ours { plugin: "gthulhu", args: &[] } },
    Scheduler { name: "kernel mode", kind: Kind::Ours { plugin: "gthulhu", args: &["--kernel-mode"] } },
    Scheduler { name: "core alone", kind: Kind::CoreAlone { plugin: "gthulhu" } },
];

/// As [`crate::sched`] has it: in an emulated guest on a busy host the verifier alone may take ten seconds.
const START_LIMIT: Duration = Duration::from_secs(25);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// From the moment that the kernel says it is loaded, until it is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// The scheduler of this name.
pub(super) fn find(name: &str) -> Result<&'static Scheduler> {
    let all = || SCHEDULERS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    let found = SCHEDULERS.iter().find(|scheduler| scheduler.name == name);
    found.ok_or_else(|| format!("there is no scheduler {name:?}; there are {}", all()))
}

/// One at work.
#[derive(Debug)]
pub(super) struct Running {
    work: Work,
}

#[derive(Debug)]
enum Work {
    Kernel,
    Ours { daemon: Daemon, stopped: Option<i32> },
    Peer { process: Background, ops: &'static str, log: PathBuf, decides: bool },
}

impl Running {
    pub(super) fn start(scheduler: &Scheduler) -> std::result::Result<Self, Problem> {
        let refused = |e: String| Problem::new("refused", e);
        assert_disabled().map_err(|e| Problem::new("failed", e))?;
        let work = match scheduler.kind {
            Kind::Kernel => Work::Kernel,
            Kind::Ours { plugin, args } => {
                Work::Ours { daemon: Daemon::start(plugin, args).map_err(refused)?, stopped: None }
            }
            Kind::CoreAlone { plugin } => {
                let daemon = Daemon::start(plugin, &[]).map_err(refused)?;
                let agent = stop_agent(&daemon).map_err(|e| Problem::new("failed", e))?;
                Work::Ours { daemon, stopped: Some(agent) }
            }
            Kind::Peer { program, ops, decides } => peer(program, ops, decides).map_err(refused)?,
        };
        sys::sleep(SETTLE);
        Ok(Self { work })
    }

    /// What the kernel says; fails when that is not this scheduler.
    pub(super) fn scx(&self) -> Result<Scx> {
        let scx = Scx::read()?;
        let is_it = match &self.work {
            Work::Kernel => scx.state == "disabled",
            Work::Ours { .. } => scx.is_active(OPS_PREFIX),
            Work::Peer { ops, .. } => scx.is_active(ops),
        };
        if is_it {
            Ok(scx)
        } else {
            Err(format!("another is at work: state {}, ops {:?}", scx.state, scx.ops))
        }
    }

    /// The thread that decides.
    pub(super) fn agent(&self) -> Result<Option<i32>> {
        match &self.work {
            Work::Ours { daemon, stopped: None } => daemon.agent_pid(),
            Work::Peer { process, decides: true, .. } => Ok(Some(process.pid())),
            _ => Ok(None),
        }
    }

    /// Its own counters, where it has some that we know.
    pub(super) fn counters(&self) -> Result<Counters> {
        let Work::Ours { daemon, .. } = &self.work else { return Ok(Counters::default()) };
        let status = daemon.status()?;
        let of = |names: &[&str]| {
            names.iter().map(|name| number(&status, &format!("/counters/{name}"))).sum::<Result<u64>>()
        };
        Ok(Counters {
            known: true,
            decisions: of(&["ev_dispatched"])?,
            by_the_core: of(&["ev_taken_over", "core_enqueued", "kernel_mode", "congested", "ev_bounced"])?,
            activations: of(&["activations"])?,
        })
    }

    /// Fails when the scheduler that was at work before is not, or was away in between.
    pub(super) fn assert_still(&mut self, before: &Scx) -> std::result::Result<(), Problem> {
        let now = Scx::read().map_err(|e| Problem::new("failed", e))?;
        let said = match &mut self.work {
            Work::Ours { daemon, stopped: Some(_) } if now == *before => {
                let status = daemon.status().and_then(|status| mode(&status));
                return match status.as_deref() {
                    Ok("degraded") => Ok(()),
                    other => Err(Problem::new("failed", format!("the stopped agent is back: {other:?}"))),
                };
            }
            _ if now == *before => return Ok(()),
            Work::Kernel => String::new(),
            Work::Ours { daemon, .. } => daemon.log_tail(),
            Work::Peer { process, log, .. } => {
                // It says why once the kernel has told it.
                let _ = process.wait(STOP_LIMIT);
                tail(log)
            }
        };
        let text = format!("state {}, ops {:?} (was {:?}); it said: {said}", now.state, now.ops, before.ops);
        Err(Problem::new("ejected", text))
    }

    /// Ends it, and fails unless the kernel's own scheduler is back.
    pub(super) fn stop(self) -> std::result::Result<(), Problem> {
        let failed = |e: String| Problem::new("failed", e);
        match self.work {
            Work::Kernel => {}
            Work::Ours { daemon, stopped } => {
                if let Some(agent) = stopped {
                    sys::signal(agent, libc::SIGCONT).map_err(failed)?;
                }
                daemon.stop().map_err(failed)?;
            }
            Work::Peer { mut process, log, .. } => {
                sys::signal(process.pid(), libc::SIGINT).map_err(failed)?;
                process.wait(STOP_LIMIT).map_err(failed)?;
                let _ = fs::remove_file(log);
            }
        }
        let back = wait_for("end of the scheduler", STOP_LIMIT, || Ok(assert_disabled().ok()));
        back.map(drop).map_err(failed)
    }
}

/// What our daemon counts.
#[derive(Debug, Default, Clone)]
pub(super) struct Counters {
    known: bool,
    decisions: u64,
    by_the_core: u64,
    activations: u64,
}

impl Counters {
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            known: self.known,
            decisions: self.decisions.saturating_sub(before.decisions),
            by_the_core: self.by_the_core.saturating_sub(before.by_the_core),
            activations: self.activations.saturating_sub(before.activations),
        }
    }

    pub(super) fn each(&self, mut value: impl FnMut(&str, f64)) {
        if !self.known {
            return;
        }
        value("own_decisions", self.decisions as f64);
        value("own_activations", self.activations as f64);
        let all = self.decisions + self.by_the_core;
        value("own_decided_percent", 100.0 * self.decisions as f64 / all.max(1) as f64);
    }
}

/// Stops the agent, and waits until the core does without it.
fn stop_agent(daemon: &Daemon) -> Result<i32> {
    let agent = daemon.agent_pid()?.ok_or("there is no agent to stop")?;
    sys::signal(agent, libc::SIGSTOP)?;
    wait_for("degraded mode", Duration::from_secs(5), || {
        // Something has to wait for the agent before it can be late.
        sys::sleep(Duration::from_millis(5));
        Ok((mode(&daemon.status()?)? == "degraded").then_some(()))
    })?;
    Ok(agent)
}

fn peer(program: &str, ops: &'static str, decides: bool) -> Result<Work> {
    let log = std::env::temp_dir().join(format!("lab-{program}-{}.log", sys::now_ns()));
    let file = File::create(&log).cannot(format_args!("write {}", log.display()))?;
    let mut command = Command::new(program);
    command.stdout(file.try_clone().cannot("share the log")?).stderr(file);
    let mut process = Background::spawn(&mut command)?;
    let started = wait_for("scheduler", START_LIMIT, || {
        if !process.is_running()? {
            return Err("it ended".into());
        }
        Ok(Scx::read()?.is_active(ops).then_some(()))
    });
    started.map_err(|e| format!("{program}: {e}; it said: {}", tail(&log)))?;
    Ok(Work::Peer { process, ops, log, decides })
}

/// The end of what it said: the verifier's complaints run to pages.
fn tail(log: &PathBuf) -> String {
    const LINES: usize = 6;
    const BYTES: usize = 600;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let from = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= BYTES).unwrap_or(0);
    text[from..].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fields_and_the_first_is_the_base() {
        assert!(matches!(SCHEDULERS[0].kind, Kind::Kernel));
        for scheduler in SCHEDULERS {
            assert!(!scheduler.name.contains(','), "{}", scheduler.name);
            assert!(find(scheduler.name).is_ok());
        }
        assert!(find("nobody").unwrap_err().contains("EEVDF"));
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        let log = std::env::temp_dir().join(format!("lab-guest-tail-{}", std::process::id()));
        fs::write(&log, format!("{}\nthe last\n", "ä".repeat(5000))).unwrap();
        let text = tail(&log);
        fs::remove_file(&log).unwrap();
        assert!(text.ends_with("the last") && text.len() <= 600, "{}", text.len());
    }

    #[test]
    fn counters_of_others_are_not_made_up() {
        let mut seen = 0;
        Counters::default().each(|_, _| seen += 1);
        assert_eq!(seen, 0);
        let after = Counters { known: true, decisions: 30, by_the_core: 10, activations: 5 };
        let before = Counters { known: true, decisions: 10, by_the_core: 5, activations: 1 };
        let mut seen = Vec::new();
        after.since(&before).each(|key, value| seen.push((key.to_owned(), value)));
        assert_eq!(seen[0], ("own_decisions".into(), 20.0));
        assert_eq!(seen[2], ("own_decided_percent".into(), 80.0));
    }
}
