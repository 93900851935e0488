//! Private apt worlds: packages of other Debian suites (kernels, a newer QEMU), without touching the system's apt or needing root.
//!
//! The mirror is the one this machine already uses, so no host name stands here. Lists, cache and configuration
//! live in the cache; packages are downloaded and unpacked, never installed.

use crate::kernel::{Cache, Lock, Version};
use crate::ui::{Context, Result, capture, error, is_root, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Where Debian keeps kernels with sched_ext: the newest is in the one or the other.
const SUITES: &str = "trixie-backports sid";
/// The flavour: small, boots fast, everything the lab needs built in.
const FLAVOUR: &str = "-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A kernel in the archive.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Release {
    /// What `uname -r` says, such as `7.3.4+deb13-cloud-amd64`.
    pub(crate) name: String,
    /// The numbers in front of it.
    pub(crate) version: Version,
    /// The packages that hold its image and its configuration.
    pub(crate) packages: Vec<String>,
}

/// What the archive has, by lists of whatever age, oldest version first. Touches no network.
pub(crate) fn known(cache: &Cache) -> Vec<Release> {
    fs::read_to_string(available(cache))
        .map(|text| text.lines().filter_map(parse_known).collect())
        .unwrap_or_default()
}

/// Whether the lists are younger than a day.
pub(crate) fn fresh(cache: &Cache) -> bool {
    is_fresh(&available(cache))
}

fn is_fresh(file: &Path) -> bool {
    let age =
        |m: fs::Metadata| SystemTime::now().duration_since(m.modified()?).map_err(std::io::Error::other);
    file.metadata().and_then(age).is_ok_and(|age| age < FRESH)
}

/// Reads the archive's lists anew.
pub(crate) fn refresh(cache: &Cache) -> Result<()> {
    let world = World::open(cache, "apt", SUITES)?;
    let _lock = Lock::take(&world.0.join("lock"))?;
    if fresh(cache) {
        return Ok(()); // Another xtask did it while we waited.
    }
    world.update()?;
    let names = capture(world.command("apt-cache").args(["pkgnames", "linux-"]))?;
    let text: String =
        releases(&names).iter().map(|r| format!("{} {}\n", r.name, r.packages.join(" "))).collect();
    if text.is_empty() {
        return Err(error(format!("the archive lists no kernel for {FLAVOUR} in {SUITES}")));
    }
    let new = world.0.join("available.new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, available(cache)))
        .cannot("write the list of kernels")
}

/// Downloads and unpacks the packages of a kernel below `root`; `scratch` takes the files.
pub(crate) fn unpack(cache: &Cache, release: &Release, scratch: &Path, root: &Path) -> Result<()> {
    World::open(cache, "apt", SUITES)?.unpack(&release.packages, scratch, root)
}

fn available(cache: &Cache) -> PathBuf {
    cache.dir("apt").join("available")
}

/// One private apt world: a folder of the cache with lists, configuration and source of its own.
#[derive(Debug)]
pub(crate) struct World(PathBuf);

impl World {
    /// Writes the world's configuration; cheap, so done before each use.
    pub(crate) fn open(cache: &Cache, name: &str, suites: &str) -> Result<Self> {
        let dir = cache.dir(name);
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).cannot(format_args!("make {}", dir.display()))?;
        }
        let source = system_source(suites).ok_or_else(|| {
            error(
                "no Debian archive in /etc/apt/sources.list.d/debian.sources or /etc/apt/sources.list to ask",
            )
        })?;
        let d = dir.display();
        // Read after the system's own fragments (the file of APT_CONFIG itself is read before them), so it has
        // the last word, and the system's hooks after an update (indexers, cleaners) do not run for ours.
        let mut main = String::new();
        if Path::new("/etc/apt/apt.conf").exists() {
            main.push_str("#include \"/etc/apt/apt.conf\";\n");
        }
        main.push_str("#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n");
        for (key, value) in [
            ("Dir::Etc::SourceList", format!("{d}/debian.sources")),
            ("Dir::Etc::SourceParts", format!("{d}/none")),
            ("Dir::Etc::Preferences", format!("{d}/none")),
            ("Dir::Etc::PreferencesParts", format!("{d}/none")),
            ("Dir::State::Lists", format!("{d}/lists")),
            ("Dir::State::Status", "/dev/null".into()),
            ("Dir::Cache", format!("{d}/cache")),
            ("Dir::Cache::Archives", format!("{d}/cache/archives")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Update::Error-Mode", "any".into()),
            ("APT::Sandbox::User", if is_root() { "root" } else { "" }.into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "2".into()),
        ] {
            main.push_str(&format!("{key} \"{value}\";\n"));
        }
        let first = format!("Dir::Etc::Main \"{d}/main.conf\";\n");
        for (name, text) in [("debian.sources", source), ("main.conf", main), ("apt.conf", first)] {
            let path = dir.join(name);
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                fs::write(&path, text).cannot(format_args!("write {}", path.display()))?;
            }
        }
        Ok(Self(dir))
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        say("reading the archive's package lists");
        capture(self.command("apt-get").args(["-q", "update"])).map(drop)
    }

    /// Fetches the package lists, unless they were fetched within a day.
    pub(crate) fn update_daily(&self) -> Result<()> {
        let stamp = self.0.join("updated");
        if is_fresh(&stamp) {
            return Ok(());
        }
        self.update()?;
        fs::write(&stamp, "").cannot(format_args!("write {}", stamp.display()))
    }

    /// The versions of a package, as the archive writes them, newest first; empty when it has none.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = capture(self.command("apt-cache").args(["-q", "madison", package]))?;
        // ` linux-source-6.12 | 6.12.107-1 | ARCHIVE trixie/main amd64 Packages`
        Ok(table.lines().filter_map(|line| line.split('|').nth(1)).map(|v| v.trim().to_string()).collect())
    }

    /// Downloads packages into `scratch` and unpacks them below `root`. `NAME=VERSION` asks for one version.
    pub(crate) fn unpack(&self, packages: &[String], scratch: &Path, root: &Path) -> Result<()> {
        for package in packages {
            let stem = package.split('=').next().unwrap_or(package);
            say(format_args!("fetching {package}"));
            capture(self.command("apt-get").args(["-q", "download", package]).current_dir(scratch))?;
            let is_it = |p: &PathBuf| {
                let name = p.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&format!("{stem}_")) && name.ends_with(".deb")
            };
            let files = fs::read_dir(scratch).cannot(format_args!("read {}", scratch.display()))?;
            let deb = files.flatten().map(|f| f.path()).find(is_it);
            let deb = deb.ok_or_else(|| error(format!("{package}: no file came")))?;
            run(Command::new("dpkg").arg("-x").arg(deb).arg(root))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.0.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

fn system_source(suites: &str) -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).ok();
    read("/etc/apt/sources.list.d/debian.sources")
        .and_then(|text| from_deb822(&text, suites))
        .or_else(|| read("/etc/apt/sources.list").and_then(|text| from_one_line(&text, suites)))
}

/// The first enabled, non-security stanza of a deb822 file, with our suites.
fn from_deb822(text: &str, suites: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            match line.split_once(':') {
                _ if line.starts_with([' ', '\t']) => {
                    let last = fields.last_mut()?;
                    last.1 = format!("{}\n{line}", last.1);
                }
                Some((key, value)) => fields.push((key.to_ascii_lowercase(), value.trim().to_string())),
                None => return None,
            }
        }
        let get = |key: &str| fields.iter().find(|f| f.0 == key).map(|f| f.1.as_str());
        let wanted = get("types")?.split_whitespace().any(|t| t == "deb") && get("enabled") != Some("no");
        let uris = get("uris").filter(|uris| wanted && !uris.contains("security"))?;
        Some(source(uris, suites, get("signed-by")))
    })
}

/// The same from the old one-line format.
fn from_one_line(text: &str, suites: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let uri = *words.first().filter(|uri| !uri.contains("security") && words[1..].contains(&"main"))?;
        let signed = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
        Some(source(uri, suites, signed))
    })
}

fn source(uris: &str, suites: &str, signed_by: Option<&str>) -> String {
    let signed_by = signed_by.unwrap_or(KEYRING);
    format!(
        "Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: main\nArchitectures: amd64\nTargets: Packages\n\
         Signed-By: {signed_by}\n"
    )
}

/// Kernels out of `apt-cache pkgnames`. Up to 6.18 `linux-image-V` holds the image; from 6.19 on that one is
/// empty and `linux-binary-V` does; from 7.2 on the configuration is in `linux-base-V`.
fn releases(names: &str) -> Vec<Release> {
    let names: Vec<&str> = names.lines().collect();
    let mut found: Vec<Release> = Vec::new();
    for prefix in ["linux-binary-", "linux-image-"] {
        for name in &names {
            let Some(release) = name.strip_prefix(prefix).filter(|r| r.ends_with(FLAVOUR)) else { continue };
            let Some(version) = Version::leading(release) else { continue };
            if found.iter().any(|r| r.name == release) {
                continue;
            }
            let mut packages = vec![name.to_string()];
            let base = format!("linux-base-{release}");
            packages.extend(names.contains(&base.as_str()).then_some(base));
            found.push(Release { name: release.to_string(), version, packages });
        }
    }
    found.sort_by(|a, b| (&a.version, &a.name).cmp(&(&b.version, &b.name)));
    found
}

fn parse_known(line: &str) -> Option<Release> {
    let mut words = line.split(' ').map(str::to_string);
    let name = words.next()?;
    Some(Release { version: Version::leading(&name)?, name, packages: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_archive_stanza_is_taken_with_its_key() {
        let text = "# a comment\nTypes: deb deb-src\nEnabled: no\nURIs: http://off.invalid/debian\nSuites: x\n\n\
                    Types: deb\n# why\nURIs: http://security.invalid/debian-security\nSuites: x-security\n\n\
                    Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main contrib\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        let source = from_deb822(text, SUITES).unwrap();
        assert!(source.contains(
            "URIs: http://mirror.invalid/debian\nSuites: trixie-backports sid\nComponents: main\n"
        ));
        assert!(source.ends_with("Signed-By: \n -----BEGIN\n .\n -----END\n"), "{source}");
        assert_eq!(from_deb822("Types: deb-src\nURIs: http://mirror.invalid/debian\n", SUITES), None);
        let plain = from_deb822("Types: deb\nURIs: http://mirror.invalid/debian\n", SUITES).unwrap();
        assert!(plain.ends_with(&format!("Signed-By: {KEYRING}\n")));
    }

    #[test]
    fn the_old_format_works_too() {
        let text = "# deb http://no.invalid x main\ndeb-src http://src.invalid x main\n\
                    deb http://security.invalid/debian-security x-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/debian bookworm main contrib\n";
        let source = from_one_line(text, SUITES).unwrap();
        assert!(
            source.contains("URIs: http://mirror.invalid/debian\n")
                && source.ends_with("Signed-By: /k.gpg\n")
        );
        assert_eq!(from_one_line("deb http://mirror.invalid/debian bookworm contrib\n", SUITES), None);
    }

    #[test]
    fn the_package_with_the_image_is_found_and_versions_sort_as_numbers() {
        let names = "linux-image-7.2.13+deb14-cloud-amd64\nlinux-binary-7.2.13+deb14-cloud-amd64\n\
                     linux-binary-unsigned-7.2.13+deb14-cloud-amd64\nlinux-base-7.2.13+deb14-cloud-amd64\n\
                     linux-base\nlinux-image-cloud-amd64\nlinux-image-6.18.15+deb13-cloud-amd64\n\
                     linux-image-6.18.9+deb13-cloud-amd64\nlinux-image-6.18.9+deb13-amd64\n";
        let got = releases(names);
        let names: Vec<&str> = got.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(
            names,
            ["6.18.9+deb13-cloud-amd64", "6.18.15+deb13-cloud-amd64", "7.2.13+deb14-cloud-amd64"]
        );
        assert_eq!(got[0].packages, ["linux-image-6.18.9+deb13-cloud-amd64"]);
        assert_eq!(
            got[2].packages,
            ["linux-binary-7.2.13+deb14-cloud-amd64", "linux-base-7.2.13+deb14-cloud-amd64"]
        );
        let line = format!("{} {}", got[2].name, got[2].packages.join(" "));
        assert_eq!(parse_known(&line).as_ref(), Some(&got[2]));
    }
}
