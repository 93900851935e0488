//! The daemon's addresses as a client of them sees them.

use super::healthy;
use crate::check::ensure;
use crate::process::wait_for;
use crate::sched::{self, Daemon};
use crate::{Context, Result, sys};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
pub(super) const CONTROL: &str = "127.0.0.1:18080";
pub(super) const METRICS: &str = "127.0.0.1:9090";
/// Where it keeps what is applied, and its token, in suites about that.
pub(super) const FOLDER: &str = "/var/lib/gthulhu-lab";
pub(super) const STATE: &str = "daemon.runtime_config_path=/var/lib/gthulhu-lab/runtime.json";
/// Until something is so that should be so at once; a change that loads a core takes some seconds in an emulated guest.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the agent decides, on the core that was attached as number `seq`.
pub(super) fn decides(daemon: &Daemon, seq: u64) -> Result<Value> {
    wait_for("the agent", LIMIT, || {
        let status = daemon.status()?;
        Ok((status["mode"] == "normal" && sched::agent_pid(&status).is_some()).then_some(()))
    })?;
    healthy(daemon, seq)
}

/// Fails unless the metrics have this line.
pub(super) fn metric(line: &str) -> Result<()> {
    let (code, text) = ask(METRICS, "GET", "/metrics", "")?;
    ensure(code == 200 && text.lines().any(|l| l == line), || format!("no {line}: {text}"))
}

/// The sum of all series whose names begin so.
pub(super) fn metric_sum(name: &str) -> Result<f64> {
    let (_, text) = ask(METRICS, "GET", "/metrics", "")?;
    let of = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let values: Vec<f64> = text.lines().filter(|line| line.starts_with(name)).filter_map(of).collect();
    ensure(!values.is_empty(), || format!("no {name}: {text}"))?;
    Ok(values.iter().sum())
}

/// Posts a change, and fails unless it is answered with this code.
pub(super) fn change(mut body: Value, query: &str, wanted: u16) -> Result<Value> {
    body["configVersion"] = sys::now_ns().to_string().into();
    let (code, text) = ask(CONTROL, "POST", &format!("/api/v1/runtime-config{query}"), &body.to_string())?;
    ensure(code == wanted, || format!("{body}: {code} {text}"))?;
    serde_json::from_str(&text).cannot("understand the answer")
}

/// The status over HTTP.
pub(super) fn http_status() -> Result<Value> {
    let (code, text) = ask(CONTROL, "GET", "/api/v1/status", "")?;
    ensure(code == 200, || format!("{code}: {text}"))?;
    serde_json::from_str(&text).cannot("understand the status")
}

/// One request, with the token that the daemon has made; code and body of the answer.
pub(super) fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).cannot(format_args!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT)).cannot("set a time")?;
    let token = fs::read_to_string(Path::new(FOLDER).join("control-token")).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        token.trim(),
        body.len()
    );
    stream.write_all((head + body).as_bytes()).cannot("ask")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).cannot("read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer but '{text}'"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no code")?;
    Ok((code, body.to_owned()))
}
