//! Runtime configuration: who may change it, what a change does, and what is told about it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gthulhu_config::{Change, Changed, Configuration, Effect, Patch, Problems};
use serde_json::{Value, json};

use crate::access::Access;
use crate::clerk::Clerk;
use crate::desk::{Ask, Caller};
use crate::events::{Hub, Sockets};
use crate::listener::Refusals;
use crate::log::Log;
use crate::strategies;
use crate::watcher::{self, Watcher};
use crate::{Result, configure, http};

/// What HTTP works on.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held while a change is made: one after the other.
    configuration: Mutex<Configuration>,
    /// For those who only look, and never wait.
    told: RwLock<Told>,
    pub(crate) caller: Caller,
    pub(crate) watcher: Watcher,
    pub(crate) strategies: strategies::Handle,
    pub(crate) events: Hub,
    pub(crate) access: Access,
}

/// What is told about the runtime configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) values: Value,
    pub(crate) version: String,
    pub(crate) applied_at: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) monitoring: bool,
}

/// An answer over HTTP: its code and an object.
pub(crate) type Reply = (u16, Value);

/// Starts the monitor, HTTP and whoever serves the control socket, each in a thread of its own. Neither can stop what is scheduled: what they cannot do they
/// say, and try again.
pub(crate) fn start(
    configuration: Configuration,
    access: Access,
    caller: Caller,
    strategies: strategies::Handle,
    garbage: Arc<Refusals>,
    (events, sockets): (Hub, Sockets),
    log: Log,
) -> Result<Clerk> {
    let config = configuration.config().clone();
    let watcher = watcher::start(&config, events.clone(), log.clone())?;
    let told = RwLock::new(Told::of(&configuration, None));
    let configuration = Mutex::new(configuration);
    let shared = Arc::new(Shared { configuration, told, caller, watcher, strategies, events, access });
    let clerk = Clerk::start(Arc::clone(&shared), garbage)?;
    http::start(shared, &config, sockets, log)?;
    Ok(clerk)
}

impl Told {
    fn of(configuration: &Configuration, last_error: Option<String>) -> Self {
        let applied = configuration.applied();
        Self {
            values: configuration.runtime_json(),
            version: applied.map(|applied| applied.version.clone()).unwrap_or_default(),
            applied_at: applied.map(gthulhu_config::Applied::at_text),
            last_error,
            monitoring: configuration.config().monitor.enabled,
        }
    }
}

impl Shared {
    /// What holds, and since when.
    pub(crate) fn told(&self) -> Told {
        self.told.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, told: Told) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// Takes a change of the runtime configuration: all of it, or nothing. What has to be attached anew is made so only
    /// when `reattach` says so. Waits for the supervisor and the disk.
    pub(crate) fn apply(&self, body: &[u8], reattach: bool) -> Reply {
        let patch = match Patch::parse(body, "request") {
            Ok(patch) => patch,
            Err(problems) => return refused(&problems),
        };
        let mut configuration = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, change) = match configuration.preview(&patch) {
            Ok(would_be) => would_be,
            Err(problems) => return refused(&problems),
        };
        let more = match self.caller.ask_and_wait(Ask::Check(Box::new(config.clone()))) {
            Ok(more) => more,
            Err(why) => return (400, failed(&why)),
        };
        let needs: Vec<Value> = hidden(&change)
            .map(|changed| json!({ "key": changed.path, "why": "it is read when the scheduler is attached" }))
            .chain(more.as_array().cloned().unwrap_or_default())
            .collect();
        if !needs.is_empty() && !reattach {
            let what = "this needs the scheduler to be attached anew, with the kernel's own in between; nothing was \
                        changed; ask again with ?reattach=true";
            let mut answer = failed(what);
            answer["reattach"] = Value::Array(needs);
            return (409, answer);
        }
        let again = !needs.is_empty();
        let adopt =
            |config| self.caller.ask_and_wait(Ask::Adopt { config: Box::new(config), reattach: again });
        // First made so, then saved: what this machine cannot run must not be what it starts with next time.
        let done = match adopt(config.clone()) {
            Ok(done) => done,
            Err(why) => return self.not_made(&configuration, &format!("nothing was changed: {why}")),
        };
        let change = match configuration.apply(&patch) {
            Ok(change) => change,
            Err(error) => {
                let back = adopt(configuration.config().clone()).err();
                let back = back.map(|why| format!("; and what was before cannot be had again: {why}"));
                return self.not_made(&configuration, &format!("{error}{}", back.unwrap_or_default()));
            }
        };
        self.watcher.adopt(&config);
        self.events.set(config.monitor.stream_events);
        self.strategies.adopt(&config);
        self.tell(Told::of(&configuration, None));
        let mut answer = change.json();
        let noop = change.is_noop() && done.as_object().is_none_or(serde_json::Map::is_empty);
        answer["success"] = true.into();
        answer["status"] = if noop { "noop" } else { "applied" }.into();
        answer["configVersion"] = patch.version().into();
        for (name, value) in done.as_object().into_iter().flatten() {
            answer[name.as_str()] = value.clone();
        }
        (200, answer)
    }

    fn not_made(&self, configuration: &MutexGuard<'_, Configuration>, why: &str) -> Reply {
        self.tell(Told::of(configuration, Some(why.to_owned())));
        (500, failed(why))
    }
}

/// What re-attaches although nobody said so in so many words: to begin and to end with scheduling is what whoever
/// changes the mode asks for.
fn hidden(change: &Change) -> impl Iterator<Item = &Changed> {
    let said = |path: &str| matches!(path, "scheduler.mode" | "scheduler.enabled");
    change.changed.iter().filter(move |c| c.effect == Effect::Reattach && !said(c.path))
}

/// Why not, in the original's form.
pub(crate) fn failed(why: &str) -> Value {
    json!({ "success": false, "error": why })
}

fn refused(problems: &Problems) -> Reply {
    let mut answer = failed(&problems.to_string());
    answer["problems"] = problems.iter().map(configure::problem).collect();
    (400, answer)
}
