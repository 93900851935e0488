//! Errors, messages and child processes: what every command needs.
//!
//! Messages of ours go to stderr, one line each, marked `xtask:`; stdout carries only results.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a command stopped, and the exit status that says so.
#[derive(Debug)]
pub(crate) struct Error {
    /// For people: what failed, on what, and what to do about it.
    pub(crate) message: String,
    /// The exit status of the process.
    pub(crate) code: u8,
}

/// The result of everything here that can fail.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error with exit status 1.
pub(crate) fn error(message: impl Into<String>) -> Error {
    Error { message: message.into(), code: 1 }
}

/// Says what was being done when an I/O error came.
pub(crate) trait Context<T> {
    /// `what` reads as "cannot WHAT".
    fn cannot(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn cannot(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| error(format!("cannot {what}: {e}")))
    }
}

/// One line to stderr.
pub(crate) fn say(message: impl fmt::Display) {
    eprintln!("xtask: {message}");
}

/// Runs a command with our own stdout and stderr; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().cannot(format_args!("start {}", name_of(command)))?;
    if status.success() { Ok(()) } else { Err(error(format!("{} failed: {status}", line_of(command)))) }
}

/// Runs a command and returns its stdout; on failure its stderr is in the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().cannot(format_args!("start {}", name_of(command)))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(error(format!("{} failed: {}\n{}", line_of(command), out.status, said.trim_end())))
}

/// Where a program is in PATH.
pub(crate) fn find_in_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name.as_ref())).find(|p| is_program(p))
}

/// A regular file that someone may execute.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// True when we are root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn name_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line_of(command: &Command) -> String {
    let mut line = name_of(command);
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
