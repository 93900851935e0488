//! The daemon in mode `none`: monitor, metrics and runtime configuration on this machine's own kernel. Needs root.

mod hard;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[cfg(feature = "kubernetes")]
#[path = "../../discovery/tests/support/api_server.rs"]
#[allow(dead_code, reason = "discovery's own tests use the rest")]
mod api_server;
#[cfg(feature = "kubernetes")]
#[path = "http/names.rs"]
mod names;
#[path = "http/pods.rs"]
mod pods;
#[path = "http/prometheus.rs"]
mod prometheus;
#[path = "http/stream.rs"]
mod stream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gthulhu-daemon");
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn metrics_are_served_in_both_formats_without_a_scheduler() {
    let Some(daemon) = Daemon::new("metrics", "") else { return };
    let answer = wait_for("the monitor", || {
        let answer = daemon.metrics.get("/metrics", "");
        answer.body.contains("\ngthulhu_monitor_running 1\n").then_some(answer)
    });
    assert_eq!(
        (answer.code, answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    for line in [
        "gthulhu_supervisor_answers 1",
        "gthulhu_scheduler_mode{mode=\"none\"} 1",
        "gthulhu_scheduler_off_info{why=\"mode\"} 1",
        "# TYPE gthulhu_monitor_events_total counter",
    ] {
        assert!(answer.body.lines().any(|l| l == line), "{line}\n{}", answer.body);
    }
    let events = || daemon.metric("gthulhu_monitor_events_total{");
    let before = events();
    wait_for("events", || (events() > before).then_some(()));
    let open = daemon.metrics.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    assert!(open.body.ends_with("\n# EOF\n") && open.body.matches("# EOF").count() == 1);
    assert_eq!(daemon.control.get("/health", "").body, "ok");
    assert_eq!(daemon.metrics.get("/healthz", "").code, 200);
}

#[test]
fn a_runtime_configuration_is_applied_shown_and_survives_a_restart() {
    let Some(mut daemon) = Daemon::new("runtime", "") else { return };
    let before = daemon.control.get("/api/v1/runtime-config", "").json();
    assert_eq!((&before["configVersion"], &before["permit"]), (&json!(""), &json!(64)));
    let body =
        r#"{"configVersion": "v1", "permit": 0, "maxTimeWatchdog": false, "monitoringEnabled": false}"#;
    let applied = daemon.control.post("/api/v1/runtime-config", body);
    assert_eq!(applied.code, 200, "{}", applied.body);
    let applied = applied.json();
    assert_eq!((&applied["success"], &applied["status"]), (&json!(true), &json!("applied")));
    assert_eq!(daemon.control.post("/api/v1/runtime-config", body).json()["status"], "noop");
    wait_for("the monitor's end", || (daemon.metric("gthulhu_monitor_running") == 0.0).then_some(()));
    for _ in 0..2 {
        let now = daemon.control.get("/api/v1/runtime-config", "").json();
        assert_eq!(
            (&now["configVersion"], &now["permit"], &now["maxTimeWatchdog"], &now["monitoringEnabled"]),
            (&json!("v1"), &json!(0), &json!(false), &json!(false))
        );
        let status = daemon.control.get("/api/v1/status", "").json();
        assert_eq!((&status["configVersion"], &status["applied"]), (&json!("v1"), &json!(true)));
        assert!(status["appliedAt"].as_str().is_some_and(|at| at.ends_with('Z')));
        assert_eq!((&status["scheduler"]["mode"], &status["lastError"]), (&json!("none"), &Value::Null));
        daemon.restart();
    }
    // And back on.
    let back = r#"{"configVersion": "v2", "monitoringEnabled": null, "maxTimeWatchdog": true}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", back).code, 200);
    wait_for("the monitor", || (daemon.metric("gthulhu_monitor_running") == 1.0).then_some(()));
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_nothing_is_changed() {
    let Some(daemon) = Daemon::new("refused", "") else { return };
    let before = daemon.control.get("/api/v1/runtime-config", "").body;
    let wrong =
        daemon.control.post("/api/v1/runtime-config", "{\"configVersion\": \"1\",\n \"permit\": 1025}");
    assert_eq!(wrong.code, 400);
    let problem = &wrong.json()["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["column"], &problem["field"]),
        (&json!(2), &json!(12), &json!("permit"))
    );
    let post = |body: &str| daemon.control.post("/api/v1/runtime-config", body).code;
    assert_eq!(post("{"), 400);
    assert_eq!(post(r#"{"permit": 1}"#), 400, "there is no configVersion");
    assert_eq!(post(r#"{"configVersion": "1", "mode": "nonsense"}"#), 400);
    assert_eq!(post(&" ".repeat(70_000)), 413);
    let address = &daemon.control;
    let token = fs::read_to_string(&address.1).expect("a token");
    let text = format!("Content-Type: text/plain\r\nAuthorization: Bearer {token}\r\n").replace("\n\r", "\r");
    assert_eq!(address.ask("POST", "/api/v1/runtime-config", &text, "{}").code, 415);
    assert_eq!(address.ask("DELETE", "/api/v1/runtime-config", "", "").code, 405);
    assert_eq!(address.ask("POST", "/api/v1/status", "", "").code, 405);
    assert_eq!(address.post("/api/v1/runtime-config?now", "{}").code, 400);
    for (address, path) in
        [(&daemon.control, "/metrics"), (&daemon.metrics, "/api/v1/status"), (&daemon.control, "/")]
    {
        assert_eq!(address.get(path, "").code, 404, "{path}");
    }
    assert_eq!(daemon.control.get("/api/v1/runtime-config", "").body, before);
}

#[test]
fn a_mode_that_this_kernel_cannot_run_is_reported_and_everything_goes_on() {
    if Path::new("/sys/kernel/sched_ext").exists() {
        println!("skip: this kernel has sched_ext, and the test must not load a scheduler");
        return;
    }
    let Some(mut daemon) = Daemon::new("mode", "") else { return };
    let failed = daemon.control.post("/api/v1/runtime-config", r#"{"configVersion": "1", "mode": "simple"}"#);
    assert_eq!(failed.code, 500);
    let why = failed.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("nothing was changed") && why.contains("sched_ext"), "{why}");
    let status = daemon.control.get("/api/v1/status", "").json();
    assert_eq!((&status["lastError"], &status["configVersion"]), (&json!(why), &json!("")));
    assert_eq!((&status["mode"], &status["scheduler"]["mode"]), (&json!("none"), &json!("none")));
    assert_eq!(daemon.metric("gthulhu_supervisor_answers"), 1.0);
    // It is not what the daemon would fail to start with.
    daemon.restart();
    assert_eq!(daemon.status()["mode"], "none");
}

#[test]
fn what_cannot_be_saved_is_not_made() {
    let Some(daemon) = Daemon::new("saved", "") else { return };
    // The place of the new state is taken by a folder.
    fs::create_dir(daemon.folder.0.join("state/runtime.json.new")).expect("made");
    let body = r#"{"configVersion": "1", "monitoringEnabled": false, "permit": 2}"#;
    let failed = daemon.control.post("/api/v1/runtime-config", body);
    assert_eq!(failed.code, 500, "{}", failed.body);
    let status = daemon.control.get("/api/v1/status", "").json();
    assert!(status["lastError"].as_str().is_some_and(|why| why.contains("cannot be saved")), "{status}");
    assert_eq!((&status["permit"], &status["monitor"]["enabled"]), (&json!(64), &json!(true)));
}

#[test]
fn who_has_no_token_may_look_at_nothing_but_health() {
    let token = "daemon:\n  token_file: TOKEN\n";
    let Some(daemon) = Daemon::new("token", token) else { return };
    let code = |path: &str, headers: &str| daemon.control.get(path, headers).code;
    assert_eq!(code("/health", ""), 200);
    for path in ["/api/v1/status", "/api/v1/runtime-config"] {
        assert_eq!(code(path, ""), 401);
        assert_eq!(code(path, "Authorization: Bearer wrong\r\n"), 401);
        assert_eq!(code(path, "Authorization: Basic sesame\r\n"), 401);
        assert_eq!(code(path, "Authorization: Bearer sesame\r\n"), 200);
    }
    let body = r#"{"configVersion": "1", "permit": 1}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", body).code, 401);
}

#[test]
fn slow_and_senseless_clients_stop_nobody() {
    let Some(daemon) = Daemon::new("clients", "") else { return };
    // More than there are places: they say nothing, or a little.
    let silent: Vec<TcpStream> = (0..40).map(|_| daemon.control.connect()).collect();
    for (i, mut stream) in silent.iter().enumerate() {
        let _ = stream
            .write_all([&b""[..], b"GET /api/v1/status HT", b"\x00\xff\x16\x03\x01 garbage\r\n\r\n"][i % 3]);
    }
    // The socket and the other address do not notice.
    assert_eq!(daemon.status()["mode"], "none");
    assert_eq!(daemon.metrics.get("/metrics", "").code, 200);
    // This address answers again once the silent ones have had their time.
    let begun = Instant::now();
    assert_eq!(daemon.control.get("/health", "").code, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(silent);
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    assert!(daemon.control.get("/health", &long).code >= 400);
    assert_eq!(daemon.control.get("/health", "").code, 200);
}

#[test]
fn an_address_that_is_taken_is_reported_and_had_later() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("an address");
    let port = taken.local_addr().expect("bound").port();
    let Some(mut daemon) = Daemon::new("taken", "") else { return };
    daemon.metrics.0.set_port(port);
    daemon.env("GTHULHU_MONITOR_PROMETHEUS_PORT", &port.to_string());
    daemon.restart();
    wait_for("the report", || {
        let status = daemon.control.get("/api/v1/status", "").json();
        status["http"]["metricsError"].as_str().filter(|why| why.contains(&port.to_string())).map(drop)
    });
    drop(taken);
    wait_for("the metrics", || (daemon.metrics.get("/metrics", "").code == 200).then_some(()));
}

#[test]
fn the_service_manager_hears_when_it_is_ready_and_that_it_lives() {
    let Some(mut daemon) = Daemon::new("notify", "") else { return };
    let path = daemon.folder.0.join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(LIMIT)).expect("set");
    daemon.env("NOTIFY_SOCKET", path.to_str().expect("a path"));
    daemon.env("WATCHDOG_USEC", "400000");
    daemon.restart();
    let hear = || {
        let mut bytes = [0; 1024];
        let n = manager.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert!(hear().starts_with("READY=1\n"));
    let begun = Instant::now();
    let beats = std::iter::repeat_with(hear).take(4).filter(|text| text == "WATCHDOG=1").count();
    assert_eq!(beats, 4);
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    daemon.end();
    assert!(std::iter::repeat_with(hear).take(20).any(|text| text == "STOPPING=1"));
}

#[test]
fn config_check_and_explain_say_where() {
    let folder = Folder(std::env::temp_dir().join(format!("gthulhu-config-{}", std::process::id())));
    fs::create_dir_all(&folder.0).expect("a folder");
    let file = folder.0.join("c.yaml");
    fs::write(&file, "scheduler:\n  permit: 3\n  late_ms: 1\n").expect("written");
    let run = |args: &[&str]| Command::new(PROGRAM).arg("config").args(args).output().expect("run");
    let path = file.to_str().expect("a path");
    let wrong = run(&["check", path]);
    let text = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text.contains("c.yaml:3:12: scheduler.late_ms"), "{text}");
    let wrong: Value = serde_json::from_slice(&run(&["check", path, "--json"]).stdout).expect("JSON");
    assert_eq!((&wrong["ok"], &wrong["problems"][0]["line"]), (&json!(false), &json!(3)));
    fs::write(&file, "scheduler:\n  permit: 3\n").expect("written");
    assert_eq!(run(&["check", path]).status.code(), Some(0));
    let explained = run(&["explain", "--config", path, "--json", "--set", "scheduler.late_ms=9"]);
    let explained: Value = serde_json::from_slice(&explained.stdout).expect("JSON");
    let of = |key: &str| (explained["keys"][key]["value"].clone(), explained["keys"][key]["source"].clone());
    assert_eq!(of("scheduler.permit"), (json!(3), json!("file")));
    assert_eq!(of("scheduler.late_ms"), (json!(9), json!("flag")));
    assert_eq!(of("scheduler.permit_us"), (json!(50_000), json!("default")));
    fs::write(&file, run(&["default"]).stdout).expect("written");
    assert_eq!(run(&["check", path]).status.code(), Some(0), "the default file is fine");
}

// ----- the daemon, and how it is asked

/// Ended when dropped.
struct Daemon {
    child: Option<Child>,
    command: Vec<(String, String)>,
    folder: Folder,
    metrics: Address,
    control: Address,
}

/// Removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// And where the token is that the daemon makes, for those who change something.
struct Address(SocketAddr, PathBuf);

#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Daemon {
    /// In mode none, with addresses, socket and state of its own. `None` where that cannot be: then a line says why.
    fn new(name: &str, yaml: &str) -> Option<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            println!("skip: the daemon needs root");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Saved state is not believed in temporary folders.
        let path = PathBuf::from(format!("/var/lib/gthulhu-test-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        let folder = Folder(path.clone());
        let token = path.join("token");
        fs::write(&token, "sesame\n").expect("a token");
        let mut mode = fs::metadata(&token).expect("there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
        fs::set_permissions(&token, mode).expect("set");
        let yaml =
            format!("scheduler:\n  mode: none\n{yaml}").replace("TOKEN", token.to_str().expect("a path"));
        fs::write(path.join("config.yaml"), yaml).expect("written");
        let ports: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let address = |i: usize| ports[i].local_addr().expect("bound");
        let own_token = path.join("state/control-token");
        let (metrics, control) = (Address(address(0), own_token.clone()), Address(address(1), own_token));
        drop(ports);
        let mut daemon = Self { child: None, command: Vec::new(), folder, metrics, control };
        let (port, address) = (daemon.metrics.0.port().to_string(), daemon.control.0.to_string());
        daemon.env("GTHULHU_MONITOR_PROMETHEUS_PORT", &port);
        daemon.env("GTHULHU_DAEMON_CONTROL_ADDR", &address);
        daemon.env(
            "GTHULHU_DAEMON_RUNTIME_CONFIG_PATH",
            path.join("state/runtime.json").to_str().expect("a path"),
        );
        daemon.restart();
        Some(daemon)
    }

    fn env(&mut self, name: &str, value: &str) {
        self.command.retain(|(n, _)| n != name);
        self.command.push((name.to_owned(), value.to_owned()));
    }

    fn socket(&self) -> PathBuf {
        self.folder.0.join("daemon.sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// Ends it by SIGTERM, starts it again, and waits until it answers.
    fn restart(&mut self) {
        self.end();
        let log =
            fs::File::options().create(true).append(true).open(self.folder.0.join("log")).expect("a log");
        let child = Command::new(PROGRAM)
            .args(["run", "--log-format", "json", "--config"])
            .arg(self.folder.0.join("config.yaml"))
            .arg("--socket")
            .arg(self.socket())
            .envs(self.command.iter().cloned())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        self.child = Some(child);
        wait_for("control over HTTP", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("waited for"));
            assert!(ended.is_none(), "it ended: {}", self.log());
            TcpStream::connect(self.control.0).ok()
        });
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // SAFETY: plain numbers; the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        let status = child.wait().expect("waited for");
        if !std::thread::panicking() {
            assert!(status.success(), "{status}: {}", self.log());
            let log = self.log();
            let lines = log.lines().filter(|line| serde_json::from_str::<Value>(line).is_err());
            assert_eq!(lines.collect::<Vec<_>>(), [""; 0], "each line is an object");
        }
    }

    fn status(&self) -> Value {
        let socket = self.socket();
        let said =
            Command::new(PROGRAM).args(["status", "--json", "--socket"]).arg(socket).output().expect("run");
        serde_json::from_slice(&said.stdout).expect("JSON")
    }

    /// The value of the first series that begins so.
    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.get("/metrics", "").body;
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

impl Address {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        stream
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, headers, "")
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let token = fs::read_to_string(&self.1).map(|t| format!("Authorization: Bearer {}\r\n", t.trim()));
        let token = token.unwrap_or_default();
        self.ask("POST", path, &format!("Content-Type: application/json\r\n{token}"), body)
    }

    /// Code 0: there was no answer.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let none = Answer { code: 0, head: String::new(), body: String::new() };
        let Ok(mut stream) = TcpStream::connect(self.0) else { return none };
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n");
        // It may answer, and close, before it has read all.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return none };
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

#[track_caller]
fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what} for {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
