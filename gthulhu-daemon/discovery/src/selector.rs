//! Label selectors, with the meaning that Kubernetes gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// The labels of a pod.
pub type Labels = BTreeMap<String, String>;

/// Which labels are wanted: all of what is said here. Nothing said is every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is wanted of it.
    pub operator: Operator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What is wanted of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// It is there with one of the values.
    In,
    /// It is there with another value, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// What cannot be meant: see the errors.
    ///
    /// # Errors
    /// A key or value that no label can have; `In` or `NotIn` without values; `Exists` or `DoesNotExist` with
    /// some. The error names the field.
    pub fn check(&self) -> Result<()> {
        for (key, value) in &self.match_labels {
            check_key("matchLabels", key)?;
            check_value(&format!("matchLabels[{key}]"), value)?;
        }
        for (at, requirement) in self.match_expressions.iter().enumerate() {
            let field = format!("matchExpressions[{at}]");
            check_key(&format!("{field}.key"), &requirement.key)?;
            for value in &requirement.values {
                check_value(&format!("{field}.values"), value)?;
            }
            let wants_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
            if wants_values == requirement.values.is_empty() {
                let must = if wants_values { "needs at least one" } else { "takes none" };
                let what = format!("{field}.values: {:?} {must}", requirement.operator);
                return Err(Error::new(ErrorKind::Selector, what));
            }
        }
        Ok(())
    }

    /// Whether a pod with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it says nothing, and so means every pod.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl Requirement {
    /// Whether a pod with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// `[prefix/]name`: the prefix a DNS name of at most 253 bytes, the name as a value, but not empty.
fn check_key(field: &str, key: &str) -> Result<()> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let dns = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let prefix_is_fine = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(dns));
    if name.is_empty() || !is_value(name) || !prefix_is_fine {
        let what = format!(
            "{field}: `{}` is no label: give at most 63 letters, digits, `-`, `_` and `.`, beginning and ending \
             with a letter or digit, if wanted behind a DNS name and a `/`",
            key.chars().take(80).collect::<String>()
        );
        return Err(Error::new(ErrorKind::Selector, what));
    }
    Ok(())
}

fn check_value(field: &str, value: &str) -> Result<()> {
    if is_value(value) {
        return Ok(());
    }
    let what = format!(
        "{field}: `{}` is no value of a label: give at most 63 letters, digits, `-`, `_` and `.`, beginning and \
         ending with a letter or digit",
        value.chars().take(80).collect::<String>()
    );
    Err(Error::new(ErrorKind::Selector, what))
}

fn is_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && edge(bytes.first())
        && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.into(), value.into())).collect()
    }

    fn expression(key: &str, operator: Operator, values: &[&str]) -> Selector {
        let values = values.iter().map(|value| value.to_string()).collect();
        Selector {
            match_expressions: vec![Requirement { key: key.into(), operator, values }],
            ..Selector::default()
        }
    }

    #[test]
    fn all_labels_must_have_exactly_these_values() {
        let selector = Selector { match_labels: labels("app=web,tier=front"), ..Selector::default() };
        for (pod, meant) in [
            ("app=web,tier=front,x=y", true),
            ("app=web", false),
            ("app=web,tier=back", false),
            ("app=webs,tier=front", false),
            ("", false),
        ] {
            assert_eq!(selector.matches(&labels(pod)), meant, "{pod}");
        }
        assert!(Selector::default().is_empty() && Selector::default().matches(&labels("")));
    }

    /// As k8s.io/apimachinery's labels package: a label that is not there is `NotIn` anything.
    #[test]
    fn expressions_mean_what_kubernetes_says() {
        use Operator::*;
        for (selector, web, db, none) in [
            (expression("app", In, &["web", "api"]), true, false, false),
            (expression("app", NotIn, &["web", "api"]), false, true, true),
            (expression("app", Exists, &[]), true, true, false),
            (expression("app", DoesNotExist, &[]), false, false, true),
        ] {
            let found = ["app=web", "app=db", "x=y"].map(|pod| selector.matches(&labels(pod)));
            assert_eq!(found, [web, db, none], "{selector:?}");
            selector.check().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_field() {
        use Operator::*;
        for (selector, message) in [
            (expression("app", In, &[]), "matchExpressions[0].values: In needs at least one"),
            (expression("app", Exists, &["x"]), "matchExpressions[0].values: Exists takes none"),
            (expression("a b", Exists, &[]), "matchExpressions[0].key: `a b` is no label"),
            (expression("", Exists, &[]), "matchExpressions[0].key: `` is no label"),
            (expression("Upper/x", Exists, &[]), "matchExpressions[0].key: `Upper/x` is no label"),
            (expression("app", In, &["-x"]), "matchExpressions[0].values: `-x` is no value"),
        ] {
            let error = selector.check().unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
            assert_eq!(error.kind(), ErrorKind::Selector);
        }
        expression("app.kubernetes.io/part-of", In, &["", "v1.2_x-3"]).check().unwrap();
    }

    #[test]
    fn selectors_are_read_as_kubernetes_writes_them() {
        let text =
            r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#;
        let selector: Selector = serde_json::from_str(text).unwrap();
        assert!(selector.matches(&labels("app=web")) && !selector.matches(&labels("app=web,tier=x")));
        assert_eq!(serde_json::to_string(&selector).unwrap(), text);
        assert!(serde_json::from_str::<Selector>(r#"{"matchLabel":{}}"#).is_err());
    }
}
