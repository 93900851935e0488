//! What runs in a cgroup, told by its path alone.
//!
//! Runtimes, the kubelet and systemd all put what they start into cgroups whose names say what it is. There
//! is no standard, only what each of them writes; the table in the tests is of real spellings.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

mod parse;
#[cfg(test)]
mod tests;
mod unit;

pub use unit::{unescape_cgroup, unescape_unit};

/// What runs in a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Workload {
    /// The root cgroup: threads of the kernel, and whatever nobody moved elsewhere.
    Root,
    /// A pod of Kubernetes, as the kubelet of this machine made it.
    Pod {
        /// Which pod.
        uid: PodUid,
        /// Its class, as the path says it.
        qos: Qos,
        /// Which of its containers; `None` in the pod's own cgroup, and for a runtime's helpers in it
        /// (`conmon`).
        container: Option<Container>,
    },
    /// A container that belongs to no pod.
    Container(Container),
    /// A service, scope or slice of systemd.
    Unit(Unit),
    /// Any other cgroup, made by hand or by a program that is not known here: its path.
    Other(Arc<str>),
}

impl Workload {
    /// What runs in the cgroup of this path, seen from the root of its hierarchy, such as
    /// `/system.slice/cron.service`. Bytes of any kind give an answer.
    ///
    /// A pod comes before a container without one, and that before a unit of systemd. Of pods inside pods,
    /// and of containers inside containers, the outermost is told: it is the one that this machine's own
    /// kubelet and runtime know. So the pods of a kind cluster are told even though they stand below the
    /// container that plays the node; and what a container starts inside itself belongs to that container.
    ///
    /// ```
    /// # use gthulhu_discovery::{Qos, Runtime, Workload};
    /// let path = "/kubepods.slice/kubepods-burstable.slice/\
    ///     kubepods-burstable-pod0a1b2c3d_1111_2222_3333_444455556666.slice/\
    ///     cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope";
    /// let workload = Workload::of_cgroup(path);
    /// let (uid, qos) = workload.pod().unwrap();
    /// assert_eq!((uid.as_str(), qos), ("0a1b2c3d-1111-2222-3333-444455556666", Qos::Burstable));
    /// assert_eq!(workload.container().unwrap().runtime, Runtime::Containerd);
    /// ```
    pub fn of_cgroup(path: impl AsRef<[u8]>) -> Self {
        parse::workload(path.as_ref())
    }

    /// Its pod and the pod's class.
    pub fn pod(&self) -> Option<(&PodUid, Qos)> {
        match self {
            Self::Pod { uid, qos, .. } => Some((uid, *qos)),
            _ => None,
        }
    }

    /// Its container, of a pod or not.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Pod { container, .. } => container.as_ref(),
            Self::Container(container) => Some(container),
            _ => None,
        }
    }

    /// How much it tells: of several paths of one process, that with the highest is taken.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Root => 0,
            Self::Other(_) => 1,
            Self::Unit(unit) if unit.kind == UnitKind::Slice => 2,
            Self::Unit(_) => 3,
            Self::Container(_) => 4,
            Self::Pod { container: None, .. } => 5,
            Self::Pod { container: Some(_), .. } => 6,
        }
    }
}

/// As a person reads it: `pod UID/CONTAINER`, `nginx.service`, `session-3.scope of user 1000`.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Pod { uid, container: None, .. } => write!(f, "pod {uid}"),
            Self::Pod { uid, container: Some(container), .. } => write!(f, "pod {uid}/{}", container.id),
            Self::Container(container) => write!(f, "container {}", container.id),
            Self::Unit(Unit { name, user: None, .. }) => f.write_str(name),
            Self::Unit(Unit { name, user: Some(user), .. }) => write!(f, "{name} of user {user}"),
            Self::Other(path) => f.write_str(path),
        }
    }
}

/// The UID of a pod, in the one spelling that cgroups and the Kubernetes API have in common: lower case, with
/// dashes.
///
/// systemd separates slices by dashes, so the kubelet writes `_` in their place; which of the two it was
/// cannot be told afterwards, and both become a dash. Pods from files (static pods) have no dashes at all:
/// their UID in cgroups is a hash of their description, which the API knows as the annotation
/// `kubernetes.io/config.hash` of the mirror pod, not as its UID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// The longest that is taken for a UID. Those of the API have 36 characters, hashes 32.
    pub const MAX_LEN: usize = 64;

    /// This UID, in either spelling. `None` for what cannot be one: empty, longer than
    /// [`MAX_LEN`](Self::MAX_LEN), or with other characters than ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(uid: impl AsRef<[u8]>) -> Option<Self> {
        let uid = uid.as_ref();
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        // What ends or begins with a separator is a fragment of something else.
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        if uid.len() > Self::MAX_LEN || !edge(uid.first()) || !edge(uid.last()) || !uid.iter().all(fine) {
            return None;
        }
        let spell = |byte: &u8| if *byte == b'_' { '-' } else { byte.to_ascii_lowercase() as char };
        Some(Self(uid.iter().map(spell).collect::<String>().into()))
    }

    /// The UID.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A map by UID can be asked by text in the common spelling.
impl Borrow<str> for PodUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodUid({})", self.0)
    }
}

/// The class of a pod by which the kubelet sorts pods into cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// Requests and limits are equal. The kubelet gives this class no cgroup of its own.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// No requests and no limits.
    BestEffort,
}

impl fmt::Display for Qos {
    /// As Kubernetes spells it in `status.qosClass`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// Its id: of all runtimes here 64 hexadecimal digits, if nobody chose it by hand.
    pub id: ContainerId,
    /// Who runs it, as far as the path says.
    pub runtime: Runtime,
}

/// The id of a container, without the `containerd://` that Kubernetes writes in front.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// The longest id that is taken for one.
    pub const MAX_LEN: usize = 128;

    /// This id; of `containerd://ID`, as in `status.containerStatuses[].containerID`, what stands behind the
    /// slashes. `None` for what cannot be one: empty, longer than [`MAX_LEN`](Self::MAX_LEN), or with other
    /// characters than ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(id: impl AsRef<[u8]>) -> Option<Self> {
        let id = id.as_ref();
        let id = id.windows(3).position(|three| three == b"://").map_or(id, |at| &id[at + 3..]);
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let text = std::str::from_utf8(id).ok()?;
        (!id.is_empty() && id.len() <= Self::MAX_LEN && id.iter().all(fine)).then(|| Self(text.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 characters, as `docker ps` shows it.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({})", self.0)
    }
}

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Runtime {
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker, by itself or for Kubernetes through cri-dockerd.
    Docker,
    /// Podman.
    Podman,
    /// nerdctl on containerd.
    Nerdctl,
    /// The path does not say: with the cgroupfs driver, containerd and cri-dockerd write the bare id.
    Unknown,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Nerdctl => "nerdctl",
            Self::Unknown => "unknown",
        })
    }
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Its name, as `systemctl` shows it: with systemd's `\x2d` in it, see [`unescape_unit`].
    pub name: Arc<str>,
    /// Of what sort it is.
    pub kind: UnitKind,
    /// The uid of the user whose session or whose own systemd it belongs to; `None` for the system's.
    pub user: Option<u32>,
}

/// The sorts of units that have cgroups with processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitKind {
    /// What systemd starts.
    Service,
    /// What others started and gave to systemd: sessions, virtual machines, `init.scope`.
    Scope,
    /// A group of units. It has no processes by itself.
    Slice,
    /// A socket, mount or swap whose helper runs at this moment.
    Other,
}
