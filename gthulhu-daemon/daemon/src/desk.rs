//! What other threads may ask of the supervisor. It looks when it has time, and never waits for them.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gthulhu_config::Config;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::control::Decider;
use crate::strategies::Published;
use crate::{Error, Result};

/// More questions than this do not wait: whoever asks is told so.
const WAITING: usize = 32;

/// A question.
#[derive(Debug)]
pub(crate) enum Ask {
    /// How things stand: the object of `status`.
    Status,
    /// Who decides from now on; the answer is the status.
    Mode(Decider),
    /// Could this be run? The answer lists what would have to re-attach that the configuration does not know of.
    Check(Box<Config>),
    /// Run this from now on, attached anew if so said.
    Adopt { config: Box<Config>, reattach: bool },
    /// These strategies are wanted.
    Strategies(Box<Published>),
}

/// What comes back: an object, or why not.
pub(crate) type Answer = std::result::Result<Value, String>;

/// A question, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Desk {
    letters: Receiver<Letter>,
    bell: UnixStream,
}

/// Everybody else's.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    letters: SyncSender<Letter>,
    bell: Arc<UnixStream>,
}

/// A desk, and how to call there.
pub(crate) fn open() -> Result<(Desk, Caller)> {
    let fail = |e: std::io::Error| Error::system("cannot make a channel", &e);
    let (bell, ringer) = UnixStream::pair().map_err(fail)?;
    bell.set_nonblocking(true).map_err(fail)?;
    ringer.set_nonblocking(true).map_err(fail)?;
    let (sender, letters) = sync_channel(WAITING);
    Ok((Desk { letters, bell }, Caller { letters: sender, bell: Arc::new(ringer) }))
}

impl Desk {
    /// Becomes readable when there is a letter.
    pub(crate) fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The next letter, if there is one.
    pub(crate) fn next(&self) -> Option<Letter> {
        let mut rings = [0; 2 * WAITING];
        let _ = std::io::Read::read(&mut &self.bell, &mut rings);
        self.letters.try_recv().ok()
    }
}

impl Caller {
    /// Asks. The answer is for whoever waits for it: a task or a thread.
    pub(crate) fn ask(&self, ask: Ask) -> std::result::Result<oneshot::Receiver<Answer>, String> {
        let (reply, answer) = oneshot::channel();
        self.letters.try_send(Letter { ask, reply }).map_err(|_| "the supervisor is busy; try again")?;
        // A bell that was rung so often that it takes no more has been heard.
        let _ = std::io::Write::write(&mut &*self.bell, &[1]);
        Ok(answer)
    }

    /// Asks and waits. Not for a thread that others wait for.
    pub(crate) fn ask_and_wait(&self, ask: Ask) -> Answer {
        self.ask(ask)?.blocking_recv().unwrap_or_else(|_| Err("the daemon ends".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_rings_and_is_answered() {
        let (desk, caller) = open().unwrap();
        assert!(desk.next().is_none());
        let answer = caller.ask(Ask::Status).unwrap();
        let letter = desk.next().expect("a letter");
        assert!(matches!(letter.ask, Ask::Status));
        letter.reply.send(Ok(Value::Bool(true))).unwrap();
        assert_eq!(answer.blocking_recv().unwrap(), Ok(Value::Bool(true)));
    }

    #[test]
    fn whoever_asks_too_much_is_told_at_once_and_a_desk_that_is_gone_answers_too() {
        let (desk, caller) = open().unwrap();
        let asked: Vec<_> = (0..WAITING).map(|_| caller.ask(Ask::Status).unwrap()).collect();
        assert!(caller.ask(Ask::Status).unwrap_err().contains("busy"));
        drop(desk);
        assert!(asked.into_iter().all(|answer| answer.blocking_recv().is_err()));
    }
}
