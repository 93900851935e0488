//! The event stream (`monitor.stream_events`): what happens, as it happens, for whoever reads it over HTTP or over the
//! control socket.
//!
//! An event is one JSON object in one line. Whoever tells one never waits: events go into a ring of [`KEPT`], and a
//! reader that is slower than that loses the oldest, is told how many, and so are the metrics. Without readers an event
//! is not even made.

use std::convert::Infallible;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use qumun::kernel::wire;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::status::{self, Facts};

/// Events that wait for the slowest reader.
const KEPT: usize = 1024;
/// Readers at the same time.
const READERS: usize = 8;
/// A reader hears something this often, and so whether the other side is still there.
const ALIVE: Duration = Duration::from_secs(15);
/// Readers from the control socket that wait for the thread of HTTP.
const WAITING: usize = 4;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON object in each line.
    Lines,
    /// Server-sent events: the same objects, each with its type and number.
    ServerSent,
}

impl Form {
    /// Server-sent events for who asks for them by name.
    pub(crate) fn negotiate(accept: &str) -> Self {
        let named = accept
            .split(',')
            .any(|range| range.trim_start().to_ascii_lowercase().starts_with("text/event-stream"));
        if named { Self::ServerSent } else { Self::Lines }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::ServerSent => "text/event-stream",
        }
    }
}

/// An event that was told.
#[derive(Clone, Debug)]
struct Event {
    number: u64,
    kind: &'static str,
    line: Arc<str>,
}

/// Where events are told, and where they are read.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: broadcast::Sender<Event>,
    /// Readers from the control socket, for the thread of HTTP.
    sockets: mpsc::Sender<UnixStream>,
    on: AtomicBool,
    next: AtomicU64,
    told: AtomicU64,
    dropped: AtomicU64,
}

/// For the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) told: u64,
    pub(crate) dropped: u64,
    pub(crate) readers: u64,
}

/// Readers that come over the control socket.
pub(crate) type Sockets = mpsc::Receiver<UnixStream>;

impl Hub {
    pub(crate) fn new(on: bool) -> (Self, Sockets) {
        let (sockets, come) = mpsc::channel(WAITING);
        let inner = Inner {
            sender: broadcast::Sender::new(KEPT),
            sockets,
            on: AtomicBool::new(on),
            next: AtomicU64::new(1),
            told: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        (Self(Arc::new(inner)), come)
    }

    /// Offers the stream, or ends it for all who read.
    pub(crate) fn set(&self, on: bool) {
        if self.0.on.swap(on, Relaxed) && !on {
            // They look when something comes.
            let _ = self.0.sender.send(self.event("end", json!({ "why": "monitor.stream_events is off" })));
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.on.load(Relaxed)
    }

    /// Is there somebody to tell?
    pub(crate) fn has_readers(&self) -> bool {
        self.is_on() && self.0.sender.receiver_count() > 0
    }

    /// Tells, and never waits.
    pub(crate) fn tell(&self, kind: &'static str, what: impl FnOnce() -> Value) {
        if self.has_readers() && self.0.sender.send(self.event(kind, what())).is_ok() {
            self.0.told.fetch_add(1, Relaxed);
        }
    }

    fn event(&self, kind: &'static str, mut what: Value) -> Event {
        let number = self.0.next.fetch_add(1, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        what["seq"] = number.into();
        what["unix_ms"] = now.into();
        what["type"] = kind.into();
        Event { number, kind, line: what.to_string().into() }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            told: self.0.told.load(Relaxed),
            dropped: self.0.dropped.load(Relaxed),
            readers: self.0.sender.receiver_count() as u64,
        }
    }

    /// A reader's turn, if there is a place for it; else why not.
    pub(crate) fn read(&self, form: Form) -> Result<Reader, &'static str> {
        if !self.is_on() {
            return Err("monitor.stream_events is off");
        }
        if self.0.sender.receiver_count() >= READERS {
            return Err("there are as many readers of the event stream as there may be (8)");
        }
        let events = self.0.sender.subscribe();
        let hello = json!({ "version": 1, "keeps": KEPT, "alive_s": ALIVE.as_secs() });
        let first = Some(self.event("hello", hello));
        Ok(Reader { hub: self.clone(), events, form, first })
    }

    /// Takes whoever asked over the control socket. Does not wait.
    pub(crate) fn welcome(&self, stream: UnixStream) -> Result<(), (UnixStream, String)> {
        if !self.is_on() {
            return Err((stream, "monitor.stream_events is off".into()));
        }
        let busy = |stream| Err((stream, "too many readers come at once; try again".into()));
        self.0.sockets.try_send(stream).or_else(|e| busy(e.into_inner()))
    }
}

/// What the supervisor saw last of the scheduler, to tell what is another now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Transitions {
    seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    mode: &'static str,
    /// Why the core took over last, or why nothing of ours schedules.
    reason: &'static str,
    plugin: String,
    agent: Option<u32>,
    restarts: u64,
    takeovers: u64,
    attached: u64,
}

impl Transitions {
    /// Tells what has changed since the last call. Ten times a second: what happened and was over in between shows in
    /// the counts.
    pub(crate) fn tell(&mut self, hub: &Hub, facts: &Facts, view: Option<wire::View>) {
        if !hub.has_readers() {
            // Whoever comes is told of what comes.
            self.seen = None;
            return;
        }
        let (mode, reason, takeovers) = match view {
            Some(view) => {
                let reason = wire::REASONS.get(view.reason as usize).copied().unwrap_or("");
                (status::mode(view.mode), reason, view.entered.iter().sum())
            }
            None => ("none", facts.off.as_ref().map_or("", |off| off.why), 0),
        };
        let (restarts, attached) = (facts.restarts, facts.attached);
        let now = Seen {
            mode,
            reason,
            plugin: facts.plugin.clone(),
            agent: facts.agent,
            restarts,
            takeovers,
            attached,
        };
        let before = self.seen.replace(now.clone());
        let Some(before) = before.filter(|before| *before != now) else { return };
        hub.tell("scheduler", || {
            json!({
                "mode": now.mode, "mode_before": before.mode, "reason": now.reason,
                "plugin": now.plugin, "agent": now.agent, "agent_restarts": now.restarts - before.restarts,
                // Another core counts from zero.
                "takeovers": now.takeovers.checked_sub(before.takeovers).unwrap_or(now.takeovers),
                "attached": now.attached - before.attached,
            })
        });
    }
}

/// Somebody who reads.
#[derive(Debug)]
pub(crate) struct Reader {
    hub: Hub,
    events: broadcast::Receiver<Event>,
    form: Form,
    first: Option<Event>,
}

impl Reader {
    /// What is to be written next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(self.form.write(&first));
        }
        if !self.hub.is_on() && self.events.is_empty() {
            return None;
        }
        match tokio::time::timeout(ALIVE, self.events.recv()).await {
            Ok(Ok(event)) => Some(self.form.write(&event)),
            Ok(Err(RecvError::Lagged(count))) => {
                self.hub.0.dropped.fetch_add(count, Relaxed);
                Some(self.form.write(&self.hub.event("dropped", json!({ "count": count }))))
            }
            Ok(Err(RecvError::Closed)) => None,
            Err(_) => Some(self.form.write(&self.hub.event("alive", json!({})))),
        }
    }

    /// The body of an answer, filled by a task that ends with it.
    pub(crate) fn body(mut self) -> Body {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let bytes = tokio::select! {
                    bytes = self.next() => bytes,
                    () = sender.closed() => None,
                };
                let Some(bytes) = bytes else { return };
                if sender.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        Body::Events(receiver)
    }
}

impl Form {
    fn write(self, event: &Event) -> Bytes {
        match self {
            Self::Lines => format!("{}\n", event.line),
            Self::ServerSent => {
                format!("event: {}\nid: {}\ndata: {}\n\n", event.kind, event.number, event.line)
            }
        }
        .into()
    }
}

/// Serves readers from the control socket, for ever.
pub(crate) async fn serve(hub: Hub, mut sockets: Sockets) {
    while let Some(stream) = sockets.recv().await {
        let Ok(()) = stream.set_nonblocking(true) else { continue };
        let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { continue };
        let hub = hub.clone();
        tokio::spawn(async move {
            match hub.read(Form::Lines) {
                Ok(mut reader) => {
                    while let Some(bytes) = reader.next().await {
                        if write(&stream, &bytes).await.is_err() {
                            return;
                        }
                    }
                }
                Err(why) => drop(write(&stream, format!("{}\n", json!({ "error": why })).as_bytes()).await),
            }
        });
    }
}

async fn write(stream: &tokio::net::UnixStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The body of an answer: a text, or events for as long as somebody reads.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Full<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(text) => Pin::new(text).poll_frame(cx),
            Self::Events(events) => {
                events.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => text.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn object(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).expect("an object")
    }

    #[test]
    fn a_reader_gets_what_is_told_in_order_and_nobody_costs_nothing() {
        let (hub, _sockets) = Hub::new(true);
        hub.tell("x", || panic!("made for nobody"));
        let mut reader = hub.read(Form::Lines).expect("a place");
        for n in 0..3 {
            hub.tell("x", || json!({ "n": n }));
        }
        runtime().block_on(async {
            assert_eq!(object(&reader.next().await.expect("hello"))["type"], "hello");
            for n in 0..3 {
                let event = object(&reader.next().await.expect("an event"));
                assert_eq!((&event["type"], &event["n"]), (&json!("x"), &json!(n)));
            }
        });
        assert_eq!(hub.counts(), Counts { told: 3, dropped: 0, readers: 1 });
    }

    #[test]
    fn who_is_too_slow_loses_the_oldest_and_is_told_how_many() {
        let (hub, _sockets) = Hub::new(true);
        let mut reader = hub.read(Form::ServerSent).expect("a place");
        for n in 0..KEPT + 7 {
            hub.tell("x", || json!({ "n": n }));
        }
        runtime().block_on(async {
            reader.next().await.expect("hello");
            let text = String::from_utf8(reader.next().await.expect("a word").to_vec()).expect("text");
            assert!(text.starts_with("event: dropped\nid: ") && text.contains("\"count\":7"), "{text}");
            let text = String::from_utf8(reader.next().await.expect("an event").to_vec()).expect("text");
            assert!(text.contains("\"n\":7") && text.ends_with("\n\n"), "{text}");
        });
        assert_eq!(hub.counts().dropped, 7);
    }

    #[test]
    fn there_are_places_for_some_and_an_end_for_all() {
        let (hub, _sockets) = Hub::new(true);
        let mut readers: Vec<Reader> =
            (0..READERS).map(|_| hub.read(Form::Lines).expect("a place")).collect();
        assert!(hub.read(Form::Lines).is_err());
        hub.set(false);
        assert!(hub.read(Form::Lines).is_err());
        let reader = &mut readers[0];
        runtime().block_on(async {
            reader.next().await.expect("hello");
            assert_eq!(object(&reader.next().await.expect("the end"))["type"], "end");
            assert!(reader.next().await.is_none());
        });
        drop(readers);
        hub.set(true);
        assert!(hub.read(Form::Lines).is_ok());
    }

    #[test]
    fn server_sent_events_are_for_who_asks_for_them() {
        assert_eq!(Form::negotiate("text/event-stream"), Form::ServerSent);
        assert_eq!(Form::negotiate("*/*, Text/Event-Stream;q=0.5"), Form::ServerSent);
        assert_eq!(Form::negotiate("application/json"), Form::Lines);
    }
}
