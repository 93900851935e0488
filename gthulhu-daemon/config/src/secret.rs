//! What is never shown: private keys and tokens, in the configuration or in files of their own.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A private key or a token. It has no `Display` or `Debug` that would show it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// Longer is no token and no key.
const SECRET_MAX: u64 = 64 * 1024;

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The text itself, for whoever signs or connects with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads it from a file that its owner alone may read, without white space around it. Links are followed, as
    /// Kubernetes mounts secrets; what is checked is the file that was opened.
    ///
    /// # Errors
    /// When the file cannot be read, is no file, is empty or too long, belongs to neither root nor this user, or
    /// others may read it: what is wrong with `path`, and what to do, as a sentence without the secret.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let cannot = |e: std::io::Error| format!("cannot read {shown}: {e}");
        // Not to wait for a writer where somebody has put a pipe.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(cannot)?;
        let meta = file.metadata().map_err(cannot)?;
        if !meta.is_file() {
            return Err(format!("{shown} is no file"));
        }
        private(&meta).map_err(|why| format!("{shown} {why}: chown root {shown} && chmod 600 {shown}"))?;
        let mut text = String::new();
        file.take(SECRET_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
        if text.len() as u64 > SECRET_MAX {
            return Err(format!("{shown} is longer than {SECRET_MAX} bytes"));
        }
        match text.trim() {
            "" => Err(format!("{shown} is empty")),
            text => Ok(Self::new(text)),
        }
    }

    /// Says what is wrong with it as an inline key, without showing it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let begins = self.0.trim_start().starts_with("-----BEGIN ") && self.0.contains("PRIVATE KEY-----");
        if !self.is_set() || begins {
            Ok(())
        } else {
            Err("what is given (not shown) is no private key as PEM".into())
        }
    }
}

/// Says why this file is not private to root or us.
pub(crate) fn private(meta: &std::fs::Metadata) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return Err(format!("belongs to user {}, not to root", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(format!("can be read or written by others (mode {:04o})", meta.mode() & 0o7777));
    }
    Ok(())
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "(set)" } else { "(not set)" })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret{self}")
    }
}
