//! The event stream, over HTTP and over the control socket.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::pods::HandMade;
use super::{Daemon, LIMIT, PROGRAM, wait_for};

/// Reads events until one is as wanted.
fn until(what: &str, lines: &mut impl Iterator<Item = Value>, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = std::time::Instant::now() + LIMIT;
    let mut seen = Vec::new();
    for event in lines.by_ref() {
        if wanted(&event) {
            return event;
        }
        seen.push(event["type"].clone());
        assert!(std::time::Instant::now() < end, "waited for {what}; there were {seen:?}");
    }
    panic!("the stream ended before {what}; there were {seen:?}");
}

#[test]
fn pods_waits_and_the_end_are_told_over_http() {
    let yaml = "monitor:\n  stream_events: true\n  stream_run_delay_ms: 1\n";
    let Some(daemon) = Daemon::new("events", yaml) else { return };
    wait_for("the monitor", || (daemon.metric("gthulhu_monitor_running") == 1.0).then_some(()));
    let mut stream = daemon.control.connect();
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n")
        .expect("asked");
    let lines = BufReader::new(stream).lines().map_while(Result::ok).inspect(|line| {
        assert!(!line.contains("HTTP/1.1 5"), "{line}");
    });
    // Chunks are lines of their own between the lines of the stream.
    let mut events =
        lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let hello = until("hello", &mut events, |event| event["type"] == "hello");
    assert_eq!(hello["version"], 1);
    let Some(pod) = HandMade::new("while :; do sleep 0.01; done") else { return };
    let uid = json!(pod.uid);
    let added =
        until("the pod", &mut events, |event| event["type"] == "pod_added" && event["pod_uid"] == uid);
    assert!(added["seq"].as_u64() > hello["seq"].as_u64() && added["unix_ms"].is_u64());
    // On a machine where tests run somebody waits for a millisecond in a second.
    let waited = until("a wait", &mut events, |event| event["type"] == "run_delay");
    assert!(
        waited["waited_ms"].as_f64() >= Some(1.0) && waited["tid"].is_u64() && waited["comm"].is_string()
    );
    drop(pod);
    until("its end", &mut events, |event| event["type"] == "pod_removed" && event["pod_uid"] == uid);
    assert!(daemon.metric("gthulhu_events_total") >= 3.0);
    assert_eq!(daemon.metric("gthulhu_events_readers"), 1.0);
    let off = r#"{"configVersion": "1", "streamEvents": false}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", off).code, 200);
    until("the end", &mut events, |event| event["type"] == "end");
    assert!(events.next().is_none(), "the stream ends");
    assert_eq!(daemon.control.get("/api/v1/events", "").code, 503);
}

#[test]
fn the_control_socket_has_the_same_stream_for_the_command_line() {
    let Some(daemon) = Daemon::new("follow", "") else { return };
    let follow = || {
        let mut command = Command::new(PROGRAM);
        command
            .args(["events", "--socket"])
            .arg(daemon.socket())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let refused = follow().output().expect("run");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("monitor.stream_events is off"), "{why}");
    let on = r#"{"configVersion": "1", "streamEvents": true}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", on).code, 200);
    let mut reader = follow().spawn().expect("started");
    let lines = BufReader::new(reader.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    until("hello", &mut events, |event| event["type"] == "hello");
    assert_eq!(daemon.metric("gthulhu_events_readers"), 1.0);
    assert_eq!(daemon.status()["mode"], "none", "others are answered meanwhile");
    // The reader's end is noticed, whether something happens or not.
    reader.kill().and_then(|()| reader.wait()).expect("ended");
    wait_for("its place", || (daemon.metric("gthulhu_events_readers") == 0.0).then_some(()));
}
