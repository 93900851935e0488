//! What `run` is to do, made from the command line and the configuration.

use std::path::PathBuf;
use std::time::Duration;

use gthulhu_config::{Config, Mode, ScxChoice, Transport};

use crate::options::{CoreArgs, PolicyArgs, Switch, TransportArg};

/// What is to be scheduled with, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Who schedules.
    pub(crate) mode: Mode,
    /// The program of mode `scx`, and what it is told.
    pub(crate) scx: Option<(ScxChoice, Vec<String>)>,
    pub(crate) policy: PolicyArgs,
    pub(crate) core: CoreArgs,
    pub(crate) max_turn: Duration,
    pub(crate) kernel_mode: bool,
    pub(crate) keep_compaction: bool,
    pub(crate) report: Option<PathBuf>,
}

impl Settings {
    /// What the configuration says, flags included. Each field is named: what has no key does not build.
    pub(crate) fn new(config: &Config) -> Self {
        let s = &config.scheduler;
        let on_off = |on| if on { Switch::On } else { Switch::Off };
        let mode = config.effective_mode().clone();
        let plugin = match &mode {
            Mode::Plugin(name) => Some(name.clone()),
            Mode::None | Mode::Scx => None,
        };
        Self {
            policy: PolicyArgs {
                plugin,
                slice_us: s.slice_ns_default / 1000,
                slice_min_us: s.slice_ns_min / 1000,
                permit: s.permit,
                permit_us: s.permit_us,
                option: s.options.clone(),
                agent_cpus: s.agent_cpus.clone(),
                dedicated_cpu: s.dedicated_cpu.as_deref().and_then(|cpu| cpu.parse().ok()),
                partial: s.partial,
                numa_local: s.numa_local,
            },
            core: CoreArgs {
                kernel_idle: config.builtin_idle,
                keep_local: s.keep_local,
                early_kthreads: on_off(config.early_processing),
                limits: on_off(s.limits),
                transport: match s.transport {
                    Transport::Shared => TransportArg::Shared,
                    Transport::Rings => TransportArg::Rings,
                },
                max_run_ms: config.max_run_ms(),
                stall_timeout_ms: s.stall_timeout_ms,
                late_ms: s.late_ms,
                preempt_us: s.preempt_us,
                heartbeat_ms: s.heartbeat_ms,
                dump_len: s.dump_len,
                btf: s.btf.clone(),
                debug: config.debug,
            },
            mode,
            // What is wrong with it was said when the configuration was checked.
            scx: config.scx().ok().flatten().map(|choice| {
                let args = config.scx_args(choice.name());
                (choice, args)
            }),
            max_turn: Duration::from_millis(s.max_turn_ms),
            kernel_mode: s.kernel_mode,
            keep_compaction: s.keep_compaction,
            report: config.daemon.report.clone(),
        }
    }
}
