//! `hardwareSelector` and `hardwareAffinity`: which machines of the inventory a group takes.

use super::document::Document;
use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::names::{self, Labels};
use crate::spec::cluster::labels;
use crate::spec::reader::{Fields, Reader, Value};
use std::ops::Range;

const EXPRESSIONS: Shape = Shape::List(&Shape::Fields(&[
    ("key", Shape::Required(&Shape::Text)),
    ("operator", Shape::Required(&Shape::Text)),
    ("values", Shape::List(&Shape::Text)),
]));
const LABEL_SELECTOR: Shape =
    Shape::Fields(&[("matchLabels", Shape::Entries(&Shape::Text)), ("matchExpressions", EXPRESSIONS)]);
const PREFERRED: Shape = Shape::List(&Shape::Fields(&[
    ("weight", Shape::Required(&Shape::Number)),
    ("hardwareAffinityTerm", Shape::Required(&Shape::Fields(&[("labelSelector", LABEL_SELECTOR)]))),
]));
/// The way out of what labels alone cannot say.
const OWN_LABEL: &str = "give those machines a label of their own in the inventory, and select that";

/// The labels that a machine has to carry, with where that stands.
pub struct Selector {
    pub labels: Labels,
    pub name: String,
    pub range: Range<usize>,
}

/// Takes both fields, of which one has to be there.
pub fn read(reader: &mut Reader, fields: &mut Fields, document: &Document) -> Option<Selector> {
    let selector = given(reader, fields, "hardwareSelector");
    let affinity = given(reader, fields, "hardwareAffinity");
    match (selector, affinity) {
        (Some(selector), Some(affinity)) => {
            let problem = Problem::new("`hardwareSelector` and `hardwareAffinity` are both given");
            reader.refuse(&affinity.range, problem.hint("keep one of them"));
            self::selector(reader, &selector);
            None
        }
        (Some(value), None) => self::selector(reader, &value),
        (None, Some(value)) => self::affinity(reader, &value),
        (None, None) => {
            let problem = Problem::new(format!("{} selects no machines", document.called()));
            let hint = "hardwareSelector: {type: worker}, by a label of the inventory";
            reader.refuse(&document.range, problem.hint(hint));
            None
        }
    }
}

fn selector(reader: &mut Reader, value: &Value) -> Option<Selector> {
    let labels = labels(reader, value)?;
    if labels.len() != 1 {
        let problem = Problem::new(format!("`{}` has {} pairs; EKS Anywhere wants one", value.name, labels.len()));
        reader.refuse(&value.range, problem.hint("for several, use hardwareAffinity with matchLabels"));
        return None;
    }
    Some(Selector { labels, name: value.name.clone(), range: value.range.clone() })
}

/// One required term of labels is what our selectors can say.
fn affinity(reader: &mut Reader, value: &Value) -> Option<Selector> {
    let mut fields = reader.fields(value)?;
    let required = reader.required(&mut fields, "required");
    let why = "machines are taken in the order of their names";
    unused::warn(reader, &mut fields, "preferred", &PREFERRED, why);
    reader.finish(fields);
    let required = required?;
    let terms = reader.items(&required)?;
    let read: Vec<Option<Labels>> = terms.iter().map(|term| self::term(reader, term)).collect();
    match terms.as_slice() {
        [] => reader.refuse(&required.range, Problem::new(format!("`{}` is empty", required.name)).hint(OWN_LABEL)),
        [_] => {}
        [_, second, ..] => {
            let problem = Problem::new("machines that fit one or the other term cannot be selected here");
            reader.refuse(&second.range, problem.hint(OWN_LABEL));
            return None;
        }
    }
    let labels = read.into_iter().next().flatten()?;
    Some(Selector { labels, name: required.name, range: required.range })
}

fn term(reader: &mut Reader, value: &Value) -> Option<Labels> {
    let mut fields = reader.fields(value)?;
    let selector = reader.required(&mut fields, "labelSelector");
    reader.finish(fields);
    let selector = selector?;
    let mut fields = reader.fields(&selector)?;
    let labels = match given(reader, &mut fields, "matchLabels") {
        Some(value) => labels(reader, &value),
        None => Some(Labels::new()),
    };
    let expressions = given(reader, &mut fields, "matchExpressions");
    reader.finish(fields);
    let expressions = match &expressions {
        Some(value) => reader.items(value)?,
        None => Vec::new(),
    };
    let pairs: Vec<Option<(String, String)>> = expressions.iter().map(|item| expression(reader, item)).collect();
    let mut labels = labels?;
    for (key, text) in pairs.into_iter().collect::<Option<Vec<_>>>()? {
        if labels.insert(key.clone(), text.clone()).is_some_and(|other| other != text) {
            reader.refuse(&selector.range, Problem::new(format!("no machine can have two values of `{key}`")));
            return None;
        }
    }
    if labels.is_empty() {
        let problem = Problem::new(format!("`{}` is empty: it would claim every machine", selector.name));
        reader.refuse(&selector.range, problem.hint("name a label of the inventory: matchLabels: {type: worker}"));
        return None;
    }
    Some(labels)
}

/// `In` with one value is a label like any other; more cannot be said with labels alone.
fn expression(reader: &mut Reader, value: &Value) -> Option<(String, String)> {
    let mut fields = reader.fields(value)?;
    let key = reader.required(&mut fields, "key");
    let operator = reader.required(&mut fields, "operator");
    let values = given(reader, &mut fields, "values");
    reader.finish(fields);
    let (key, operator) = (key?, operator?);
    let items = match &values {
        Some(values) => reader.items(values)?,
        None => Vec::new(),
    };
    let known = ["In", "NotIn", "Exists", "DoesNotExist"];
    let name = reader.text(&key)?;
    match (reader.text(&operator)?, items.as_slice()) {
        ("In", [one]) => {
            let text = reader.text(one)?;
            names::label_key(name).map_err(|problem| reader.refuse(&key.range, problem)).ok()?;
            names::label_value(text).map_err(|problem| reader.refuse(&one.range, problem)).ok()?;
            Some((name.to_owned(), text.to_owned()))
        }
        (operator_text, _) if known.contains(&operator_text) => {
            let message =
                format!("`{operator_text}` of `{name}` cannot be selected here; only `In` with one value can");
            reader.refuse(&operator.range, Problem::new(message).hint(OWN_LABEL));
            None
        }
        (other, _) => {
            let problem = Problem::new(format!("`{other}` is not an operator"));
            reader.refuse(&operator.range, problem.hint(names::one_of(other, &known)));
            None
        }
    }
}
