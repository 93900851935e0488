//! What `run` can be told, by name, and what of it goes on to the core, the agent and the policy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use gthulhu_model::{Reader, StrategyTable};
use qumun::{Builder, Cpu, Nanos, Permit, Transport};

use crate::strategies::Readers;

/// What a plugin can see of the command line when it is made.
#[derive(Clone, Debug)]
pub struct PluginOptions {
    slice: Nanos,
    slice_min: Nanos,
    permit: Permit,
    own: BTreeMap<String, String>,
    readers: Readers,
}

impl Default for PluginOptions {
    fn default() -> Self {
        Self {
            slice: Nanos::from_millis(5),
            slice_min: Nanos::from_millis(1),
            permit: Permit::wakeups(0),
            own: BTreeMap::new(),
            readers: Readers::default(),
        }
    }
}

impl PluginOptions {
    /// The slice of a task when nothing speaks against it (`--slice-us`).
    pub fn slice(&self) -> Nanos {
        self.slice
    }

    /// The shortest slice that is worth a switch (`--slice-min-us`), never above the other.
    pub fn slice_min(&self) -> Nanos {
        self.slice_min
    }

    /// For how many wakeups, and for how long, a decision may hold (`--permit`, `--permit-us`); what else a permit says is
    /// the plugin's. For no wakeups: each is to be decided.
    pub fn permit(&self) -> Permit {
        self.permit
    }

    /// The strategies of this node, as they change: for a policy that follows them. A table is taken without waiting, at
    /// the beginning of a batch say. A policy that does not ask for them gets none, and the core alone knows of them, for when it
    /// decides by itself.
    pub fn strategies(&self) -> Reader<StrategyTable> {
        self.readers.reader()
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The value of one of the plugin's own options (`--option NAME=VALUE`), if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str)
    }

    /// One of the plugin's own options that is on or off; off unless given.
    ///
    /// # Errors
    /// When it is neither `true`, `false`, `on` nor `off`.
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        match self.get(name) {
            None | Some("false" | "off") => Ok(false),
            Some("true" | "on") => Ok(true),
            Some(other) => Err(format!("option {name} is true or false, not '{other}'")),
        }
    }

    /// One of the plugin's own options that is a number, or something else with a text form.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub fn parse<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| text.parse().map_err(|e| format!("option {name} cannot be '{text}': {e}"));
        self.get(name).map(parse).transpose()
    }

    /// With one more option, in the form `NAME=VALUE`.
    pub(crate) fn with(mut self, pair: &str) -> Result<Self, String> {
        let (name, value) = parse_pair(pair)?;
        match self.own.insert(name.clone(), value) {
            None => Ok(self),
            Some(_) => Err(format!("--option {name} is given twice")),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.own.keys().map(String::as_str)
    }
}

/// On or off, where a bare flag could only say on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// [`Transport`], as the command line and the status name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    Shared,
    Rings,
}

impl TransportArg {
    const DEFAULT: Self = Self::Shared;
}

impl From<TransportArg> for Transport {
    fn from(arg: TransportArg) -> Self {
        match arg {
            TransportArg::Rings => Self::Rings,
            TransportArg::Shared => Self::Shared,
        }
    }
}

/// What the agent's process is told: the policy, and where it runs.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct PolicyArgs {
    /// The policy, see below; the first one unless told
    #[arg(long, value_name = "NAME")]
    pub(crate) plugin: Option<String>,
    /// Slice of a task, in microseconds: what the policy gives unless it knows better, and what the core gives
    #[arg(long, value_name = "US", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    pub(crate) slice_us: u64,
    /// Shortest slice that the policy gives, in microseconds; a longer one than --slice-us counts as that
    #[arg(long, value_name = "US", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    pub(crate) slice_min_us: u64,
    /// Wakeups for which a decision may hold: the core then lets the task in by itself, as it was decided, and the policy
    /// hears of it with the next event. 0: each wakeup is decided
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=Permit::MOST as i64))]
    pub(crate) permit: u32,
    /// And for how long, in microseconds
    #[arg(long, value_name = "US", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) permit_us: u64,
    /// An option of the plugin itself; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = check_pair)]
    pub(crate) option: Vec<String>,
    /// CPUs that the agent's thread may use, such as 0-3,8; all unless told
    #[arg(long, value_name = "CPULIST", value_parser = check_cpus)]
    pub(crate) agent_cpus: Option<String>,
    /// Give the agent's thread this CPU for itself: it polls there and never sleeps, and only tasks that may use no other
    /// CPU run beside it. For machines of many CPUs and many wakeups; not with --agent-cpus, --preempt-us, --partial or
    /// --transport rings
    #[arg(long, value_name = "CPU", conflicts_with_all = ["agent_cpus", "partial"], value_parser = clap::value_parser!(u32).range(0..qumun::MAX_CPUS as i64))]
    pub(crate) dedicated_cpu: Option<u32>,
    /// Schedule only tasks of the class SCHED_EXT, not all normal ones. On kernels without an ext server
    /// (see doctor) busy tasks of the kernel's own scheduler can starve them, and the watchdog then
    /// removes the scheduler
    #[arg(long)]
    pub(crate) partial: bool,
    /// Never pick an idle CPU of another NUMA node than the task ran on last
    #[arg(long)]
    pub(crate) numa_local: bool,
}

impl PolicyArgs {
    /// The same, as the command line of the agent.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: &str| args.push(format!("--{name}={value}").into());
        if let Some(plugin) = &self.plugin {
            add("plugin", plugin);
        }
        add("slice-us", &self.slice_us.to_string());
        add("slice-min-us", &self.slice_min_us.to_string());
        add("permit", &self.permit.to_string());
        add("permit-us", &self.permit_us.to_string());
        self.option.iter().for_each(|pair| add("option", pair));
        if let Some(cpus) = &self.agent_cpus {
            add("agent-cpus", cpus);
        }
        if let Some(cpu) = self.dedicated_cpu {
            add("dedicated-cpu", &cpu.to_string());
        }
        if self.partial {
            args.push("--partial".into());
        }
        if self.numa_local {
            args.push("--numa-local".into());
        }
        args
    }

    /// What the policy can see of it.
    pub(crate) fn plugin_options(&self) -> Result<PluginOptions, String> {
        let base = PluginOptions {
            slice: Nanos::from_micros(self.slice_us),
            slice_min: Nanos::from_micros(self.slice_min_us.min(self.slice_us)),
            permit: Permit::wakeups(self.permit).lasting(Nanos::from_micros(self.permit_us)),
            own: BTreeMap::new(),
            readers: Readers::default(),
        };
        self.option.iter().try_fold(base, |options, pair| options.with(pair))
    }

    /// What the library is told about it.
    pub(crate) fn builder(&self, ops_name: String) -> Builder {
        let cpus = self.agent_cpus.as_deref().and_then(|list| parse_cpus(list).ok()).unwrap_or_default();
        let builder = qumun::builder(ops_name)
            .default_slice(Nanos::from_micros(self.slice_us))
            .partial(self.partial)
            .numa_local(self.numa_local)
            .agent_cpus(cpus.into_iter().map(Cpu));
        self.dedicated_cpu.map(Cpu).into_iter().fold(builder, Builder::dedicated_cpu)
    }
}

/// What the core is told at load.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct CoreArgs {
    /// Let a task that wakes up while a CPU is idle go there at once, by the kernel's own selection, without
    /// asking the policy
    #[arg(long)]
    pub(crate) kernel_idle: bool,
    /// Keep tasks that may use one CPU only in the kernel's queue of that CPU
    #[arg(long)]
    pub(crate) keep_local: bool,
    /// Never ask the policy about kernel threads; those that may use one CPU only never wait for it anyway
    #[arg(long, value_name = "ON|OFF", default_value = "off", hide_possible_values = true)]
    pub(crate) early_kthreads: Switch,
    /// Enforce cpu.max of cgroups, where the kernel tells schedulers about it (Linux 6.17 and later)
    #[arg(long, value_name = "ON|OFF", default_value = "on", hide_possible_values = true)]
    pub(crate) limits: Switch,
    /// How events and decisions travel: through two arrays that kernel and agent share, or through the kernel's ring
    /// buffers
    #[arg(long, value_name = "shared|rings", default_value_t = TransportArg::DEFAULT, value_enum, hide_possible_values = true)]
    pub(crate) transport: TransportArg,
    /// No run of a task is longer than this while others wait, whatever its slices; 0: no limit
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) max_run_ms: u64,
    /// The kernel's watchdog: a task that waits for this long ejects the scheduler (1000 to 30000)
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1000..=30_000))]
    pub(crate) stall_timeout_ms: u64,
    /// The core takes over when a task waits for a decision for this long (8 to 200)
    #[arg(long, value_name = "MS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(8..=200))]
    pub(crate) late_ms: u64,
    /// The agent gets a turn this often also when nothing happens; at most half of --stall-timeout-ms
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=15_000))]
    pub(crate) heartbeat_ms: u64,
    /// With all CPUs busy, cut a running slice for the agent when an event has waited for this long, in microseconds; 0:
    /// once in a millisecond, a few times in a row, and else at the next clock interrupt
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub(crate) preempt_us: u64,
    /// Length in bytes of the kernel's dump when it ejects the scheduler; 0: the kernel's default (32768),
    /// which is also the most that is kept
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) dump_len: u32,
    /// Fit the core to the type information (BTF) in this file; the kernel's own must be there all the same
    #[arg(long, value_name = "FILE")]
    pub(crate) btf: Option<PathBuf>,
    /// Let the core print to trace_pipe, at most 20 lines a second
    #[arg(long)]
    pub(crate) debug: bool,
}

impl CoreArgs {
    /// Tells the library.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let builder = builder
            .kernel_idle(self.kernel_idle)
            .keep_local(self.keep_local)
            .early_kthreads(self.early_kthreads == Switch::On)
            .limits(self.limits == Switch::On)
            .transport(self.transport.into())
            .max_run(Nanos::from_millis(self.max_run_ms))
            .stall_timeout(Nanos::from_millis(self.stall_timeout_ms))
            .late_after(Nanos::from_millis(self.late_ms))
            .heartbeat(Nanos::from_millis(self.heartbeat_ms))
            .preempt_after(Nanos::from_micros(self.preempt_us))
            .dump_len(self.dump_len)
            .debug(self.debug);
        match &self.btf {
            Some(path) => builder.custom_btf(path),
            None => builder,
        }
    }
}

fn parse_pair(pair: &str) -> Result<(String, String), String> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("an option of a plugin has the form NAME=VALUE".into()),
    }
}

fn check_pair(pair: &str) -> Result<String, String> {
    parse_pair(pair).map(|_| pair.to_owned())
}

fn check_cpus(list: &str) -> Result<String, String> {
    parse_cpus(list).map(|_| list.to_owned())
}

/// Numbers and ranges, as the kernel writes them: `0-3,8`.
pub(crate) fn parse_cpus(list: &str) -> Result<Vec<u32>, String> {
    let number = |text: &str| -> Result<u32, String> {
        let cpu: u32 = text.trim().parse().map_err(|_| format!("'{text}' is no CPU number"))?;
        if cpu < qumun::MAX_CPUS {
            Ok(cpu)
        } else {
            Err(format!("CPU {cpu}: numbers are below {}", qumun::MAX_CPUS))
        }
    };
    let mut cpus = Vec::new();
    for part in list.split(',') {
        match part.split_once('-') {
            None => cpus.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(format!("'{part}' ends before it begins"));
                }
                cpus.extend(first..=last);
            }
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    #[test]
    fn the_agent_is_told_what_the_supervisor_was_told() {
        let words = [
            "x",
            "--plugin",
            "simple",
            "--slice-us",
            "700",
            "--slice-min-us",
            "300",
            "--permit",
            "3",
            "--option",
            "fifo=on",
            "--option",
            "a=b=c",
            "--agent-cpus",
            "0-2,5",
            "--partial",
        ];
        let told = Cli::try_parse_from(words).expect("parsed").policy;
        let mut again = vec![OsString::from("x")];
        again.extend(told.to_args());
        assert_eq!(Cli::try_parse_from(again).expect("parsed").policy, told);
        let options = told.plugin_options().expect("options");
        assert_eq!((options.flag("fifo"), options.get("a")), (Ok(true), Some("b=c")));
        assert_eq!(options.slice(), Nanos::from_micros(700));
        assert_eq!(options.permit().get_wakeups(), 3);
        let words = ["x", "--dedicated-cpu", "3"];
        let told = Cli::try_parse_from(words).expect("parsed").policy;
        let again = std::iter::once(OsString::from("x")).chain(told.to_args());
        assert_eq!(Cli::try_parse_from(again).expect("parsed").policy, told);
        assert_eq!(options.parse::<u32>("none"), Ok(None));
        assert!(options.parse::<u32>("a").is_err());
    }

    #[test]
    fn the_transport_is_that_of_the_library_unless_told() {
        assert_eq!(Transport::from(TransportArg::DEFAULT), Transport::default());
    }

    #[test]
    fn wrong_values_are_refused_at_the_command_line() {
        for wrong in [
            ["--slice-us", "99"],
            ["--option", "fifo"],
            ["--option", "=1"],
            ["--agent-cpus", ""],
            ["--agent-cpus", "3-1"],
            ["--agent-cpus", "1024"],
            ["--agent-cpus", "a"],
            ["--dedicated-cpu", "1024"],
            ["--dedicated-cpu", "0-1"],
            ["--dedicated-cpu=1", "--partial"],
            ["--dedicated-cpu=1", "--agent-cpus=1"],
        ] {
            assert!(Cli::try_parse_from(["x", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_cpus("0-2,5"), Ok(vec![0, 1, 2, 5]));
    }
}
