//! The control socket: who may, what is no order, and what cannot be run.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, PROGRAM};

fn say(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    // It may answer and close before it has read all.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn what_is_no_order_is_refused_counted_and_changes_nothing() {
    let Some(daemon) = Daemon::new("garbage", "") else { return };
    let before = daemon.control.get("/api/v1/runtime-config", "").body;
    // Clients that say nothing, one of them in the middle of a body: the others do not wait for them.
    let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(daemon.socket()).expect("connected")).collect();
    (&silent[0]).write_all(b"runtime-config apply\n{\"configVersion\":").expect("written");
    let long = [b"runtime-config apply\n".as_slice(), &[b' '; 70_000]].concat();
    for (said, expected) in [
        (b"\0\xff\xfe\n".as_slice(), "is no order"),
        (b"mode both\n", "'mode both' is no order"),
        (&[b'x'; 100_000], "is no order"),
        (b"runtime-config apply\n{", "is no JSON object"),
        (b"runtime-config apply\n{\"configVersion\": \"1\", \"permit\": -1}", "request:1:34: permit: -1"),
        (b"runtime-config apply perhaps\n", "is no order"),
    ] {
        let answer = say(&daemon, said);
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    let answer = say(&daemon, &long);
    assert!(answer.contains("longer than 65536 bytes") || answer.is_empty(), "{answer}");
    let begun = Instant::now();
    let status = daemon.status();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(status["control"], json!({ "strangers": 0, "garbage": 4 }));
    assert_eq!(daemon.control.get("/api/v1/runtime-config", "").body, before);
    assert_eq!(daemon.metric("gthulhu_control_garbage_total"), 4.0);
}

#[test]
fn somebody_else_is_told_that_he_may_not() {
    let Some(daemon) = Daemon::new("stranger", "") else { return };
    let program = daemon.folder.0.join("gthulhu-daemon");
    fs::copy(PROGRAM, &program).expect("a program that everybody can run");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
    // Its own mode keeps everybody out; somebody has changed that.
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).expect("set");
    let ask = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).arg("--socket").arg(daemon.socket()).uid(65534).gid(65534).current_dir("/");
        command.output().expect("run")
    };
    let said = ask(&["status"]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(77), "{text}");
    assert!(text.contains("only root and whoever runs the daemon may ask, not user 65534"), "{text}");
    assert!(!ask(&["config", "set", "permit=9"]).status.success());
    assert!(!ask(&["mode", "kernel"]).status.success());
    assert_eq!(daemon.status()["control"]["strangers"], 3);
    assert_eq!(daemon.control.get("/api/v1/runtime-config", "").json()["permit"], 64);
    assert!(daemon.log().contains("user 65534 asked on the control socket and was refused"));
}

#[test]
fn a_program_of_mode_scx_that_is_not_there_is_refused_before_anything_is_changed() {
    let Some(daemon) = Daemon::new("scx", "") else { return };
    let body = r#"{"configVersion": "1", "mode": "scx", "schedulerName": "scx_lavd"}"#;
    if std::path::Path::new("/usr/bin/scx_lavd").exists() {
        println!("skip: this machine has scx_lavd");
        return;
    }
    let refused = daemon.control.post("/api/v1/runtime-config", body);
    assert_eq!(refused.code, 400, "{}", refused.body);
    let problem = &refused.json()["problems"][0];
    assert_eq!((&problem["field"], &problem["line"]), (&json!("schedulerName"), &json!(1)));
    assert!(
        problem["message"].as_str().is_some_and(|why| why.contains("scx_lavd: is not there")),
        "{problem}"
    );
    for name in ["sh", "../bin/sh", "/bin/sh", "scx_lavd/../sh"] {
        let body = format!(r#"{{"configVersion": "1", "schedulerName": "{name}"}}"#);
        let refused = daemon.control.post("/api/v1/runtime-config", &body);
        let why = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(refused.code == 400 && why.contains("is no scheduler that is run"), "{name}: {why}");
    }
    let answer: Value = daemon.status();
    assert_eq!(answer["mode"], "none");
}
