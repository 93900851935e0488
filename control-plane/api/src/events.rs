//! Server-sent events of strategies: the answer of [`STREAM`](crate::paths::STREAM), `text/event-stream`.
//!
//! | event | data | means |
//! | --- | --- | --- |
//! | `strategies` | a [`StrategyList`](crate::StrategyList) | these, all of them, hold from now on |
//! | `alive` | empty, or anything | what was told last still holds; at least every 10 s |
//!
//! The first event is `strategies`, at once. Others, comments and `retry` are passed over.

use std::fmt;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind; `message` when it was not said.
    pub name: String,
    /// Its lines, with a line feed between them.
    pub data: String,
}

/// Takes bytes as they come and gives events. Holds no more than it was allowed to.
#[derive(Debug)]
pub struct Parser {
    most: usize,
    line: Vec<u8>,
    name: String,
    data: String,
    some: bool,
    after_cr: bool,
}

/// An event is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is longer than {} bytes", self.0)
    }
}

impl std::error::Error for TooLong {}

impl Parser {
    /// For events of at most so many bytes.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            some: false,
            after_cr: false,
        }
    }

    /// Takes some bytes; the events that end in them are given to `each`.
    ///
    /// # Errors
    /// When an event is too long. The stream is of no use then.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Event)) -> Result<(), TooLong> {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => {
                    if let Some(event) = self.end_line() {
                        each(event);
                    }
                }
                _ => self.line.push(byte),
            }
            self.after_cr = byte == b'\r';
            if self.line.len() + self.data.len() + self.name.len() > self.most {
                return Err(TooLong(self.most));
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        if bytes.is_empty() {
            let some = std::mem::take(&mut self.some);
            let (mut name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if name.is_empty() {
                name = "message".into();
            }
            return some.then_some(Event { name, data });
        }
        let line = String::from_utf8_lossy(&bytes);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => {
                value.clone_into(&mut self.name);
                self.some = true;
            }
            "data" => {
                if self.some && !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.some = true;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, step: usize) -> Vec<(String, String)> {
        let mut parser = Parser::new(1000);
        let mut events = Vec::new();
        for part in text.as_bytes().chunks(step) {
            parser.take(part, |event| events.push((event.name, event.data))).unwrap();
        }
        events
    }

    #[test]
    fn events_are_found_however_the_bytes_come() {
        let text = ": hello\nevent: strategies\ndata: {\ndata:  1}\nid: 7\n\n\nevent: alive\r\n\r\ndata\n\ndata: x\r\rretry: 5\n\nevent: cut";
        let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        let expected =
            [pair("strategies", "{\n 1}"), pair("alive", ""), pair("message", ""), pair("message", "x")];
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(all(text, step), expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        let mut parser = Parser::new(100);
        assert_eq!(parser.take(&[b'x'; 101], |_| {}), Err(TooLong(100)));
        let mut parser = Parser::new(100);
        let refused = (0..100).find_map(|_| parser.take(b"data: more\n", |_| {}).err());
        assert_eq!(refused, Some(TooLong(100)));
    }
}
