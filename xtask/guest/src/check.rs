//! Verdicts, in the form that `cargo xtask lab test` counts.

use crate::Result;
use std::io::Write;

/// What was proved so far.
#[derive(Debug, Default)]
pub struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    /// Prints one verdict with the figures that the proof gives; returns whether it held.
    pub fn check(&mut self, name: &str, proof: impl FnOnce() -> Result<String>) -> bool {
        let held = check(name, proof);
        *(if held { &mut self.passed } else { &mut self.failed }) += 1;
        held
    }

    /// Whether something was proved and nothing was refuted.
    pub fn all_held(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Prints `ok NAME - text` or `not ok NAME - text`; returns whether it was the first.
pub fn check(name: &str, proof: impl FnOnce() -> Result<String>) -> bool {
    let (verdict, text) = match proof() {
        Ok(text) => ("ok", text),
        Err(text) => ("not ok", text),
    };
    // One verdict is one line, whatever a program said. A reader that has gone away must not stop a drill half-way.
    let _ = writeln!(std::io::stdout(), "{verdict} {name} - {}", text.trim().replace('\n', " | "));
    verdict == "ok"
}

/// Prints `skip NAME - reason`: this machine or daemon lacks what the check is about.
pub fn skip(name: &str, reason: &str) {
    let _ = writeln!(std::io::stdout(), "skip {name} - {reason}");
}

/// An error with this text unless the condition holds.
///
/// # Errors
/// When it does not.
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(text()) }
}
