//! JSON Schema of the files that `spec` reads, so that an editor completes and checks them.
//!
//! The types below have the shape of the files as a user writes them, which the domain types have not: what may be left out
//! there has a default here. Nothing is read by them. `tests` holds them against the reader, field by field; `metalgate
//! generate schema` prints what is made of them, and `hardware-examples/*.schema.json` are committed copies.

mod cluster;
mod gateway;
#[cfg(test)]
mod tests;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kind: Cluster`.
    Cluster,
    /// `kind: GatewayStack`.
    GatewayStack,
}

/// The schema of a kind of file, in draft 7: the newest one that every editor knows.
pub fn schema(kind: Kind) -> serde_json::Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = false);
    let generator = settings.with_transform(RecursiveTransform(close)).into_generator();
    let schema = match kind {
        Kind::Cluster => generator.into_root_schema_for::<cluster::Document>(),
        Kind::GatewayStack => generator.into_root_schema_for::<gateway::Document>(),
    };
    schema.to_value()
}

/// Unknown fields are mistakes.
fn close(schema: &mut Schema) {
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".into(), false.into());
    }
}

/// `metadata` of a document.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its shape is used")]
struct Metadata {
    /// Its name, a DNS label; the work directory and the objects are called by it.
    #[schemars(pattern(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    name: String,
}

/// A text that the user need not put between quotes where YAML takes it for a number or a truth value.
struct Text;

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
