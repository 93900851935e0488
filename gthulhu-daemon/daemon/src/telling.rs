//! What the monitor tells in the event stream: pods that come and go, threads that wait for long, throttling.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use gthulhu_discovery::{Event, PodUid, Workload};
use gthulhu_monitor::{Group, Monitor, Which};
use serde_json::{Value, json};

use crate::events::Hub;
use crate::names::Book;

/// How often is looked while somebody reads.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Threads told of at a time, those that waited longest: a machine that is overrun must not fill the stream with them.
const THREADS: usize = 20;

/// What was seen last, to tell the difference.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    looked: Option<Instant>,
    /// Wait so far, by thread and when it began: numbers are used again.
    waited: HashMap<(i32, u64), u64>,
    throttled: BTreeMap<u64, u64>,
    /// Where groups are that have been seen.
    paths: HashMap<u64, String>,
}

impl Teller {
    /// Tells of pods that came and went.
    pub(crate) fn pods(&self, hub: &Hub, book: &Book, events: &[Event]) {
        for event in events {
            let (kind, uid) = match event {
                Event::PodAdded(uid) => ("pod_added", uid),
                Event::PodRemoved(uid) => ("pod_removed", uid),
                _ => continue,
            };
            hub.tell(kind, || pod(book, uid));
        }
    }

    /// Notes where groups are, and tells which were throttled since the last time.
    pub(crate) fn groups(&mut self, hub: &Hub, book: &Book, groups: &[Group]) {
        let now: BTreeMap<u64, u64> =
            groups.iter().map(|group| (group.id, group.counts.throttled_ns)).collect();
        for group in groups {
            let before = self.throttled.get(&group.id).copied();
            let grown = before.map_or(0, |before| group.counts.throttled_ns.saturating_sub(before));
            if grown > 0 {
                hub.tell("throttled", || {
                    let mut told = workload(book, group.path.as_deref());
                    told["throttled_ms"] = milliseconds(grown);
                    told
                });
            }
        }
        self.throttled = now;
        self.paths = groups.iter().filter_map(|group| Some((group.id, group.path.clone()?))).collect();
    }

    /// Tells which threads waited for `at_least` in a second, since the last time.
    ///
    /// # Errors
    /// When the kernel does not let us look.
    pub(crate) fn threads(
        &mut self,
        hub: &Hub,
        book: &Book,
        monitor: &mut Monitor,
        at_least: Duration,
    ) -> gthulhu_monitor::Result<()> {
        let now = Instant::now();
        let threads = monitor.threads(Which::All)?;
        let since = self.looked.replace(now).map(|before| now - before);
        let mut long = Vec::new();
        let mut waited = HashMap::with_capacity(threads.len());
        for thread in &threads {
            let key = (thread.tid, thread.start_ns);
            waited.insert(key, thread.wait_ns);
            let grown = self.waited.get(&key).map_or(0, |before| thread.wait_ns.saturating_sub(*before));
            if let Some(since) = since.filter(|_| grown > 0)
                && Duration::from_nanos(grown).as_secs_f64() >= at_least.as_secs_f64() * since.as_secs_f64()
            {
                long.push((grown, thread, since));
            }
        }
        self.waited = waited;
        long.sort_by_key(|(grown, ..)| std::cmp::Reverse(*grown));
        let more = long.len().saturating_sub(THREADS);
        for (grown, thread, since) in long.into_iter().take(THREADS) {
            hub.tell("run_delay", || {
                let mut told = workload(book, self.paths.get(&thread.group).map(String::as_str));
                told["pid"] = thread.pid.into();
                told["tid"] = thread.tid.into();
                told["comm"] = thread.comm.as_str().into();
                told["waited_ms"] = milliseconds(grown);
                told["in_ms"] = (since.as_millis() as u64).into();
                told
            });
        }
        if more > 0 {
            hub.tell("run_delay_more", || json!({ "threads": more }));
        }
        Ok(())
    }

    /// Nobody reads: what comes next is told from then on.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// To the microsecond.
fn milliseconds(ns: u64) -> Value {
    json!((ns / 1000) as f64 / 1000.0)
}

fn pod(book: &Book, uid: &PodUid) -> Value {
    let info = book.pod(uid);
    let (namespace, name) = info.as_ref().map_or(("", ""), |info| (&info.namespace, &info.name));
    json!({ "pod_uid": uid.as_str(), "namespace": namespace, "pod": name })
}

/// Whose a group is.
fn workload(book: &Book, path: Option<&str>) -> Value {
    let Some(path) = path else { return json!({ "cgroup": null }) };
    match Workload::of_cgroup(path) {
        Workload::Pod { uid, container, .. } => {
            let mut told = pod(book, &uid);
            if let Some(container) = container {
                let info = book.pod(&uid);
                let name = info.as_ref().and_then(|info| info.container(&container.id));
                told["container"] = name.unwrap_or(container.id.short()).into();
            }
            told
        }
        _ => json!({ "cgroup": path }),
    }
}
