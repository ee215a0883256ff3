//! A server that speaks as much of Google Cloud Storage's XML API as the store uses: generations, preconditions, copies,
//! uploads in parts, listings by pages. The emulators of the registries speak the JSON API only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::http::{Answer, Request, listen, serve};

/// The buckets that there are: one for tests that share it, and one for a test alone.
pub(super) const BUCKETS: [&str; 2] = ["bucket", "alone"];
/// The smallest part of an upload but the last.
const SMALLEST: usize = 5 << 20;

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    generation: u64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    generations: u64,
}

/// Starts one.
pub(super) fn start() -> SocketAddr {
    let state: Arc<Mutex<State>> = Arc::default();
    listen(move |stream| serve(stream, |request| state.lock().unwrap().answer(request)))
}

impl Object {
    fn tag(&self) -> String {
        // As Google's, it says what the content is and not who wrote it.
        format!("\"{:08x}{:x}\"", crc32c::crc32c(&self.bytes), self.bytes.len())
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("etag", self.tag()),
            ("x-goog-generation", self.generation.to_string()),
            ("last-modified", "Wed, 25 Nov 2026 12:00:00 GMT".into()),
        ]
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn xml(body: String) -> Answer {
    Answer { status: 200, headers: vec![("content-type", "application/xml".into())], body: body.into(), cut: None }
}

fn missing() -> Answer {
    Answer { status: 404, body: b"<Error><Code>NoSuchKey</Code></Error>".into(), ..Answer::default() }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let path = request.path();
        // Keys have their bucket before them.
        let key = &path[1..];
        let bucket = key.split('/').next().unwrap();
        if !BUCKETS.contains(&bucket) {
            return missing();
        }
        let upload = request.query("uploadId");
        match (request.method.as_str(), key, upload) {
            ("GET", key, _) if key == bucket => self.list(bucket, request),
            ("GET" | "HEAD", key, _) => self.get(key, request),
            ("PUT", _, Some(id)) => self.part(&id, request),
            ("POST", key, Some(id)) => self.complete(key, &id),
            ("POST", _, None) if request.query("uploads").is_some() => {
                let id = format!("upload-{}", self.uploads.len() + 1);
                self.uploads.insert(id.clone(), BTreeMap::new());
                xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
            }
            ("DELETE", _, Some(id)) => {
                self.uploads.remove(&id);
                Answer::of(204)
            }
            ("DELETE", key, None) => match self.objects.remove(key) {
                Some(_) => Answer::of(204),
                None => missing(),
            },
            ("PUT", key, None) => self.put(key, request),
            _ => Answer::of(400),
        }
    }

    fn get(&self, key: &str, request: &Request) -> Answer {
        let Some(object) = self.objects.get(key) else { return missing() };
        if request.header("if-match").is_some_and(|tag| tag != object.tag()) {
            return Answer::of(412);
        }
        let (len, mut headers) = (object.bytes.len(), object.headers());
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((from, to)) = range else {
            return Answer { status: 200, headers, body: object.bytes.clone(), cut: None };
        };
        let from: usize = from.parse().unwrap();
        let end = to.parse::<usize>().map_or(len, |to| len.min(to + 1));
        if from >= len {
            return Answer::of(416);
        }
        headers.push(("content-range", format!("bytes {from}-{}/{len}", end - 1)));
        Answer { status: 206, headers, body: object.bytes[from..end].to_vec(), cut: None }
    }

    fn insert(&mut self, key: &str, bytes: Vec<u8>) -> Vec<(&'static str, String)> {
        self.generations += 1;
        let object = Object { bytes, generation: self.generations };
        let headers = object.headers();
        self.objects.insert(key.into(), object);
        headers
    }

    fn put(&mut self, key: &str, request: &Request) -> Answer {
        let source = request.header("x-goog-copy-source").map(|source| {
            let source = Request { target: format!("/{}", source.trim_start_matches('/')), ..request.clone() }.path();
            self.objects.get(&source[1..]).cloned()
        });
        let bytes = match source {
            Some(None) => return missing(),
            Some(Some(object)) => object.bytes,
            None => request.body.clone(),
        };
        let now = self.objects.get(key).map_or(0, |object| object.generation);
        if request.header("x-goog-if-generation-match").is_some_and(|want| want != now.to_string()) {
            return Answer::of(412);
        }
        let headers = self.insert(key, bytes);
        Answer { status: 200, headers, ..Answer::default() }
    }

    fn part(&mut self, id: &str, request: &Request) -> Answer {
        let number: usize = request.query("partNumber").unwrap().parse().unwrap();
        let Some(parts) = self.uploads.get_mut(id) else { return missing() };
        parts.insert(number, request.body.clone());
        Answer { status: 200, headers: vec![("etag", format!("\"{number}\""))], ..Answer::default() }
    }

    fn complete(&mut self, key: &str, id: &str) -> Answer {
        let Some(parts) = self.uploads.remove(id) else { return missing() };
        if parts.values().rev().skip(1).any(|part| part.len() < SMALLEST) {
            return Answer::of(400);
        }
        self.insert(key, parts.into_values().flatten().collect());
        xml("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>".into())
    }

    fn list(&self, bucket: &str, request: &Request) -> Answer {
        let asked = |name: &str| request.query(name).unwrap_or_default();
        let (prefix, most) = (format!("{bucket}/{}", asked("prefix")), asked("max-keys").parse().unwrap_or(1000));
        let after = format!("{bucket}/{}", asked("start-after").max(asked("continuation-token")));
        let bare = |key: &str| escaped(&key[bucket.len() + 1..]);
        let mut found = self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = found.by_ref().take(most).collect();
        let item = |(key, object): &(&String, &Object)| {
            format!(
                "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag>\
                 <LastModified>2026-11-25T12:00:00.000Z</LastModified></Contents>",
                bare(key),
                object.bytes.len(),
                escaped(&object.tag())
            )
        };
        let next = match (found.next(), page.last()) {
            (Some(_), Some((last, _))) => {
                format!("<NextContinuationToken>{}</NextContinuationToken>", bare(last))
            }
            _ => String::new(),
        };
        let items: String = page.iter().map(item).collect();
        xml(format!("<ListBucketResult>{next}{items}</ListBucketResult>"))
    }
}
