//! The file: from a tree of YAML to what it says about each key.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::config::{IGNORED, keys};
use crate::kind::{Kind, quoted};
use crate::layer::{Context, Layer, find};
use crate::tree::{self, Name, Node, What};
use crate::value::Value;
use crate::{Notice, Place, Problem, Source, suggest};

/// Longer is no configuration.
const FILE_MAX: u64 = 1024 * 1024;

/// What a file says: the values, and what whoever wrote it should know.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) layer: Layer,
    pub(crate) notices: Vec<Notice>,
    pub(crate) problems: Vec<Problem>,
}

/// A file as it was read, with its mode.
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Who besides root and us may write it.
    pub(crate) others_write: Option<String>,
}

/// Reads the file; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Text>, Problem> {
    let wrong = |message: String| Problem { place: None, field: path.display().to_string(), message };
    if path.extension().is_some_and(|e| e == "toml") {
        return Err(wrong("the node's configuration is YAML, as the original's; TOML is for the manager and the decision maker".into()));
    }
    // Not to wait for a writer where somebody has put a pipe.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(nonblock).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(format!("cannot be read: {e}"))),
    };
    let meta = file.metadata().map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if !meta.is_file() {
        return Err(wrong("is no file".into()));
    }
    // Whoever writes it says what root runs and loads.
    if meta.mode() & 0o002 != 0 {
        return Err(wrong(format!(
            "everybody may write it (mode {:04o}); chmod o-w {}",
            meta.mode() & 0o7777,
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(wrong(format!("is longer than {FILE_MAX} bytes")));
    }
    let us = rustix::process::geteuid().as_raw();
    let others_write = if meta.uid() != 0 && meta.uid() != us {
        Some(format!("user {}", meta.uid()))
    } else {
        (meta.gid() != 0 && meta.mode() & 0o020 != 0).then(|| format!("group {}", meta.gid()))
    };
    Ok(Some(Text { bytes, mode: meta.mode(), others_write }))
}

/// What the text says. `mode` are the permissions of its file.
pub(crate) fn interpret(bytes: &[u8], mode: u32, name: &Arc<str>, context: &Context) -> Said {
    let mut said = Said::default();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let place = Some(tree::place_of(bytes, e.valid_up_to(), name));
            said.problems.push(Problem {
                place,
                field: String::new(),
                message: "is no text in UTF-8".into(),
            });
            return said;
        }
    };
    match tree::parse(text, name) {
        Err(problem) => said.problems.push(problem),
        Ok(None) => {}
        Ok(Some(Node { what: What::Map(entries), .. })) => {
            said.walk("", &entries, context);
            said.keep_private(mode, name);
        }
        Ok(Some(Node { what: What::Null, .. })) => {}
        Ok(Some(node)) => said.wrong(node.place, "", "a configuration begins with a key, such as scheduler:"),
    }
    said
}

impl Said {
    fn wrong(&mut self, place: Place, field: &str, message: impl Into<String>) {
        self.problems.push(Problem { place: Some(place), field: field.into(), message: message.into() });
    }

    /// One mapping: keys, sections, what is ignored, and what is unknown.
    fn walk(&mut self, prefix: &str, entries: &[(Name, Node)], context: &Context) {
        for (name, node) in entries {
            let path = format!("{prefix}{}", name.text);
            if let Some(key) = find(&path) {
                self.key(key, node, context);
            } else if let Some((_, why)) = IGNORED.iter().find(|(ignored, _)| *ignored == path) {
                self.notices.push(Notice {
                    place: Some(name.place.clone()),
                    field: path,
                    message: (*why).into(),
                });
            } else if is_section(&path) {
                match &node.what {
                    What::Map(entries) => self.walk(&format!("{path}."), entries, context),
                    What::Null => {}
                    _ => self.wrong(
                        node.place.clone(),
                        &path,
                        format!("is a section; known in it: {}", children(&path).join(", ")),
                    ),
                }
            } else {
                let message = unknown(prefix, &name.text);
                self.wrong(name.place.clone(), &shown(&path), message);
            }
        }
    }

    fn key(&mut self, index: usize, node: &Node, context: &Context) {
        let key = &keys()[index];
        let value = match (&key.kind, &node.what) {
            // Written and left empty: as if it was not written.
            (_, What::Null) => return,
            (Kind::Switch, What::Quoted(text)) => {
                Err(format!("\"{text}\" is a text; write it without quotes"))
            }
            (Kind::Number { .. }, What::Quoted(text)) => {
                Err(format!("\"{text}\" is a text; write it without quotes"))
            }
            (Kind::Pairs, What::List(items)) => texts(items).map(Value::List),
            (Kind::Pairs, What::Map(entries)) => pairs(entries).map(Value::List),
            (Kind::Pairs, _) => Err("is no list".into()),
            (kind, What::Plain(text) | What::Quoted(text)) => kind.parse(text, 1),
            (_, What::Map(_)) => Err("is a section".into()),
            (_, What::List(_)) => Err("is a list".into()),
        };
        let place = node.place.clone();
        match context.accept(key, value, None) {
            Ok(value) => drop(self.layer.0.insert(index, (value, Source::File(place)))),
            Err(message) => self.wrong(place, key.path, message),
        }
    }

    /// A private key in a file that others may read is none.
    fn keep_private(&mut self, mode: u32, name: &str) {
        if mode & 0o077 == 0 {
            return;
        }
        let secret = |value: &Value| matches!(value, Value::Secret(secret) if secret.is_set());
        let found = self.layer.0.iter().find(|(_, (value, _))| secret(value));
        if let Some((index, (_, Source::File(place)))) = found {
            let message = format!(
                "a private key is in a file that others can read (mode {:04o}): chmod 600 {name}, or put the key into a file of its own \
                 and name that in api.mtls.key_file",
                mode & 0o7777
            );
            let (place, path) = (place.clone(), keys()[*index].path);
            self.wrong(place, path, message);
        }
    }
}

fn texts(items: &[Node]) -> Result<Vec<String>, String> {
    items
        .iter()
        .map(|item| text(item).ok_or_else(|| "is a list of something else than texts".to_owned()))
        .collect()
}

fn pairs(entries: &[(Name, Node)]) -> Result<Vec<String>, String> {
    let pair = |(name, node): &(Name, Node)| {
        let value = text(node).ok_or_else(|| format!("{} is no text", quoted(&name.text)))?;
        Ok(format!("{}={value}", name.text))
    };
    entries.iter().map(pair).collect()
}

fn text(node: &Node) -> Option<String> {
    match &node.what {
        What::Plain(text) | What::Quoted(text) => Some(text.clone()),
        What::Null => Some(String::new()),
        _ => None,
    }
}

/// All paths that may stand in a file.
fn paths() -> impl Iterator<Item = &'static str> {
    keys().iter().map(|key| key.path).chain(IGNORED.iter().map(|(path, _)| *path))
}

pub(crate) fn is_section(path: &str) -> bool {
    paths().any(|known| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names right below a section; at the top below nothing.
fn children(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for path in keys().iter().map(|key| key.path) {
        let rest = if section.is_empty() {
            Some(path)
        } else {
            path.strip_prefix(section).and_then(|r| r.strip_prefix('.'))
        };
        let Some(name) = rest.and_then(|rest| rest.split('.').next()) else { continue };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A name that somebody wrote may be anything.
fn shown(path: &str) -> String {
    let quoted = quoted(path);
    quoted[1..quoted.len() - 1].to_owned()
}

/// An unknown key: the nearest one here, or the same word elsewhere, or the flag that it is.
pub(crate) fn unknown(prefix: &str, name: &str) -> String {
    let section = prefix.trim_end_matches('.');
    let here = children(section);
    let plain = suggest::plain(name);
    let elsewhere = || keys().iter().find(|key| suggest::plain(key.name()) == plain).map(|key| key.path);
    let flag = || keys().iter().find(|key| key.flag.is_some_and(|flag| suggest::plain(flag.name) == plain));
    let hint = if let Some(near) = suggest::nearest(name, here.iter().copied()) {
        format!("; did you mean {prefix}{near}?")
    } else if let Some(path) = elsewhere() {
        format!("; did you mean {path}?")
    } else if let Some((key, flag)) = flag().and_then(|key| Some((key, key.flag?))) {
        let unit = if flag.unit.is_empty() { String::new() } else { format!(", and not in {}", flag.unit) };
        format!("; the key of --{} is {}{unit}", flag.name, key.path)
    } else {
        suggest::hint(name, keys().iter().map(|key| key.path))
    };
    let known = if section.is_empty() { "known at the top".into() } else { format!("known in {section}") };
    format!("is no key{hint}; {known}: {}", here.join(", "))
}
