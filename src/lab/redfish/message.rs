//! Redfish's error bodies (DSP0266, 8.6) with messages of the Base registry.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

const REGISTRY: &str = "Base.1.18";

/// An error response.
#[derive(Debug)]
pub struct RedfishError {
    status: StatusCode,
    id: &'static str,
    text: String,
    args: Vec<String>,
    resolution: &'static str,
}

impl RedfishError {
    /// No such resource.
    pub fn not_found(uri: &Uri) -> Self {
        let text = format!("The requested resource at the URI {uri} was not found.");
        Self::new(StatusCode::NOT_FOUND, "ResourceMissingAtURI", text, vec![uri.to_string()])
    }

    /// The resource exists, and has no such method.
    pub fn not_allowed(method: &Method, uri: &Uri) -> Self {
        let text = format!("The HTTP method {method} is not allowed on {uri}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "OperationNotAllowed", text, vec![])
    }

    /// Who are you?
    pub fn unauthorized() -> Self {
        let text = "There is no valid session established with the implementation.".to_owned();
        let resolution = "Check the user name and the password.";
        Self { resolution, ..Self::new(StatusCode::UNAUTHORIZED, "NoValidSession", text, vec![]) }
    }

    /// Not with this account.
    pub fn insufficient_privilege() -> Self {
        let text = "There are insufficient privileges for the account or credentials associated with the current session \
                    to perform the requested operation.";
        let resolution = "Use an account with the privilege ConfigureComponents.";
        let error = Self::new(StatusCode::FORBIDDEN, "InsufficientPrivilege", text.to_owned(), vec![]);
        Self { resolution, ..error }
    }

    /// The body is no JSON object.
    pub fn malformed() -> Self {
        let text = "The request body submitted was malformed JSON.".to_owned();
        Self::new(StatusCode::BAD_REQUEST, "MalformedJSON", text, vec![])
    }

    /// The property exists nowhere.
    pub fn unknown_property(name: &str) -> Self {
        let text = format!("The property {name} is not in the list of valid properties for the resource.");
        Self::new(StatusCode::BAD_REQUEST, "PropertyUnknown", text, vec![name.to_owned()])
    }

    /// The property can be read only.
    pub fn read_only(name: &str) -> Self {
        let text = format!("The property {name} is a read-only property and cannot be assigned a value.");
        Self::new(StatusCode::BAD_REQUEST, "PropertyNotWritable", text, vec![name.to_owned()])
    }

    /// The property cannot have this value.
    pub fn bad_value(name: &str, value: &Value) -> Self {
        let text = format!("The value {value} for the property {name} is not in the list of acceptable values.");
        let args = vec![value.to_string(), name.to_owned()];
        let resolution = "Choose one of the property's @Redfish.AllowableValues.";
        Self { resolution, ..Self::new(StatusCode::BAD_REQUEST, "PropertyValueNotInList", text, args) }
    }

    /// The action needs a parameter that is not there.
    pub fn missing_parameter(action: &str, name: &str) -> Self {
        let text = format!("The action {action} requires the parameter {name} to be present in the request body.");
        let args = vec![action.to_owned(), name.to_owned()];
        Self::new(StatusCode::BAD_REQUEST, "ActionParameterMissing", text, args)
    }

    /// The action's parameter cannot have this value.
    pub fn bad_parameter(action: &str, name: &str, value: &Value) -> Self {
        let text = format!("The value {value} for the parameter {name} in the action {action} is not acceptable.");
        let args = vec![value.to_string(), name.to_owned(), action.to_owned()];
        Self::new(StatusCode::BAD_REQUEST, "ActionParameterValueNotInList", text, args)
    }

    /// Somebody else changed the resource since the client read it.
    pub fn changed_meanwhile() -> Self {
        let text = "The ETag supplied did not match the ETag of the current resource.".to_owned();
        Self::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", text, vec![])
    }

    /// What the image's source answered, or why it could not be asked.
    pub fn media_unreachable(url: &str, reason: &str) -> Self {
        let text = format!("The service cannot access the resource at {url}: {reason}.");
        Self::new(StatusCode::BAD_REQUEST, "ResourceAtUriUnauthorized", text, vec![url.to_owned(), reason.to_owned()])
    }

    /// The machine did not do it.
    pub fn internal(reason: &str) -> Self {
        let text = format!("The request failed due to an internal service error: {reason}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text, vec![])
    }

    fn new(status: StatusCode, id: &'static str, text: String, args: Vec<String>) -> Self {
        Self { status, id, text, args, resolution: "None." }
    }
}

impl IntoResponse for RedfishError {
    fn into_response(self) -> Response {
        let id = format!("{REGISTRY}.{}", self.id);
        let body = json!({"error": {
            "code": id,
            "message": self.text,
            "@Message.ExtendedInfo": [{
                "@odata.type": "#Message.v1_1_2.Message",
                "MessageId": id,
                "Message": self.text,
                "MessageArgs": self.args,
                "MessageSeverity": if self.status.is_server_error() { "Critical" } else { "Warning" },
                "Resolution": self.resolution,
            }],
        }});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"BMC\""));
        }
        response
    }
}

/// The headers that every Redfish response carries.
pub async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("odata-version", HeaderValue::from_static("4.0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
