//! Bodies that are too large, that never end, or that would be larger than they look.

use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use hyper::body::Body as _;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use super::{Served, code, rest};
use crate::program::gzip;

pub(super) async fn channel(served: &Served) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{}", served.at)).unwrap().connect().await.unwrap()
}

/// Sends these bytes as the body of a call, whatever they are; gives the call's status, or none if there is none.
pub(super) async fn call(mut channel: Channel, path: &str, headers: &[(&str, &str)], body: Bytes) -> Option<i32> {
    let mut request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::new(Body::from(body))).unwrap();
    let answer = channel.ready().await.ok()?.call(request).await.ok()?;
    let (head, mut body) = answer.into_parts();
    let status =
        |headers: &HeaderMap| headers.get("grpc-status").map(|status| status.to_str().unwrap().parse().unwrap());
    if let Some(status) = status(&head.headers) {
        return Some(status);
    }
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Some(trailers) = frame.ok()?.trailers_ref() {
            return status(trailers);
        }
    }
    None
}

/// A message with this prefix.
fn message(compressed: bool, length: u32, content: &[u8]) -> Bytes {
    [&[u8::from(compressed)][..], &length.to_be_bytes(), content].concat().into()
}

const SUBMIT: &str = "/gristmill.v1.Jobs/Submit";
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_no_larger_than_what_is_taken() {
    let mut served = Served::new("");
    let used = served.status("VmHWM");
    let channel = channel(&served).await;
    // What is declared is not what is there; nothing is made ready for it.
    let declared: Vec<_> = [u32::MAX, 1 << 31, (4 << 20) + 1].into_iter().cycle().take(96).collect();
    let asked = declared.into_iter().map(|length| {
        let channel = channel.clone();
        tokio::spawn(async move { call(channel, SUBMIT, &[], message(false, length, b"little")).await })
    });
    for answer in asked.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), Some(OUT_OF_RANGE));
    }
    let whole = message(false, 5 << 20, &vec![0; 5 << 20]);
    assert_eq!(call(channel.clone(), SUBMIT, &[], whole).await, Some(OUT_OF_RANGE));
    assert_eq!(
        call(channel.clone(), "/gristmill.v1.Data/Put", &[], message(false, u32::MAX, b"")).await,
        Some(OUT_OF_RANGE)
    );
    let grown = served.status("VmHWM") - used;
    assert!(grown < 100 << 10, "it grew by {grown} KiB");

    let json = "Content-Type: application/json\r\n";
    let body = |bytes: usize| format!("{{\"key\":\"{}\"}}", "k".repeat(bytes - 10));
    assert_eq!(served.ask("POST", "/v1/jobs", json, body((1 << 20) + 1).as_bytes()).0, 429);
    assert_eq!(served.ask("POST", "/v1/jobs", json, body(1 << 20).as_bytes()).0, 400);
    let deep = format!("{{\"spec\":{}", "[".repeat(500_000));
    assert_eq!(served.ask("POST", "/v1/jobs", json, deep.as_bytes()).0, 400);
    // Of a body that says it is larger nothing is waited for, and of one in pieces no more is read.
    let endless =
        format!("POST /v1/jobs HTTP/1.1\r\nHost: {}\r\n{json}Content-Length: 1000000000000\r\n\r\n", served.at);
    let endless = [endless.as_bytes(), &vec![b' '; 2 << 20]].concat();
    assert_eq!(code(&served.said_to(&endless)), 429);
    served.is_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_decompressed() {
    let mut served = Served::new("");
    let channel = channel(&served).await;
    let bomb = gzip(&vec![0; 64 << 20]);
    let used = served.status("VmHWM");
    let sent = message(true, bomb.len() as u32, &bomb);
    for how in ["gzip", "deflate", "zstd", "identity, gzip", "x"] {
        assert_eq!(
            call(channel.clone(), SUBMIT, &[("grpc-encoding", how)], sent.clone()).await,
            Some(UNIMPLEMENTED),
            "{how}"
        );
    }
    // Of which kind is not even said: a breach of the protocol.
    assert_eq!(call(channel.clone(), SUBMIT, &[], sent.clone()).await, Some(INTERNAL));
    for how in ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"] {
        let headers = format!("Content-Encoding: {how}\r\n");
        let (code, said) = served.ask("PUT", "/v1/data/in/a.gz", &headers, &bomb);
        assert!(code == 400 && said.contains("Content-Encoding"), "{how}: {code}: {said}");
        let headers = format!("Content-Type: application/json\r\nContent-Encoding: {how}\r\n");
        assert_eq!(served.ask("POST", "/v1/jobs", &headers, &bomb).0, 400, "{how}");
    }
    assert_eq!(served.ask("GET", "/v1/data/in/a.gz", "", b"").0, 404);
    // A file that is compressed is a file.
    assert_eq!(served.ask("PUT", "/v1/data/in/a.gz", "Content-Encoding: identity\r\n", &bomb).0, 200);
    assert!(served.status("VmHWM") - used < 32 << 10, "something was decompressed");
    served.is_well();
}

#[test]
fn bodies_that_stop_are_given_up() {
    let mut served = Served::new("body=700,silence=700,head=60000");
    let json = "Content-Type: application/json\r\n";
    for (verb, path, headers, codes) in [
        ("POST", "/v1/jobs", json, [408, 408]),
        ("PUT", "/v1/data/in/a", "", [504, 408]),
        ("PUT", "/v1/app-files/x", "", [504, 400]),
    ] {
        for length in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            let mut stream = served.connect();
            let begun = Instant::now();
            write!(stream, "{verb} {path} HTTP/1.1\r\nHost: {}\r\n{headers}{length}\r\n\r\n4\r\n{{  ", served.at)
                .unwrap();
            let said = rest(stream);
            assert!(codes.contains(&code(&said)), "{verb} {path}, {length}: {said}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{verb} {path}, {length}: {:?}", begun.elapsed());
        }
    }
    // One that drips: the whole of it has its time, not each byte.
    let mut stream = served.connect();
    write!(stream, "POST /v1/jobs HTTP/1.1\r\nHost: {}\r\n{json}Content-Length: 1000\r\n\r\n", served.at).unwrap();
    let mut drips = stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        (0..1000).all(|_| {
            std::thread::sleep(Duration::from_millis(50));
            drips.write_all(b" ").is_ok()
        })
    });
    assert_eq!(code(&rest(stream)), 408);
    assert!(!dripping.join().unwrap(), "all of it was taken");
    assert_eq!(served.ask("GET", "/v1/data/in/a", "", b"").0, 404);
    served.is_well();
}
