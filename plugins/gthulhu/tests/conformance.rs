//! What every policy promises, on random histories in simulated time.

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::alloc::CountingAllocator;
use qumun::testkit::Suite;
use qumun::{Nanos, Permit};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn it_keeps_its_promises() {
    Suite::new("gthulhu", Gthulhu::default).assert();
}

#[test]
fn it_keeps_them_with_permits() {
    Suite::new("gthulhu with permits", || {
        Gthulhu::default().permit(Permit::wakeups(64).lasting(Nanos::from_millis(50)))
    })
    .assert();
}

#[test]
fn they_are_kept_with_a_cpu_for_the_agent_alone() {
    Suite::new("gthulhu dedicated", Gthulhu::default).dedicated().assert();
}

#[test]
fn the_core_keeps_them_in_kernel_mode() {
    Suite::new("gthulhu in kernel mode", Gthulhu::default).kernel_mode().assert();
}
