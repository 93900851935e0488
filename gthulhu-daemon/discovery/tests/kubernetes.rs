//! Names and selections from the Kubernetes API, against a server that speaks list and watch.
#![allow(missing_docs)]

#[path = "support/api_server.rs"]
mod api_server;
mod support;

use std::path::PathBuf;

use api_server::{ApiServer, Kind};
use gthulhu_discovery::{Cluster, ClusterOptions, ContainerId, ErrorKind, Names, PodUid};
use serde_json::{Value, json};
use support::until;

const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const HASH: &str = "c6b5d5f3e1a94c2e8b1f0d7a6e5c4b3a";

/// A kubeconfig of its own for each test.
struct Connection {
    cluster: Cluster,
    file: PathBuf,
}

impl Connection {
    fn to(server: &ApiServer, test: &str) -> Self {
        let file = std::env::temp_dir().join(format!("gthulhu-kubeconfig-{}-{test}", std::process::id()));
        std::fs::write(&file, server.kubeconfig()).unwrap();
        let mut options = ClusterOptions::new("worker-1");
        options.kubeconfig = Some(file.clone());
        Self { cluster: Cluster::connect(options).unwrap(), file }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn pod(uid: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"uid": uid, "name": name, "namespace": "shop", "labels": {"app": "cart"}},
        "spec": {"nodeName": "worker-1", "containers": []},
        "status": {"containerStatuses": [{
            "name": "app", "containerID": format!("containerd://{ID}"), "image": "i", "imageID": "",
            "ready": true, "restartCount": 0,
        }]},
    })
}

fn metrics(uid: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "gthulhu.io/v1alpha1",
        "kind": "PodSchedulingMetrics",
        "metadata": {"uid": uid, "name": name, "namespace": "lab"},
        "spec": spec,
    })
}

fn names_of(cluster: &Cluster) -> Vec<String> {
    let mut names: Vec<String> = cluster.names().pods().iter().map(|pod| pod.to_string()).collect();
    names.sort();
    names
}

#[test]
fn pods_are_named_as_they_come_and_go() {
    let server = ApiServer::start();
    server.put(Kind::Pods, pod("a-1", "cart-1"));
    let connection = Connection::to(&server, "names");
    let mut names = connection.cluster.names();
    until("the first list is there", || connection.cluster.pods_state().complete);
    assert!(names.refresh().unwrap() && !names.refresh().unwrap());
    let cart = names.pod(&PodUid::new("a-1").unwrap()).unwrap();
    assert_eq!((cart.to_string().as_str(), cart.node.as_deref()), ("shop/cart-1", Some("worker-1")));
    assert_eq!(cart.labels["app"], "cart");
    assert_eq!(cart.container(&ContainerId::new(ID).unwrap()), Some("app"));

    let generation = names.generation();
    server.put(Kind::Pods, pod("b-2", "cart-2"));
    until("the second pod is named", || names_of(&connection.cluster) == ["shop/cart-1", "shop/cart-2"]);
    assert_ne!(names.generation(), generation);
    server.delete(Kind::Pods, "a-1");
    until("the first pod is gone", || names_of(&connection.cluster) == ["shop/cart-2"]);
    let asked = server.asked();
    let pods = |target: &&String| target.starts_with("/api/v1/pods");
    assert!(
        asked.iter().filter(pods).all(|target| target.contains("fieldSelector=spec.nodeName%3Dworker-1")),
        "{asked:?}"
    );
}

/// What is deleted while nobody watches must not stay (the original's M8).
#[test]
fn after_a_gap_everything_is_listed_anew() {
    let server = ApiServer::start();
    server.put(Kind::Pods, pod("a-1", "cart-1"));
    let wish = json!({"labelSelectors": [{"key": "app", "value": "cart"}], "commandRegex": "^java$"});
    server.put(Kind::Metrics, metrics("m-1", "first", wish.clone()));
    let connection = Connection::to(&server, "gap");
    let names_of_selections = || -> Vec<String> {
        connection.cluster.selections().usable.iter().map(|selection| selection.name.clone()).collect()
    };
    until("both lists are there", || {
        connection.cluster.pods_state().complete && connection.cluster.selections().state.complete
    });
    assert_eq!(names_of_selections(), ["first"]);
    server.gap(Kind::Pods, Some(pod("c-3", "cart-3")), "a-1");
    server.gap(Kind::Metrics, Some(metrics("m-2", "second", wish)), "m-1");
    until("the pods are those of the new list", || names_of(&connection.cluster) == ["shop/cart-3"]);
    until("the selections are those of the new list", || names_of_selections() == ["second"]);
    assert_eq!(connection.cluster.pods_state().error, None);
}

/// cgroups call it by the hash, the API by the UID of its mirror.
#[test]
fn a_pod_from_a_file_is_found_by_both_of_its_uids() {
    let server = ApiServer::start();
    let mut object = pod("d-4", "etcd-worker-1");
    object["metadata"]["annotations"] =
        json!({"kubernetes.io/config.mirror": HASH, "kubernetes.io/config.hash": HASH});
    server.put(Kind::Pods, object);
    let connection = Connection::to(&server, "mirror");
    until("the list is there", || connection.cluster.pods_state().complete);
    let names = connection.cluster.names();
    let by_cgroup = names.pod(&PodUid::new(HASH).unwrap()).unwrap();
    assert_eq!((by_cgroup.uid.as_str(), by_cgroup.name.as_str()), (HASH, "etcd-worker-1"));
    assert_eq!(names.pod(&PodUid::new("d-4").unwrap()), Some(by_cgroup));
}

#[test]
fn a_selection_that_cannot_be_used_is_told_and_hinders_no_other() {
    let server = ApiServer::start();
    let wish = json!({"labelSelectors": [{"key": "app", "value": "cart"}], "metrics": {"waitTimeNs": true}});
    server.put(Kind::Metrics, metrics("m-1", "good", wish));
    let wrong = json!({"labelSelectors": [{"key": "app", "value": "cart"}], "commandRegex": "a("});
    server.put(Kind::Metrics, metrics("m-2", "bad", wrong));
    let connection = Connection::to(&server, "refused");
    until("the list is there", || connection.cluster.selections().state.complete);
    let selections = connection.cluster.selections();
    assert_eq!(selections.usable.len(), 1);
    assert!(selections.usable[0].metrics.wait_time_ns);
    let wanted = "PodSchedulingMetrics lab/bad: spec.commandRegex: command pattern `a(`: unclosed group, at character 2";
    assert_eq!(selections.refused, [wanted]);
}

#[test]
fn what_cannot_be_reached_is_told_and_tried_again() {
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = std::env::temp_dir().join(format!("gthulhu-kubeconfig-{}-nobody", std::process::id()));
    let text = format!(
        "clusters: [{{name: t, cluster: {{server: \"https://{free}\"}}}}]\ncontexts: [{{name: c, context: \
         {{cluster: t, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\ncurrent-context: c\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut options = ClusterOptions::new("worker-1");
    options.kubeconfig = Some(file.clone());
    let cluster = Cluster::connect(options.clone()).unwrap();
    until("it is told", || cluster.pods_state().error.is_some());
    let state = cluster.pods_state();
    assert!(!state.complete && state.error.unwrap().contains("onnect"));
    // Ends at once, though it waits for its next attempt.
    let begun = std::time::Instant::now();
    drop(cluster);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));

    std::fs::write(&file, "clusters: 7").unwrap();
    let error = Cluster::connect(options.clone()).unwrap_err();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(error.kind(), ErrorKind::Kubernetes);
    assert!(
        error.to_string().starts_with(&format!("{} is no usable kubeconfig: ", file.display())),
        "{error}"
    );
    options.node = "worker-1,metadata.name=x".into();
    assert!(Cluster::connect(options).unwrap_err().to_string().contains("is no name of a node"));
}
