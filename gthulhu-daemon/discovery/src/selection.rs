//! Which pods and processes somebody wants measured: the `PodSchedulingMetrics` of `gthulhu.io/v1alpha1`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Labels, Pattern, PodInfo, Process, Requirement, Result, Selector};

/// A wish to measure: which pods, which of their processes, how often, and what.
///
/// The plain form of a `PodSchedulingMetrics`. All its conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Where the wish is from: namespace and name of the object.
    pub namespace: String,
    /// See `namespace`.
    pub name: String,
    /// The labels of the pods.
    pub selector: Selector,
    /// The namespaces of the pods; none is every namespace.
    pub namespaces: Vec<String>,
    /// What a process must run; `None` is every process.
    pub command: Option<Pattern>,
    /// How often to collect: 1 s to 1 h.
    pub interval: Duration,
    /// Whether it counts at all.
    pub enabled: bool,
    /// What to report.
    pub metrics: Switches,
}

/// What to report, each by itself. The defaults are the original's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switches {
    /// Switches that a thread asked for by going to sleep.
    pub voluntary_ctx_switches: bool,
    /// Switches by which a thread lost its CPU.
    pub involuntary_ctx_switches: bool,
    /// Time on a CPU.
    pub cpu_time_ns: bool,
    /// Time runnable and not running.
    pub wait_time_ns: bool,
    /// How often a thread was put on a CPU.
    pub run_count: bool,
    /// How often a thread came to another CPU.
    pub cpu_migrations: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            voluntary_ctx_switches: true,
            involuntary_ctx_switches: true,
            cpu_time_ns: true,
            wait_time_ns: false,
            run_count: false,
            cpu_migrations: false,
        }
    }
}

/// Whatever either wants: two selections of one pod.
impl std::ops::BitOr for Switches {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            voluntary_ctx_switches: self.voluntary_ctx_switches | other.voluntary_ctx_switches,
            involuntary_ctx_switches: self.involuntary_ctx_switches | other.involuntary_ctx_switches,
            cpu_time_ns: self.cpu_time_ns | other.cpu_time_ns,
            wait_time_ns: self.wait_time_ns | other.wait_time_ns,
            run_count: self.run_count | other.run_count,
            cpu_migrations: self.cpu_migrations | other.cpu_migrations,
        }
    }
}

/// The `spec` of a `PodSchedulingMetrics`, with the names that it has in the API. Fields that are not known
/// are passed over: the API server refuses or drops them by the definition's schema. `scaling` is not for the
/// node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSchedulingMetricsSpec {
    /// Labels with exactly these values.
    #[serde(default)]
    pub label_selectors: Vec<KeyValue>,
    /// Conditions on labels; the original has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
    /// The namespaces of the pods; none is every namespace.
    #[serde(default)]
    pub k8s_namespaces: Vec<String>,
    /// What a process must run; empty is every process.
    #[serde(default)]
    pub command_regex: String,
    /// Seconds from 1 to 3,600.
    #[serde(default = "ten")]
    pub collection_interval_seconds: u32,
    /// Whether it counts at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What to report.
    #[serde(default)]
    pub metrics: Switches,
}

/// As what the API fills in: every ten seconds, enabled, and nothing selected yet.
impl Default for PodSchedulingMetricsSpec {
    fn default() -> Self {
        Self {
            label_selectors: Vec::new(),
            match_expressions: Vec::new(),
            k8s_namespaces: Vec::new(),
            command_regex: String::new(),
            collection_interval_seconds: ten(),
            enabled: yes(),
            metrics: Switches::default(),
        }
    }
}

/// A label and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The label.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

fn ten() -> u32 {
    10
}

fn yes() -> bool {
    true
}

impl Selection {
    /// From the `spec` of the object of this namespace and name.
    ///
    /// # Errors
    /// No label at all, which would select every pod by a slip; a label twice with two values; a label that
    /// cannot be; an interval out of bounds; a pattern that is none. The error names object and field.
    pub fn new(namespace: &str, name: &str, spec: &PodSchedulingMetricsSpec) -> Result<Self> {
        let refused = |field: &str, why: &dyn fmt::Display| {
            let what = format!("PodSchedulingMetrics {namespace}/{name}: spec.{field}: {why}");
            Error::new(ErrorKind::Selector, what)
        };
        if spec.label_selectors.is_empty() && spec.match_expressions.is_empty() {
            return Err(refused("labelSelectors", &"is empty: give at least one label"));
        }
        let mut labels = Labels::new();
        for KeyValue { key, value } in &spec.label_selectors {
            if labels.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
                let why = format!("`{key}` is wanted with two values, which no pod has: leave one out");
                return Err(refused("labelSelectors", &why));
            }
        }
        let selector = Selector { match_labels: labels, match_expressions: spec.match_expressions.clone() };
        selector.check().map_err(|error| {
            // What Kubernetes calls matchLabels is called otherwise here.
            let text = error.to_string();
            let (field, why) = text.split_once(": ").unwrap_or_default();
            refused(&field.replace("matchLabels", "labelSelectors"), &why)
        })?;
        let seconds = spec.collection_interval_seconds;
        if !(1..=3600).contains(&seconds) {
            return Err(refused(
                "collectionIntervalSeconds",
                &format!("{seconds} is out of range: give 1 to 3600"),
            ));
        }
        let command = match spec.command_regex.as_str() {
            "" => None,
            pattern => Some(Pattern::new(pattern).map_err(|error| refused("commandRegex", &error))?),
        };
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            selector,
            namespaces: spec.k8s_namespaces.clone(),
            command,
            interval: Duration::from_secs(seconds.into()),
            enabled: spec.enabled,
            metrics: spec.metrics,
        })
    }

    /// Whether this pod is meant, whatever it runs.
    pub fn matches_pod(&self, pod: &PodInfo) -> bool {
        self.enabled
            && (self.namespaces.is_empty() || self.namespaces.contains(&pod.namespace))
            && self.selector.matches(&pod.labels)
    }

    /// Whether this process of this pod is meant. The process that only holds the pod together never is.
    pub fn matches(&self, pod: &PodInfo, process: &Process) -> bool {
        self.matches_pod(pod)
            && !process.is_pause()
            && self.command.as_ref().is_none_or(|command| command.matches(&process.command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, PodUid, Workload};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    fn pod(namespace: &str, labels: &[(&str, &str)]) -> PodInfo {
        PodInfo {
            uid: PodUid::new(UID).unwrap(),
            namespace: namespace.into(),
            name: "cart-1".into(),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            node: None,
            containers: BTreeMap::new(),
        }
    }

    fn process(comm: &str, exe: &str) -> Process {
        Process {
            id: gthulhu_model::ThreadId { pid: 7, started: 1 },
            parent: 1,
            kernel: false,
            command: Command {
                comm: gthulhu_model::Comm::new(comm).ok(),
                exe: Some(exe.into()),
                cmdline: exe.into(),
            },
            cgroup: None,
            workload: Arc::new(Workload::of_cgroup(format!("/kubepods/pod{UID}"))),
            threads: Vec::new(),
            token: 0,
            due: 0,
            seen: 0,
        }
    }

    fn spec(json: &str) -> PodSchedulingMetricsSpec {
        serde_json::from_str(json).unwrap()
    }

    fn selection(json: &str) -> Selection {
        Selection::new("shop", "cart", &spec(json)).unwrap()
    }

    #[test]
    fn what_is_left_out_has_the_originals_defaults() {
        let selection = selection(r#"{"labelSelectors":[{"key":"app","value":"cart"}]}"#);
        assert_eq!((selection.interval, selection.enabled), (Duration::from_secs(10), true));
        assert_eq!((selection.metrics, selection.command), (Switches::default(), None));
        let metrics = selection.metrics;
        assert!(metrics.voluntary_ctx_switches && metrics.involuntary_ctx_switches && metrics.cpu_time_ns);
        assert!(!metrics.wait_time_ns && !metrics.run_count && !metrics.cpu_migrations);
    }

    #[test]
    fn all_conditions_must_hold() {
        let selection = selection(
            r#"{"labelSelectors":[{"key":"app","value":"cart"}],"k8sNamespaces":["shop","lab"],"commandRegex":"^java",
               "matchExpressions":[{"key":"canary","operator":"DoesNotExist"}]}"#,
        );
        let java = process("java", "/opt/jdk/bin/java");
        let cart = pod("shop", &[("app", "cart")]);
        assert!(selection.matches(&cart, &java));
        assert!(!selection.matches(&pod("other", &[("app", "cart")]), &java));
        assert!(!selection.matches(&pod("lab", &[("app", "web")]), &java));
        assert!(!selection.matches(&pod("lab", &[("app", "cart"), ("canary", "")]), &java));
        assert!(!selection.matches(&cart, &process("sh", "/bin/sh")));
        let off = Selection { enabled: false, ..selection };
        assert!(!off.matches(&cart, &java) && !off.matches_pod(&cart));
    }

    #[test]
    fn the_process_that_holds_a_pod_together_is_never_meant() {
        let all = selection(r#"{"labelSelectors":[{"key":"app","value":"cart"}]}"#);
        let cart = pod("shop", &[("app", "cart")]);
        assert!(!all.matches(&cart, &process("pause", "/pause")));
        // Somebody's own program may be called so, elsewhere.
        assert!(all.matches(&cart, &process("pause", "/usr/bin/player")));
    }

    #[test]
    fn each_switch_can_be_turned_on_and_off() {
        let fields = [
            "voluntaryCtxSwitches",
            "involuntaryCtxSwitches",
            "cpuTimeNs",
            "waitTimeNs",
            "runCount",
            "cpuMigrations",
        ];
        for field in fields {
            for value in [true, false] {
                let json = format!(
                    r#"{{"labelSelectors":[{{"key":"a","value":"b"}}],"metrics":{{"{field}":{value}}}}}"#
                );
                let written = serde_json::to_value(selection(&json).metrics).unwrap();
                assert_eq!(written[field], value, "{field}");
            }
        }
        let one = Switches { run_count: true, ..Switches::default() };
        let other = Switches { cpu_time_ns: false, ..Switches::default() };
        assert!((one | other).run_count && (one | other).cpu_time_ns && !(one | other).cpu_migrations);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_object_and_field() {
        let label = r#""labelSelectors":[{"key":"app","value":"cart"}]"#;
        for (json, message) in [
            ("{}".to_string(), "spec.labelSelectors: is empty"),
            (
                r#"{"labelSelectors":[{"key":"app","value":"a"},{"key":"app","value":"b"}]}"#.into(),
                "spec.labelSelectors: `app` is wanted with two values",
            ),
            (r#"{"labelSelectors":[{"key":"a b"}]}"#.into(), "spec.labelSelectors: `a b` is no label"),
            (
                format!(r#"{{{label},"commandRegex":"("}}"#),
                "spec.commandRegex: command pattern `(`: unclosed group",
            ),
            (
                format!(r#"{{{label},"collectionIntervalSeconds":0}}"#),
                "spec.collectionIntervalSeconds: 0 is out of range: give 1 to 3600",
            ),
        ] {
            let error = Selection::new("shop", "cart", &spec(&json)).unwrap_err().to_string();
            let wanted = format!("PodSchedulingMetrics shop/cart: {message}");
            assert!(error.starts_with(&wanted), "{error}\n{wanted}");
        }
    }
}
