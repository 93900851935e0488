//! What a person or a machine may do wrong: one sentence, one exit code, nothing loaded.

use super::{ALL_PLUGINS, PLUGIN, PLUGINS, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::process::{self, Said, wait_for};
use crate::sched::{self, Daemon, SCHED_EXT, assert_disabled, daemon_program};
use crate::{Context, Result};
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Until a daemon that cannot run has said so.
const LIMIT: Duration = Duration::from_secs(10);
const NOBODY: u32 = 65534;

/// Exit codes, of sysexits.h as far as it has them; 78 is the original's.
const USAGE: i32 = 64;
const NO_BTF: i32 = 72;
const BUSY: i32 = 75;
const NOT_ALLOWED: i32 = 77;
const NO_SCHED_EXT: i32 = 78;

pub(super) fn run(checks: &mut Checks) -> Result<()> {
    checks.check("inputs.plugin", || {
        let said = refused(&mut daemon("nosuch"), USAGE, &ALL_PLUGINS)?;
        assert_disabled()?;
        Ok(said)
    });
    checks.check("inputs.not_root", || {
        let said = refused(daemon(PLUGIN).uid(NOBODY).gid(NOBODY), NOT_ALLOWED, &["root"])?;
        assert_disabled()?;
        Ok(said)
    });
    checks.check("inputs.no_sched_ext", || {
        let said = {
            let _hidden = Hidden::new(SCHED_EXT)?;
            refused(&mut daemon(PLUGIN), NO_SCHED_EXT, &["sched_ext"])?
        };
        assert_disabled()?;
        Ok(said)
    });
    checks.check("inputs.no_btf", || {
        let said = {
            let _hidden = Hidden::new("/sys/kernel/btf")?;
            refused(&mut daemon(PLUGIN), NO_BTF, &["BTF"])?
        };
        assert_disabled()?;
        Ok(said)
    });
    checks.check("inputs.second", || {
        let first = Daemon::start(PLUGIN, &[])?;
        let seq = enable_seq()?;
        let agent = first.agent_pid()?;
        let said = refused(&mut daemon(PLUGINS[1]), BUSY, &[PLUGIN])?;
        // A busy host may make the agent late for a moment; that is the core's business and no harm.
        let normal = || {
            let status = healthy(&first, seq).map_err(|e| format!("the first one was harmed: {e}"))?;
            Ok((status["mode"] == sched::usual_mode()).then_some(()))
        };
        wait_for("first one in charge", Duration::from_secs(3), normal)?;
        ensure(first.agent_pid()? == agent, || {
            format!("the first one was harmed: its agent was {agent:?} and is {:?}", first.agent_pid())
        })?;
        let (_, end) = stop_well(first)?;
        Ok(format!("{said}; the first went on: {end}"))
    });
    Ok(())
}

fn daemon(plugin: &str) -> Command {
    let mut command = Command::new(daemon_program());
    command.args(["run", "--plugin", plugin]);
    command
}

/// Fails unless the command ends with this code and its message has these words, in whatever case.
pub(super) fn refused(command: &mut Command, code: i32, words: &[&str]) -> Result<String> {
    let Said { code: got, err, .. } = process::run(command, LIMIT)?;
    ensure(got == code, || format!("exit code {got}, wanted {code}: {err}"))?;
    for word in words {
        let has_word = err.to_lowercase().contains(&word.to_lowercase());
        ensure(has_word, || format!("exit code {code}, but the message does not name {word}: {err}"))?;
    }
    Ok(format!("exit code {code}: {}", err.trim()))
}

/// A folder with an empty file system mounted over it, until dropped.
pub(super) struct Hidden(CString);

impl Hidden {
    pub(super) fn new(path: &str) -> Result<Self> {
        let target = CString::new(path).cannot("name a folder")?;
        // SAFETY: all strings are terminated and live through the call; tmpfs takes no data.
        let done =
            unsafe { libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()) };
        if done != 0 {
            return Err(std::io::Error::last_os_error()).cannot(format_args!("hide {path}"));
        }
        Ok(Self(target))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // SAFETY: the string is terminated and lives through the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}
