//! `cargo xtask api`: the public API of the two library crates, one item a line, against a golden file.
//!
//! What users can name is a promise. A change of it should be seen in the review, not after the release,
//! and no stable tool prints it: rustdoc's JSON needs a nightly compiler. This reads the sources with
//! `syn`, from `lib.rs` along `pub mod` and `pub use`. It knows names, not types: a public type that is
//! reachable through a private alias only, or made by a macro, is not found.

mod print;
mod read;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use crate::ui::{Context, Result, error, say};

/// The crates whose API is promised.
const CRATES: [&str; 2] = ["qumun", "qumun-bpf"];

/// Compares with the golden files, or writes them.
pub(crate) fn api(bless: bool) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    let mut changed = false;
    for name in CRATES {
        let now = of_crate(&name.replace('-', "_"), &root.join(name).join("src/lib.rs"))?;
        let golden = root.join(name).join("api.txt");
        if bless {
            std::fs::write(&golden, now).cannot(format_args!("write {}", golden.display()))?;
            continue;
        }
        let was = std::fs::read_to_string(&golden).unwrap_or_default();
        let lines = difference(&was, &now);
        if !lines.is_empty() {
            changed = true;
            say(format!("the public API of {name} is not that of {name}/api.txt:\n{}", lines.join("\n")));
        }
    }
    if changed {
        return Err(error(
            "if the change is meant: `cargo xtask api --bless`, and a line in CHANGELOG.md for whoever uses it",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of the golden file: sorted, each once.
fn of_crate(name: &str, lib: &Path) -> Result<String> {
    let tree = read::Module::of_crate(lib)?;
    let lines: BTreeSet<String> = print::lines(name, &tree).into_iter().collect();
    Ok(lines.into_iter().fold(String::new(), |text, line| text + &line + "\n"))
}

/// What went and what came, in the order of the file.
fn difference(was: &str, now: &str) -> Vec<String> {
    let [was, now]: [BTreeSet<&str>; 2] = [was, now].map(|text| text.lines().collect());
    was.symmetric_difference(&now)
        .map(|line| format!("{} {line}", if now.contains(line) { '+' } else { '-' }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate of `testdata/api`.
    #[test]
    fn the_sample_s_api_is_told() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/api");
        let now = of_crate("sample", &root.join("lib.rs")).expect("the sample is Rust");
        let golden = std::fs::read_to_string(root.join("api.txt")).expect("its golden file");
        let lines = difference(&golden, &now);
        assert!(lines.is_empty(), "\n{}\nall of it:\n{now}", lines.join("\n"));
    }

    #[test]
    fn a_difference_names_what_went_and_what_came() {
        assert_eq!(difference("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(difference("a\n", "a\n").is_empty());
    }
}
