//! Names of pods from a file and from a Kubernetes API, and what a PodSchedulingMetrics selects.

use std::fs;

use serde_json::{Value, json};

use super::api_server::{ApiServer, Kind};
use super::pods::HandMade;
use super::{Daemon, wait_for};

const LOOP: &str = "while :; do sleep 0.01; done";

fn object(pod: &HandMade, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "uid": pod.uid, "name": name, "namespace": "shop", "labels": { "app": app } },
        "spec": { "nodeName": "worker-1", "containers": [] },
        "status": { "containerStatuses": [{
            "name": "app", "containerID": format!("containerd://{}", pod.container), "image": "i", "imageID": "",
            "ready": true, "restartCount": 0,
        }] },
    })
}

fn wish(uid: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "gthulhu.io/v1alpha1", "kind": "PodSchedulingMetrics",
        "metadata": { "uid": uid, "name": uid, "namespace": "lab" }, "spec": spec,
    })
}

/// Lines of the metrics with all of these in them.
fn lines(daemon: &Daemon, parts: &[&str]) -> Vec<String> {
    let text = daemon.metrics.get("/metrics", "").body;
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

#[test]
fn a_file_names_pods_and_is_read_again() {
    let Some(pod) = HandMade::new(LOOP) else { return };
    let path = format!("/var/lib/gthulhu-names-{}.yaml", std::process::id());
    let Some(daemon) = Daemon::new("file", &format!("monitor:\n  names_file: {path}\n")) else { return };
    wait_for("the complaint", || daemon.log().contains("monitor.names_file").then_some(()));
    // What cannot be read at first is found later, also after a change of something else.
    let write = |name: &str| {
        let text = format!(
            "pods:\n- {{uid: {}, namespace: shop, name: {name}, containers: [{{name: app, id: 'containerd://{}'}}]}}\n",
            pod.uid, pod.container
        );
        let new = format!("{path}.new");
        fs::write(&new, text).and_then(|()| fs::rename(new, &path)).expect("written");
    };
    write("cart-1");
    let poke = r#"{"configVersion": "1", "collectionIntervalSec": 1}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", poke).code, 200);
    let named = |name: &str| {
        lines(&daemon, &["gthulhu_group_cpu_seconds_total{", &format!("pod=\"{name}\",container=\"app\"")])
    };
    wait_for("the name", || (!named("cart-1").is_empty()).then_some(()));
    write("cart-2");
    wait_for("the other name", || (!named("cart-2").is_empty()).then_some(()));
    fs::remove_file(path).expect("removed");
}

#[test]
fn only_what_is_selected_is_shown_and_of_it_what_was_asked_for() {
    let (Some(cart), Some(web)) = (HandMade::new(LOOP), HandMade::new(LOOP)) else { return };
    let server = ApiServer::start();
    server.put(Kind::Pods, object(&cart, "cart-1", "cart"));
    server.put(Kind::Pods, object(&web, "web-1", "web"));
    let kubeconfig = format!("/var/lib/gthulhu-kubeconfig-{}", std::process::id());
    fs::write(&kubeconfig, server.kubeconfig()).expect("written");
    let yaml = format!(
        "monitor:\n  kubeconfig_path: {kubeconfig}\n  node_name: worker-1\n  collection_interval_sec: 1\n"
    );
    let Some(daemon) = Daemon::new("api", &yaml) else { return };
    let has = |metric: &str, pod: &str| {
        !lines(&daemon, &[&format!("{metric}{{"), &format!("\"{pod}\"")]).is_empty()
    };
    // Without a wish: all, by their names, of this node.
    wait_for("both names", || {
        (has("gthulhu_pod_wait_time_nanoseconds_total", "cart-1")
            && has("gthulhu_pod_wait_time_nanoseconds_total", "web-1"))
        .then_some(())
    });
    assert!(
        server.asked().iter().any(|target| target.contains("spec.nodeName%3Dworker-1")),
        "{:?}",
        server.asked()
    );

    let label = json!([{ "key": "app", "value": "cart" }]);
    server.put(Kind::Metrics, wish("w", &json!({
        "labelSelectors": label, "k8sNamespaces": ["shop"], "commandRegex": "^sh$", "collectionIntervalSeconds": 1,
        "metrics": { "voluntaryCtxSwitches": false, "runCount": true },
    })));
    let on = r#"{"configVersion": "1", "enableCrdWatcher": true}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", on).code, 200);
    // What was shown before stays for a while, and no longer grows: a daemon that begins so shows none of it.
    wait_for("the wish", || {
        let status = daemon.control.get("/api/v1/status", "").json();
        (status["monitor"]["names"]["kubernetes"]["selections"]["usable"] == json!(["lab/w"])).then_some(())
    });
    let mut daemon = daemon;
    daemon.restart();
    let has = |metric: &str, pod: &str| {
        !lines(&daemon, &[&format!("{metric}{{"), &format!("\"{pod}\"")]).is_empty()
    };
    wait_for("the selected pod", || has("gthulhu_pod_cpu_time_nanoseconds_total", "cart-1").then_some(()));
    for (metric, shown) in [
        ("gthulhu_pod_run_count_total", true),
        ("gthulhu_pod_involuntary_ctx_switches_total", true),
        ("gthulhu_group_cpu_seconds_total", true),
        ("gthulhu_pod_voluntary_ctx_switches_total", false),
        ("gthulhu_pod_wait_time_nanoseconds_total", false),
        ("gthulhu_group_run_delay_seconds_bucket", false),
        ("gthulhu_pod_cpu_migrations_total", false),
    ] {
        assert_eq!(has(metric, "cart-1"), shown, "{metric}");
        assert!(!has(metric, "web-1"), "{metric}");
    }
    // Another command: nobody runs it. And a wish that cannot be is told.
    server.put(Kind::Metrics, wish("w", &json!({ "labelSelectors": label, "commandRegex": "^java$" })));
    server.put(Kind::Metrics, wish("x", &json!({ "labelSelectors": [] })));
    wait_for("the refusal", || {
        let status = daemon.control.get("/api/v1/status", "").json();
        let refused = &status["monitor"]["names"]["kubernetes"]["selections"]["refused"];
        refused[0].as_str().filter(|why| why.contains("lab/x: spec.labelSelectors")).map(drop)
    });
    daemon.restart();
    wait_for("the names", || {
        let status = daemon.control.get("/api/v1/status", "").json();
        (status["monitor"]["names"]["kubernetes"]["selections"]["complete"] == true).then_some(())
    });
    let grown = || daemon.metric("gthulhu_monitor_events_total{");
    let before = grown();
    wait_for("another look", || (grown() > before).then_some(()));
    assert!(!has_now(&daemon, "cart-1"));
    let all = r#"{"configVersion": "2", "monitorAll": true}"#;
    assert_eq!(daemon.control.post("/api/v1/runtime-config", all).code, 200);
    wait_for("all", || (has_now(&daemon, "cart-1") && has_now(&daemon, "web-1")).then_some(()));
    fs::remove_file(kubeconfig).expect("removed");
}

fn has_now(daemon: &Daemon, pod: &str) -> bool {
    !lines(daemon, &["gthulhu_pod_wait_time_nanoseconds_total{", &format!("\"{pod}\"")]).is_empty()
}
