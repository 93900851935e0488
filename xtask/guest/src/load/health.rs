//! A health check over HTTP, as a node agent makes it: a server, and a client that asks it once in a while.

use crate::stats::Sorted;
use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longer than any answer that counts.
const LIMIT: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Asks at each mark of `period` for `time`; how long each answer took, from the mark on: a client that wakes up late is
/// late, too.
///
/// # Errors
/// When there is no loopback network, or no process can be made.
pub fn health(period: Duration, time: Duration) -> Result<Value> {
    let listener = TcpListener::bind("127.0.0.1:0").cannot("listen on the loopback network")?;
    let address = listener.local_addr().cannot("find the own port")?;
    let server = sys::fork(|| serve(&listener))?;
    drop(listener);
    let (period, end) = (period.as_nanos() as u64, sys::now_ns() + time.as_nanos() as u64);
    let (mut mark, mut took, mut late, mut failed) = (sys::now_ns() + period, Vec::new(), Vec::new(), 0);
    while mark < end {
        sys::sleep_until(mark);
        late.push((sys::now_ns() - mark) / 1_000);
        match ask(address) {
            Ok(()) => took.push(sys::now_ns() - mark),
            Err(_) => failed += 1,
        }
        mark = (mark + period).max(sys::now_ns());
    }
    sys::reap(server);
    let count = took.len();
    let each: Vec<u64> = took.iter().map(|ns| ns / 1_000).collect();
    let mut result = Sorted::new(took).json("ms", 1e6);
    result.insert("count".into(), json!(count));
    result.insert("each_us".into(), json!(each));
    result.insert("late_us".into(), json!(late));
    result.insert("failed".into(), json!(failed));
    Ok(Value::Object(result))
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A client that has gone away is no reason to end.
        let _ = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 512];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&part[..n]),
        }
    }
    stream.write_all(ANSWER)
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).cannot("connect")?;
    stream.set_read_timeout(Some(LIMIT)).cannot("set a limit")?;
    stream.write_all(REQUEST).cannot("ask")?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).cannot("read the answer")?;
    if said.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("another answer".into()) }
}
