//! Which parts of sched_ext a kernel has, in words: from its type information, never from its version.

use std::collections::BTreeSet;
use std::path::Path;

use libbpf_rs::ReferencesType;
use libbpf_rs::btf::{Btf, types};

use crate::{Error, ErrorKind, Result};

/// What a kernel's type information says about sched_ext.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Members of `struct sched_ext_ops`.
    pub members: BTreeSet<String>,
    /// Kernel functions whose name has `scx_bpf`.
    pub functions: BTreeSet<String>,
    /// Names in `enum scx_ops_flags`.
    pub flags: BTreeSet<String>,
    /// Sched_ext tasks have a reserve of CPU time (`ext_server` in `struct rq`): tasks of the fair class
    /// cannot starve them.
    pub ext_server: bool,
    /// What is wrong with the type information itself, if anything is.
    pub broken: Option<&'static str>,
}

/// One thing that kernels do in several ways, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// Short, stable name.
    pub name: &'static str,
    /// How this kernel does it; `None`: it does not.
    pub by: Option<String>,
    /// What that means for a scheduler.
    pub meaning: &'static str,
    /// The core cannot work without it.
    pub required: bool,
}

/// Spellings in the order of preference; the core has all of them as weak symbols.
const SPELLINGS: [(&str, &[&str], &str, bool); 7] = [
    (
        "insert",
        &["scx_bpf_dsq_insert___v2", "scx_bpf_dsq_insert", "scx_bpf_dispatch"],
        "put a task into a queue",
        true,
    ),
    (
        "insert by vtime",
        &["__scx_bpf_dsq_insert_vtime", "scx_bpf_dsq_insert_vtime", "scx_bpf_dispatch_vtime"],
        "put a task into an ordered queue",
        true,
    ),
    (
        "take",
        &["scx_bpf_dsq_move_to_local___v2", "scx_bpf_dsq_move_to_local", "scx_bpf_consume"],
        "take the head of a queue",
        true,
    ),
    (
        "move",
        &["scx_bpf_dsq_move", "scx_bpf_dispatch_from_dsq"],
        "move one task that waits: what a decision does",
        true,
    ),
    ("set slice", &["scx_bpf_task_set_slice"], "else the field is written directly", false),
    (
        "hand back",
        &["scx_bpf_dsq_reenq", "scx_bpf_reenqueue_local___v2", "scx_bpf_reenqueue_local"],
        "give back what waits on a CPU that a real-time task has taken",
        false,
    ),
    ("idle selection", &["scx_bpf_select_cpu_and", "scx_bpf_select_cpu_dfl"], "the kernel's own", false),
];

/// Members that change what a scheduler can promise.
const OPERATIONS: [(&str, &str); 6] = [
    ("cpu_online", "CPUs may come and go without the scheduler being removed"),
    ("cgroup_set_weight", "the kernel tells about cpu.weight"),
    ("cgroup_set_bandwidth", "the kernel tells about cpu.max"),
    ("cgroup_set_idle", "the kernel tells about cpu.idle"),
    ("dump", "the scheduler adds its own lines to the kernel's dump"),
    ("sub_attach", "schedulers below cgroups"),
];

pub(crate) const BROKEN: &str = "this kernel's type information is broken: scx_bpf_create_dsq shows an argument that \
    is the verifier's, and scx_bpf_create_dsq_impl is missing. No sched_ext scheduler with a queue of its own can be \
    loaded; take another release of this kernel";

/// Some builds of 7.1 (Debian's 7.1.13) show the verifier's own argument of a few kernel functions to everybody
/// and lack the second description of these functions, under which the verifier looks them up. It then refuses
/// every program that calls one.
pub(crate) fn is_broken(btf: &Btf<'_>) -> bool {
    let arguments = |name: &str| {
        let function = btf.type_by_name::<types::Func<'_>>(name)?;
        types::FuncProto::try_from(function.referenced_type()).ok().map(|proto| proto.len())
    };
    arguments("scx_bpf_create_dsq") == Some(3) && arguments("scx_bpf_create_dsq_impl").is_none()
}

impl Features {
    /// Reads type information: `/sys/kernel/btf/vmlinux`, or another file in the same format.
    ///
    /// # Errors
    /// When the file is not there or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let _quiet = crate::loader::collect_messages();
        let btf = Btf::from_path(path).map_err(|e| {
            Error::new(ErrorKind::NoBtf, format!("cannot read type information from {}", path.display()))
                .because(e)
        })?;
        let members = |name: &str| -> BTreeSet<String> {
            btf.type_by_name::<types::Struct<'_>>(name)
                .map(|s| s.iter().filter_map(|m| Some(m.name?.to_string_lossy().into_owned())).collect())
                .unwrap_or_default()
        };
        let functions = SPELLINGS
            .iter()
            .flat_map(|(_, spellings, _, _)| spellings.iter())
            .filter(|name| btf.type_by_name::<types::Func<'_>>(name).is_some())
            .map(|name| (*name).to_owned())
            .collect();
        Ok(Self {
            members: members("sched_ext_ops"),
            functions,
            flags: flags(&btf),
            ext_server: members("rq").contains("ext_server"),
            broken: is_broken(&btf).then_some(BROKEN),
        })
    }

    /// What this kernel can do and how, in a fixed order.
    pub fn abilities(&self) -> Vec<Ability> {
        let functions = SPELLINGS.iter().map(|&(name, spellings, meaning, required)| Ability {
            name,
            by: spellings.iter().find(|s| self.functions.contains(**s)).map(|s| (*s).to_owned()),
            meaning,
            required,
        });
        let operations = OPERATIONS.iter().map(|&(name, meaning)| Ability {
            name,
            by: self.members.contains(name).then(|| "operation".to_owned()),
            meaning,
            required: false,
        });
        functions.chain(operations).collect()
    }
}

fn flags(btf: &Btf<'_>) -> BTreeSet<String> {
    if let Some(e) = btf.type_by_name::<types::Enum64<'_>>("scx_ops_flags") {
        return e.iter().filter_map(|v| Some(v.name?.to_string_lossy().into_owned())).collect();
    }
    btf.type_by_name::<types::Enum<'_>>("scx_ops_flags")
        .map(|e| e.iter().filter_map(|v| Some(v.name?.to_string_lossy().into_owned())).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_spelling_is_named_and_what_is_missing_is_said() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let old = Features {
            functions: names(&["scx_bpf_dispatch", "scx_bpf_consume"]),
            members: names(&["cpu_online", "cgroup_set_weight"]),
            ..Features::default()
        };
        let by = |features: &Features, name: &str| {
            features.abilities().into_iter().find(|a| a.name == name).and_then(|a| a.by)
        };
        assert_eq!(by(&old, "insert").as_deref(), Some("scx_bpf_dispatch"));
        assert_eq!(by(&old, "move"), None);
        assert_eq!(by(&old, "cgroup_set_weight").as_deref(), Some("operation"));
        assert_eq!(by(&old, "cgroup_set_bandwidth"), None);
        let new =
            Features { functions: names(&["scx_bpf_dispatch", "scx_bpf_dsq_insert"]), ..Features::default() };
        assert_eq!(by(&new, "insert").as_deref(), Some("scx_bpf_dsq_insert"));
    }

    #[test]
    fn a_file_that_is_no_type_information_is_an_error() {
        let error = Features::read(Path::new("/proc/self/status")).expect_err("no BTF");
        assert_eq!(error.kind(), ErrorKind::NoBtf);
        assert!(error.to_string().contains("/proc/self/status"), "{error}");
    }
}
