//! What the parts of Gthulhu's control plane say to each other: requests, answers, and one form of errors.
//!
//! The names of endpoints and of JSON fields are the original's, so that either side can be the original's. What it did
//! not have is optional everywhere: a strategy's class and budget, a generation, the stream of events.
//!
//! | endpoint | request | answer |
//! | --- | --- | --- |
//! | `POST` [`paths::TOKEN`] | [`TokenRequest`] | [`Envelope`] of [`Token`] |
//! | `GET` [`paths::STRATEGIES`] | | [`StrategyList`], without an envelope |
//! | `GET` [`paths::STREAM`] | | server-sent events, see [`events`] |
//! | `POST` [`paths::METRICS`] | [`Counters`] | anything with code 200 |
//!
//! # Features
//!
//! `client`: a client for it, `client::Client`, with reqwest and rustls on aws-lc-rs.

#![forbid(unsafe_code)]

mod auth;
#[cfg(feature = "client")]
pub mod client;
mod counters;
mod envelope;
pub mod events;
mod strategies;

pub use auth::{Token, TokenRequest};
pub use counters::Counters;
pub use envelope::{Envelope, Failure};
pub use strategies::{Found, Left, Record, Selector, StrategyList};

/// Where the endpoints are, below the address of a decision maker.
pub mod paths {
    /// A public key for a token.
    pub const TOKEN: &str = "/api/v1/auth/token";
    /// The strategies of a node, each with a process.
    pub const STRATEGIES: &str = "/api/v1/scheduling/strategies";
    /// The same whenever they change. The original had none.
    pub const STREAM: &str = "/api/v1/scheduling/strategies/stream";
    /// The scheduler's counters.
    pub const METRICS: &str = "/api/v1/metrics";
}
