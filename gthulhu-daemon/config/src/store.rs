//! The file in which runtime configuration survives: written whole or not at all, and believed only when nobody
//! else can have written it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{kind, secret};

/// Longer is nothing that we wrote.
const STATE_MAX: u64 = 256 * 1024;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
    /// Whether its folder has to be one where only root can write. Tests cannot have that.
    strict: bool,
}

impl Store {
    pub(crate) fn new(path: PathBuf, strict: bool) -> Self {
        Self { path, strict }
    }

    /// What is stored; `None` when nothing is.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, String> {
        let nofollow = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let file = match File::options().read(true).custom_flags(nofollow).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err("it is a link".into());
            }
            Err(e) => return Err(format!("it cannot be read: {e}")),
        };
        self.folder().and_then(|folder| self.check_folder(folder)).map_err(|e| e.to_string())?;
        let meta = file.metadata().map_err(|e| format!("it cannot be read: {e}"))?;
        if !meta.is_file() {
            return Err("it is no file".into());
        }
        secret::private(&meta).map_err(|why| format!("it {why}"))?;
        let mut bytes = Vec::new();
        file.take(STATE_MAX + 1).read_to_end(&mut bytes).map_err(|e| format!("it cannot be read: {e}"))?;
        if bytes.len() as u64 > STATE_MAX {
            return Err(format!("it is longer than {STATE_MAX} bytes"));
        }
        Ok(Some(bytes))
    }

    /// Puts `bytes` there, whole and durable: when this fails, what was there still is.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder()?;
        // Mode 0700 for what is made.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        self.check_folder(folder)?;
        let new = self.sibling("new");
        // Left over from a daemon that was killed while it wrote.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        // The name is durable only with its folder. It is there already: an error now would say that nothing has
        // changed.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Moves what cannot be used out of the way, so that it can be looked at; where it is then.
    pub(crate) fn set_aside(&self) -> io::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        for n in 0..100 {
            let aside = self.sibling(&format!("refused-{now}-{n}"));
            if fs::symlink_metadata(&aside).is_err() {
                fs::rename(&self.path, &aside)?;
                return Ok(aside);
            }
        }
        Err(io::Error::other("too many were set aside in this second"))
    }

    fn folder(&self) -> io::Result<&Path> {
        self.path.parent().ok_or_else(|| io::Error::other("it names no file in a folder"))
    }

    fn sibling(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        self.path.with_file_name(name)
    }

    /// Its folder, wherever links lead: not a temporary one, and no one else may write there.
    fn check_folder(&self, folder: &Path) -> io::Result<()> {
        let real = folder.canonicalize()?;
        let shown = real.display();
        if self.strict && kind::is_temporary(&real) {
            return Err(io::Error::other(format!(
                "{shown} is a temporary folder; choose another daemon.runtime_config_path"
            )));
        }
        let us = rustix::process::geteuid().as_raw();
        for above in real.ancestors() {
            let meta = fs::metadata(above)?;
            // Where names can be taken by their owners only, ours stays ours; but nothing of others' may be beside
            // the file itself.
            let sticky = above != real && meta.mode() & 0o1000 != 0;
            if (meta.uid() != 0 && meta.uid() != us) || (meta.mode() & 0o022 != 0 && !sticky) {
                let (uid, mode, shown) = (meta.uid(), meta.mode() & 0o7777, above.display());
                return Err(io::Error::other(format!(
                    "others may write in {shown} (user {uid}, mode {mode:04o}): chown root {shown} && chmod 755 {shown}"
                )));
            }
        }
        Ok(())
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
