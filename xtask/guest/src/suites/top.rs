//! `gthulhu-daemon top` and the event stream beside a daemon that schedules: they say what status says.

use super::{PLUGIN, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, number};
use crate::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// What status counts and top shows, by their names there and here.
const GROWING: [(&str, &str); 3] = [
    ("/counters/ev_dispatched", "decided"),
    ("/counters/permitted", "permitted"),
    ("/transitions/left", "takeovers"),
];

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    let extra = ["--set", "monitor.enabled=on", "--set", "monitor.stream_events=on"];
    let daemon = Daemon::start(PLUGIN, &extra)?;
    let seq = enable_seq()?;
    let hogs = Background::load(&["race", "--secs", "60", "hogs:3", "sleepers:4:work_us=200:sleep_us=2000"])?;
    wait_for("the agent", LIMIT, || Ok((daemon.status()?["mode"] == "normal").then_some(())))?;
    checks.check("top.status", || {
        let before = daemon.status()?;
        let top = top(&[])?;
        let after = daemon.status()?;
        let shown = &top["scheduler"]["daemon"];
        ensure(top["scheduler"]["daemon_error"].is_null(), || format!("{}", top["scheduler"]))?;
        for (status, name) in [
            ("mode", "mode"),
            ("plugin", "plugin"),
            ("agent/restarts", "restarts"),
            ("agent/pid", "agent_pid"),
        ] {
            let said = after.pointer(&format!("/{status}"));
            ensure(said == Some(&shown[name]), || format!("{name}: top {}, status {said:?}", shown[name]))?;
        }
        ensure(top["scheduler"]["ops"] == after["ops"], || {
            format!("{} and {}", top["scheduler"]["ops"], after["ops"])
        })?;
        for (status, name) in GROWING {
            let (least, most) = (number(&before, status)?, number(&after, status)?);
            let said = shown[name].as_u64().ok_or_else(|| format!("top has no {name}"))?;
            ensure((least..=most).contains(&said), || {
                format!("{name}: top {said}, status {least} to {most}")
            })?;
        }
        let legs = |of: &Value| of["legs"].as_array().map_or(0, Vec::len);
        ensure(legs(shown) == legs(&after) && legs(shown) == 5, || format!("{} legs", legs(shown)))?;
        let rows = top["rows"].as_array().map_or(0, Vec::len);
        ensure(rows > 0, || "no rows".into())?;
        Ok(format!(
            "{rows} rows; mode, plugin, agent and counters as in status; {} decided",
            shown["decided"]
        ))
    });
    checks.check("top.threads", || {
        let top = top(&["--by", "threads", "--sort", "cpu"])?;
        let rows = top["rows"].as_array().ok_or("no rows")?;
        // Whatever else runs: three hogs on two CPUs are the first, and wait for each other.
        let ran: f64 = rows.iter().take(3).filter_map(|row| row["cpu_ratio"].as_f64()).sum();
        ensure(ran > 0.5, || format!("the first three ran for {ran:.2} CPUs"))?;
        Ok(format!("the first three threads have {ran:.2} CPUs"))
    });
    checks.check("top.events", || {
        let mut reader = Reader::start()?;
        reader.wait_for("hello", |event| event["type"] == "hello")?;
        let pid = daemon.agent_pid()?.ok_or("there is no agent")?;
        crate::sys::signal(pid, libc::SIGKILL)?;
        let told = reader.wait_for("the agent's end", |event| {
            event["type"] == "scheduler" && event["agent_restarts"].as_u64() > Some(0)
        })?;
        reader.wait_for("normal again", |event| event["type"] == "scheduler" && event["mode"] == "normal")?;
        wait_for("the agent", LIMIT, || Ok(sched::agent_pid(&daemon.status()?).map(drop)))?;
        healthy(&daemon, seq)?;
        Ok(format!("the agent was killed: {} take-overs told, then mode normal", told["takeovers"]))
    });
    drop(hogs);
    stop_well(daemon).map(drop)
}

fn top(args: &[&str]) -> Result<Value> {
    let out = Command::new(sched::daemon_program()).args(["top", "--once", "--json"]).args(args).output();
    let out = out.cannot("run top")?;
    ensure(out.status.success(), || String::from_utf8_lossy(&out.stderr).into_owned())?;
    serde_json::from_slice(&out.stdout).cannot("understand top")
}

/// `gthulhu-daemon events`, ended when dropped.
struct Reader {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Reader {
    fn start() -> Result<Self> {
        let mut child = Command::new(sched::daemon_program())
            .arg("events")
            .stdout(Stdio::piped())
            .spawn()
            .cannot("start events")?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let (out, heard) = (child.stdout.take().ok_or("no output")?, Arc::clone(&events));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
            }
        });
        Ok(Self { child, events })
    }

    /// The first event that is so; those before it are gone.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(what, LIMIT, || {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let at = events.iter().position(&wanted);
            Ok(at.map(|at| events.drain(..=at).next_back().unwrap_or_default()))
        })
        .map(|(event, _)| event)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
