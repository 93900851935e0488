//! What another program says: a line in our log each, and the last of them kept for whoever asks why it ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::Log;

/// The kernel's dump of an ejected scheduler comes this way, too.
const KEPT_LINES: usize = 400;
const KEPT_BYTES: usize = 48 * 1024;
/// Of a longer line the rest is a line of its own.
const LINE_MAX: u64 = 2048;
/// Lines in the log per second: the rest is kept, and counted.
const LOGGED: u32 = 50;

/// The end of what a program has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(Arc<Mutex<VecDeque<String>>>);

impl Words {
    /// Reads until nobody holds the other end any more, in a thread of its own.
    pub(crate) fn listen(from: PipeReader, name: String, log: Log) -> std::io::Result<Self> {
        let words = Self::default();
        let kept = words.clone();
        std::thread::Builder::new().name("words".into()).spawn(move || kept.hear(from, &name, &log))?;
        Ok(words)
    }

    fn hear(&self, from: impl Read, name: &str, log: &Log) {
        let mut from = BufReader::new(from);
        let (mut second, mut logged, mut left_out) = (Instant::now(), 0, 0u64);
        loop {
            let mut line = Vec::new();
            match from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if second.elapsed() >= Duration::from_secs(1) {
                (second, logged) = (Instant::now(), 0);
            }
            if logged < LOGGED {
                if left_out > 0 {
                    log.info(format_args!("{name}: {left_out} lines are left out here"));
                    left_out = 0;
                }
                log.info(format_args!("{name}: {line}"));
                logged += 1;
            } else {
                left_out += 1;
            }
            self.keep(line);
        }
    }

    fn keep(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        let mut bytes: usize = lines.iter().map(String::len).sum();
        while lines.len() > KEPT_LINES || bytes > KEPT_BYTES {
            bytes -= lines.pop_front().map_or(0, |line| line.len());
        }
    }

    /// The end of it: so many lines.
    pub(crate) fn last(&self, lines: usize) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = all.len().saturating_sub(lines);
        all.iter().skip(from).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// All that is kept.
    pub(crate) fn all(&self) -> String {
        self.last(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_however_much_is_said() {
        let words = Words::default();
        words.hear(b"one\ntwo".as_slice(), "test", &Log::new("test", crate::log::Format::Text));
        assert_eq!(words.last(2), "one\ntwo");
        (0..2000).for_each(|n| words.keep(format!("line {n} {}", "x".repeat(100))));
        assert!(words.last(1).starts_with("line 1999 "));
        let all = words.all();
        assert!(all.len() <= KEPT_BYTES + KEPT_LINES && all.lines().count() <= KEPT_LINES, "{}", all.len());
        words.keep("y".repeat(10 * KEPT_BYTES));
        assert!(words.all().len() <= KEPT_BYTES);
    }
}
