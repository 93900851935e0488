//! How often the kernel removed the scheduler, and how the last time was: kept beside the runtime configuration, since
//! the daemon ends with it and another one starts.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use qumun::kernel::ExitRecord;
use serde_json::{Value, json};

/// The file, in the folder of the runtime configuration.
const NAME: &str = "ejections.json";

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    path: PathBuf,
    count: u64,
    last: Value,
}

impl Ejections {
    /// As the daemons before left it. What cannot be read counts as none: it is a count, no configuration.
    pub(crate) fn load(runtime_config: &Path) -> Self {
        let path = runtime_config.with_file_name(NAME);
        let kept = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .unwrap_or_default();
        Self { count: kept["count"].as_u64().unwrap_or(0), last: kept["last"].clone(), path }
    }

    /// For status; the dump is in the file.
    pub(crate) fn json(&self) -> Value {
        let last = ["unix_ms", "kind", "code", "reason", "message"]
            .map(|name| (name.to_owned(), self.last[name].clone()));
        let last = (!self.last.is_null()).then(|| Value::Object(last.into_iter().collect()));
        json!({ "count": self.count, "last": last })
    }

    /// Keeps another one, with its dump; where, or why not.
    pub(crate) fn add(&mut self, record: &ExitRecord) -> Result<&Path, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        self.count += 1;
        self.last = json!({
            "unix_ms": now, "kind": record.kind, "code": record.code, "reason": record.reason,
            "message": record.message, "dump": record.dump,
        });
        let all = format!("{:#}\n", json!({ "count": self.count, "last": self.last }));
        self.write(all.as_bytes()).map_err(|e| format!("cannot write {}: {e}", self.path.display()))?;
        Ok(&self.path)
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let new = self.path.with_extension("new");
        // Left over from a daemon that was killed while it wrote.
        let _ = fs::remove_file(&new);
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_count_goes_on_with_the_next_daemon_and_the_dump_is_kept() {
        let folder = std::env::temp_dir().join(format!("gthulhu-ejections-{}", std::process::id()));
        let config = folder.join("state/runtime.json");
        let record = ExitRecord {
            kind: 1026,
            code: 0,
            reason: "runnable task stall".into(),
            message: "a[1] failed to run".into(),
            dump: "CPU 0".into(),
        };
        for count in 1..=2 {
            let mut ejections = Ejections::load(&config);
            assert_eq!(ejections.json()["count"], count - 1);
            let path = ejections.add(&record).expect("written").to_owned();
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
            assert!(fs::read_to_string(path).expect("text").contains("CPU 0"));
        }
        let now = Ejections::load(&config).json();
        assert_eq!((&now["count"], &now["last"]["reason"]), (&json!(2), &json!("runnable task stall")));
        assert!(now["last"].get("dump").is_none());
        fs::remove_dir_all(&folder).expect("removed");
        fs::write(&folder, "").expect("a file in the way");
        assert!(Ejections::load(&config).add(&record).expect_err("no folder").contains("ejections.json"));
        fs::remove_file(folder).expect("removed");
    }
}
