//! Tokens.

use serde::{Deserialize, Serialize};

/// Asks for a token with a public key, the original's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The key as PEM, as the decision maker has it.
    pub public_key: String,
    /// Who asks; empty in the original's client.
    #[serde(default)]
    pub client_id: String,
    /// Until when it is wanted, in seconds since 1970; 0 for what the decision maker gives.
    #[serde(default)]
    pub expired_at: i64,
}

/// A token. It has no `Debug` that would show it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What stands behind `Authorization: Bearer`.
    pub token: String,
    /// It is no good from then on, in seconds since 1970; 0 or absent: that was not said.
    #[serde(default)]
    pub expired_at: i64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expired_at", &self.expired_at).finish_non_exhaustive()
    }
}
