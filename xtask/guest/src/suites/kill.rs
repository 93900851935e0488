//! Agent and supervisor killed on a busy machine.

use super::scene::own_gap;
use super::{PLUGIN, a_task_runs, enable_seq, healthy};
use crate::check::{Checks, ensure};
use crate::drill::{self, MAX_GAP_NS, Pressure, ms};
use crate::process::wait_for;
use crate::sched::{Daemon, assert_disabled};
use crate::{Result, sys};
use std::time::Duration;

const DEATHS: u32 = 3;
/// Between two deaths: not a crash loop yet.
const PAUSE: Duration = Duration::from_secs(2);
/// Until a new agent is there, and until everything is gone after the supervisor.
const LIMIT: Duration = Duration::from_secs(1);
const TAKE_OVER_NS: u64 = 55_000_000;

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    sys::be_real_time();
    let own = own_gap()?;
    let mut daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    let mut pressure = Pressure::start()?;
    let start = sys::now_ns();
    for number in 1..=DEATHS {
        sys::sleep(PAUSE);
        checks.check(&format!("kill.agent.{number}"), || {
            let death = drill::kill_agent(&daemon, &mut pressure.beat)?;
            let text = format!(
                "new agent {} after {} ms, decides after {} ms (the core waits longer after each relapse), \
                 {} restart counted, enable_seq {seq}, longest gap {} ms",
                death.pid,
                death.back.as_millis(),
                death.normal.as_millis(),
                death.restarts,
                ms(death.gap)
            );
            healthy(&daemon, seq).map_err(|e| format!("{e}; {text}"))?;
            if death.back <= LIMIT && death.restarts == 1 { Ok(text) } else { Err(text) }
        });
    }
    let agent = daemon.agent_pid()?.ok_or("there is no agent to outlive its supervisor")?;
    let before_the_last = pressure.beat.longest_gap(start)?;
    checks.check("kill.same", || {
        healthy(&daemon, seq)?;
        // The core takes over within 50 ms and a slice; a beat under a new agent's first turns may meet that twice.
        let limit = (own + 2 * TAKE_OVER_NS).max(MAX_GAP_NS) + pressure.noise.worst();
        let text = format!(
            "enable_seq {seq} after {DEATHS} deaths; longest gap {} ms, EEVDF {} ms in the same boot (limit {} ms)",
            ms(before_the_last),
            ms(own),
            ms(limit)
        );
        if before_the_last <= limit { Ok(text) } else { Err(text) }
    });
    checks.check("kill.supervisor", || {
        let killed = sys::now_ns();
        daemon.kill_supervisor()?;
        let look = || Ok(assert_disabled().ok());
        wait_for("end of the scheduler", LIMIT, look)?;
        let disabled = Duration::from_nanos(sys::now_ns() - killed);
        wait_for("end of the agent", LIMIT, || Ok((!sys::is_alive(agent)).then_some(())))?;
        let gone = Duration::from_nanos(sys::now_ns() - killed);
        ensure(disabled <= LIMIT && gone <= LIMIT, || format!("disabled {disabled:?}, agent gone {gone:?}"))?;
        a_task_runs()?;
        Ok(format!("disabled after {} ms, agent gone after {} ms", disabled.as_millis(), gone.as_millis()))
    });
    sys::sleep(Duration::from_secs(1));
    checks.check("kill.beat", || {
        let gap = pressure.beat.longest_gap(start)?;
        let text = format!(
            "longest gap over all deaths {} ms, without the supervisor's {} ms; the host kept a CPU away for {} ms \
             at most",
            ms(gap),
            ms(before_the_last),
            ms(pressure.noise.worst())
        );
        if gap <= MAX_GAP_NS { Ok(text) } else { Err(text) }
    });
    drop(pressure);
    checks.check("kill.again", || {
        // A dead supervisor must leave nothing that keeps the next one out.
        let next = Daemon::start(PLUGIN, &[])?;
        let started_in = next.started_in;
        let (_, text) = super::stop_well(next)?;
        Ok(format!("the next daemon decides after {} ms; {text}", started_in.as_millis()))
    });
    Ok(())
}
