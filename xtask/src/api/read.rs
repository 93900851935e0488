//! A crate's modules with their items, from its files.

use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Meta};

use crate::ui::{Context, Result, error};

/// A module, and those inside it.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) public: bool,
    /// Of itself, without those of the modules around it.
    pub(super) cfg: Vec<String>,
    pub(super) items: Vec<Item>,
    pub(super) children: Vec<Module>,
}

impl Module {
    /// The whole crate.
    pub(super) fn of_crate(lib: &Path) -> Result<Self> {
        let dir = lib.parent().unwrap_or(Path::new("")).to_owned();
        Self::build(String::new(), true, Vec::new(), parse(lib)?, &dir)
    }

    fn build(name: String, public: bool, cfg: Vec<String>, items: Vec<Item>, dir: &Path) -> Result<Self> {
        let mut module = Self { name, public, cfg, items: Vec::new(), children: Vec::new() };
        for item in items {
            let Item::Mod(inner) = item else {
                module.items.push(item);
                continue;
            };
            let Some(cfg) = visible(&inner.attrs) else { continue };
            let name = inner.ident.to_string();
            let below = dir.join(&name);
            let items = match inner.content {
                Some((_, items)) => items,
                None => parse(&file_of(dir, &name)?)?,
            };
            let public = matches!(inner.vis, syn::Visibility::Public(_));
            module.children.push(Self::build(name, public, cfg, items, &below)?);
        }
        Ok(module)
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|m| m.name == name)
    }
}

fn file_of(dir: &Path, name: &str) -> Result<PathBuf> {
    let candidates = [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")];
    let found = candidates.iter().find(|p| p.is_file()).cloned();
    found.ok_or_else(|| error(format!("no file for mod {name} in {}", dir.display())))
}

fn parse(path: &Path) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).cannot(format_args!("read {}", path.display()))?;
    let file = syn::parse_file(&text).map_err(|e| error(format!("{} is not Rust: {e}", path.display())))?;
    Ok(file.items)
}

/// The conditions under which an item is part of the API; `None` if it never is: hidden from the docs, or
/// there for tests only.
pub(super) fn visible(attrs: &[Attribute]) -> Option<Vec<String>> {
    let mut conditions = Vec::new();
    for attr in attrs {
        let Meta::List(list) = &attr.meta else { continue };
        let tokens = list.tokens.to_string();
        if attr.path().is_ident("doc") && tokens == "hidden" {
            return None;
        }
        if attr.path().is_ident("cfg") {
            let plain: String = tokens.split_whitespace().collect::<Vec<_>>().join(" ");
            match plain.replace(' ', "").as_str() {
                "test" | "loom" => return None,
                "not(test)" | "not(loom)" => {}
                _ => conditions.push(plain),
            }
        }
    }
    Some(conditions)
}
