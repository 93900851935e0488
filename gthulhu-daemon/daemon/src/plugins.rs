//! The policies that this daemon can run, by name.

use gthulhu_plugin_gthulhu::Gthulhu;
use gthulhu_plugin_simple_fifo::SimpleFifo;
use qumun::kernel::Link;
use qumun::{Builder, Exit};

use crate::{Error, ExitCode, Result};

/// One policy. A function pointer keeps the loop monomorphic: no dynamic call per event.
pub(crate) struct Plugin {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Builder, Link) -> Exit,
}

/// All of them, in the order of `--help`.
pub(crate) const PLUGINS: [Plugin; 2] = [
    Plugin {
        name: "gthulhu",
        about: "virtual deadlines: weights respected, tasks that sleep much come first",
        run: |builder, link| builder.agent(link, Gthulhu::default()).run(),
    },
    Plugin {
        name: "simple-fifo",
        about: "first come, first served",
        run: |builder, link| builder.agent(link, SimpleFifo::default()).run(),
    },
];

/// Finds a policy by name.
pub(crate) fn find(name: &str) -> Result<&'static Plugin> {
    PLUGINS.iter().find(|p| p.name == name).ok_or_else(|| {
        let known: Vec<&str> = PLUGINS.iter().map(|p| p.name).collect();
        let what = if name.is_empty() {
            "an empty name is no plugin".to_owned()
        } else {
            format!("unknown plugin '{name}'")
        };
        Error::new(ExitCode::Usage, format!("{what}; known are: {}", known.join(", ")))
    })
}

/// Name of the scheduler in sysfs. The kernel allows letters, digits, `_` and `.` only.
pub(crate) fn ops_name(plugin: &str) -> String {
    if plugin == "gthulhu" { "gthulhu".into() } else { format!("gthulhu_{}", plugin.replace('-', "_")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert!(find("simple-fifo").is_ok());
        for wrong in ["", "gthulhu ", "cfs"] {
            let error = find(wrong).err().expect("not a plugin");
            assert_eq!(error.code(), ExitCode::Usage);
            assert!(PLUGINS.iter().all(|p| error.to_string().contains(p.name)), "{error}");
        }
    }

    #[test]
    fn names_in_sysfs_begin_with_ours_and_are_allowed() {
        for plugin in &PLUGINS {
            let name = ops_name(plugin.name);
            assert!(name.starts_with("gthulhu"));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        }
    }
}
