//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::configure::{self, ConfigCommand, SourceArgs};
use crate::control::{self, Decider};
use crate::log;
use crate::observe::{self, MetricsCommand};
use crate::options::{CoreArgs, PolicyArgs};
use crate::registry::Registry;
use crate::settings::Settings;
use crate::{Error, ExitCode, Result, agent, doctor, record, status, strategies, supervisor};

/// The node daemon of Gthulhu: a Linux CPU scheduler whose policy runs in user space.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the scheduler and run a policy until SIGINT or SIGTERM
    Run(Box<RunArgs>),
    /// Explain, check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show what the running scheduler does
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// Say who decides from now on; nothing is detached for it
    Mode {
        /// Who
        decider: Decider,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// Print what happens on this node as it happens, one JSON object in a line (monitor.stream_events)
    Events {
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// Say what some processes of this node are to get, without a control plane
    #[command(subcommand)]
    Strategy(StrategyCommand),
    /// Say what holds for a process or thread, and why: strategy, class, slice, budget, time left
    Explain {
        /// Its number
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// List the metrics; write dashboards and alert rules for them
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// List the policies and their options
    Plugins {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what this machine can do, and what to do about what it cannot; exit code 0 or 78
    Doctor {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Record what all tasks and CPUs do, under any scheduler, into a trace for `qumun`
    Record(record::RecordArgs),
    /// Watch what scheduling does to the pods, services and threads of this machine, under any scheduler
    Top(gthulhu_top::Args),
    /// The policy's process; started by `run`
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        supervisor: u32,
        #[command(flatten)]
        policy: PolicyArgs,
    },
}

#[derive(Debug, Subcommand)]
enum StrategyCommand {
    /// What the file says, and nothing else, is wanted on this node from now on, beside what the decision maker wants
    Apply {
        /// A list in YAML, see docs/strategies.md
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// All that is wanted, by whom, and for how long it holds
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// What was applied here is not wanted any more
    Clear {
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    core: CoreArgs,
    /// End an agent whose policy does not return from a call for this long, and start another (100 to 60000)
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    max_turn_ms: u64,
    /// Let the core decide alone, by its own rule, without asking the policy; `mode` changes that while it runs
    #[arg(long)]
    kernel_mode: bool,
    /// Leave vm.compact_unevictable_allowed as it is. Else it is 0 while the scheduler runs: the kernel would move the
    /// agent's locked pages, and the agent wait for that
    #[arg(long)]
    keep_compaction: bool,
    /// Where `status` asks
    #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
    socket: PathBuf,
    /// Write the last status here after the scheduler was detached
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How lines on stderr look
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    log_format: log::Format,
}

/// Runs the command line of this process.
pub(crate) fn main(registry: &Registry) -> std::process::ExitCode {
    let program = program_name();
    let done = registry.check().and_then(|()| match parse(registry, std::env::args_os()) {
        Ok(command) => run(registry, &program, command),
        Err(error) => {
            // Help and version are no errors; anything else is wrong usage (64, not clap's 2).
            let code = if error.use_stderr() { ExitCode::Usage as u8 } else { 0 };
            let _ = error.print();
            Ok(code)
        }
    });
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{program}: {error}");
            (error.code() as u8).into()
        }
    }
}

fn parse(
    registry: &Registry,
    args: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Command, clap::Error> {
    let list = format!("Plugins:\n{}", registry.list());
    let command = Cli::command().after_help(&list).mut_subcommand("run", |run| run.after_help(&list));
    let mut command = command;
    let matches = command.try_get_matches_from_mut(args)?;
    let mut parsed = Cli::from_arg_matches(&matches)?.command;
    if let (Command::Run(run), Some(("run", given))) = (&mut parsed, matches.subcommand())
        && let Some(command) = command.find_subcommand("run")
    {
        run.source.note(command, given);
    }
    Ok(parsed)
}

fn run(registry: &Registry, program: &str, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => {
            let log = log::Log::new(program, args.log_format);
            let loader = args.source.loader(registry, std::env::vars_os());
            let loaded = loader.load().map_err(|problems| configure::refused(&problems))?;
            loaded.notices().iter().for_each(|notice| log.warn(notice));
            let settings = Settings::new(loaded.config());
            supervisor::run(registry, settings, loaded, log)
        }
        Command::Config(command) => {
            let (text, code) = configure::answer(registry, &command)?;
            print(&text).map(|_| code)
        }
        Command::Status { json, socket } => status::ask(&socket, json).map(|()| 0),
        Command::Mode { decider, socket } => {
            let object = control::send(&socket, decider)?;
            print(&format!("mode {}\n", object["mode"].as_str().unwrap_or("-")))
        }
        Command::Events { socket } => control::follow(&socket).map(|()| 0),
        Command::Metrics(command) => print(&observe::answer(&command)?),
        Command::Strategy(command) => print(&match command {
            StrategyCommand::Apply { file, socket } => strategies::apply(&socket, &file)?,
            StrategyCommand::List { json, socket } => strategies::list(&socket, json)?,
            StrategyCommand::Clear { socket } => strategies::clear(&socket)?,
        }),
        Command::Explain { pid, json, socket } => print(&strategies::explain(&socket, pid, json)?),
        Command::Plugins { json } => {
            let text = if json { format!("{}\n", registry.json()) } else { registry.list() };
            print(&text)
        }
        Command::Doctor { json } => {
            let report = doctor::examine(&doctor::System::here());
            print(&if json { format!("{}\n", report.json()) } else { report.text(doctor::use_color()) })?;
            Ok(if report.can_run() { 0 } else { ExitCode::NoSchedExt as u8 })
        }
        Command::Record(args) => record::run(&args).map(|()| 0),
        Command::Top(args) => gthulhu_top::run(&args).map(|()| 0).map_err(Error::from),
        Command::Agent { supervisor, policy } => agent::main(registry, &policy, supervisor).map(|()| 0),
    }
}

/// A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<u8> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::system("cannot print", &e)),
        _ => Ok(0),
    }
}

/// As it was called: a daemon of somebody else's has another name.
fn program_name() -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(|p| p.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "gthulhu-daemon".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Command, clap::Error> {
        let daemon = crate::builder().builtin();
        parse(&daemon.registry, words.split_whitespace().map(Into::into))
    }

    #[test]
    fn help_lists_the_plugins_and_documents_each_option() {
        Cli::command().debug_assert();
        for words in ["d --help", "d run --help"] {
            let help = parsed(words).expect_err("help").to_string();
            for plugin in ["gthulhu", "simple", "simple-fifo"] {
                assert!(help.contains(plugin), "{help}");
            }
        }
        let run = Cli::command();
        let run = run.find_subcommand("run").expect("run");
        for arg in run.get_arguments() {
            assert!(!arg.is_positional(), "{arg} is positional");
            assert!(arg.get_help().is_some(), "{arg} has no help");
        }
    }

    #[test]
    fn all_options_of_run_have_names_and_bounds() {
        let all = "d run --plugin simple --option fifo=on --slice-us 4000 --slice-min-us 500 --agent-cpus 0-1 \
                   --partial --kernel-idle --numa-local --keep-local --early-kthreads off --transport rings --stall-timeout-ms 9000 \
                   --late-ms 40 --preempt-us 200 --heartbeat-ms 100 --dump-len 65536 --btf /x --debug --max-turn-ms 500 \
                   --socket /s --report /r";
        let Ok(Command::Run(args)) = parsed(all) else { panic!("refused") };
        assert!(
            args.core.kernel_idle && args.policy.numa_local && args.core.keep_local && args.policy.partial
        );
        assert_eq!((args.max_turn_ms, args.core.late_ms, args.core.dump_len), (500, 40, 65_536));
        assert_eq!(args.core.preempt_us, 200);
        for wrong in [
            "--stall-timeout-ms 999",
            "--stall-timeout-ms 30001",
            "--late-ms 7",
            "--max-turn-ms 99",
            "--heartbeat-ms 9",
            "--preempt-us 100001",
            "--early-kthreads perhaps",
            "--transport pigeon",
            "positional",
        ] {
            assert!(parsed(&format!("d run {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_flag_of_run_is_a_key_with_the_same_default() {
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("run");
        let flags: Vec<_> = run
            .get_arguments()
            .filter_map(|arg| Some((arg.get_long()?, arg)))
            .filter(|(name, _)| !configure::NO_KEYS.contains(name))
            .collect();
        for (name, arg) in &flags {
            let found = gthulhu_config::keys()
                .iter()
                .find_map(|key| Some((key, key.flag.filter(|f| f.name == *name)?)));
            let (key, flag) = found.unwrap_or_else(|| panic!("--{name} is no key of the configuration"));
            let said: Vec<_> =
                arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
            let switch = |text: &str| gthulhu_config::Value::Bool(matches!(text, "on" | "true"));
            use gthulhu_config::Value;
            let expected = match key.default() {
                Value::Bool(_) if matches!(arg.get_action(), clap::ArgAction::SetTrue) => Value::Bool(false),
                Value::Bool(_) => switch(&said[0]),
                Value::Number(_) => Value::Number(said[0].parse::<u64>().expect("a number") * flag.scale),
                Value::List(_) => Value::List(said),
                // The default plugin is the first one that is registered.
                Value::Text(text) if *name == "plugin" => Value::Text(text),
                _ => Value::Text(said.first().cloned().unwrap_or_default()),
            };
            assert_eq!(key.default(), expected, "--{name} and {}", key.path);
        }
        for flag in gthulhu_config::keys().iter().filter_map(|key| key.flag) {
            assert!(flags.iter().any(|(name, _)| *name == flag.name), "'run' has no flag --{}", flag.name);
        }
    }

    #[test]
    fn flags_that_were_given_are_stronger_than_the_rest_and_others_are_not() {
        let all = "d run --set scheduler.permit_us=7 --plugin simple --option fifo=on --option a=b --slice-us 4000 \
                   --partial --limits off --report r.json";
        let Ok(Command::Run(args)) = parsed(all) else { panic!("refused") };
        let daemon = crate::builder().builtin();
        let env = [
            ("GTHULHU_SCHEDULER_SLICE_NS_DEFAULT", "1000000"),
            ("GTHULHU_SCHEDULER_PERMIT", "3"),
            ("GTHULHU_SCHEDULER_PREEMPT_US", "250"),
        ];
        let env = env.map(|(name, value)| (name.into(), value.into()));
        let loaded = args.source.loader(&daemon.registry, env).without_runtime().load().expect("loaded");
        let settings = Settings::new(loaded.config());
        let policy = &settings.policy;
        assert_eq!(
            (policy.slice_us, policy.permit, policy.permit_us, policy.slice_min_us),
            (4000, 3, 7, 1000)
        );
        assert_eq!((policy.plugin.as_deref(), policy.partial), (Some("simple"), true));
        assert_eq!(policy.option, ["fifo=on", "a=b"]);
        assert_eq!((settings.core.limits, settings.core.preempt_us), (crate::options::Switch::Off, 250));
        assert_eq!(settings.report, Some(std::path::absolute("r.json").expect("a path")));
    }

    #[test]
    fn without_anything_said_run_does_what_its_flags_say() {
        let Ok(Command::Run(args)) = parsed("d run") else { panic!("refused") };
        let daemon = crate::builder().builtin();
        let loaded = args.source.loader(&daemon.registry, []).without_runtime().load().expect("loaded");
        let settings = Settings::new(loaded.config());
        assert_eq!(settings.core, args.core);
        let plugin = Some("gthulhu".to_owned());
        assert_eq!(settings.policy, PolicyArgs { plugin, ..args.policy.clone() });
        assert_eq!(settings.max_turn.as_millis() as u64, args.max_turn_ms);
    }
}
