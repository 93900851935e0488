//! Every metric that the daemon exposes: the monitor's by its registry, the rest by what is written for a daemon with
//! all that one can have.

use std::collections::BTreeMap;
use std::fmt::Write;

use gthulhu_monitor::metrics::{Format, Kind, METRICS, Scope};
use qumun::kernel::{stats, wire};
use serde_json::{Value, json};

use crate::metrics::{self, Page};
use crate::runtime::Told;
use crate::{events, status};

/// A metric, for whoever asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) labels: Vec<String>,
    /// Whose: pod, group, pair, monitor, or the daemon's own with its scheduler.
    pub(crate) of: &'static str,
}

/// What the node's own metrics are made from, beside the supervisor's status.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) told: &'a Told,
    pub(crate) events: events::Counts,
}

impl Node<'_> {
    /// Configuration and event stream.
    pub(crate) fn render(&self, format: Format) -> String {
        let mut page = Page::new(format);
        let name = "gthulhu_config_info";
        page.head(
            name,
            "The configuration that holds: its version, and a number that is the same where all is.",
            "gauge",
        );
        page.sample(name, &[("version", &self.told.version), ("hash", &hash(&self.told.values))], "1");
        page.gauge(
            "gthulhu_config_change_failed",
            "1 if the last change of the runtime configuration could not be made.",
            u64::from(self.told.last_error.is_some()),
        );
        page.gauge(
            "gthulhu_monitor_wanted",
            "1 if the configuration has the monitor on.",
            u64::from(self.told.monitoring),
        );
        let e = &self.events;
        page.counter("gthulhu_events_total", "Events that were told to at least one reader.", &json!(e.told));
        page.counter(
            "gthulhu_events_dropped_total",
            "Events that a reader did not get because it was too slow; it was told how many.",
            &json!(e.dropped),
        );
        page.gauge("gthulhu_events_readers", "Readers of the event stream.", e.readers);
        page.out
    }
}

/// FNV-1a of what is configured, whoever configured it: the version is a word of theirs.
fn hash(values: &Value) -> String {
    let mut values = values.clone();
    if let Some(fields) = values.as_object_mut() {
        fields.remove("configVersion");
    }
    let bytes = values.to_string();
    let sum = bytes
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}

/// All of them, by name.
pub(crate) fn all() -> BTreeMap<String, Series> {
    let of = |scope| match scope {
        Scope::Pod => "pod",
        Scope::Group => "group",
        Scope::Pair => "pair",
        _ => "monitor",
    };
    let monitors = METRICS.iter().map(|m| Series {
        name: m.name.into(),
        help: m.help.into(),
        kind: m.kind,
        unit: m.unit.name(),
        labels: m
            .scope
            .labels()
            .iter()
            .copied()
            .chain(m.label.map(|(name, _)| name))
            .map(str::to_owned)
            .collect(),
        of: of(m.scope),
    });
    let told = Told::default();
    let node = Node { told: &told, events: events::Counts::default() };
    let text = metrics::render(Some(&everything()), true, Format::Text) + &node.render(Format::Text);
    monitors.chain(parse(&text)).map(|series| (series.name.clone(), series)).collect()
}

/// A status with all that one can have.
fn everything() -> Value {
    let zeros = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), json!(0))).collect::<serde_json::Map<_, _>>()
    };
    let counters: Vec<&str> = stats::named(&wire::Counters::default()).map(|(name, _)| name).to_vec();
    let leg = |name: &&str| json!({ "name": name, "log2_ns": vec![0; wire::LEG_BUCKETS] });
    json!({
        "mode": "normal",
        "agent": { "restarts_by_reason": zeros(&status::END_REASONS) },
        "attaches": { "last_gap_ms": 0 },
        "counters": zeros(&counters),
        "transitions": { "entered": zeros(&wire::REASONS) },
        "legs": wire::LEG_NAMES.iter().map(leg).collect::<Vec<_>>(),
    })
}

/// Reads what was written.
fn parse(text: &str) -> Vec<Series> {
    let mut found: Vec<Series> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let unit = if stem.ends_with("_seconds") { "seconds" } else { "" };
            let (name, help) = (name.to_owned(), help.to_owned());
            found.push(Series { name, help, kind: Kind::Gauge, unit, labels: Vec::new(), of: "daemon" });
        } else if let (Some(kind), Some(last)) = (line.strip_prefix("# TYPE "), found.last_mut()) {
            last.kind = match kind.rsplit(' ').next() {
                Some("counter") => Kind::Counter,
                Some("histogram") => Kind::Histogram,
                _ => Kind::Gauge,
            };
        } else if let (Some((_, labels)), Some(last)) = (line.split_once('{'), found.last_mut()) {
            let names = labels.split(',').filter_map(|label| label.split_once("=\"").map(|(name, _)| name));
            for name in names.filter(|name| *name != "le") {
                if !last.labels.iter().any(|known| known == name) {
                    last.labels.push(name.to_owned());
                }
            }
        }
    }
    // Its series is there only while nothing of ours schedules.
    if let Some(off) = found.iter_mut().find(|series| series.name == "gthulhu_scheduler_off_info") {
        off.labels = vec!["why".into()];
    }
    found
}

/// The metric that a word of an expression names, if it is one of ours: of a histogram there are three.
#[cfg(test)]
pub(crate) fn named<'a>(all: &'a BTreeMap<String, Series>, word: &str) -> Option<&'a Series> {
    let of_histogram =
        |end| word.strip_suffix(end).and_then(|stem| all.get(stem)).filter(|s| s.kind == Kind::Histogram);
    match all.get(word) {
        Some(series) if series.kind != Kind::Histogram => Some(series),
        _ => ["_bucket", "_sum", "_count"].into_iter().find_map(of_histogram),
    }
}

fn kind(series: &Series) -> &'static str {
    match series.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// For programs.
pub(crate) fn json(all: &BTreeMap<String, Series>) -> Value {
    let one = |s: &Series| json!({ "name": s.name, "help": s.help, "kind": kind(s), "unit": s.unit, "labels": s.labels, "of": s.of });
    json!({ "metrics": all.values().map(one).collect::<Vec<_>>() })
}

/// For people.
pub(crate) fn text(all: &BTreeMap<String, Series>) -> String {
    let mut out = String::new();
    for s in all.values() {
        let unit = if s.unit.is_empty() { String::new() } else { format!(", {}", s.unit) };
        let _ = writeln!(out, "{} ({}{unit})\n    {}", s.name, kind(s), s.help);
        if !s.labels.is_empty() {
            let _ = writeln!(out, "    by {}", s.labels.join(", "));
        }
    }
    out
}

/// Words of an expression that look like metrics of ours.
#[cfg(test)]
pub(crate) fn words(expr: &str) -> impl Iterator<Item = &str> {
    expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("gthulhu_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_what_is_exposed_with_kind_unit_and_labels() {
        let all = all();
        let is = |name: &str, what: Kind, unit: &str, labels: &[&str]| {
            let series = all.get(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!((series.kind, series.unit), (what, unit), "{name}");
            assert_eq!(series.labels, labels, "{name}");
        };
        is("gthulhu_scheduler_takeovers_total", Kind::Counter, "", &["reason"]);
        is("gthulhu_scheduler_leg_seconds", Kind::Histogram, "seconds", &["leg"]);
        is("gthulhu_scheduler_throttled_seconds_total", Kind::Counter, "seconds", &[]);
        is("gthulhu_scheduler_off_info", Kind::Gauge, "", &["why"]);
        is("gthulhu_config_info", Kind::Gauge, "", &["version", "hash"]);
        is("gthulhu_monitor_rows_used", Kind::Gauge, "", &["node_name"]);
        assert!(all.values().all(|series| !series.help.is_empty()));
        assert!(named(&all, "gthulhu_scheduler_leg_seconds_bucket").is_some());
        assert!(named(&all, "gthulhu_scheduler_leg_seconds").is_none() && named(&all, "gthulhu_x").is_none());
        for text in [text(&all), json(&all).to_string()] {
            assert!(all.keys().all(|name| text.contains(name.as_str())));
        }
    }

    #[test]
    fn a_configuration_has_one_number_whatever_it_is_called() {
        let of = |version: &str, permit: u64| hash(&json!({ "configVersion": version, "permit": permit }));
        assert_eq!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), of("a", 2));
    }
}
