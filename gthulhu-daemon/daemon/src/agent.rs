//! The agent's process: the hidden subcommand `agent`, started by the supervisor only.

use qumun::Exit;
use qumun::kernel::{AgentFds, Link};

use crate::options::PolicyArgs;
use crate::registry::Registry;
use crate::strategies::AgentEnd;
use crate::{Error, ExitCode, Result, handover};

/// Becomes the agent and runs the policy until the scheduler is gone.
pub(crate) fn main(registry: &Registry, args: &PolicyArgs, supervisor: u32) -> Result<()> {
    die_with(supervisor)?;
    let plugin = registry.find(args.plugin.as_deref())?;
    let options = args.plugin_options().map_err(|e| Error::new(ExitCode::Usage, e))?;
    let alone = |why: &str| Error::new(ExitCode::Usage, format!("'agent' is started by 'run' only: {why}"));
    let given = handover::given::<{ handover::ALL }>();
    let given = given.as_ref().and_then(|fds| fds.split_last_chunk());
    let (raw, [strategies]) = given.ok_or_else(|| alone("no descriptors were handed over"))?;
    let raw = raw.try_into().map_err(|_| alone("other descriptors were handed over"))?;
    // SAFETY: the supervisor had them open for us under these numbers; nothing here has opened, or
    // closed, anything since.
    let fds = unsafe { AgentFds::inherit(raw) }.map_err(|error| alone(&error.to_string()))?;
    // SAFETY: as above, and the last of them is no other's.
    let strategies = unsafe { AgentEnd::inherited(*strategies) };
    let mut builder = args.builder(plugin.ops_name());
    builder.discover();
    builder.prepare_agent()?;
    let link = Link::connect(fds)?;
    match plugin.run(&builder, link, &options, strategies)? {
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
