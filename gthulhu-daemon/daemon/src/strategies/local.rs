//! `gthulhu-daemon strategy apply | list | clear`: what a client of the socket may ask, and who asks it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use gthulhu_config::{LocalStrategy, read_strategies};
use gthulhu_model::Target;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Service;
use super::book::{Entry, Source, Want};
use super::link::now_ns;
use super::resolve::Look;
use crate::{Error, ExitCode, Result, configure, status};

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// What follows is all that is wanted here from now on.
    Apply,
    List,
    Clear,
    Explain(i32),
}

/// A client has so long for all that it says, and so much may that be.
const TIME: Duration = Duration::from_secs(5);
const LONGEST: u64 = 4 << 20;

impl Command {
    /// From the words of a line.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        match words {
            ["strategy", "apply"] => Some(Self::Apply),
            ["strategy", "list"] => Some(Self::List),
            ["strategy", "clear"] => Some(Self::Clear),
            ["explain", pid] => pid.parse().ok().filter(|pid| *pid > 0).map(Self::Explain),
            _ => None,
        }
    }
}

/// Answers one of them.
pub(super) async fn serve(service: &mut Service, command: Command, said: Vec<u8>, stream: UnixStream) {
    let Ok(mut stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream))
    else {
        return;
    };
    let answer = match command {
        Command::Apply => {
            let mut body = said;
            let rest = async { (&mut stream).take(LONGEST).read_to_end(&mut body).await };
            match tokio::time::timeout(TIME, rest).await {
                Ok(Ok(_)) => service.apply(&body).await,
                Ok(Err(e)) => Err(format!("what is to be applied cannot be read: {e}")),
                Err(_) => Err(format!("what is to be applied did not come within {} s", TIME.as_secs())),
            }
        }
        Command::Clear => service.clear().await,
        Command::List => {
            service.publish(None).await;
            Ok(service.listed())
        }
        Command::Explain(pid) => service.explain(pid).await,
    };
    let text = answer.unwrap_or_else(|why| json!({ "error": why })).to_string();
    // A client that does not read has gone for us.
    let _ = tokio::time::timeout(TIME, stream.write_all(text.as_bytes())).await;
}

impl Service {
    /// All of them, or none.
    async fn apply(&mut self, body: &[u8]) -> std::result::Result<Value, String> {
        let received = now_ns();
        let given: Vec<LocalStrategy> =
            serde_json::from_slice(body).map_err(|e| format!("what is to be applied makes no sense: {e}"))?;
        let look = Look::new()?;
        let (mut wants, mut wrong) = (Vec::new(), Vec::new());
        for (number, given) in given.into_iter().enumerate() {
            let at = format!("{}: {}", given.place, given.name);
            let mut want = |target| {
                let key = format!("{number} {}", given.name);
                wants.push(Want {
                    key,
                    name: given.name.clone(),
                    target,
                    priority: given.priority,
                    ttl: given.ttl,
                });
            };
            for pid in given.pids {
                match look.target(pid, None) {
                    Ok(Some(target)) => want(target),
                    Ok(None) => wrong.push(format!("{at}: pid: there is no process or thread {pid}")),
                    Err(why) => wrong.push(format!("{at}: pid: {pid}: {why}")),
                }
            }
            given.comms.into_iter().for_each(|comm| want(Target::Comm(comm)));
            for path in given.cgroups {
                match look.cgroup(&path) {
                    Ok(id) => want(Target::Cgroup(id)),
                    Err(why) => wrong.push(format!("{at}: cgroup: {why}")),
                }
            }
        }
        if !wrong.is_empty() {
            return Err(format!("{}\nnothing was applied", wrong.join("\n")));
        }
        let count = wants.len();
        self.book.replace(Source::Local, wants, received);
        self.log.info(format_args!("strategies for {count} targets were applied here"));
        self.publish(Some(received)).await;
        self.answer(count)
    }

    async fn clear(&mut self) -> std::result::Result<Value, String> {
        let count = self.book.of(Source::Local).len();
        if self.book.replace(Source::Local, Vec::new(), now_ns()) {
            self.log.info(format_args!("strategies for {count} targets were cleared here"));
            self.publish(Some(now_ns())).await;
        }
        self.answer(count)
    }

    fn answer(&self, targets: usize) -> std::result::Result<Value, String> {
        if self.owed {
            return Err("the supervisor has not taken them yet; they are offered again".into());
        }
        let left_out = self.book.left_out();
        Ok(json!({ "targets": targets, "generation": self.table.generation.0, "leftOut": left_out }))
    }

    fn listed(&self) -> Value {
        let now = now_ns();
        let all: Vec<Value> = self.book.entries().iter().map(|entry| object(entry, now)).collect();
        json!({ "generation": self.table.generation.0, "strategies": all, "leftOut": self.book.left_out() })
    }
}

/// An entry, for `list` and `explain`.
pub(super) fn object(entry: &Entry, now_ns: u64) -> Value {
    let Entry { source, id, want, until_ns } = entry;
    let priority = &want.priority;
    let budget = priority.boost().map(|b| json!({ "millicpu": b.share(), "burstMs": b.burst_ms() }));
    let left = (*until_ns < u64::MAX).then(|| until_ns.saturating_sub(now_ns) / 1_000_000);
    json!({
        "name": want.name,
        "source": source.name(),
        "id": id.number(),
        "target": shown(&want.target),
        "class": priority.class.to_string(),
        "sliceUs": priority.slice.map(|slice| slice.as_nanos() / 1_000),
        "budget": budget,
        "ttlSec": want.ttl.map(gthulhu_model::Ttl::as_secs),
        "ttlLeftMs": left,
    })
}

fn shown(target: &Target) -> String {
    match target {
        Target::Task(number) => format!("task {}", number.get()),
        Target::Thread(id) => format!("thread {} (started at tick {})", id.pid, id.started),
        Target::Process(id) => format!("process {} (started at tick {})", id.pid, id.started),
        Target::Cgroup(id) => format!("cgroup {}", id.0),
        Target::Comm(comm) => format!("name {comm}"),
    }
}

// ----- the command line

/// `strategy apply`.
pub(crate) fn apply(socket: &Path, file: &Path) -> Result<String> {
    let given = read_strategies(file).map_err(|problems| configure::refused(&problems))?;
    let body = serde_json::to_string(&given)
        .map_err(|e| Error::new(ExitCode::Usage, format!("{}: {e}", file.display())))?;
    let answer = ask(socket, "strategy apply", &body)?;
    let left = answer["leftOut"].as_u64().filter(|n| *n > 0);
    let left = left.map(|n| format!("; there is no room for {n} of them")).unwrap_or_default();
    Ok(format!("{} strategies for {} targets{left}\n", given.len(), answer["targets"]))
}

/// `strategy clear`.
pub(crate) fn clear(socket: &Path) -> Result<String> {
    let answer = ask(socket, "strategy clear", "")?;
    Ok(format!("strategies for {} targets cleared; those of the decision maker stay\n", answer["targets"]))
}

/// `strategy list`.
pub(crate) fn list(socket: &Path, as_json: bool) -> Result<String> {
    let answer = ask(socket, "strategy list", "")?;
    if as_json {
        return Ok(format!("{answer}\n"));
    }
    let all = answer["strategies"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return Ok("no strategies\n".into());
    }
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let mut out = format!(
        "{:<14} {:<12} {:<10} {:<14} {:<9} TARGET, NAME\n",
        "SOURCE", "CLASS", "SLICE", "BUDGET", "TTL LEFT"
    );
    for s in all {
        let slice = s["sliceUs"].as_u64().map_or("-".into(), |us| format!("{us} us"));
        let budget = &s["budget"];
        let budget =
            budget["millicpu"].as_u64().map_or("-".into(), |m| format!("{m}m, {} ms", budget["burstMs"]));
        let left = s["ttlLeftMs"].as_u64().map_or("-".into(), |ms| format!("{:.1} s", ms as f64 / 1e3));
        let (source, class) = (text(&s["source"]), text(&s["class"]));
        out += &format!(
            "{source:<14} {class:<12} {slice:<10} {budget:<14} {left:<9} {}, {}\n",
            text(&s["target"]),
            text(&s["name"])
        );
    }
    Ok(out)
}

/// Asks the daemon; what it says is wrong is an error.
pub(super) fn ask(socket: &Path, line: &str, body: &str) -> Result<Value> {
    let object = status::fetch_after(socket, |stream| {
        // It may answer before it has read all.
        let _ = stream.write_all(format!("{line}\n{body}").as_bytes());
        Ok(())
    })?;
    match object["error"].as_str() {
        Some(why) => Err(Error::new(ExitCode::Failed, why.to_owned())),
        None => Ok(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_a_few_words() {
        let of = |line: &str| Command::parse(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(of("strategy apply"), Some(Command::Apply));
        assert_eq!(of("explain 12"), Some(Command::Explain(12)));
        for wrong in
            ["strategy", "strategy now", "explain", "explain 0", "explain -3", "explain x", "explain 1 2"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
