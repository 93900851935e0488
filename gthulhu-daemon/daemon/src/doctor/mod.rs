//! `doctor`: what this machine can do, why not, and what to do about it.
//!
//! Each question is a function that reads files below a root and adds findings, so that tests can show
//! machines that are not there. Nothing is loaded and nothing is changed.

mod kernel;
mod machine;
mod system;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub(crate) use system::System;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// As it should be, or only good to know.
    Ok,
    /// It runs, but not everything is there or safe.
    Warning,
    /// It cannot run.
    Error,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The mark before a line, and its colour on a terminal.
    fn mark(self) -> (char, &'static str) {
        match self {
            Self::Ok => ('✓', "32"),
            Self::Warning => ('!', "33"),
            Self::Error => ('✗', "31"),
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Stable: what programs look for.
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) text: String,
    /// What to do; each warning and each error has one.
    pub(crate) remedy: Option<String>,
}

/// All answers, in the order of the questions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) findings: Vec<Finding>,
}

/// Asks everything.
pub(crate) fn examine(system: &System) -> Report {
    let mut report = Report { kernel: system.release(), findings: Vec::new() };
    kernel::examine(system, &mut report);
    machine::examine(system, &mut report);
    report
}

/// Are there colours to use? On a terminal, unless <https://no-color.org> says no.
pub(crate) fn use_color() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

impl Report {
    fn ok(&mut self, id: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { id, severity: Severity::Ok, text: text.into(), remedy: None });
    }

    fn warn(&mut self, id: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.findings.push(Finding { id, severity: Severity::Warning, text: text.into(), remedy });
    }

    fn error(&mut self, id: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.findings.push(Finding { id, severity: Severity::Error, text: text.into(), remedy });
    }

    /// Can the daemon run here?
    pub(crate) fn can_run(&self) -> bool {
        self.findings.iter().all(|f| f.severity != Severity::Error)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// For people.
    pub(crate) fn text(&self, color: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let (mark, code) = finding.severity.mark();
            let mark = if color { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_string() };
            text.push_str(&format!("{mark} {:<13} {}\n", finding.id, finding.text));
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("  {:<13} → {remedy}\n", ""));
            }
        }
        let verdict = if self.can_run() { "can run here" } else { "cannot run here" };
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        text + &format!("\nthe scheduler {verdict}: {errors} errors, {warnings} warnings\n")
    }

    /// For programs. Keys and ids are kept; new ones may come.
    pub(crate) fn json(&self) -> Value {
        let finding = |f: &Finding| json!({ "id": f.id, "severity": f.severity.name(), "text": f.text, "remedy": f.remedy });
        json!({
            "format": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": self.kernel,
            "can_run": self.can_run(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}
