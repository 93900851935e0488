//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use qumun::Nanos;

use crate::{Result, agent, plugins, status, supervisor};

/// The node daemon of Gthulhu: a Linux CPU scheduler whose policy runs in user space.
#[derive(Debug, Parser)]
#[command(version, about, after_help = plugin_list())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the scheduler and run a policy until SIGINT or SIGTERM
    Run {
        /// The policy, see below
        #[arg(long, default_value = "gthulhu")]
        plugin: String,
        /// Slice of a task for which the policy sets none, in microseconds
        #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
        slice_us: u64,
        /// Where `status` asks
        #[arg(long, default_value = status::SOCKET)]
        socket: PathBuf,
        /// Write the last status here after the scheduler was detached
        #[arg(long)]
        report: Option<PathBuf>,
        /// Let the core print to trace_pipe, at most 20 lines a second
        #[arg(long)]
        debug: bool,
    },
    /// Show what the running scheduler does
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// The policy's process; started by `run`
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        plugin: String,
        #[arg(long)]
        slice_us: u64,
        #[arg(long)]
        supervisor: u32,
    },
}

fn plugin_list() -> String {
    let mut text = String::from("Plugins:\n");
    for plugin in &plugins::PLUGINS {
        text.push_str(&format!("  {:<12} {}\n", plugin.name, plugin.about));
    }
    text
}

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; anything else is wrong usage (64, not clap's 2).
            let code = if error.use_stderr() { crate::ExitCode::Usage as u8 } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    match run(cli.command) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("gthulhu-daemon: {error}");
            (error.code() as u8).into()
        }
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Run { plugin, slice_us, socket, report, debug } => supervisor::run(&supervisor::Settings {
            plugin,
            slice: Nanos::from_micros(slice_us),
            socket,
            report,
            debug,
        }),
        Command::Status { json, socket } => status::ask(&socket, json).map(|()| 0),
        Command::Agent { plugin, slice_us, supervisor } => {
            agent::main(&plugin, Nanos::from_micros(slice_us), supervisor).map(|()| 0)
        }
    }
}
