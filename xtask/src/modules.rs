//! A kernel's modules: the lab's images have everything built in that a guest needs to boot, and some loads need more.

use crate::apt::{self, Release};
use crate::kernel::{Cache, Kernel};
use crate::ui::{Context, Result, capture, error, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a part of the kernel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Module {
    /// In the image.
    BuiltIn,
    /// In a file that `insmod` takes.
    File(PathBuf),
}

/// A module of this kernel, from the cache if that has it, else from the archive's packages of this very version.
///
/// # Errors
/// When the kernel was built without it, or the archive has moved on to another version.
pub(crate) fn get(cache: &Cache, kernel: &Kernel, name: &str, option: &str) -> Result<Module> {
    let config = kernel.config.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    match setting(&config, option) {
        Some("y") => return Ok(Module::BuiltIn),
        Some("m") => {}
        _ => return Err(error(format!("Linux {} was built without {option}", kernel.release))),
    }
    let folder = kernel.image.with_file_name("modules");
    let kept = folder.join(format!("{name}.ko"));
    if kept.is_file() {
        return Ok(Module::File(kept));
    }
    let scratch = cache.scratch()?;
    let root = scratch.0.join("root");
    let mut last = None;
    // Up to 7.1 the modules are beside the image.
    for package in ["linux-modules", "linux-binary", "linux-image"] {
        let release = Release {
            name: kernel.release.clone(),
            version: kernel.version.clone(),
            packages: vec![format!("{package}-{}", kernel.release)],
        };
        if let Err(e) = apt::unpack(cache, &release, &scratch.0, &root) {
            last = Some(e);
            continue;
        }
        let Some(file) = find(&root, name) else { continue };
        fs::create_dir_all(&folder).cannot(format_args!("make {}", folder.display()))?;
        return keep(&file, &kept).map(|()| Module::File(kept));
    }
    let why = last.map(|e| format!(": {e}")).unwrap_or_default();
    Err(error(format!(
        "the archive has no module {name} of Linux {}; `cargo xtask lab kernel` fetches a newer kernel{why}",
        kernel.release
    )))
}

/// The value of an option of a kernel's configuration.
fn setting<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    config.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='))
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if [".ko", ".ko.xz"].iter().any(|end| entry.file_name() == format!("{name}{end}").as_str()) {
            return Some(path);
        }
    }
    None
}

/// Unpacked: busybox's insmod takes no compressed ones. By a rename, so that a kept one is whole.
fn keep(file: &Path, to: &Path) -> Result<()> {
    if file.extension().is_some_and(|end| end == "xz") {
        say(format_args!("unpacking {}", file.display()));
        capture(Command::new("xz").args(["-d", "-k", "-f"]).arg(file))?;
    }
    let plain = file.with_file_name(to.file_name().unwrap_or_default());
    let new = to.with_extension(format!("new{}", std::process::id()));
    fs::copy(&plain, &new).cannot(format_args!("copy {}", plain.display()))?;
    fs::rename(&new, to).cannot(format_args!("write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_not_another_one() {
        let config = "CONFIG_VETH_X=y\n# CONFIG_TUN is not set\nCONFIG_VETH=m\n";
        assert_eq!(setting(config, "CONFIG_VETH"), Some("m"));
        assert_eq!(setting(config, "CONFIG_TUN"), None);
    }

    #[test]
    fn a_module_is_found_wherever_it_lies() {
        let root = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        let deep = root.join("usr/lib/modules/7.3/kernel/drivers/net");
        fs::create_dir_all(&deep).unwrap();
        for name in ["vethx.ko", "veth.ko"] {
            fs::write(deep.join(name), name).unwrap();
        }
        let found = find(&root, "veth").unwrap();
        keep(&found, &root.join("veth.ko")).unwrap();
        assert_eq!(fs::read_to_string(root.join("veth.ko")).unwrap(), "veth.ko");
        assert_eq!(find(&root, "tun"), None);
        fs::remove_dir_all(root).unwrap();
    }
}
