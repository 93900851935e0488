//! Who schedules this machine: what the kernel says of sched_ext, and what our daemon says of itself.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// A daemon that does not answer must not hold up everything else for longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read; it has some 6,000.
const MAX_ANSWER: u64 = 1 << 20;

/// Who schedules.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scheduler {
    /// `/sys/kernel/sched_ext/state`; `None`: this kernel has no sched_ext.
    pub(crate) state: Option<String>,
    /// The name of the scheduler that is loaded, ours or another.
    pub(crate) ops: Option<String>,
    /// The daemon, or why it does not answer.
    pub(crate) daemon: Result<Daemon, String>,
}

/// What `gthulhu-daemon status --json` tells, as far as it is shown here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Daemon {
    pub(crate) mode: String,
    pub(crate) reason: String,
    pub(crate) plugin: String,
    pub(crate) ops: String,
    pub(crate) version: String,
    pub(crate) transport: String,
    pub(crate) uptime_ms: u64,
    pub(crate) agent: Option<u64>,
    pub(crate) agent_stopped: bool,
    pub(crate) restarts: u64,
    /// Since the daemon began.
    pub(crate) totals: Decided,
    /// What came to `totals` since the look before, per second; `None` at the first look.
    pub(crate) per_second: Option<Decided>,
    /// How often the core had to take over, and for how long together.
    pub(crate) takeovers: u64,
    pub(crate) degraded_ms: u64,
    pub(crate) legs: Vec<Leg>,
    /// Cgroups with a cpu.max that is not enforced.
    pub(crate) unenforced: u64,
    /// Why the scheduler was removed, if it was.
    pub(crate) ended: Option<String>,
}

/// Who let tasks run, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Decided {
    pub(crate) by_agent: f64,
    pub(crate) permitted: f64,
    pub(crate) kernel_mode: f64,
    pub(crate) taken_over: f64,
}

/// How long one step from a wakeup to running takes, since the daemon began.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Leg {
    pub(crate) name: String,
    pub(crate) count: u64,
    /// At most this.
    pub(crate) p50_ns: u64,
    /// At most this.
    pub(crate) p99_ns: u64,
}

/// Looks again and again.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    before: Option<(u64, Decided)>,
}

impl Watch {
    pub(crate) fn look(&mut self, socket: &Path) -> Scheduler {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(crate::format::printable(text.trim())).filter(|text| !text.is_empty())
        };
        let daemon = ask(socket).and_then(|answer| self.understand(&answer));
        if daemon.is_err() {
            self.before = None;
        }
        Scheduler {
            state: read("/sys/kernel/sched_ext/state"),
            ops: read("/sys/kernel/sched_ext/root/ops"),
            daemon,
        }
    }

    fn understand(&mut self, answer: &str) -> Result<Daemon, String> {
        let object: Value =
            serde_json::from_str(answer).map_err(|e| format!("its answer is no JSON ({e})"))?;
        if let Some(error) = object["error"].as_str() {
            return Err(crate::format::printable(error));
        }
        let mut daemon = daemon(&object);
        let (uptime, totals) = (daemon.uptime_ms, daemon.totals);
        // A daemon that is younger than at the look before is another one.
        daemon.per_second = self.before.filter(|(before, _)| *before < uptime).map(|(before, then)| {
            let rate = |now: f64, then: f64| (now - then).max(0.0) * 1e3 / (uptime - before) as f64;
            Decided {
                by_agent: rate(totals.by_agent, then.by_agent),
                permitted: rate(totals.permitted, then.permitted),
                kernel_mode: rate(totals.kernel_mode, then.kernel_mode),
                taken_over: rate(totals.taken_over, then.taken_over),
            }
        });
        self.before = Some((uptime, totals));
        Ok(daemon)
    }
}

/// One object, over the socket: who says nothing is told the status.
fn ask(socket: &Path) -> Result<String, String> {
    let mut stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "not running".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "not running any more".to_owned(),
        _ => e.to_string(),
    })?;
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let mut answer = String::new();
    stream.flush().and_then(|()| stream.shutdown(Shutdown::Write)).map_err(|e| e.to_string())?;
    match stream.take(MAX_ANSWER).read_to_string(&mut answer) {
        Ok(0) => Err("it closed the connection: is that another user's daemon?".to_owned()),
        Ok(_) => Ok(answer),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Err(format!("no answer within {} ms", PATIENCE.as_millis()))
        }
        Err(e) => Err(e.to_string()),
    }
}

fn daemon(o: &Value) -> Daemon {
    let text = |v: &Value| crate::format::printable(v.as_str().unwrap_or("-"));
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let c = &o["counters"];
    let leg = |leg: &Value| Leg {
        name: text(&leg["name"]),
        count: number(&leg["count"]),
        p50_ns: number(&leg["p50_ns"]),
        p99_ns: number(&leg["p99_ns"]),
    };
    Daemon {
        mode: text(&o["mode"]),
        reason: text(&o["reason"]),
        plugin: text(&o["plugin"]),
        ops: text(&o["ops"]),
        version: text(&o["version"]),
        transport: text(&o["transport"]),
        uptime_ms: number(&o["uptime_ms"]),
        agent: o["agent"]["pid"].as_u64(),
        agent_stopped: o["agent"]["state"] == "stopped",
        restarts: number(&o["agent"]["restarts"]),
        totals: Decided {
            by_agent: number(&c["ev_dispatched"]) as f64,
            permitted: number(&c["permitted"]) as f64,
            kernel_mode: number(&c["kernel_mode"]) as f64,
            taken_over: (number(&c["ev_taken_over"]) + number(&c["core_enqueued"])) as f64,
        },
        per_second: None,
        takeovers: number(&o["transitions"]["left"]),
        degraded_ms: number(&o["transitions"]["degraded_ms"]),
        legs: o["legs"].as_array().into_iter().flatten().map(leg).collect(),
        unenforced: number(&o["limits"]["unenforced"]),
        ended: o["exit"]["reason"].as_str().map(crate::format::printable),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const STATUS: &str = r#"{"mode":"normal","plugin":"gthulhu","ops":"gthulhu","uptime_ms":2000,
        "agent":{"pid":7,"state":"stopped","restarts":2},"transitions":{"left":3,"degraded_ms":40},
        "counters":{"ev_dispatched":300,"permitted":50,"ev_taken_over":4,"core_enqueued":6,"kernel_mode":0},
        "legs":[{"name":"enqueued-seen","count":9,"p50_ns":512,"p99_ns":2048}],"exit":null}"#;

    #[test]
    fn the_daemons_totals_become_rates() {
        let mut watch = Watch::default();
        let first = watch.understand(STATUS).unwrap();
        assert_eq!((first.per_second, first.agent, first.agent_stopped), (None, Some(7), true));
        assert_eq!((first.totals.taken_over, first.takeovers, first.legs[0].p99_ns), (10.0, 3, 2048));
        let later = STATUS.replace("2000", "2500").replace(":300", ":400");
        let second = watch.understand(&later).unwrap().per_second.unwrap();
        assert_eq!((second.by_agent, second.permitted), (200.0, 0.0));
        let another = watch.understand(&STATUS.replace("2000", "100")).unwrap();
        assert_eq!(another.per_second, None, "a younger daemon is another one");
    }

    #[test]
    fn a_daemon_that_is_not_there_or_talks_nonsense_is_told() {
        let folder = std::env::temp_dir().join(format!("gthulhu-top-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        assert_eq!(ask(&socket), Err("not running".to_owned()));
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            for answer in ["{\"mode\":", ""] {
                listener.accept().unwrap().0.write_all(answer.as_bytes()).unwrap();
            }
            listener.accept().unwrap()
        });
        let mut watch = Watch::default();
        let nonsense = watch.look(&socket).daemon.unwrap_err();
        assert!(nonsense.starts_with("its answer is no JSON"), "{nonsense}");
        let closed = watch.look(&socket).daemon.unwrap_err();
        assert!(closed.starts_with("it closed the connection"), "{closed}");
        let silent = watch.look(&socket).daemon.unwrap_err();
        assert_eq!(silent, "no answer within 500 ms");
        drop(server.join());
        assert_eq!(watch.look(&socket).daemon, Err("not running any more".to_owned()));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
