//! A real Prometheus scrapes this daemon, and a record of one that scheduled a guest; every expression of the
//! dashboards and rules is sent to it and has to return data.
//!
//! The record is two answers of `/metrics`, some seconds apart, of a daemon with plugin `gthulhu` on Linux 7.3.4 in the
//! lab, after one re-attach (`tests/http/record.sh`).

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::pods::HandMade;
use super::{Address, Daemon, Folder, wait_for};

const RECORD: [&str; 2] = [include_str!("scheduler-1.txt"), include_str!("scheduler-2.txt")];
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
/// What promtool has against three of the original's names, which are kept all the same.
const KEPT: [(&str, &str); 3] = [
    ("gthulhu_pod_cpu_time_nanoseconds_total", "use base unit \"seconds\" instead of \"nanoseconds\""),
    ("gthulhu_pod_wait_time_nanoseconds_total", "use base unit \"seconds\" instead of \"nanoseconds\""),
    ("gthulhu_pod_process_count", "non-histogram and non-summary metrics should not have \"_count\" suffix"),
];
/// Alerts whose series exist only while something is wrong; their promtool tests have it.
const ONLY_IN_TROUBLE: [&str; 1] = ["gthulhu_scheduler_off_info{why=\"crash loop\"}"];

/// Where they are: installed, or where `cargo xtask setup` puts them.
fn program(name: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("GTHULHU_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("gthulhu")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/gthulhu")));
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(cache.map(|cache| cache.join("prometheus/usr/bin")));
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        println!("skip: there is no {name}; 'cargo xtask setup' fetches it");
    }
    found
}

/// What promtool finds wrong with a text, but for what we know and keep.
fn lints(promtool: &Path, text: &str) -> Vec<String> {
    let mut run = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    run.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let said = run.wait_with_output().expect("ended");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let known = |line: &&str| !KEPT.iter().any(|(name, lint)| *line == format!("{name} {lint}"));
    out.lines().chain(err.lines()).filter(known).map(str::to_owned).collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules_and_they_pass_their_tests() {
    let Some(promtool) = program("promtool") else { return };
    for args in [["check", "rules", "gthulhu.rules.yaml"], ["test", "rules", "gthulhu.test.yaml"]] {
        let folder = Path::new(DEPLOY).join("prometheus");
        let said = Command::new(&promtool).args(args).current_dir(folder).output().expect("run");
        let text = [said.stdout, said.stderr].concat();
        assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_what_a_scheduler_exposed() {
    let Some(promtool) = program("promtool") else { return };
    for text in RECORD {
        assert!(text.contains("gthulhu_scheduler_mode{mode=\"normal\"} 1"));
        assert_eq!(lints(&promtool, text), [""; 0]);
    }
    assert!(
        !lints(&promtool, "# TYPE a_bad_counter counter\na_bad_counter 1\n").is_empty(),
        "it would find something"
    );
}

#[test]
fn every_expression_of_dashboards_and_rules_has_data_in_a_real_prometheus() {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else { return };
    // More that run than there are CPUs: they wait for each other. If this test is killed they end by themselves.
    let hogs = "for i in $(seq $(($(nproc) + 1))); do timeout 90 sh -c 'while :; do :; done' & done; wait";
    let Some(daemon) = Daemon::new("prometheus", "monitor:\n  collection_interval_sec: 1\n") else { return };
    let Some(pod) = HandMade::new(hogs) else { return };
    wait_for("the pod", || {
        daemon.metrics.get("/metrics", "").body.contains(&format!("pod_uid=\"{}\"", pod.uid)).then_some(())
    });
    let native = daemon.metrics.get("/metrics", "").body;
    assert_eq!(lints(&promtool, &native), [""; 0]);
    let server = Server::start(&prometheus, &daemon.metrics, &replay());
    let (natively, recorded) = (daemon.metrics.0.to_string(), server.record.clone());

    let mut from_record = Vec::new();
    for expr in dashboards().iter().flat_map(expressions) {
        let at = |instance: &str| filled(&expr, instance);
        let families: HashSet<&str> = words(&expr).collect();
        // What is there natively must have data from there; only what needs a scheduler may have it from the record.
        if families.iter().all(|family| exposes(&native, family)) {
            server.has_data(&at(&natively));
        } else {
            server.has_data(&at(&recorded));
            from_record.push(expr);
        }
    }
    println!("{} expressions need a scheduler and were sent about the record of a guest:", from_record.len());
    from_record.iter().for_each(|expr| println!("    {expr}"));
    let variables: Vec<(String, String)> = dashboards().iter().flat_map(variables).collect();
    assert!(variables.len() >= 5);
    for (metric, label) in variables {
        server.has_data(&format!("count by ({label}) ({metric})"));
    }

    let rules = fs::read_to_string(Path::new(DEPLOY).join("prometheus/gthulhu.rules.yaml")).expect("rules");
    let exprs: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(exprs.len() > 10);
    for expr in exprs {
        let (value, _) = [" > ", " == "].iter().find_map(|by| expr.rsplit_once(by)).expect("a bound");
        if ONLY_IN_TROUBLE.contains(&value) {
            println!("no data, since nothing is wrong here; the rules' own tests have it: {value}");
            assert_eq!(server.ask(value)["status"], "success");
        } else {
            server.has_data(&value.replace("[15m]", "[1m]").replace("[10m]", "[1m]"));
        }
    }
    wait_for("an evaluation of all rules", || {
        let rules = server.get("/api/v1/rules");
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        (!rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")).then_some(())
    });
    drop(pod);
}

// ----- what is asked

fn dashboards() -> Vec<Value> {
    let files = fs::read_dir(Path::new(DEPLOY).join("grafana")).expect("dashboards");
    let boards = files.map(|file| {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a text");
        serde_json::from_str(&text).expect("JSON")
    });
    boards.collect()
}

fn expressions(board: &Value) -> Vec<String> {
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

/// Metric and label of what can be chosen.
fn variables(board: &Value) -> Vec<(String, String)> {
    let list = board["templating"]["list"].as_array().expect("a list").iter();
    let queries = list.filter_map(|variable| variable["query"]["query"].as_str());
    let parts = queries.map(|query| {
        let inner =
            query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')')).expect("label_values");
        let (metric, label) = inner.rsplit_once(", ").expect("two parts");
        (filled(metric, ".*"), label.to_owned())
    });
    parts.collect()
}

/// As Grafana sends it, with this instance chosen and all of the rest.
fn filled(expr: &str, instance: &str) -> String {
    let mut expr =
        expr.replace("$instance", instance).replace("$__rate_interval", "1m").replace("$__range", "1m");
    for name in ["$namespace", "$pod"] {
        expr = expr.replace(name, ".*");
    }
    assert!(!expr.contains('$'), "{expr}");
    expr
}

fn words(expr: &str) -> impl Iterator<Item = &str> {
    expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("gthulhu_"))
}

fn exposes(text: &str, series: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

// ----- the servers

/// Serves the record: the first answer once, then the second.
fn replay() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            // It is asked by GET: the head is all there is.
            let _ = stream.read(&mut [0; 4096]);
            let body = RECORD[n.min(1)];
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    address
}

/// Ended when dropped.
struct Server {
    child: Child,
    address: Address,
    record: String,
    _folder: Folder,
}

impl Server {
    fn start(program: &Path, daemon: &Address, record: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("gthulhu-prometheus-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let rules = Path::new(DEPLOY).join("prometheus/gthulhu.rules.yaml").canonicalize().expect("rules");
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
             scrape_configs:\n- job_name: gthulhu\n  static_configs: [{{ targets: ['{}', '{record}'] }}]\n",
            rules.display(),
            daemon.0
        );
        fs::write(folder.join("prometheus.yml"), config).expect("written");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={port}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        let (address, record) = (Address(port, PathBuf::new()), record.to_owned());
        let server = Self { child, address, record, _folder: Folder(folder) };
        wait_for("Prometheus", || (server.text("/-/ready").is_some()).then_some(()));
        // Rates want two samples; the first is there for what is only in the first answer of the record.
        wait_for("both targets", || {
            let up = server.ask("count(count_over_time(up[1m]) >= 3 and up == 1)");
            (up["data"]["result"][0]["value"][1] == "2").then_some(())
        });
        server
    }

    /// By HTTP/1.0: one answer in one piece, and the end.
    fn text(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address.0).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        // What Prometheus cannot understand is 400, with an object that says why.
        let code = head.split(' ').nth(1)?;
        matches!(code, "200" | "400" | "422").then(|| body.to_owned())
    }

    fn get(&self, path: &str) -> Value {
        let text = self.text(path).unwrap_or_else(|| panic!("no answer to {path}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    fn ask(&self, expr: &str) -> Value {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}"))
    }

    #[track_caller]
    fn has_data(&self, expr: &str) {
        wait_for(expr, || {
            let answer = self.ask(expr);
            assert_eq!(answer["status"], "success", "{expr}: {answer}");
            answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty()).then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
