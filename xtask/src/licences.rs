//! `cargo xtask deny`: whether every dependency's licence is one that deny.toml allows.
//!
//! Where cargo-deny is installed it does this, and bans and sources too. Else the licence expressions that cargo
//! knows are read here, so that the rule holds on every machine. Advisories need a download and are not for here.

use crate::initramfs::workspace_root;
use crate::ui::{Context, Result, capture, error, find_in_path, run, say};
use std::fs;
use std::process::{Command, ExitCode};

/// Runs cargo-deny, or checks the licences.
pub(crate) fn deny() -> Result<ExitCode> {
    let root = workspace_root()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if find_in_path("cargo-deny").is_some() {
        run(Command::new(cargo).args(["deny", "check", "licenses", "bans", "sources"]).current_dir(root))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = fs::read_to_string(root.join("deny.toml")).cannot("read deny.toml")?;
    let allowed = allowed(&config)
        .filter(|list| !list.is_empty())
        .ok_or_else(|| error("deny.toml: no `allow = [\"…\"]` under [licenses]"))?;
    // Text, not the JSON of `cargo metadata`: a crate and its expression are all that is asked.
    let tree =
        ["tree", "--workspace", "--all-features", "-e", "all", "--prefix", "none", "--format", "{p}|{l}"];
    let text = capture(Command::new(cargo).args(tree).current_dir(root))?;
    let mut crates: Vec<(&str, &str)> = text.lines().filter_map(crate_and_licence).collect();
    crates.sort_unstable();
    crates.dedup();
    let refused: Vec<String> =
        crates.iter().filter_map(|(name, licence)| refusal(name, licence, &allowed)).collect();
    if crates.is_empty() {
        return Err(error("cargo tree named no crate: no licence was checked"));
    }
    for line in &refused {
        say(line);
    }
    match refused.len() {
        0 => {
            say(format_args!(
                "licences of {} crates: all allowed (cargo-deny is not installed: no bans)",
                crates.len()
            ));
            Ok(ExitCode::SUCCESS)
        }
        n => Err(error(format!("{n} crates with a licence that deny.toml does not allow"))),
    }
}

fn refusal(name: &str, licence: &str, allowed: &[String]) -> Option<String> {
    match satisfied(licence, allowed) {
        Some(true) => None,
        Some(false) => Some(format!("{name}: {licence} is not allowed by deny.toml")),
        None => Some(format!("{name}: {licence:?} is no licence expression")),
    }
}

/// `name v1.2.3 (path)|MIT OR Apache-2.0 (*)`: the mark of a repetition is behind the format.
fn crate_and_licence(line: &str) -> Option<(&str, &str)> {
    let (package, licence) = line.split_once('|')?;
    let name = package.split(" (").next().unwrap_or(package);
    Some((name.trim(), licence.trim().trim_end_matches("(*)").trim()))
}

/// The strings of `allow = […]` in the table `[licenses]`. Enough of TOML for that: comments go, a list may have lines.
fn allowed(config: &str) -> Option<Vec<String>> {
    let lines = config.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let table: Vec<&str> =
        lines.skip_while(|line| *line != "[licenses]").skip(1).take_while(|line| !is_header(line)).collect();
    let text = table.join("\n");
    let value = text.split('\n').enumerate().find_map(|(n, line)| {
        let rest = line.strip_prefix("allow")?.trim_start().strip_prefix('=')?;
        Some(format!("{rest}\n{}", table[n + 1..].join("\n")))
    })?;
    let list = value.trim_start().strip_prefix('[')?.split(']').next()?;
    Some(list.split('"').skip(1).step_by(2).map(str::to_string).collect())
}

/// A table's header, not the lines of a list.
fn is_header(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']') && !line.contains(['"', ','])
}

/// Whether an SPDX expression can be met with the allowed licences alone; `None` when it is no expression.
fn satisfied(expression: &str, allowed: &[String]) -> Option<bool> {
    // Old manifests write `MIT/Apache-2.0` for "or".
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at, allowed)?;
    (at == words.len()).then_some(met)
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut met = all(words, at, allowed)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, allowed)?;
    }
    Some(met)
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut met = one(words, at, allowed)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed)?;
    }
    Some(met)
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let met = any(words, at, allowed)?;
        return (words.get(*at) == Some(&")")).then(|| {
            *at += 1;
            met
        });
    }
    if ["OR", "AND", "WITH", ")"].contains(&word) {
        return None;
    }
    // With an exception it is another licence, allowed only by its whole name, as cargo-deny has it.
    let mut name = word.to_string();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1)?);
        *at += 2;
    }
    Some(allowed.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_by_what_is_allowed() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(String::from);
        let met = |text| satisfied(text, &allowed);
        for yes in ["MIT", "MIT/Apache-2.0", "Unlicense OR MIT", "(MIT OR GPL-2.0-only) AND Unicode-3.0"] {
            assert_eq!(met(yes), Some(true), "{yes}");
        }
        for no in ["GPL-3.0-only", "MIT AND GPL-2.0-only", "GPL-2.0-only OR MIT AND BSL-1.0", "mit"] {
            assert_eq!(met(no), Some(false), "{no}");
        }
        assert_eq!(met("Apache-2.0 WITH LLVM-exception"), Some(false));
        for none in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT", "MIT WITH"] {
            assert_eq!(met(none), None, "{none}");
        }
    }

    #[test]
    fn a_refusal_names_the_crate_and_its_licence() {
        let allowed = ["MIT".to_string()];
        assert_eq!(refusal("a v1", "MIT", &allowed), None);
        assert!(refusal("a v1", "GPL-3.0-only", &allowed).unwrap().starts_with("a v1: GPL-3.0-only is not"));
        assert!(refusal("a v1", "", &allowed).is_some());
    }

    #[test]
    fn the_list_is_read_from_its_own_table() {
        let one = "[bans]\nallow = [\"X\"]\n[licenses]\nversion = 2\n# allow = [\"Y\"]\nallow = [\"MIT\", \"A\"]\n[x]\n";
        assert_eq!(allowed(one).unwrap(), ["MIT", "A"]);
        let many = "[licenses]\nallow = [\n  \"MIT\", # why\n  \"B\",\n]\n[sources]\nallow = [\"Z\"]\n";
        assert_eq!(allowed(many).unwrap(), ["MIT", "B"]);
        assert_eq!(allowed("[bans]\nallow = [\"X\"]\n"), None);
    }

    #[test]
    fn a_line_of_the_tree_is_a_crate_and_a_licence() {
        assert_eq!(crate_and_licence("a v1.0.0 (/w/a)|MIT OR X (*)"), Some(("a v1.0.0", "MIT OR X")));
        assert_eq!(crate_and_licence("b v2.0.0|"), Some(("b v2.0.0", "")));
        assert_eq!(crate_and_licence(""), None);
    }
}
