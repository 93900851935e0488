//! What pods are called, and which of them somebody wants measured: from the Kubernetes API, from a file, or both.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gthulhu_config::Config;
#[cfg(feature = "kubernetes")]
use gthulhu_discovery::{Cluster, ClusterNames, ClusterOptions};
use gthulhu_discovery::{FileNames, Index, Names, NoNames, PodInfo, PodUid, Selection, Switches, Workload};
use gthulhu_monitor::metrics::Shown;
use serde_json::{Value, json};

/// Names and wishes, as the configuration wants them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    wanted: Wanted,
    #[cfg(feature = "kubernetes")]
    cluster: Option<(Cluster, ClusterNames)>,
    file: Option<FileNames>,
    /// Why there is no connection, or no file.
    errors: Vec<String>,
    /// While a file or the way to the API cannot be had, it is tried again.
    incomplete: bool,
    wishes: Option<Vec<Arc<Selection>>>,
}

/// What decides where names are from.
#[derive(Debug, Default, Clone, PartialEq)]
struct Wanted {
    api: bool,
    selections: bool,
    kubeconfig: Option<PathBuf>,
    file: Option<PathBuf>,
    node: String,
}

impl Wanted {
    fn of(config: &Config, node: &str) -> Self {
        let monitor = &config.monitor;
        // A pod is told where the API is.
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let api = monitor.enable_crd_watcher || monitor.kubeconfig_path.is_some() || in_pod;
        Self {
            api: api && monitor.enabled,
            selections: monitor.enable_crd_watcher,
            kubeconfig: monitor.kubeconfig_path.clone(),
            file: monitor.names_file.clone(),
            node: node.to_owned(),
        }
    }
}

impl Book {
    /// Looks up names where this configuration says; returns what is new to complain about.
    pub(crate) fn adopt(&mut self, config: &Config, node: &str) -> Vec<String> {
        let wanted = Wanted::of(config, node);
        if wanted == self.wanted && !self.incomplete {
            return Vec::new();
        }
        let before = std::mem::take(&mut self.errors);
        (self.incomplete, self.wishes) = (false, None);
        self.connect(&wanted);
        self.file = match &wanted.file {
            None => None,
            Some(path) => match FileNames::open(path) {
                Ok(names) => Some(names),
                Err(error) => {
                    self.refused(format!("monitor.names_file: {error}"));
                    None
                }
            },
        };
        self.wanted = wanted;
        self.errors.iter().filter(|error| !before.contains(error)).cloned().collect()
    }

    #[cfg(feature = "kubernetes")]
    fn connect(&mut self, wanted: &Wanted) {
        let without_file = |wanted: &Wanted| Wanted { file: None, ..wanted.clone() };
        if !wanted.api {
            self.cluster = None;
        } else if without_file(&self.wanted) != without_file(wanted) || self.cluster.is_none() {
            // The old one ends first: it may be for another node.
            self.cluster = None;
            let mut options = ClusterOptions::new(&wanted.node);
            options.kubeconfig.clone_from(&wanted.kubeconfig);
            options.selections = wanted.selections;
            match Cluster::connect(options) {
                Ok(cluster) => {
                    let names = cluster.names();
                    self.cluster = Some((cluster, names));
                }
                Err(error) => self.refused(format!("names from Kubernetes: {error}")),
            }
        }
    }

    #[cfg(not(feature = "kubernetes"))]
    fn connect(&mut self, wanted: &Wanted) {
        if wanted.api {
            let what = "names from Kubernetes: this daemon was built without the feature 'kubernetes'; give it a \
                        monitor.names_file, or build it with that feature";
            self.refused(what.into());
        }
    }

    fn refused(&mut self, error: String) {
        self.errors.push(error);
        self.incomplete = true;
    }

    /// Takes what has changed.
    pub(crate) fn refresh(&mut self) {
        if let Some(read) = self.file.as_mut().map(FileNames::refresh) {
            self.errors.retain(|error| !error.starts_with("monitor.names_file: "));
            self.errors.extend(read.err().map(|error| format!("monitor.names_file: {error}")));
        }
        #[cfg(feature = "kubernetes")]
        if let Some((cluster, _)) = &self.cluster {
            self.wishes = self.wanted.selections.then(|| cluster.selections().usable);
        }
    }

    /// How often somebody wants to have looked, if more often than the node does.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.wishes.iter().flatten().filter(|wish| wish.enabled).map(|wish| wish.interval).min()
    }

    pub(crate) fn pod(&self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        #[cfg(feature = "kubernetes")]
        if let Some(pod) = self.cluster.as_ref().and_then(|(_, names)| names.pod(uid)) {
            return Some(pod);
        }
        self.file.as_ref().map_or_else(|| NoNames.pod(uid), |names| names.pod(uid))
    }

    /// What of a pod, or of a container of it, is to be shown; `None` if nobody asked for it. Without anybody who says
    /// what is wanted, all is shown of every pod.
    ///
    /// The kernel counts by cgroup, so a command selects the containers in which a process runs it, with all that else
    /// runs there.
    pub(crate) fn shown(&self, workload: &Workload, index: Option<&Index>) -> Option<Shown> {
        let (Some(wishes), Workload::Pod { uid, container, .. }) = (&self.wishes, workload) else {
            return Some(Shown::ALL);
        };
        let pod = self.pod(uid)?;
        let here = |of: &Workload| match of {
            Workload::Pod { uid: u, container: c, .. } => u == uid && (container.is_none() || c == container),
            _ => false,
        };
        let runs = |wish: &Selection| {
            wish.command.is_none()
                || index.is_some_and(|index| {
                    index.processes().any(|process| here(&process.workload) && wish.matches(&pod, process))
                })
        };
        let wanted =
            wishes.iter().filter(|wish| wish.matches_pod(&pod) && runs(wish)).map(|wish| wish.metrics);
        wanted.reduce(|a, b| a | b).map(of_switches)
    }

    /// For status.
    pub(crate) fn json(&self) -> Value {
        #[cfg_attr(
            not(feature = "kubernetes"),
            allow(unused_mut, reason = "only what Kubernetes says is added")
        )]
        let mut object = json!({
            "errors": self.errors,
            "file": self.file.as_ref().map(|names| names.pods().len()),
            "kubernetes": null,
        });
        #[cfg(feature = "kubernetes")]
        if let Some((cluster, names)) = &self.cluster {
            let (pods, selections) = (cluster.pods_state(), cluster.selections());
            object["kubernetes"] = json!({
                "pods": names.pods().len(), "complete": pods.complete, "error": pods.error,
                "selections": self.wanted.selections.then(|| json!({
                    "usable": selections.usable.iter().map(|s| format!("{}/{}", s.namespace, s.name)).collect::<Vec<_>>(),
                    "refused": selections.refused, "complete": selections.state.complete, "error": selections.state.error,
                })),
            });
        }
        object
    }
}

fn of_switches(s: Switches) -> Shown {
    Shown {
        voluntary: s.voluntary_ctx_switches,
        involuntary: s.involuntary_ctx_switches,
        cpu_time: s.cpu_time_ns,
        wait_time: s.wait_time_ns,
        run_count: s.run_count,
        migrations: s.cpu_migrations,
    }
}
