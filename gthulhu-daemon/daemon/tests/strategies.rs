//! Strategies in a daemon of mode `none`: from a decision maker that may do anything, from a file, and to their end. Needs
//! root. What they do to scheduling is checked in a guest.

#[path = "../../../control-plane/api/tests/server/mod.rs"]
mod server;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Server, begin_stream, event, reply};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gthulhu-daemon");
const LIMIT: Duration = Duration::from_secs(30);
const LIST: &str = "/api/v1/scheduling/strategies";
const STREAM: &str = "/api/v1/scheduling/strategies/stream";

fn us() -> u32 {
    std::process::id()
}

fn list(records: &Value) -> String {
    json!({ "success": true, "message": "", "timestamp": "", "scheduling": records }).to_string()
}

#[test]
fn a_stream_is_followed_and_explained() {
    // What is sent into it goes to who listens.
    let next = Arc::new(Mutex::new(Vec::<String>::new()));
    let events = Arc::clone(&next);
    let server = Server::new(move |asked, out| match asked.path.as_str() {
        STREAM => {
            begin_stream(out)?;
            event(
                out,
                "strategies",
                &list(&json!([{ "pid": us(), "priority": 3, "command_regex": "web" }])),
            )?;
            loop {
                for data in events.lock().expect("no panic").drain(..) {
                    event(out, "strategies", &data)?;
                }
                event(out, "alive", "")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        LIST => reply(out, 200, &list(&json!([]))),
        _ => reply(out, 200, "{}"),
    });
    let Some(daemon) = Daemon::new("stream", &server.url(), "") else { return };
    let explained = daemon.until("the strategy", || {
        let said = daemon.explain(us());
        (said["strategy"]["name"] == "web").then_some(said)
    });
    assert_eq!(
        (&explained["class"], &explained["strategy"]["source"]),
        (&json!("latency 3"), &json!("decision-maker"))
    );
    assert_eq!((&explained["budget"]["millicpu"], &explained["sliceUs"]), (&json!(200), &Value::Null));
    let left = explained["strategy"]["ttlLeftMs"].as_u64().expect("a TTL");
    assert!(left > 80_000 && left <= 90_000, "{left}");
    let why = explained["why"].to_string();
    assert!(why.contains("all threads of process") && why.contains("nothing of ours schedules"), "{why}");
    // One is refused, one has ended, one is a better one.
    let third = json!([{ "pid": us(), "class": "bestEffort", "execution_time": 3_000_000, "strategy": "s" },
        { "pid": us(), "priority": 99 }, { "pid": 4_194_304, "priority": 1 }, { "pid": us(), "priority": 9, "strategy": "t" }]);
    next.lock().expect("no panic").push(list(&third));
    daemon.until("the change", || (daemon.explain(us())["strategy"]["name"] == "t").then_some(()));
    let said = daemon.explain(us());
    assert_eq!(said["others"][0]["name"], "s");
    assert!(said["others"][0]["why"].as_str().is_some_and(|why| why.contains("stronger class")), "{said}");
    let status = daemon.strategies();
    assert_eq!((&status["refused"], &status["gone"]), (&json!(1), &json!(1)));
    let maker = &status["sources"]["decision-maker"];
    assert_eq!((&maker["by"], &maker["up"], &maker["targets"]), (&json!("stream"), &json!(true), &json!(2)));
    assert!(
        maker["refused"][0].as_str().is_some_and(|why| why.contains("scheduling[1].priority")),
        "{maker}"
    );
    let text = daemon.run(&["explain", &us().to_string()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("class     latency 9") && text.contains("not       's' (best-effort)"), "{text}");
    // A list that makes no sense changes nothing, and is reported.
    next.lock().expect("no panic").push("{\"success\": false}".into());
    daemon
        .until("the report", || daemon.strategies()["sources"]["decision-maker"]["error"].as_str().map(drop));
    assert_eq!(daemon.explain(us())["strategy"]["name"], "t");
}

#[test]
fn what_a_silent_source_wanted_fades_and_comes_back_with_it() {
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    // The original's: no stream.
    let server = Server::new(move |asked, out| match asked.path.as_str() {
        _ if is_silent.load(Ordering::SeqCst) => Ok(()),
        LIST => reply(out, 200, &list(&json!([{ "pid": us(), "priority": true }]))),
        STREAM => reply(out, 404, ""),
        _ => reply(out, 200, "{}"),
    });
    let Some(daemon) = Daemon::new("silent", &server.url(), "  strategy_ttl_sec: 2\n") else { return };
    let there = |wanted: bool| move |said: &Value| said["strategy"].is_null() != wanted;
    let until = |wanted: bool| {
        daemon.until("the strategy, or its end", || {
            let said = daemon.explain(us());
            there(wanted)(&said).then_some(said)
        })
    };
    assert_eq!(until(true)["class"], "latency 10");
    // Polling confirms it for longer than its TTL.
    let lists = || daemon.strategies()["sources"]["decision-maker"]["lists"].as_u64().unwrap_or(0);
    let begun = (Instant::now(), lists());
    while begun.0.elapsed() < Duration::from_millis(2_500) || lists() < begun.1 + 2 {
        assert!(!daemon.explain(us())["strategy"].is_null(), "it has faded: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(daemon.strategies()["sources"]["decision-maker"]["by"], "polling");
    silent.store(true, Ordering::SeqCst);
    let gone = until(false);
    assert!(gone["why"].to_string().contains("has faded"), "{gone}");
    assert_eq!(
        (&gone["class"], &gone["faded"][0]["name"]),
        (&json!("normal"), &json!(format!("pid {}", us())))
    );
    let status = daemon.strategies();
    assert_eq!((&status["faded"], &status["sources"]["decision-maker"]["up"]), (&json!(1), &json!(false)));
    assert!(daemon.log().contains("fade to default"), "{}", daemon.log());
    let metrics = daemon.metrics();
    for line in ["gthulhu_strategy_faded_total 1", "gthulhu_strategy_source_up{source=\"decision-maker\"} 0"]
    {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    assert!(
        metrics.contains("gthulhu_strategy_receipt_seconds_bucket{to=\"core\",le=\"+Inf\"} 0"),
        "nothing schedules"
    );
    silent.store(false, Ordering::SeqCst);
    until(true);
}

#[test]
fn a_decision_maker_that_does_anything_stops_nobody() {
    let turn = Arc::new(AtomicU32::new(0));
    let asked_so_often = Arc::clone(&turn);
    let server = Server::new(move |asked, out| {
        let n = asked_so_often.fetch_add(1, Ordering::SeqCst);
        match (asked.path.as_str(), n % 6) {
            (STREAM, 0..=1) => {
                begin_stream(out)?;
                loop {
                    out.write_all(&[b'x'; 65_536])?;
                }
            }
            (STREAM, _) => reply(out, 200, "no stream"),
            (_, 0) => out.write_all(b"\x16\x03\x01\x00 garbage \r\n\r\n"),
            (_, 1) => reply(out, 200, "{\"success\":true,\"scheduling\":[[[[[["),
            (_, 2) => reply(out, 500, &"z".repeat(100_000)),
            (_, 3) => {
                out.write_all(b"HTTP/1.1 200 X\r\n\r\n")?;
                loop {
                    out.write_all(&[b'['; 65_536])?;
                }
            }
            (_, 4) => reply(
                out,
                200,
                &list(&json!([{ "pid": -1 }, { "pid": 1, "execution_time": -5 }, 7, "x", null])),
            ),
            _ => Ok(()),
        }
    });
    let Some(daemon) = Daemon::new("liar", &server.url(), "") else { return };
    // Through all of it the others are answered at once.
    let mut slowest = Duration::ZERO;
    daemon.until("six lies", || {
        let begun = Instant::now();
        assert_eq!(daemon.status()["mode"], "none");
        assert!(daemon.explain(us())["strategy"].is_null());
        slowest = slowest.max(begun.elapsed());
        (turn.load(Ordering::SeqCst) >= 8).then_some(())
    });
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let maker = daemon.strategies()["sources"]["decision-maker"].clone();
    assert!(maker["failures"].as_u64().is_some_and(|n| n >= 3), "{maker}");
    // And when it is gone for good.
    drop(server);
    daemon.until("the report", || {
        let error = daemon.strategies()["sources"]["decision-maker"]["error"].clone();
        error.as_str().filter(|why| why.contains("refused")).map(drop)
    });
}

#[test]
fn a_token_is_got_with_the_original_s_key_and_shown() {
    let server = Server::new(|asked, out| match (asked.path.as_str(), asked.token()) {
        ("/api/v1/auth/token", _) if asked.body.contains("BEGIN PUBLIC KEY") => {
            reply(out, 200, r#"{"success":true,"data":{"token":"t","expired_at":0},"timestamp":""}"#)
        }
        (LIST, Some("t")) => reply(out, 200, &list(&json!([{ "pid": us(), "priority": 20 }]))),
        (STREAM, Some("t")) => reply(out, 404, ""),
        _ => reply(out, 401, ""),
    });
    let yaml = "  auth_enabled: true\n  public_key_path: FOLDER/key.pem\n";
    let Some(daemon) = Daemon::new("token", &server.url(), yaml) else { return };
    // The key comes later than the daemon.
    daemon.until("the report", || {
        let error = daemon.strategies()["sources"]["decision-maker"]["error"].clone();
        error.as_str().filter(|why| why.contains("api.public_key_path")).map(drop)
    });
    fs::write(daemon.folder.join("key.pem"), "-----BEGIN PUBLIC KEY-----\n").expect("written");
    daemon.until("the strategy", || (daemon.explain(us())["class"] == "latency 20").then_some(()));
    assert_eq!(server.count("/api/v1/auth/token"), 1);
}

#[test]
fn strategies_of_this_node_need_no_decision_maker() {
    let Some(daemon) = Daemon::new("local", "", "") else { return };
    assert_eq!(String::from_utf8_lossy(&daemon.run(&["strategy", "list"]).stdout), "no strategies\n");
    let file = daemon.folder.join("mine.yaml");
    let apply = |text: &str| {
        fs::write(&file, text).expect("written");
        daemon.run(&["strategy", "apply", "-f", file.to_str().expect("a path")])
    };
    let good = format!(
        "strategies:\n- name: mine\n  pid: {0}\n  class: latency 2\n  slice_us: 1500\n- name: names\n  comm: strategies\n- name: short\n  pid: {0}\n  class: latency 1\n  ttl_sec: 1\n",
        us()
    );
    let done = apply(&good);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "3 strategies for 3 targets\n");
    let said = daemon.explain(us());
    assert_eq!((&said["strategy"]["name"], &said["others"][0]["name"]), (&json!("short"), &json!("mine")));
    daemon.until("the end of its second", || {
        (daemon.explain(us())["strategy"]["name"] == "mine").then_some(())
    });
    let said = daemon.explain(us());
    assert_eq!((&said["sliceUs"], &said["strategy"]["ttlLeftMs"]), (&json!(1500), &Value::Null));
    for (wrong, place) in [
        (
            format!("strategies:\n- pid: {}\n- class: latency 3\n  pid: 4194304", us()),
            "mine.yaml:3: strategies[1]: pid: there is no process",
        ),
        ("strategies:\n- pid: 1\n  class: best".into(), "mine.yaml:3:10: strategies[0].class"),
        ("strategies:\n- cgroup: /no/such/group".into(), "mine.yaml:2: strategies[0]: cgroup:"),
    ] {
        let refused = apply(&wrong);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains(place), "{wrong}: {text}");
        assert_eq!(daemon.explain(us())["strategy"]["name"], "mine", "nothing of it was applied");
    }
    // What is sent without the program is looked at as well.
    let raw = daemon.raw("strategy apply\n[{\"pids\":[1]}]");
    assert!(raw["error"].as_str().is_some_and(|why| why.contains("makes no sense")), "{raw}");
    assert!(daemon.raw("explain nobody")["error"].is_string());
    assert!(daemon.run(&["strategy", "clear"]).status.success());
    assert!(daemon.explain(us())["strategy"].is_null());
    let nobody = daemon.run(&["explain", "4194304"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("there is no process or thread 4194304"));
    // A client that says half of it and waits holds nobody up.
    let mut half = std::os::unix::net::UnixStream::connect(daemon.socket()).expect("connected");
    std::io::Write::write_all(&mut half, b"strategy apply\n[").expect("written");
    assert_eq!(daemon.status()["mode"], "none");
}

// ----- the daemon

/// Ended when dropped.
struct Daemon {
    child: Child,
    folder: PathBuf,
    metrics_port: u16,
}

impl Daemon {
    /// In mode none, without a monitor. `None` where that cannot be: then a line says why.
    fn new(name: &str, url: &str, api: &str) -> Option<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            println!("skip: the daemon needs root");
            return None;
        }
        let folder = PathBuf::from(format!("/var/lib/gthulhu-test-{}-strategies-{name}", us()));
        fs::create_dir_all(&folder).expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let shown = folder.to_str().expect("a path");
        let api = match url {
            "" => String::new(),
            url => format!(
                "api:\n  enabled: true\n  url: {url}\n  interval: 1\n{}",
                api.replace("FOLDER", shown)
            ),
        };
        let yaml = format!(
            "scheduler:\n  mode: none\nmonitor:\n  enabled: false\n  prometheus_port: {port}\n{api}daemon:\n  control_addr: \"\"\n"
        );
        fs::write(folder.join("config.yaml"), yaml).expect("written");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(folder.join("config.yaml"))
            .arg("--socket")
            .arg(folder.join("daemon.sock"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        let daemon = Self { child, folder, metrics_port: port };
        daemon.until("an answer", || daemon.run(&["status"]).status.success().then_some(()));
        Some(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("daemon.sock")
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM).args(args).arg("--socket").arg(self.socket()).output().expect("run")
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {out:?}; {}", self.log()))
    }

    fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    fn strategies(&self) -> Value {
        self.status()["strategies"].clone()
    }

    fn explain(&self, pid: u32) -> Value {
        self.json(&["explain", &pid.to_string(), "--json"])
    }

    fn raw(&self, text: &str) -> Value {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("connected");
        stream.write_all(text.as_bytes()).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        serde_json::from_str(&answer).expect("JSON")
    }

    fn metrics(&self) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.metrics_port)).expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        text
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut there: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = there() {
                return found;
            }
            assert!(Instant::now() < end, "waited for {what} for {LIMIT:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: plain numbers; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait();
        if !std::thread::panicking() {
            assert!(status.is_ok_and(|status| status.success()), "{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
