//! Supervisor and agent stopped for a while on a busy machine: everybody else must not notice.

use super::{PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill::{self, MAX_GAP_NS, Pressure, ms};
use crate::sched::{self, Daemon, number};
use crate::{Result, sys};
use serde_json::Value;
use std::time::Duration;

/// Before and after the stop.
const AROUND: Duration = Duration::from_secs(3);
const BACK_LIMIT: Duration = Duration::from_secs(2);
/// Where time counts instructions: the first run of a boot is cold.
const WARM_UP: Duration = Duration::from_secs(20);
/// The same load under the kernel's own scheduler, at most this much better.
const MAX_RATIO: f64 = 1.5;
/// The core takes over after this, plus one slice for who runs then.
const TAKE_OVER_NS: u64 = 50_000_000;
const SLICE_NS: u64 = 5_000_000;

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    sys::be_real_time();
    let is_exact = std::env::var_os("LAB_ICOUNT").is_some();
    let own = is_exact.then(|| gap_without_us(time)).transpose()?;
    let daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    let mut pressure = Pressure::start()?;
    let start = sys::now_ns();
    sys::sleep(AROUND);
    let mut freeze = None;
    checks.check("freeze.stays", || {
        let done = drill::freeze(&daemon, &mut pressure.beat, time, |_, _| Ok(()))?;
        let text = format!("enabled, enable_seq {seq} in all {} looks of {time:?}", done.looks);
        freeze = Some(done);
        Ok(text)
    });
    sys::sleep(AROUND);
    if let Some(freeze) = freeze {
        checks.check("freeze.back", || {
            ensure(freeze.back <= BACK_LIMIT, || format!("normal only {:?} after the stop", freeze.back))?;
            Ok(format!("normal {} ms after the stop", freeze.back.as_millis()))
        });
        checks.check("freeze.latch", || {
            let text = format!("degraded periods: {} begun, {} ended", freeze.entered, freeze.left);
            let periods = u64::from(!sched::in_kernel_mode());
            if (freeze.entered, freeze.left) == (periods, periods) { Ok(text) } else { Err(text) }
        });
    }
    let gap = pressure.beat.longest_gap(start)?;
    checks.check("freeze.beat", || {
        let text = format!(
            "longest gap {} ms, {} beats; the host kept a CPU away for {} ms at most",
            ms(gap),
            pressure.beat.times()?.len(),
            ms(pressure.noise.worst())
        );
        if gap <= MAX_GAP_NS { Ok(text) } else { Err(text) }
    });
    let status = healthy(&daemon, seq);
    drop(pressure);
    if let Some(own) = own {
        checks.check("freeze.exact", || compare(gap, own, &status?));
    } else {
        checks.check("freeze.healthy", || {
            let parked = number(&status?, "/counters/max_parked_ns")?;
            Ok(format!("max parked {} ms (a bound only where time is exact)", ms(parked)))
        });
    }
    checks.check("freeze.stop", || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

/// The longest gap of the same length of the same load under the kernel's own scheduler.
fn gap_without_us(time: Duration) -> Result<u64> {
    sys::sleep(WARM_UP);
    let mut pressure = Pressure::start()?;
    let start = sys::now_ns();
    sys::sleep(AROUND + time + AROUND);
    pressure.beat.longest_gap(start)
}

fn compare(ours: u64, own: u64, status: &Value) -> Result<String> {
    let parked = number(status, "/counters/max_parked_ns")?;
    let ratio = ours as f64 / own as f64;
    let limit = TAKE_OVER_NS + SLICE_NS;
    let text = format!(
        "longest gap {} ms, EEVDF {} ms, ratio {ratio:.2} (limit {MAX_RATIO}); max parked {} ms (limit {})",
        ms(ours),
        ms(own),
        ms(parked),
        ms(limit)
    );
    if ratio <= MAX_RATIO && parked <= limit { Ok(text) } else { Err(text) }
}
