//! How to load the core.

use std::path::PathBuf;

use crate::places::Places;
use crate::ring::Transport;
use crate::wire::{Config, OPT_BUILTIN_IDLE, OPT_EARLY_KTHREADS, OPT_KEEP_LOCAL, OPT_NO_LIMITS, OPT_SHARED};
use crate::{Error, ErrorKind, Result};

/// How to load the core. Every field has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Name of the scheduler, as shown in `/sys/kernel/sched_ext/root/ops`: letters, digits, `_`, `.` (the kernel allows no others).
    pub name: String,
    /// Settings of the core. `nr_cpu_ids` is filled in from the machine.
    pub config: Config,
    /// The kernel's watchdog: a runnable task that does not run for this long ejects the scheduler.
    /// 1000 to 30000; the kernel allows no more.
    pub timeout_ms: u32,
    /// Length of the kernel's dump when it ejects us; 0 for the kernel's default (32 KiB).
    pub exit_dump_len: u32,
    /// Only tasks of the class `SCHED_EXT` are scheduled (`SCX_OPS_SWITCH_PARTIAL`), all others stay
    /// with the kernel's own scheduler.
    pub partial: bool,
    /// Type information to fit the core to, instead of the kernel's own. The kernel's own is needed all
    /// the same: it checks the operations against it.
    pub custom_btf: Option<PathBuf>,
    /// Behaviour of the core that is chosen at load.
    pub switches: Switches,
    /// How events get to the agent, and decisions back.
    pub transport: Transport,
    /// Which CPUs share what, if it is known.
    pub places: Option<Box<Places>>,
    /// Load also while another scheduler is attached. It has to be gone before this one is.
    pub beside: bool,
}

/// Behaviour of the core that is chosen at load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Switches {
    /// A task that wakes up while a CPU is idle goes there at once, by the kernel's own selection; the
    /// policy is not asked.
    pub kernel_idle: bool,
    /// Tasks that may use one CPU only never leave the kernel's queue of that CPU.
    pub keep_local: bool,
    /// The policy is never asked about kernel threads. (About those that may use one CPU only it never is.)
    pub early_kthreads: bool,
    /// Limits of cgroups (`cpu.max`) are not enforced, also where the kernel tells them.
    pub no_limits: bool,
}

impl Switches {
    /// As the core takes them: `OPT_*`. The rest is not a matter of the core alone.
    pub(crate) fn bits(&self) -> u32 {
        let bit = |on, bit| if on { bit } else { 0 };
        bit(self.kernel_idle, OPT_BUILTIN_IDLE)
            | bit(self.keep_local, OPT_KEEP_LOCAL)
            | bit(self.early_kthreads, OPT_EARLY_KTHREADS)
            | bit(self.no_limits, OPT_NO_LIMITS)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "qumun".into(),
            config: Config {
                slice_ns: 5_000_000,
                slice_min_ns: 100_000,
                slice_max_ns: 20_000_000,
                late_ns: 30_000_000,
                preempt_ns: 1_000_000,
                max_run_ns: 500_000_000,
                heartbeat_ns: 500_000_000,
                preempt_after_ns: 0,
                nr_cpu_ids: 0,
                debug: 0,
                options: 0,
                events: 0,
                dedicated: 0,
                reserved: 0,
            },
            timeout_ms: 5000,
            exit_dump_len: 0,
            partial: false,
            custom_btf: None,
            switches: Switches::default(),
            transport: Transport::default(),
            places: None,
            beside: false,
        }
    }
}

impl Options {
    /// What is chosen, as the core takes it: `OPT_*`.
    pub(crate) fn bits(&self) -> u32 {
        self.switches.bits() | if self.transport == Transport::Shared { OPT_SHARED } else { 0 }
    }

    /// What needs no kernel to be wrong.
    pub(crate) fn check(&self) -> Result<()> {
        // SCX_WATCHDOG_MAX_TIMEOUT is 30 s (kernel/sched/ext.c). Below a second the latch could not be
        // told from a stall.
        if !(1_000..=30_000).contains(&self.timeout_ms) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the stall timeout can be 1000 to 30000 ms, not {}", self.timeout_ms),
            ));
        }
        if self.config.heartbeat_ns / 1_000_000 * 2 > u64::from(self.timeout_ms) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a heartbeat of {} ms is longer than half of the stall timeout ({} ms): the kernel would \
                     take the agent for a stalled task",
                    self.config.heartbeat_ns / 1_000_000,
                    self.timeout_ms
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_core_cannot_do_is_refused_by_name() {
        assert!(Options::default().check().is_ok());
        let refused = |change: fn(&mut Options), word: &str| {
            let mut options = Options::default();
            change(&mut options);
            let error = options.check().expect_err(word);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
        };
        refused(|o| o.timeout_ms = 999, "1000 to 30000");
        refused(|o| o.timeout_ms = 30_001, "1000 to 30000");
        refused(|o| o.config.heartbeat_ns = 2_600_000_000, "heartbeat");
    }
}
