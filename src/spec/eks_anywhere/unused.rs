//! Fields that have no effect here. They are read all the same, so that a misspelt one is found.

use crate::diagnostic::Problem;
use crate::spec::reader::{Fields, Reader, Value};

/// What a value has to look like.
pub enum Shape {
    /// A text or a number.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// Anything at all.
    Any,
    /// A list of such values.
    List(&'static Shape),
    /// A mapping with keys that the user chooses.
    Entries(&'static Shape),
    /// These fields; those that are not `Required` may be left out.
    Fields(&'static [(&'static str, Shape)]),
    /// Such a value, and it has to be there.
    Required(&'static Shape),
}

/// Takes the field, and warns that it has no effect, for the reason `why`; not of what is empty or `false`.
pub fn warn(reader: &mut Reader, fields: &mut Fields, field: &'static str, shape: &Shape, why: &str) {
    let Some(value) = given(reader, fields, field) else { return };
    check(reader, &value, shape);
    if value.node.scalar_at(&[]) != Some("false") {
        reader.warn(&value.range, Problem::new(format!("`{}` has no effect here", value.name)).hint(why));
    }
}

/// Takes the field, and refuses it with the way out; not what is empty or `false`.
pub fn refuse(reader: &mut Reader, fields: &mut Fields, field: &'static str, shape: &Shape, why: &str, hint: &str) {
    let Some(value) = given(reader, fields, field) else { return };
    check(reader, &value, shape);
    if value.node.scalar_at(&[]) != Some("false") {
        reader.refuse(&value.range, Problem::new(format!("`{}`: {why}", value.name)).hint(hint));
    }
}

/// A field that may be left out; EKS Anywhere writes `""`, `{}` and `[]` for many of those.
pub fn given<'n>(reader: &mut Reader, fields: &mut Fields<'n>, field: &'static str) -> Option<Value<'n>> {
    reader.optional(fields, field).filter(|value| !value.node.is_empty())
}

/// Finds what is misspelt below a field.
pub fn check(reader: &mut Reader, value: &Value, shape: &Shape) {
    match shape {
        Shape::Any => {}
        Shape::Required(shape) => check(reader, value, shape),
        Shape::Text => drop(reader.scalar(value)),
        Shape::Flag => drop(reader.flag(value)),
        Shape::Number => drop(reader.number(value, 0..=u32::MAX)),
        Shape::List(shape) => {
            for item in reader.items(value).unwrap_or_default() {
                check(reader, &item, shape);
            }
        }
        Shape::Entries(shape) => {
            for (_, item) in reader.entries(value).unwrap_or_default() {
                check(reader, &item, shape);
            }
        }
        Shape::Fields(known) => {
            let Some(mut fields) = reader.fields(value) else { return };
            for (field, shape) in *known {
                let value = match shape {
                    Shape::Required(_) => reader.required(&mut fields, field),
                    _ => reader.optional(&mut fields, field),
                };
                if let Some(value) = value {
                    check(reader, &value, shape);
                }
            }
            reader.finish(fields);
        }
    }
}
