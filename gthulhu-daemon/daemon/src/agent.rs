//! The agent's process: `gthulhu-daemon agent`, started by the supervisor only.

use qumun::kernel::{AgentFds, Link};
use qumun::{Exit, Nanos};

use crate::{Error, ExitCode, Result, handover, plugins};

/// Becomes the agent and runs the policy until the scheduler is gone.
pub(crate) fn main(plugin: &str, slice: Nanos, supervisor: u32) -> Result<()> {
    die_with(supervisor)?;
    let plugin = plugins::find(plugin)?;
    let alone = |why: &str| {
        Error::new(ExitCode::Usage, format!("'agent' is started by 'gthulhu-daemon run' only: {why}"))
    };
    let raw = handover::given().ok_or_else(|| alone("no descriptors were handed over"))?;
    // SAFETY: the supervisor had them open for us under these numbers; nothing here has opened, or
    // closed, anything since.
    let fds = unsafe { AgentFds::inherit(raw) }.map_err(|error| alone(&error.to_string()))?;
    let builder = qumun::builder(plugins::ops_name(plugin.name)).default_slice(slice);
    let link = Link::connect(fds)?;
    match (plugin.run)(&builder, link) {
        Exit::Removed(info) if info.kind.is_error() => Err(Error::new(ExitCode::Failed, info.to_string())),
        Exit::Stopped | Exit::Removed(_) => Ok(()),
        other => Err(Error::new(ExitCode::Failed, other.to_string())),
    }
}

/// An agent without a supervisor serves nobody: it gets SIGKILL when its parent ends.
fn die_with(supervisor: u32) -> Result<()> {
    // SAFETY: plain numbers.
    let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if done != 0 {
        return Err(Error::system(
            "cannot tie the agent's life to the supervisor's",
            &std::io::Error::last_os_error(),
        ));
    }
    // It may have ended before the line above.
    if std::os::unix::process::parent_id() != supervisor {
        return Err(Error::new(ExitCode::Failed, "the supervisor is gone"));
    }
    Ok(())
}
