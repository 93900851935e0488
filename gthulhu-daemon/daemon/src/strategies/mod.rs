//! Strategies: what somebody wants for some processes of this node, and its way to the core and the policy.
//!
//! ```text
//!   decision maker ──► maker ─┐                                  ┌─► the core's table (Running::set_rules)
//!                             ├─► book ──► leases ──► supervisor ┤
//!   strategy apply ──► local ─┘                                  └─► link ──► the agent's process ──► the policy
//! ```
//!
//! A thread of its own, with a tokio runtime of one thread. The supervisor takes what it publishes when it has time, as any
//! other question at its desk, and never waits for it. How long that took from the receipt is measured there.

mod book;
mod explain;
mod figures;
mod link;
mod local;
mod maker;
mod resolve;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gthulhu_api::StrategyList;
use gthulhu_config::{Api, Config};
use gthulhu_model::{Generation, Lease, StrategyTable, Ttl};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::JoinHandle;

use book::{Book, Source, Want};
use maker::Heard;
use resolve::Look;

use crate::desk::{Ask, Caller};
use crate::log::Log;
use crate::{Error, Result};

pub(crate) use explain::explain;
pub(crate) use figures::{Facts, line};
pub(crate) use link::{Has, Readers, Receiver as AgentEnd, Sender as AgentLink, now_ns, pair};
pub(crate) use local::{Command, apply, clear, list};

/// What the supervisor is to put into the core and to hand to the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Another table, if there is one.
    pub(crate) table: Option<Table>,
    /// For status.
    pub(crate) told: Value,
}

/// A table of all strategies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) generation: Generation,
    pub(crate) leases: Vec<Lease>,
    /// When what is new in it was received; `None` where it only holds for longer.
    pub(crate) received_ns: Option<u64>,
}

impl Table {
    /// As policies ask it.
    pub(crate) fn build(&self) -> StrategyTable {
        let mut builder = StrategyTable::builder(self.generation);
        for lease in &self.leases {
            builder.add(*lease);
        }
        builder.build()
    }
}

/// How others reach the thread.
#[derive(Clone, Debug)]
pub(crate) struct Handle(UnboundedSender<Call>);

enum Call {
    Adopt(Box<Api>),
    /// A client of the socket, with what it wants and what of the rest it has said already.
    Client(Command, Vec<u8>, UnixStream),
}

/// What the thread waits for.
enum Event {
    Call(Option<Call>),
    Heard(Option<Heard>),
    Due,
}

impl Handle {
    /// Listens to whom this configuration names from now on. Does not wait.
    pub(crate) fn adopt(&self, config: &Config) {
        let _ = self.0.send(Call::Adopt(Box::new(config.api.clone())));
    }

    /// Answers a client of the socket. Does not wait.
    pub(crate) fn serve(&self, command: Command, said: Vec<u8>, stream: UnixStream) {
        let _ = self.0.send(Call::Client(command, said, stream));
    }
}

/// Starts the thread.
pub(crate) fn start(config: &Config, caller: Caller, log: Log) -> Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::system("cannot start the runtime of strategies", &e))?;
    let (sender, calls) = unbounded_channel();
    let api = config.api.clone();
    std::thread::Builder::new()
        .name("strategies".into())
        .spawn(move || runtime.block_on(Service::new(api, caller, log).run(calls)))
        .map_err(|e| Error::system("cannot start the thread of strategies", &e))?;
    Ok(Handle(sender))
}

/// A table that the supervisor did not take is offered again after this; also how often it is looked for what ends.
const TICK: Duration = Duration::from_millis(500);
/// For the supervisor: it may be attaching the scheduler.
const SUPERVISOR_TIME: Duration = Duration::from_secs(10);
/// How many refused records are told by their reasons.
const TOLD: usize = 16;

struct Service {
    api: Api,
    caller: Caller,
    log: Log,
    book: Book,
    maker: Maker,
    session: Option<(JoinHandle<()>, Receiver<Heard>)>,
    /// What was published last; from when on its leases are renewed if they could hold for longer, and whether that was
    /// looked at then: whoever confirms something later is looked at by itself.
    table: Table,
    renew_from_ns: u64,
    renewal_seen: bool,
    /// The supervisor has not taken it yet.
    owed: bool,
    /// What status was told last.
    told: Value,
}

/// What is known of the decision maker.
#[derive(Debug, Default)]
struct Maker {
    by: Option<&'static str>,
    heard_at: Option<SystemTime>,
    lists: u64,
    error: Option<String>,
    failures: u64,
    /// Records that make no sense, and pids that nobody has.
    refused: VecDeque<String>,
    refused_now: usize,
    gone: usize,
    generation: Option<(String, u64)>,
    /// Its last list was not taken.
    misunderstood: bool,
    /// Counters told, and why not.
    told: u64,
    told_error: Option<String>,
}

impl Service {
    fn new(api: Api, caller: Caller, log: Log) -> Self {
        Self {
            api,
            caller,
            log,
            book: Book::default(),
            maker: Maker::default(),
            session: None,
            table: Table::default(),
            renew_from_ns: u64::MAX,
            renewal_seen: false,
            owed: false,
            told: Value::Null,
        }
    }

    async fn run(mut self, mut calls: UnboundedReceiver<Call>) {
        self.connect();
        self.publish(None).await;
        loop {
            let patience = self.patience();
            let session = &mut self.session;
            let heard = async move {
                match session {
                    Some((_, heard)) => heard.recv().await,
                    None => std::future::pending().await,
                }
            };
            // First what comes, then what is done about it: nothing is lost when another thing comes first.
            let event = tokio::select! {
                call = calls.recv() => Event::Call(call),
                heard = heard => Event::Heard(heard),
                () = tokio::time::sleep(patience) => Event::Due,
            };
            match event {
                Event::Call(call) => match call {
                    Some(Call::Adopt(api)) => self.adopt(*api).await,
                    Some(Call::Client(command, said, stream)) => {
                        local::serve(&mut self, command, said, stream).await
                    }
                    None => return,
                },
                Event::Heard(heard) => match heard {
                    Some(heard) => self.hear(heard).await,
                    None => self.connect(),
                },
                Event::Due => self.publish(None).await,
            }
        }
    }

    /// Until something is due.
    fn patience(&self) -> Duration {
        let now = now_ns();
        let fade = self.book.next_fade().unwrap_or(u64::MAX);
        let renewal = if self.renewal_seen { u64::MAX } else { self.renew_from_ns };
        let due = Duration::from_nanos(fade.min(renewal).saturating_sub(now));
        // Timers are by the millisecond: not before it has ended.
        if self.owed {
            TICK.min(due)
        } else {
            due.saturating_add(Duration::from_millis(1)).min(Duration::from_secs(60))
        }
    }

    /// Begins to listen, if that is wanted.
    fn connect(&mut self) {
        if let Some((session, _)) = self.session.take() {
            session.abort();
        }
        if self.api.enabled {
            // A few lists at most wait here: a decision maker that sends without end waits then.
            let (sender, receiver) = channel(4);
            let session = tokio::spawn(maker::run(self.api.clone(), sender, self.caller.clone()));
            self.session = Some((session, receiver));
        }
    }

    async fn adopt(&mut self, api: Api) {
        if api == self.api {
            return;
        }
        self.api = api;
        self.maker = Maker::default();
        if !self.api.enabled && self.book.replace(Source::Maker, Vec::new(), now_ns()) {
            self.log.info("api.enabled is off: the decision maker's strategies are gone");
        }
        self.connect();
        self.publish(Some(now_ns())).await;
    }

    async fn hear(&mut self, heard: Heard) {
        let news = match heard {
            Heard::List { list, received_ns, by } => {
                let taken = self.take(*list, by.name());
                let news = taken.as_ref().is_ok_and(|news| *news);
                self.maker.misunderstood = taken.is_err();
                if let Err(why) = taken {
                    self.trouble(why);
                }
                news.then_some(received_ns)
            }
            // What it told last is what holds, unless that was not understood.
            Heard::Alive => {
                if !self.maker.misunderstood {
                    self.well();
                    self.book.confirm(Source::Maker, now_ns());
                }
                None
            }
            Heard::Trouble(why) => {
                self.trouble(why);
                None
            }
            Heard::Told(Ok(())) => {
                self.maker.told += 1;
                self.maker.told_error = None;
                None
            }
            Heard::Told(Err(why)) => {
                if self.maker.told_error.as_ref() != Some(&why) {
                    self.log.warn(format_args!("the decision maker does not take the counters: {why}"));
                }
                self.maker.told_error = Some(why);
                None
            }
        };
        self.publish(news).await;
    }

    /// A list of the decision maker's. Returns whether something is to be changed for it.
    fn take(&mut self, list: StrategyList, by: &'static str) -> std::result::Result<bool, String> {
        let counted = list.generation.map(|generation| (list.instance.clone(), generation));
        if let (Some((instance, generation)), Some((last_instance, last))) =
            (&counted, &self.maker.generation)
            && instance == last_instance
            && generation < last
        {
            return Err(format!(
                "its list {generation} is older than {last}, which it told before; it is not taken"
            ));
        }
        let found = list.records()?;
        let look = Look::new()?;
        self.maker.generation = counted;
        self.maker.by = Some(by);
        self.maker.lists += 1;
        self.well();
        let mut refused: Vec<String> = found.left.into_iter().map(|left| left.why).collect();
        let (mut wants, mut gone) = (Vec::with_capacity(found.records.len()), 0);
        let default = Ttl::from_secs(self.api.strategy_ttl_sec).unwrap_or_default();
        for (record, priority) in found.records {
            let pid = i32::try_from(record.pid).unwrap_or(i32::MAX);
            match look.target(pid, record.started) {
                Ok(Some(target)) => {
                    let (key, name) = called(&record);
                    let ttl = Some(record.ttl_sec.unwrap_or(default));
                    wants.push(Want { key, name, target, priority, ttl });
                }
                // It has ended since the decision maker looked.
                Ok(None) => gone += 1,
                Err(why) => refused.push(format!("pid {pid}: {why}")),
            }
        }
        self.maker.gone = gone;
        self.refuse(refused);
        Ok(self.book.replace(Source::Maker, wants, now_ns()))
    }

    fn refuse(&mut self, refused: Vec<String>) {
        self.maker.refused_now = refused.len();
        let known = |why: &String| self.maker.refused.contains(why);
        if let Some(new) = refused.iter().take(TOLD).find(|why| !known(why)) {
            self.log.warn(format_args!(
                "{} of the decision maker's strategies make no sense and are left out; the first: {new}",
                refused.len()
            ));
        }
        self.maker.refused = refused.into_iter().take(TOLD).collect();
    }

    fn trouble(&mut self, why: String) {
        self.maker.failures += 1;
        if self.maker.error.as_ref() != Some(&why) {
            self.log.warn(format_args!(
                "the decision maker: {why}; it is tried again, and what it wanted fades in time"
            ));
        }
        self.maker.error = Some(why);
    }

    fn well(&mut self) {
        self.maker.heard_at = Some(SystemTime::now());
        if self.maker.error.take().is_some() {
            self.log.info("the decision maker is heard again");
        }
    }

    /// Takes out what has faded, and gives the supervisor what it does not know yet. With the time at which something was
    /// received there is something new; else it may be that what there is holds for longer.
    async fn publish(&mut self, received_ns: Option<u64>) {
        let now = now_ns();
        let faded = self.book.fade(now);
        self.say_faded(&faded);
        let leases = self.book.leases(now);
        let news = received_ns.is_some() || !faded.is_empty() || self.owed;
        let renewed = now >= self.renew_from_ns && leases != self.table.leases;
        let table = (news || renewed).then(|| {
            self.table = Table { generation: Generation(self.table.generation.0 + 1), leases, received_ns };
            self.table.clone()
        });
        self.renewal_seen = now >= self.renew_from_ns;
        if table.is_some() {
            // When half of the shortest time is over.
            let end = self.table.leases.iter().map(|lease| lease.expires_at_ns).min();
            self.renew_from_ns = end.map_or(u64::MAX, |end| now + end.saturating_sub(now) / 2);
            self.renewal_seen = false;
        }
        let told = self.status();
        if table.is_none() && told == self.told {
            return;
        }
        let something = table.is_some();
        let taken = self.send(Published { table, told: told.clone() }).await;
        if taken {
            self.told = told;
        }
        if something {
            self.owed = !taken;
        }
    }

    async fn send(&self, published: Published) -> bool {
        let Ok(answer) = self.caller.ask(Ask::Strategies(Box::new(published))) else { return false };
        matches!(tokio::time::timeout(SUPERVISOR_TIME, answer).await, Ok(Ok(Ok(_))))
    }

    fn say_faded(&self, faded: &[book::Entry]) {
        let mut by: BTreeMap<Source, Vec<&str>> = BTreeMap::new();
        faded.iter().for_each(|entry| by.entry(entry.source).or_default().push(&entry.want.name));
        for (source, mut names) in by {
            let count = names.len();
            names.dedup();
            names.truncate(5);
            let why = match source {
                Source::Maker => "nobody confirmed them in time",
                Source::Local => "their time is over",
            };
            self.log.warn(format_args!(
                "strategies for {count} targets fade to default ({}): {why}: {}",
                source.name(),
                names.join(", ")
            ));
        }
    }

    /// For status, without what changes with each look at a clock.
    fn status(&self) -> Value {
        let (_, faded) = self.book.faded();
        let maker = &self.maker;
        let source = |source: Source| {
            let entries = self.book.of(source);
            let mut ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            ids.sort_unstable();
            ids.dedup();
            json!({ "strategies": ids.len(), "targets": entries.len() })
        };
        let mut sources = serde_json::Map::new();
        for of in Source::ALL {
            sources.insert(of.name().to_owned(), source(of));
        }
        let to_unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let object = &mut sources[Source::Maker.name()];
        object["enabled"] = self.api.enabled.into();
        object["url"] = json!(self.api.url);
        object["by"] = json!(maker.by);
        object["up"] = (self.api.enabled && maker.error.is_none() && maker.heard_at.is_some()).into();
        object["error"] = json!(maker.error);
        object["failures"] = maker.failures.into();
        object["lists"] = maker.lists.into();
        object["heard_at_unix"] = json!(maker.heard_at.map(to_unix));
        object["generation"] = json!(maker.generation.as_ref().map(|(_, generation)| generation));
        object["counters_told"] = maker.told.into();
        object["counters_error"] = json!(maker.told_error);
        object["refused"] = json!(maker.refused);
        json!({
            "generation": self.table.generation.0,
            "sources": sources,
            "refused": maker.refused_now,
            "gone": maker.gone,
            "left_out": self.book.left_out(),
            "faded": faded,
        })
    }
}

/// Which strategy a record belongs to, and what it is called. The original tells none: those that were found by the same
/// labels and names are one; and where nothing of that is said, each process is for itself.
fn called(record: &gthulhu_api::Record) -> (String, String) {
    if !record.strategy.is_empty() {
        return (format!("s {}", record.strategy), record.strategy.clone());
    }
    let labels: Vec<String> = record.selectors.iter().map(|s| format!("{}={}", s.key, s.value)).collect();
    if labels.is_empty() && record.command_regex.is_empty() {
        return (format!("p {}", record.pid), format!("pid {}", record.pid));
    }
    let name = format!("{} {}", labels.join(","), record.command_regex).trim().to_owned();
    (format!("l {name}"), name)
}
