//! What no single key can know: keys that need or exclude each other.

use std::path::PathBuf;

use crate::layer::Layers;
use crate::{Config, Mode, Notice, Problem};

/// What is wrong with the whole, and what whoever set it up should know.
pub(crate) fn check(config: &Config, layers: &Layers) -> (Vec<Problem>, Vec<Notice>) {
    let mut found = Found { layers, problems: Vec::new(), notices: Vec::new() };
    found.scheduler(config);
    found.api(config);
    found.control(config);
    found.monitor(config);
    (found.problems, found.notices)
}

struct Found<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl Found<'_> {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.layers.problem(path, message));
    }

    fn note(&mut self, path: &str, message: impl Into<String>) {
        self.notices.push(self.layers.problem(path, message));
    }

    fn scheduler(&mut self, config: &Config) {
        let s = &config.scheduler;
        if s.mode == Mode::Scx && s.scheduler_name.is_none() {
            self.wrong(
                "scheduler.mode",
                format!("scx needs a scheduler.scheduler_name; allowed: {}", crate::scx::NAMES_TEXT),
            );
        }
        for pair in &s.scx_args {
            let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
            if let Err(why) = crate::scx::known(name) {
                self.wrong("scheduler.scx_args", format!("{why}; allowed: {}", crate::scx::NAMES_TEXT));
            }
        }
        if s.heartbeat_ms * 2 > s.stall_timeout_ms {
            let most = s.stall_timeout_ms / 2;
            self.wrong(
                "scheduler.heartbeat_ms",
                format!(
                    "{} is out of range; allowed: 10 to {most} ms, half of scheduler.stall_timeout_ms",
                    s.heartbeat_ms
                ),
            );
        }
        if s.slice_ns_min > s.slice_ns_default {
            self.note(
                "scheduler.slice_ns_min",
                "is longer than scheduler.slice_ns_default, and counts as that",
            );
        }
        if s.kernel_mode && !matches!(config.effective_mode(), Mode::Plugin(_)) {
            self.note("scheduler.kernel_mode", format!("has no effect in mode {}", config.effective_mode()));
        }
        if !s.max_time_watchdog && self.layers.said(key("scheduler.max_run_ms")).next().is_some() {
            self.note("scheduler.max_run_ms", "has no effect: scheduler.max_time_watchdog is off");
        }
    }

    fn api(&mut self, config: &Config) {
        let api = &config.api;
        for (inline, in_file, path) in [
            (api.mtls.cert_pem.is_some(), &api.mtls.cert_file, "api.mtls.cert_file"),
            (api.mtls.key_pem.is_set(), &api.mtls.key_file, "api.mtls.key_file"),
            (api.mtls.ca_pem.is_some(), &api.mtls.ca_file, "api.mtls.ca_file"),
        ] {
            let as_pem = path.replace("_file", "_pem");
            if inline && in_file.is_some() {
                self.wrong(path, format!("is given, and {as_pem} too; keep one"));
            } else if api.mtls.enable && !inline && in_file.is_none() {
                self.wrong("api.mtls.enable", format!("TLS needs {path} or {as_pem}"));
            }
        }
        if !api.enabled {
            return;
        }
        let Some(url) = &api.url else {
            self.wrong("api.enabled", "needs api.url, such as http://127.0.0.1:8080");
            return;
        };
        if api.mtls.enable && !url.starts_with("https://") {
            self.wrong("api.url", format!("{url} is not https://, and api.mtls.enable is on; change one"));
        }
        if api.auth_enabled && api.token_file.is_none() && api.public_key_path.is_none() {
            self.wrong("api.auth_enabled", "needs api.token_file or api.public_key_path");
        }
        if api.auth_enabled && !url.starts_with("https://") && !is_local(url) {
            self.note("api.url", format!("the token goes to {url} unencrypted"));
        }
        if u64::from(api.strategy_ttl_sec) < 2 * api.interval {
            self.note(
                "api.strategy_ttl_sec",
                "is shorter than two of api.interval: one lost answer and strategies fade",
            );
        }
    }

    fn control(&mut self, config: &Config) {
        let d = &config.daemon;
        let tls: [(&Option<PathBuf>, &str); 2] =
            [(&d.tls_cert_file, "daemon.tls_cert_file"), (&d.tls_key_file, "daemon.tls_key_file")];
        for ((one, path), (other, other_path)) in [(tls[0], tls[1]), (tls[1], tls[0])] {
            if one.is_some() && other.is_none() {
                self.wrong(path, format!("needs {other_path}"));
            }
        }
        if d.client_ca_file.is_some() && d.tls_cert_file.is_none() {
            self.wrong("daemon.client_ca_file", "needs daemon.tls_cert_file and daemon.tls_key_file");
        }
        let proof = d.token_file.is_some() || d.client_ca_file.is_some();
        if d.control_addr.is_some_and(|addr| addr.ip().is_loopback()) && !proof && !d.require_token {
            self.note("daemon.require_token", "is off: every user of this machine can change the scheduler");
        }
        let Some(addr) = d.control_addr.filter(|addr| !addr.ip().is_loopback()) else { return };
        if d.token_file.is_none() && d.client_ca_file.is_none() {
            self.wrong(
                "daemon.control_addr",
                format!("{addr} can be reached from outside: it needs daemon.token_file or daemon.client_ca_file; or take 127.0.0.1"),
            );
        } else if d.tls_cert_file.is_none() {
            self.note(
                "daemon.control_addr",
                format!("the token goes to {addr} unencrypted; see daemon.tls_cert_file"),
            );
        }
    }

    fn monitor(&mut self, config: &Config) {
        let m = &config.monitor;
        if m.enabled && !m.prometheus_address.is_loopback() {
            self.note(
                "monitor.prometheus_address",
                "the metrics can be read by whoever reaches that address",
            );
        }
        if m.enabled && m.enable_crd_watcher && m.node_name.is_none() {
            self.note(
                "monitor.node_name",
                "is not set (NODE_NAME): pods are looked for under the host's name",
            );
        }
        let control = config.daemon.control_addr;
        if m.enabled
            && control.is_some_and(|c| c.port() == m.prometheus_port && c.ip() == m.prometheus_address)
        {
            self.wrong(
                "monitor.prometheus_port",
                format!("{} is the port of daemon.control_addr too", m.prometheus_port),
            );
        }
    }
}

fn is_local(url: &str) -> bool {
    ["http://127.", "http://localhost", "http://[::1]"].iter().any(|local| url.starts_with(local))
}

fn key(path: &str) -> usize {
    crate::layer::find(path).unwrap_or(usize::MAX)
}
