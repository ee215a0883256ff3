//! One call to Kubernetes' API, with a deadline and with what its refusal says.
//!
//! kube's own calls drop an answer's headers, and with them how long to wait (*HTTP status 429*: `Retry-After`; API Priority and
//! Fairness answers so, in plain text). Nothing is repeated here.

use std::time::Duration;

use gristmill_engine::node::pods::Refusal;
use kube::Client;
use kube::client::Body;
use kube::core::Status;

use crate::client::{line, told};
use crate::reason::reason;

/// After so long without an answer it may be tried again.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);
/// How long to wait if there were too many calls and nothing was said of it.
const WAIT: Duration = Duration::from_secs(5);
/// Whatever a server says, after so long it is looked again.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A call that brought nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused, and perhaps said when to come again.
    Refused(Box<Status>, Option<Duration>),
    /// There was no answer, or none that can be read.
    Unreachable(String),
}

impl Failure {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status, _) if status.is_not_found())
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused(status, _) if status.is_already_exists())
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status, _) if status.is_conflict())
    }
}

/// Asks, and gives back the body.
pub(crate) async fn ask(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    within: Duration,
) -> Result<Vec<u8>, Failure> {
    let request = request.map_err(|e| Failure::Unreachable(format!("no request can be made: {e}")))?;
    let call = async {
        let response = client.send(request.map(Body::from)).await?;
        let after = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let code = response.status();
        let body = response.into_body().collect_bytes().await?;
        Ok::<_, kube::Error>((code, after.map(Duration::from_secs), body))
    };
    let answer = tokio::time::timeout(within, call).await;
    let answer = answer.map_err(|_| Failure::Unreachable(format!("no answer within {} s", within.as_secs_f64())))?;
    let (code, after, body) = answer.map_err(|e| Failure::Unreachable(told(&e)))?;
    if code.is_success() {
        return Ok(body.to_vec());
    }
    let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
        // Proxies and limits answer in plain text.
        Status::failure(&line(&String::from_utf8_lossy(&body)), "").with_code(code.as_u16())
    });
    let status = if status.code == 0 { status.with_code(code.as_u16()) } else { status };
    let said =
        status.details.as_ref().map(|details| u64::from(details.retry_after_seconds)).filter(|seconds| *seconds > 0);
    let after = after.or(said.map(Duration::from_secs)).map(|after| after.min(LONGEST_WAIT));
    Err(Failure::Refused(Box::new(status), after))
}

impl From<Failure> for Refusal {
    /// Whether there is a use in trying again.
    ///
    /// *API conventions* (response status kind) say what the codes mean; admission answers 403 for all that it refuses, so its
    /// text alone tells a quota that may have room again (*Resource Quotas*) from a limit that will not change (*Limit Ranges*,
    /// *Pod Security Admission*, *Dynamic Admission Control*).
    fn from(failure: Failure) -> Self {
        let (status, after) = match failure {
            Failure::Refused(status, after) => (status, after),
            Failure::Unreachable(text) => return Self::Later(reason("Unreachable", &text), None),
        };
        let text = if status.message.is_empty() { &status.reason } else { &status.message };
        let later = |word: &str, after| Self::Later(reason(word, text), after);
        let never = |word: &str| Self::Never(reason(word, text));
        match status.code {
            403 => forbidden(text, after),
            // A token that is being renewed.
            401 => later("Unauthorized", after),
            404 => never("NotFound"),
            409 => later("Conflict", after),
            422 => never("Invalid"),
            429 => later("TooManyRequests", Some(after.unwrap_or(WAIT))),
            500.. if text.contains("failed calling webhook") => later("WebhookFailed", after),
            500.. => later("Unreachable", after),
            _ if text.contains(DENIED) => never("WebhookDenied"),
            _ => never(if status.reason.is_empty() { "Refused" } else { &status.reason }),
        }
    }
}

/// How a webhook's refusal is told, after its name, with whatever code it gave.
const DENIED: &str = " denied the request";

fn forbidden(text: &str, after: Option<Duration>) -> Refusal {
    let later = |word| Refusal::Later(reason(word, text), after);
    let never = |word| Refusal::Never(reason(word, text));
    let has = |part: &str| text.contains(part);
    if has("exceeded quota") || has("status unknown for quota") {
        later("QuotaExceeded")
    } else if has("error looking up service account") {
        // It is made at the same time, perhaps.
        later("NoServiceAccount")
    } else if has("failed quota") {
        never("QuotaNeedsMore")
    } else if has("because it is being terminated") {
        never("NamespaceTerminating")
    } else if has(" usage per ") || has("limit to request ratio per") {
        never("LimitRange")
    } else if has("violates PodSecurity") {
        never("PodSecurity")
    } else if has(DENIED) {
        never("WebhookDenied")
    } else {
        never("Forbidden")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, text: &str) -> Refusal {
        let reason = if code == 400 { "BadRequest" } else { "" };
        Failure::Refused(Box::new(Status::failure(text, reason).with_code(code)), None).into()
    }

    #[test]
    fn what_may_come_right_is_tried_again() {
        for (code, text, word, wait) in [
            (
                403,
                "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5",
                "QuotaExceeded",
                None,
            ),
            (403, "pods \"a\" is forbidden: status unknown for quota: q, resources: pods", "QuotaExceeded", None),
            (
                403,
                "pods \"a\" is forbidden: error looking up service account n/s: serviceaccount \"s\" not found",
                "NoServiceAccount",
                None,
            ),
            (401, "Unauthorized", "Unauthorized", None),
            (409, "Operation cannot be fulfilled on resourcequotas \"q\"", "Conflict", None),
            (429, "Too many requests, please try again later.", "TooManyRequests", Some(5)),
            (500, "Internal error occurred: failed calling webhook \"w\": no endpoints", "WebhookFailed", None),
            (500, "etcdserver: leader changed", "Unreachable", None),
            (503, "apiserver not ready", "Unreachable", None),
            (504, "timeout", "Unreachable", None),
        ] {
            assert_eq!(
                refusal(code, text),
                Refusal::Later(reason(word, text), wait.map(Duration::from_secs)),
                "{text}"
            );
        }
        let down: Refusal = Failure::Unreachable("connection refused".into()).into();
        assert_eq!(down, Refusal::Later(reason("Unreachable", "connection refused"), None));
    }

    #[test]
    fn what_stays_wrong_is_not() {
        for (code, text, word) in [
            (403, "pods is forbidden: User \"u\" cannot create resource \"pods\"", "Forbidden"),
            (403, "pods \"a\" is forbidden: failed quota: q: must specify cpu for: worker", "QuotaNeedsMore"),
            (
                403,
                "pods \"a\" is forbidden: unable to create new content in namespace n because it is being terminated",
                "NamespaceTerminating",
            ),
            (403, "pods \"a\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 4Gi", "LimitRange"),
            (403, "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", "PodSecurity"),
            (403, "admission webhook \"w\" denied the request: no", "WebhookDenied"),
            (400, "admission webhook \"w\" denied the request: no", "WebhookDenied"),
            (400, "it cannot be read", "BadRequest"),
            (404, "namespaces \"n\" not found", "NotFound"),
            (413, "too large", "Refused"),
            (422, "Pod \"a\" is invalid: spec.containers[0].image: Required value", "Invalid"),
        ] {
            assert_eq!(refusal(code, text), Refusal::Never(reason(word, text)), "{text}");
        }
    }

    #[test]
    fn a_wait_that_was_said_holds() {
        let status = || Box::new(Status::failure("too many", "TooManyRequests").with_code(429));
        let refusal: Refusal = Failure::Refused(status(), Some(Duration::from_secs(7))).into();
        assert_eq!(refusal, Refusal::Later(reason("TooManyRequests", "too many"), Some(Duration::from_secs(7))));
    }
}
