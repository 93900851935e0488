//! What may happen to a daemon on a busy machine, in one boot: its agent killed twenty times, nonsense and strangers at its
//! socket, clients that say nothing, a full disk. It is never detached, nothing is lost, and each is reported.

use super::control::{CONTROL, FOLDER, METRICS, STATE, ask, change, decides, metric_sum};
use super::{balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill::{MAX_GAP_NS, Pressure, ms};
use crate::process::{self, wait_for};
use crate::sched::{self, Daemon, number};
use crate::{Context, Result, sys};
use serde_json::json;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

const SOCKET: &str = "/run/gthulhu/daemon.sock";
/// Eight short lives in a row are a crash loop: one less each time, and a good life in between.
const KILLS: [u32; 3] = [7, 7, 6];
const GOOD_LIFE: Duration = Duration::from_millis(10_500);
const LIMIT: Duration = Duration::from_secs(10);
const NOBODY: u32 = 65534;
const NOT_ALLOWED: i32 = 77;
/// Pages of a disk: token, state, one for the next state, and one more.
const DISK: &str = "size=16k,mode=700";

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    sys::be_real_time();
    let disk = Disk::new()?;
    let daemon = Daemon::start("", &["--set", STATE, "--set", "monitor.enabled=on"])?;
    let seq = enable_seq()?;
    let mut pressure = Pressure::start()?;
    let start = sys::now_ns();
    let events = metric_sum("gthulhu_monitor_events_total")?;
    let mut killed = 0;
    let mut good_since = 0;
    for (round, kills) in KILLS.into_iter().enumerate() {
        checks.check(&format!("drills.killed.{}", round + 1), || {
            let begun = sys::now_ns();
            for _ in 0..kills {
                kill(&daemon)?;
            }
            killed += kills;
            good_since = sys::now_ns();
            let status = decides(&daemon, seq)?;
            ensure(number(&status, "/agent/restarts")? == u64::from(killed), || {
                format!("{}", status["agent"])
            })?;
            Ok(format!(
                "{kills} times in {} ms, {killed} in all; enable_seq {seq}",
                ms(sys::now_ns() - begun)
            ))
        });
        match round {
            0 => {
                checks.check("drills.garbage", || garbage(&daemon, seq));
                checks.check("drills.stranger", || stranger(&daemon, seq));
            }
            1 => {
                checks.check("drills.full", || full(&daemon, seq, &disk));
                checks.check("drills.slow", || slow(&daemon, seq));
            }
            _ => {}
        }
        if round + 1 < KILLS.len() {
            let life = Duration::from_nanos(sys::now_ns() - good_since);
            sys::sleep(GOOD_LIFE.saturating_sub(life));
        }
    }
    checks.check("drills.beat", || {
        let gap = pressure.beat.longest_gap(start)?;
        let limit = MAX_GAP_NS + pressure.noise.worst();
        let now = metric_sum("gthulhu_monitor_events_total")?;
        ensure(now > events, || format!("the monitor had seen {events} events, and now {now}"))?;
        let text = format!("longest gap {} ms, allowed {}; the monitor counted on", ms(gap), ms(limit));
        if gap <= limit { Ok(text) } else { Err(text) }
    });
    drop(pressure);
    checks.check("drills.end", || {
        decides(&daemon, seq)?;
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{killed} deaths; {text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

fn kill(daemon: &Daemon) -> Result<()> {
    let agent = |status: &serde_json::Value| sched::agent_pid(status);
    let (old, _) = wait_for("an agent", LIMIT, || Ok(agent(&daemon.status()?)))?;
    sys::signal(old, libc::SIGKILL)?;
    wait_for("another agent", LIMIT, || Ok(agent(&daemon.status()?).filter(|pid| *pid != old)))?;
    Ok(())
}

/// What says nothing, or nothing that makes sense, or never comes to an end.
fn garbage(daemon: &Daemon, seq: u64) -> Result<String> {
    let before = number(&daemon.status()?, "/control/garbage")?;
    let connect = || UnixStream::connect(SOCKET).cannot("connect");
    let long = [b'x'; 100_000];
    let body = [b"runtime-config apply\n".as_slice(), &long].concat();
    let said: [&[u8]; 5] = [b"\0\xff\xfe{}\n", b"mode both\n", &long, b"GET / HTTP/1.1\r\n\r\n", b"\n\n\n\n"];
    let (begun, mut calls) = (sys::now_ns(), 0);
    let silent = [connect()?, connect()?, connect()?];
    for _ in 0..20 {
        for bytes in said {
            let mut stream = connect()?;
            // It may answer and close before it has read all.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            calls += 1;
        }
    }
    let mut stream = connect()?;
    let _ = stream.write_all(&body);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    drop(silent);
    let status = healthy(daemon, seq)?;
    let counted = number(&status, "/control/garbage")? - before;
    ensure(counted >= 80, || format!("{counted} of {calls} calls were counted as garbage"))?;
    Ok(format!("{calls} calls in {} ms, {counted} counted, the rest said nothing", ms(sys::now_ns() - begun)))
}

/// Somebody else reaches the socket, because somebody has opened it.
fn stranger(daemon: &Daemon, seq: u64) -> Result<String> {
    let before = number(&daemon.status()?, "/control/strangers")?;
    let mode = |mode| fs::set_permissions(SOCKET, fs::Permissions::from_mode(mode)).cannot("change a mode");
    let ask = |args: &[&str]| {
        let mut command = Command::new(sched::daemon_program());
        process::run(command.args(args).uid(NOBODY).gid(NOBODY), LIMIT)
    };
    let closed = ask(&["status"])?;
    ensure(closed.code == NOT_ALLOWED, || format!("exit code {}: {}", closed.code, closed.err))?;
    mode(0o666)?;
    let open = ask(&["status"])?;
    let change = ask(&["config", "set", "permit=7"])?;
    mode(0o600)?;
    ensure(open.code == NOT_ALLOWED && change.code != 0, || {
        format!("exit codes {} and {}", open.code, change.code)
    })?;
    let status = healthy(daemon, seq)?;
    let counted = number(&status, "/control/strangers")? - before;
    ensure(counted == 2, || format!("{counted} were counted"))?;
    Ok(open.err.trim().to_owned())
}

/// The applied configuration cannot be saved: then it is not made so.
fn full(daemon: &Daemon, seq: u64, disk: &Disk) -> Result<String> {
    change(json!({ "permit": 5 }), "", 200)?;
    disk.fill()?;
    let failed = change(json!({ "permit": 6 }), "", 500)?;
    let why = failed["error"].as_str().unwrap_or_default().to_owned();
    ensure(why.contains("cannot be saved"), || why.clone())?;
    let permit = || -> Result<String> { Ok(super::control::http_status()?["permit"].to_string()) };
    ensure(permit()? == "5", || "permit is another".into())?;
    disk.make_room()?;
    change(json!({ "permit": 7 }), "", 200)?;
    ensure(permit()? == "7", || "permit is another".into())?;
    decides(daemon, seq)?;
    Ok(format!("{why}; what was before held; saved once there was room"))
}

/// All places at the control address are taken by clients that say nothing, or a little.
fn slow(daemon: &Daemon, seq: u64) -> Result<String> {
    let connect = || TcpStream::connect(CONTROL).cannot("connect");
    let silent: Vec<TcpStream> = (0..40).map(|_| connect()).collect::<Result<_>>()?;
    for mut stream in silent.iter().step_by(2) {
        let _ = stream.write_all(b"POST /api/v1/runtime-config HT");
    }
    let begun = sys::now_ns();
    healthy(daemon, seq)?;
    ensure(ask(METRICS, "GET", "/metrics", "")?.0 == 200, || "no metrics".into())?;
    let said =
        process::run(Command::new(sched::daemon_program()).args(["config", "set", "permit=8"]), LIMIT)?;
    ensure(said.code == 0, || said.err)?;
    let took = ms(sys::now_ns() - begun);
    drop(silent);
    let (code, text) = ask(CONTROL, "GET", "/api/v1/status", "")?;
    ensure(code == 200, || format!("{code}: {text}"))?;
    Ok(format!("40 clients; status, metrics and a change over the socket took {took} ms meanwhile"))
}

/// A file system of a few pages where the state is kept.
struct Disk;

impl Disk {
    const FILLER: &str = "filler";

    fn new() -> Result<Self> {
        fs::create_dir_all(FOLDER).cannot(format_args!("make {FOLDER}"))?;
        let (target, data) = (CString::new(FOLDER), CString::new(DISK));
        let (target, data) = (target.cannot("name a folder")?, data.cannot("name a size")?);
        // SAFETY: all strings are terminated and live through the call.
        let done = unsafe {
            libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, data.as_ptr().cast())
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error()).cannot(format_args!("mount at {FOLDER}"));
        }
        Ok(Self)
    }

    fn fill(&self) -> Result<()> {
        let filled = fs::write(format!("{FOLDER}/{}", Self::FILLER), vec![0; 1 << 20]);
        ensure(filled.is_err(), || "the disk does not get full".into())
    }

    fn make_room(&self) -> Result<()> {
        fs::remove_file(format!("{FOLDER}/{}", Self::FILLER)).cannot("make room")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(FOLDER) {
            // SAFETY: the string is terminated and lives through the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
