//! What this machine can do, and why not.
//!
//! Everything is read from files below a root, so that tests can show machines that are not there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// The answers of a machine about sched_ext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `uname -r`.
    pub release: String,
    /// The kernel has sched_ext.
    pub sched_ext: bool,
    /// `enabled`, `disabled`, …; `None` without sched_ext.
    pub state: Option<String>,
    /// The loaded scheduler's name, if one is.
    pub ops: Option<String>,
    /// How often a scheduler was enabled since boot.
    pub enable_seq: Option<u64>,
    /// The kernel's type information is there.
    pub btf: bool,
    /// Possible CPUs are numbered below this.
    pub nr_cpu_ids: u32,
    /// This process may load BPF programs (CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON).
    pub privileged: bool,
}

impl Probe {
    /// Asks the machine we run on.
    pub fn here() -> Self {
        Self::below(Path::new("/"))
    }

    /// Asks the files below `root`.
    pub fn below(root: &Path) -> Self {
        let read = |path: &str| -> Option<String> {
            let path: PathBuf = root.join(path);
            fs::read_to_string(path).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
        };
        let state = read("sys/kernel/sched_ext/state");
        Self {
            release: read("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            sched_ext: state.is_some(),
            ops: read("sys/kernel/sched_ext/root/ops"),
            enable_seq: read("sys/kernel/sched_ext/enable_seq").and_then(|s| s.parse().ok()),
            btf: fs::metadata(root.join("sys/kernel/btf/vmlinux")).is_ok_and(|m| m.len() > 0),
            nr_cpu_ids: read("sys/devices/system/cpu/possible")
                .and_then(|s| last_of_list(&s))
                .map_or(1, |n| n + 1),
            privileged: read("proc/self/status").is_some_and(|s| has_capabilities(&s)),
            state,
        }
    }

    /// Is there anything that keeps a scheduler from being loaded here?
    ///
    /// # Errors
    /// The first obstacle, with what to do about it.
    pub fn check(&self) -> Result<()> {
        self.check_machine()?;
        self.check_free()
    }

    /// The same, whoever is loaded now.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_machine(&self) -> Result<()> {
        if !self.sched_ext {
            return Err(Error::new(
                ErrorKind::NoSchedExt,
                format!(
                    "this kernel ({}) has no sched_ext: /sys/kernel/sched_ext is missing. It needs Linux 6.12 or \
                     newer built with CONFIG_SCHED_CLASS_EXT=y (Debian: a cloud kernel from trixie-backports)",
                    self.release
                ),
            ));
        }
        if !self.privileged {
            return Err(Error::new(
                ErrorKind::Permission,
                "not allowed to load BPF programs: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN",
            ));
        }
        if !self.btf {
            return Err(Error::new(
                ErrorKind::NoBtf,
                format!(
                    "this kernel ({}) offers no type information: /sys/kernel/btf/vmlinux is missing. It needs \
                     CONFIG_DEBUG_INFO_BTF=y (and pahole 1.26 or newer at its build)",
                    self.release
                ),
            ));
        }
        if self.nr_cpu_ids as usize > crate::wire::MAX_CPUS {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} possible CPUs; the core serves up to {}", self.nr_cpu_ids, crate::wire::MAX_CPUS),
            ));
        }
        Ok(())
    }

    /// Is no scheduler loaded?
    ///
    /// # Errors
    /// With the name of the one that is.
    pub fn check_free(&self) -> Result<()> {
        if self.state.as_deref() != Some("disabled") {
            let name = self.ops.as_deref().unwrap_or("(its name is not shown)");
            let state = self.state.as_deref().unwrap_or("unknown");
            return Err(Error::new(
                ErrorKind::Busy,
                format!("another sched_ext scheduler is loaded: {name} (state {state}); stop it first"),
            ));
        }
        Ok(())
    }
}

/// The last number of a CPU list such as `0-3,5`.
fn last_of_list(list: &str) -> Option<u32> {
    list.rsplit([',', '-']).next()?.trim().parse().ok()
}

/// CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, in the effective set of /proc/self/status.
fn has_capabilities(status: &str) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON_AND_BPF: u64 = 1 << 38 | 1 << 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    effective & SYS_ADMIN != 0 || effective & PERFMON_AND_BPF == PERFMON_AND_BPF
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Probe {
        Probe {
            release: "7.3.4".into(),
            sched_ext: true,
            state: Some("disabled".into()),
            ops: None,
            enable_seq: Some(0),
            btf: true,
            nr_cpu_ids: 2,
            privileged: true,
        }
    }

    #[test]
    fn each_obstacle_has_its_own_kind_and_names_what_is_missing() {
        assert!(machine().check().is_ok());
        let cases: [(Probe, ErrorKind, &str); 5] = [
            (
                Probe { sched_ext: false, state: None, ..machine() },
                ErrorKind::NoSchedExt,
                "CONFIG_SCHED_CLASS_EXT",
            ),
            (Probe { privileged: false, ..machine() }, ErrorKind::Permission, "root"),
            (Probe { btf: false, ..machine() }, ErrorKind::NoBtf, "/sys/kernel/btf/vmlinux"),
            (
                Probe { state: Some("enabled".into()), ops: Some("other_1.0".into()), ..machine() },
                ErrorKind::Busy,
                "other_1.0",
            ),
            (Probe { nr_cpu_ids: 4096, ..machine() }, ErrorKind::Invalid, "4096"),
        ];
        for (probe, kind, word) in cases {
            let error = probe.check().expect_err(word);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn reads_lists_and_capabilities() {
        assert_eq!(last_of_list("0-7"), Some(7));
        assert_eq!(last_of_list("0"), Some(0));
        assert_eq!(last_of_list("0-3,8-11"), Some(11));
        assert!(has_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(has_capabilities("CapEff:\t000000c000000000\n"));
        assert!(!has_capabilities("CapEff:\t0000008000000000\n"));
        assert!(!has_capabilities("CapEff:\tnonsense\n"));
    }
}
