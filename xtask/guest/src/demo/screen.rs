//! Lines, tables and a little colour.

use crate::Result;
use serde_json::Value;
use std::io::{IsTerminal, Write};

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
/// A failure may bring a whole status along; the checks show it in full.
const MAX_LENGTH: usize = 200;
/// Ratios this close to 1 are noise.
const SAME: f64 = 0.05;

/// Where the show is seen.
#[derive(Debug)]
pub(super) struct Screen {
    has_colour: bool,
}

impl Screen {
    /// Colour on a terminal that can, or when `LAB_COLOR=1` says so. In a guest stdout is always a terminal, a
    /// serial one, whatever is behind it: its init says `TERM=dumb`.
    pub(super) fn new() -> Self {
        let is = |name: &str, value: &str| std::env::var_os(name).is_some_and(|v| v == value);
        let is_able = std::io::stdout().is_terminal() && !is("TERM", "dumb");
        Self { has_colour: is("LAB_COLOR", "1") || is_able }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn print(&self, line: &str) {
        // Shown at once even through a pipe; who has gone away misses it.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", line.trim_end()).and_then(|()| out.flush());
    }

    /// The start of a part.
    pub(super) fn title(&self, text: &str) {
        self.print("");
        self.print(&self.paint(BOLD, text));
    }

    /// A line of a part.
    pub(super) fn line(&self, text: &str) {
        self.print(&format!("  {text}"));
    }

    /// A line that must not be missed.
    pub(super) fn warn(&self, text: &str) {
        self.print(&format!("  {}", self.paint(YELLOW, short(text))));
    }

    /// A row of the table.
    pub(super) fn row(&self, [name, own, ours, ratio, note]: &[&str; 5]) {
        self.print(&format!("  {name:<24}{own:>14}{ours:>14}{ratio:>9}  {note}"));
    }

    /// A row with two numbers of the same kind. A number that is missing shows as such.
    pub(super) fn comparison(&self, name: &str, own: &Value, ours: &Value, unit: &str, more_is_better: bool) {
        let (Some(own), Some(ours)) = (own.as_f64(), ours.as_f64()) else {
            return self.row(&[name, "?", "?", "?", ""]);
        };
        let ratio = ours / own;
        let note = if (ratio - 1.0).abs() <= SAME {
            "the same".to_string()
        } else if (ratio > 1.0) == more_is_better {
            self.paint(GREEN, "better")
        } else {
            self.paint(YELLOW, "worse")
        };
        let [own, ours] = [own, ours].map(|value| format!("{value:.0} {unit}"));
        self.row(&[name, &own, &ours, &format!("{ratio:.2}"), &note]);
    }

    /// A promise with its figures; returns whether it was kept.
    pub(super) fn promise(&self, proof: Result<String>) -> bool {
        let (word, text) = match &proof {
            Ok(text) => (self.paint(GREEN, "kept  "), text),
            Err(text) => (self.paint(RED, "BROKEN"), text),
        };
        self.line(&format!("{word}  {}", short(text)));
        proof.is_ok()
    }
}

fn short(text: &str) -> &str {
    text.char_indices().nth(MAX_LENGTH).map_or(text, |(end, _)| &text[..end])
}
