//! The priority model of Gthulhu: one meaning for each word, in every layer.
//!
//! Plugins, the daemon and the control plane all speak of priorities by these types. They are plain values:
//! nothing here reads, writes, waits or looks at a clock, and all that the agent's thread touches is of fixed
//! size.
//!
//! # What can be said about a task
//!
//! A [`Priority`] has a [`Class`], and if wanted a [`Slice`] and a [`Budget`].
//!
//! | class | preempts | in the queue | bounded by |
//! | --- | --- | --- | --- |
//! | [`Isolated`](Class::Isolated) | everybody, on CPUs set aside for it | as normal, on others | those CPUs |
//! | [`Latency`](Class::Latency), level 0 (the strongest) to 9 | whatever is strictly weaker | ahead | its budget, the floor |
//! | [`Latency`](Class::Latency), level 10 to 20 (the weakest) | best effort | ahead, by a discount of 50 % to 5 % | its budget, the floor |
//! | [`Normal`](Class::Normal) | best effort | by weight | |
//! | [`BestEffort`](Class::BestEffort) | nobody | behind | |
//!
//! No boost is free: it is spent from a [`TokenBucket`] that fills at the budget's share, what was spent beyond
//! it is debt in virtual time, and all boosts together leave the [`Floor`] to everything else. "Slice only"
//! is [`Class::Normal`] with a slice.
//!
//! # What the older forms become
//!
//! | older form | class |
//! | --- | --- |
//! | `priority: true`; `priority` above 0 in user mode | `Latency`, level 10 |
//! | `priority: false`; `priority` 0 in user mode | `Normal`: the slice only, if there is one |
//! | 0 to 9 of the scale 0..20 | `Latency` of the same level: preempts |
//! | 10 to 20 of the scale 0..20 | `Latency` of the same level: discount |
//! | no entry | `Normal` |
//! | *none* | `BestEffort`, `Isolated`, any budget |
//!
//! Why, and what was wrong with each, is told in [`legacy`].
//!
//! # From a wish to a decision
//!
//! ```
//! use gthulhu_model::*;
//!
//! # fn main() -> Result<(), Error> {
//! // A thread that talks to the control plane makes a table of all strategies...
//! let (mut publisher, mut reader) = handover();
//! let now_ns = 1_000_000_000;
//! let id = StrategyId::new(1)?;
//! let pods = Target::Cgroup(CgroupId(4242));
//! let priority = Priority {
//!     class: Class::Latency(Level::new(5)?),
//!     slice: Some(Slice::from_nanos(2_000_000)?),
//!     budget: Some(Budget::millicpu(300)?),
//! };
//! let mut table = StrategyTable::builder(Generation(1));
//! table.add(Strategy { id, target: pods, priority, ttl: Ttl::default() }.lease(now_ns));
//! publisher.publish(table.build());
//!
//! // ... and the agent's thread takes it, without waiting, at the start of a turn.
//! reader.refresh();
//! let subject = Subject { cgroup: Some(CgroupId(4242)), ..Subject::default() };
//! let lease = reader.get().and_then(|table| table.find(&subject, now_ns)).expect("it holds");
//! let boost = lease.strategy.priority.boost().expect("latency is boosted");
//!
//! // What the task remembers, and its children inherit in the core: which strategy, until it expires.
//! let label = Label::Strategy(lease.strategy.id).pack();
//! assert_eq!(Label::unpack(label)?, Label::Strategy(id));
//!
//! // Ahead of others for as long as there are tokens.
//! let mut bucket = TokenBucket::full(boost, now_ns);
//! bucket.spend(25_000_000);
//! assert_eq!((bucket.tokens(), bucket.debt()), (0, 5_000_000));
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! `serde`: `Serialize` and `Deserialize` for all but the table and the buckets; what is read is checked as the
//! constructors check it, and unknown fields are refused, so that a misspelt budget is no missing one.

#![forbid(unsafe_code)]

mod bucket;
mod budget;
mod class;
mod error;
mod handover;
mod identity;
mod label;
pub mod legacy;
// Public for loom's tests only.
#[cfg(not(loom))]
#[allow(unreachable_pub)]
mod middle;
#[cfg(loom)]
#[allow(missing_docs, clippy::new_without_default)]
pub mod middle;
mod priority;
mod strategy;
mod sync;
mod table;

pub use bucket::TokenBucket;
pub use budget::{Budget, Floor};
pub use class::{Class, Level};
pub use error::{Error, ErrorKind};
pub use handover::{Publisher, Reader, handover};
pub use identity::{CgroupId, Comm, Subject, Target, TaskNumber, ThreadId};
pub use label::Label;
pub use priority::{Priority, Slice};
pub use strategy::{Lease, Strategy, StrategyId, Ttl};
pub use table::{Generation, StrategyTable, TableBuilder};
