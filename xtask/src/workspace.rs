//! What holds for the workspace as a whole: tests only.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// All manifests below `dir`.
fn manifests(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of ours").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "Cargo.toml" {
            found.push(path);
        } else if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            manifests(&path, found);
        }
    }
}

/// The section `name` of a manifest, without comments.
fn section<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let header = format!("[{name}]");
    let mut lines = text.lines().map(|l| l.split('#').next().unwrap_or("").trim());
    lines.find(|l| *l == header)?;
    Some(lines.take_while(|l| !l.starts_with('[')).filter(|l| !l.is_empty()).collect())
}

/// `missing_docs` and the rest are denied once, in the workspace; a crate that does not say so has no lints.
#[test]
fn every_crate_is_a_member_and_has_the_workspace_s_lints() {
    let mut found = Vec::new();
    manifests(root(), &mut found);
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace's manifest");
    let lints = section(&workspace, "workspace.lints.rust").expect("the workspace has lints");
    assert!(lints.contains(&"missing_docs = \"deny\""), "public items must be documented");
    assert!(found.len() > 5, "there are more crates than {found:?}");
    for path in found.iter().filter(|p| **p != root().join("Cargo.toml")) {
        let text = std::fs::read_to_string(path).expect("a manifest");
        // A workspace of its own is somebody else's crate, as the example of one.
        if section(&text, "workspace").is_some() {
            continue;
        }
        let own = section(&text, "lints").unwrap_or_default();
        assert_eq!(own, ["workspace = true"], "[lints] of {}", path.display());
        let folder = path.parent().and_then(|p| p.strip_prefix(root()).ok()).expect("below the root");
        let member = format!("\"{}\"", folder.display());
        assert!(workspace.contains(&member), "{member} is no member of the workspace");
    }
}

#[test]
fn a_section_ends_where_the_next_begins() {
    let text = "[a]\nx = 1 # why\n\n[lints]\nworkspace = true\n[b]\ny = 2\n";
    assert_eq!(section(text, "lints"), Some(vec!["workspace = true"]));
    assert_eq!(section(text, "a"), Some(vec!["x = 1"]));
    assert_eq!(section(text, "c"), None);
}
