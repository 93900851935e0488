//! Runtime configuration over the control socket. The supervisor takes the call and checks who it is; what takes time (the
//! rest of the body, the supervisor's own answer, the disk) is done here, in a thread of its own, so that nobody who
//! writes slowly holds up what looks after the scheduler.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control::{self, Order, Said};
use crate::desk::Ask;
use crate::listener::Refusals;
use crate::runtime::{Reply, Shared, failed};
use crate::{Error, Result};

/// As over HTTP.
pub(crate) const BODY_MAX: usize = 64 * 1024;
/// For a line that the supervisor did not wait for; then it is a question about the status.
const LINE_TIME: Duration = Duration::from_secs(1);
/// For the whole body.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Callers that wait, at most.
const WAITING: usize = 8;

struct Call {
    stream: UnixStream,
    said: Said,
}

/// Takes calls.
#[derive(Debug)]
pub(crate) struct Clerk(SyncSender<Call>);

impl Clerk {
    /// Starts the thread. What is no order is counted.
    pub(crate) fn start(shared: Arc<Shared>, garbage: Arc<Refusals>) -> Result<Self> {
        let (sender, calls) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || work(&calls, &shared, &garbage))
            .map_err(|e| Error::system("cannot start the thread of the control socket", &e))?;
        Ok(Self(sender))
    }

    /// Takes over a caller, with what was read of it.
    pub(crate) fn take(&self, stream: UnixStream, said: Said) {
        if let Err(error) = self.0.try_send(Call { stream, said }) {
            let (TrySendError::Full(call) | TrySendError::Disconnected(call)) = error;
            answer(call.stream, (503, failed("others are being served; try again")));
        }
    }
}

fn work(calls: &Receiver<Call>, shared: &Shared, garbage: &Refusals) {
    for Call { mut stream, said } in calls {
        let said = match said {
            Said::NotYet(begun) => control::read(&mut stream, begun, LINE_TIME),
            said => said,
        };
        let asked = |ask| match shared.caller.ask_and_wait(ask) {
            Ok(object) => (200, object),
            Err(why) => (500, failed(&why)),
        };
        let reply = match said {
            Said::Line(Ok(Order::Apply { reattach }), begun) => match body(&mut stream, begun) {
                Ok(body) => shared.apply(&body, reattach),
                Err(why) => (400, failed(&why)),
            },
            Said::Line(Ok(Order::Configuration), _) => (200, shared.told().values),
            Said::Line(Ok(Order::Mode(decider)), _) => asked(Ask::Mode(decider)),
            Said::Line(Ok(Order::Strategies(command)), said) => {
                shared.strategies.serve(command, said, stream);
                continue;
            }
            Said::Line(Ok(Order::Events), _) => match shared.events.welcome(stream) {
                Ok(()) => continue,
                Err((back, why)) => {
                    stream = back;
                    (503, failed(&why))
                }
            },
            Said::Line(Err(why), _) => {
                garbage.note(&format!("on the control socket: {why}"));
                (400, failed(&why))
            }
            Said::Nothing | Said::NotYet(_) => asked(Ask::Status),
        };
        answer(stream, reply);
    }
}

/// All that the caller has to say, until it says no more.
fn body(stream: &mut UnixStream, mut bytes: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    let begun = Instant::now();
    let mut some = [0; 4096];
    loop {
        if bytes.len() > BODY_MAX {
            return Err(format!("the body is longer than {BODY_MAX} bytes"));
        }
        let left = BODY_TIME.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(format!("the body was not finished within {} s", BODY_TIME.as_secs()));
        }
        let _ = stream.set_read_timeout(Some(left));
        match stream.read(&mut some) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&some[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(format!("the body cannot be read: {e}")),
        }
    }
}

fn answer(mut stream: UnixStream, (code, mut object): Reply) {
    object["code"] = Value::from(code);
    let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
    let _ = stream.write_all(object.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_with_its_writer_and_is_bounded() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"def").unwrap();
        drop(theirs);
        assert_eq!(body(&mut ours, b"abc".to_vec()), Ok(b"abcdef".to_vec()));
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        assert!(body(&mut ours, vec![0; BODY_MAX + 1]).unwrap_err().contains("longer than 65536"));
    }
}
