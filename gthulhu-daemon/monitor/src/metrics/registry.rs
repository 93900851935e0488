//! What metrics there are: the one table.

use super::ledger::{Entry, Key, Ledger, Pod, Shown};
use super::text::Samples;
use crate::values::Counts;

/// What kind of series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counters by length.
    Histogram,
}

/// What its numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Just a number.
    None,
    /// Seconds, the base unit of Prometheus.
    Seconds,
    /// Nanoseconds, where the original has them.
    Nanoseconds,
}

impl Unit {
    /// As OpenMetrics writes it, and as names end in it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }
}

/// Of what there is one series (or histogram) each. It says which labels there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// A pod, as in the original.
    Pod,
    /// A container, service or slice.
    Group,
    /// Two of those: one waits, the other one runs.
    Pair,
    /// The monitor itself.
    Own,
}

impl Scope {
    /// The labels of its series; a metric may have one more ([`Metric::label`]).
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &["pod_name", "pod_uid", "namespace", "node_name"],
            Self::Group => &["namespace", "pod", "container", "unit", "node_name"],
            Self::Pair => &["namespace", "pod", "container", "unit", "node_name", "behind"],
            Self::Own => &["node_name"],
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Metric {
    /// As it is written in a query: of a counter with `_total`, of a histogram without `_bucket`.
    pub name: &'static str,
    /// For people, one line.
    pub help: &'static str,
    /// The unit, which the name ends in.
    pub unit: Unit,
    /// The kind.
    pub kind: Kind,
    /// Of what.
    pub scope: Scope,
    /// A label beside those of the scope, and the values it can have (none listed: any).
    pub label: Option<(&'static str, &'static [&'static str])>,
    pub(super) read: fn(&Ledger, &mut Samples<'_>),
}

use Kind::{Counter, Gauge, Histogram};
use Scope::{Group, Own, Pair, Pod as OfPod};

macro_rules! metric {
    ($name:literal, $help:literal, $unit:ident, $kind:ident, $scope:ident, $read:expr) => {
        metric!($name, $help, $unit, $kind, $scope, None, $read)
    };
    ($name:literal, $help:literal, $unit:ident, $kind:ident, $scope:ident, $label:expr, $read:expr) => {
        Metric {
            name: $name,
            help: $help,
            unit: Unit::$unit,
            kind: $kind,
            scope: $scope,
            label: $label,
            read: $read,
        }
    };
}

/// All metrics, in the order in which they are written.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    // The original's: see the module's documentation for what has changed in their meaning.
    metric!("gthulhu_pod_voluntary_ctx_switches_total", "Times that a thread of the pod left a CPU to wait for something.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.voluntary, Counts::voluntary)),
    metric!("gthulhu_pod_involuntary_ctx_switches_total", "Times that a thread of the pod left a CPU though it wanted to go on.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.involuntary, Counts::involuntary)),
    metric!("gthulhu_pod_cpu_time_nanoseconds_total", "Time that threads of the pod ran.",
        Nanoseconds, Counter, OfPod, |l, s| pods(l, s, |w| w.cpu_time, |c| c.run_ns)),
    metric!("gthulhu_pod_wait_time_nanoseconds_total", "Run delay: time that threads of the pod were runnable and did not run, without throttling by cpu.max.",
        Nanoseconds, Counter, OfPod, |l, s| pods(l, s, |w| w.wait_time, Counts::run_delay_ns)),
    metric!("gthulhu_pod_run_count_total", "Times that a thread of the pod was given a CPU.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.run_count, Counts::runs)),
    metric!("gthulhu_pod_cpu_migrations_total", "Times that a thread of the pod ran on another CPU than before.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.migrations, |c| c.migrations.total())),
    metric!("gthulhu_pod_smt_migrations_total", "Of the migrations, those between threads of a core.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.migrations, |c| c.migrations.core)),
    metric!("gthulhu_pod_l3_migrations_total", "Of the migrations, those between cores that share an L3 or L2 cache.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.migrations, |c| c.migrations.l2 + c.migrations.l3)),
    metric!("gthulhu_pod_numa_migrations_total", "Of the migrations, those from one NUMA node to another.",
        None, Counter, OfPod, |l, s| pods(l, s, |w| w.migrations, |c| c.migrations.numa)),
    metric!("gthulhu_pod_process_count", "Processes in the pod.",
        None, Gauge, OfPod, |l, s| each_pod(l, s, |_| true, |e, s, labels| s.number(labels, e.processes))),
    // Ours.
    metric!("gthulhu_group_cpu_seconds_total", "Time that threads ran.",
        Seconds, Counter, Group, |l, s| seconds(l, s, |w| w.cpu_time, |c| c.run_ns)),
    metric!("gthulhu_group_throttled_seconds_total", "Time that threads were kept from running by cpu.max, summed over threads.",
        Seconds, Counter, Group, |l, s| seconds(l, s, |w| w.wait_time, |c| c.throttled_ns)),
    metric!("gthulhu_group_run_delay_seconds", "Waits from runnable to running, after a wakeup or a preemption, without throttling.",
        Seconds, Histogram, Group, |l, s| each_group(l, s, |w| w.wait_time, |e, s, labels| s.histogram(labels, &e.counts.run_delays()))),
    metric!("gthulhu_group_wake_to_run_seconds", "Waits from a wakeup to running, without throttling.",
        Seconds, Histogram, Group, |l, s| each_group(l, s, |w| w.wait_time, |e, s, labels| s.histogram(labels, &e.counts.wake_to_run()))),
    metric!("gthulhu_group_on_cpu_seconds", "Runs from being given a CPU to leaving it.",
        Seconds, Histogram, Group, |l, s| each_group(l, s, |w| w.cpu_time, |e, s, labels| s.histogram(labels, &e.counts.bursts()))),
    metric!("gthulhu_group_context_switches_total", "Times that a thread left a CPU: to wait for something, or though it wanted to go on.",
        None, Counter, Group, Some(("kind", &["voluntary", "involuntary"])), |l, s| each_group(l, s, |w| w.voluntary | w.involuntary, |e, s, labels| {
            let each = [(e.shown.voluntary, "voluntary", e.counts.voluntary()), (e.shown.involuntary, "involuntary", e.counts.involuntary())];
            each.iter().filter(|(shown, ..)| *shown).for_each(|(_, kind, n)| s.labelled(labels, &[(kind, *n)]));
        })),
    metric!("gthulhu_group_migrations_total", "Times that a thread ran on another CPU than before, by the closest thing that the two share: nothing is numa.",
        None, Counter, Group, Some(("distance", &["core", "l2", "l3", "node", "numa"])), |l, s| each_group(l, s, |w| w.migrations, |e, s, labels| {
            let m = e.counts.migrations;
            s.labelled(labels, &[("core", m.core), ("l2", m.l2), ("l3", m.l3), ("node", m.node), ("numa", m.numa)]);
        })),
    metric!("gthulhu_group_threads_created_total", "Threads that began.",
        None, Counter, Group, |l, s| each_group(l, s, |w| w.run_count, |e, s, labels| s.number(labels, e.counts.created))),
    metric!("gthulhu_group_threads_exited_total", "Threads that ended.",
        None, Counter, Group, |l, s| each_group(l, s, |w| w.run_count, |e, s, labels| s.number(labels, e.counts.exited))),
    metric!("gthulhu_group_waited_behind_seconds_total", "Time that threads waited for a CPU on which those of another group ran meanwhile, estimated from a sample.",
        Seconds, Counter, Pair, |l, s| {
            let shown = |key| l.entries.get(key).is_none_or(|entry| entry.shown.wait_time);
            for ((waited, ran), (ns, _)) in l.pairs.iter().filter(|((waited, _), _)| shown(waited)) {
                let behind = ran.short();
                let labels = [&waited.pod.namespace, &waited.pod.name, &waited.container, &waited.unit, l.node(), &behind];
                s.seconds(&labels, *ns);
            }
        }),
    // The monitor about itself.
    metric!("gthulhu_monitor_events_total", "Runs that were counted.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.events)),
    metric!("gthulhu_monitor_missed_events_total", "Runs that could not be counted when they ended, for lack of memory; their time is in the thread's next run.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.missed)),
    metric!("gthulhu_monitor_row_lookups_total", "Times that a thread's row was looked up.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.resolved)),
    metric!("gthulhu_monitor_waits_sampled_total", "Waits that were looked into for who ran meanwhile.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.blamed)),
    metric!("gthulhu_monitor_waits_unattributed_total", "Times that a pair of groups found no room and counted as other.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.unblamed)),
    metric!("gthulhu_monitor_rows_refused_total", "Times that a cgroup found no free row and counted as other.",
        None, Counter, Own, |l, s| s.number(&[l.node()], l.own.refused)),
    metric!("gthulhu_monitor_rows", "Rows for cgroups in the kernel.",
        None, Gauge, Own, |l, s| s.number(&[l.node()], l.own.rows.into())),
    metric!("gthulhu_monitor_rows_used", "Rows in use.",
        None, Gauge, Own, |l, s| s.number(&[l.node()], l.own.rows_used.into())),
    metric!("gthulhu_monitor_label_sets", "Label sets in use; beyond the limit, groups count as other.",
        None, Gauge, Own, |l, s| s.number(&[l.node()], l.entries.len() as u64)),
    metric!("gthulhu_monitor_label_sets_limit", "Label sets at most.",
        None, Gauge, Own, |l, s| s.number(&[l.node()], l.limits().label_sets as u64 + 1)),
    metric!("gthulhu_monitor_bpf_runs_total", "Runs of our BPF programs, while the kernel measured them.",
        None, Counter, Own, Some(("program", &[])), |l, s| for p in &l.own.programs {
            s.labelled(&[l.node()], &[(&p.name, p.runs)]);
        }),
    metric!("gthulhu_monitor_bpf_seconds_total", "Run time of our BPF programs, while the kernel measured them.",
        Seconds, Counter, Own, Some(("program", &[])), |l, s| for p in &l.own.programs {
            s.labelled_seconds(&[l.node()], &p.name, p.run_ns);
        }),
];

/// Whether somebody wants to see it.
type Wanted = fn(&Shown) -> bool;

fn pods(ledger: &Ledger, samples: &mut Samples<'_>, wanted: Wanted, of: fn(&Counts) -> u64) {
    each_pod(ledger, samples, wanted, |entry, samples, labels| samples.number(labels, of(&entry.counts)));
}

fn each_pod(
    ledger: &Ledger,
    samples: &mut Samples<'_>,
    wanted: Wanted,
    write: impl Fn(&Entry, &mut Samples<'_>, &[&str]),
) {
    for (Pod { namespace, name, uid }, entry) in ledger.pods.iter().filter(|(_, entry)| wanted(&entry.shown))
    {
        write(entry, samples, &[name, uid, namespace, ledger.node()]);
    }
}

fn seconds(ledger: &Ledger, samples: &mut Samples<'_>, wanted: Wanted, of: fn(&Counts) -> u64) {
    each_group(ledger, samples, wanted, |entry, samples, labels| samples.seconds(labels, of(&entry.counts)));
}

fn each_group(
    ledger: &Ledger,
    samples: &mut Samples<'_>,
    wanted: Wanted,
    write: impl Fn(&Entry, &mut Samples<'_>, &[&str]),
) {
    for (Key { pod, container, unit }, entry) in
        ledger.entries.iter().filter(|(_, entry)| wanted(&entry.shown))
    {
        write(entry, samples, &[&pod.namespace, &pod.name, container, unit, ledger.node()]);
    }
}
