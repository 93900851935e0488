//! The sixteen colours as every terminal knows them.

use std::io::{self, Write};

/// Writes what crossterm writes, with the sixteen colours in the numbers of ECMA-48 (30 to 37, and aixterm's 90 to 97).
///
/// crossterm has them as the first of 256 (`38;5;2`), also where a terminal has no more than sixteen: one that does not
/// know that form takes 5 for blinking and 2 for faint.
#[derive(Debug)]
pub(crate) struct Sixteen<W> {
    to: W,
    /// From one flush to the next, so that no sequence is in two pieces.
    waiting: Vec<u8>,
}

impl<W: Write> Sixteen<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, waiting: Vec::new() }
    }
}

impl<W: Write> Write for Sixteen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = translated(&self.waiting);
        self.waiting.clear();
        self.to.write_all(&bytes)?;
        self.to.flush()
    }
}

fn translated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|two| two == b"\x1b[") {
        let (before, sequence) = rest.split_at(at + 2);
        out.extend_from_slice(before);
        let end =
            sequence.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';')).unwrap_or(sequence.len());
        let (parameters, after) = sequence.split_at(end);
        match after.first() {
            Some(b'm') => out.extend_from_slice(colors(parameters).as_bytes()),
            _ => out.extend_from_slice(parameters),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// The parameters of one sequence of colours and the like.
fn colors(parameters: &[u8]) -> String {
    // Digits and semicolons only.
    let text = String::from_utf8_lossy(parameters);
    let mut numbers = text.split(';').peekable();
    let mut out: Vec<String> = Vec::new();
    while let Some(number) = numbers.next() {
        if !matches!(number, "38" | "48") {
            out.push(number.to_owned());
            continue;
        }
        let base = if number == "38" { 30 } else { 40 };
        let form = numbers.next().unwrap_or_default();
        // Two numbers, 5 and a colour, or four, 2 and red, green and blue.
        match (form, numbers.peek().and_then(|color| color.parse::<u8>().ok())) {
            ("5", Some(color @ 0..=7)) => out.push((base + color).to_string()),
            ("5", Some(color @ 8..=15)) => out.push((base + 52 + color).to_string()),
            _ => {
                out.extend([number, form].map(str::to_owned));
                continue;
            }
        }
        numbers.next();
    }
    out.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_colours_are_written_as_every_terminal_knows_them() {
        for (theirs, ours) in [
            ("\x1b[38;5;2mname 38;5;2m\x1b[0m", "\x1b[32mname 38;5;2m\x1b[0m"),
            ("\x1b[1;38;5;9;48;5;0m", "\x1b[1;91;40m"),
            ("\x1b[39;49m\x1b[48;5;15m", "\x1b[39;49m\x1b[107m"),
            ("\x1b[38;5;100m\x1b[38;2;5;5;5m", "\x1b[38;5;100m\x1b[38;2;5;5;5m"),
            ("\x1b[2;5H\x1b[?25l\x1b[m\x1b[", "\x1b[2;5H\x1b[?25l\x1b[m\x1b["),
        ] {
            let mut writer = Sixteen::new(Vec::new());
            // In small pieces, as crossterm writes.
            theirs.as_bytes().chunks(3).for_each(|piece| writer.write_all(piece).unwrap());
            assert!(writer.to.is_empty());
            writer.flush().unwrap();
            assert_eq!(String::from_utf8(writer.to).unwrap(), ours);
        }
    }
}
