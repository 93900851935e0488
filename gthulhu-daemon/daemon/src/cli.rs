//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::options::{CoreArgs, PolicyArgs};
use crate::registry::Registry;
use crate::{Error, ExitCode, Result, agent, doctor, record, status, supervisor};

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
    /// Show what the running scheduler does
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
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
    /// The policy's process; started by `run`
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        supervisor: u32,
        #[command(flatten)]
        policy: PolicyArgs,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    core: CoreArgs,
    /// End an agent whose policy does not return from a call for this long, and start another (100 to 60000)
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    max_turn_ms: u64,
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
    Ok(Cli::from_arg_matches(&command.try_get_matches_from(args)?)?.command)
}

fn run(registry: &Registry, program: &str, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => supervisor::run(
            registry,
            &supervisor::Settings {
                program: program.to_owned(),
                policy: args.policy,
                core: args.core,
                max_turn: Duration::from_millis(args.max_turn_ms),
                keep_compaction: args.keep_compaction,
                socket: args.socket,
                report: args.report,
            },
        ),
        Command::Status { json, socket } => status::ask(&socket, json).map(|()| 0),
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
                   --late-ms 40 --heartbeat-ms 100 --dump-len 65536 --btf /x --debug --max-turn-ms 500 \
                   --socket /s --report /r";
        let Ok(Command::Run(args)) = parsed(all) else { panic!("refused") };
        assert!(
            args.core.kernel_idle && args.policy.numa_local && args.core.keep_local && args.policy.partial
        );
        assert_eq!((args.max_turn_ms, args.core.late_ms, args.core.dump_len), (500, 40, 65_536));
        for wrong in [
            "--stall-timeout-ms 999",
            "--stall-timeout-ms 30001",
            "--late-ms 7",
            "--max-turn-ms 99",
            "--heartbeat-ms 9",
            "--early-kthreads perhaps",
            "--transport pigeon",
            "positional",
        ] {
            assert!(parsed(&format!("d run {wrong}")).is_err(), "{wrong}");
        }
    }
}
