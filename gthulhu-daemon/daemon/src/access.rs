//! Who may do what over HTTP: tokens and certificates, read anew when their files change.
//!
//! | configured | to read | to change |
//! | --- | --- | --- |
//! | `daemon.token_file` | that token | that token |
//! | `daemon.client_ca_file` | a certificate of that authority | the same |
//! | both | both | both |
//! | nothing (loopback only) | nothing | the token that the daemon made |
//! | nothing, and `daemon.require_token: false` (loopback only) | nothing | nothing |

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gthulhu_config::{Config, Configuration, Secret};
use rustls::ServerConfig;

use crate::log::Log;
use crate::tls::Files;
use crate::{Result, configure};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Who may do what.
#[derive(Debug)]
pub(crate) struct Access {
    who: Who,
    files: Option<Files>,
    state: Mutex<State>,
    log: Log,
}

#[derive(Debug)]
enum Who {
    /// Only with this token.
    Token(PathBuf),
    /// Changes only with the token that we made.
    Own(Box<Configuration>),
    /// TLS has seen to it, or nobody has to show anything.
    Anybody,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    token: Option<Secret>,
    token_path: Option<PathBuf>,
    token_seen: Option<[i64; 3]>,
    tls: Option<Arc<ServerConfig>>,
    tls_seen: Vec<Option<[i64; 5]>>,
    /// What is wrong with what the files hold now; what they held before is used on.
    trouble: Vec<String>,
}

/// Why somebody may not, as a code of HTTP and a sentence.
pub(crate) type Refused = (u16, String);

impl Access {
    /// Reads what the configuration names. That a token of our own cannot be kept is no error: then nobody may change
    /// anything over HTTP, and it is tried again.
    ///
    /// # Errors
    /// What is wrong with the files, with the place where they are named.
    pub(crate) fn new(configuration: &Configuration, log: &Log) -> Result<Self> {
        let config = configuration.config();
        let files = Files::of(config);
        let who = who(config, configuration);
        let mut state = State { looked: Some(Instant::now()), ..State::default() };
        if let Who::Token(path) = &who {
            let secrets = configuration.secrets().map_err(|problems| configure::refused(&problems))?;
            (state.token, state.token_seen) = (secrets.control_token, seen(path));
            state.token_path = Some(path.clone());
        }
        if let Some(files) = &files {
            state.tls_seen = files.signature();
            let tls =
                files.load().map_err(|(key, why)| configure::refused(&configuration.problem(key, why)))?;
            state.tls = Some(tls);
        }
        let new = Self { who, files, state: Mutex::new(state), log: log.clone() };
        if let Who::Own(configuration) = &new.who {
            let mut state = new.state();
            read_own(&mut state, configuration);
            match (&state.token_path, state.trouble.first()) {
                (_, Some(why)) => {
                    log.warn(format_args!("nobody can change anything over HTTP: {why}; it is tried again"));
                }
                (Some(path), None) => log.info(format_args!(
                    "changes over HTTP need the token in {} (daemon.require_token)",
                    path.display()
                )),
                (None, None) => {}
            }
        }
        Ok(new)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How TLS is spoken now, if it is.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.refresh().tls.clone()
    }

    /// Whether whoever shows this header may read, or change.
    pub(crate) fn may(&self, authorization: Option<&str>, change: bool) -> std::result::Result<(), Refused> {
        let needs = match self.who {
            Who::Token(_) => true,
            Who::Own(_) => change,
            Who::Anybody => false,
        };
        if !needs {
            return Ok(());
        }
        let state = self.refresh();
        let Some(token) = &state.token else {
            let why = state.trouble.first().map_or("there is no token", String::as_str);
            return Err((403, format!("nobody may: {why} (daemon.token_file, daemon.require_token)")));
        };
        let given = authorization.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, t)| t);
        if same(token.reveal().as_bytes(), given.trim().as_bytes()) {
            return Ok(());
        }
        let path = state.token_path.as_deref().unwrap_or(Path::new("-")).display();
        Err((401, format!("a token is needed: Authorization: Bearer TOKEN; it is the content of {path}")))
    }

    /// What is wrong with the files as they are now, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        let state = self.refresh();
        (!state.trouble.is_empty()).then(|| state.trouble.join("; "))
    }

    /// Reads anew what has changed. What cannot be used is said once, and what was before is used on.
    fn refresh(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return state;
        }
        state.looked = Some(Instant::now());
        let before = std::mem::take(&mut state.trouble);
        match &self.who {
            Who::Token(path) => {
                let now = seen(path);
                match Secret::read(path) {
                    Ok(token) => {
                        if state.token_seen != now && state.token.as_ref() != Some(&token) {
                            self.log.info(format_args!("daemon.token_file: another token holds from now on"));
                        }
                        (state.token, state.token_seen) = (Some(token), now);
                    }
                    Err(why) => state.trouble.push(format!("daemon.token_file: {why}; the old token holds")),
                }
            }
            Who::Own(configuration) => read_own(&mut state, configuration),
            Who::Anybody => {}
        }
        if let Some(files) = &self.files {
            let now = files.signature();
            if state.tls_seen != now {
                match files.load() {
                    Ok(tls) => {
                        (state.tls, state.tls_seen) = (Some(tls), now);
                        self.log.info("control over HTTP has new certificates from now on");
                    }
                    // It may be between the replacement of the one and of the other: looked at again.
                    Err((key, why)) => state.trouble.push(format!("{key}: {why}; the old ones are used on")),
                }
            }
        }
        if state.trouble != before {
            state.trouble.iter().for_each(|why| self.log.warn(why));
        }
        state
    }
}

fn who(config: &Config, configuration: &Configuration) -> Who {
    let d = &config.daemon;
    match (&d.token_file, d.control_addr) {
        (_, None) => Who::Anybody,
        (Some(path), _) => Who::Token(path.clone()),
        (None, _) if Files::of(config).is_some_and(|files| files.asks_clients()) => Who::Anybody,
        // Any other address has one of these two, or it is an error of the configuration.
        (None, _) if d.require_token => Who::Own(Box::new(configuration.clone())),
        (None, _) => Who::Anybody,
    }
}

fn read_own(state: &mut State, configuration: &Configuration) {
    match configuration.own_token() {
        Ok((path, token)) => (state.token_path, state.token) = (Some(path), Some(token)),
        Err(why) => {
            state.token = None;
            state.trouble.push(why);
        }
    }
}

fn seen(path: &Path) -> Option<[i64; 3]> {
    let meta = std::fs::metadata(path).ok()?;
    Some([meta.ino() as i64, meta.mtime(), meta.mtime_nsec()])
}

/// Compared in a time that does not tell how much of it is right.
fn same(wanted: &[u8], given: &[u8]) -> bool {
    let differ = wanted.iter().zip(given).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    differ == 0 && wanted.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_right_or_wrong_as_a_whole() {
        assert!(same(b"abc", b"abc"));
        for wrong in ["", "ab", "abcd", "abd", "ABC"] {
            assert!(!same(b"abc", wrong.as_bytes()), "{wrong}");
        }
    }
}
