//! What may be asked of a running daemon beside its status: one line, before the answer.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

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
    /// The event stream from now on, instead of an answer.
    Events,
    /// What is configured at run time.
    Configuration,
    /// A change of it, whose body follows.
    Apply {
        /// Attached anew if need be.
        reattach: bool,
    },
    /// Answered by the thread of strategies.
    Strategies(strategies::Command),
}

/// A line is no longer.
const LONGEST: usize = 256;
/// How long the supervisor waits for a line.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);

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
            ["events"] => Ok(Self::Events),
            ["runtime-config"] => Ok(Self::Configuration),
            ["runtime-config", "apply"] => Ok(Self::Apply { reattach: false }),
            ["runtime-config", "apply", "reattach"] => Ok(Self::Apply { reattach: true }),
            _ => Err(format!(
                "'{}' is no order; there are 'mode kernel', 'mode agent', 'events', 'runtime-config', 'runtime-config \
                 apply [reattach]', 'strategy apply', 'strategy list', 'strategy clear' and 'explain PID'",
                line.escape_default()
            )),
        }
    }
}

/// What a client has said so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// An order, or no order, and what came behind its line.
    Line(std::result::Result<Order, String>, Vec<u8>),
    /// That it has nothing to say.
    Nothing,
    /// No whole line yet. Where CPUs are short a client may be late for no fault of its own.
    NotYet(Vec<u8>),
}

/// Reads on behind what was read before, for the supervisor's patience or somebody's who has more of it.
pub(crate) fn read(stream: &mut UnixStream, mut bytes: Vec<u8>, patience: Duration) -> Said {
    let (begun, mut some, mut ended) = (Instant::now(), [0; LONGEST], false);
    // Until the client has said all, or enough.
    while bytes.len() < LONGEST && !bytes.contains(&b'\n') && !ended {
        let left = patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Said::NotYet(bytes);
        }
        let _ = stream.set_read_timeout(Some(left));
        match stream.read(&mut some) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&some[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => ended = true,
        }
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let rest = bytes.split_off((end + 1).min(bytes.len()));
    match String::from_utf8_lossy(&bytes).trim() {
        "" => Said::Nothing,
        line => Said::Line(line.parse(), rest),
    }
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

/// `gthulhu-daemon events`: prints what happens until the daemon or the reader ends.
pub(crate) fn follow(socket: &Path) -> Result<()> {
    let mut stream = status::connect(socket)?;
    let fail = |e: std::io::Error| Error::system(format!("cannot read from {}", socket.display()), &e);
    writeln!(stream, "events").map_err(fail)?;
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(fail)?;
        let refused =
            serde_json::from_str::<Value>(&line).ok().and_then(|o| o["error"].as_str().map(str::to_owned));
        if let Some(why) = refused {
            return Err(Error::new(ExitCode::Failed, why));
        }
        // A closed pipe (| head) is an end like any other.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
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
            read(&mut ours, Vec::new(), Duration::from_secs(5))
        };
        let order = |order| Said::Line(Ok(order), Vec::new());
        assert_eq!(said("mode kernel\n"), order(Order::Mode(Decider::Kernel)));
        assert_eq!(said("  mode agent"), order(Order::Mode(Decider::Agent)));
        assert_eq!(said(""), Said::Nothing);
        let no_order = |text: &str| match said(text) {
            Said::Line(Err(why), _) => why,
            other => panic!("{other:?}"),
        };
        assert!(no_order("mode both\n").contains("'mode both' is no order"));
        no_order(&"x".repeat(10_000));
        let apply = Said::Line(Ok(Order::Apply { reattach: true }), b"{}".to_vec());
        assert_eq!(said("runtime-config apply reattach\n{}"), apply);
        // What stands behind the line is not lost.
        let apply = Said::Line(Ok(Order::Strategies(strategies::Command::Apply)), b"[1,\n2]".to_vec());
        assert_eq!(said("strategy apply\n[1,\n2]"), apply);
        // A client that neither speaks nor leaves does not hold the supervisor, and what it has said is not lost.
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"mode ker").unwrap();
        let Said::NotYet(begun) = read(&mut ours, Vec::new(), Duration::from_millis(1)) else {
            panic!("a line")
        };
        theirs.write_all(b"nel\n").unwrap();
        assert_eq!(read(&mut ours, begun, Duration::from_secs(5)), order(Order::Mode(Decider::Kernel)));
    }
}
