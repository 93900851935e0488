//! What most answers are in, and what all errors look like.

use serde::{Deserialize, Serialize};

/// An answer that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// `true`.
    pub success: bool,
    /// What was asked for.
    pub data: T,
    /// When, by the clock of who answers.
    #[serde(default)]
    pub timestamp: String,
}

/// An error of any endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `false`.
    pub success: bool,
    /// What is wrong, for people.
    pub error: String,
}

impl Failure {
    /// This is wrong.
    pub fn new(error: impl Into<String>) -> Self {
        Self { success: false, error: error.into() }
    }

    /// What a body says is wrong, if it is of this form: at most 200 characters of it, on one line.
    pub fn of(body: &[u8]) -> Option<String> {
        let said: Self = serde_json::from_slice(body).ok()?;
        (!said.success).then(|| one_line(&said.error, 200))
    }
}

/// What somebody else wrote, fit for a line of a log.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}
