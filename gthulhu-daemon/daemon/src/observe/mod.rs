//! How to look at the metrics: `gthulhu-daemon metrics`, which lists them and writes dashboards for Grafana and alert
//! rules for Prometheus. What is checked in under `deploy/` is what this writes.
//!
//! Each expression names its metrics, and each name is looked up among what the daemon exposes: one that is not there
//! is a bug of ours, which the tests find.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::{Error, Result};

mod boards;
mod dashboard;
mod rules;
mod series;

pub(crate) use series::Node;

/// What can be had.
#[derive(Debug, Subcommand)]
pub(crate) enum MetricsCommand {
    /// List every metric: name, kind, unit, labels, meaning
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write dashboards for Grafana into a folder
    Dashboards {
        /// The folder; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write alert rules for Prometheus, and their tests for promtool, into a folder
    Rules {
        /// The folder; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Texts by the names of their files.
type Files = BTreeMap<String, String>;

/// Does it, and returns what is to be printed.
pub(crate) fn answer(command: &MetricsCommand) -> Result<String> {
    match command {
        MetricsCommand::List { json: true } => Ok(format!("{}\n", series::json(&series::all()))),
        MetricsCommand::List { json: false } => Ok(series::text(&series::all())),
        MetricsCommand::Dashboards { out } => write(out, boards::files()),
        MetricsCommand::Rules { out } => write(out, rules::files()),
    }
}

fn write(folder: &Path, files: Files) -> Result<String> {
    let fail = |path: &Path, e| Error::system(format!("cannot write {}", path.display()), &e);
    std::fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
    let mut said = String::new();
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| fail(&path, e))?;
        said.push_str(&format!("{}\n", path.display()));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is in the repository.
    fn deployed(folder: &str) -> Files {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(folder);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let read = |path: PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("a text"))
        };
        files.map(|file| read(file.expect("a file").path())).collect()
    }

    #[test]
    fn what_is_deployed_is_what_this_program_writes() {
        for (folder, made, command) in
            [("grafana", boards::files(), "dashboards"), ("prometheus", rules::files(), "rules")]
        {
            let there = deployed(folder);
            let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&there), names(&made), "deploy/{folder}");
            for (name, text) in &made {
                let how = format!("gthulhu-daemon metrics {command} --out deploy/{folder}");
                assert!(there[name] == *text, "deploy/{folder}/{name} is not up to date: {how}");
            }
        }
    }

    #[test]
    fn files_are_written_where_they_are_wanted_and_a_folder_that_cannot_be_is_named() {
        let folder = std::env::temp_dir().join(format!("gthulhu-observe-{}", std::process::id()));
        let out = folder.join("a/b");
        let said = answer(&MetricsCommand::Rules { out: out.clone() }).expect("written");
        assert!(said.lines().all(|path| Path::new(path).is_file()) && said.lines().count() == 2, "{said}");
        let out = out.join("gthulhu.rules.yaml/below");
        let error = answer(&MetricsCommand::Rules { out: out.clone() }).expect_err("a file is in the way");
        assert!(error.to_string().contains(out.to_str().expect("a path")), "{error}");
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
