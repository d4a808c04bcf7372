//! Language models behind the gateway.

use super::{KeyAuth, SecretKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Language models behind the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ai {
    /// Who has models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<AiProvider>,
    /// How they are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<AiRoute>,
}

/// Who has models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiProvider {
    /// Its name here.
    pub name: String,
    /// Whose API it speaks.
    #[serde(rename = "type")]
    pub kind: AiProviderKind,
    /// Its address, where it is not the well-known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Our key there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretKey>,
}

/// APIs of language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AiProviderKind {
    /// OpenAI, and what speaks as it does.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Cohere.
    Cohere,
    /// Mistral.
    Mistral,
    /// Google Gemini.
    Gemini,
}

/// How models are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiRoute {
    /// Its name.
    pub name: String,
    /// Host names that it is for; nothing: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Path that it is for, with what lies below.
    pub path: String,
    /// Models that share its requests; at least one.
    pub targets: Vec<AiTarget>,
    /// Who may use it; nothing: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KeyAuth>,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiTarget {
    /// Name of the AI provider.
    pub provider: String,
    /// The model, as its provider calls it.
    pub model: String,
    /// Its share, against the sum of all.
    pub weight: u32,
}
