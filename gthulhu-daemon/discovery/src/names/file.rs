//! Names from a file that somebody else writes.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{Names, PodInfo};
use crate::{ContainerId, Error, ErrorKind, Labels, PodUid, Result};

/// Bytes that a file may have: some 100,000 pods.
const MAX_FILE: u64 = 64 << 20;

/// Names from a YAML or JSON file, read again when it changed.
///
/// ```yaml
/// pods:
/// - uid: 0a1b2c3d-1111-2222-3333-444455556666
///   namespace: shop
///   name: cart-7d9c
///   labels: {app: cart}
///   node: worker-1
///   containers:
///   - name: app
///     id: containerd://9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
/// ```
///
/// `labels`, `node` and `containers` may be left out. Write it aside and rename it: what is read in the middle
/// of being written is refused, and read again when it changes once more.
#[derive(Debug)]
pub struct FileNames {
    path: PathBuf,
    stamp: Stamp,
    pods: HashMap<PodUid, Arc<PodInfo>>,
    generation: u64,
}

/// Whether a file is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    pods: Vec<PodText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodText {
    uid: serde_saphyr::Spanned<String>,
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Labels,
    node: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerText {
    name: String,
    id: serde_saphyr::Spanned<String>,
}

impl FileNames {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is larger than 64 MiB, or is not as it should be: then the error says in which line
    /// and column.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let (stamp, text) = read(&path)?;
        let pods = parse(&path, &text)?;
        Ok(Self { path, stamp, pods, generation: 1 })
    }

    /// Which file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Names for FileNames {
    fn pod(&self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        self.pods.get(uid).cloned()
    }

    fn pods(&self) -> Vec<Arc<PodInfo>> {
        self.pods.values().cloned().collect()
    }

    /// Reads the file again if it is another one, or has another size or time.
    fn refresh(&mut self) -> Result<bool> {
        let metadata = self.path.metadata().map_err(|error| Error::io("read", &self.path, error))?;
        if Stamp::of(&metadata) == self.stamp {
            return Ok(false);
        }
        let (stamp, text) = read(&self.path)?;
        // A mistake is told once, not at every look.
        self.stamp = stamp;
        let pods = parse(&self.path, &text)?;
        if pods == self.pods {
            return Ok(false);
        }
        self.pods = pods;
        self.generation += 1;
        Ok(true)
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

fn read(path: &Path) -> Result<(Stamp, String)> {
    let failed = |error| Error::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    // Of what is read, not of what has the name by now.
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        let what =
            format!("{} has more than {MAX_FILE} bytes: leave out pods of other nodes", path.display());
        return Err(Error::new(ErrorKind::Names, what));
    }
    Ok((stamp, text))
}

/// JSON is YAML, too.
fn parse(path: &Path, text: &str) -> Result<HashMap<PodUid, Arc<PodInfo>>> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        Error::new(ErrorKind::Names, format!("{}{place}: {error}", path.display()))
    })?;
    let refused = |at: serde_saphyr::Location, what: String| {
        Error::new(ErrorKind::Names, format!("{}:{}:{}: {what}", path.display(), at.line(), at.column()))
    };
    let mut pods = HashMap::new();
    for pod in document.pods {
        let at = pod.uid.referenced;
        let Some(uid) = PodUid::new(&pod.uid.value) else {
            let what = format!("uid `{}` is none: give metadata.uid of the pod", pod.uid.value);
            return Err(refused(at, what));
        };
        let mut containers = BTreeMap::new();
        for container in pod.containers {
            let Some(id) = ContainerId::new(&container.id.value) else {
                let what =
                    format!("id `{}` of a container is none: give its containerID", container.id.value);
                return Err(refused(container.id.referenced, what));
            };
            containers.insert(id, container.name);
        }
        let PodText { namespace, name, labels, node, .. } = pod;
        let info = PodInfo { uid: uid.clone(), namespace, name, labels, node, containers };
        if let Some(other) = pods.insert(uid.clone(), Arc::new(info)) {
            return Err(refused(at, format!("uid {uid} is that of {other} already: leave one of them out")));
        }
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    /// A file of its own for each test.
    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, text: &str) -> Self {
            let file = std::env::temp_dir().join(format!("gthulhu-names-{}-{name}", std::process::id()));
            std::fs::write(&file, text).unwrap();
            Self(file)
        }

        fn replace(&self, text: &str) {
            let aside = self.0.with_extension("new");
            std::fs::write(&aside, text).unwrap();
            std::fs::rename(aside, &self.0).unwrap();
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn yaml(name: &str) -> String {
        format!(
            "pods:\n- uid: {UID}\n  namespace: shop\n  name: {name}\n  labels: {{app: cart}}\n  node: worker-1\n  \
             containers:\n  - name: app\n    id: containerd://{ID}\n"
        )
    }

    #[test]
    fn yaml_and_json_are_read_alike() {
        let text = yaml("cart-1");
        let json = format!(
            r#"{{"pods": [{{"uid": "{}", "namespace": "shop", "name": "cart-1", "labels": {{"app": "cart"}},
                "node": "worker-1", "containers": [{{"name": "app", "id": "{ID}"}}]}}]}}"#,
            UID.to_uppercase()
        );
        let (yaml, json) = (Written::new("y", &text), Written::new("j", &json));
        let (yaml, json) = (FileNames::open(&yaml.0).unwrap(), FileNames::open(&json.0).unwrap());
        assert_eq!(yaml.pods, json.pods);
        let pod = yaml.pod(&PodUid::new(UID).unwrap()).unwrap();
        assert_eq!((pod.to_string().as_str(), pod.node.as_deref()), ("shop/cart-1", Some("worker-1")));
        assert_eq!(pod.container(&ContainerId::new(ID).unwrap()), Some("app"));
        assert_eq!(yaml.pods().len(), 1);
    }

    #[test]
    fn a_file_that_changed_is_read_again() {
        let file = Written::new("again", &yaml("cart-1"));
        let uid = PodUid::new(UID).unwrap();
        let mut names = FileNames::open(&file.0).unwrap();
        let first = names.generation();
        assert!(!names.refresh().unwrap() && names.generation() == first);
        file.replace(&yaml("cart-2"));
        assert!(names.refresh().unwrap() && names.generation() != first);
        assert_eq!(names.pod(&uid).unwrap().name, "cart-2");

        // A mistake is told once, and changes nothing.
        file.replace("pods: [{}]");
        assert!(names.refresh().unwrap_err().to_string().contains("missing field"));
        assert!(!names.refresh().unwrap());
        assert_eq!(names.pod(&uid).unwrap().name, "cart-2");
        std::fs::remove_file(&file.0).unwrap();
        assert_eq!(names.refresh().unwrap_err().kind(), ErrorKind::Io);
        assert!(names.pod(&uid).is_some());

        file.replace("pods: []");
        assert!(names.refresh().unwrap() && names.pod(&uid).is_none());
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        let pod = |more: &str| format!("pods:\n- namespace: a\n  name: b\n{more}");
        for (text, wanted) in [
            (pod("  uuid: x\n"), ":4:3: unknown field `uuid`"),
            (pod("  uid: a/b\n"), ":4:8: uid `a/b` is none"),
            (
                pod("  uid: a\n  containers:\n  - {name: c, id: a b}\n"),
                ":6:19: id `a b` of a container is none",
            ),
            (pod("  uid: a\n  labels: 7\n"), ":5:11: "),
            (pod("  uid: a\n- {namespace: c, name: d, uid: A}\n"), ":5:32: uid a is that of a/b already"),
            ("pods:\n- uid: [\n".into(), ""),
        ] {
            let file = Written::new("wrong", &text);
            let error = FileNames::open(&file.0).unwrap_err();
            let wanted = format!("{}{wanted}", file.0.display());
            assert!(error.to_string().starts_with(&wanted), "{error}\n{wanted}");
            assert_eq!(error.kind(), ErrorKind::Names);
        }
    }
}
