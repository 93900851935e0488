//! Modules to lines: what can be named from outside, and how it is declared.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, Signature, TraitItem, Type, UseTree, Visibility};

use super::read::{Module, visible};

/// Where something is defined: the modules down to it, and its name.
type Def = (Vec<String>, String);

/// The lines of a crate, in no order.
pub(super) fn lines(name: &str, tree: &Module) -> Vec<String> {
    let mut surface = Surface { tree, lines: Vec::new(), public: BTreeMap::new() };
    surface.module(tree, &[], name, &[]);
    surface.impls(tree, &mut Vec::new(), &[]);
    surface.lines
}

struct Surface<'a> {
    tree: &'a Module,
    lines: Vec<String>,
    /// By what names a definition is reached.
    public: BTreeMap<Def, Vec<String>>,
}

/// A name brought in by `use`: the path to it, and what it is called here; `*` for all.
struct Import {
    path: Vec<String>,
    name: String,
}

enum Found<'a> {
    Module(&'a Module, Vec<String>),
    Item(&'a Item, Def),
}

impl<'a> Surface<'a> {
    fn say(&mut self, path: &str, what: &str, cfg: &[String]) {
        let suffix: String = cfg.iter().map(|c| format!(" [{c}]")).collect();
        self.lines.push(format!("{path}: {what}{suffix}"));
    }

    /// Everything public in `module`, which lies at `at` and is called `path`.
    fn module(&mut self, module: &'a Module, at: &[String], path: &str, cfg: &[String]) {
        for item in &module.items {
            if let Item::Use(import) = item {
                if is_public(&import.vis)
                    && let Some(own) = visible(&import.attrs)
                {
                    self.reexports(&import.tree, at, path, &joined(cfg, &own));
                }
            } else if let Some(name) = name_of(item) {
                self.item(item, &(at.to_vec(), name.clone()), &format!("{path}::{name}"), cfg);
            }
        }
        for child in module.children.iter().filter(|m| m.public) {
            self.child(child, &[at, std::slice::from_ref(&child.name)].concat(), path, &child.name, cfg);
        }
    }

    fn child(&mut self, child: &'a Module, at: &[String], path: &str, name: &str, cfg: &[String]) {
        let (path, cfg) = (format!("{path}::{name}"), joined(cfg, &child.cfg));
        self.say(&path, "pub mod", &cfg);
        self.module(child, at, &path, &cfg);
    }

    fn reexports(&mut self, tree: &UseTree, at: &[String], path: &str, cfg: &[String]) {
        for import in imports(tree) {
            let here = format!("{path}::{}", import.name);
            match self.find(at, &import.path, 0) {
                Some(Found::Module(module, at)) if import.name == "*" => self.module(module, &at, path, cfg),
                Some(Found::Module(module, at)) => self.child(module, &at, path, &import.name, cfg),
                Some(Found::Item(item, def)) => self.item(item, &def, &here, cfg),
                None => self.say(&here, &format!("pub use {}", import.path.join("::")), cfg),
            }
        }
    }

    /// What `path` means in the module at `at`; `None` if it is another crate's.
    fn find(&self, at: &[String], path: &[String], depth: usize) -> Option<Found<'a>> {
        let mut at = at.to_vec();
        let mut rest = path;
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                name if self.at(&at)?.child(name).is_some() => at.push(name.to_owned()),
                _ => break,
            }
            rest = others;
        }
        match rest {
            [] => Some(Found::Module(self.at(&at)?, at)),
            [name] => self.named(&at, name, depth),
            _ => None,
        }
    }

    /// The item called `name` in the module at `at`, defined there or brought in.
    fn named(&self, at: &[String], name: &str, depth: usize) -> Option<Found<'a>> {
        let module = self.at(at)?;
        if let Some(item) = module.items.iter().find(|i| name_of(i).as_deref() == Some(name)) {
            return Some(Found::Item(item, (at.to_vec(), name.to_owned())));
        }
        // A circle of `use` is not Rust, but a circle of globs is.
        if depth > 8 {
            return None;
        }
        let uses = module.items.iter().filter_map(|i| if let Item::Use(u) = i { Some(u) } else { None });
        for import in uses.flat_map(|u| imports(&u.tree)) {
            let found = if import.name == name {
                self.find(at, &import.path, depth + 1)
            } else if import.name == "*" {
                match self.find(at, &import.path, depth + 1) {
                    Some(Found::Module(_, at)) => self.named(&at, name, depth + 1),
                    _ => None,
                }
            } else {
                None
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn at(&self, at: &[String]) -> Option<&'a Module> {
        at.iter().try_fold(self.tree, |module, name| module.child(name))
    }

    /// The lines of one item, known by the name `path`.
    fn item(&mut self, item: &'a Item, def: &Def, path: &str, cfg: &[String]) {
        let attrs = attrs_of(item);
        let Some(own) = visible(attrs) else { return };
        let cfg = &joined(cfg, &own);
        if let Item::Macro(_) = item {
            return self.say(path, "macro_rules!", cfg);
        }
        if !vis_of(item).is_some_and(is_public) {
            return;
        }
        self.public.entry(def.clone()).or_default().push(path.to_owned());
        let marks = marks(attrs);
        match item {
            Item::Struct(s) => {
                let (name, generics, bounds) = (&s.ident, &s.generics, &s.generics.where_clause);
                self.say(path, &text(quote!(#marks pub struct #name #generics #bounds)), cfg);
                self.fields(path, &s.fields, cfg, true);
            }
            Item::Union(u) => {
                let (name, generics) = (&u.ident, &u.generics);
                self.say(path, &text(quote!(#marks pub union #name #generics)), cfg);
            }
            Item::Enum(e) => {
                let (name, generics, bounds) = (&e.ident, &e.generics, &e.generics.where_clause);
                self.say(path, &text(quote!(#marks pub enum #name #generics #bounds)), cfg);
                for variant in &e.variants {
                    let Some(own) = visible(&variant.attrs) else { continue };
                    let (cfg, mut bare) = (joined(cfg, &own), variant.clone());
                    bare.attrs.clear();
                    bare.fields.iter_mut().for_each(|f| f.attrs.clear());
                    self.say(&format!("{path}::{}", variant.ident), &text(quote!(variant #bare)), &cfg);
                }
            }
            Item::Trait(t) => {
                let (name, generics, bounds) = (&t.ident, &t.generics, &t.supertraits);
                let (safety, place) = (&t.unsafety, &t.generics.where_clause);
                let colon = (!bounds.is_empty()).then(|| quote!(:));
                let whole = quote!(#marks pub #safety trait #name #generics #colon #bounds #place);
                self.say(path, &text(whole), cfg);
                for item in &t.items {
                    self.trait_item(path, item, cfg);
                }
            }
            Item::Fn(f) => self.say(path, &signature(&f.sig), cfg),
            Item::Const(c) => {
                let (name, ty) = (&c.ident, &c.ty);
                self.say(path, &text(quote!(pub const #name: #ty)), cfg);
            }
            Item::Static(s) => {
                let (name, ty) = (&s.ident, &s.ty);
                self.say(path, &text(quote!(pub static #name: #ty)), cfg);
            }
            Item::Type(t) => {
                let (name, generics, ty) = (&t.ident, &t.generics, &t.ty);
                self.say(path, &text(quote!(pub type #name #generics = #ty)), cfg);
            }
            other => self.say(path, &text(other.to_token_stream()), cfg),
        }
        for derived in derives(attrs) {
            self.say(path, &format!("derive {derived}"), cfg);
        }
    }

    fn fields(&mut self, path: &str, fields: &Fields, cfg: &[String], only_public: bool) {
        for (i, field) in fields.iter().enumerate() {
            let Some(own) = visible(&field.attrs) else { continue };
            if only_public && !is_public(&field.vis) {
                continue;
            }
            let name = field.ident.as_ref().map_or(i.to_string(), ToString::to_string);
            let ty = text(field.ty.to_token_stream());
            self.say(&format!("{path}.{name}"), &format!("pub {ty}"), &joined(cfg, &own));
        }
    }

    fn trait_item(&mut self, path: &str, item: &TraitItem, cfg: &[String]) {
        let (attrs, name, what) = match item {
            TraitItem::Fn(f) => {
                let provided = if f.default.is_some() { " {..}" } else { "" };
                (&f.attrs, f.sig.ident.to_string(), text(f.sig.to_token_stream()) + provided)
            }
            TraitItem::Const(c) => {
                let (name, ty) = (&c.ident, &c.ty);
                (&c.attrs, name.to_string(), text(quote!(const #name: #ty)))
            }
            TraitItem::Type(t) => {
                let mut bare = t.clone();
                bare.attrs.clear();
                let what = text(bare.to_token_stream());
                (&t.attrs, t.ident.to_string(), what.trim_end_matches(';').to_owned())
            }
            _ => return,
        };
        if let Some(own) = visible(attrs) {
            self.say(&format!("{path}::{name}"), &what, &joined(cfg, &own));
        }
    }

    /// The impls of every module, public or not: what they are for decides.
    fn impls(&mut self, module: &'a Module, at: &mut Vec<String>, cfg: &[String]) {
        let cfg = joined(cfg, &module.cfg);
        for item in &module.items {
            if let Item::Impl(item) = item
                && let Some(own) = visible(&item.attrs)
            {
                self.implementation(item, at, &joined(&cfg, &own));
            }
        }
        for child in &module.children {
            at.push(child.name.clone());
            self.impls(child, at, &cfg);
            at.pop();
        }
    }

    fn implementation(&mut self, item: &ItemImpl, at: &[String], cfg: &[String]) {
        let path_of =
            |path: &syn::Path| -> Vec<String> { path.segments.iter().map(|s| s.ident.to_string()).collect() };
        let names = |path: &[String]| match self.find(at, path, 0) {
            Some(Found::Item(_, def)) => Some(self.public.get(&def).cloned().unwrap_or_default()),
            _ => None,
        };
        // Of ours and public, ours and private, or another crate's.
        let subject = match &*item.self_ty {
            Type::Path(p) => names(&path_of(&p.path)),
            _ => None,
        };
        let (generics, ty, place) = (&item.generics, &item.self_ty, &item.generics.where_clause);
        let Some((path, _)) = &item.trait_ else {
            let paths = subject.unwrap_or_default();
            let context = if generics.params.is_empty() {
                String::new()
            } else {
                format!(" in {}", text(quote!(impl #generics #ty #place)))
            };
            for path in paths {
                for item in &item.items {
                    self.inherent(&path, item, &context, cfg);
                }
            }
            return;
        };
        let implemented = names(&path_of(path));
        let whole = text(quote!(impl #generics #path for #ty #place));
        let told = match (subject, implemented) {
            // A private trait tells nobody anything, nor does a private type.
            (_, Some(names)) if names.is_empty() => return,
            (Some(names), _) => names,
            (None, Some(names)) => names,
            (None, None) => return,
        };
        for path in told {
            self.say(&path, &whole, cfg);
        }
    }

    fn inherent(&mut self, path: &str, item: &ImplItem, context: &str, cfg: &[String]) {
        let (attrs, vis, name, what) = match item {
            ImplItem::Fn(f) => (&f.attrs, &f.vis, &f.sig.ident, signature(&f.sig)),
            ImplItem::Const(c) => {
                let (name, ty) = (&c.ident, &c.ty);
                (&c.attrs, &c.vis, name, text(quote!(pub const #name: #ty)))
            }
            ImplItem::Type(t) => {
                let (name, ty) = (&t.ident, &t.ty);
                (&t.attrs, &t.vis, name, text(quote!(pub type #name = #ty)))
            }
            _ => return,
        };
        if is_public(vis)
            && let Some(own) = visible(attrs)
        {
            self.say(&format!("{path}::{name}"), &(what + context), &joined(cfg, &own));
        }
    }
}

fn joined(outer: &[String], own: &[String]) -> Vec<String> {
    let mut all = outer.to_vec();
    all.extend(own.iter().filter(|c| !outer.contains(c)).cloned());
    all
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

/// Attributes that a user meets.
fn marks(attrs: &[Attribute]) -> TokenStream {
    let seen = ["non_exhaustive", "must_use", "repr"];
    let kept = attrs.iter().filter(|a| seen.iter().any(|name| a.path().is_ident(name)));
    kept.map(|a| if a.path().is_ident("must_use") { quote!(#[must_use]) } else { quote!(#a) }).collect()
}

fn derives(attrs: &[Attribute]) -> Vec<String> {
    let mut names = Vec::new();
    for attr in attrs.iter().filter(|a| a.path().is_ident("derive")) {
        let _ = attr.parse_nested_meta(|meta| {
            names.push(text(meta.path.to_token_stream()));
            Ok(())
        });
    }
    names
}

fn signature(sig: &Signature) -> String {
    text(quote!(pub #sig))
}

fn imports(tree: &UseTree) -> Vec<Import> {
    fn walk(tree: &UseTree, before: &mut Vec<String>, all: &mut Vec<Import>) {
        let mut leaf = |last: &str, name: String| {
            let mut path = before.clone();
            // `use a::{self}` is `use a`.
            if last != "self" || path.is_empty() {
                path.push(last.to_owned());
            }
            let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name };
            all.push(Import { path, name });
        };
        match tree {
            UseTree::Name(n) => leaf(&n.ident.to_string(), n.ident.to_string()),
            UseTree::Rename(r) => leaf(&r.ident.to_string(), r.rename.to_string()),
            UseTree::Glob(_) => all.push(Import { path: before.clone(), name: "*".to_owned() }),
            UseTree::Path(p) => {
                before.push(p.ident.to_string());
                walk(&p.tree, before, all);
                before.pop();
            }
            UseTree::Group(g) => g.items.iter().for_each(|tree| walk(tree, before, all)),
        }
    }
    let mut all = Vec::new();
    walk(tree, &mut Vec::new(), &mut all);
    all
}

/// The name of an item that can be public; a macro's only if it is exported.
fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(i) => i.ident.to_string(),
        Item::Enum(i) => i.ident.to_string(),
        Item::Fn(i) => i.sig.ident.to_string(),
        Item::Static(i) => i.ident.to_string(),
        Item::Struct(i) => i.ident.to_string(),
        Item::Trait(i) => i.ident.to_string(),
        Item::Type(i) => i.ident.to_string(),
        Item::Union(i) => i.ident.to_string(),
        Item::Macro(i) if i.attrs.iter().any(|a| a.path().is_ident("macro_export")) => {
            i.ident.as_ref()?.to_string()
        }
        _ => return None,
    })
}

fn vis_of(item: &Item) -> Option<&Visibility> {
    Some(match item {
        Item::Const(i) => &i.vis,
        Item::Enum(i) => &i.vis,
        Item::Fn(i) => &i.vis,
        Item::Static(i) => &i.vis,
        Item::Struct(i) => &i.vis,
        Item::Trait(i) => &i.vis,
        Item::Type(i) => &i.vis,
        Item::Union(i) => &i.vis,
        _ => return None,
    })
}

fn attrs_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        _ => &[],
    }
}

/// Tokens as a person would write them, as far as declarations go.
fn text(tokens: TokenStream) -> String {
    let mut words = Vec::new();
    flatten(tokens, &mut words);
    let mut line = String::new();
    for (i, word) in words.iter().enumerate() {
        if i > 0 && spaced(&words[i - 1], word) {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let mut open = String::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (begin, end) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                words.push(begin.to_owned());
                flatten(group.stream(), words);
                words.push(end.to_owned());
            }
            TokenTree::Punct(p) => {
                open.push(p.as_char());
                // A lifetime waits for its name, `->` for its second half; `>>` closes twice.
                let more =
                    p.spacing() == Spacing::Joint && matches!(p.as_char(), ':' | '-' | '\'' | '.' | '=');
                if !more {
                    words.push(std::mem::take(&mut open));
                }
            }
            other => words.push(std::mem::take(&mut open) + &other.to_string()),
        }
    }
}

fn spaced(before: &str, after: &str) -> bool {
    let glued_before = ["(", "[", "<", "&", "::", "!", "#", "*", "", "?"];
    let glued_after = [",", ";", ":", "::", ")", "]", ">", "?", "!", ".", ""];
    if glued_before.contains(&before) || glued_after.contains(&after) {
        // `impl !Send`, `: ?Sized`
        return matches!(after, "!" | "?") && !matches!(before, "(" | "<");
    }
    match after {
        "<" => matches!(before, "->" | ":" | "," | "=" | "+"),
        "(" => !is_name(before) && before != ">",
        "[" => before != "#",
        _ => true,
    }
}

/// Something that can be called, or hold a tuple.
fn is_name(word: &str) -> bool {
    let keywords = ["mut", "dyn", "impl", "as", "where", "in", "const", "for", "pub"];
    word.starts_with(|c: char| c.is_alphabetic() || c == '_') && !keywords.contains(&word)
}
