//! Failures as the API server tells them: `metav1.Status` objects with reason, details and code.
//!
//! API conventions, "Response Status Kind" and "HTTP Status codes": a failure is a `Status` whose `reason` machines read
//! and whose `message` people read. Messages are worded as users of a real cluster know them.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Value,
    /// Seconds after which to try again, for the header `Retry-After`.
    pub(crate) retry_after: Option<u32>,
}

/// One wrong field of an object: its path, what is wrong with it, and the machine's word for that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Cause {
        Cause { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {value}: {why}") }
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Cause {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Cause { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause { reason: "FieldValueDuplicate", field: field.into(), message: format!("Duplicate value: {value}") }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Cause {
        let allowed: Vec<String> = allowed.iter().map(|word| format!("\"{word}\"")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        Cause { reason: "FieldValueNotSupported", field: field.into(), message }
    }
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, reason, message: message.into(), details: json!({}), retry_after: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Failure {
        // Upstream names the resource, not the kind, in `details.kind` of these reasons.
        self.details = json!({"name": name, "kind": kind.plural});
        if !kind.group.is_empty() {
            self.details["group"] = json!(kind.group);
        }
        self
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Failure {
        Failure::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(kind, name)
    }

    /// A path that nothing serves.
    pub(crate) fn no_such_path() -> Failure {
        Failure::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn no_such_verb(kind: &Kind) -> Failure {
        Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .about(kind, "")
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Failure {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Failure::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Failure::new(409, "Conflict", message).about(kind, name)
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Failure {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(kind, name, why)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Failure {
        let what =
            if name.is_empty() { kind.qualified().to_string() } else { format!("{} \"{name}\"", kind.qualified()) };
        Failure::new(403, "Forbidden", format!("{what} is forbidden: {why}")).about(kind, name)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    /// What is wrong with an object, all of it at once.
    pub(crate) fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Failure {
        let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let told = if told.len() == 1 { told[0].clone() } else { format!("[{}]", told.join(", ")) };
        let of = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut failure = Failure::new(422, "Invalid", format!("{of} \"{name}\" is invalid: {told}")).about(kind, name);
        // Here, upstream does name the kind.
        failure.details["kind"] = json!(kind.kind);
        let one = |cause: Cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field});
        failure.details["causes"] = causes.into_iter().map(one).collect();
        failure
    }

    /// API concepts, "410 Gone responses".
    pub(crate) fn expired(message: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", message)
    }

    pub(crate) fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn unsupported_media(accepted: &str) -> Failure {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Failure::new(415, "UnsupportedMediaType", message)
    }

    /// The object that goes over the wire.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if self.details.as_object().is_some_and(|details| !details.is_empty()) {
            body["details"] = self.details.clone();
        }
        body
    }
}

/// What a deletion that is done at once answers for most resources.
pub(crate) fn deleted(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
