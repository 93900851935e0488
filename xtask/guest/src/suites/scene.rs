//! What most drills have in common: a daemon, a heart that beats, and the same questions at the end.

use super::{PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill::{self, PERIOD, ms};
use crate::load::Beat;
use crate::noise::Noise;
use crate::process::Background;
use crate::sched::{self, Daemon, assert_disabled, number};
use crate::{Result, sys};
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;

/// The longest time without a beat on two vCPUs under a load of a few tasks for each.
///
/// A beat waits for a CPU five times (clock, child, exec, exit, parent). With two busy tasks for a CPU and slices of
/// 5 ms that is 5 * 2 * 5 ms; it computes for 20 ms to 40 ms where instructions are emulated; one wait may meet the
/// agent's absence, 50 ms and a slice; and the beats are 100 ms apart. That is 250 ms; twice that is a stall.
pub(super) const GAP: Duration = Duration::from_millis(500);

/// How long the kernel's own scheduler is measured, once in a boot.
const OWN_TIME: Duration = Duration::from_secs(4);

/// The longest gap under the kernel's own scheduler with two hogs for each CPU, in ns: measured once, the first time,
/// when nothing may be loaded. How fast an emulated machine is depends on what else its host does; a limit in
/// milliseconds alone would measure that.
pub(super) fn own_gap() -> Result<u64> {
    static OWN: OnceLock<u64> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(*own);
    }
    assert_disabled()?;
    let hogs = Background::load(&["hogs", &drill::hogs().to_string(), "--secs", "600"])?;
    let (mut beat, start) = (Beat::start(PERIOD), sys::now_ns());
    sys::sleep(OWN_TIME);
    let own = beat.longest_gap(start)?;
    drop(hogs);
    Ok(*OWN.get_or_init(|| own))
}

/// A drill under way.
pub(super) struct Scene {
    name: &'static str,
    pub(super) daemon: Daemon,
    seq: u64,
    before: Value,
    pub(super) pulse: Pulse,
}

/// A heart that beats, and what the host adds to its gaps.
pub(super) struct Pulse {
    beat: Beat,
    noise: Noise,
    start: u64,
}

impl Pulse {
    pub(super) fn start() -> Self {
        Self { beat: Beat::start(PERIOD), noise: Noise::start(), start: sys::now_ns() }
    }

    /// The longest gap so far.
    pub(super) fn gap(&mut self) -> Result<u64> {
        self.beat.longest_gap(self.start)
    }

    /// For how long the host kept a CPU away at most, in ns.
    pub(super) fn noise(&self) -> u64 {
        self.noise.worst()
    }

    /// Fails when a gap was longer than `limit` (or twice [`own_gap`], if that is more) and what the host kept away
    /// from a CPU. The latter is measured by real-time threads, which no scheduler of ordinary tasks can make late.
    pub(super) fn verdict(&mut self, limit: Duration) -> Result<String> {
        self.verdict_until(limit, sys::now_ns())
    }

    /// The same for the time before `to`.
    pub(super) fn verdict_until(&mut self, limit: Duration, to: u64) -> Result<String> {
        let gap = self.beat.longest_gap_in(self.start, to)?;
        let (noise, own) = (self.noise.worst(), own_gap()?);
        let text = format!(
            "longest gap {} ms in {} beats (limit {} ms; EEVDF with hogs {} ms; the host kept a CPU away for {} ms)",
            ms(gap),
            self.beat.times()?.len(),
            limit.as_millis(),
            ms(own),
            ms(noise)
        );
        if gap <= noise + (2 * own).max(limit.as_nanos() as u64) { Ok(text) } else { Err(text) }
    }
}

impl Scene {
    /// Starts the daemon, and the heart.
    pub(super) fn start(name: &'static str, args: &[&str]) -> Result<Self> {
        own_gap()?;
        Self::of(name, Daemon::start(PLUGIN, args)?)
    }

    /// The same with a daemon that was started.
    pub(super) fn of(name: &'static str, daemon: Daemon) -> Result<Self> {
        let seq = enable_seq()?;
        let before = healthy(&daemon, seq)?;
        Ok(Self { name, daemon, seq, before, pulse: Pulse::start() })
    }

    /// Fails unless the scheduler is the one that was started and has seen nothing wrong.
    pub(super) fn healthy(&self) -> Result<Value> {
        healthy(&self.daemon, self.seq)
    }

    /// How much a number of the status grew since the start.
    pub(super) fn grew(&self, now: &Value, pointer: &str) -> Result<u64> {
        Ok(number(now, pointer)? - number(&self.before, pointer)?)
    }

    /// The last questions: beat, no ejection, no fault, a clean end, both ledgers.
    pub(super) fn end(mut self, checks: &mut Checks, limit: Duration) {
        let name = self.name;
        checks.check(&format!("{name}.beat"), || self.pulse.verdict(limit));
        checks.check(&format!("{name}.healthy"), || self.unharmed());
        let Self { daemon, pulse, .. } = self;
        drop(pulse);
        checks.check(&format!("{name}.stop"), || {
            let (outcome, text) = stop_well(daemon)?;
            Ok(format!("{text}; {}", balanced(&outcome.report)?))
        });
    }

    /// The same where the drill has ended an agent.
    pub(super) fn end_with_another_agent(mut self, checks: &mut Checks, limit: Duration) {
        checks.check(&format!("{}.beat", self.name), || self.pulse.verdict(limit));
        let Self { name, daemon, pulse, .. } = self;
        drop(pulse);
        checks.check(&format!("{name}.stop"), || {
            let (outcome, text) = stop_well(daemon)?;
            Ok(format!("{text}; {}", balanced(&outcome.report)?))
        });
    }

    fn unharmed(&self) -> Result<String> {
        let after = self.healthy()?;
        ensure(sched::agent_pid(&after) == sched::agent_pid(&self.before), || {
            format!("another agent: {} restarts", after["agent"]["restarts"])
        })?;
        let faults = (self.grew(&after, "/agent/minor_faults")?, self.grew(&after, "/agent/major_faults")?);
        ensure(faults == (0, 0), || format!("{} minor and {} major page faults", faults.0, faults.1))?;
        let decided = self.grew(&after, sched::decided())?;
        ensure(decided > 0, || "nothing was decided".into())?;
        Ok(format!(
            "enable_seq {}, no page fault, no allocation, {decided} decisions, degraded {} times, {} rescued",
            self.seq,
            self.grew(&after, "/transitions/left")?,
            self.grew(&after, "/transitions/rescued")?
        ))
    }
}
