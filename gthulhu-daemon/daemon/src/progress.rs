//! Is the agent getting anywhere? A policy may hang without dying.
//!
//! While the core has taken over, the first thing that an agent does in its next turn is to answer the
//! new epoch. An agent that does not, although it could run, is inside a call of its policy that does not
//! return. It is ended, and another is started.
//!
//! - Only time at which the supervisor itself looked counts, so a machine, a supervisor or an agent that
//!   was stopped for a while is no reason.
//! - An agent that is stopped (SIGSTOP, a debugger) is left alone: somebody looks at it.
//! - An agent that computes must have got CPU time: one that real-time tasks starve is not at fault.
//! - An agent that sleeps in the kernel without a way out (`D`) would not die either.

use std::time::{Duration, Instant};

use crate::process::Stat;

/// Between two looks at most this much counts: the supervisor may have been stopped, too.
const STEP_MAX: Duration = Duration::from_millis(250);
/// This part of the time at least must have been spent on a CPU. The core gives an agent that is late
/// up to 4 ms in 10.
const CPU_PART: u32 = 20;

/// What was seen of the agent at one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// The core has taken over, and this agent, which introduced itself, has not answered that yet.
    pub(crate) unanswered: bool,
    /// The agent's own counters, in one number that changes with each of them.
    pub(crate) counters: u64,
    pub(crate) stat: Stat,
}

/// Why an agent is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hang {
    /// A call of the policy computes and does not return.
    Stuck,
    /// A call of the policy waits and does not return.
    Blocked,
}

impl Hang {
    /// As `status` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Blocked => "blocked",
        }
    }
}

/// Watches one agent.
#[derive(Debug)]
pub(crate) struct Progress {
    limit: Duration,
    last: Option<Look>,
    /// For how long there was no progress, and the CPU time at its beginning.
    without: Duration,
    cpu_ms: u64,
}

impl Progress {
    /// Watches an agent whose turns may last this long.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, last: None, without: Duration::ZERO, cpu_ms: 0 }
    }

    /// Takes one look. Says why the agent should be ended, if it should.
    pub(crate) fn look(&mut self, now: Look) -> Option<Hang> {
        let last = self.last.replace(now)?;
        let moved = now.counters != last.counters;
        let stopped = now.stat.is_stopped() || last.stat.is_stopped();
        if !now.unanswered || !last.unanswered || moved || stopped {
            (self.without, self.cpu_ms) = (Duration::ZERO, now.stat.cpu_ms);
            return None;
        }
        self.without += now.at.saturating_duration_since(last.at).min(STEP_MAX);
        if self.without < self.limit {
            return None;
        }
        let spent = Duration::from_millis(now.stat.cpu_ms.saturating_sub(self.cpu_ms));
        match now.stat.state {
            'R' if spent >= self.limit / CPU_PART => Some(Hang::Stuck),
            'S' if last.stat.state == 'S' => Some(Hang::Blocked),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// Looks each 100 ms with these states until one is enough; returns when and why.
    fn watch(mut look: impl FnMut(u64) -> (char, bool, u64, u64)) -> Option<(u64, Hang)> {
        let (mut progress, start) = (Progress::new(LIMIT), Instant::now());
        (0..100).find_map(|i| {
            let (state, unanswered, counters, cpu_ms) = look(i);
            let stat = Stat { state, minor_faults: 0, major_faults: 0, cpu_ms };
            let at = start + Duration::from_millis(100 * i);
            progress.look(Look { at, unanswered, counters, stat }).map(|hang| (i, hang))
        })
    }

    #[test]
    fn who_computes_or_waits_for_longer_than_a_turn_may_last_is_ended() {
        assert_eq!(watch(|i| ('R', true, 7, 40 * i)), Some((20, Hang::Stuck)));
        assert_eq!(watch(|_| ('S', true, 7, 0)), Some((20, Hang::Blocked)));
        // The clock begins when there is something to answer.
        assert_eq!(watch(|i| ('R', i >= 30, 7, 40 * i)), Some((50, Hang::Stuck)));
    }

    #[test]
    fn who_answers_or_works_or_is_stopped_or_starved_is_left_alone() {
        assert_eq!(watch(|i| ('R', false, 7, 40 * i)), None, "the agent decides, or has answered");
        assert_eq!(watch(|i| ('R', true, i / 15, 40 * i)), None, "slow, but it works");
        assert_eq!(watch(|_| ('T', true, 7, 0)), None, "stopped");
        assert_eq!(watch(|i| ('R', true, 7, i / 10)), None, "it gets no CPU");
        assert_eq!(watch(|_| ('D', true, 7, 0)), None, "the kernel holds it");
    }

    #[test]
    fn time_at_which_nobody_looked_does_not_count() {
        let (mut progress, start) = (Progress::new(LIMIT), Instant::now());
        let look = |ms, state| Look {
            at: start + Duration::from_millis(ms),
            unanswered: true,
            counters: 1,
            stat: Stat { state, minor_faults: 0, major_faults: 0, cpu_ms: ms },
        };
        for ms in [0, 100, 200, 9_200, 9_300, 9_400] {
            assert_eq!(progress.look(look(ms, 'R')), None, "at {ms}");
        }
        // An agent that was stopped begins anew when it goes on.
        assert_eq!(progress.look(look(9_500, 'T')), None);
        for ms in (9_600..11_600).step_by(100) {
            assert_eq!(progress.look(look(ms, 'R')), None, "at {ms}");
        }
        assert_eq!(progress.look(look(11_600, 'R')), Some(Hang::Stuck));
    }
}
