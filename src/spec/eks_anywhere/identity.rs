//! Kinds beside the cluster: an OIDCConfig becomes flags of the API server; of those that have no effect here, or are refused
//! where they are used, what their fields are.

use super::document::Document;
use super::unused::{Shape, given};
use crate::diagnostic::Problem;
use crate::spec::Argument;
use crate::spec::reader::{Reader, Value};

/// What an AWSIamConfig has.
pub const AWS_IAM: Shape = Shape::Fields(&[
    ("awsRegion", Shape::Required(&Shape::Text)),
    ("backendMode", Shape::Required(&Shape::List(&Shape::Text))),
    ("partition", Shape::Text),
    (
        "mapRoles",
        Shape::List(&Shape::Fields(&[
            ("roleARN", Shape::Required(&Shape::Text)),
            ("username", Shape::Required(&Shape::Text)),
            ("groups", Shape::List(&Shape::Text)),
        ])),
    ),
    (
        "mapUsers",
        Shape::List(&Shape::Fields(&[
            ("userARN", Shape::Required(&Shape::Text)),
            ("username", Shape::Required(&Shape::Text)),
            ("groups", Shape::List(&Shape::Text)),
        ])),
    ),
]);
/// What a FluxConfig has.
pub const FLUX: Shape = Shape::Fields(&[
    ("systemNamespace", Shape::Text),
    ("clusterConfigPath", Shape::Text),
    ("branch", Shape::Text),
    (
        "github",
        Shape::Fields(&[
            ("owner", Shape::Required(&Shape::Text)),
            ("repository", Shape::Required(&Shape::Text)),
            ("personal", Shape::Flag),
        ]),
    ),
    ("git", Shape::Fields(&[("repositoryUrl", Shape::Required(&Shape::Text)), ("sshKeyAlgorithm", Shape::Text)])),
]);
/// What a GitOpsConfig has.
pub const GIT_OPS: Shape = Shape::Fields(&[(
    "flux",
    Shape::Required(&Shape::Fields(&[(
        "github",
        Shape::Required(&Shape::Fields(&[
            ("owner", Shape::Required(&Shape::Text)),
            ("repository", Shape::Required(&Shape::Text)),
            ("personal", Shape::Flag),
            ("branch", Shape::Text),
            ("clusterConfigPath", Shape::Text),
            ("fluxSystemNamespace", Shape::Text),
        ])),
    )])),
)]);

/// The flags that an OIDCConfig stands for.
pub fn oidc(reader: &mut Reader, document: &Document) -> Option<Vec<Argument>> {
    let mut fields = reader.fields(document.spec.as_ref()?)?;
    let mut arguments = Vec::new();
    let mut right = true;
    let issuer = reader.required(&mut fields, "issuerUrl").map(|value| {
        reader.parse(&value, |text| match url::Url::parse(text) {
            Ok(url) if url.scheme() == "https" && url.has_host() => Ok(text.to_owned()),
            _ => {
                Err(Problem::new(format!("`{text}` is not an https URL")).hint("the API server trusts no other issuer"))
            }
        })
    });
    let client = reader.required(&mut fields, "clientId").map(|value| reader.text(&value).map(str::to_owned));
    let mut add = |name: &str, value: Option<Option<String>>, needed: bool| match value {
        Some(Some(value)) => arguments.push(Argument { name: format!("oidc-{name}"), value }),
        None if !needed => {}
        _ => right = false,
    };
    add("issuer-url", issuer, true);
    add("client-id", client, true);
    for (field, name) in [
        ("usernameClaim", "username-claim"),
        ("usernamePrefix", "username-prefix"),
        ("groupsClaim", "groups-claim"),
        ("groupsPrefix", "groups-prefix"),
    ] {
        let value = given(reader, &mut fields, field).map(|value| reader.text(&value).map(str::to_owned));
        add(name, value, false);
    }
    let claims = given(reader, &mut fields, "requiredClaims");
    let claims = claims.map(|value| reader.items(&value).unwrap_or_default()).unwrap_or_default();
    for claim in &claims {
        add("required-claim", Some(required_claim(reader, claim)), true);
    }
    reader.finish(fields);
    right.then_some(arguments)
}

fn required_claim(reader: &mut Reader, value: &Value) -> Option<String> {
    let mut fields = reader.fields(value)?;
    let claim = reader.required(&mut fields, "claim");
    let value = reader.required(&mut fields, "value");
    reader.finish(fields);
    let (claim, value) = (claim?, value?);
    Some(format!("{}={}", reader.text(&claim)?, reader.text(&value)?))
}
