//! Takes fields out of a tree, and notes every one that is missing, unknown or of the wrong kind.

use super::yaml::{Entry, Kind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Problem, Severity, Source};
use crate::names::did_you_mean;
use std::ops::Range;

/// The file and what was found wrong in it so far.
pub struct Reader<'s> {
    pub source: &'s Source,
    pub found: Diagnostics,
}

/// A value and how messages call it.
#[derive(Clone)]
pub struct Value<'n> {
    pub node: &'n Node,
    /// What to point at.
    pub range: Range<usize>,
    /// `spec.kubernetes.version`.
    pub name: String,
}

/// The fields of a mapping; those that nobody asked for are unknown.
pub struct Fields<'n> {
    name: String,
    range: Range<usize>,
    left: Vec<&'n Entry>,
    known: Vec<&'static str>,
    missing: Vec<&'static str>,
}

impl<'n> Value<'n> {
    /// The file's one document.
    pub fn root(node: &'n Node) -> Self {
        Self { node, range: node.range.clone(), name: String::new() }
    }
}

impl<'n> Fields<'n> {
    fn take(&mut self, field: &'static str) -> Option<Value<'n>> {
        self.known.push(field);
        let entry = self.left.iter().position(|entry| entry.key == field).map(|index| self.left.remove(index))?;
        // Given twice is a mistake that was reported; the second one is not unknown.
        self.left.retain(|entry| entry.key != field);
        Some(Value { node: &entry.value, range: entry.shown(), name: self.path(field) })
    }

    /// Where they are.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    fn path(&self, field: &str) -> String {
        match self.name.as_str() {
            "" => field.to_owned(),
            name => format!("{name}.{field}"),
        }
    }
}

impl Reader<'_> {
    /// Notes a mistake.
    pub fn refuse(&mut self, range: &Range<usize>, problem: Problem) {
        self.found.push(problem.at(self.source.place(range.clone())));
    }

    /// Notes what the user should know all the same.
    pub fn warn(&mut self, range: &Range<usize>, problem: Problem) {
        let severity = Severity::Warning;
        self.found.push(Diagnostic { severity, ..problem.at(self.source.place(range.clone())) });
    }

    /// The fields of a mapping.
    pub fn fields<'n>(&mut self, value: &Value<'n>) -> Option<Fields<'n>> {
        let Kind::Mapping(entries) = &value.node.kind else {
            self.wrong_kind(value, "a mapping (`key: value`)");
            return None;
        };
        let left = entries.iter().filter(|entry| !entry.key.is_empty() && entry.key != "<<").collect();
        Some(Fields {
            name: value.name.clone(),
            range: value.range.clone(),
            left,
            known: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// A field that has to be there.
    pub fn required<'n>(&mut self, fields: &mut Fields<'n>, field: &'static str) -> Option<Value<'n>> {
        match fields.take(field) {
            None => {
                fields.missing.push(field);
                None
            }
            Some(value) if value.node.is_null() => {
                self.refuse(&value.range, Problem::new(format!("`{}` has no value", value.name)));
                None
            }
            value => value,
        }
    }

    /// A field that may be left out, or left empty.
    pub fn optional<'n>(&mut self, fields: &mut Fields<'n>, field: &'static str) -> Option<Value<'n>> {
        fields.take(field).filter(|value| !value.node.is_null())
    }

    /// Notes every field that is missing, and every one that nobody asked for; call it when all were asked for.
    pub fn finish(&mut self, mut fields: Fields<'_>) {
        for entry in &fields.left {
            let message = format!("unknown field `{}`", fields.path(&entry.key));
            let meant = did_you_mean(&entry.key, fields.known.iter().copied());
            let known = || format!("known here: {}", fields.known.join(", "));
            let hint = meant.map_or_else(known, |field| {
                // A misspelt field is one mistake, not two.
                fields.missing.retain(|missing| *missing != field);
                format!("did you mean `{field}`?")
            });
            self.refuse(&entry.range, Problem::new(message).hint(hint));
        }
        for field in &fields.missing {
            let message = match fields.name.as_str() {
                "" => format!("`{field}` is missing"),
                name => format!("`{name}` has no `{field}`"),
            };
            self.refuse(&fields.range, Problem::new(message));
        }
    }

    /// The items of a list.
    pub fn items<'n>(&mut self, value: &Value<'n>) -> Option<Vec<Value<'n>>> {
        let Kind::Sequence(items) = &value.node.kind else {
            self.wrong_kind(value, "a list (`- item`, or `[item, item]`)");
            return None;
        };
        let named = |(index, node): (usize, &'n Node)| {
            let range = if node.range.is_empty() { value.range.clone() } else { node.range.clone() };
            Value { node, range, name: format!("{}[{index}]", value.name) }
        };
        Some(items.iter().enumerate().map(named).collect())
    }

    /// The entries of a mapping whose keys the user chooses.
    pub fn entries<'n>(&mut self, value: &Value<'n>) -> Option<Vec<(&'n Entry, Value<'n>)>> {
        let Kind::Mapping(entries) = &value.node.kind else {
            self.wrong_kind(value, "a mapping (`key: value`)");
            return None;
        };
        let named = |entry: &'n Entry| {
            (entry, Value { node: &entry.value, range: entry.shown(), name: format!("{}.{}", value.name, entry.key) })
        };
        // A merge key was refused when the tree was made.
        Some(entries.iter().filter(|entry| entry.key != "<<").map(named).collect())
    }

    /// A text that is not empty.
    pub fn text<'n>(&mut self, value: &Value<'n>) -> Option<&'n str> {
        let text = self.scalar(value)?;
        if text.is_empty() {
            self.refuse(&value.range, Problem::new(format!("`{}` is empty", value.name)));
        }
        (!text.is_empty()).then_some(text)
    }

    /// A text, which may be `""`.
    pub fn scalar<'n>(&mut self, value: &Value<'n>) -> Option<&'n str> {
        match &value.node.kind {
            _ if value.node.is_null() => {
                let problem = Problem::new(format!("`{}` has no value", value.name));
                self.refuse(&value.range, problem.hint("write \"\" for an empty text"));
                None
            }
            Kind::Scalar { text, .. } => Some(text),
            _ => {
                self.wrong_kind(value, "a text");
                None
            }
        }
    }

    /// A text that `rule` makes something of.
    pub fn parse<T>(&mut self, value: &Value<'_>, rule: impl FnOnce(&str) -> Result<T, Problem>) -> Option<T> {
        let text = self.text(value)?;
        rule(text).map_err(|problem| self.refuse(&value.range, problem)).ok()
    }

    /// `true` or `false`.
    pub fn flag(&mut self, value: &Value<'_>) -> Option<bool> {
        match &value.node.kind {
            Kind::Scalar { text, plain: true } if text == "true" => Some(true),
            Kind::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.refuse(&value.range, Problem::new(format!("`{}` has to be true or false", value.name)));
                None
            }
        }
    }

    /// A whole number from a range.
    pub fn number(&mut self, value: &Value<'_>, allowed: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let quoted = matches!(value.node.kind, Kind::Scalar { plain: false, .. });
        let text = self.text(value)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|number| digits && !quoted && allowed.contains(number));
        if number.is_none() {
            let message = format!("`{}` has to be a number from {} to {}", value.name, allowed.start(), allowed.end());
            let hint = (quoted && digits).then(|| String::from("leave the quotes out"));
            self.refuse(&value.range, Problem::new(message).maybe_hint(hint));
        }
        number
    }

    fn wrong_kind(&mut self, value: &Value<'_>, wanted: &str) {
        let name = match value.name.as_str() {
            "" => String::from("the document"),
            name => format!("`{name}`"),
        };
        let is = match &value.node.kind {
            _ if value.node.is_null() => "nothing",
            Kind::Scalar { .. } => "a text",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        };
        self.refuse(&value.range, Problem::new(format!("{name} has to be {wanted}, but it is {is}")));
    }
}
