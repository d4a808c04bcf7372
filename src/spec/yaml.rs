//! YAML as a tree that keeps where everything stands.
//!
//! serde stops at the first mistake; this tree is read field by field and every mistake of it is reported. It is made from
//! the events of granit-parser, the parser below serde-saphyr. Scalars stay text: `1.30` is a version, not 1.3.
//! Anchors and aliases work; merge keys and tags are refused. How many documents a file may have its reader decides.

use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Deepest nesting; a spec has six levels.
const MAX_DEPTH: usize = 64;
/// Most nodes after aliases are expanded; a spec has a few hundred.
const MAX_NODES: usize = 100_000;

/// One of a file's documents.
#[derive(Clone, Debug)]
pub struct Document {
    /// Bytes of the `---` before it, if there is one.
    pub begin: Range<usize>,
    pub root: Node,
}

/// A value, and where it stands (an alias' value: where the anchor is).
#[derive(Clone, Debug)]
pub struct Node {
    /// Bytes of a scalar; of a collection, its first character.
    pub range: Range<usize>,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// `plain`: without quotes, so that an empty one or `null` means no value.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    /// Bytes of the key.
    pub range: Range<usize>,
    pub value: Node,
}

impl Entry {
    /// What to point at: a text, but the key of a collection or of nothing.
    pub fn shown(&self) -> Range<usize> {
        match &self.value.kind {
            Kind::Scalar { .. } if !self.value.range.is_empty() => self.value.range.clone(),
            _ => self.range.clone(),
        }
    }
}

impl Node {
    /// Whether there is no value: nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if ["", "~", "null", "Null", "NULL"].contains(&text.as_str()))
    }

    /// Whether it is a text, a list or a mapping with nothing in it.
    pub fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, .. } => text.is_empty(),
            Kind::Sequence(items) => items.is_empty(),
            Kind::Mapping(entries) => entries.is_empty(),
        }
    }

    /// The text at a path of keys.
    pub fn scalar_at(&self, path: &[&str]) -> Option<&str> {
        match (&self.kind, path.split_first()) {
            (Kind::Scalar { text, .. }, None) => Some(text),
            (Kind::Mapping(entries), Some((first, rest))) => {
                entries.iter().find(|entry| entry.key == *first)?.value.scalar_at(rest)
            }
            _ => None,
        }
    }

    /// What to point at for a path of keys and indices.
    pub fn shown_at(&self, path: &[&str]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let (node, range) = match &self.kind {
            Kind::Mapping(entries) => {
                let entry = entries.iter().find(|entry| entry.key == *first)?;
                (&entry.value, entry.shown())
            }
            Kind::Sequence(items) => {
                let item = items.get(first.parse::<usize>().ok()?)?;
                (item, item.range.clone())
            }
            Kind::Scalar { .. } => return None,
        };
        if rest.is_empty() { Some(range) } else { node.shown_at(rest) }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::Sequence(items) => items.iter().map(Self::size).sum(),
            Kind::Mapping(entries) => entries.iter().map(|entry| 1 + entry.value.size()).sum(),
        }
    }
}

/// Reads the documents of `source`, at least one, and leaves out empty ones; nothing if they cannot be read, for the reasons
/// that are then among `found`.
pub fn parse(source: &Source, found: &mut Diagnostics) -> Option<Vec<Document>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    let mut builder = Builder {
        source,
        found,
        open: Vec::new(),
        begin: 0..0,
        documents: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        broken: false,
    };
    for event in Parser::new_from_str_with_options(source.text(), options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                builder.found.push(syntax(source, &error));
                return None;
            }
        };
        builder.take(event, span).map_err(|diagnostic| builder.found.push(*diagnostic)).ok()?;
    }
    if builder.documents.is_empty() {
        let place = source.place(0..0).without_excerpt();
        let hint = "it begins with `apiVersion: metalgate.dev/v1alpha1` and `kind: Cluster`";
        builder.found.push(Diagnostic::error(place, "the file has no content").hint(hint));
    }
    let usable = !builder.broken && !builder.documents.is_empty();
    usable.then_some(builder.documents)
}

/// A collection that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// In a mapping, the key that waits for its value.
    key: Option<(String, Range<usize>)>,
    /// Keys so far, and where they stand.
    keys: BTreeMap<String, usize>,
}

struct Builder<'s, 'd> {
    source: &'s Source,
    found: &'d mut Diagnostics,
    open: Vec<Open>,
    /// Where the document begins that is read now.
    begin: Range<usize>,
    documents: Vec<Document>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// Whether something in it has no value that we know.
    broken: bool,
}

impl Builder<'_, '_> {
    /// Takes the next event.
    ///
    /// # Errors
    /// What makes it useless to go on.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
        let range = span.byte_range().unwrap_or_default();
        if let Some(tag) = event.tag() {
            let message = format!("tags are not supported: `{}`", tag.original());
            let place = self.source.place(span.tag_span().and_then(|span| span.byte_range()).unwrap_or(range.clone()));
            self.found.push(Diagnostic::error(place, message).hint("leave the tag out"));
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node =
                    Node { range, kind: Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain } };
                self.value(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Kind::Sequence(Vec::new()), range, anchor),
            Event::MappingStart(_, anchor, _) => self.begin(Kind::Mapping(Vec::new()), range, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.value(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => {
                    self.count(node.size(), &range)?;
                    self.value(node, 0)
                }
                None => Err(self.fatal(range, "the alias stands inside the value that it refers to")),
            },
            Event::UnresolvedAlias(name) => {
                let diagnostic = self.fatal(range.clone(), format!("the alias `*{name}` has no anchor before it"));
                let hint = format!("`&{name}` in front of a value makes one; quote the text if it is no alias");
                self.found.push(diagnostic.hint(hint));
                self.broken = true;
                self.value(Node { range, kind: Kind::Scalar { text: String::new(), plain: true } }, 0)
            }
            Event::DocumentStart(..) => {
                self.begin = range;
                // An alias refers to its own document.
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, kind: Kind, range: Range<usize>, anchor: usize) -> Result<(), Box<Diagnostic>> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.fatal(range, format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        let range = range.start..range.end.max(range.start + 1);
        self.open.push(Open { node: Node { range, kind }, anchor, key: None, keys: BTreeMap::new() });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        self.count(1, &node.range)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(mut parent) = self.open.pop() else {
            if !node.is_null() {
                self.documents.push(Document { begin: self.begin.clone(), root: node });
            }
            return Ok(());
        };
        match &mut parent.node.kind {
            Kind::Sequence(items) => items.push(node),
            Kind::Mapping(entries) => match parent.key.take() {
                None => parent.key = Some(self.key(&mut parent.keys, node)),
                Some((key, range)) => entries.push(Entry { key, range, value: node }),
            },
            Kind::Scalar { .. } => {}
        }
        self.open.push(parent);
        Ok(())
    }

    /// Refuses to make the tree larger than any spec.
    fn count(&mut self, more: usize, range: &Range<usize>) -> Result<(), Box<Diagnostic>> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            let message =
                format!("up to here these are more than {MAX_NODES} values, counting aliases by what they stand for");
            return Err(self.fatal(range.clone(), message));
        }
        Ok(())
    }

    /// Checks a key; a bad one is kept, so that its value has a place.
    fn key(&mut self, keys: &mut BTreeMap<String, usize>, node: Node) -> (String, Range<usize>) {
        let (text, plain) = match node.kind {
            Kind::Scalar { text, plain } => (text, plain),
            _ => {
                let place = self.source.place(node.range.clone());
                self.found.push(Diagnostic::error(place, "a key has to be text").hint("is a `:` too much?"));
                return (String::new(), node.range);
            }
        };
        let place = self.source.place(node.range.clone());
        if plain && text == "<<" {
            let hint = "write the fields out, or give the whole mapping by an alias (`labels: *common`)";
            self.found.push(Diagnostic::error(place, "merge keys are not supported").hint(hint));
        } else if let Some(first) = keys.insert(text.clone(), node.range.start) {
            let line = self.source.line(first);
            let message = format!("`{text}` is given twice; the first time in line {line}");
            self.found.push(Diagnostic::error(place, message).hint("keep one of them"));
            keys.insert(text.clone(), first);
        }
        (text, node.range)
    }

    fn fatal(&self, range: Range<usize>, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.source.place(range), message))
    }
}

/// An error of the parser, with what usually causes it.
fn syntax(source: &Source, error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let at = marker.byte_offset().unwrap_or_else(|| byte_of(source.text(), marker.index()));
    let end = source.text()[at.min(source.text().len())..].chars().next().map_or(at, |c| at + c.len_utf8());
    let place = source.place(at..end);
    let tab = matches!(
        error.kind(),
        ErrorKind::TabInIndentation
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabNotAllowed
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    ) || place.text == "\t";
    if tab {
        let message = "a tab cannot indent YAML";
        return Diagnostic::error(place, message).hint("indent with spaces");
    }
    let diagnostic = Diagnostic::error(place, format!("not YAML: {}", error.info()));
    let hint = match error.kind() {
        ErrorKind::UnclosedQuotedScalar => "close the quote",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::MismatchedFlowCollectionEnd { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence => "close every `{` and `[`",
        ErrorKind::UnexpectedCharacter { .. } => "quote text that begins with a special character",
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            "quote text that has a `: ` in it, and check the indentation"
        }
        _ => "check indentation, colons and quotes here and in the line before",
    };
    diagnostic.hint(hint)
}

fn byte_of(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte)
}
