//! The configuration of Gthulhu's node daemon: every key, where its value comes from, and what a change of it costs.
//!
//! One table (see [`keys`]) says for each key its default, what may stand there, its flag, its environment
//! variable, its field in the runtime configuration and what a change costs. The loader, the checks, `config
//! explain`, the annotated default file and `docs/configuration.md` are all made from it.
//!
//! ```text
//!   flag  >  environment  >  applied runtime configuration  >  file  >  default
//! ```
//!
//! [`Loader`] is the way in; [`Configuration`] is what comes of it: typed values ([`Config`]), notices,
//! explanations, and changes at run time ([`Configuration::apply`]), which are checked as a whole, saved, and then
//! made, or not made at all. [`ScxChoice`] opens another scheduler's program for mode `scx`.
//!
//! Every error says where: file, line and column, the flag, the variable or the field; what is wrong; and what is
//! allowed.

#![forbid(unsafe_code)]

mod check;
mod config;
mod configuration;
mod error;
mod explain;
mod file;
mod key;
mod kind;
mod layer;
mod loader;
mod patch;
mod render;
mod scx;
mod secret;
mod store;
mod strategies;
mod suggest;
mod token;
mod tree;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use config::{Api, Config, Daemon, Monitor, Mtls, Scheduler, keys};
pub use configuration::{Applied, ApplyError, Change, Changed, Configuration, Secrets, Shadowed};
pub use error::{Notice, Place, Problem, Problems, Source};
pub use explain::Explanation;
pub use key::{Effect, Flag, Key};
pub use kind::Kind;
pub use loader::{FILE, Loader, check_file};
pub use patch::Patch;
pub use render::{default_file, reference};
pub use scx::{SCX_NAMES, ScxChoice, ScxProgram, ScxRefused};
pub use secret::Secret;
pub use strategies::{LocalStrategy, read_strategies};
pub use value::Value;
pub use words::{Mode, Transport};
