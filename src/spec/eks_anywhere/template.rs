//! A TinkerbellTemplateConfig: none of its actions is run, and the user is told so of each.

use super::document::Document;
use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::spec::reader::{Reader, Value};

/// What each of EKS Anywhere's own actions is done by here.
const OURS: [(&str, &str); 9] = [
    ("stream-image", "the agent writes the image and reads it back"),
    ("write-netplan", "the network comes from the inventory, through cloud-init"),
    ("write-netconfig", "the network comes from the inventory, through cloud-init"),
    ("disable-cloud-init-network-capabilities", "the network comes from the inventory, through cloud-init"),
    ("add-tink-cloud-init-config", "the agent writes a seed for cloud-init"),
    ("add-tink-cloud-init-ds-config", "the agent writes a seed for cloud-init"),
    ("write-user-data", "the agent writes a seed for cloud-init"),
    ("kexec-image", "the agent restarts the machine from its disk"),
    ("reboot", "the agent restarts the machine from its disk"),
];
const OTHER: &str = "put what it does into the image, or do it over SSH afterwards";

const STEP: [(&str, Shape); 8] = [
    ("image", Shape::Text),
    ("timeout", Shape::Number),
    ("command", Shape::List(&Shape::Text)),
    ("on-timeout", Shape::List(&Shape::Text)),
    ("on-failure", Shape::List(&Shape::Text)),
    ("volumes", Shape::List(&Shape::Text)),
    ("environment", Shape::Entries(&Shape::Any)),
    ("pid", Shape::Text),
];

/// Reads the document; there is nothing in it to be kept.
pub fn read(reader: &mut Reader, document: &Document) -> Option<()> {
    let mut fields = reader.fields(document.spec.as_ref()?)?;
    let template = reader.required(&mut fields, "template");
    reader.finish(fields);
    let mut fields = reader.fields(&template?)?;
    for (field, shape) in
        [("version", Shape::Text), ("name", Shape::Text), ("id", Shape::Text), ("global_timeout", Shape::Number)]
    {
        if let Some(value) = reader.optional(&mut fields, field) {
            unused::check(reader, &value, &shape);
        }
    }
    let tasks = given(reader, &mut fields, "tasks");
    reader.finish(fields);
    for value in &reader.items(&tasks?)? {
        task(reader, value);
    }
    None
}

fn task(reader: &mut Reader, value: &Value) {
    let Some(mut fields) = reader.fields(value) else { return };
    for (field, shape) in [
        ("name", Shape::Text),
        ("worker", Shape::Text),
        ("volumes", Shape::List(&Shape::Text)),
        ("environment", Shape::Entries(&Shape::Any)),
    ] {
        if let Some(value) = reader.optional(&mut fields, field) {
            unused::check(reader, &value, &shape);
        }
    }
    let actions = given(reader, &mut fields, "actions");
    reader.finish(fields);
    let actions = actions.and_then(|actions| reader.items(&actions)).unwrap_or_default();
    for value in &actions {
        action(reader, value);
    }
}

fn action(reader: &mut Reader, value: &Value) {
    let Some(mut fields) = reader.fields(value) else { return };
    let name = reader.required(&mut fields, "name");
    for (field, shape) in &STEP {
        if let Some(value) = reader.optional(&mut fields, field) {
            unused::check(reader, &value, shape);
        }
    }
    reader.finish(fields);
    let Some(name) = name else { return };
    let Some(text) = reader.text(&name) else { return };
    let hint = OURS.iter().find(|(action, _)| *action == text).map_or(OTHER, |(_, hint)| hint);
    reader.warn(&name.range, Problem::new(format!("the action `{text}` is not run")).hint(hint));
}
