//! What `lab profile` needs from within: a steady load under one scheduler, and what lies at which address.
//!
//! Lines: `profile,symbol,ADDRESS,NAME` for each function of the kernel and each BPF program, and
//! `profile,range,START,END,NAME` for what is not the kernel; then `profile,ready`: the load is steady. In this order, since
//! an emulator that writes down each instruction is a hundred times slower.

use crate::check::ensure;
use crate::process::Background;
use crate::sched::{Daemon, OPS_PREFIX, assert_active, assert_disabled};
use crate::{Context, Result, load, sys};
use std::fs;
use std::io::{BufWriter, Write};
use std::time::Duration;

const WARM_UP: Duration = Duration::from_secs(20);
/// After the marker, in the guest's time: 50 million instructions, of which the first are written down.
const STEADY: Duration = Duration::from_millis(100);

/// Behind the name of a plugin: as the daemon runs it unless told otherwise. Without, each wakeup is decided.
const PERMITS: &str = "-permits";

/// A pipe's round trips under `scheduler`: a plugin, or `EEVDF` for the kernel's own.
///
/// # Errors
/// When the scheduler does not start or is not the one at work.
pub fn profile(scheduler: &str) -> Result<()> {
    for setting in ["net/core/bpf_jit_kallsyms", "kernel/kptr_restrict"] {
        let value = if setting.starts_with("net") { "1" } else { "0" };
        fs::write(format!("/proc/sys/{setting}"), value).cannot(format_args!("set {setting}"))?;
    }
    sys::sleep(WARM_UP);
    load::pipe(5_000, None)?;
    let daemon = match scheduler {
        "EEVDF" => None,
        name => Some(match name.strip_suffix(PERMITS) {
            Some(plugin) => Daemon::start(plugin, &[])?,
            None => Daemon::start(name, &["--permit", "0"])?,
        }),
    };
    let mut pipe = Background::load(&["pipe", "--rounds", "100000000"])?;
    sys::sleep(Duration::from_secs(1));
    let mut out = BufWriter::new(std::io::stdout().lock());
    symbols(&mut out)?;
    ranges(&mut out, "load", pipe.pid())?;
    if let Some(daemon) = &daemon {
        let agent = daemon.agent_pid()?.ok_or("there is no agent")?;
        ranges(&mut out, "agent", agent)?;
    }
    out.flush().cannot("write")?;
    drop(out);
    sys::sleep(Duration::from_millis(500));
    println!("profile,ready");
    sys::sleep(STEADY);
    match &daemon {
        Some(_) => drop(assert_active(OPS_PREFIX)?),
        None => assert_disabled()?,
    }
    ensure(pipe.is_running()?, || "the load has ended".into())?;
    drop(pipe);
    daemon.map_or(Ok(()), |daemon| daemon.stop().map(drop))
}

fn symbols(out: &mut impl Write) -> Result<()> {
    let all = fs::read_to_string("/proc/kallsyms").cannot("read the kernel's symbols")?;
    for line in all.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
            (words.next(), words.next(), words.next())
        {
            writeln!(out, "profile,symbol,{address},{name}").cannot("write")?;
        }
    }
    Ok(())
}

fn ranges(out: &mut impl Write, name: &str, pid: i32) -> Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).cannot("read where a program is")?;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if let (true, Some((start, end))) = (rights.contains('x'), range.split_once('-')) {
            let offset = words.next().unwrap_or("0");
            let file = words.nth(2).map_or("", |path| path.rsplit('/').next().unwrap_or(path));
            writeln!(out, "profile,range,{start},{end},{offset},{name} {file}").cannot("write")?;
        }
    }
    Ok(())
}
