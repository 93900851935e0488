//! As much of the Kubernetes API as a watch needs: list and watch of two resources, over plain HTTP on
//! loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the server has, and who watches.
#[derive(Default)]
struct State {
    version: u64,
    pods: Vec<Value>,
    metrics: Vec<Value>,
    /// Requests, as they came.
    asked: Vec<String>,
    watchers: Vec<(Kind, Sender<Option<Value>>)>,
    /// What was told, with the version that it made: who begins to watch is told what is newer than his list.
    log: Vec<(u64, Kind, Value)>,
    /// Whoever has an older list has missed something.
    oldest: [u64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pods,
    Metrics,
}

impl Kind {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/pods" => Some(Self::Pods),
            "/apis/gthulhu.io/v1alpha1/podschedulingmetrics" => Some(Self::Metrics),
            _ => None,
        }
    }

    fn list(self, state: &mut State) -> &mut Vec<Value> {
        match self {
            Self::Pods => &mut state.pods,
            Self::Metrics => &mut state.metrics,
        }
    }
}

/// A server that lives as long as the test's process.
pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { version: 100, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that goes away ends its thread with an error.
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: t, user: u}}}}]\n\
             current-context: c\n",
            self.address
        )
    }

    /// Adds or changes an object, and tells those who watch.
    pub(crate) fn put(&self, kind: Kind, object: Value) {
        let mut state = self.state.lock().unwrap();
        let (object, known) = state.put(kind, object);
        state.tell(kind, json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object}));
    }

    /// Removes an object by its UID, and tells those who watch.
    pub(crate) fn delete(&self, kind: Kind, uid: &str) {
        let mut state = self.state.lock().unwrap();
        let mut object = state.remove(kind, uid);
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell(kind, json!({"type": "DELETED", "object": object}));
    }

    /// A gap: `change` happens while nobody is told, and then every watch ends because its version is too old.
    pub(crate) fn gap(&self, kind: Kind, put: Option<Value>, delete: &str) {
        let mut state = self.state.lock().unwrap();
        state.remove(kind, delete);
        if let Some(object) = put {
            state.put(kind, object);
        }
        state.oldest[kind as usize] = state.version;
        state.watchers.retain(|(of, watcher)| {
            if *of == kind {
                let _ = watcher.send(Some(gone()));
                let _ = watcher.send(None);
            }
            *of != kind
        });
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl State {
    fn put(&mut self, kind: Kind, mut object: Value) -> (Value, bool) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let list = kind.list(self);
        let before = list.len();
        list.retain(|known| known["metadata"]["uid"] != object["metadata"]["uid"]);
        let known = list.len() < before;
        list.push(object.clone());
        (object, known)
    }

    fn remove(&mut self, kind: Kind, uid: &str) -> Value {
        self.version += 1;
        let list = kind.list(self);
        let at = list.iter().position(|known| known["metadata"]["uid"] == uid).unwrap();
        list.remove(at)
    }

    fn tell(&mut self, kind: Kind, event: Value) {
        self.log.push((self.version, kind, event.clone()));
        self.watchers.retain(|(of, watcher)| *of != kind || watcher.send(Some(event.clone())).is_ok());
    }
}

/// What a server says to who wants to go on from where it does not remember.
fn gone() -> Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    json!({"type": "ERROR", "object": status})
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
        let mut header = String::new();
        while header != "\r\n" {
            header.clear();
            reader.read_line(&mut header).ok()?;
        }
        let target = request.split(' ').nth(1)?.to_string();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut locked = state.lock().unwrap();
        locked.asked.push(target.clone());
        let Some(kind) = Kind::of(path) else {
            drop(locked);
            answer(
                &mut stream,
                "404 Not Found",
                &json!({"kind": "Status", "code": 404, "status": "Failure"}),
            )?;
            continue;
        };
        if query.split('&').any(|parameter| matches!(parameter, "watch=true" | "watch=1")) {
            let from = query.split('&').find_map(|parameter| parameter.strip_prefix("resourceVersion="));
            let from: u64 = from.and_then(|version| version.parse().ok()).unwrap_or_default();
            let (sender, events) = channel();
            if from < locked.oldest[kind as usize] {
                let _ = sender.send(Some(gone()));
                let _ = sender.send(None);
            }
            for (_, _, event) in locked.log.iter().filter(|(version, of, _)| *version > from && *of == kind) {
                let _ = sender.send(Some(event.clone()));
            }
            locked.watchers.push((kind, sender));
            drop(locked);
            return watch(&mut stream, &events);
        }
        let version = locked.version.to_string();
        let list = json!({
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": version},
            "items": kind.list(&mut locked).clone(),
        });
        drop(locked);
        answer(&mut stream, "200 OK", &list)?;
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &Value) -> Option<()> {
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()
}

/// One line of JSON for each event, each in a chunk of its own.
fn watch(stream: &mut TcpStream, events: &Receiver<Option<Value>>) -> Option<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .ok()?;
    while let Ok(Some(event)) = events.recv() {
        let line = format!("{event}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len()).ok()?;
    }
    write!(stream, "0\r\n\r\n").ok()
}
