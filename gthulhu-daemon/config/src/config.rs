//! The typed configuration and the table of its keys, which are one thing: a field, its default, what may stand in it,
//! from where it can be set, and what a change of it costs are said once, here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;

use crate::kind::{self, Kind};
use crate::value::Field;
use crate::{Effect, Flag, Key, Mode, ScxChoice, ScxRefused, Secret, Transport};

/// Where a section is in the whole.
trait Section {
    fn of(config: &Config) -> &Self;
    fn of_mut(config: &mut Config) -> &mut Self;
}

/// A struct of the configuration, its defaults, and the rows of the table for its fields. Each row says after `=>`:
/// what is allowed; what a change costs; the flag of the command line; the field of the runtime configuration.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident at [$($at:ident)*], path $prefix:literal, rows $rows:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr
                => $kind:expr, $effect:ident, $flag:expr, $runtime:expr; )+
        }
        $( with { $( $(#[doc = $sub_doc:literal])+ $sub:ident: $sub_type:ty; )+ } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
            $( $( $(#[doc = $sub_doc])+ pub $sub: $sub_type, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ $( $( $sub: <$sub_type>::default(), )+ )? }
            }
        }

        impl Section for $name {
            fn of(config: &Config) -> &Self {
                &(*config)$(.$at)*
            }

            fn of_mut(config: &mut Config) -> &mut Self {
                &mut (*config)$(.$at)*
            }
        }

        fn $rows() -> Vec<Key> {
            vec![ $( Key {
                path: concat!($prefix, stringify!($field)),
                doc: concat!($($doc),+),
                kind: $kind,
                effect: Effect::$effect,
                flag: $flag,
                runtime: $runtime,
                get: |config| $name::of(config).$field.value(),
                set: |config, value| $name::of_mut(config).$field.set(value),
            } ),+ ]
        }
    };
}

const fn flag(name: &'static str) -> Option<Flag> {
    Some(Flag { name, scale: 1, unit: "" })
}

/// A flag in microseconds of a key in nanoseconds.
const fn micros(name: &'static str) -> Option<Flag> {
    Some(Flag { name, scale: 1000, unit: "us" })
}

const fn number(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Number { min, max, unit }
}

section! {
    /// The configuration of the node daemon. All fields have been checked when
    /// [`Loader::load`](crate::Loader::load) returns it.
    Config at [], path "", rows top {
        /// Let the core print to trace_pipe, at most 20 lines a second.
        debug: bool = false => Kind::Switch, Reattach, flag("debug"), Some("debug");
        /// Never ask the policy about kernel threads. Those that may use one CPU only never wait for it anyway.
        early_processing: bool = false => Kind::Switch, Reattach, flag("early-kthreads"), Some("earlyProcessing");
        /// Let a task that wakes up while a CPU is idle go there at once, by the kernel's own selection, without
        /// asking the policy.
        builtin_idle: bool = false => Kind::Switch, Reattach, flag("kernel-idle"), Some("builtinIdle");
    } with {
        /// What schedules, and how.
        scheduler: Scheduler;
        /// What is measured, and who is told.
        monitor: Monitor;
        /// Where strategies come from.
        api: Api;
        /// The daemon itself.
        daemon: Daemon;
    }
}

section! {
    /// What schedules, and how.
    Scheduler at [scheduler], path "scheduler.", rows scheduler {
        /// Off: no scheduler is loaded, whatever the mode is, and the monitor goes on.
        enabled: bool = true => Kind::Switch, Reattach, None, Some("schedulerEnabled");
        /// Who schedules: a plugin by its name; `scx` for another scheduler's program (see
        /// `scheduler.scheduler_name`); `none` for the kernel alone, with the monitor.
        mode: Mode = Mode::Plugin("gthulhu".into()) => Kind::Mode, Live, flag("plugin"), Some("mode");
        /// The program that mode `scx` runs, from `scheduler.scx_folder`.
        scheduler_name: Option<String> = None => kind::SCX_NAME, Reattach, None, Some("schedulerName");
        /// Where the programs of mode `scx` are. Root alone may be able to write there, and no part of the path may
        /// be a link.
        scx_folder: PathBuf = "/usr/bin".into() => kind::PATH, Reattach, None, None;
        /// What such a program is told on its command line: its name, and its arguments with spaces between them. Not to
        /// be changed at run time: some arguments name files.
        scx_args: Vec<String> = Vec::new() => Kind::Pairs, Reattach, None, None;
        /// Slice of a task, in nanoseconds: what the policy gives unless it knows better, and what the core gives.
        slice_ns_default: u64 = 5_000_000 => number(100_000, 100_000_000, "ns"), Live, micros("slice-us"),
            Some("sliceNsDefault");
        /// Shortest slice that the policy gives, in nanoseconds. A longer one than `scheduler.slice_ns_default`
        /// counts as that.
        slice_ns_min: u64 = 1_000_000 => number(100_000, 100_000_000, "ns"), Live, micros("slice-min-us"),
            Some("sliceNsMin");
        /// The core decides by itself, by its own virtual time and the strategies; the plugin is not asked.
        kernel_mode: bool = false => Kind::Switch, Live, flag("kernel-mode"), Some("kernelMode");
        /// Keep runs below `scheduler.max_run_ms`. Off: no limit.
        max_time_watchdog: bool = true => Kind::Switch, Reattach, None, Some("maxTimeWatchdog");
        /// No run of a task is longer than this while others wait, whatever its slices. 0: no limit.
        max_run_ms: u64 = 500 => number(0, 60_000, "ms"), Reattach, flag("max-run-ms"), Some("maxRunMs");
        /// Wakeups for which a decision may hold: the core then lets the task in by itself, as it was decided. 0:
        /// each wakeup is decided.
        permit: u32 = 64 => number(0, 1024, "wakeups"), Live, flag("permit"), Some("permit");
        /// For how long a decision may hold.
        permit_us: u64 = 50_000 => number(1, 1_000_000, "us"), Live, flag("permit-us"), Some("permitUs");
        /// Options of the plugin itself.
        options: Vec<String> = Vec::new() => Kind::Pairs, Live, flag("option"), Some("options");
        /// CPUs that the agent's thread may use. Not set: all.
        agent_cpus: Option<String> = None => kind::CPUS, Live, flag("agent-cpus"), Some("agentCpus");
        /// A CPU for the agent's thread alone, which polls there and never sleeps; only tasks that may use no other CPU run
        /// beside it. Not set: none. Not with `scheduler.agent_cpus`, `scheduler.preempt_us`, `scheduler.partial` or
        /// `scheduler.transport` rings.
        dedicated_cpu: Option<String> = None => kind::CPU, Reattach, flag("dedicated-cpu"), Some("dedicatedCpu");
        /// Schedule only tasks of the class SCHED_EXT, not all normal ones.
        partial: bool = false => Kind::Switch, Reattach, flag("partial"), Some("partial");
        /// Never pick an idle CPU of another NUMA node than the task ran on last.
        numa_local: bool = false => Kind::Switch, Live, flag("numa-local"), Some("numaLocal");
        /// Keep tasks that may use one CPU only in the kernel's queue of that CPU.
        keep_local: bool = false => Kind::Switch, Reattach, flag("keep-local"), Some("keepLocal");
        /// Enforce cpu.max of cgroups, where the kernel tells schedulers about it (Linux 6.17 and later).
        limits: bool = true => Kind::Switch, Reattach, flag("limits"), Some("limits");
        /// How events and decisions travel: through two arrays that kernel and agent share, or through the kernel's
        /// ring buffers.
        transport: Transport = Transport::Shared => kind::TRANSPORT, Reattach, flag("transport"), Some("transport");
        /// The kernel's watchdog: a task that waits for this long ejects the scheduler.
        stall_timeout_ms: u64 = 5000 => number(1000, 30_000, "ms"), Reattach, flag("stall-timeout-ms"), Some("stallTimeoutMs");
        /// The core takes over when a task waits for a decision for this long.
        late_ms: u64 = 30 => number(8, 200, "ms"), Reattach, flag("late-ms"), Some("lateMs");
        /// The agent gets a turn this often also when nothing happens; at most half of `scheduler.stall_timeout_ms`.
        heartbeat_ms: u64 = 500 => number(10, 15_000, "ms"), Reattach, flag("heartbeat-ms"), Some("heartbeatMs");
        /// With all CPUs busy, a running slice is cut for the agent when an event has waited for this long. 0: once in a
        /// millisecond, a few times in a row, and else at the next clock interrupt.
        preempt_us: u64 = 0 => number(0, 100_000, "us"), Reattach, flag("preempt-us"), Some("preemptUs");
        /// Length of the kernel's dump when it ejects the scheduler. 0: the kernel's default (32768), which is also
        /// the most that is kept.
        dump_len: u32 = 0 => number(0, u32::MAX as u64, "bytes"), Reattach, flag("dump-len"), Some("dumpLen");
        /// Fit the core to the type information (BTF) in this file. Not set: the kernel's own.
        btf: Option<PathBuf> = None => kind::PATH_OR_NONE, Reattach, flag("btf"), None;
        /// End an agent whose policy does not return from a call for this long, and start another.
        max_turn_ms: u64 = 2000 => number(100, 60_000, "ms"), Live, flag("max-turn-ms"), Some("maxTurnMs");
        /// Leave vm.compact_unevictable_allowed as it is. Else it is 0 while the scheduler runs: the kernel would
        /// move the agent's locked pages, and the agent wait for that.
        keep_compaction: bool = false => Kind::Switch, Live, flag("keep-compaction"), Some("keepCompaction");
    }
}

section! {
    /// What is measured, and who is told.
    Monitor at [monitor], path "monitor.", rows monitor {
        /// Measure what scheduling does to each group of tasks. Needs no sched_ext.
        enabled: bool = true => Kind::Switch, Live, None, Some("monitoringEnabled");
        /// How often names of pods and services are looked up anew. The counters themselves are read when somebody
        /// asks.
        collection_interval_sec: u64 = 10 => number(1, 3600, "s"), Live, None, Some("collectionIntervalSec");
        /// Measure every task of the machine, not only those of selected pods and services.
        monitor_all: bool = false => Kind::Switch, Live, None, Some("monitorAll");
        /// Offer the stream of single scheduling events.
        stream_events: bool = false => Kind::Switch, Live, None, Some("streamEvents");
        /// A thread that waited for a CPU for this long within a second is told in that stream.
        stream_run_delay_ms: u64 = 100 => number(1, 1000, "ms"), Live, None, Some("streamRunDelayMs");
        /// Port of the metrics.
        prometheus_port: u16 = 9090 => number(1, 65_535, ""), Restart, None, None;
        /// Address of the metrics. Who reaches it can read them: they have no token.
        prometheus_address: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST) => kind::ADDRESS, Restart, None, None;
        /// Follow the cluster's PodSchedulingMetrics objects: then only pods are shown that one of them selects, unless
        /// `monitor.monitor_all` is on.
        enable_crd_watcher: bool = false => Kind::Switch, Live, None, Some("enableCrdWatcher");
        /// How to reach the Kubernetes API, for the names of pods. Not set: as a pod does, where this is one.
        kubeconfig_path: Option<PathBuf> = None => kind::PATH_OR_NONE, Restart, None, None;
        /// A file with the names of pods, for machines that cannot ask the Kubernetes API; see docs/daemon.md.
        names_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Live, None, None;
        /// Name of this node in Kubernetes. Not set: the host's name.
        node_name: Option<String> = None => kind::NODE_NAME, Restart, None, None;
    }
}

section! {
    /// Where strategies come from: the decision maker.
    Api at [api], path "api.", rows api {
        /// Ask the decision maker for strategies, and tell it the counters.
        enabled: bool = false => Kind::Switch, Live, None, None;
        /// Where it is.
        url: Option<String> = None => kind::URL, Live, None, None;
        /// How often it is asked when it offers no stream of events, and how often it is told the counters.
        interval: u64 = 5 => number(1, 3600, "s"), Live, None, None;
        /// A strategy that its source has not confirmed for this long fades to default.
        strategy_ttl_sec: u32 = gthulhu_model::Ttl::DEFAULT.as_secs()
            => number(gthulhu_model::Ttl::MIN.as_secs() as u64, gthulhu_model::Ttl::MAX.as_secs() as u64, "s"), Live, None, None;
        /// Show it a token.
        auth_enabled: bool = false => Kind::Switch, Live, None, None;
        /// The original's way to a token: this public key is exchanged for one.
        public_key_path: Option<PathBuf> = None => kind::FILE, Live, None, None;
        /// A file with the token itself. Only its owner may read it.
        token_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Live, None, None;
    } with {
        /// TLS with a certificate of our own.
        mtls: Mtls;
    }
}

section! {
    /// TLS with a certificate of our own.
    Mtls at [api mtls], path "api.mtls.", rows mtls {
        /// Speak TLS with the decision maker, and show it a certificate.
        enable: bool = false => Kind::Switch, Live, None, None;
        /// Our certificate, as PEM.
        cert_pem: Option<String> = None => kind::PEM, Live, None, None;
        /// Its key, as PEM. Then only its owner may read the configuration; `api.mtls.key_file` is better.
        key_pem: Secret = Secret::default() => Kind::Secret, Live, None, None;
        /// The authority that signed the decision maker's certificate, as PEM.
        ca_pem: Option<String> = None => kind::PEM, Live, None, None;
        /// A file with our certificate.
        cert_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Live, None, None;
        /// A file with its key. Only its owner may read it.
        key_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Live, None, None;
        /// A file with the authority's certificate.
        ca_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Live, None, None;
    }
}

section! {
    /// The daemon itself.
    Daemon at [daemon], path "daemon.", rows daemon {
        /// Socket of `status` and of control; root only.
        socket: PathBuf = "/run/gthulhu/daemon.sock".into() => kind::PATH, Restart, flag("socket"), None;
        /// Write the last status here after the scheduler was detached.
        report: Option<PathBuf> = None => kind::FILE, Restart, flag("report"), None;
        /// Where runtime configuration is taken over HTTP. Not set: only through the socket.
        control_addr: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18080))
            => kind::SOCKET_ADDR, Restart, None, None;
        /// A file with the token that control over HTTP asks for, to read and to change. Only its owner may read it. Any
        /// other address than loopback needs it, or `daemon.client_ca_file`.
        token_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Restart, None, None;
        /// On loopback, without `daemon.token_file` and `daemon.client_ca_file`: whoever changes something needs the token
        /// that the daemon makes at its first start, in `control-token` beside `daemon.runtime_config_path`; reading is
        /// free. Off: every user of the machine may change the scheduler.
        require_token: bool = true => Kind::Switch, Restart, None, None;
        /// Certificate of control over HTTP.
        tls_cert_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Restart, None, None;
        /// Its key. Only its owner may read it.
        tls_key_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Restart, None, None;
        /// The authority that signs the certificates of those who may control.
        client_ca_file: Option<PathBuf> = None => kind::PATH_OR_NONE, Restart, None, None;
        /// Where applied runtime configuration survives a restart. Only root may be able to write into its folder;
        /// never a temporary one.
        runtime_config_path: PathBuf = "/var/lib/gthulhu/runtime.json".into() => kind::STATE, Restart, None, None;
    }
}

impl Config {
    /// The longest run of a task while others wait, in milliseconds; 0 for no limit.
    pub fn max_run_ms(&self) -> u64 {
        if self.scheduler.max_time_watchdog { self.scheduler.max_run_ms } else { 0 }
    }

    /// The program of mode `scx`, if that is the mode.
    ///
    /// # Errors
    /// As [`ScxChoice::new`].
    pub fn scx(&self) -> Result<Option<ScxChoice>, ScxRefused> {
        match (self.effective_mode(), &self.scheduler.scheduler_name) {
            (Mode::Scx, Some(name)) => ScxChoice::new(&self.scheduler.scx_folder, name).map(Some),
            _ => Ok(None),
        }
    }

    /// What the program of this name is told, by [`Scheduler::scx_args`].
    pub fn scx_args(&self, name: &str) -> Vec<String> {
        let of = |pair: &'_ String| {
            let (program, args) = pair.split_once('=')?;
            (program == name).then(|| args.split_whitespace().map(str::to_owned).collect())
        };
        self.scheduler.scx_args.iter().find_map(of).unwrap_or_default()
    }

    /// Who is to schedule, with [`Scheduler::enabled`] in it.
    pub fn effective_mode(&self) -> &Mode {
        if self.scheduler.enabled { &self.scheduler.mode } else { &Mode::None }
    }
}

/// All keys, in the order in which they are shown.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> =
        LazyLock::new(|| [top(), scheduler(), monitor(), api(), mtls(), daemon()].concat());
    &KEYS
}

/// Keys that the original had and that mean nothing here: accepted, and explained.
pub(crate) const IGNORED: [(&str, &str); 2] = [
    (
        "monitor.bpf_object_path",
        "has no effect: the monitor's BPF object is part of the program; remove the line",
    ),
    (
        "simple_scheduler.enable_fifo",
        "has no effect, as in the original, which read it nowhere: for first come, first served write scheduler.mode: simple-fifo",
    ),
];
