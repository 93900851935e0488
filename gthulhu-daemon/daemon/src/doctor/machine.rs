//! What the machine is like: CPUs, clock, memory.

use super::system::count_list;
use super::{Report, System};

/// Below this the agent's locked memory may not fit.
const LEAST_MEMORY_KIB: u64 = 64 << 10;

pub(super) fn examine(system: &System, report: &mut Report) {
    cpus(system, report);
    isolation(system, report);
    real_time(system, report);
    clock(system, report);
    memory(system, report);
}

fn cpus(system: &System, report: &mut Report) {
    let list = |name: &str| system.read(&format!("sys/devices/system/cpu/{name}"));
    let (possible, last) = list("possible").map_or((1, Some(0)), |list| count_list(&list));
    let (online, _) = list("online").map_or((possible, None), |list| count_list(&list));
    let is_node = |name: &String| name.strip_prefix("node").is_some_and(|n| n.parse::<u32>().is_ok());
    let nodes = system.names("sys/devices/system/node").iter().filter(|name| is_node(name)).count().max(1);
    let smt = match list("smt/active").as_deref() {
        Some("1") => ", with hyper-threads",
        _ => "",
    };
    let text = format!("{online} CPUs online of {possible} possible, {nodes} NUMA nodes{smt}");
    let last = last.unwrap_or(0);
    if last >= qumun::MAX_CPUS {
        report.error(
            "cpus",
            format!("{text}: too many, the largest number is {last}"),
            format!("the core serves CPUs below {}: boot with nr_cpus={}", qumun::MAX_CPUS, qumun::MAX_CPUS),
        );
    } else if online == 1 {
        report.warn(
            "cpus",
            format!("{text}: the agent shares the only one with all that it schedules"),
            "for a trial this is enough; give the machine a second CPU for more",
        );
    } else {
        report.ok("cpus", text);
    }
}

fn isolation(system: &System, report: &mut Report) {
    let list = |name: &str| {
        system.read(&format!("sys/devices/system/cpu/{name}")).filter(|list| count_list(list).0 > 0)
    };
    if let Some(cpus) = list("isolated") {
        report.ok(
            "isolated",
            format!(
                "CPUs {cpus} are isolated: only tasks that were bound to them run there, also under sched_ext"
            ),
        );
    }
    if let Some(cpus) = list("nohz_full") {
        report.warn(
            "nohz_full",
            format!("CPUs {cpus} are tickless (nohz_full): slices are finite here, so their tick comes back"),
            "keep tasks that need no interruption in a real-time class",
        );
    }
}

fn real_time(system: &System, report: &mut Report) {
    let runtime = system.read("proc/sys/kernel/sched_rt_runtime_us");
    let period = system.read("proc/sys/kernel/sched_rt_period_us");
    // Newer kernels have a reserve of CPU time for the other classes instead, and may throttle nobody.
    let has_reserve = system.features.as_ref().is_some_and(|f| f.ext_server);
    match runtime.as_deref() {
        Some(all) if has_reserve && runtime == period => report.ok(
            "real-time",
            format!("real-time tasks may use all CPU time but the reserve of the others ({all} us of as many)"),
        ),
        Some("-1") => report.warn(
            "real-time",
            "real-time tasks are not throttled: one that computes for long starves all others, and the kernel's \
             watchdog may then remove the scheduler",
            "sysctl kernel.sched_rt_runtime_us=950000",
        ),
        Some(us) => report.ok("real-time", format!("real-time tasks are throttled (sched_rt_runtime_us={us})")),
        None => {}
    }
}

fn clock(system: &System, report: &mut Report) {
    let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    match system.read(path).as_deref() {
        Some(slow @ ("hpet" | "acpi_pm" | "jiffies" | "refined-jiffies")) => report.warn(
            "clock",
            format!("the clock source is {slow}: reading it takes microseconds, and each event is stamped"),
            "see in the kernel log why the tsc was given up; if it is sound, boot with tsc=reliable",
        ),
        Some(fast) => report.ok("clock", format!("clock source {fast}")),
        None => {}
    }
}

fn memory(system: &System, report: &mut Report) {
    let meminfo = system.read("proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
    match available {
        Some(kib) if kib < LEAST_MEMORY_KIB => report.warn(
            "memory",
            format!("{} MiB of memory are available; the agent locks what it uses", kib >> 10),
            "make room before the daemon starts",
        ),
        Some(kib) => report.ok("memory", format!("{} MiB of memory are available", kib >> 10)),
        None => {}
    }
    let swaps = system.read("proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    if swaps > 0 {
        report.ok("swap", format!("{swaps} swap areas; the agent's memory is locked and stays out of them"));
    }
    let thp = system.read("sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if thp.contains("[always]") {
        report.ok("huge pages", "always: the agent opts out, khugepaged would hold its memory map");
    }
    // Locked pages stay in memory, but compaction may move them, and who touches one meanwhile faults and waits.
    if system.read("proc/sys/vm/compact_unevictable_allowed").is_some_and(|text| text.trim() == "1") {
        report.warn(
            "compaction",
            "the kernel may move the agent's locked pages: a page fault on its thread when memory is compacted",
            "`run` sets vm.compact_unevictable_allowed=0 while it runs, unless told --keep-compaction",
        );
    }
}
