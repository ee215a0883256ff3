//! Requests that the library does not make: it signs their URLs, and they are made here, as patiently.
//!
//! S3 completes an upload only where nothing has the name (`If-None-Match: *`), and lets an upload's parts be ranges of
//! another object: together that is a create-only copy of any size. Azure may copy behind its answer; how far it is, is
//! asked until it is done.

use std::time::Duration;

use gristmill_engine::store::{Error, Kind};
use object_store::aws::AmazonS3;
use object_store::azure::MicrosoftAzure;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{HeaderMap, HeaderValue, MultipartId, ObjectMeta};
use reqwest::Method;
use tokio::time::{Instant, sleep};

use super::failure;
use super::objects::{Inner, Limits};
use super::upload::exists;

/// How long a signature holds.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// How long a copy within Azure may take, and how often it is looked at.
const COPIED_WITHIN: Duration = Duration::from_secs(1800);
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A client of requests to S3.
pub(super) struct Signed<'s> {
    s3: &'s AmazonS3,
    http: &'s reqwest::Client,
    limits: &'s Limits,
    action: &'static str,
    what: String,
}

/// A client of such requests.
pub(super) fn http(limits: &Limits) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder().connect_timeout(limits.connect).read_timeout(limits.silence);
    // What is signed goes where it was signed for.
    let client = builder.timeout(limits.request).redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|e| Error::new(Kind::Denied, format!("cannot make a client of HTTP: {e}")))
}

impl<'s> Signed<'s> {
    pub(super) fn new(s3: &'s AmazonS3, store: &'s Inner, action: &'static str, what: impl std::fmt::Display) -> Self {
        Self { s3, http: &store.http, limits: &store.limits, action, what: what.to_string() }
    }

    /// Completes an upload if nothing has its name.
    pub(super) async fn complete(&self, key: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<(), Error> {
        let part = |(n, part): (usize, &PartId)| {
            let tag = part.content_id.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", n + 1)
        };
        let parts: String = parts.iter().enumerate().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let condition = HeaderMap::from_iter([(reqwest::header::IF_NONE_MATCH, HeaderValue::from_static("*"))]);
        let query = [("uploadId".to_string(), id.clone())];
        let done = self.ask(Method::POST, key, &query, HeaderMap::new(), condition, body).await;
        done.map(drop).map_err(|e| match e.kind {
            // An earlier try may have completed it.
            Kind::NotFound => Error::new(Kind::Retryable, e.text),
            _ => exists(e, self.action, &self.what),
        })
    }

    /// Copies an object of this size and version to where there is none.
    pub(super) async fn copy(&self, from: &Path, to: &Path, meta: &ObjectMeta) -> Result<(), Error> {
        // Before parts are copied for nothing.
        if object_store::ObjectStoreExt::head(self.s3, to).await.is_ok() {
            return Err(Error::new(Kind::AlreadyExists, format!("cannot copy {from} to {to}: it exists already")));
        }
        let id = self.s3.create_multipart(to).await.map_err(|e| failure::of(self.action, &self.what, &e))?;
        let done = match self.copy_parts(from, to, &id, meta).await {
            Ok(parts) => self.complete(to, &id, parts).await,
            Err(e) => Err(e),
        };
        if done.is_err() {
            // Whoever cannot do it now leaves it to the bucket's rule.
            let _ = self.s3.abort_multipart(to, &id).await;
        }
        done
    }

    async fn copy_parts(
        &self,
        from: &Path,
        to: &Path,
        id: &MultipartId,
        meta: &ObjectMeta,
    ) -> Result<Vec<PartId>, Error> {
        let source = format!("{}/{}", self.bucket()?, escaped(from.as_ref()));
        let mut parts = Vec::new();
        let mut at = 0;
        while at < meta.size {
            let end = meta.size.min(at + self.limits.copy_part);
            let mut headers = vec![
                ("x-amz-copy-source", source.clone()),
                ("x-amz-copy-source-range", format!("bytes={at}-{}", end - 1)),
            ];
            headers.extend(meta.e_tag.clone().map(|tag| ("x-amz-copy-source-if-match", tag)));
            let number = (parts.len() + 1).to_string();
            let query = [("partNumber".to_string(), number), ("uploadId".to_string(), id.clone())];
            let headers = self.headers(headers)?;
            let answer = self.ask(Method::PUT, to, &query, headers, HeaderMap::new(), String::new()).await;
            let answer = answer.map_err(|e| match e.kind {
                Kind::Changed => Error::new(Kind::Retryable, e.text),
                _ => e,
            })?;
            let tag = element(&answer, "ETag").ok_or_else(|| {
                Error::new(Kind::Retryable, format!("cannot {} {}: the answer has no tag", self.action, self.what))
            })?;
            parts.push(PartId { content_id: tag.replace("&quot;", "\"").replace("&#34;", "\"") });
            at = end;
        }
        Ok(parts)
    }

    /// The bucket's name, which the library keeps to itself but in its display: `AmazonS3(NAME)`.
    fn bucket(&self) -> Result<String, Error> {
        let shown = self.s3.to_string();
        let name = shown.strip_prefix("AmazonS3(").and_then(|rest| rest.strip_suffix(')'));
        name.map(String::from).ok_or_else(|| Error::new(Kind::Denied, format!("'{shown}' names no bucket")))
    }

    fn headers(&self, all: Vec<(&'static str, String)>) -> Result<HeaderMap, Error> {
        let bad = |_| Error::new(Kind::Denied, format!("cannot {} {}: not a header's value", self.action, self.what));
        all.into_iter()
            .map(|(name, value)| {
                Ok((reqwest::header::HeaderName::from_static(name), HeaderValue::from_str(&value).map_err(bad)?))
            })
            .collect()
    }

    /// Makes a request until it is answered for good, and gives the answer's body.
    async fn ask(
        &self,
        method: Method,
        key: &Path,
        query: &[(String, String)],
        signed: HeaderMap,
        unsigned: HeaderMap,
        body: String,
    ) -> Result<String, Error> {
        let begun = Instant::now();
        let (mut pause, longest) = self.limits.pauses;
        for tried in 1.. {
            let done = self.ask_once(&method, key, query, &signed, &unsigned, &body).await;
            match done {
                Err(e)
                    if e.kind == Kind::Retryable
                        && tried < self.limits.tries
                        && begun.elapsed() < self.limits.within => {}
                done => return done,
            }
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
        Err(Error::new(Kind::Retryable, format!("cannot {} {}", self.action, self.what)))
    }

    async fn ask_once(
        &self,
        method: &Method,
        key: &Path,
        query: &[(String, String)],
        signed: &HeaderMap,
        unsigned: &HeaderMap,
        body: &str,
    ) -> Result<String, Error> {
        let mut options = SignedUrlOptions::new();
        (options.extra_query, options.signed_headers) = (query.to_vec(), signed.clone());
        let url = self.s3.signed_url_opts(method.clone(), key, SIGNED_FOR, &options).await;
        let url = url.map_err(|e| failure::of(self.action, &self.what, &e))?;
        let request = self.http.request(method.clone(), url).headers(signed.clone()).headers(unsigned.clone());
        let answered = async {
            let answer = request.body(body.to_string()).send().await?;
            let status = answer.status().as_u16();
            answer.text().await.map(|text| (status, text))
        };
        let (status, text) = answered.await.map_err(|e| {
            // The address holds the signature.
            let e = e.without_url();
            Error::new(Kind::Retryable, format!("cannot {} {}: {e}", self.action, self.what))
        })?;
        // S3 may say so when it has begun to answer well.
        let failed_late = status == 200 && text.contains("<Error>");
        match status {
            _ if failed_late => Err(failure::of_status(self.action, &self.what, 500, &text)),
            200..=299 => Ok(text),
            _ => Err(failure::of_status(self.action, &self.what, status, &text)),
        }
    }
}

/// Waits until a copy within Azure is done; one that came to nothing is deleted.
pub(super) async fn azure_copied(client: &MicrosoftAzure, store: &Inner, key: &Path) -> Result<(), Error> {
    let begun = Instant::now();
    let (mut pause, longest) = LOOK;
    let mut failures = 0;
    loop {
        let state = match copy_state(client, &store.http, key).await {
            // It has begun: to copy again would find that it exists.
            Err(e) if e.kind == Kind::Retryable && failures < store.limits.tries => {
                failures += 1;
                sleep(pause).await;
                continue;
            }
            state => state?,
        };
        match state.as_deref() {
            Some("pending") if begun.elapsed() < COPIED_WITHIN => sleep(pause).await,
            Some("pending") => {
                return Err(Error::new(Kind::Retryable, format!("cannot copy to {key}: it takes too long")));
            }
            Some("failed" | "aborted") => {
                let _ = object_store::ObjectStoreExt::delete(client, key).await;
                return Err(Error::new(Kind::Retryable, format!("cannot copy to {key}: the store gave up")));
            }
            _ => return Ok(()),
        }
        pause = longest.min(pause * 2);
    }
}

async fn copy_state(client: &MicrosoftAzure, http: &reqwest::Client, key: &Path) -> Result<Option<String>, Error> {
    // Who may read may look up.
    let url = match client.signed_url(Method::GET, key, SIGNED_FOR).await {
        // Credentials that cannot sign: copies within one account are nearly always done at once.
        Err(_) => return Ok(None),
        Ok(url) => url,
    };
    let answer = http.head(url).send().await.map_err(|e| {
        Error::new(Kind::Retryable, format!("cannot look how far the copy to {key} is: {}", e.without_url()))
    })?;
    match answer.status().as_u16() {
        200..=299 => {}
        status => return Err(failure::of_status("look up", key, status, "")),
    }
    Ok(answer.headers().get("x-ms-copy-status").and_then(|state| state.to_str().ok()).map(String::from))
}

/// A key as it goes into a header.
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    key.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What is between the tags of an element.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    Some(after.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_headers_and_tags_in_answers() {
        assert_eq!(escaped("a/b c/é~.-_"), "a/b%20c/%C3%A9~.-_");
        assert_eq!(element("<R><ETag>&quot;x&quot;</ETag></R>", "ETag"), Some("&quot;x&quot;"));
        assert_eq!(element("<R></R>", "ETag"), None);
    }
}
