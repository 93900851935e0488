//! What is in a guest: busybox, the programs under test with their libraries, and an init that runs one command.

use crate::cpio::{Node, Tree};
use crate::guest::GuestSpec;
use crate::ui::{Context, Result, capture, error, find_in_path, is_program};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tools that go along whenever this machine has them.
const USUAL_TOOLS: &[&str] = &["stress-ng", "hackbench", "cyclictest"];
/// Programs of the workspace that go along when they are built.
const PROGRAMS: &[&str] = &["gthulhu-daemon", "lab-guest", "qumun"];
const INIT: &str = include_str!("init.sh");

/// Writes the archive for one run of `command`.
pub(crate) fn build(to: &Path, spec: &GuestSpec, command: &[String]) -> Result<()> {
    let mut tree = skeleton();
    let busybox =
        find_in_path("busybox").ok_or_else(|| error("busybox is missing: run `cargo xtask setup`"))?;
    add_program(&mut tree, &busybox, "/bin/busybox")?;
    for applet in capture(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        tree.add(&format!("/bin/{applet}"), Node::Link("busybox".into()));
    }
    for name in USUAL_TOOLS {
        if let Some(path) = find_in_path(name) {
            add_program(&mut tree, &path, &format!("/bin/{name}"))?;
        }
    }
    for name in &spec.tools {
        let path = find_in_path(name).ok_or_else(|| error(format!("--tool {name}: not in PATH")))?;
        add_program(&mut tree, &path, &format!("/bin/{name}"))?;
    }
    for path in workspace_programs(&release_dir()?) {
        let name = path.file_name().unwrap_or_default();
        let slim = without_debug_info(&path, &to.with_file_name(name));
        add_program(&mut tree, &slim, &format!("/bin/{}", name.to_string_lossy()))?;
    }
    for (path, guest_path) in &spec.files {
        add_extra(&mut tree, path, guest_path.as_deref())?;
    }
    if let Some(config) = &spec.kernel.config {
        tree.add(&format!("/boot/config-{}", spec.kernel.release), Node::Copy(0o644, config.clone()));
    }
    tree.add("/lab/command", Node::Bytes(0o644, format!("exec {}\n", quoted(command)).into_bytes()));
    let what = format!("write {}", to.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(to).cannot(&what)?);
    tree.write(&mut out).and_then(|()| out.flush()).cannot(&what)
}

/// Where `cargo build --release` puts programs.
pub(crate) fn release_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(workspace_root()?.join(dir).join("release"));
    }
    Ok(workspace_root()?.join("target/release"))
}

/// The folder of the workspace's Cargo.toml: above our own, which cargo names, else above the current one.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    let here = std::env::current_dir().cannot("tell the current folder")?;
    let start = std::env::var_os("CARGO_MANIFEST_DIR").map_or(here, PathBuf::from);
    let is_root =
        |dir: &&Path| fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|t| t.contains("[workspace]"));
    let root = start.ancestors().find(is_root).map(Path::to_path_buf);
    root.ok_or_else(|| error("run this through `cargo xtask`, inside the repository"))
}

fn skeleton() -> Tree {
    let mut tree = Tree::new();
    for dir in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/mnt", "/data", "/var"] {
        tree.add(dir, Node::Dir);
    }
    tree.add("/var/tmp", Node::Link("/tmp".into()));
    tree.add("/dev/console", Node::Char(0o600, 5, 1));
    tree.add("/init", Node::Bytes(0o755, INIT.into()));
    for (path, text) in [
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ] {
        tree.add(path, Node::Bytes(0o644, text.into()));
    }
    tree
}

fn workspace_programs(release: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = PROGRAMS.iter().map(|name| release.join(name)).collect();
    for file in fs::read_dir(release.join("examples")).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        // Beside `name` cargo leaves `name-HASH` and `name.d`.
        let is_hashed = name
            .rsplit_once('-')
            .is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        if !is_hashed && !name.contains('.') {
            found.push(file.path());
        }
    }
    found.retain(|path| is_program(path));
    found
}

/// Line tables are most of a release build and cost every guest memory and boot time; function names stay.
fn without_debug_info(program: &Path, slim: &Path) -> PathBuf {
    let is_large = program.metadata().is_ok_and(|m| m.len() > 4 << 20);
    let mut strip = Command::new("strip");
    let stripped = is_large && capture(strip.arg("--strip-debug").arg("-o").arg(slim).arg(program)).is_ok();
    if stripped { slim } else { program }.to_path_buf()
}

/// `--with`: a program to /bin with its libraries, another file to /data, a folder as a whole.
fn add_extra(tree: &mut Tree, path: &Path, guest_path: Option<&str>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.is_dir() {
        let to = guest_path.map_or_else(|| format!("/data/{name}"), str::to_string);
        tree.add(&to, Node::Dir);
        for file in fs::read_dir(path).cannot(format_args!("read {}", path.display()))?.flatten() {
            add_extra(tree, &file.path(), Some(&format!("{to}/{}", file.file_name().to_string_lossy())))?;
        }
        return Ok(());
    }
    if is_program(path) {
        return add_program(tree, path, guest_path.unwrap_or(&format!("/bin/{name}")));
    }
    let mode = path.metadata().cannot(format_args!("read {}", path.display()))?.permissions().mode() & 0o777;
    tree.add(guest_path.unwrap_or(&format!("/data/{name}")), Node::Copy(mode, path.to_path_buf()));
    Ok(())
}

fn add_program(tree: &mut Tree, path: &Path, guest_path: &str) -> Result<()> {
    tree.add(guest_path, Node::Copy(0o755, path.to_path_buf()));
    for library in libraries(path)? {
        let name = library.to_string_lossy();
        if !tree.contains(&name) {
            tree.add(&name, Node::Copy(0o755, library.clone()));
        }
    }
    Ok(())
}

/// The libraries and the loader of a program, by the paths under which it looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd").arg(program).env("LC_ALL", "C").output().cannot("start ldd")?;
    if !out.status.success() {
        return Ok(Vec::new()); // Static, or a script.
    }
    let text = String::from_utf8_lossy(&out.stdout);
    parse_ldd(&text).map_err(|missing| error(format!("{}: library {missing} not found", program.display())))
}

/// Lines are `name => /path (0x…)`, `/path (0x…)` for the loader, `linux-vdso.so.1 (0x…)`, `name => not found`.
fn parse_ldd(text: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, target) = line.split_once(" => ").unwrap_or(("", line));
        if target == "not found" {
            return Err(name.to_string());
        }
        let path = target.rsplit_once(" (0x").map_or(target, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// Words as a shell reads them back, whatever is in them.
fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse_ldd(text).unwrap(),
            [Path::new("/lib/x/libm.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert_eq!(parse_ldd("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(parse_ldd("\tlibq.so.1 => not found\n").unwrap_err(), "libq.so.1");
    }

    #[test]
    fn a_shell_reads_the_same_words_back() {
        let words = ["printf", "%s\n", "a b", "it's", "$HOME `x` \\ \"", "", "new\nline"].map(String::from);
        let script = quoted(&words);
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), words[2..].join("\n") + "\n");
    }

    #[test]
    fn only_real_examples_are_programs() {
        let dir = std::env::temp_dir().join(format!("xtask-programs-{}", std::process::id()));
        fs::create_dir_all(dir.join("examples")).unwrap();
        for name in
            ["lab-guest", "other", "examples/show", "examples/show-0123456789abcdef", "examples/show.d"]
        {
            fs::write(dir.join(name), "").unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let found = workspace_programs(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [dir.join("lab-guest"), dir.join("examples/show")]);
    }
}
