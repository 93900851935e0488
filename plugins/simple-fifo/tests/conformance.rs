//! What every policy promises, on random histories in simulated time.

use gthulhu_plugin_simple_fifo::SimpleFifo;
use qumun::alloc::CountingAllocator;
use qumun::testkit::{Property, Suite};
use qumun::{Nanos, Permit};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn it_keeps_its_promises() {
    Suite::new("simple-fifo", SimpleFifo::default)
        .without(Property::Shares, "first come, first served: weights are ignored")
        .assert();
}

#[test]
fn it_keeps_them_with_permits() {
    Suite::new("simple-fifo with permits", || {
        SimpleFifo::default().permit(Permit::wakeups(64).lasting(Nanos::from_millis(50)))
    })
    .without(Property::Shares, "first come, first served: weights are ignored")
    .assert();
}
