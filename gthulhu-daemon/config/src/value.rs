//! The four shapes of a value, and how the fields of the typed configuration become them and back.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::{Mode, Secret, Transport};

/// A value as a source gives it. "Not set" is the empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Bool(bool),
    /// A number, in the unit of its key.
    Number(u64),
    /// A text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
    /// What is never shown.
    Secret(Secret),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(on) => write!(f, "{on}"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(text) if text.is_empty() => f.write_str("(not set)"),
            Self::Text(text) => f.write_str(text),
            Self::List(texts) if texts.is_empty() => f.write_str("(none)"),
            Self::List(texts) => f.write_str(&texts.join(", ")),
            Self::Secret(secret) => write!(f, "{secret}"),
        }
    }
}

impl Value {
    /// For programs; a secret is `true` when it is set.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Bool(on) => (*on).into(),
            Self::Number(n) => (*n).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(texts) => texts.as_slice().into(),
            Self::Secret(secret) => secret.is_set().into(),
        }
    }
}

/// A field of the typed configuration. `set` is false when the value cannot be held: the key's kind should have
/// refused it before, and the tests of the table see to that.
pub(crate) trait Field {
    fn value(&self) -> Value;
    fn set(&mut self, value: &Value) -> bool;
}

impl Field for bool {
    fn value(&self) -> Value {
        Value::Bool(*self)
    }

    fn set(&mut self, value: &Value) -> bool {
        let Value::Bool(on) = value else { return false };
        *self = *on;
        true
    }
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl Field for $type {
            fn value(&self) -> Value {
                Value::Number(u64::from(*self))
            }

            fn set(&mut self, value: &Value) -> bool {
                let Value::Number(n) = value else { return false };
                <$type>::try_from(*n).map(|n| *self = n).is_ok()
            }
        }
    )* };
}
numbers!(u16 u32 u64);

impl Field for Vec<String> {
    fn value(&self) -> Value {
        Value::List(self.clone())
    }

    fn set(&mut self, value: &Value) -> bool {
        let Value::List(texts) = value else { return false };
        self.clone_from(texts);
        true
    }
}

impl Field for Secret {
    fn value(&self) -> Value {
        Value::Secret(self.clone())
    }

    fn set(&mut self, value: &Value) -> bool {
        let Value::Secret(secret) = value else { return false };
        self.clone_from(secret);
        true
    }
}

/// What is written as a text.
macro_rules! texts {
    ($($type:ty: |$self:ident| $to:expr, |$text:ident| $from:expr;)*) => { $(
        impl Field for $type {
            fn value(&self) -> Value {
                let $self = self;
                Value::Text($to)
            }

            fn set(&mut self, value: &Value) -> bool {
                let Value::Text($text) = value else { return false };
                let new: Option<$type> = $from;
                new.map(|new| *self = new).is_some()
            }
        }
    )* };
}
texts! {
    String: |s| s.clone(), |text| Some(text.clone());
    PathBuf: |s| s.to_string_lossy().into_owned(), |text| Some(text.into());
    Option<String>: |s| s.clone().unwrap_or_default(), |text| Some((!text.is_empty()).then(|| text.clone()));
    Option<PathBuf>: |s| s.as_ref().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
        |text| Some((!text.is_empty()).then(|| text.into()));
    Option<SocketAddr>: |s| s.map(|a| a.to_string()).unwrap_or_default(),
        |text| if text.is_empty() { Some(None) } else { crate::kind::socket_addr(text).ok().map(Some) };
    IpAddr: |s| s.to_string(), |text| text.parse().ok();
    Mode: |s| s.to_string(), |text| Some(Mode::named(text));
    Transport: |s| s.name().to_owned(), |text| Transport::named(text);
}
