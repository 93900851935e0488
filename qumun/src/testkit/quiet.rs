//! Policies that panic, and whether allocations are counted.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::alloc::Guard;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs it; a panic is an error, with its message and place, and prints nothing.
pub(super) fn catch<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    thread_local! {
        static SAID: Cell<Option<String>> = const { Cell::new(None) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                let payload = info.payload();
                let text = payload.downcast_ref::<&str>().copied();
                let message =
                    text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
                let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
                SAID.set(Some(format!("{message}{}", place.unwrap_or_default())));
            } else {
                before(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(outer);
    result.unwrap_or_else(|_| {
        Err(format!("the policy panicked: {}", SAID.take().unwrap_or_else(|| "no message".to_owned())))
    })
}

/// Is the counting allocator the one of this program?
pub(super) fn counts_allocations() -> bool {
    let guard = Guard::new();
    drop(std::hint::black_box(Box::new(1u64)));
    guard.count() > 0
}
