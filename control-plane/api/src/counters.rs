//! The scheduler's counters, as the original's plugin sent them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The counters of one node: the original's eleven, and by name whatever else there is.
///
/// ```
/// let counters: gthulhu_api::Counters = serde_json::from_str(r#"{ "nr_queued": 3, "permitted": 7 }"#).unwrap();
/// assert_eq!((counters.nr_queued, counters.more["permitted"]), (3, 7));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of the core's statistics, which document them")]
pub struct Counters {
    pub usersched_last_run_at: u64,
    pub nr_queued: u64,
    pub nr_scheduled: u64,
    pub nr_running: u64,
    pub nr_online_cpus: u64,
    pub nr_user_dispatches: u64,
    pub nr_kernel_dispatches: u64,
    pub nr_cancel_dispatches: u64,
    pub nr_bounce_dispatches: u64,
    pub nr_failed_dispatches: u64,
    pub nr_sched_congested: u64,
    /// What the original did not have.
    #[serde(flatten)]
    pub more: BTreeMap<String, u64>,
}
