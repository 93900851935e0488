//! Child processes with an end: a time limit, or the end of the scope.

use crate::{Context, Result, sys};
use serde_json::Value;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// What a command that ended said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code, or 128 and the signal, as a shell says it.
    pub code: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Runs a command to its end, or kills it after `limit`.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub fn run(command: &mut Command, limit: Duration) -> Result<Said> {
    let mut child = Background::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    // Neither pipe is read before the end: a command that says more than a pipe holds (64 KiB) runs out of time.
    let status = child.wait(limit)?;
    let (out, err) = (read_all(child.child.stdout.take())?, read_all(child.child.stderr.take())?);
    Ok(Said { code: exit_code(status), out, err })
}

/// Looks every few milliseconds until there is an answer; returns it and how long that took.
///
/// # Errors
/// When the look fails, or there is no answer within `limit`: then `what` reads as "no WHAT within".
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = sys::now_ns();
    loop {
        let answer = look()?;
        let passed = Duration::from_nanos(sys::now_ns() - start);
        match answer {
            Some(answer) => return Ok((answer, passed)),
            None if passed > limit => return Err(format!("no {what} within {limit:?}")),
            None => sys::sleep(STEP),
        }
    }
}

/// Exit code, or 128 and the signal, as a shell says it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A process that is killed when this value is dropped, together with all that it started (unless those chose a
/// process group of their own).
#[derive(Debug)]
pub struct Background {
    child: Child,
    name: String,
}

impl Background {
    /// Starts a command in a process group of its own. It also dies with the thread that started it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system call.
        unsafe {
            command.pre_exec(|| {
                sys::die_with_parent();
                Ok(())
            })
        };
        let child = command.spawn().cannot(format_args!("start {name}"))?;
        Ok(Self { child, name })
    }

    /// Starts one of our own loads; [`Background::figures`] gives its result.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(args: &[&str]) -> Result<Self> {
        Self::spawn(Command::new("/proc/self/exe").args(args).stdout(Stdio::piped()))
    }

    /// Starts a program whose output nobody needs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn quiet(program: &str, args: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// hackbench, again and again: `groups` times 4 senders and 4 receivers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn hackbench(groups: u32) -> Result<Self> {
        Self::quiet("sh", &["-c", &format!("while hackbench -g {groups} -f 4; do :; done")])
    }

    /// stress-ng with these stressors for `time`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn stress_ng(stressors: &[&str], time: Duration) -> Result<Self> {
        let time = time.as_secs().max(1).to_string();
        Self::quiet("stress-ng", &[stressors, &["--temp-path", "/tmp", "-t", &time]].concat())
    }

    /// Its number, also that of its process group.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        let child = &mut self.child;
        let (status, _) = wait_for(&what, limit, || child.try_wait().cannot("wait for a child"))?;
        Ok(status)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it is not a child any more.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().cannot("wait for a child")?.is_none())
    }

    /// Waits for the end of a load and reads its JSON line.
    ///
    /// # Errors
    /// When it does not end within `limit`, fails or says something else.
    pub fn figures(mut self, limit: Duration) -> Result<Value> {
        let status = self.wait(limit)?;
        let text = read_all(self.child.stdout.take())?;
        if !status.success() {
            return Err(format!("a load ended with {status}: {text}"));
        }
        serde_json::from_str(text.lines().next_back().unwrap_or_default()).cannot("read what a load says")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The group outlives its first process, and is empty when all went well.
        let _ = sys::signal(-self.pid(), libc::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(from: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    if let Some(mut from) = from {
        from.read_to_string(&mut text).cannot("read what a child said")?;
    }
    Ok(text)
}
