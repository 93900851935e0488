//! Runtime configuration as it arrives: the original's JSON, where a field that is absent keeps, `null` takes back,
//! and every other value counts, `false` and zero among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::keys;
use crate::kind::{Kind, quoted};
use crate::value::Value;
use crate::{Place, Problem, Problems, suggest, tree};

/// The field that says which state this is.
const VERSION: &str = "configVersion";
/// Longer is no patch.
const BODY_MAX: usize = 64 * 1024;
/// Longer is no version.
const VERSION_MAX: usize = 256;

/// A change of the runtime configuration, as it was asked for.
///
/// The fields are the original's: `configVersion` (required), `mode`, `schedulerName`, `sliceNsDefault`,
/// `sliceNsMin`, `kernelMode`, `maxTimeWatchdog`, `earlyProcessing`, `builtinIdle`, `schedulerEnabled`,
/// `monitoringEnabled`; and those of our own keys that can change at run time (see
/// [`Key::runtime`](crate::Key::runtime)).
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    version: String,
    pub(crate) fields: BTreeMap<usize, (Option<Value>, Place)>,
}

impl Patch {
    /// Reads a patch from JSON. `name` is what the text is called in errors: `request`, a file.
    ///
    /// # Errors
    /// When it is no JSON object, has no `configVersion`, a field twice, an unknown field, or a value of the wrong
    /// type; each with line, column and field. Ranges are checked when it is
    /// [applied](crate::Configuration::apply).
    pub fn parse(body: &[u8], name: &str) -> Result<Self, Problems> {
        let name: Arc<str> = name.into();
        let (version, fields) = parse(body, &name, true)?;
        match version {
            Some(version) => Ok(Self { version, fields }),
            None => {
                let place =
                    Some(tree::place_of(body, body.iter().position(|b| *b == b'{').unwrap_or(0), &name));
                Err(Problem {
                    place,
                    field: VERSION.into(),
                    message: "is missing: which state of the configuration is this?".into(),
                }
                .into())
            }
        }
    }

    /// Which state this is, in the words of whoever sent it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What was stored: the fields alone.
    pub(crate) fn stored(version: String, fields: &[u8], name: &Arc<str>) -> Result<Self, Problems> {
        Ok(Self { version, fields: parse(fields, name, false)?.1 })
    }
}

type Fields = BTreeMap<usize, (Option<Value>, Place)>;

fn parse(body: &[u8], name: &Arc<str>, with_version: bool) -> Result<(Option<String>, Fields), Problems> {
    let text = std::str::from_utf8(body).map_err(|e| {
        let place = Some(tree::place_of(body, e.valid_up_to(), name));
        Problem { place, field: String::new(), message: "is no text in UTF-8".into() }
    })?;
    if body.len() > BODY_MAX {
        let place = Some(tree::place_of(body, BODY_MAX, name));
        return Err(Problem {
            place,
            field: String::new(),
            message: format!("is longer than {BODY_MAX} bytes"),
        }
        .into());
    }
    let object: Object<'_> = serde_json::from_str(text).map_err(|e| syntax(&e, name))?;
    let mut version = None;
    let mut fields = Fields::new();
    let mut problems = Vec::new();
    for (field, value) in &object.0 {
        let at =
            |raw: &RawValue| tree::place_of(body, raw.get().as_ptr() as usize - text.as_ptr() as usize, name);
        let field_name: String = serde_json::from_str(field.get()).unwrap_or_default();
        let mut wrong = |place: Place, message: String| {
            let shown = quoted(&field_name);
            problems.push(Problem {
                place: Some(place),
                field: shown[1..shown.len() - 1].to_owned(),
                message,
            });
        };
        // A value that serde_json has taken as raw may still be too large a number.
        let parsed: serde_json::Value = match serde_json::from_str(value.get()) {
            Ok(parsed) => parsed,
            Err(_) => {
                wrong(at(value), "is out of range".into());
                continue;
            }
        };
        if field_name == VERSION && with_version {
            match parsed {
                _ if version.is_some() => wrong(at(field), "is given twice".into()),
                serde_json::Value::String(v) if !v.is_empty() && v.len() <= VERSION_MAX => version = Some(v),
                _ => wrong(at(value), format!("is a text of 1 to {VERSION_MAX} bytes")),
            }
            continue;
        }
        let Some(index) = keys().iter().position(|key| key.runtime == Some(&field_name)) else {
            wrong(at(field), unknown(&field_name));
            continue;
        };
        if fields.contains_key(&index) {
            wrong(at(field), "is given twice".into());
            continue;
        }
        match typed(&keys()[index].kind, parsed) {
            Ok(typed) => drop(fields.insert(index, (typed, at(value)))),
            Err(message) => wrong(at(value), message),
        }
    }
    Problems::check(problems)?;
    Ok((version, fields))
}

/// `None` for null.
fn typed(kind: &Kind, value: serde_json::Value) -> Result<Option<Value>, String> {
    use serde_json::Value as Json;
    match (kind, value) {
        (_, Json::Null) => Ok(None),
        (Kind::Switch, Json::Bool(on)) => Ok(Some(Value::Bool(on))),
        (Kind::Number { .. }, Json::Number(n)) => kind.parse(&n.to_string(), 1).map(Some),
        (Kind::Mode | Kind::Text { .. }, Json::String(text)) => Ok(Some(Value::Text(text))),
        (Kind::Pairs, Json::Array(items)) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.map(|texts| Some(Value::List(texts))).ok_or_else(|| "is a list of texts NAME=VALUE".into())
        }
        (_, other) => {
            let is = match other {
                Json::Bool(_) => "a bool",
                Json::Number(_) => "a number",
                Json::String(_) => "a text",
                Json::Array(_) => "a list",
                _ => "an object",
            };
            let wanted = match kind {
                Kind::Switch => "true or false",
                Kind::Number { .. } => "a whole number",
                Kind::Pairs => "a list of texts NAME=VALUE",
                _ => "a text",
            };
            Err(format!("is {is}; allowed: {wanted}, or null to take it back"))
        }
    }
}

fn unknown(name: &str) -> String {
    if let Some(key) =
        keys().iter().find(|key| key.path == name || (key.name() == name && key.runtime.is_some()))
    {
        return match key.runtime {
            Some(field) => format!("is no field; did you mean {field}?"),
            None => "cannot be changed at run time; change the file and restart".into(),
        };
    }
    let known = || keys().iter().filter_map(|key| key.runtime);
    let list: Vec<&str> = std::iter::once(VERSION).chain(known()).collect();
    format!("is no field{}; known: {}", suggest::hint(name, list.iter().copied()), list.join(", "))
}

/// What serde_json says, without its own position at the end.
pub(crate) fn syntax(error: &serde_json::Error, name: &Arc<str>) -> Problem {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let place = Place { file: name.clone(), line: error.line().max(1), column: error.column().max(1) };
    Problem {
        place: Some(place),
        field: String::new(),
        message: format!("is no JSON object of fields: {message}"),
    }
}

/// An object whose names and values are still text, so that each knows where it stands.
struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
