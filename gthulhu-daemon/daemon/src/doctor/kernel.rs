//! What the kernel and our rights in it allow.

use qumun::kernel::uses_operation;

use super::{Report, System};

/// Numbers of include/uapi/linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// What an agent locks: the program, its heap, the rings and 256 KiB of stack.
const LOCKED_BYTES: u64 = 64 << 20;

pub(super) fn examine(system: &System, report: &mut Report) {
    sched_ext(system, report);
    scheduler(system, report);
    btf(system, report);
    privileges(system, report);
    memlock(system, report);
    lockdown(system, report);
    jit(system, report);
    abilities(system, report);
    ext_server(system, report);
    cgroup(system, report);
    namespaces(system, report);
    sysrq(system, report);
}

fn sched_ext(system: &System, report: &mut Report) {
    let release = system.release();
    if system.exists("sys/kernel/sched_ext/state") {
        return report.ok("sched_ext", format!("Linux {release} has sched_ext"));
    }
    let debian = "on Debian: a kernel from trixie-backports";
    match (system.version(), system.config("CONFIG_SCHED_CLASS_EXT").as_deref()) {
        (Some(version), _) if version < (6, 12) => report.error(
            "sched_ext",
            format!("Linux {release} is too old: sched_ext came with 6.12"),
            format!("boot Linux 6.12 or newer with CONFIG_SCHED_CLASS_EXT=y ({debian})"),
        ),
        (_, Some("y")) => report.error(
            "sched_ext",
            format!(
                "Linux {release} was built with CONFIG_SCHED_CLASS_EXT=y, but /sys/kernel/sched_ext is not there"
            ),
            "mount sysfs on /sys, and in a container let it be seen",
        ),
        (_, config) => {
            let built = config.map_or("", |_| ": it was built without CONFIG_SCHED_CLASS_EXT");
            report.error(
                "sched_ext",
                format!("Linux {release} has no sched_ext (/sys/kernel/sched_ext is missing){built}"),
                format!("boot a kernel built with CONFIG_SCHED_CLASS_EXT=y ({debian})"),
            );
        }
    }
}

fn scheduler(system: &System, report: &mut Report) {
    let Some(state) = system.read("sys/kernel/sched_ext/state") else { return };
    let ops =
        system.read("sys/kernel/sched_ext/root/ops").unwrap_or_else(|| "(its name is not shown)".into());
    if state == "disabled" {
        report.ok("scheduler", "no other scheduler is loaded");
    } else if ops.starts_with("gthulhu") {
        report.ok("scheduler", format!("{ops} is loaded: the daemon runs ({state})"));
    } else {
        report.error(
            "scheduler",
            format!("another scheduler is loaded: {ops} ({state})"),
            "stop its program or service; SysRq-S removes it by force",
        );
    }
}

fn btf(system: &System, report: &mut Report) {
    let path = "sys/kernel/btf/vmlinux";
    let size = std::fs::metadata(system.root().join(path)).map_or(0, |m| m.len());
    if size == 0 {
        report.error(
            "btf",
            "the kernel has no type information (/sys/kernel/btf/vmlinux)",
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and let /sys/kernel/btf be seen in a container",
        );
    } else if system.features.is_none() {
        report.error(
            "btf",
            "/sys/kernel/btf/vmlinux cannot be read as type information",
            "look at its permissions; the kernel's build may be broken (pahole 1.26 or newer is needed)",
        );
    } else if let Some(broken) = system.features.as_ref().and_then(|features| features.broken) {
        report.error("btf", broken, "boot another release of this kernel");
    } else {
        report.ok("btf", "type information is there");
    }
}

fn privileges(system: &System, report: &mut Report) {
    let has = |caps: &[u32]| caps.iter().all(|&cap| system.has_cap(cap));
    if has(&[CAP_SYS_ADMIN]) || has(&[CAP_BPF, CAP_PERFMON]) {
        report.ok("privileges", "BPF programs may be loaded");
    } else {
        report.error(
            "privileges",
            "this process may not load BPF programs",
            "run as root, or with CAP_SYS_ADMIN, or with CAP_BPF and CAP_PERFMON",
        );
    }
    if !has(&[CAP_SYS_NICE]) {
        report.warn(
            "nice",
            "no CAP_SYS_NICE: classes and CPUs of other processes cannot be changed",
            "give CAP_SYS_NICE as well",
        );
    }
}

fn memlock(system: &System, report: &mut Report) {
    // The supervisor raises the limit itself when it may.
    if system.has_cap(CAP_IPC_LOCK) || system.has_cap(CAP_SYS_RESOURCE) {
        return report.ok("memlock", "the agent may lock its memory");
    }
    let limits = system.read("proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap_or_default();
    // Soft, hard, unit.
    let hard = line.split_whitespace().nth(1).unwrap_or("0");
    match hard.parse::<u64>() {
        Err(_) if hard == "unlimited" => report.ok("memlock", "the agent may lock its memory: no limit"),
        Ok(bytes) if bytes >= LOCKED_BYTES => {
            report.ok("memlock", format!("the agent may lock {} MiB", bytes >> 20));
        }
        other => report.error(
            "memlock",
            format!("the agent may lock {} KiB of memory only", other.unwrap_or(0) >> 10),
            "give CAP_IPC_LOCK, or LimitMEMLOCK=infinity in the unit (ulimit -l unlimited)",
        ),
    }
}

fn lockdown(system: &System, report: &mut Report) {
    let Some(text) = system.read("sys/kernel/security/lockdown") else { return };
    let mode = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match mode {
        Some("confidentiality") => report.warn(
            "lockdown",
            "kernel lockdown is 'confidentiality': BPF may not read kernel memory by address",
            "if the load is refused, boot with lockdown=integrity",
        ),
        Some(mode) => report.ok("lockdown", format!("kernel lockdown is '{mode}': no obstacle")),
        None => {}
    }
}

fn jit(system: &System, report: &mut Report) {
    if system.read("proc/sys/net/core/bpf_jit_enable").as_deref() == Some("0") {
        report.error(
            "jit",
            "the BPF compiler is off; a scheduler needs it",
            "sysctl net.core.bpf_jit_enable=1",
        );
    }
}

fn abilities(system: &System, report: &mut Report) {
    let Some(features) = &system.features else { return };
    if features.members.is_empty() {
        return;
    }
    for ability in features.abilities() {
        // Those of cgroups have their own lines.
        if ability.name.starts_with("cgroup") {
            continue;
        }
        match ability.by {
            Some(by) => report.ok("kernel can", format!("{} ({by}): {}", ability.name, ability.meaning)),
            None if ability.required => report.error(
                "kernel can",
                format!("not {}: {}", ability.name, ability.meaning),
                "boot another kernel; the core knows no other way to do this",
            ),
            None => report.ok("kernel can", format!("not {}: {}", ability.name, ability.meaning)),
        }
    }
}

fn ext_server(system: &System, report: &mut Report) {
    let Some(features) = &system.features else { return };
    if features.ext_server {
        report.ok("ext server", "partial mode is safe: sched_ext tasks have a reserve of CPU time");
    } else {
        report.ok(
            "ext server",
            "none: with --partial, busy tasks of the kernel's own scheduler can starve ours until the watchdog \
             removes the scheduler; without --partial it does not matter",
        );
    }
}

fn cgroup(system: &System, report: &mut Report) {
    match system.read("sys/fs/cgroup/cgroup.controllers") {
        None => report.warn(
            "cgroup",
            "no cgroup v2 on /sys/fs/cgroup: tasks cannot be told apart by pod",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 there",
        ),
        Some(list) if list.split_whitespace().any(|c| c == "cpu") => {
            report.ok("cgroup", "cgroup v2 with the cpu controller");
        }
        Some(_) => report.warn(
            "cgroup",
            "cgroup v2 without the cpu controller: it has no cpu.weight and cpu.max",
            "a cgroup v1 hierarchy may hold it: unmount that; else the kernel needs CONFIG_CGROUP_SCHED=y",
        ),
    }
    let Some(features) = &system.features else { return };
    for (id, file, member) in
        [("cpu.weight", "cpu.weight", "cgroup_set_weight"), ("cpu.max", "cpu.max", "cgroup_set_bandwidth")]
    {
        match (features.members.contains(member), uses_operation(member)) {
            (true, true) if id == "cpu.max" => {
                report.ok(id, "cpu.max is enforced by the core (--limits off turns that off)");
            }
            (true, true) => report.ok(id, format!("{file} is told to policies; what a policy makes of it, it says")),
            (true, false) => report.warn(
                id,
                format!("{file} has no effect under this scheduler: the kernel tells ({member}), the core does not listen"),
                format!("do not rely on {file} while the scheduler is loaded; nice values work"),
            ),
            (false, _) => report.warn(
                id,
                format!("{file} has no effect under any scheduler of this kernel: it does not tell ({member})"),
                format!("do not rely on {file} while a scheduler is loaded, or boot a newer kernel"),
            ),
        }
    }
}

fn namespaces(system: &System, report: &mut Report) {
    let numbers = system.status("NSpid").map_or(1, |list| list.split_whitespace().count());
    if numbers > 1 {
        report.warn(
            "pid namespace",
            "this is a container's pid namespace: the core speaks of pids of the host, which are others here",
            "share the host's (docker --pid=host, hostPID: true)",
        );
    }
}

fn sysrq(system: &System, report: &mut Report) {
    // sched_ext's keys need SYSRQ_ENABLE_RTNICE (kernel/sched/ext.c).
    const RTNICE: u64 = 0x100;
    let Some(value) = system.read("proc/sys/kernel/sysrq").and_then(|v| v.parse::<u64>().ok()) else {
        return report.ok("sysrq", "none: /proc/sysrq-trigger and the keys do not work here");
    };
    if value == 1 || value & RTNICE != 0 {
        report.ok("sysrq", "SysRq-S on the console removes the scheduler, SysRq-D dumps its state");
    } else {
        report.ok(
            "sysrq",
            format!(
                "the keys SysRq-S and -D are off (kernel.sysrq={value}); root can still write to /proc/sysrq-trigger"
            ),
        );
    }
}
