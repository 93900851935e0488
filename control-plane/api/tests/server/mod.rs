//! A decision maker that answers whatever a test wants: late, wrong, without end, or not at all.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn token(&self) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"))?;
        line.split_once("Bearer ").map(|(_, token)| token.trim())
    }
}

/// Where an answer is written to. An error ends the connection.
pub(crate) type Out<'a> = &'a mut dyn Write;
type Answer = dyn Fn(&Asked, Out<'_>) -> std::io::Result<()> + Send + Sync;

/// Answers one request per connection, each in a thread. Gone when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn new(
        answer: impl Fn(&Asked, Out<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", None, answer)
    }

    pub(crate) fn tls(
        config: rustls::ServerConfig,
        answer: impl Fn(&Asked, Out<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", Some(Arc::new(config)), answer)
    }

    pub(crate) fn at(
        address: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Asked, Out<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("an address");
        let address = listener.local_addr().expect("bound");
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, ends, answer) = (Arc::clone(&asked), Arc::clone(&over), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, tls, answer) = (Arc::clone(&log), tls.clone(), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, tls, &log, &*answer));
            }
        });
        Self { address, asked, over }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn https(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// How often this was asked.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|asked| asked.path == path).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Whoever listens looks up.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    log: &Mutex<Vec<Asked>>,
    answer: &Answer,
) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, log, answer),
        Some(config) => {
            let Ok(connection) = rustls::ServerConnection::new(config) else { return };
            speak(rustls::StreamOwned::new(connection, stream), log, answer);
        }
    }
}

fn speak(mut stream: impl Read + Write, log: &Mutex<Vec<Asked>>, answer: &Answer) {
    let Some(asked) = read(&mut stream) else { return };
    log.lock().expect("no panic").push(asked.clone());
    let _ = answer(&asked, &mut stream).and_then(|()| stream.flush());
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, path, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A whole answer.
pub(crate) fn reply(out: Out<'_>, code: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        out,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The head of a stream.
pub(crate) fn begin_stream(out: Out<'_>) -> std::io::Result<()> {
    out.write_all(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    out.flush()
}

/// An event of it.
pub(crate) fn event(out: Out<'_>, name: &str, data: &str) -> std::io::Result<()> {
    write!(out, "event: {name}\ndata: {data}\n\n")?;
    out.flush()
}

/// Waits for the other side to hang up, or for long.
pub(crate) fn hang() {
    std::thread::sleep(Duration::from_secs(20));
}
