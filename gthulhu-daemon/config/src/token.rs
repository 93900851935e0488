//! The token that the daemon makes for itself: on loopback every user of the machine reaches the control address, and
//! only those who may read this file are to change anything there.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Secret;
use crate::store::Store;

/// Its name, in the folder of the applied runtime configuration.
const NAME: &str = "control-token";
const BYTES: usize = 32;

/// Where it is.
pub(crate) fn path(runtime_config: &Path) -> PathBuf {
    runtime_config.with_file_name(NAME)
}

/// Reads it; makes one where there is none, for its owner alone, in a folder in which nobody else can write.
pub(crate) fn read_or_make(store: &Store) -> Result<Secret, String> {
    let shown = store.path.display();
    if let Some(bytes) = store.read().map_err(|why| format!("{shown} is not used: {why}"))? {
        return match std::str::from_utf8(&bytes).map(str::trim) {
            Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
            _ => Err(format!("{shown} holds no token; remove it, and another is made")),
        };
    }
    let mut random = [0; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|e| format!("no token can be made: /dev/urandom: {e}"))?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    store
        .write(format!("{text}\n").as_bytes())
        .map_err(|e| format!("no token can be kept in {shown}: {e}"))?;
    Ok(Secret::new(&text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone_and_one_that_others_know_is_none() {
        let folder = std::env::temp_dir().join(format!("gthulhu-token-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
        let path = path(&folder.join("runtime.json"));
        let store = Store::new(path.clone(), false);
        let first = read_or_make(&store).expect("made");
        assert_eq!((first.reveal().len(), read_or_make(&store).expect("read")), (2 * BYTES, first.clone()));
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let why = read_or_make(&store).expect_err("others can read it");
        assert!(why.contains("control-token is not used: it can be read"), "{why}");
        std::fs::remove_file(&path).expect("removed");
        assert_ne!(read_or_make(&store).expect("another"), first);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
