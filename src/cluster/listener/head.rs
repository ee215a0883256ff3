//! What the head of a request has to be before anybody looks at the rest: pure functions of its head.
//!
//! HTTP's parser refuses what breaks its grammar. Refused here is what two readers of one head could take for different
//! things, and what is longer than anything that is meant seriously.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use tonic::Status;

use super::bounds::{CREDENTIALS_BYTES, HEADERS};

/// Headers of which a second one would have to be either ignored or believed.
const ONCE: [HeaderName; 6] = [AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN];

/// Fails for a head that is not to be answered.
///
/// # Errors
/// `INVALID_ARGUMENT`, and what is wrong.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Status> {
    let (headers, refused) = (request.headers(), |why: &str| Err(Status::invalid_argument(why)));
    if request.method() == Method::CONNECT {
        return refused("this is no proxy; ask for a path");
    }
    if headers.len() > HEADERS {
        return refused(&format!("the request has more than {HEADERS} headers; send fewer"));
    }
    for name in &ONCE {
        single(headers, name)?;
    }
    credentials(headers)?;
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    if request.version() == Version::HTTP_11 && host.is_none() {
        return refused("the request lacks the header Host, which HTTP/1.1 wants");
    }
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.as_bytes().eq_ignore_ascii_case(host)
    {
        return refused("the request is for one host by its address and for another by its header Host");
    }
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc && request.version() < Version::HTTP_2 {
        return refused("gRPC takes HTTP/2; over HTTP/1 there are the routes of /v1/openapi.json");
    }
    Ok(())
}

/// The header that says who asks, if there is one.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is more than one, or one of more than 8 KiB.
pub(in crate::cluster) fn credentials(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Status> {
    let found = single(headers, &AUTHORIZATION)?;
    if found.is_some_and(|value| value.len() > CREDENTIALS_BYTES) {
        let most = format!("the header Authorization has more than {CREDENTIALS_BYTES} bytes; no token is so long");
        return Err(Status::invalid_argument(most));
    }
    Ok(found)
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Status> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (_, Some(_)) => {
            Err(Status::invalid_argument(format!("the request has the header '{name}' twice; send it once")))
        }
        (found, None) => Ok(found),
    }
}

/// What a call's deadline leaves of it; none if it has no deadline, or one that makes no sense.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_said_once_and_briefly() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        assert_eq!(credentials(&headers(&[])).unwrap(), None);
        assert_eq!(credentials(&headers(&["Bearer x"])).unwrap().unwrap(), "Bearer x");
        assert!(credentials(&headers(&[&"x".repeat(CREDENTIALS_BYTES)])).is_ok());
        assert!(credentials(&headers(&[&"x".repeat(CREDENTIALS_BYTES + 1)])).is_err());
        assert!(credentials(&headers(&["Bearer x", "Bearer x"])).is_err());
    }

    #[test]
    fn what_could_be_taken_for_two_things_is_refused() {
        let asked = |version, method: &str, uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().version(version).method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            check(&request.body(()).unwrap()).is_ok()
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert!(asked(one, "GET", "/v1/jobs", &[("host", "m:7070")]));
        assert!(asked(Version::HTTP_10, "GET", "/v1/jobs", &[]));
        assert!(asked(one, "GET", "http://m:7070/v1/jobs", &[("host", "M:7070")]));
        assert!(asked(two, "GET", "https://m:7070/v1/jobs", &[]));
        assert!(asked(two, "POST", "/x", &[("content-type", "application/grpc")]));
        assert!(!asked(one, "GET", "/v1/jobs", &[]));
        assert!(!asked(one, "GET", "/v1/jobs", &[("host", "m:7070"), ("host", "m:7070")]));
        assert!(!asked(one, "GET", "http://other/v1/jobs", &[("host", "m:7070")]));
        assert!(!asked(two, "GET", "https://m:7070/v1/jobs", &[("host", "other")]));
        assert!(!asked(one, "POST", "/x", &[("host", "m"), ("content-type", "application/grpc+proto")]));
        assert!(!asked(two, "CONNECT", "m:7070", &[]));
        let many: Vec<String> = (0..=HEADERS).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert!(asked(two, "GET", "/", &many[1..]) && !asked(two, "GET", "/", &many));
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read =
            |text: &str| deadline(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]));
        assert_eq!(read("3H"), Some(Duration::from_secs(10_800)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!([read("1M"), read("1S")], [60, 1].map(|n| Some(Duration::from_secs(n))));
        assert_eq!([read("5u"), read("5n")], [5000, 5].map(|n| Some(Duration::from_nanos(n))));
        for wrong in ["", "S", "1", "1s", "999999999S", "+1S", "-1S", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
