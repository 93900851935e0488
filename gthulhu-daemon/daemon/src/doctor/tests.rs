//! Machines that are not there, and what is said about them.

use std::path::PathBuf;

use qumun::kernel::Features;

use super::*;

/// A folder of files, gone when dropped.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine on which all is well.
const GOOD: [(&str, &str); 22] = [
    ("proc/sys/kernel/osrelease", "7.3.4\n"),
    ("sys/kernel/sched_ext/state", "disabled\n"),
    ("sys/kernel/btf/vmlinux", "here a test has words"),
    ("proc/self/status", "Name:\tx\nNSpid:\t7\nCapEff:\t000001ffffffffff\n"),
    ("proc/self/limits", "Max locked memory         8388608              8388608              bytes\n"),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
    ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n"),
    ("proc/sys/kernel/sysrq", "438\n"),
    ("sys/devices/system/cpu/possible", "0-7\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/smt/active", "1\n"),
    ("sys/devices/system/cpu/isolated", "\n"),
    ("sys/devices/system/cpu/nohz_full", "\n"),
    ("sys/devices/system/node/node0/cpulist", "0-7\n"),
    ("sys/devices/system/node/possible", "0\n"),
    ("proc/sys/kernel/sched_rt_runtime_us", "950000\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable:    1000000 kB\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("boot/config-7.3.4", "CONFIG_SCHED_CLASS_EXT=y\n"),
];

fn features() -> Features {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Features {
        members: set(&["cpu_online", "cgroup_set_weight", "cgroup_set_bandwidth"]),
        functions: set(&[
            "scx_bpf_dsq_insert",
            "scx_bpf_dsq_insert_vtime",
            "scx_bpf_dsq_move_to_local",
            "scx_bpf_dsq_move",
        ]),
        ext_server: true,
        ..Features::default()
    }
}

/// The good machine with some files changed, or taken away (`None`), and what its kernel has.
fn machine(changes: &[(&str, Option<&str>)], change: impl FnOnce(&mut Option<Features>)) -> (Report, Root) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = std::env::temp_dir().join(format!("doctor-{}-{number}", std::process::id()));
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    GOOD.iter().for_each(|(path, text)| write(path, text));
    for (path, text) in changes {
        match text {
            Some(text) => write(path, text),
            None => std::fs::remove_file(root.join(path)).expect("was there"),
        }
    }
    let mut system = System::below(&root);
    assert_eq!(system.features, None, "words are no type information");
    system.features = Some(features());
    change(&mut system.features);
    (examine(&system), Root(root))
}

fn finding<'a>(report: &'a Report, id: &str, severity: Severity) -> Option<&'a Finding> {
    report.findings.iter().find(|f| f.id == id && f.severity == severity)
}

#[test]
fn a_good_machine_can_run_and_only_what_the_core_lacks_is_a_warning() {
    let (report, _root) = machine(&[], |_| ());
    assert!(report.can_run(), "{}", report.text(false));
    let expected: Vec<&str> = ["cpu.weight", "cpu.max"]
        .into_iter()
        .zip(["cgroup_set_weight", "cgroup_set_bandwidth"])
        .filter(|(_, member)| !qumun::kernel::uses_operation(member))
        .map(|(id, _)| id)
        .collect();
    let warned: Vec<&str> =
        report.findings.iter().filter(|f| f.severity == Severity::Warning).map(|f| f.id).collect();
    assert_eq!(warned, expected);
    let cpus = finding(&report, "cpus", Severity::Ok).expect("cpus");
    assert_eq!(cpus.text, "4 CPUs online of 8 possible, 1 NUMA nodes, with hyper-threads");
}

type Broken = (&'static [(&'static str, Option<&'static str>)], &'static str, Severity, &'static str);

#[test]
fn each_broken_machine_has_its_finding() {
    use Severity::{Error, Ok, Warning};
    const STATUS: &str = "proc/self/status";
    const EXT: &str = "sys/kernel/sched_ext/state";
    let cases: &[Broken] = &[
        (&[(EXT, None), ("proc/sys/kernel/osrelease", Some("6.1.0-9"))], "sched_ext", Error, "too old"),
        (&[(EXT, None)], "sched_ext", Error, "is not there"),
        (
            &[(EXT, None), ("boot/config-7.3.4", Some("# CONFIG_SCHED_CLASS_EXT is not set"))],
            "sched_ext",
            Error,
            "built without",
        ),
        (&[(EXT, None), ("boot/config-7.3.4", None)], "sched_ext", Error, "missing"),
        (
            &[(EXT, Some("enabled")), ("sys/kernel/sched_ext/root/ops", Some("lavd_1.0"))],
            "scheduler",
            Error,
            "lavd_1.0",
        ),
        (
            &[(EXT, Some("enabled")), ("sys/kernel/sched_ext/root/ops", Some("gthulhu"))],
            "scheduler",
            Ok,
            "the daemon runs",
        ),
        (&[("sys/kernel/btf/vmlinux", None)], "btf", Error, "no type information"),
        (&[(STATUS, Some("CapEff:\t0000000000000000"))], "privileges", Error, "may not load"),
        (&[(STATUS, Some("CapEff:\t000000c000004000"))], "privileges", Ok, "may be loaded"),
        (&[(STATUS, Some("CapEff:\t000000c000004000"))], "nice", Warning, "CAP_SYS_NICE"),
        (&[(STATUS, Some("CapEff:\t000000c000000000"))], "memlock", Error, "8192 KiB"),
        (
            &[
                (STATUS, Some("CapEff:\t000000c000000000")),
                ("proc/self/limits", Some("Max locked memory unlimited unlimited bytes")),
            ],
            "memlock",
            Ok,
            "no limit",
        ),
        (&[(STATUS, Some("CapEff:\t000001ffffffffff\nNSpid:\t812\t1"))], "pid namespace", Warning, "host"),
        (
            &[("sys/kernel/security/lockdown", Some("none integrity [confidentiality]"))],
            "lockdown",
            Warning,
            "confidentiality",
        ),
        (&[("proc/sys/net/core/bpf_jit_enable", Some("0"))], "jit", Error, "off"),
        (&[("sys/fs/cgroup/cgroup.controllers", None)], "cgroup", Warning, "no cgroup v2"),
        (&[("sys/fs/cgroup/cgroup.controllers", Some("memory pids"))], "cgroup", Warning, "without the cpu"),
        (&[("proc/sys/kernel/sysrq", Some("16"))], "sysrq", Ok, "are off"),
        (&[("proc/sys/kernel/sysrq", Some("1"))], "sysrq", Ok, "removes"),
        (&[("sys/devices/system/cpu/possible", Some("0-2047"))], "cpus", Error, "2047"),
        (&[("sys/devices/system/cpu/online", Some("0"))], "cpus", Warning, "only one"),
        (&[("sys/devices/system/cpu/isolated", Some("2-3"))], "isolated", Ok, "2-3"),
        (&[("sys/devices/system/cpu/nohz_full", Some("1"))], "nohz_full", Warning, "CPUs 1"),
        (&[("sys/devices/system/cpu/nohz_full", Some("(null)"))], "cpus", Ok, "4 CPUs"),
        (
            &[
                ("proc/sys/kernel/sched_rt_runtime_us", Some("1000000")),
                ("proc/sys/kernel/sched_rt_period_us", Some("1000000")),
            ],
            "real-time",
            Ok,
            "reserve",
        ),
        (&[("proc/sys/kernel/sched_rt_runtime_us", Some("-1"))], "real-time", Warning, "not throttled"),
        (
            &[("sys/devices/system/clocksource/clocksource0/current_clocksource", Some("hpet"))],
            "clock",
            Warning,
            "hpet",
        ),
        (&[("proc/meminfo", Some("MemAvailable: 30000 kB"))], "memory", Warning, "29 MiB"),
        (&[("proc/swaps", Some("Filename\n/dev/sda2 partition"))], "swap", Ok, "1 swap"),
        (
            &[("sys/kernel/mm/transparent_hugepage/enabled", Some("[always] madvise never"))],
            "huge pages",
            Ok,
            "opts out",
        ),
    ];
    for (changes, id, severity, word) in cases {
        let (report, _root) = machine(changes, |_| ());
        let found = finding(&report, id, *severity);
        let found = found.unwrap_or_else(|| panic!("{changes:?}: no {id}\n{}", report.text(false)));
        assert!(found.text.contains(word), "{changes:?}: {}", found.text);
        assert_eq!(report.can_run(), *severity != Error, "{changes:?}\n{}", report.text(false));
        for finding in &report.findings {
            assert_eq!(finding.remedy.is_some(), finding.severity != Ok, "{finding:?}");
        }
    }
}

#[test]
fn what_the_kernel_lacks_is_said_in_words() {
    let (report, _root) = machine(&[], |f| {
        let features = f.as_mut().expect("features");
        features.functions.remove("scx_bpf_dsq_move");
        features.members.remove("cgroup_set_bandwidth");
        features.ext_server = false;
    });
    assert!(!report.can_run(), "a decision cannot be applied");
    let text = report.text(false);
    for words in
        ["✗ kernel can    not move", "does not tell (cgroup_set_bandwidth)", "with --partial, busy tasks"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let (report, _root) = machine(&[], |f| *f = None);
    assert!(finding(&report, "btf", Severity::Error).is_some());
}

#[test]
fn the_forms_are_stable() {
    let (report, _root) = machine(&[("proc/sys/net/core/bpf_jit_enable", Some("0"))], |_| ());
    let json = report.json();
    assert_eq!(
        (&json["format"], &json["can_run"], &json["kernel"]),
        (&1.into(), &false.into(), &"7.3.4".into())
    );
    let jit = json["findings"].as_array().and_then(|f| f.iter().find(|f| f["id"] == "jit")).expect("jit");
    assert_eq!(jit["severity"], "error");
    assert!(jit["text"].is_string() && jit["remedy"].is_string());
    assert!(json["findings"][0]["remedy"].is_null());
    let (plain, colored) = (report.text(false), report.text(true));
    assert!(plain.contains("✗ jit") && !plain.contains('\x1b'));
    assert!(colored.contains("\x1b[31m✗\x1b[0m jit"));
    assert!(plain.contains("the scheduler cannot run here: 1 errors, "), "{plain}");
}
