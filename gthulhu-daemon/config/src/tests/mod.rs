//! Tests of the whole: files, environment, flags and state as a daemon meets them.

mod bad;
mod flips;
mod precedence;
mod property;
mod runtime;
mod scx;
mod secrets;
mod shown;

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Configuration, Key, Kind, Loader, keys};

/// A folder of a test's own, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gthulhu-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).expect("a folder");
        Self(path)
    }

    /// Writes a file that its owner alone may read.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        chmod(&path, 0o600);
        path
    }

    fn state(&self) -> PathBuf {
        self.0.join("runtime.json")
    }

    /// A loader that keeps its state here.
    fn loader(&self) -> Loader {
        Loader::new().keep_anywhere(self.state()).without_scx()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("readable");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Not through `eprintln!`, whose output is kept back for tests that pass.
fn skip(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skip: {why}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn key(path: &str) -> &'static Key {
    keys().iter().find(|key| key.path == path).expect("a key")
}

/// The `n`th of four texts that are allowed at a key; neighbours differ, and the first differs from the default.
fn sample(key: &Key, n: u64) -> String {
    match (&key.kind, key.path) {
        (Kind::Switch, _) => ((key.default().to_string() == "true") ^ n.is_multiple_of(2)).to_string(),
        (Kind::Number { max, .. }, _) => {
            let default: u64 = key.default().to_string().parse().expect("a number");
            let up = default + 1000 * (n + 1);
            if up <= *max { up.to_string() } else { (default + n + 1).to_string() }
        }
        (Kind::Mode, _) => ["simple", "simple-fifo", "none", "gthulhu"][n as usize].into(),
        (Kind::Pairs, "scheduler.scx_args") => format!("{}=-{n} -v", crate::SCX_NAMES[n as usize]),
        (Kind::Pairs, _) => format!("n={n}"),
        (Kind::Secret, _) => format!("-----BEGIN PRIVATE KEY-----{n}"),
        (_, "scheduler.scheduler_name") => crate::SCX_NAMES[n as usize].into(),
        (_, "scheduler.agent_cpus") => format!("0-{n}"),
        (_, "scheduler.dedicated_cpu") => n.to_string(),
        (_, "scheduler.transport") => ["rings", "shared"][n as usize % 2].into(),
        (_, "monitor.prometheus_address") => format!("127.0.0.{}", n + 2),
        (_, "daemon.control_addr") => format!("127.0.0.1:{}", 4000 + n),
        (_, "api.url") => format!("https://host{n}:80/"),
        (_, "api.mtls.cert_pem" | "api.mtls.ca_pem") => format!("-----BEGIN CERTIFICATE-----{n}"),
        (_, "monitor.node_name") => format!("node-{n}"),
        (Kind::Text { .. }, _) => format!("/some/where/{n}"),
    }
}

/// Keys that another one needs, as pairs for `--set`.
fn needed(path: &str) -> &'static [&'static str] {
    match path {
        "scheduler.heartbeat_ms" => &["scheduler.stall_timeout_ms=30000"],
        "api.enabled" => &["api.url=http://127.0.0.1:8080"],
        "api.mtls.enable" => &["api.mtls.cert_file=/c", "api.mtls.key_file=/k", "api.mtls.ca_file=/a"],
        "daemon.tls_cert_file" => &["daemon.tls_key_file=/k"],
        "daemon.tls_key_file" => &["daemon.tls_cert_file=/c"],
        "daemon.client_ca_file" => &["daemon.tls_cert_file=/c", "daemon.tls_key_file=/k"],
        _ => &[],
    }
}

/// A file in which this key has this value.
fn yaml(key: &Key, value: &str) -> String {
    let parts: Vec<&str> = key.path.split('.').collect();
    let mut text = String::new();
    for (depth, part) in parts.iter().enumerate() {
        text += &format!("{}{part}:", "  ".repeat(depth));
        text += if depth + 1 < parts.len() { "\n" } else { " " };
    }
    let quote = matches!(key.kind, Kind::Text { .. } | Kind::Secret);
    text + &match key.kind {
        Kind::Pairs => format!("[\"{value}\"]\n"),
        _ if quote => format!("\"{value}\"\n"),
        _ => format!("{value}\n"),
    }
}

/// The same as a field of the runtime configuration.
fn json(key: &Key, value: &str) -> String {
    let field = key.runtime.expect("a field");
    let value = match key.kind {
        Kind::Switch | Kind::Number { .. } => value.to_owned(),
        Kind::Pairs => format!("[\"{value}\"]"),
        _ => format!("\"{value}\""),
    };
    format!("{{\"configVersion\": \"1\", \"{field}\": {value}}}")
}

fn shown(loaded: &Configuration, key: &Key) -> (String, &'static str) {
    let explained = loaded.explain().into_iter().find(|e| e.key.path == key.path).expect("explained");
    assert_eq!(
        explained.value,
        key.get(loaded.config()),
        "{}: what is explained is not what holds",
        key.path
    );
    (explained.value.to_string(), explained.source.name())
}
