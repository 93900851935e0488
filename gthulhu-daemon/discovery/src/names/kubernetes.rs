//! Names and selections from the Kubernetes API.
//!
//! A thread of its own keeps lists of this node's pods, and of the selections of the whole cluster, by
//! listing once and watching from there. Whenever the watch has a gap it lists again, and what is not in the
//! new list is gone: so nothing that was deleted meanwhile stays (the original's M8).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::Lookup};
use kube::{Api, Client, Config};
use tokio::sync::oneshot;

use super::{Names, PodInfo};
use crate::{ContainerId, Error, ErrorKind, PodSchedulingMetricsSpec, PodUid, Result, Selection};

/// How to reach the API, and what to ask for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// The file with address and credentials; `None` takes `$KUBECONFIG` or `~/.kube/config` where there is
    /// one, and the service account of a pod otherwise.
    pub kubeconfig: Option<PathBuf>,
    /// The name of this node in the cluster, `spec.nodeName` of its pods.
    pub node: String,
    /// Whether to watch `PodSchedulingMetrics`, too.
    pub selections: bool,
}

impl ClusterOptions {
    /// For the node of this name; everything else as found.
    pub fn new(node: impl Into<String>) -> Self {
        Self { kubeconfig: None, node: node.into(), selections: true }
    }
}

/// A connection to the API. Dropping it ends its thread.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The pods of this node, as the API names them.
#[derive(Clone, Debug)]
pub struct ClusterNames {
    shared: Arc<Shared>,
    told: u64,
}

/// How far a list is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchState {
    /// Whether it was complete once: before that, what is not in it may still exist.
    pub complete: bool,
    /// What went wrong since something was last heard. It is tried again and again; a watch that came back and
    /// has nothing to tell yet still shows it.
    pub error: Option<String>,
}

/// The wishes to measure, of the whole cluster.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Selections {
    /// Those that can be used, by namespace and name.
    pub usable: Vec<Arc<Selection>>,
    /// Why others cannot be.
    pub refused: Vec<String>,
    /// Another number whenever something changed.
    pub generation: u64,
    /// How far the list is.
    pub state: WatchState,
}

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<List<Arc<PodInfo>>>,
    selections: Mutex<List<Result<Arc<Selection>, String>>>,
}

/// What a watch knows, by the UID of objects.
#[derive(Debug)]
struct List<T> {
    known: HashMap<String, T>,
    /// While it is listed anew, what was known is still served.
    coming: HashMap<String, T>,
    /// From what cgroups call a pod to its object.
    by_cgroup: HashMap<PodUid, String>,
    generation: u64,
    state: WatchState,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            coming: HashMap::new(),
            by_cgroup: HashMap::new(),
            generation: 0,
            state: WatchState::default(),
        }
    }
}

impl Cluster {
    /// Begins to watch. Does not wait for the API: names come when it answers, and it is asked again and again,
    /// at growing intervals of at most half a minute.
    ///
    /// # Errors
    /// The kubeconfig or the service account cannot be read or used; the node's name is none.
    pub fn connect(options: ClusterOptions) -> Result<Self> {
        check_node(&options.node)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start the watch of pods: {error}")))?;
        let client = runtime.block_on(client(&options))?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kubernetes".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let pods = watch_pods(client.clone(), &options.node, &work.pods);
                    let selections = async {
                        match options.selections {
                            true => watch_selections(client, &work.selections).await,
                            false => std::future::pending().await,
                        }
                    };
                    let watches = pin!(futures_util::future::join(pods, selections));
                    futures_util::future::select(stopped, watches).await;
                });
            })
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start the watch of pods: {error}")))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What pods are called. A copy sees what the watch sees.
    pub fn names(&self) -> ClusterNames {
        ClusterNames { shared: Arc::clone(&self.shared), told: 0 }
    }

    /// How far the list of pods is.
    pub fn pods_state(&self) -> WatchState {
        lock(&self.shared.pods).state.clone()
    }

    /// The wishes to measure, as they are now.
    pub fn selections(&self) -> Selections {
        let list = lock(&self.shared.selections);
        let mut selections =
            Selections { generation: list.generation, state: list.state.clone(), ..Selections::default() };
        for selection in list.known.values() {
            match selection {
                Ok(selection) => selections.usable.push(Arc::clone(selection)),
                Err(why) => selections.refused.push(why.clone()),
            }
        }
        selections.usable.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        selections.refused.sort();
        selections
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Names for ClusterNames {
    fn pod(&self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        let list = lock(&self.shared.pods);
        // By what cgroups say, or by what the API says: of pods from files that is not the same.
        let object = list.by_cgroup.get(uid).map_or(uid.as_str(), String::as_str);
        list.known.get(object).cloned()
    }

    fn pods(&self) -> Vec<Arc<PodInfo>> {
        lock(&self.shared.pods).known.values().cloned().collect()
    }

    /// Says whether anything changed since the last call; the watch takes what changes by itself.
    fn refresh(&mut self) -> Result<bool> {
        let now = self.generation();
        Ok(std::mem::replace(&mut self.told, now) != now)
    }

    fn generation(&self) -> u64 {
        lock(&self.shared.pods).generation
    }
}

/// A thread that panicked while it held the lock has not left half a list: each change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name goes into a field selector, where a comma would begin another condition.
fn check_node(node: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if !node.is_empty() && node.len() <= 253 && node.bytes().all(fine) {
        return Ok(());
    }
    let what = format!("`{node}` is no name of a node: set NODE_NAME to what `kubectl get nodes` shows");
    Err(Error::new(ErrorKind::Kubernetes, what))
}

async fn client(options: &ClusterOptions) -> Result<Client> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let refused = |error: kube::config::KubeconfigError| {
                let what = format!("{} is no usable kubeconfig: {}", path.display(), chain(&error));
                Error::with_source(ErrorKind::Kubernetes, what, error)
            };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(refused)?
        }
        None => Config::infer().await.map_err(|error| {
            let what = format!(
                "no way to the Kubernetes API: {} (give a kubeconfig, or run in a pod with a service account)",
                chain(&error)
            );
            Error::with_source(ErrorKind::Kubernetes, what, error)
        })?,
    };
    Client::try_from(config).map_err(|error| {
        let what = format!("the Kubernetes client cannot be set up: {}", chain(&error));
        Error::with_source(ErrorKind::Kubernetes, what, error)
    })
}

/// An error with its causes: the cause is what says what to do.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

async fn watch_pods(client: Client, node: &str, list: &Mutex<List<Arc<PodInfo>>>) {
    let api: Api<Pod> = Api::all(client);
    let wanted = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = pin!(watcher(api, wanted).default_backoff());
    while let Some(event) = events.next().await {
        let mut list = lock(list);
        if list.take(event, pod_info) {
            // Some hundred at most: the pods of one node.
            let by_cgroup =
                list.known.iter().map(|(object, pod)| (pod.uid.clone(), object.clone())).collect();
            list.by_cgroup = by_cgroup;
        }
    }
}

async fn watch_selections(client: Client, list: &Mutex<List<Result<Arc<Selection>, String>>>) {
    let kind = GroupVersionKind::gvk("gthulhu.io", "v1alpha1", "PodSchedulingMetrics");
    let resource = ApiResource::from_gvk_with_plural(&kind, "podschedulingmetrics");
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        lock(list).take(event, selection);
    }
}

impl<T: PartialEq> List<T> {
    /// Says whether anything is different now.
    fn take<K>(&mut self, event: watcher::Result<Event<K>>, read: impl Fn(&K) -> Option<(String, T)>) -> bool
    where
        K: Lookup,
    {
        let changed = match event {
            Ok(Event::Init) => {
                self.coming.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                self.coming.extend(read(&object));
                false
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.coming);
                self.state = WatchState { complete: true, error: None };
                let changed = listed != self.known;
                self.known = listed;
                changed
            }
            Ok(Event::Apply(object)) => {
                self.state.error = None;
                match read(&object) {
                    Some((uid, value)) if self.known.get(&uid) != Some(&value) => {
                        self.known.insert(uid, value);
                        true
                    }
                    _ => false,
                }
            }
            Ok(Event::Delete(object)) => {
                self.state.error = None;
                object.uid().is_some_and(|uid| self.known.remove(&*uid).is_some())
            }
            Err(error) => {
                self.state.error = Some(chain(&error));
                false
            }
        };
        if changed {
            self.generation += 1;
        }
        changed
    }
}

fn pod_info(pod: &Pod) -> Option<(String, Arc<PodInfo>)> {
    let meta = &pod.metadata;
    let object = meta.uid.clone()?;
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name));
    // What the API has of a pod from a file is a mirror, with a UID of its own. The kubelet's is in here
    // (pkg/kubelet/types/pod_update.go, pkg/kubelet/config/common.go).
    let uid = match annotation("kubernetes.io/config.mirror") {
        Some(_) => annotation("kubernetes.io/config.hash").unwrap_or(&object),
        None => &object,
    };
    let mut containers = BTreeMap::new();
    if let Some(status) = &pod.status {
        let all = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        for container in all.into_iter().flatten().flatten() {
            if let Some(id) = container.container_id.as_ref().and_then(ContainerId::new) {
                containers.insert(id, container.name.clone());
            }
        }
    }
    let info = PodInfo {
        uid: PodUid::new(uid)?,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        containers,
    };
    Some((object, Arc::new(info)))
}

fn selection(object: &DynamicObject) -> Option<(String, Result<Arc<Selection>, String>)> {
    let meta = &object.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let read = serde_json::from_value::<PodSchedulingMetricsSpec>(spec)
        .map_err(|error| format!("PodSchedulingMetrics {namespace}/{name}: spec: {error}"))
        .and_then(|spec| Selection::new(namespace, name, &spec).map_err(|error| error.to_string()));
    Some((meta.uid.clone()?, read.map(Arc::new)))
}
