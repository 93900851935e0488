//! The configuration as a text: a file to begin with, the values as YAML, and the reference page.

use crate::config::{IGNORED, keys};
use crate::explain::cost;
use crate::kind::Kind;
use crate::value::Value;
use crate::{Config, Key, Mode};

/// A file with every key, what it means and what is allowed: what `config default` prints. The keys are comments
/// with their defaults in them, so that the file changes nothing until a line is made one of its own.
pub fn default_file<S: Into<String>>(plugins: impl IntoIterator<Item = S>) -> String {
    let plugins: Vec<String> = plugins.into_iter().map(Into::into).collect();
    let mut config = Config::default();
    if let Some(first) = plugins.first() {
        config.scheduler.mode = Mode::named(first);
    }
    let mut text = String::from(
        "# Configuration of gthulhu-daemon. Every key is here, with its default: take the '#' away before a key to change it.\n\
         # A flag is stronger than the environment, that than applied runtime configuration, that than this file.\n\
         # `gthulhu-daemon config check FILE` looks for mistakes, `gthulhu-daemon config explain` says what holds, and why.\n",
    );
    each_key(|depth, header, key| {
        if let Some(name) = header {
            text += &format!("{}{}{name}:\n", if depth == 1 { "\n" } else { "" }, "  ".repeat(depth - 1));
        }
        let indent = "  ".repeat(depth);
        for line in
            wrap(&format!("{} Allowed: {}; {}.", key.doc(), key.kind.allowed(&plugins), cost(key)), 100)
        {
            text += &format!("{indent}# {line}\n");
        }
        text += &format!("{indent}#{}: {}\n", key.name(), yaml(&key.get(&config)));
    });
    text
}

impl Config {
    /// All values as YAML that [`Loader`](crate::Loader) reads as this configuration again. Secrets are left out: a
    /// comment says where one is set.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        each_key(|depth, header, key| {
            if let Some(name) = header {
                text += &format!("{}{name}:\n", "  ".repeat(depth - 1));
            }
            let indent = "  ".repeat(depth);
            let (name, value) = (key.name(), key.get(self));
            text += &match value {
                Value::Secret(secret) => format!("{indent}# {name}: {secret}\n"),
                value => format!("{indent}{name}: {}\n", yaml(&value)),
            };
        });
        text
    }
}

/// The reference page, `docs/configuration.md`.
pub fn reference() -> String {
    let plugins: Vec<String> = ["gthulhu", "simple", "simple-fifo"].map(str::to_owned).into();
    let mut text = String::from(include_str!("reference.md"));
    each_key(|_, header, key| {
        if header.is_some() {
            text += &format!("\n## `{}`\n", key.section());
        } else if key.path == keys()[0].path {
            text += "\n## At the top\n";
        }
        text += &format!("\n### `{}`\n\n{}\n\n", key.path, key.doc().replace('<', "&lt;"));
        let default = match key.default() {
            Value::Text(text) if text.is_empty() => "not set".to_owned(),
            Value::List(texts) if texts.is_empty() => "none".to_owned(),
            Value::Secret(_) => "not set".to_owned(),
            value => format!("`{value}`"),
        };
        let mut ways = vec![format!("`--set {}=…`", key.path)];
        if matches!(key.kind, Kind::Secret) {
            ways.clear();
        }
        ways.splice(
            0..0,
            key.flag.map(|flag| {
                let unit = if flag.unit.is_empty() { String::new() } else { format!(" (in {})", flag.unit) };
                format!("`--{}`{unit}", flag.name)
            }),
        );
        ways.extend(key.env().map(|env| format!("`{env}`")));
        ways.extend(key.runtime.map(|field| format!("runtime `{field}`")));
        let ways = if ways.is_empty() { "the file only".into() } else { ways.join(", ") };
        text += &format!(
            "| default | allowed | a change | also set by |\n| --- | --- | --- | --- |\n| {default} | {} | {} | {ways} |\n",
            key.kind.allowed(&plugins).replace('|', "\\|"),
            cost(key),
        );
    });
    text += "\n## Accepted, without effect\n\n";
    for (path, why) in IGNORED {
        text += &format!("- `{path}` {why}.\n");
    }
    text
}

/// Calls with each key, its depth, and the name of the section that begins with it.
fn each_key(mut each: impl FnMut(usize, Option<&'static str>, &'static Key)) {
    let mut section = "";
    for key in keys() {
        let depth = key.path.split('.').count() - 1;
        let header = (key.section() != section).then(|| key.section().rsplit('.').next().unwrap_or_default());
        section = key.section();
        each(depth, header, key);
    }
}

fn yaml(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Text(text) => scalar(text),
        Value::List(texts) => format!("[{}]", texts.iter().map(|t| quote(t)).collect::<Vec<_>>().join(", ")),
        Value::Secret(_) => scalar(""),
    }
}

/// Plain where nothing in it could mean something else.
fn scalar(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    if begins && text.bytes().all(plain) && text != "null" && text != "Null" && text != "NULL" {
        text.to_owned()
    } else {
        quote(text)
    }
}

/// A double-quoted scalar. JSON's form is one of YAML's, but for characters beyond ASCII that YAML counts as not
/// printable: all of them are written by their number.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted += "\\n",
            ' '..='~' => quoted.push(c),
            c => quoted += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    quoted + "\""
}

/// Lines of at most so many characters, where words allow it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.len() - 1;
        if !lines[line].is_empty() && lines[line].chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !lines[line].is_empty() {
                lines[line].push(' ');
            }
            lines[line] += word;
        }
    }
    lines
}
