//! Two processes that wake each other through two pipes.

use crate::{Context, Result, sys};
use serde_json::{Value, json};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

/// Round trips between two looks at the clock.
const CHUNK: u64 = 64;

/// `rounds` round trips, or as many as `limit` allows; ns for one.
///
/// # Errors
/// When the other process or a pipe cannot be made, or breaks.
pub fn pipe(rounds: u64, limit: Option<Duration>) -> Result<Value> {
    let (mut their_in, mut our_out) = std::io::pipe().cannot("make a pipe")?;
    let (mut our_in, mut their_out) = std::io::pipe().cannot("make a pipe")?;
    let other = sys::fork(|| while pass_on(&mut their_in, &mut their_out).is_ok() {})?;
    let start = sys::now_ns();
    let end = limit.map_or(u64::MAX, |limit| start + limit.as_nanos() as u64);
    let mut done = 0;
    let mut run = || -> std::io::Result<()> {
        while done < rounds && sys::now_ns() < end {
            for _ in 0..CHUNK.min(rounds - done) {
                our_out.write_all(b"x")?;
                our_in.read_exact(&mut [0])?;
                done += 1;
            }
        }
        Ok(())
    };
    let result = run().cannot("pass a byte");
    let elapsed = sys::now_ns() - start;
    sys::reap(other);
    result?;
    Ok(json!({
        "rounds": done,
        "elapsed_ms": elapsed / 1_000_000,
        "ns_per_round": elapsed as f64 / done.max(1) as f64,
    }))
}

fn pass_on(from: &mut PipeReader, to: &mut PipeWriter) -> std::io::Result<()> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    to.write_all(&byte)
}
