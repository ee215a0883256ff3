//! What an object store's errors mean to the engine.

use gristmill_engine::store::{Error, Kind};

/// Most characters of what a store says that are passed on: some answer with a page.
const MOST_WORDS: usize = 500;

/// The error of a call that did `action` to `what`.
pub(super) fn of(action: &str, what: impl std::fmt::Display, e: &object_store::Error) -> Error {
    use object_store::Error as Theirs;
    let denied = "check the store's credentials and what they allow";
    let (kind, advice) = match e {
        Theirs::NotFound { .. } => {
            return Error::new(Kind::NotFound, format!("cannot {action} {what}: there is no such object"));
        }
        Theirs::AlreadyExists { .. } => {
            return Error::new(Kind::AlreadyExists, format!("cannot {action} {what}: it exists already"));
        }
        Theirs::Precondition { .. } | Theirs::NotModified { .. } => {
            return Error::new(
                Kind::Changed,
                format!("cannot {action} {what}: it has been changed or deleted meanwhile"),
            );
        }
        Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. } => (Kind::Denied, denied),
        Theirs::InvalidPath { .. }
        | Theirs::NotSupported { .. }
        | Theirs::NotImplemented { .. }
        | Theirs::UnknownConfigurationKey { .. } => (Kind::Denied, ""),
        // The library keeps the status to itself but in its words.
        _ => match status(&e.to_string()) {
            Some(404) => (Kind::NotFound, ""),
            Some(408 | 409 | 429) => (Kind::Retryable, ""),
            Some(400..=499) => (Kind::Denied, "check the store's address and settings"),
            _ => (Kind::Retryable, ""),
        },
    };
    Error::new(kind, sentence(action, what, &e.to_string(), advice))
}

/// The error of an answer with this status, of a request that was made here.
pub(super) fn of_status(action: &str, what: impl std::fmt::Display, status: u16, body: &str) -> Error {
    let kind = match status {
        404 => Kind::NotFound,
        412 => Kind::Changed,
        401 | 403 => Kind::Denied,
        408 | 409 | 429 => Kind::Retryable,
        400..=499 => Kind::Denied,
        _ => Kind::Retryable,
    };
    Error::new(kind, sentence(action, what, &format!("the store answered {status}: {body}"), ""))
}

fn sentence(action: &str, what: impl std::fmt::Display, words: &str, advice: &str) -> String {
    let line: String = words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_WORDS).collect();
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    format!("cannot {action} {what}: {line}{advice}")
}

/// The status of an answer that words tell of.
pub(super) fn status(words: &str) -> Option<u16> {
    let (_, after) = words.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(words: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: words.to_string().into() }
    }

    #[test]
    fn what_may_go_well_another_time_is_told_from_what_never_will() {
        for (words, kind) in [
            ("Server returned non-2xx status code: 503 Service Unavailable: <x>\n slow</x>", Kind::Retryable),
            ("Server returned non-2xx status code: 429 Too Many", Kind::Retryable),
            ("Server returned non-2xx status code: 400 Bad Request", Kind::Denied),
            ("connection reset", Kind::Retryable),
        ] {
            let e = of("read", "a/b", &generic(words));
            assert_eq!(e.kind, kind, "{e}");
            assert!(e.text.starts_with("cannot read a/b: ") && !e.text.contains('\n'), "{e}");
        }
        let long = of("read", "a", &generic(&"x".repeat(10_000)));
        assert!(long.text.len() < 600);
        assert_eq!(of_status("copy", "a", 503, "").kind, Kind::Retryable);
        assert_eq!(of_status("copy", "a", 412, "").kind, Kind::Changed);
    }
}
