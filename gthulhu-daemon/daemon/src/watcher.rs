//! The monitor, in a thread of its own: nobody waits for it but those who ask for metrics.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use gthulhu_config::Config;
use gthulhu_discovery::{Discovery, Options as Look, Workload};
use gthulhu_model::CgroupId;
use gthulhu_monitor::Group;
use gthulhu_monitor::metrics::{Format, Labels, Ledger, Limits, Pod, Shown};
use gthulhu_monitor::{Monitor, Options};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::events::Hub;
use crate::log::Log;
use crate::names::Book;
use crate::telling::{self, Teller};
use crate::{Error, Result};

/// A snapshot that is younger than this is new enough: many who scrape cost no more than one.
const FRESH: Duration = Duration::from_millis(200);
/// What could not be begun is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// What the monitor is asked.
#[derive(Debug)]
enum Ask {
    /// With the metrics in this format, or without any.
    How(Option<Format>, oneshot::Sender<Answer>),
    Adopt(Box<Config>),
}

/// What the monitor says.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Its metrics, as they are written; empty while it does not measure.
    pub(crate) text: String,
    /// Whether it measures; why not, if it should.
    pub(crate) running: bool,
    pub(crate) error: Option<String>,
    /// Where names are from, and how that goes.
    pub(crate) names: Value,
}

/// How to ask it.
#[derive(Clone, Debug)]
pub(crate) struct Watcher(Sender<Ask>);

impl Watcher {
    /// How it does, with the metrics if a format is given.
    pub(crate) async fn ask(&self, format: Option<Format>) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ask::How(format, reply)).ok()?;
        answer.await.ok()
    }

    /// Measures as this says from now on. Does not wait.
    pub(crate) fn adopt(&self, config: &Config) {
        let _ = self.0.send(Ask::Adopt(Box::new(config.clone())));
    }
}

/// Starts the thread.
pub(crate) fn start(config: &Config, events: Hub, log: Log) -> Result<Watcher> {
    let (sender, receiver) = channel();
    let config = config.clone();
    std::thread::Builder::new()
        .name("monitor".into())
        .spawn(move || Watch::new(config, events, log).run(&receiver))
        .map_err(|e| Error::system("cannot start the monitor's thread", &e))?;
    Ok(Watcher(sender))
}

struct Watch {
    config: Config,
    log: Log,
    events: Hub,
    teller: Teller,
    book: Book,
    measuring: Option<Measuring>,
    error: Option<String>,
    tried: Option<Instant>,
    book_tried: Option<Instant>,
    told: Option<Instant>,
    looked: Option<Instant>,
}

/// While it measures.
struct Measuring {
    monitor: Monitor,
    discovery: Option<Discovery>,
    ledger: Ledger,
    taken: Option<Instant>,
}

impl Watch {
    fn new(config: Config, events: Hub, log: Log) -> Self {
        let (teller, book) = (Teller::default(), Book::default());
        Self {
            config,
            log,
            events,
            teller,
            book,
            measuring: None,
            error: None,
            tried: None,
            book_tried: None,
            told: None,
            looked: None,
        }
    }

    fn run(mut self, asked: &Receiver<Ask>) {
        loop {
            self.begin_or_end();
            self.look_up_names();
            let every = Duration::from_secs(self.config.monitor.collection_interval_sec);
            let every = self.book.interval().map_or(every, |wished| wished.min(every));
            let due = self.looked.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed()));
            let patience = if self.measuring.is_some() { due } else { AGAIN };
            // Reckoned from the last time: who scrapes all the time must not keep those who read events waiting.
            let telling = self.config.monitor.stream_events && self.measuring.is_some();
            let next = self.told.map_or(Duration::ZERO, |at| telling::EVERY.saturating_sub(at.elapsed()));
            let patience = if telling { patience.min(next) } else { patience };
            match asked.recv_timeout(patience) {
                Ok(Ask::How(format, reply)) => {
                    if format.is_some() {
                        self.measure(false);
                    }
                    let _ = reply.send(self.answer(format));
                }
                Ok(Ask::Adopt(config)) => {
                    // A change may be what makes it possible.
                    (self.tried, self.book_tried) = (None, None);
                    self.config = *config;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.looked.is_none_or(|at| at.elapsed() >= every) {
                        self.measure(true);
                    }
                    if telling && self.told.is_none_or(|at| at.elapsed() >= telling::EVERY) {
                        self.told = Some(Instant::now());
                        self.tell();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn begin_or_end(&mut self) {
        if !self.config.monitor.enabled {
            if self.measuring.take().is_some() {
                self.log.info("monitor.enabled is off: nothing is measured");
            }
            (self.error, self.tried) = (None, None);
            return;
        }
        if self.measuring.is_some() || self.tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        match Monitor::start(&Options::default()) {
            Ok(monitor) => {
                // Without it cgroups are called by their paths.
                let discovery = Discovery::new(Look::default());
                if let Err(error) = &discovery {
                    self.log.warn(format_args!("cannot look for processes: {error}"));
                }
                let ledger = Ledger::new(node(&self.config), Limits::default());
                let discovery = discovery.ok();
                self.measuring = Some(Measuring { monitor, discovery, ledger, taken: None });
                self.error = None;
                self.looked = None;
                self.log.info("the monitor measures");
            }
            Err(error) => {
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    self.log.warn(format_args!("the monitor cannot begin: {error}; it is tried again"));
                }
                self.error = Some(error);
            }
        }
    }

    /// Does not wait for the API: names come when it answers.
    fn look_up_names(&mut self) {
        if self.book_tried.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.book_tried = Some(Instant::now());
            for trouble in self.book.adopt(&self.config, &node(&self.config)) {
                self.log.warn(format_args!("{trouble}; it is tried again"));
            }
        }
        self.book.refresh();
    }

    /// Tells in the event stream what has happened since the last time, if somebody reads it.
    fn tell(&mut self) {
        let Some(measuring) = &mut self.measuring else { return };
        if !self.events.has_readers() {
            self.teller.forget();
            return;
        }
        // New cgroups at once; a machine that cannot tell them has them at the next look.
        if let Some(Ok(changes)) = measuring.discovery.as_mut().map(Discovery::poll) {
            self.teller.pods(&self.events, &self.book, &changes);
        }
        let at_least = Duration::from_millis(self.config.monitor.stream_run_delay_ms);
        let told = measuring.take(&self.book, self.config.monitor.monitor_all).and_then(|groups| {
            self.teller.groups(&self.events, &self.book, &groups);
            self.teller.threads(&self.events, &self.book, &mut measuring.monitor, at_least)
        });
        self.after(told);
    }

    fn after(&mut self, done: gthulhu_monitor::Result<()>) {
        match done {
            Ok(()) => self.error = None,
            Err(error) => {
                self.log.warn(format_args!("the monitor cannot read: {error}; it begins anew"));
                self.error = Some(error.to_string());
                self.measuring = None;
            }
        }
    }

    /// Reads the counters, and at times looks anew at who is there.
    fn measure(&mut self, look: bool) {
        let Some(measuring) = &mut self.measuring else { return };
        if look || self.looked.is_none() {
            self.looked = Some(Instant::now());
            match measuring.discovery.as_mut().map(Discovery::rescan) {
                Some(Ok(changes)) => self.teller.pods(&self.events, &self.book, &changes),
                Some(Err(error)) => self.log.warn(format_args!("cannot look for processes: {error}")),
                None => {}
            }
        } else if measuring.taken.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let taken = measuring.take(&self.book, self.config.monitor.monitor_all).map(drop);
        self.after(taken);
    }

    fn answer(&self, format: Option<Format>) -> Answer {
        let text =
            self.measuring.as_ref().zip(format).map(|(measuring, format)| measuring.ledger.render(format));
        let running = self.measuring.is_some();
        Answer { running, text: text.unwrap_or_default(), error: self.error.clone(), names: self.book.json() }
    }
}

impl Measuring {
    /// The groups as they are now, counted by their labels.
    fn take(&mut self, book: &Book, all: bool) -> gthulhu_monitor::Result<Vec<Group>> {
        let snapshot = self.monitor.snapshot()?;
        let mut processes: HashMap<u64, u64> = HashMap::new();
        let index = self.discovery.as_ref().map(Discovery::index);
        for process in index.iter().flat_map(|index| index.processes()) {
            if let Some(CgroupId(id)) = process.cgroup {
                *processes.entry(id).or_default() += 1;
            }
        }
        self.ledger.update(&snapshot, |id, path| {
            let count = processes.get(&id).copied().unwrap_or(0);
            let workload = Workload::of_cgroup(path?);
            let shown = if all { Shown::ALL } else { book.shown(&workload, index)? };
            labels(&workload, book, count, all).map(|labels| Labels { shown, ..labels })
        });
        self.taken = Some(Instant::now());
        Ok(snapshot.groups)
    }
}

/// Under which labels a cgroup counts. Pods, containers and units have their own; what somebody has made by hand only
/// when all is to be told, for nobody knows how many there will be.
fn labels(workload: &Workload, names: &Book, processes: u64, all: bool) -> Option<Labels> {
    let mut labels = Labels { processes, ..Labels::default() };
    match workload {
        Workload::Pod { uid, container, .. } => {
            let info = names.pod(uid);
            let (namespace, name) =
                info.as_ref().map_or(("", uid.as_str()), |info| (&info.namespace, &info.name));
            labels.pod =
                Some(Pod { namespace: namespace.into(), name: name.into(), uid: uid.as_str().into() });
            if let Some(container) = container {
                let name = info.as_ref().and_then(|info| info.container(&container.id));
                labels.container = name.unwrap_or(container.id.short()).to_owned();
            }
        }
        Workload::Container(container) => labels.container = container.id.short().to_owned(),
        Workload::Unit(_) => labels.unit = workload.to_string(),
        Workload::Root => labels.unit = "/".into(),
        Workload::Other(path) if all => labels.unit = path.to_string(),
        _ => return None,
    }
    Some(labels)
}

/// What this node is called.
fn node(config: &Config) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    config.monitor.node_name.clone().unwrap_or_else(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_containers_and_units_are_told_apart_and_the_rest_when_wanted() {
        let of = |path: &str, all| labels(&Workload::of_cgroup(path), &Book::default(), 3, all);
        let pod = "/kubepods/burstable/pod0a1b2c3d-1111-2222-3333-444455556666";
        let id = "0123456789abcdef".repeat(4);
        let labels = of(&format!("{pod}/{id}"), false).expect("a pod");
        assert_eq!(labels.pod.expect("a pod").uid, "0a1b2c3d-1111-2222-3333-444455556666");
        assert!(id.starts_with(&labels.container) && !labels.container.is_empty());
        assert_eq!(labels.processes, 3);
        assert_eq!(of("/system.slice/cron.service", false).expect("a unit").unit, "cron.service");
        assert_eq!(of("/by-hand/a", false), None);
        assert_eq!(of("/by-hand/a", true).expect("all").unit, "/by-hand/a");
    }
}
