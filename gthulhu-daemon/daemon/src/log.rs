//! What the daemon says on stderr: lines for people, or a JSON object each for programs.

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde_json::json;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// Says lines. Whoever reads them may have gone away: that must not end the scheduler, as `eprintln!` would, which
/// panics then.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    program: Arc<str>,
    format: Format,
}

impl Log {
    pub(crate) fn new(program: &str, format: Format) -> Self {
        Self { program: program.into(), format }
    }

    /// Something that an operator may want to know.
    pub(crate) fn info(&self, text: impl Display) {
        self.say("info", &text.to_string());
    }

    /// Something that an operator should look at.
    pub(crate) fn warn(&self, text: impl Display) {
        self.say("warn", &text.to_string());
    }

    /// As it stands, for a text of several lines.
    pub(crate) fn plain(&self, text: impl Display) {
        match self.format {
            Format::Text => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            Format::Json => self.info(text),
        }
    }

    fn say(&self, level: &str, text: &str) {
        let line = self.line(level, text);
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn line(&self, level: &str, text: &str) -> String {
        match self.format {
            Format::Text => format!("{}: {text}\n", self.program),
            Format::Json => {
                let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
                let program = &*self.program;
                let pid = std::process::id();
                format!(
                    "{}\n",
                    json!({ "unix_ms": ms, "level": level, "program": program, "pid": pid, "message": text })
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_in_either_format() {
        let text = Log::new("d", Format::Text).line("warn", "all is well");
        assert_eq!(text, "d: all is well\n");
        let line = Log::new("d", Format::Json).line("warn", "two\nlines and a \"quote\"");
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&object["level"], &object["message"]),
            (&json!("warn"), &json!("two\nlines and a \"quote\""))
        );
        assert!(object["unix_ms"].as_u64() > Some(1_700_000_000_000));
    }
}
