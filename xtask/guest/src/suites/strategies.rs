//! Strategies: from a decision maker over HTTP, and from a file; how long it takes until the core and the policy have
//! them, what they do for who has them, and that they end when nobody confirms them.

use super::{balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::noise::Noise;
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, number};
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often what is wanted is changed in each mode, and until when the core has it.
const CHANGES: usize = 120;
const APART: Duration = Duration::from_millis(35);
/// Where the daemon answers unless told otherwise. A program for each question would take longer than what is measured.
const SOCKET: &str = "/run/gthulhu/daemon.sock";
const LIMIT_US: u64 = 50_000;
/// On two CPUs four tasks compute: without a strategy each has half a CPU, and with this one a whole, less what it leaves to
/// the others.
const HOGS: usize = 4;
const WINDOW: Duration = Duration::from_millis(2_500);
const AHEAD: f64 = 0.72;
const EQUAL: std::ops::Range<f64> = 0.35..0.65;
/// What nobody confirms for this long fades.
const TTL_SECS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    let maker = Maker::start()?;
    let url = format!("api.url=http://{}", maker.address);
    let ttl = format!("api.strategy_ttl_sec={TTL_SECS}");
    let sets = ["--set", "api.enabled=on", "--set", &url, "--set", &ttl, "--set", "api.interval=1"];
    let daemon = Daemon::start("", &sets)?;
    let seq = enable_seq()?;
    let noise = Noise::start();
    let hogs: Vec<Background> =
        (0..HOGS).map(|_| Background::quiet("sh", &["-c", "while :; do :; done"])).collect::<Result<_>>()?;
    let favourite = hogs[0].pid();
    for mode in ["agent", "kernel"] {
        decide(mode)?;
        checks.check(&format!("strategies.{mode}.latency"), || latency(&daemon, &maker, &hogs, &noise));
        checks.check(&format!("strategies.{mode}.share"), || share(&daemon, &maker, favourite));
        checks.check(&format!("strategies.{mode}.silence"), || silence(&daemon, &maker, favourite));
        checks.check(&format!("strategies.{mode}.local"), || local(&daemon, favourite));
    }
    checks.check("strategies.counters", || {
        let told = maker.counters().ok_or("no counters were told")?;
        let names = ["nr_user_dispatches", "nr_kernel_dispatches", "nr_failed_dispatches", "nr_online_cpus"];
        ensure(names.iter().all(|name| told[name].is_u64()), || format!("{told}"))?;
        Ok(format!(
            "{} counters, the last time {} decisions",
            told.as_object().map_or(0, |o| o.len()),
            told["nr_user_dispatches"]
        ))
    });
    decide("agent")?;
    drop(hogs);
    checks.check("strategies.end", || {
        let status = healthy(&daemon, seq)?;
        ensure(number(&status, "/agent/restarts")? == 0, || "the agent ended by itself".into())?;
        ensure(number(&status, "/agent/allocations")? == 0, || {
            format!("the agent's thread allocated: {}", status["agent"])
        })?;
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

/// Many changes, while all CPUs are busy. The daemon measures from the receipt.
fn latency(daemon: &Daemon, maker: &Maker, hogs: &[Background], noise: &Noise) -> Result<String> {
    let count = |status: &Value, to: &str| number(status, &format!("/strategies/receipt_to_{to}/count"));
    maker.listened()?;
    let before = count(&asked()?, "core")?;
    for n in 0..CHANGES {
        let records: Vec<Value> = hogs
            .iter()
            .map(|hog| {
                let slice = 2_000_000 + 100_000 * (n % 7);
                json!({ "pid": hog.pid(), "priority": 10 + n % 10, "execution_time": slice })
            })
            .collect();
        maker.want(&json!(records));
        // One after the other: what waits behind another is no measure of anything.
        let wanted = before + n as u64 + 1;
        // To be asked is work for the one who is to do it.
        sys::sleep(APART);
        let there = || Ok((count(&asked()?, "core")? >= wanted).then_some(()));
        wait_for("change in the core", PATIENCE, there).map_err(|e| format!("change {n}: {e}"))?;
    }
    let status = daemon.status()?;
    let times = &status["strategies"]["receipt_to_core"];
    let agent = &status["strategies"]["receipt_to_agent"];
    let text = format!(
        "{CHANGES} changes on busy CPUs: from receipt to the core's table p50 <= {} us, p99 <= {} us, max {} us (limit of p99 {LIMIT_US}, so far in all); \
         to the agent's p50 <= {} us, p99 <= {} us ({} seen)",
        times["p50_us"], times["p99_us"], times["max_us"], agent["p50_us"], agent["p99_us"], agent["count"]
    );
    // What the host keeps a CPU away is not ours.
    let host = noise.worst() / 1_000;
    let text = format!("{text}; the host kept a CPU away for {host} us");
    ensure(number(times, "/p99_us")? <= LIMIT_US + host, || text.clone())?;
    wait_for("the newest table in the agent", PATIENCE, || {
        let status = daemon.status()?;
        let strategies = &status["strategies"];
        let newest = &strategies["generation"];
        Ok((strategies["generation_in_agent"] == *newest && strategies["generation_in_core"] == *newest)
            .then_some(()))
    })?;
    Ok(text)
}

/// The status, from the daemon's socket.
fn asked() -> Result<Value> {
    let mut stream = UnixStream::connect(SOCKET).cannot("reach the daemon")?;
    stream.shutdown(std::net::Shutdown::Write).cannot("ask the daemon")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).cannot("hear the daemon")?;
    serde_json::from_str(&text).cannot("read the status")
}

/// What a favourite has, and what it has not any more when it is none.
fn share(daemon: &Daemon, maker: &Maker, pid: i32) -> Result<String> {
    maker.want(&json!([]));
    wanted(daemon, "decision-maker", 0)?;
    let without = cpus(pid)?;
    maker.want(&favourite(pid));
    wanted(daemon, "decision-maker", 1)?;
    let with = cpus(pid)?;
    let text = format!("{without:.2} of a CPU without, {with:.2} with (of {HOGS} that compute on 2)");
    ensure(with >= AHEAD && EQUAL.contains(&without), || text.clone())?;
    let said = explain(pid)?;
    ensure(said["strategy"]["name"] == "favourite" && said["class"] == "latency 0", || format!("{said}"))?;
    let left = said["strategy"]["ttlLeftMs"].as_u64().unwrap_or(0);
    ensure((1..=TTL_SECS * 1000).contains(&left), || format!("{left} ms left"))?;
    Ok(text)
}

/// The decision maker says nothing any more, and then it does again.
fn silence(daemon: &Daemon, maker: &Maker, pid: i32) -> Result<String> {
    let faded = |status: &Value| number(status, "/strategies/faded");
    maker.want(&favourite(pid));
    wanted(daemon, "decision-maker", 1)?;
    let before = faded(&daemon.status()?)?;
    maker.silent(true);
    let ended =
        wait_for("end of the strategy", PATIENCE, || Ok((faded(&daemon.status()?)? > before).then_some(())));
    if ended.is_err() {
        maker.silent(false);
    }
    let (_, took) = ended?;
    let without = cpus(pid)?;
    let said = explain(pid)?;
    let why = said["why"].to_string();
    ensure(said["strategy"].is_null() && why.contains("has faded"), || format!("{said}"))?;
    maker.silent(false);
    maker.want(&favourite(pid));
    wanted(daemon, "decision-maker", 1)?;
    maker.want(&json!([]));
    wanted(daemon, "decision-maker", 0)?;
    let text =
        format!("faded after {:.1} s (TTL {TTL_SECS} s), then {without:.2} of a CPU", took.as_secs_f64());
    ensure(EQUAL.contains(&without) && took >= Duration::from_secs(TTL_SECS - 2), || text.clone())?;
    Ok(text)
}

/// The same from a file, whose strategy lives for a few seconds.
fn local(daemon: &Daemon, pid: i32) -> Result<String> {
    let file = std::env::temp_dir().join("strategies.yaml");
    let text = format!(
        "strategies:\n- name: mine\n  pid: {pid}\n  class: latency 0\n  budget: {{millicpu: 1000, burst_ms: 50}}\n  ttl_sec: 4\n"
    );
    fs::write(&file, text).cannot("write a file of strategies")?;
    let path = file.to_string_lossy().into_owned();
    said(&["strategy", "apply", "-f", &path])?;
    let with = cpus(pid)?;
    let listed = said(&["strategy", "list"])?;
    ensure(listed.contains("mine") && listed.contains("latency 0"), || listed.clone())?;
    wanted(daemon, "local", 0)?;
    let without = cpus(pid)?;
    let shown = format!("{with:.2} of a CPU, and {without:.2} when its 4 s were over");
    ensure(with >= AHEAD && EQUAL.contains(&without), || shown.clone())?;
    // Of what is wrong nothing is applied.
    fs::write(&file, "strategies:\n- pid: 4194304\n  class: latency 1\n").cannot("write it")?;
    let refused = said(&["strategy", "apply", "-f", &path]).err().unwrap_or_default();
    ensure(refused.contains("strategies.yaml:2") && refused.contains("there is no process"), || {
        format!("refused: {refused:?}")
    })?;
    said(&["strategy", "clear"])?;
    Ok(shown)
}

fn favourite(pid: i32) -> Value {
    let budget = json!({ "millicpu": 1000, "burstMs": 50 });
    json!([{ "pid": pid, "class": { "latency": 0 }, "budget": budget, "strategy": "favourite" }])
}

/// Waits until so many targets of this source are in the table that the core has.
fn wanted(daemon: &Daemon, source: &str, targets: u64) -> Result<()> {
    let is_so = || {
        let status = daemon.status()?;
        let strategies = &status["strategies"];
        let there = strategies["generation"] == strategies["generation_in_core"];
        Ok((there && strategies["sources"][source]["targets"] == targets).then_some(()))
    };
    wait_for(&format!("table with {targets} targets of {source}"), PATIENCE, is_so).map(drop)
}

/// How much of a CPU a process has for a while.
fn cpus(pid: i32) -> Result<f64> {
    let ran = || {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).cannot("read schedstat")?;
        text.split_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .ok_or("no schedstat".to_string())
    };
    let (at, before) = (sys::now_ns(), ran()?);
    sys::sleep(WINDOW);
    Ok((ran()? - before) as f64 / (sys::now_ns() - at) as f64)
}

fn explain(pid: i32) -> Result<Value> {
    serde_json::from_str(&said(&["explain", &pid.to_string(), "--json"])?).cannot("read what explain says")
}

fn decide(who: &str) -> Result<()> {
    said(&["mode", who]).map(drop)
}

fn said(args: &[&str]) -> Result<String> {
    let out = Command::new(sched::daemon_program()).args(args).output().cannot("run gthulhu-daemon")?;
    let err = String::from_utf8_lossy(&out.stderr);
    ensure(out.status.success(), || format!("{}: {err}", args.join(" ")))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

// ----- a decision maker

/// Speaks the original's endpoints, and a stream.
struct Maker {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    list: String,
    generation: u64,
    silent: bool,
    /// Who listens to the stream now.
    listener: Option<Sender<String>>,
    counters: Option<Value>,
}

impl Maker {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").cannot("listen")?;
        let address = listener.local_addr().cannot("know the address")?;
        let state = Arc::new(Mutex::new(State { list: list(&json!([]), 0), ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Self { address, state })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, records: &Value) {
        let mut state = self.state();
        state.generation += 1;
        state.list = list(records, state.generation);
        let event = format!("event: strategies\ndata: {}\n\n", state.list);
        if let Some(listener) = &state.listener {
            let _ = listener.send(event);
        }
    }

    /// Answers nobody, or everybody again.
    fn silent(&self, silent: bool) {
        let mut state = self.state();
        state.silent = silent;
        state.listener = None;
    }

    fn listened(&self) -> Result<()> {
        wait_for("listener", PATIENCE, || Ok(self.state().listener.is_some().then_some(()))).map(drop)
    }

    fn counters(&self) -> Option<Value> {
        self.state().counters.clone()
    }
}

fn list(records: &Value, generation: u64) -> String {
    json!({ "success": true, "message": "", "timestamp": "", "generation": generation, "scheduling": records }).to_string()
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let state = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if state().silent || stream.read_exact(&mut body).is_err() {
        return;
    }
    let answer = |kind: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
    };
    match head.split(' ').nth(1) {
        Some("/api/v1/scheduling/strategies/stream") => {
            let (sender, events): (Sender<String>, Receiver<String>) = channel();
            let first = {
                let mut state = state();
                state.listener = Some(sender);
                answer("text/event-stream", &format!("event: strategies\ndata: {}\n\n", state.list))
            };
            let _ = stream.write_all(first.as_bytes());
            while let Some(event) = next(&events) {
                if stream.write_all(event.as_bytes()).is_err() {
                    return;
                }
            }
        }
        Some("/api/v1/metrics") => {
            state().counters = serde_json::from_slice(&body).ok();
            let _ = stream.write_all(answer("application/json", "{}").as_bytes());
        }
        _ => {
            let list = state().list.clone();
            let _ = stream.write_all(answer("application/json", &list).as_bytes());
        }
    }
}

/// The next event, or that it lives; none when the decision maker is silent.
fn next(events: &Receiver<String>) -> Option<String> {
    use std::sync::mpsc::RecvTimeoutError;
    match events.recv_timeout(Duration::from_millis(500)) {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => Some("event: alive\ndata:\n\n".into()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
