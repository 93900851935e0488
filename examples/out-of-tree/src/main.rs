//! The node daemon with our policy: `mine run`, `mine status`, `mine plugins`, `mine doctor`.

use mine::{Hangs, Mine};
use qumun::Nanos;

/// Counts what the agent's thread allocates; `status` shows it.
#[global_allocator]
static ALLOCATOR: qumun::alloc::CountingAllocator = qumun::alloc::CountingAllocator;

fn main() -> std::process::ExitCode {
    gthulhu_daemon::builder()
        .plugin::<Mine>("mine")
        .about("who computed much waits a little longer")
        .try_plugin_with("patient", |options| {
            let ms = options.parse("patience-ms")?.unwrap_or(200);
            Ok(Mine::new(Nanos::from_millis(ms)))
        })
        .about("the same with another patience")
        .option("patience-ms", "how long, in milliseconds (200)")
        .try_plugin_with("hangs", |options| {
            let after = options.parse("after-ms")?.unwrap_or(1_000);
            Ok(Hangs::new(Nanos::from_millis(after), options.flag("asleep")?))
        })
        .about("for drills: a call of it does not return")
        .option("after-ms", "when, in milliseconds after its first event (1000)")
        .option("asleep", "true: it sleeps instead of computing")
        .main()
}
