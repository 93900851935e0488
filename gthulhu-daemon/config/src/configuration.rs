//! A loaded configuration, and its changes while the daemon runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::config::keys;
use crate::layer::{Layer, Layers};
use crate::store::Store;
use crate::value::Value;
use crate::{
    Config, Effect, Key, Loader, Mode, Notice, Patch, Problem, Problems, Secret, Source, check, patch, token,
};

/// A loaded configuration: the values, from where they are, and what was applied at run time.
#[derive(Clone, Debug)]
pub struct Configuration {
    loader: Loader,
    pub(crate) layers: Layers,
    config: Config,
    notices: Vec<Notice>,
    /// What the sources themselves gave rise to, without the notices about the whole.
    said: Vec<Notice>,
    store: Option<Store>,
    applied: Option<Applied>,
}

/// Which state of the runtime configuration is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// In the words of whoever sent it.
    pub version: String,
    /// Since when.
    pub at: SystemTime,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The keys whose values are others now.
    pub changed: Vec<Changed>,
    /// The keys that were to be changed and whose value a stronger source holds.
    pub shadowed: Vec<Shadowed>,
}

/// A key whose value is another now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Changed {
    /// The key.
    pub path: &'static str,
    /// What it was.
    pub from: Value,
    /// What it is.
    pub to: Value,
    /// What this change costs.
    pub effect: Effect,
}

/// A key that was set where a stronger source holds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shadowed {
    /// The key.
    pub path: &'static str,
    /// Who holds it.
    pub by: Source,
    /// The value that it has.
    pub value: Value,
}

/// Why a change was not made. Nothing has changed then, in memory or on disk.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ApplyError {
    /// Something is wrong with it.
    Refused(Problems),
    /// It cannot be saved: on which file, and why.
    NotSaved(String),
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(problems) => problems.fmt(f),
            Self::NotSaved(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<Problems> for ApplyError {
    fn from(problems: Problems) -> Self {
        Self::Refused(problems)
    }
}

impl Applied {
    /// Since when, as the original writes it (RFC 3339, UTC): `2026-08-17T09:00:00Z`.
    pub fn at_text(&self) -> String {
        let seconds = self.at.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years of 365.2425 days that begin in March, so that a leap day is the last of its year: 719468 days are from
        // 0000-03-01 to 1970-01-01, 146097 are in 400 years.
        let day = days + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = 400 * era + year + next;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
    }
}

impl Change {
    /// Whether nothing is different.
    pub fn is_noop(&self) -> bool {
        self.changed.is_empty()
    }

    /// The dearest effect of all; [`Effect::Live`] also when nothing changed.
    pub fn effect(&self) -> Effect {
        self.changed.iter().map(|c| c.effect).max().unwrap_or(Effect::Live)
    }

    /// Whether the scheduler has to be attached anew.
    pub fn reattaches(&self) -> bool {
        self.changed.iter().any(|c| c.effect == Effect::Reattach)
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let changed = self.changed.iter().map(
            |c| json!({ "key": c.path, "from": c.from.json(), "to": c.to.json(), "effect": c.effect.name() }),
        );
        let shadowed = self
            .shadowed
            .iter()
            .map(|s| json!({ "key": s.path, "by": s.by.to_string(), "value": s.value.json() }));
        json!({ "changed": changed.collect::<Vec<_>>(), "shadowed": shadowed.collect::<Vec<_>>() })
    }

    fn between(old: &Config, new: &Config) -> Self {
        let changed = keys().iter().filter_map(|key| {
            let (from, to) = (key.get(old), key.get(new));
            let effect = match key.effect_of(&from, &to) {
                Effect::Reattach if !matters(key, old.effective_mode(), new.effective_mode()) => Effect::Live,
                effect => effect,
            };
            (from != to).then_some(Changed { path: key.path, from, to, effect })
        });
        Self { changed: changed.collect(), shadowed: Vec::new() }
    }
}

/// Whether a key of the scheduler's is one of the scheduler that runs before and after: nothing is detached for an
/// option of a core that is not loaded. A change of who schedules is counted where it is said, at `scheduler.mode`
/// or `scheduler.enabled`.
fn matters(key: &Key, old: &Mode, new: &Mode) -> bool {
    let plugin = |mode: &Mode| matches!(mode, Mode::Plugin(_));
    match key.path {
        "scheduler.mode" | "scheduler.enabled" => old != new,
        "scheduler.scheduler_name" | "scheduler.scx_folder" | "scheduler.scx_args" => {
            *old == Mode::Scx && *new == Mode::Scx
        }
        _ => plugin(old) && plugin(new),
    }
}

/// The secrets that the configuration names, from wherever they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secrets {
    /// For the decision maker.
    pub api_token: Option<Secret>,
    /// The key of our certificate for the decision maker, as PEM.
    pub api_key: Option<Secret>,
    /// What control over HTTP asks for.
    pub control_token: Option<Secret>,
    /// The key of the certificate of control over HTTP, as PEM.
    pub control_key: Option<Secret>,
}

impl Configuration {
    pub(crate) fn new(loader: Loader, layers: Layers, said: Vec<Notice>) -> Self {
        let config = layers.resolve(loader.context());
        let mut new = Self { loader, layers, config, notices: Vec::new(), said, store: None, applied: None };
        new.note();
        new
    }

    fn note(&mut self) {
        self.notices = self.said.clone();
        self.notices.extend(check::check(&self.config, &self.layers).1);
    }

    /// The values.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is no error, and should be known: missing file, keys without effect, state that was set aside.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Which state of the runtime configuration is applied, if any.
    pub fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Applies a change of the runtime configuration: checks the whole that would come of it, looks at the program
    /// when the mode becomes `scx`, saves it, and only then makes it so. What was loaded [without
    /// runtime](Loader::without_runtime) is not saved.
    ///
    /// # Errors
    /// [`ApplyError::Refused`] when a value, or the whole with it, is wrong; [`ApplyError::NotSaved`] when it
    /// cannot be saved. Nothing has changed then.
    pub fn apply(&mut self, patch: &Patch) -> Result<Change, ApplyError> {
        let (layers, config, change) = self.weigh(patch)?;
        let applied = Applied { version: patch.version().to_owned(), at: now() };
        let same = layers.runtime == self.layers.runtime
            && self.applied.as_ref().is_some_and(|a| a.version == applied.version);
        if let Some(store) = self.store.as_ref().filter(|_| !same) {
            let text = stored(&layers.runtime, &applied);
            store.write(text.as_bytes()).map_err(|e| {
                let path = store.path.display();
                ApplyError::NotSaved(format!("the change cannot be saved in {path}, and was not made: {e}"))
            })?;
        }
        (self.layers, self.config) = (layers, config);
        if !same {
            self.applied = Some(applied);
        }
        self.note();
        Ok(change)
    }

    /// What [`apply`](Self::apply) would make of this patch, without saving it or making it so: the values that would
    /// hold, and what would be different.
    ///
    /// # Errors
    /// What [`apply`](Self::apply) would refuse.
    pub fn preview(&self, patch: &Patch) -> Result<(Config, Change), Problems> {
        self.weigh(patch).map(|(_, config, change)| (config, change))
    }

    fn weigh(&self, patch: &Patch) -> Result<(Layers, Config, Change), Problems> {
        let layers = Layers { runtime: self.merged(patch)?, ..self.layers.clone() };
        let config = layers.resolve(self.loader.context());
        Problems::check(self.in_patch(patch, check::check(&config, &layers).0))?;
        Problems::check(self.in_patch(patch, self.look_at_scx(&config, &layers)))?;
        let mut change = Change::between(&self.config, &config);
        change.shadowed = shadowed(patch, &layers);
        Ok((layers, config, change))
    }

    /// Reads file and saved state anew, with the environment and the flags of the start.
    ///
    /// # Errors
    /// As [`Loader::load`]; nothing has changed then.
    pub fn reload(&mut self) -> Result<Change, Problems> {
        let new = self.loader.load()?;
        let change = Change::between(&self.config, &new.config);
        *self = new;
        Ok(change)
    }

    /// What GET on the runtime configuration answers: the fields, with the values that hold.
    pub fn runtime_json(&self) -> Json {
        let field = |key: &Key| Some((key.runtime?.to_owned(), key.get(&self.config).json()));
        let mut fields: serde_json::Map<String, Json> = keys().iter().filter_map(field).collect();
        let version = self.applied.as_ref().map_or("", |a| &a.version);
        fields.insert("configVersion".into(), version.into());
        Json::Object(fields)
    }

    /// Reads the secrets that the configuration names.
    ///
    /// # Errors
    /// Each file that cannot be read, or that others can read; with the place where it is named.
    pub fn secrets(&self) -> Result<Secrets, Problems> {
        let mut problems = Vec::new();
        let mut read = |file: &Option<std::path::PathBuf>, path: &str| {
            let secret = Secret::read(file.as_deref()?);
            secret.map_err(|why| problems.push(self.layers.problem(path, why))).ok()
        };
        let (api, daemon) = (&self.config.api, &self.config.daemon);
        let secrets = Secrets {
            api_token: read(&api.token_file, "api.token_file"),
            api_key: read(&api.mtls.key_file, "api.mtls.key_file")
                .or_else(|| Some(api.mtls.key_pem.clone()).filter(Secret::is_set)),
            control_token: read(&daemon.token_file, "daemon.token_file"),
            control_key: read(&daemon.tls_key_file, "daemon.tls_key_file"),
        };
        Problems::check(problems)?;
        Ok(secrets)
    }

    /// The token that is [required](crate::Daemon::require_token) of who changes something, and where it is. Made if there
    /// is none.
    ///
    /// # Errors
    /// When it cannot be kept, or others could know it: why, and in which file.
    pub fn own_token(&self) -> Result<(PathBuf, Secret), String> {
        let path = token::path(&self.config.daemon.runtime_config_path);
        token::read_or_make(&Store::new(path.clone(), true)).map(|secret| (path, secret))
    }

    /// Looks at the program of mode `scx`, if that is the mode.
    ///
    /// # Errors
    /// As [`ScxChoice::open`](crate::ScxChoice::open), with the place where the program is named.
    pub fn check_scx(&self) -> Result<(), Problems> {
        let opened = self.config.scx().and_then(|choice| choice.map(|choice| choice.open()).transpose());
        opened.map(drop).map_err(|refused| self.problem("scheduler.scheduler_name", refused.to_string()))
    }

    /// What is wrong with what this key names, with the place where that is.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problems {
        self.layers.problem(path, message).into()
    }

    /// The runtime layer with this patch in it.
    fn merged(&self, patch: &Patch) -> Result<Layer, Problems> {
        let mut layer = self.layers.runtime.clone();
        let mut problems = Vec::new();
        for (&index, (value, place)) in &patch.fields {
            let key = &keys()[index];
            let accepted =
                value.clone().map(|value| self.loader.context().accept(key, Ok(value), None)).transpose();
            match accepted {
                Ok(Some(value)) => drop(layer.0.insert(index, (value, Source::Runtime))),
                Ok(None) => drop(layer.0.remove(&index)),
                Err(message) => {
                    let field = key.runtime.unwrap_or(key.path).to_owned();
                    problems.push(Problem { place: Some(place.clone()), field, message });
                }
            }
        }
        Problems::check(problems)?;
        Ok(layer)
    }

    /// Problems of the whole, at the field of the patch that is about the same key.
    fn in_patch(&self, patch: &Patch, problems: Vec<Problem>) -> Vec<Problem> {
        let placed = |mut problem: Problem| {
            let path = problem.field.trim_end_matches(" (runtime)");
            let found = crate::layer::find(path)
                .and_then(|key| Some((keys()[key].runtime?, patch.fields.get(&key)?)));
            if let Some((field, (_, place))) = found {
                problem.field = field.to_owned();
                problem.place = Some(place.clone());
            }
            problem
        };
        problems.into_iter().map(placed).collect()
    }

    /// A change to a program that is not there or not to be trusted is refused before the scheduler that runs is
    /// detached for it.
    fn look_at_scx(&self, config: &Config, layers: &Layers) -> Vec<Problem> {
        let same = config.scx().is_ok_and(|choice| self.config.scx() == Ok(choice));
        if same || !self.loader.looks_at_scx() {
            return Vec::new();
        }
        let opened = config.scx().and_then(|choice| choice.map(|choice| choice.open()).transpose());
        opened
            .err()
            .map(|refused| layers.problem("scheduler.scheduler_name", refused.to_string()))
            .into_iter()
            .collect()
    }

    /// Takes over what was applied before the restart. What cannot be used is set aside and reported, and the
    /// daemon starts without.
    pub(crate) fn restore(&mut self, store: Store) {
        let outcome = store.read().and_then(|bytes| match bytes {
            None => Ok(()),
            Some(bytes) => self.take_over(&bytes, &store.path.to_string_lossy()),
        });
        if let Err(why) = outcome {
            let shown = store.path.display();
            let now = match self.loader.looks_only().then_some(()).ok_or_else(|| store.set_aside()) {
                Ok(()) => "this look leaves it where it is".to_owned(),
                Err(Ok(aside)) => format!("it is now {}", aside.display()),
                Err(Err(e)) => format!("it could not be set aside: {e}"),
            };
            let message = format!("the applied runtime configuration is not used: {why}; {now}");
            self.said.push(Notice { place: None, field: shown.to_string(), message });
        }
        self.store = Some(store);
        self.note();
    }

    pub(crate) fn take_over(&mut self, bytes: &[u8], name: &str) -> Result<(), String> {
        let name: Arc<str> = name.into();
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text in UTF-8")?;
        let state: Stored<'_> =
            serde_json::from_str(text).map_err(|e| patch::syntax(&e, &name).to_string())?;
        let patch =
            Patch::stored(state.config_version, state.config.get().as_bytes(), &"its field config".into())
                .map_err(|e| e.to_string())?;
        let layers =
            Layers { runtime: self.merged(&patch).map_err(|e| e.to_string())?, ..self.layers.clone() };
        let config = layers.resolve(self.loader.context());
        Problems::check(check::check(&config, &layers).0).map_err(|e| e.to_string())?;
        (self.layers, self.config) = (layers, config);
        let at = UNIX_EPOCH + std::time::Duration::from_secs(state.applied_at);
        self.applied = Some(Applied { version: patch.version().to_owned(), at });
        Ok(())
    }
}

/// What is on disk.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored<'a> {
    config_version: String,
    /// Seconds since 1970. Bounded, since a date far off would overflow.
    #[serde(deserialize_with = "seconds")]
    applied_at: u64,
    #[serde(borrow)]
    config: &'a RawValue,
}

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    // The year 9999.
    Ok(u64::deserialize(deserializer)?.min(253_402_300_799))
}

fn stored(runtime: &Layer, applied: &Applied) -> String {
    let field = |(index, (value, _)): (&usize, &(Value, Source))| {
        Some((keys()[*index].runtime?.to_owned(), value.json()))
    };
    let fields: serde_json::Map<String, Json> = runtime.0.iter().filter_map(field).collect();
    let at = applied.at.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    format!("{:#}\n", json!({ "configVersion": applied.version, "appliedAt": at, "config": fields }))
}

fn now() -> SystemTime {
    // In whole seconds, as it is stored.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

fn shadowed(patch: &Patch, layers: &Layers) -> Vec<Shadowed> {
    let held = |index: &usize| match layers.said(*index).next() {
        Some((value, by @ (Source::Env(_) | Source::Flag(_)))) => {
            Some(Shadowed { path: keys()[*index].path, by: by.clone(), value: value.clone() })
        }
        _ => None,
    };
    patch.fields.keys().filter_map(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_original_s() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_786_957_261, "2026-08-17T09:01:01Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let at = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            assert_eq!(Applied { version: String::new(), at }.at_text(), text);
        }
    }
}
