//! YAML as a tree whose every node knows its line and column.
//!
//! A configuration needs little of YAML: mappings, lists, scalars. Anchors, tags and second documents are refused
//! rather than guessed at; with the anchors go documents that are small in a file and huge in memory.

use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::{Place, Problem};

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) what: What,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum What {
    Map(Vec<(Name, Node)>),
    List(Vec<Node>),
    /// A text in quotes, or a block of text.
    Quoted(String),
    /// A plain word: a number, `true`, or a text.
    Plain(String),
    /// Nothing, `~` or `null`.
    Null,
}

/// A key of a mapping.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A node that is not finished yet.
enum Open {
    Map { place: Place, entries: Vec<(Name, Node)>, name: Option<Name> },
    List { place: Place, items: Vec<Node> },
}

/// Deeper than any configuration.
const DEPTH: usize = 16;

/// The only document of `text`; `None` when there is nothing in it.
pub(crate) fn parse(text: &str, file: &Arc<str>) -> Result<Option<Node>, Problem> {
    let at = |span: &Span| place(file, span.start.line(), span.start.col());
    let wrong = |place: Place, message: &str| {
        Err(Problem { place: Some(place), field: String::new(), message: message.into() })
    };
    let options = granit_parser::options! { flow_nesting_limit: DEPTH, block_nesting_limit: DEPTH };
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|e| {
            let place = place(file, e.marker().line(), e.marker().col());
            Problem { place: Some(place), field: String::new(), message: format!("is no YAML: {}", e.info()) }
        })?;
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(_) => (1, false),
            _ => (0, false),
        };
        if anchor != 0 {
            return wrong(at(&span), "anchors (&) and aliases (*) are not taken here; write the value out");
        }
        if tag {
            return wrong(at(&span), "tags (!) are not taken here; write the value without one");
        }
        let node = match event {
            Event::DocumentStart(..) if root.is_some() => {
                return wrong(at(&span), "a second document (---) begins; a configuration is one");
            }
            Event::MappingStart(..) => {
                open.push(Open::Map { place: at(&span), entries: Vec::new(), name: None });
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(Open::List { place: at(&span), items: Vec::new() });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Map { place, entries, .. }) => Node { place, what: What::Map(entries) },
                Some(Open::List { place, items }) => Node { place, what: What::List(items) },
                None => continue,
            },
            Event::Scalar(text, style, ..) => {
                Node { place: at(&span), what: scalar(text.into_owned(), style) }
            }
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, name, .. }) => match name.take() {
                Some(name) => entries.push((name, node)),
                None => match node.what {
                    What::Plain(text) | What::Quoted(text) => {
                        if let Some((first, _)) = entries.iter().find(|(name, _)| name.text == text) {
                            let message =
                                format!("is given twice; the first is in line {}", first.place.line);
                            return Err(Problem { place: Some(node.place), field: text, message });
                        }
                        *name = Some(Name { text, place: node.place });
                    }
                    _ => return wrong(node.place, "the name of a key is a plain word"),
                },
            },
        }
    }
    Ok(root)
}

fn scalar(text: String, style: ScalarStyle) -> What {
    match style {
        ScalarStyle::Plain if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => What::Null,
        ScalarStyle::Plain => What::Plain(text),
        _ => What::Quoted(text),
    }
}

fn place(file: &Arc<str>, line: usize, column: usize) -> Place {
    Place { file: file.clone(), line: line.max(1), column: column + 1 }
}

/// The place of a byte of `text`.
pub(crate) fn place_of(text: &[u8], byte: usize, file: &Arc<str>) -> Place {
    let before = &text[..byte.min(text.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    // Bytes that continue a character of UTF-8 are no columns of their own.
    let column = before[line_start..].iter().filter(|b| **b & 0xc0 != 0x80).count();
    place(file, 1 + before.iter().filter(|b| **b == b'\n').count(), column)
}
