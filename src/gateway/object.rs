//! Objects as providers make them.

use super::RenderError;
use crate::template;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// An object, and the cluster that it belongs into.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The data plane whose cluster it belongs into; nothing: the control plane's.
    pub plane: Option<String>,
    /// As in a manifest.
    pub value: Value,
}

/// Objects that are applied together; those of the next step wait until all of them are ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it brings about, for people.
    pub title: String,
    /// The objects, in order.
    pub objects: Vec<Object>,
}

/// What an object is called, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Nothing, where the kind has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// As in [`Object`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plane: Option<String>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}", self.name)?;
        match &self.plane {
            Some(plane) => write!(f, " (in the cluster of {plane})"),
            None => Ok(()),
        }
    }
}

impl Object {
    /// An object of the control plane's cluster.
    pub fn here(value: Value) -> Self {
        Self { plane: None, value }
    }

    /// What it is called.
    pub fn reference(&self) -> ObjectRef {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        ObjectRef {
            api_version: text(&self.value["apiVersion"]).unwrap_or_default(),
            kind: text(&self.value["kind"]).unwrap_or_default(),
            namespace: text(&self.value["metadata"]["namespace"]),
            name: text(&self.value["metadata"]["name"]).unwrap_or_default(),
            plane: self.plane.clone(),
        }
    }
}

impl Step {
    /// Objects of the control plane's cluster.
    pub fn here(title: impl Into<String>, values: Vec<Value>) -> Self {
        Self { title: title.into(), objects: values.into_iter().map(Object::here).collect() }
    }
}

/// The documents of a template.
pub fn documents(what: &'static str, template: &str, values: Value) -> Result<Vec<Value>, RenderError> {
    let text =
        template::render(template, &Serde(values).into()).map_err(|source| RenderError::Template { what, source })?;
    serde_saphyr::from_multiple(&text).map_err(|source| RenderError::Yaml { what, source: Box::new(source) })
}
