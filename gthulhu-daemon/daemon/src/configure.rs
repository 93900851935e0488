//! The configuration, from the command line of `run` and `config`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Subcommand};
use gthulhu_config::{FILE, Loader, Notice, Problems};
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::{Error, ExitCode, Result, remote, status};

/// Flags of `run` that are no keys of the configuration: they say where it is, or what is not to be changed by it.
pub(crate) const NO_KEYS: [&str; 4] = ["config", "set", "log-format", "help"];
/// Paths on the command line may be relative; everywhere else they may not.
const PATHS: [&str; 3] = ["btf", "report", "socket"];

/// From where the configuration is.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SourceArgs {
    /// The configuration; see 'config default'. Without it /etc/gthulhu/config.yaml, if that is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Flags that were given, with what was written behind them.
    #[arg(skip)]
    given: Vec<(String, Vec<String>)>,
}

/// What `config` can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what each key is, from where, and who else said something
    Explain {
        #[command(flatten)]
        source: SourceArgs,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Look for mistakes in a file; exit code 0 or 64
    Check {
        /// The file
        file: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show what holds in a running daemon, of what can be changed there
    Get {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// Change a running daemon; it survives a restart. 'config get' lists the fields; FIELD=null takes one back
    Set {
        /// Such as kernelMode=on permit=0
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
        /// Attach the scheduler anew if the change needs that
        #[arg(long)]
        reattach: bool,
        /// What this state of the configuration is called
        #[arg(long, value_name = "TEXT")]
        config_version: Option<String>,
        /// The daemon's socket
        #[arg(long, value_name = "PATH", default_value = status::SOCKET)]
        socket: PathBuf,
    },
    /// Print a file with every key and its default, to begin with
    Default {
        /// The defaults as one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl SourceArgs {
    /// Takes note of the flags that were given, and not only have their default.
    pub(crate) fn note(&mut self, command: &clap::Command, matches: &ArgMatches) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let Some(name) = arg.get_long().filter(|name| !NO_KEYS.contains(name)) else { continue };
            let known =
                gthulhu_config::keys().iter().any(|key| key.flag.is_some_and(|flag| flag.name == name));
            if !known || matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let text = |raw: &std::ffi::OsStr| match std::path::absolute(raw) {
                Ok(path) if PATHS.contains(&name) => path.to_string_lossy().into_owned(),
                _ => raw.to_string_lossy().into_owned(),
            };
            let values = match arg.get_action() {
                ArgAction::SetTrue => vec!["true".into()],
                _ => matches.get_raw(id).into_iter().flatten().map(text).collect(),
            };
            self.given.push((name.to_owned(), values));
        }
    }

    /// All sources, for [`Loader::load`].
    pub(crate) fn loader(
        &self,
        registry: &Registry,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Loader {
        let mut loader = Loader::new().plugins(names(registry)).env(env);
        if let Some(path) = &self.config {
            loader = loader.file(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        } else if Path::new(FILE).exists() {
            loader = loader.file(FILE);
        }
        for (name, values) in &self.given {
            loader = loader.flag(name, values.clone());
        }
        self.set.iter().fold(loader, |loader, pair| loader.set(pair))
    }
}

/// A line for each thing that is wrong.
pub(crate) fn refused(problems: &Problems) -> Error {
    Error::new(ExitCode::Usage, format!("the configuration is wrong:\n{problems}"))
}

/// What `config` prints, and the exit code.
pub(crate) fn answer(registry: &Registry, command: &ConfigCommand) -> Result<(String, u8)> {
    let plain = |text: String| Ok((text, 0));
    match command {
        ConfigCommand::Explain { source, json } => {
            let loader = source.loader(registry, std::env::vars_os()).look_only();
            let loaded = loader.load().map_err(|problems| refused(&problems))?;
            if *json {
                let notices: Vec<Value> = loaded.notices().iter().map(problem).collect();
                return plain(format!("{}\n", json!({ "keys": loaded.explain_json(), "notices": notices })));
            }
            let notices: String = loaded.notices().iter().map(|notice| format!("note: {notice}\n")).collect();
            plain(loaded.explain_text() + &notices)
        }
        ConfigCommand::Check { file, json } => {
            let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let checked = gthulhu_config::check_file(&path, names(registry));
            let code = if checked.is_ok() { 0 } else { ExitCode::Usage as u8 };
            let (notices, problems) = match &checked {
                Ok(notices) => (notices.iter().collect(), Vec::new()),
                Err(problems) => (Vec::new(), problems.iter().collect::<Vec<_>>()),
            };
            if *json {
                let list = |all: &[&Notice]| all.iter().map(|one| problem(one)).collect::<Vec<_>>();
                let object =
                    json!({ "ok": code == 0, "problems": list(&problems), "notices": list(&notices) });
                return Ok((format!("{object}\n"), code));
            }
            let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
            text.extend(notices.iter().map(|notice| format!("note: {notice}\n")));
            if code == 0 {
                text += &format!("{}: fine\n", file.display());
            }
            Ok((text, code))
        }
        ConfigCommand::Get { json, socket } => remote::get(socket, *json),
        ConfigCommand::Set { fields, reattach, config_version, socket } => {
            remote::set(socket, fields, config_version.as_deref(), *reattach)
        }
        ConfigCommand::Default { json: false } => plain(gthulhu_config::default_file(names(registry))),
        ConfigCommand::Default { json: true } => {
            let loaded = Loader::new().plugins(names(registry)).without_runtime().load();
            let loaded = loaded.map_err(|problems| refused(&problems))?;
            plain(format!("{}\n", loaded.explain_json()))
        }
    }
}

/// What is wrong, or worth knowing, and where, for programs.
pub(crate) fn problem(problem: &Notice) -> Value {
    let place = problem.place.as_ref();
    json!({
        "file": place.map(|place| &*place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "field": problem.field,
        "message": problem.message,
    })
}

fn names(registry: &Registry) -> Vec<String> {
    registry.plugins.iter().map(|plugin| plugin.name.clone()).collect()
}
