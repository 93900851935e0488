//! Where each value comes from.

use serde_json::json;

use crate::config::keys;
use crate::value::Value;
use crate::{Configuration, Effect, Key, Source};

/// One key, its value, and why it is that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: &'static Key,
    /// Its value. Secrets show themselves as `(set)` only.
    pub value: Value,
    /// From where it is.
    pub source: Source,
    /// Who else said something, and was weaker; the strongest first.
    pub overridden: Vec<(Value, Source)>,
}

impl Configuration {
    /// Each key with its value and its source, in the order of the reference.
    pub fn explain(&self) -> Vec<Explanation> {
        let each = keys().iter().enumerate().map(|(index, key)| {
            let mut said = self.layers.said(index).cloned();
            let (value, source) = said
                .next()
                .unwrap_or_else(|| (key.get(&self.loader().context().defaults()), Source::Default));
            Explanation { key, value, source, overridden: said.collect() }
        });
        each.collect()
    }

    /// The same for people: value, source and cost, and what the key means.
    pub fn explain_text(&self) -> String {
        let mut text = String::new();
        for e in self.explain() {
            let (path, value) = (e.key.path, one_line(&e.value));
            text += &format!("{path} = {value}  ({}; {})\n", e.source, cost(e.key));
            text += &format!("    {}\n", e.key.doc());
            for (value, source) in &e.overridden {
                text += &format!("    overridden: {} ({source})\n", one_line(value));
            }
        }
        text
    }

    /// The same for programs: an object with a member for each key.
    pub fn explain_json(&self) -> serde_json::Value {
        let plugins = &self.loader().context().plugins;
        let member = |e: Explanation| {
            let overridden: Vec<_> = e
                .overridden
                .iter()
                .map(|(value, source)| json!({ "value": value.json(), "source": source.to_string() }))
                .collect();
            let place = match &e.source {
                Source::File(place) => {
                    json!({ "file": *place.file, "line": place.line, "column": place.column })
                }
                _ => serde_json::Value::Null,
            };
            let object = json!({
                "value": e.value.json(),
                "secret": matches!(e.value, Value::Secret(_)),
                "default": e.key.get(&self.loader().context().defaults()).json(),
                "source": e.source.name(),
                "from": e.source.to_string(),
                "place": place,
                "overridden": overridden,
                "effect": e.key.effect.name(),
                "allowed": e.key.kind.allowed(plugins),
                "flag": e.key.flag.map(|flag| format!("--{}", flag.name)),
                "env": e.key.env(),
                "runtime": e.key.runtime,
                "meaning": e.key.doc(),
            });
            (e.key.path.to_owned(), object)
        };
        serde_json::Value::Object(self.explain().into_iter().map(member).collect())
    }
}

/// What a change costs, where it depends in words.
pub(crate) fn cost(key: &Key) -> &'static str {
    match key.kind {
        crate::Kind::Mode => "live between plugins; to and from none and scx re-attaches",
        _ => match key.effect {
            Effect::Live => "live",
            Effect::Reattach => "re-attaches",
            Effect::Restart => "at the daemon's start",
        },
    }
}

/// A certificate is many lines.
fn one_line(value: &Value) -> String {
    let text = value.to_string();
    match text.split_once('\n') {
        Some((first, rest)) => format!("{first} … ({} lines)", rest.lines().count() + 1),
        None => text,
    }
}
