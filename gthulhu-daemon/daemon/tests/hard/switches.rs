//! Every switch on and off, over HTTP and over the socket, and still so after a restart. In the original several could be
//! turned on only.

use std::process::Command;

use gthulhu_config::{Kind, keys};
use serde_json::{Map, Value, json};

use super::{Daemon, PROGRAM};

/// The way in.
#[derive(Clone, Copy, Debug)]
enum Way {
    Http,
    Socket,
}

fn set(daemon: &Daemon, way: Way, fields: &Map<String, Value>) {
    match way {
        Way::Http => {
            let mut body = fields.clone();
            body.insert("configVersion".into(), "http".into());
            let done = daemon.control.post("/api/v1/runtime-config", &Value::Object(body).to_string());
            assert_eq!(done.code, 200, "{fields:?}: {}", done.body);
        }
        Way::Socket => {
            let text = |value: &Value| match value {
                Value::Bool(true) => "on".to_owned(),
                Value::Bool(false) => "off".to_owned(),
                value => value.to_string(),
            };
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", text(value)));
            let mut command = Command::new(PROGRAM);
            let said = command.args(["config", "set", "--socket"]).arg(daemon.socket()).args(pairs).output();
            let said = said.expect("run");
            assert!(said.status.success(), "{fields:?}: {}", String::from_utf8_lossy(&said.stderr));
        }
    }
}

/// What holds, as both say it.
#[track_caller]
fn holds(daemon: &Daemon, fields: &Map<String, Value>) {
    let http = daemon.control.get("/api/v1/runtime-config", "").json();
    let mut command = Command::new(PROGRAM);
    let socket =
        command.args(["config", "get", "--json", "--socket"]).arg(daemon.socket()).output().expect("run");
    let socket: Value = serde_json::from_slice(&socket.stdout).expect("JSON");
    assert_eq!(http, socket);
    for (name, value) in fields {
        assert_eq!(http[name], *value, "{name}: {http}");
    }
}

fn switches() -> Vec<(&'static str, bool)> {
    let switches = keys().iter().filter(|key| matches!(key.kind, Kind::Switch));
    switches.filter_map(|key| Some((key.runtime?, key.default().to_string() == "true"))).collect()
}

fn all(value: impl Fn(bool) -> bool) -> Map<String, Value> {
    switches().into_iter().map(|(name, default)| (name.to_owned(), value(default).into())).collect()
}

#[test]
fn each_switch_goes_on_and_off_by_either_way_and_stays_so_after_a_restart() {
    let Some(mut daemon) = Daemon::new("switches", "") else { return };
    let table = switches();
    // The original's six, and ours.
    assert!(table.len() >= 14, "{table:?}");
    for (name, default) in &table {
        for (way, other) in [(Way::Http, Way::Socket), (Way::Socket, Way::Http)] {
            for (value, way) in [(!default, way), (*default, other)] {
                let one: Map<_, _> = [((*name).to_owned(), Value::Bool(value))].into_iter().collect();
                set(&daemon, way, &one);
                holds(&daemon, &one);
            }
        }
    }
    for (way, value) in [(Way::Http, true), (Way::Socket, false), (Way::Socket, true), (Way::Http, false)] {
        let fields = all(|default| default ^ value);
        set(&daemon, way, &fields);
        holds(&daemon, &fields);
        daemon.restart();
        holds(&daemon, &fields);
    }
}

#[test]
fn zero_is_a_value_and_stays_one_after_a_restart() {
    let Some(mut daemon) = Daemon::new("zero", "") else { return };
    let may_be_zero = |kind: Kind| matches!(kind, Kind::Number { min: 0, .. });
    let zeros = keys().iter().filter(|key| may_be_zero(key.kind)).filter_map(|key| key.runtime);
    let zeros: Map<String, Value> = zeros.map(|name| (name.to_owned(), json!(0))).collect();
    assert!(zeros.contains_key("permit") && zeros.contains_key("maxRunMs"), "{zeros:?}");
    set(&daemon, Way::Http, &zeros);
    holds(&daemon, &zeros);
    daemon.restart();
    holds(&daemon, &zeros);
    // A slice of zero is none, and does not mean "keep".
    let refused =
        daemon.control.post("/api/v1/runtime-config", r#"{"configVersion": "1", "sliceNsDefault": 0}"#);
    assert_eq!((refused.code, &refused.json()["problems"][0]["field"]), (400, &json!("sliceNsDefault")));
}
