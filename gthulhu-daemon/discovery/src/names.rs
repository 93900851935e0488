//! What pods are called: cgroups know UIDs only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{ContainerId, Labels, PodUid, Result};

mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;

pub use file::FileNames;
#[cfg(feature = "kubernetes")]
pub use kubernetes::{Cluster, ClusterNames, ClusterOptions, Selections, WatchState};

/// What is known of a pod beyond this machine's cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// The UID by which its cgroups call it: for pods from files that is a hash, not the UID of the API.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The node that it is on, as far as it is known.
    pub node: Option<String>,
    /// The names of its containers by id. Those that have not been started yet have none.
    pub containers: BTreeMap<ContainerId, String>,
}

impl PodInfo {
    /// The name of a container of it.
    pub fn container(&self, id: &ContainerId) -> Option<&str> {
        self.containers.get(id).map(String::as_str)
    }
}

/// `namespace/name`.
impl fmt::Display for PodInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who knows what pods are called. Asked from memory: nothing here waits for a network.
pub trait Names: fmt::Debug + Send {
    /// The pod of this UID. `None`: not known, or not yet.
    fn pod(&self, uid: &PodUid) -> Option<Arc<PodInfo>>;

    /// All pods that are known, in no order.
    fn pods(&self) -> Vec<Arc<PodInfo>>;

    /// Takes what changed since the last call, where somebody has to. Says whether anything did.
    ///
    /// # Errors
    /// The source cannot be read or understood. What was known before stays.
    fn refresh(&mut self) -> Result<bool>;

    /// A number that is another one whenever something changed: who keeps what was asked compares it.
    fn generation(&self) -> u64;
}

/// Nobody knows: for machines without Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoNames;

impl Names for NoNames {
    fn pod(&self, _uid: &PodUid) -> Option<Arc<PodInfo>> {
        None
    }

    fn pods(&self) -> Vec<Arc<PodInfo>> {
        Vec::new()
    }

    fn refresh(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn generation(&self) -> u64 {
        0
    }
}
