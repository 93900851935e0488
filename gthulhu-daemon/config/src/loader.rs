//! The way in: name the sources, then load.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::keys;
use crate::kind::quoted;
use crate::layer::{Context, Layer, Layers, find};
use crate::store::Store;
use crate::{Configuration, Notice, Problem, Problems, Source, check, file, suggest};

/// Where the file is unless told.
pub const FILE: &str = "/etc/gthulhu/config.yaml";

/// From where a configuration is loaded. Without anything it is the defaults and what was applied at run time.
///
/// ```
/// use gthulhu_config::Loader;
///
/// # fn main() -> Result<(), gthulhu_config::Problems> {
/// let loaded = Loader::new()
///     .plugins(["gthulhu", "simple", "simple-fifo"])
///     .env([("GTHULHU_SCHEDULER_KERNEL_MODE".into(), "on".into())])
///     .flag("slice-us", ["4000"])
///     .without_runtime()
///     .load()?;
/// assert_eq!(loaded.config().scheduler.slice_ns_default, 4_000_000);
/// assert!(loaded.config().scheduler.kernel_mode);
/// assert!(loaded.explain_text().contains("(flag --slice-us; live)"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Loader {
    context: Context,
    file: Option<PathBuf>,
    file_must_be: bool,
    env: Vec<(OsString, OsString)>,
    flags: Vec<(String, Vec<String>)>,
    sets: Vec<String>,
    runtime: bool,
    look_only: bool,
    /// Whether the program of mode `scx` is looked at before a change to it; tests have none.
    look_at_scx: bool,
    /// Tests may keep state where a daemon may not.
    anywhere: Option<PathBuf>,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            context: Context { plugins: ["gthulhu", "simple", "simple-fifo"].map(str::to_owned).into() },
            file: None,
            file_must_be: false,
            env: Vec::new(),
            flags: Vec::new(),
            sets: Vec::new(),
            runtime: true,
            look_only: false,
            look_at_scx: true,
            anywhere: None,
        }
    }
}

impl Loader {
    /// No file, no environment, no flags; runtime configuration is read, and the plugins are those that come with
    /// the daemon.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plugins of this daemon, the default one first.
    pub fn plugins<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.context.plugins = names.into_iter().map(Into::into).collect();
        self
    }

    /// The file. When it is missing the defaults hold, and a notice says so.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The same, and its absence is an error: for `config check FILE`.
    pub fn existing_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file_must_be = true;
        self.file(path)
    }

    /// The environment: `std::env::vars_os()`. What is not ours is left alone.
    pub fn env(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(vars);
        self
    }

    /// A flag that was given on the command line, without its dashes, and how often: `("option", ["a=1", "b=2"])`.
    /// For a bare one the value is `true`. Flags that only have their default are not for here.
    pub fn flag<S: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = S>) -> Self {
        self.flags.push((name.to_owned(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// `--set PATH=VALUE`: any key, also one without a flag of its own.
    pub fn set(mut self, pair: impl Into<String>) -> Self {
        self.sets.push(pair.into());
        self
    }

    /// Without what was applied at run time, and without a place to keep it.
    pub fn without_runtime(mut self) -> Self {
        self.runtime = false;
        self
    }

    /// Does not touch a saved state that cannot be used: for `config explain`, which is not the daemon.
    pub fn look_only(mut self) -> Self {
        self.look_only = true;
        self
    }

    pub(crate) fn looks_only(&self) -> bool {
        self.look_only
    }

    pub(crate) fn looks_at_scx(&self) -> bool {
        self.look_at_scx
    }

    #[cfg(test)]
    pub(crate) fn without_scx(mut self) -> Self {
        self.look_at_scx = false;
        self
    }

    #[cfg(test)]
    pub(crate) fn keep_anywhere(mut self, path: PathBuf) -> Self {
        self.anywhere = Some(path);
        self
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Loads and checks everything.
    ///
    /// # Errors
    /// All that is wrong with the file, the environment and the flags. What was applied at run time and cannot be
    /// used any more is no error: it is set aside, and a notice says so.
    pub fn load(&self) -> Result<Configuration, Problems> {
        let mut problems = Vec::new();
        let mut notices = Vec::new();
        let mut layers = Layers { flags: self.read_flags(&mut problems), ..Layers::default() };
        layers.env = self.read_env(&mut problems, &mut notices);
        layers.file = self.read_file(&mut problems, &mut notices);
        Problems::check(problems)?;
        let (problems, _) = check::check(&layers.resolve(&self.context), &layers);
        Problems::check(problems)?;

        let mut loaded = Configuration::new(self.clone(), layers, notices);
        if self.runtime {
            let path =
                self.anywhere.clone().unwrap_or_else(|| loaded.config().daemon.runtime_config_path.clone());
            loaded.restore(Store::new(path, self.anywhere.is_none()));
        }
        Ok(loaded)
    }

    fn read_file(&self, problems: &mut Vec<Problem>, notices: &mut Vec<Notice>) -> Layer {
        let Some(path) = &self.file else { return Layer::default() };
        let name: Arc<str> = path.to_string_lossy().into();
        let about = |message: &str| Problem { place: None, field: name.to_string(), message: message.into() };
        match file::read(path) {
            Err(problem) => problems.push(problem),
            Ok(None) if self.file_must_be => problems.push(about("there is no such file")),
            Ok(None) => notices.push(about("there is no such file: the defaults hold")),
            Ok(Some(text)) => {
                notices.extend(
                    text.others_write
                        .map(|who| about(&format!("{who} may write it, and so decides what root runs"))),
                );
                let said = file::interpret(&text.bytes, text.mode, &name, &self.context);
                problems.extend(said.problems);
                notices.extend(said.notices);
                return said.layer;
            }
        }
        Layer::default()
    }

    fn read_env(&self, problems: &mut Vec<Problem>, notices: &mut Vec<Notice>) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in &self.env {
            let Some(name) = name.to_str().filter(|n| n.starts_with("GTHULHU_") || *n == "NODE_NAME") else {
                continue;
            };
            let Some(index) = keys().iter().position(|key| key.env().as_deref() == Some(name)) else {
                notices.extend(unknown_variable(name, value));
                continue;
            };
            let mut wrong =
                |message: String| problems.push(Problem { place: None, field: name.to_owned(), message });
            let Some(value) = value.to_str() else {
                wrong("is no text in UTF-8".into());
                continue;
            };
            let key = &keys()[index];
            match self.context.accept(key, key.kind.parse_joined(value), None) {
                Ok(value) => drop(layer.0.insert(index, (value, Source::Env(name.to_owned())))),
                // Kubernetes sets PREFIX_PORT=tcp://… for each service of the namespace.
                Err(message) if value.starts_with("tcp://") => {
                    wrong(format!(
                        "{message}. Kubernetes sets such variables for services: enableServiceLinks: false in the pod"
                    ));
                }
                Err(message) => wrong(message),
            }
        }
        layer
    }

    fn read_flags(&self, problems: &mut Vec<Problem>) -> Layer {
        let mut layer = Layer::default();
        let mut add =
            |index: usize, shown: String, value: Result<crate::Value, String>, flag: Option<crate::Flag>| {
                let accepted = self.context.accept(&keys()[index], value, flag);
                let outcome = accepted.and_then(|value| match layer.0.get(&index) {
                    Some((_, Source::Flag(earlier))) => Err(format!("was said before, by {earlier}")),
                    _ => {
                        layer.0.insert(index, (value, Source::Flag(shown.clone())));
                        Ok(())
                    }
                });
                if let Err(message) = outcome {
                    problems.push(Problem { place: None, field: shown, message });
                }
            };
        let mut unknown = Vec::new();
        for (name, values) in &self.flags {
            let shown = format!("--{name}");
            let found = keys()
                .iter()
                .enumerate()
                .find_map(|(i, key)| Some((i, key.flag.filter(|f| f.name == name)?)));
            let Some((index, flag)) = found else {
                unknown.push((
                    shown,
                    format!(
                        "is no flag of a key{}",
                        suggest::hint(name, keys().iter().filter_map(|k| Some(k.flag?.name)))
                    ),
                ));
                continue;
            };
            let kind = &keys()[index].kind;
            let value = match values.as_slice() {
                [one] => kind.parse(one, flag.scale),
                _ => kind.list(values.clone()),
            };
            add(index, shown, value, Some(flag));
        }
        for pair in &self.sets {
            let (path, value) = pair.split_once('=').unwrap_or((pair, ""));
            let shown = format!("--set {path}");
            match find(path) {
                _ if !pair.contains('=') => unknown.push((shown, "has the form --set PATH=VALUE".into())),
                // On the command line everybody sees it.
                Some(index) if matches!(keys()[index].kind, crate::Kind::Secret) => {
                    unknown.push((
                        shown,
                        "a private key cannot be given on the command line, which everybody can see".into(),
                    ));
                }
                Some(index) => {
                    let kind = &keys()[index].kind;
                    add(index, shown, kind.parse_joined(value), None);
                }
                None => unknown.push((
                    shown,
                    format!(
                        "{} is no key{}",
                        quoted(path),
                        suggest::hint(path, keys().iter().map(|k| k.path))
                    ),
                )),
            }
        }
        problems.extend(unknown.into_iter().map(|(field, message)| Problem { place: None, field, message }));
        layer
    }
}

/// A word about a variable with our prefix that is none of ours. Kubernetes makes some for services whose names
/// begin so.
fn unknown_variable(name: &str, value: &OsStr) -> Option<Notice> {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.as_encoded_bytes().starts_with(scheme.as_bytes()));
    if is_address || name.contains("_SERVICE_") || name.contains("_PORT_") {
        return None;
    }
    let known: Vec<String> = keys().iter().filter_map(crate::Key::env).collect();
    let hint = suggest::hint(name, known.iter().map(String::as_str));
    Some(Notice {
        place: None,
        field: name.into(),
        message: format!("is no variable of a key, and has no effect{hint}"),
    })
}

/// Whether this file is a configuration: what `config check FILE` says. Nothing but the file is looked at.
///
/// # Errors
/// All that is wrong with it; that it is missing, too.
pub fn check_file<S: Into<String>>(
    path: &Path,
    plugins: impl IntoIterator<Item = S>,
) -> Result<Vec<Notice>, Problems> {
    let loaded = Loader::new().plugins(plugins).existing_file(path).without_runtime().load()?;
    Ok(loaded.notices().to_vec())
}
