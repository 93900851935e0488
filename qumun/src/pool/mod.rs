//! Memory for the thread that may not ask for any.
//!
//! The agent's thread schedules the machine. An allocation on it may take a lock that a task holds which
//! waits to be scheduled, and a page fault may need a kernel thread that waits to be scheduled: each
//! would wait for itself. So all memory is taken, touched and locked before the first turn, as one
//! [`Arena`], and is divided up from there without a lock or a system call.
//!
//! What a policy can have on it, by [`Context::pool`] from [`Scheduler::start`] on:
//!
//! - [`Queue`] and [`Heap`]: the tasks that wait, first come or lowest key first, of fixed capacity, with
//!   removal from the middle by [`SlotId`];
//! - [`Vec`], [`Box`], and what else takes an `Allocator` of `allocator-api2` 0.2, such as
//!   `hashbrown::HashMap<K, V, S, Handle>`.
//!
//! An arena that is exhausted says so: [`AllocError`], or the element comes back. It never falls back to
//! the global allocator. The methods that grow a collection and cannot fail (`Vec::push`,
//! `HashMap::insert`) abort the process then, as the standard library's do; a policy reserves first, or
//! uses [`TryPush`].
//!
//! ```
//! use qumun::pool::{Arena, Heap, Queue, TryPush};
//!
//! let arena = Arena::new(64 << 10)?;
//! let pool = arena.handle();
//!
//! let mut waiting = Heap::new(&pool, 100)?;
//! let late = waiting.push(20u64, "late").unwrap();
//! waiting.push(10, "early").unwrap();
//! assert!(waiting.update(late, 5));
//! assert_eq!(waiting.pop(), Some((5, "late")));
//!
//! let mut two = Queue::new(&pool, 2)?;
//! assert!(two.push('a').is_ok() && two.push('b').is_ok());
//! assert_eq!(two.push('c'), Err('c'));
//!
//! let mut numbers = pool.vec::<u32>(10)?;
//! assert_eq!(numbers.try_push(7), Ok(()));
//! assert!(pool.vec::<u64>(1 << 20).is_err());
//! assert_eq!(arena.fill().failures, 1);
//! # Ok::<(), qumun::Error>(())
//! ```
//!
//! [`Context::pool`]: crate::Context::pool
//! [`Scheduler::start`]: crate::Scheduler::start

// A region of memory cannot be divided up without.
#[allow(unsafe_code)]
mod arena;
#[allow(unsafe_code)]
mod handle;
mod heap;
mod queue;
mod slab;
// Allocates by hand.
#[cfg(test)]
#[allow(unsafe_code)]
pub(crate) mod tests;

pub use allocator_api2::alloc::AllocError;
pub(crate) use arena::block_size;
pub use arena::{Arena, Fill, MIN_BLOCK, PAGE};
pub use handle::{Box, Handle, TryPush, Vec};
pub use heap::Heap;
pub use queue::Queue;
pub use slab::SlotId;
