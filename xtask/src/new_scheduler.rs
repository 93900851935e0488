//! `new-scheduler NAME`: a crate outside of this workspace, with a policy that works and tests that hold it.

use crate::initramfs::workspace_root;
use crate::ui::{Context, Result, error, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What the crate is made of: the file and its template.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../templates/new-scheduler/Cargo.toml.in")),
    ("README.md", include_str!("../templates/new-scheduler/README.md.in")),
    ("src/lib.rs", include_str!("../templates/new-scheduler/lib.rs.in")),
    ("src/main.rs", include_str!("../templates/new-scheduler/main.rs.in")),
    ("tests/sim.rs", include_str!("../templates/new-scheduler/sim.rs.in")),
    (".gitignore", "target\n"),
];

/// Names that would not compile, or would hide something.
const TAKEN: &[&str] =
    &["qumun", "test", "core", "std", "alloc", "proc-macro", "build", "deps", "examples", "self"];
/// The kernel shows 127 bytes of a scheduler's name; a thread's name has 15.
const LONGEST: usize = 64;

/// Makes the crate beside this repository, or in `folder`.
pub(crate) fn new_scheduler(name: &str, folder: Option<&Path>) -> Result<ExitCode> {
    let root = workspace_root()?;
    let folder = match folder {
        Some(folder) => std::path::absolute(folder).cannot(format_args!("find {}", folder.display()))?,
        None => root.parent().unwrap_or(&root).join(name),
    };
    make(name, &folder, &root)?;
    // Its style depends on how long the name is. Without rustfmt it is only less pretty.
    let _ = Command::new("cargo").arg("fmt").current_dir(&folder).stderr(Stdio::null()).status();
    say(format_args!("made {}", folder.display()));
    println!("try it:\n    cd {} && cargo test", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the crate in a folder that does not exist, or is empty.
pub(crate) fn make(name: &str, folder: &Path, root: &Path) -> Result<()> {
    check(name)?;
    if fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) || folder.is_file() {
        return Err(error(format!(
            "{} exists and is not empty; choose another name, or a folder by --path",
            folder.display()
        )));
    }
    if folder.starts_with(root) && !folder.starts_with(root.join("target")) {
        return Err(error(format!(
            "{} lies in this repository; the crate is to live outside of it",
            folder.display()
        )));
    }
    let words = [
        ("{{name}}", name.to_owned()),
        ("{{crate}}", name.replace('-', "_")),
        ("{{ops}}", name.replace('-', "_")),
        ("{{Type}}", type_name(name)),
        ("{{qumun}}", toml_text(&root.join("qumun"))?),
        ("{{dir}}", folder.display().to_string()),
    ];
    for (file, template) in FILES {
        let text = words.iter().fold(template.to_string(), |text, (word, value)| text.replace(word, value));
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).cannot(format_args!("make {}", parent.display()))?;
        fs::write(&path, text).cannot(format_args!("write {}", path.display()))?;
    }
    Ok(())
}

/// A name that cargo takes for a crate and the kernel for a scheduler.
fn check(name: &str) -> Result<()> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    if !first || !name.chars().all(is_word) || name.len() > LONGEST {
        return Err(error(format!(
            "\"{name}\" is no name for a scheduler: a letter, then letters, digits, - and _, all small, {LONGEST} at most"
        )));
    }
    if TAKEN.contains(&name) {
        return Err(error(format!("the name \"{name}\" is taken: a crate of that name would not build")));
    }
    Ok(())
}

/// `my-sched_2` is `MySched2`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    name.split(['-', '_']).map(capital).collect()
}

/// A path between quotes of TOML.
fn toml_text(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| error(format!("{} is no text", PathBuf::from(path).display())))?;
    Ok(text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "my-sched", "edf2", "a_b"] {
            check(name).unwrap();
        }
        for name in ["", "2edf", "My", "a b", "../x", "ü", "test", "-a", &"a".repeat(65)] {
            assert!(check(name).is_err(), "{name}");
        }
        assert_eq!(type_name("my-sched_2"), "MySched2");
    }

    #[test]
    fn no_word_is_left_and_nothing_is_overwritten() {
        let base = std::env::temp_dir().join(format!("new-scheduler-{}", std::process::id()));
        let (folder, root) = (base.join("made"), base.join("repository"));
        make("made", &folder, &root).unwrap();
        for (file, _) in FILES {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            assert!(!text.contains("{{") && !text.contains("}}\""), "{file}: {text}");
        }
        assert!(fs::read_to_string(folder.join("src/main.rs")).unwrap().contains("made::Made::default()"));
        assert!(make("made", &folder, &root).unwrap_err().to_string().contains("not empty"));
        assert!(make("made", &root.join("x"), &root).unwrap_err().to_string().contains("in this repository"));
        fs::remove_dir_all(base).unwrap();
    }
}
