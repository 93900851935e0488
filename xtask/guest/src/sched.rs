//! The daemon as its users see it: started, asked, stopped; and what the kernel says about it.

use crate::check::ensure;
use crate::process::{self, Background, wait_for};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the kernel tells about schedulers.
pub const SCHED_EXT: &str = "/sys/kernel/sched_ext";
/// How our schedulers' names begin.
pub const OPS_PREFIX: &str = "gthulhu";
/// Until a started daemon decides: a second or two, but in an emulated guest on a host that is busy with other
/// things the verifier alone may take ten. What a load must not take longer than is no question for every suite.
const START_LIMIT: Duration = Duration::from_secs(25);
/// Until a stopped one is gone.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// While a core is loaded the supervisor answers nobody.
const STATUS_LIMIT: Duration = Duration::from_secs(30);

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scx {
    /// `disabled`, `enabling`, `enabled` or `disabling`.
    pub state: String,
    /// Name of the loaded scheduler; empty when none is.
    pub ops: String,
    /// How many schedulers were loaded since boot.
    pub enable_seq: u64,
}

impl Scx {
    /// Reads it.
    ///
    /// # Errors
    /// When the kernel has no sched_ext.
    pub fn read() -> Result<Self> {
        let read = |name: &str| {
            let path = Path::new(SCHED_EXT).join(name);
            fs::read_to_string(&path)
                .map(|text| text.trim().to_string())
                .cannot(format_args!("read {}", path.display()))
        };
        // The folder `root` exists only while a scheduler is loaded.
        let ops = read("root/ops").unwrap_or_default();
        let enable_seq = read("enable_seq")?.parse().cannot("understand enable_seq")?;
        Ok(Self { state: read("state")?, ops, enable_seq })
    }

    /// Whether a scheduler whose name begins so is at work.
    pub fn is_active(&self, prefix: &str) -> bool {
        self.state == "enabled" && self.ops.starts_with(prefix)
    }
}

/// Fails unless a scheduler whose name begins so is at work.
///
/// # Errors
/// When another one or none is.
pub fn assert_active(prefix: &str) -> Result<Scx> {
    let scx = Scx::read()?;
    ensure(scx.is_active(prefix), || format!("state {}, ops {:?}, wanted {prefix}…", scx.state, scx.ops))?;
    Ok(scx)
}

/// Fails unless the kernel's own scheduler is at work.
///
/// # Errors
/// When another one is.
pub fn assert_disabled() -> Result<()> {
    let scx = Scx::read()?;
    ensure(scx.state == "disabled", || format!("state {}, ops {:?}, wanted disabled", scx.state, scx.ops))
}

/// A daemon at work. Dropped without [`Daemon::stop`] it is stopped all the same, by force if need be.
#[derive(Debug)]
pub struct Daemon {
    supervisor: Background,
    supervisor_pid: i32,
    report: PathBuf,
    log: PathBuf,
    /// From start until it decides.
    pub started_in: Duration,
    is_over: bool,
}

/// How a daemon ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code, or 128 and the signal.
    pub code: i32,
    /// What it wrote at the end.
    pub report: Value,
    /// From the signal until the kernel's own scheduler was back.
    pub took: Duration,
}

/// `gthulhu-daemon` beside this program, else from PATH; `$LAB_DAEMON` names another.
pub fn daemon_program() -> PathBuf {
    let own = std::env::var_os("LAB_DAEMON").map(PathBuf::from);
    let beside =
        || Some(std::env::current_exe().ok()?.with_file_name("gthulhu-daemon")).filter(|p| p.exists());
    own.or_else(beside).unwrap_or_else(|| "gthulhu-daemon".into())
}

/// `$LAB_TRANSPORT`: what daemons and the hostile agent are to use in place of their default.
pub fn transport() -> Option<String> {
    std::env::var("LAB_TRANSPORT").ok().filter(|name| !name.is_empty())
}

/// The agent decides.
const NORMAL: &str = "normal";
/// The core does, because it was told to.
const KERNEL: &str = "kernel";

/// `$LAB_OPTIONS`: what each daemon is told besides, so that drills can be run in other modes.
fn options() -> Vec<String> {
    let all = std::env::var("LAB_OPTIONS").unwrap_or_default();
    all.split_whitespace().map(str::to_owned).collect()
}

/// The mode in which a healthy daemon is.
pub fn usual_mode() -> &'static str {
    if in_kernel_mode() { KERNEL } else { NORMAL }
}

/// The counter of what is decided in that mode.
pub fn decided() -> &'static str {
    if in_kernel_mode() { "/counters/kernel_mode" } else { "/counters/dec_applied" }
}

/// Are daemons told to begin in kernel mode?
pub fn in_kernel_mode() -> bool {
    options().iter().any(|option| option == "--kernel-mode")
}

impl Daemon {
    /// Starts the daemon and waits until the kernel runs it and its agent decides. Without a name it is the default plugin,
    /// which can be changed over HTTP then: a flag is stronger.
    ///
    /// # Errors
    /// When it does not in time; the end of what it said is in the text.
    pub fn start(plugin: &str, extra_args: &[&str]) -> Result<Self> {
        Self::start_within(plugin, extra_args, START_LIMIT)
    }

    /// The same with another limit: a load takes the longer the more tasks there are.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_within(plugin: &str, extra_args: &[&str], limit: Duration) -> Result<Self> {
        let stem = std::env::temp_dir().join(format!("lab-daemon-{}-{}", std::process::id(), sys::now_ns()));
        let (report, log) = (stem.with_extension("json"), stem.with_extension("log"));
        let file = File::create(&log).cannot(format_args!("write {}", log.display()))?;
        let mut command = Command::new(daemon_program());
        command.args(["run", "--report"]).arg(&report).args(extra_args).args(options());
        if !plugin.is_empty() {
            command.args(["--plugin", plugin]);
        }
        if let Some(transport) = transport() {
            command.args(["--transport", &transport]);
        }
        command.stdout(file.try_clone().cannot("share the log")?).stderr(file);
        // What is measured here is the scheduler; the suites about the monitor say --set monitor.enabled=on.
        command.env("GTHULHU_MONITOR_ENABLED", "off");
        let supervisor = Background::spawn(&mut command)?;
        let supervisor_pid = supervisor.pid();
        let mut daemon =
            Self { supervisor, supervisor_pid, report, log, started_in: Duration::ZERO, is_over: false };
        let mut last = Err("it was not asked yet".to_string());
        let started = wait_for("decisions", limit, || {
            if !daemon.supervisor.is_running()? {
                return Err("it ended".into());
            }
            last = assert_active(OPS_PREFIX).and_then(|_| status());
            let alone = extra_args.contains(&"--kernel-mode") || in_kernel_mode();
            let wanted = if alone { KERNEL } else { NORMAL };
            let decides = last
                .as_ref()
                .is_ok_and(|status| status["mode"] == wanted && (!alone || agent_pid(status).is_some()));
            Ok(decides.then_some(()))
        });
        match started {
            Ok(((), took)) => daemon.started_in = took,
            Err(e) => {
                let last =
                    last.map_or_else(|e| e, |s| format!("agent: {}; status: {s}", what_the_agent_does(&s)));
                return Err(format!("plugin {plugin}: {e}; {last}; it said: {}", daemon.log_tail()));
            }
        }
        Ok(daemon)
    }

    /// What it says now.
    ///
    /// # Errors
    /// When it does not answer, or not in JSON.
    pub fn status(&self) -> Result<Value> {
        status()
    }

    /// The process that holds the scheduler.
    pub fn supervisor_pid(&self) -> i32 {
        self.supervisor_pid
    }

    /// The process that decides, if there is one now.
    ///
    /// # Errors
    /// As [`Daemon::status`].
    pub fn agent_pid(&self) -> Result<Option<i32>> {
        Ok(agent_pid(&status()?))
    }

    /// Ends it by SIGTERM, and fails unless the kernel's own scheduler is back and the report is there.
    ///
    /// # Errors
    /// When one of these does not happen within five seconds.
    pub fn stop(mut self) -> Result<Outcome> {
        let start = sys::now_ns();
        sys::signal(self.supervisor_pid, libc::SIGTERM)?;
        self.wait_for_end(start, STOP_LIMIT)
    }

    /// Waits for an end that somebody else has brought about; also returns what it said.
    ///
    /// # Errors
    /// As [`Daemon::stop`].
    pub fn ended(mut self, limit: Duration) -> Result<(Outcome, String)> {
        let log = self.log.clone();
        // Read first: a daemon that ended well takes its log along.
        self.supervisor.wait(limit)?;
        let said = fs::read(&log).unwrap_or_default();
        Ok((self.wait_for_end(sys::now_ns(), limit)?, String::from_utf8_lossy(&said).into_owned()))
    }

    fn wait_for_end(&mut self, start: u64, limit: Duration) -> Result<Outcome> {
        let status = self.supervisor.wait(limit)?;
        wait_for("end of the scheduler", limit, || Ok(assert_disabled().ok()))?;
        let took = Duration::from_nanos(sys::now_ns() - start);
        self.is_over = true;
        let code = process::exit_code(status);
        if code != 0 {
            self.print_log();
        }
        let text = fs::read_to_string(&self.report)
            .cannot(format_args!("read the report (exit code {code}; it said: {})", self.log_tail()))?;
        let report = serde_json::from_str(&text).cannot("understand the report")?;
        let _ = fs::remove_file(&self.report);
        let _ = fs::remove_file(&self.log);
        Ok(Outcome { code, report, took })
    }

    /// Kills the supervisor, as the kernel does when memory is short. Nothing is left to stop afterwards.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_supervisor(&mut self) -> Result<()> {
        sys::signal(self.supervisor_pid, libc::SIGKILL)?;
        self.supervisor.wait(STOP_LIMIT)?;
        self.is_over = true;
        Ok(())
    }

    /// All that it said, the kernel's dump included: what a person needs when a check failed.
    fn print_log(&self) {
        let text = fs::read(&self.log).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        for line in String::from_utf8_lossy(&text).lines() {
            let _ = writeln!(out, "# {line}");
        }
    }

    /// The last lines of what it said, on one line.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.is_over {
            // The wish first, so that a drill that failed half-way leaves no scheduler behind; `supervisor` kills
            // what is left.
            let _ = sys::signal(-self.supervisor_pid, libc::SIGCONT);
            let _ = sys::signal(self.supervisor_pid, libc::SIGTERM);
            let _ = self.supervisor.wait(STOP_LIMIT);
            self.print_log();
        }
    }
}

/// What the daemon says now.
///
/// # Errors
/// When none answers, or not in JSON.
pub fn status() -> Result<Value> {
    let said = process::run(Command::new(daemon_program()).args(["status", "--json"]), STATUS_LIMIT)?;
    ensure(said.code == 0, || format!("status: exit {}: {}", said.code, said.err))?;
    serde_json::from_str(&said.out).cannot("understand the status")
}

/// A number of a status, by its JSON pointer.
///
/// # Errors
/// When it is not there.
pub fn number(status: &Value, pointer: &str) -> Result<u64> {
    let value = status.pointer(pointer).and_then(Value::as_u64);
    value.ok_or_else(|| format!("the status has no number {pointer}"))
}

/// `normal`, `degraded` or `kernel`.
///
/// # Errors
/// When it is not there.
pub fn mode(status: &Value) -> Result<String> {
    let mode = status.get("mode").and_then(Value::as_str);
    mode.map(str::to_string).ok_or_else(|| "the status has no mode".into())
}

/// The process that decides, if there is one.
pub fn agent_pid(status: &Value) -> Option<i32> {
    status.pointer("/agent/pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok())
}

/// What the kernel says the agent is doing, for a person who must find out why it does not decide: its threads'
/// state, where they wait, and the `schedstat` (ns run, ns waited, times run) of two moments.
pub fn what_the_agent_does(status: &Value) -> String {
    let Some(pid) = agent_pid(status) else { return "there is no agent".into() };
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |thread: &fs::DirEntry, name: &str| {
        fs::read_to_string(thread.path().join(name)).unwrap_or_default().trim().replace('\n', " ")
    };
    let before: Vec<String> = threads().map(|thread| read(&thread, "schedstat")).collect();
    sys::sleep(Duration::from_millis(200));
    let lines = threads().zip(before).map(|(thread, before)| {
        let stat = read(&thread, "stat");
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]);
        format!(
            "thread {} state {state}, waits in {}, stack {}, ran {before} and 200 ms later {}",
            thread.file_name().to_string_lossy(),
            read(&thread, "wchan"),
            read(&thread, "stack"),
            read(&thread, "schedstat")
        )
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// How often the core began to schedule by itself, for whatever reason.
///
/// # Errors
/// When the status does not tell.
pub fn times_entered(status: &Value) -> Result<u64> {
    let entered = status.pointer("/transitions/entered").and_then(Value::as_object);
    let entered = entered.ok_or("the status has no /transitions/entered")?;
    Ok(entered.values().filter_map(Value::as_u64).sum())
}
