//! `gthulhu-daemon`: see `--help`.

/// Counts what the agent's thread allocates: nothing, after it has begun to schedule.
#[global_allocator]
static ALLOCATOR: qumun::alloc::CountingAllocator = qumun::alloc::CountingAllocator;

fn main() -> std::process::ExitCode {
    gthulhu_daemon::builder().builtin().main()
}
