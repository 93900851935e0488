//! What may be asked of a running daemon beside its status: one line, before the answer.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use crate::strategies;
use crate::{Error, ExitCode, Result, status};

/// Who decides, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decider {
    /// The policy, in the agent's process
    Agent,
    /// The core alone, by its own rule
    Kernel,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Mode(Decider),
    /// Answered by the thread of strategies.
    Strategies(strategies::Command),
}

/// A line is no longer.
const LONGEST: usize = 256;
/// Whoever says nothing for so long has nothing to say.
const PATIENCE: Duration = Duration::from_millis(50);

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> std::result::Result<Self, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some(command) = strategies::Command::parse(&words) {
            return Ok(Self::Strategies(command));
        }
        match words[..] {
            ["mode", "kernel"] => Ok(Self::Mode(Decider::Kernel)),
            ["mode", "agent"] => Ok(Self::Mode(Decider::Agent)),
            _ => Err(format!(
                "'{}' is no order; there are 'mode kernel', 'mode agent', 'strategy apply', 'strategy list', \
                 'strategy clear' and 'explain PID'",
                line.escape_default()
            )),
        }
    }
}

/// The order of a client, if it has one, and what it has said behind it already.
pub(crate) fn read(stream: &mut UnixStream) -> Option<std::result::Result<(Order, Vec<u8>), String>> {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let (mut bytes, mut some) = (Vec::new(), [0; LONGEST]);
    // Until the client has said all, or enough.
    while bytes.len() < LONGEST && !bytes.contains(&b'\n') {
        match stream.read(&mut some) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&some[..n]),
            _ => break,
        }
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let line = String::from_utf8_lossy(&bytes[..end]).trim().to_owned();
    let rest = bytes.get(end + 1..).unwrap_or_default().to_vec();
    (!line.is_empty()).then(|| line.parse().map(|order| (order, rest)))
}

/// `gthulhu-daemon mode`: gives the order, and returns how the daemon stands then.
pub(crate) fn send(socket: &Path, decider: Decider) -> Result<Value> {
    let name = match decider {
        Decider::Agent => "agent",
        Decider::Kernel => "kernel",
    };
    let object = status::fetch_after(socket, |stream| writeln!(stream, "mode {name}"))?;
    match object["error"].as_str() {
        Some(why) => Err(Error::new(ExitCode::Failed, why.to_owned())),
        None => Ok(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_line_and_silence_is_none() {
        let said = |text: &str| {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(text.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            read(&mut ours).map(|said| said.map(|(order, _)| order))
        };
        assert_eq!(said("mode kernel\n"), Some(Ok(Order::Mode(Decider::Kernel))));
        assert_eq!(said("  mode agent"), Some(Ok(Order::Mode(Decider::Agent))));
        assert_eq!(said(""), None);
        assert!(said("mode both\n").unwrap().unwrap_err().contains("'mode both' is no order"));
        assert!(said(&"x".repeat(10_000)).unwrap().is_err());
        // A client that neither speaks nor leaves does not hold the supervisor.
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(read(&mut ours), None);
        // What stands behind the line is not lost.
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"strategy apply\n[1,\n2]").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let apply = Order::Strategies(strategies::Command::Apply);
        assert_eq!(read(&mut ours), Some(Ok((apply, b"[1,\n2]".to_vec()))));
    }
}
