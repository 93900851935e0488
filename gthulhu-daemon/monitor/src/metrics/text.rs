//! Writing metrics, as text or OpenMetrics.

use std::fmt::Write;

use super::accept::Format;
use super::ledger::Ledger;
use super::registry::{Kind, METRICS, Metric};
use crate::BUCKETS;
use crate::values::Histogram;

/// Every second bucket is written: a factor of four between two limits, and half of the series.
const STEP: usize = 2;

impl Ledger {
    /// All metrics.
    pub fn render(&self, format: Format) -> String {
        let mut out = String::new();
        for metric in METRICS {
            head(&mut out, metric, format);
            (metric.read)(self, &mut Samples { out: &mut out, metric });
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

fn head(out: &mut String, metric: &Metric, format: Format) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = match format {
        Format::Text => metric.name,
        // A family of counters is called without the suffix there.
        Format::OpenMetrics => metric.name.strip_suffix("_total").unwrap_or(metric.name),
    };
    let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    if format == Format::OpenMetrics && !metric.unit.name().is_empty() {
        let _ = writeln!(out, "# UNIT {name} {}", metric.unit.name());
    }
}

/// Where the series of a metric go. Labels are values in the order of the scope's names.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    out: &'a mut String,
    metric: &'a Metric,
}

impl Samples<'_> {
    pub(super) fn number(&mut self, labels: &[&str], value: u64) {
        self.line("", labels, None, &value.to_string());
    }

    pub(super) fn seconds(&mut self, labels: &[&str], ns: u64) {
        self.line("", labels, None, &in_seconds(ns));
    }

    /// One series for each value of the metric's own label.
    pub(super) fn labelled(&mut self, labels: &[&str], values: &[(&str, u64)]) {
        for (label, value) in values {
            self.line("", labels, self.metric.label.map(|(name, _)| (name, *label)), &value.to_string());
        }
    }

    pub(super) fn labelled_seconds(&mut self, labels: &[&str], label: &str, ns: u64) {
        self.line("", labels, self.metric.label.map(|(name, _)| (name, label)), &in_seconds(ns));
    }

    pub(super) fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let mut so_far = 0;
        for bucket in 0..BUCKETS - 1 {
            so_far += histogram.counts[bucket];
            if let (Some(end), true) = (Histogram::end_ns(bucket), bucket % STEP == 0) {
                self.line("_bucket", labels, Some(("le", &in_seconds(end))), &so_far.to_string());
            }
        }
        let all = histogram.count().to_string();
        self.line("_bucket", labels, Some(("le", "+Inf")), &all);
        self.line("_sum", labels, None, &in_seconds(histogram.sum_ns));
        self.line("_count", labels, None, &all);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], extra: Option<(&str, &str)>, value: &str) {
        self.out.push_str(self.metric.name);
        self.out.push_str(suffix);
        let names = self.metric.scope.labels().iter().copied().zip(labels.iter().copied());
        for (at, (name, value)) in names.chain(extra).enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{name}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    letter => self.out.push(letter),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "}} {value}");
    }
}

/// Exact, without the zeros at the end; a whole number has one, as OpenMetrics wants it in `le`.
fn in_seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::metrics::{Labels, Limits, Pod, Unit};
    use crate::values::{Blame, Counts, Group, ProgramCost, Snapshot};

    fn ledger() -> Ledger {
        let mut counts =
            Counts { run_ns: 1_500_000_000, wakeup_wait_ns: 2048, created: 3, ..Counts::default() };
        counts.wakeup_waits[0] = 1;
        counts.wakeup_waits[1] = 1;
        counts.wakeup_waits[BUCKETS - 1] = 1;
        counts.blocked_runs[4] = 3;
        let group = Group { id: 5, path: Some("/a".into()), removed: false, counts };
        let blames = vec![Blame { waited: 5, ran: 5, ns: 70, samples: 1 }];
        let mut snapshot = Snapshot { at_ns: 9, groups: vec![group], blames, ..Snapshot::default() };
        snapshot.own.programs = vec![ProgramCost { name: "mon_switch".into(), runs: 3, run_ns: 250 }];
        let mut ledger = Ledger::new("n1", Limits::default());
        ledger.update(&snapshot, |_, _| {
            let pod = Pod { namespace: "web".into(), name: "a\"b\\c\n".into(), uid: "u".into() };
            Some(Labels { pod: Some(pod), container: "app".into(), processes: 4, ..Labels::default() })
        });
        ledger
    }

    #[test]
    fn names_follow_the_rules_and_are_there_once() {
        let names: HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            let stem = metric.name.trim_end_matches("_total");
            if metric.unit != Unit::None {
                assert!(stem.ends_with(&format!("_{}", metric.unit.name())), "{}", metric.name);
            }
        }
    }

    #[test]
    fn the_originals_names_and_labels_are_all_there() {
        let text = ledger().render(Format::Text);
        let labels = "{pod_name=\"a\\\"b\\\\c\\n\",pod_uid=\"u\",namespace=\"web\",node_name=\"n1\"}";
        for (name, value) in [
            ("voluntary_ctx_switches_total", 3),
            ("involuntary_ctx_switches_total", 0),
            ("cpu_time_nanoseconds_total", 1_500_000_000),
            ("wait_time_nanoseconds_total", 2048),
            ("run_count_total", 3),
            ("cpu_migrations_total", 0),
            ("smt_migrations_total", 0),
            ("l3_migrations_total", 0),
            ("numa_migrations_total", 0),
            ("process_count", 4),
        ] {
            assert!(text.contains(&format!("\ngthulhu_pod_{name}{labels} {value}\n")), "{name}\n{text}");
        }
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_all() {
        let text = ledger().render(Format::Text);
        let mine =
            |line: &&str| line.starts_with("gthulhu_group_wake_to_run_seconds") && line.contains("\"app\"");
        let lines: Vec<&str> = text.lines().filter(mine).collect();
        let value = |of: &str| {
            let line =
                lines.iter().find(|line| line.contains(of)).unwrap_or_else(|| panic!("no {of}: {lines:?}"));
            line.rsplit(' ').next().unwrap()
        };
        assert_eq!(value("le=\"0.000001024\""), "1");
        assert_eq!(value("le=\"0.000004096\""), "2");
        assert_eq!(value("le=\"4.294967296\""), "2");
        assert_eq!(value("le=\"+Inf\""), "3");
        assert_eq!(value("_count"), "3");
        assert_eq!(value("_sum"), "0.000002048");
        assert_eq!(lines.len(), BUCKETS / STEP + 3);
    }

    #[test]
    fn both_formats_have_each_family_once_and_no_series_twice() {
        for format in [Format::Text, Format::OpenMetrics] {
            let text = ledger().render(format);
            let mut series = HashMap::new();
            let mut families = HashSet::new();
            for line in text.lines() {
                if let Some(family) = line.strip_prefix("# TYPE ") {
                    assert!(families.insert(family.to_owned()), "{family}");
                } else if !line.starts_with('#') {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    assert!(series.insert(name.to_owned(), value).is_none(), "twice: {name}");
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                }
            }
            assert_eq!(families.len(), METRICS.len());
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
            assert_eq!(text.contains("# TYPE gthulhu_monitor_events_total counter"), format == Format::Text);
        }
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(in_seconds(0), "0.0");
        assert_eq!(in_seconds(1_024), "0.000001024");
        assert_eq!(in_seconds(3_000_000_000), "3.0");
        assert_eq!(in_seconds(u64::MAX), "18446744073.709551615");
    }
}
