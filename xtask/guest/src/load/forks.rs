//! Processes that make processes: fork, exec of `/bin/true`, and the wait for its end, again and again.

use crate::{Result, sys};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// `count` processes, each of which makes one child after the other, for `time`; how many children in a second.
///
/// # Errors
/// When a process cannot be made, or no child ever ended well.
pub fn forks(count: usize, time: Duration) -> Result<Value> {
    let done = sys::shared_slots(count)?;
    let start = sys::now_ns();
    let mut pids = Vec::with_capacity(count);
    for slot in done {
        match sys::fork(|| {
            while one().is_ok_and(|ended_well| ended_well)
                && slot.0.fetch_add(1, Ordering::Relaxed) < u64::MAX
            {}
        }) {
            Ok(pid) => pids.push(pid),
            Err(e) => {
                pids.into_iter().for_each(sys::reap);
                return Err(e);
            }
        }
    }
    sys::sleep_until(start + time.as_nanos() as u64);
    // Taken together: under load this process may wake late, and the rate must not profit from that.
    let (total, elapsed) =
        (done.iter().map(|slot| slot.0.load(Ordering::Relaxed)).sum::<u64>(), sys::now_ns() - start);
    pids.into_iter().for_each(sys::reap);
    if total == 0 {
        return Err("not one child of /bin/true ended well".into());
    }
    Ok(json!({
        "processes": count,
        "children": total,
        "per_second": total as f64 / (elapsed as f64 / 1e9),
    }))
}

fn one() -> std::io::Result<bool> {
    let mut command = Command::new("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: nothing is done between fork and exec. That there is something to do makes std fork, as shells and
    // servers do; without it posix_spawn would share the memory and stop the parent until the exec.
    unsafe { command.pre_exec(|| Ok(())) };
    Ok(command.status()?.success())
}
