//! What every policy promises, on random histories in simulated time.

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::Permit;
use qumun::alloc::CountingAllocator;
use qumun::testkit::Suite;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn it_keeps_its_promises() {
    Suite::new("gthulhu", Gthulhu::default).assert();
}

#[test]
fn it_keeps_them_with_permits() {
    Suite::new("gthulhu with permits", || Gthulhu::default().permit(Permit::wakeups(8))).assert();
}
