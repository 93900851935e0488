//! What may happen to a daemon, done to it while the machine is busy and a heart beats.

use crate::check::ensure;
use crate::load::Beat;
use crate::noise::Noise;
use crate::process::{Background, wait_for};
use crate::sched::{self, Daemon, OPS_PREFIX, Scx};
use crate::{Result, sys};
use std::time::Duration;

/// Time between two beats.
pub const PERIOD: Duration = Duration::from_millis(100);
/// The longest gap that is allowed: a beat may be half a second late.
pub const MAX_GAP_NS: u64 = 600_000_000;
/// Longer than any drill; all loads are killed at its end.
const FOR_LONG: &str = "600";
/// Until the agent decides again: 2 s is the longest dwell of the core.
const NORMAL_LIMIT: Duration = Duration::from_secs(5);
const RETURN_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// How many hogs keep every CPU busy, and some waiting: two for each, four at least.
pub fn hogs() -> usize {
    std::thread::available_parallelism().map_or(4, |cpus| (2 * cpus.get()).max(4))
}

/// Processes that compute, and a heart that beats among them.
#[derive(Debug)]
pub struct Pressure {
    /// The heart.
    pub beat: Beat,
    /// What the host adds to its gaps.
    pub noise: Noise,
    _hogs: Background,
}

impl Pressure {
    /// Starts both.
    ///
    /// # Errors
    /// When the hogs cannot be started.
    pub fn start() -> Result<Self> {
        let hogs = Background::load(&["hogs", &hogs().to_string(), "--secs", FOR_LONG])?;
        Ok(Self { beat: Beat::start(PERIOD), noise: Noise::start(), _hogs: hogs })
    }
}

/// Processes that do not run until this value is dropped, whatever happens to the drill.
#[derive(Debug)]
struct Stopped(Vec<i32>);

impl Stopped {
    fn new(pids: &[i32]) -> Result<Self> {
        let mut stopped = Self(Vec::new());
        for &pid in pids {
            sys::signal(pid, libc::SIGSTOP)?;
            stopped.0.push(pid);
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The last one first: the agent, who must not look silent to its supervisor.
        for pid in self.0.iter().rev() {
            let _ = sys::signal(*pid, libc::SIGCONT);
        }
    }
}

/// What a freeze showed.
#[derive(Debug, Clone)]
pub struct Freeze {
    /// Longest time without a beat that reached into the freeze or what followed, in ns.
    pub gap: u64,
    /// From the end of the freeze until the agent decided again.
    pub back: Duration,
    /// How much the counts of degraded periods grew: begun and ended.
    pub entered: u64,
    /// See `entered`.
    pub left: u64,
    /// Looks at the kernel while nobody of ours could run, all of which found the scheduler at work.
    pub looks: u32,
}

/// Stops supervisor and agent for `time`, lets them go on, and waits until the agent decides again. `watch` is
/// called ten times a second meanwhile.
///
/// # Errors
/// When the scheduler is removed or replaced meanwhile, or the agent does not come back.
pub fn freeze(
    daemon: &Daemon,
    beat: &mut Beat,
    time: Duration,
    mut watch: impl FnMut(Duration, &mut Beat) -> Result<()>,
) -> Result<Freeze> {
    let before = daemon.status()?;
    let loaded = sched::assert_active(OPS_PREFIX)?;
    let agent = sched::agent_pid(&before).ok_or("there is no agent")?;
    let start = sys::now_ns();
    // The supervisor first: it must not see an agent that is silent.
    let stopped = Stopped::new(&[daemon.supervisor_pid(), agent])?;
    let mut looks = 0;
    let mut next = start;
    while next < start + time.as_nanos() as u64 {
        next += LOOK.as_nanos() as u64;
        sys::sleep_until(next);
        let passed = Duration::from_nanos(sys::now_ns() - start);
        let scx = Scx::read()?;
        ensure(scx == loaded, || format!("after {passed:?} of silence: {scx:?}, was {loaded:?}"))?;
        looks += 1;
        watch(passed, beat)?;
    }
    drop(stopped);
    let (after, back) = wait_for_normal(sched::number(&before, "/transitions/left")?)?;
    let grew = |pointer| Ok::<_, String>(sched::number(&after, pointer)? - sched::number(&before, pointer)?);
    Ok(Freeze {
        gap: beat.longest_gap(start)?,
        back,
        entered: sched::times_entered(&after)? - sched::times_entered(&before)?,
        left: grew("/transitions/left")?,
        looks,
    })
}

/// What the death of an agent showed.
#[derive(Debug, Clone)]
pub struct Death {
    /// Longest time without a beat since the death, in ns.
    pub gap: u64,
    /// From the death until a new agent was known, and until it decided.
    pub back: Duration,
    /// See `back`.
    pub normal: Duration,
    /// The new agent.
    pub pid: i32,
    /// How many restarts were counted.
    pub restarts: u64,
}

/// Kills the agent and waits until a new one decides.
///
/// # Errors
/// When the scheduler is removed or replaced meanwhile, or no agent comes back.
pub fn kill_agent(daemon: &Daemon, beat: &mut Beat) -> Result<Death> {
    let before = daemon.status()?;
    let loaded = sched::assert_active(OPS_PREFIX)?;
    let old = sched::agent_pid(&before).ok_or("there is no agent")?;
    let start = sys::now_ns();
    sys::signal(old, libc::SIGKILL)?;
    let (pid, back) = wait_for("new agent", RETURN_LIMIT, || {
        Ok(sched::agent_pid(&daemon.status()?).filter(|pid| *pid != old))
    })?;
    let (after, _) = wait_for_normal(sched::number(&before, "/transitions/left")?)?;
    let normal = Duration::from_nanos(sys::now_ns() - start);
    let scx = Scx::read()?;
    ensure(scx == loaded, || format!("after the agent's death: {scx:?}, was {loaded:?}"))?;
    Ok(Death {
        gap: beat.longest_gap(start)?,
        back,
        normal,
        pid,
        restarts: sched::number(&after, "/agent/restarts")? - sched::number(&before, "/agent/restarts")?,
    })
}

/// Waits until one more degraded period than `left` has ended and none has begun since. The mode alone could be
/// one that the core has not left yet. In kernel mode there is none: nobody waits for the agent.
fn wait_for_normal(left: u64) -> Result<(serde_json::Value, Duration)> {
    let mut last = serde_json::Value::Null;
    let back = wait_for("return to normal", NORMAL_LIMIT, || {
        last = sched::status()?;
        let returned = sched::in_kernel_mode() || sched::number(&last, "/transitions/left")? > left;
        Ok((returned && sched::mode(&last)? == sched::usual_mode()).then_some(()))
    });
    match back {
        Ok(((), took)) => Ok((last, took)),
        Err(e) => Err(format!("{e}; agent: {}; last: {last}", sched::what_the_agent_does(&last))),
    }
}

/// Whole milliseconds, for people.
pub fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}
