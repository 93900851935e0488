//! What every policy promises, on random histories in simulated time.

use gthulhu_plugin_simple::Simple;
use qumun::alloc::CountingAllocator;
use qumun::testkit::Suite;
use qumun::{Nanos, Permit};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn it_keeps_its_promises() {
    Suite::new("simple", Simple::default).assert();
}

#[test]
fn it_keeps_them_with_permits() {
    Suite::new("simple with permits", || {
        Simple::default().permit(Permit::wakeups(64).lasting(Nanos::from_millis(50)))
    })
    .assert();
}
