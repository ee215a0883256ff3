//! Heads of requests that two readers could take for different things: of a proxy and a node behind it, one of them would
//! see a request where the other sees a body.

use std::io::{Read as _, Write as _};

use super::{Served, code};

/// What must come of it, with a second, sound request right behind the first.
enum Comes {
    /// One answer of this code, and the connection's end.
    Refusal(&'static [u16]),
    /// One answer, whatever it is, and the connection's end: what is behind it is not a request.
    One,
}
use Comes::{One, Refusal};

const BAD: Comes = Refusal(&[400]);
/// That it is too long.
const LONG: Comes = Refusal(&[400, 414, 431]);

/// A request with a body, with these headers; `@` stands for where the node is.
fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/jobs HTTP/1.1\r\nHost: @\r\nContent-Type: application/json\r\n{headers}\r\n{body}").into()
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /v1/cluster HTTP/1.1\r\nHost: @\r\n{headers}\r\n").into()
}

fn cases() -> Vec<(&'static str, Vec<u8>, Comes)> {
    let many = (0..101).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    let endless = format!("GET /v1/cluster HTTP/1.1\r\nX: {}", "y".repeat(400_000));
    vec![
        ("both lengths", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), One),
        ("both, otherwise round", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), One),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{} "), BAD),
        ("a list of lengths", post("Content-Length: 2, 3\r\n", "{}"), BAD),
        ("a signed length", post("Content-Length: +2\r\n", "{}"), BAD),
        ("a hexadecimal length", post("Content-Length: 0x2\r\n", "{}"), BAD),
        ("a length beyond all", post("Content-Length: 99999999999999999999\r\n", "{}"), LONG),
        ("a coding that is not known", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), BAD),
        ("a coding in disguise", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), BAD),
        ("a coding of HTTP/1.0", b"POST /v1/jobs HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), BAD),
        ("a chunk that is none", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), One),
        ("a chunk beyond all", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}"), One),
        ("a folded line", get("X: y\r\n z\r\n"), BAD),
        ("a folded first line", get(" X: y\r\n"), BAD),
        ("a space before the colon", post("Content-Length : 2\r\n", "{}"), BAD),
        ("a space within a name", get("X Y: z\r\n"), BAD),
        ("a name without a colon", get("X\r\n"), BAD),
        ("no name", get(": x\r\n"), BAD),
        ("NUL in a value", get("X: y\0z\r\n"), BAD),
        ("a carriage return in a value", get("X: y\rZ: z\r\n"), BAD),
        ("NUL in a name", get("X\0: y\r\n"), BAD),
        ("two hosts", get("Host: other\r\n"), BAD),
        ("no host", b"GET /v1/cluster HTTP/1.1\r\n\r\n".into(), BAD),
        ("another host by the address", b"GET http://other/v1/cluster HTTP/1.1\r\nHost: @\r\n\r\n".into(), BAD),
        ("a tunnel", b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n".into(), BAD),
        ("two who ask", get("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), BAD),
        ("two kinds of body", post("Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}"), BAD),
        ("a token beyond all", get(&format!("Authorization: Bearer {}\r\n", "y".repeat(8200))), BAD),
        (
            "gRPC over HTTP/1",
            b"POST /gristmill.v1.Jobs/List HTTP/1.1\r\nHost: @\r\nContent-Type: application/grpc\r\n\r\n".into(),
            BAD,
        ),
        ("a version that is none", b"GET /v1/cluster HTTP/9.9\r\nHost: @\r\n\r\n".into(), BAD),
        ("the old version", b"GET /v1/cluster\r\n\r\n".into(), BAD),
        ("too many headers", get(&many), LONG),
        ("a long head", get(&long), LONG),
        ("a head without an end", endless.into(), LONG),
        ("a long address", format!("GET /v1/{} HTTP/1.1\r\nHost: @\r\n\r\n", "y".repeat(70_000)).into(), LONG),
    ]
}

#[test]
fn what_two_readers_could_read_differently_is_refused_and_what_follows_is_no_request() {
    let mut served = Served::new("head=3000");
    let sound = String::from_utf8(get("")).unwrap().replace('@', &served.at);
    let with_host = |request: &[u8]| String::from_utf8(request.to_vec()).unwrap().replace('@', &served.at);
    // Two sound ones are two.
    let last = sound.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let said = served.said_to(format!("{sound}{last}").as_bytes());
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    for (what, request, comes) in cases() {
        let said = served.said_to(format!("{}{sound}", with_host(&request)).as_bytes());
        let answers = said.lines().filter(|line| line.starts_with("HTTP/1.")).count();
        match comes {
            Refusal(codes) => assert!(answers == 1 && codes.contains(&code(&said)), "{what}: {said}"),
            One => assert!(answers <= 1 && !said.contains("HTTP/1.1 200"), "{what}: {said}"),
        }
    }
    served.is_well();
}

/// A head of HTTP/2 with headers as they are, in no table and not compressed.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in headers {
        block.push(0);
        for text in [text.0, text.1] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
}

/// What comes of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// An answer, by the first byte of its head: `:status` as the static table has it.
    Answer(u8),
    Reset,
    /// The end of the connection.
    End,
}

/// Asks over a connection of its own, with further frames behind the head.
fn ask(served: &Served, headers: &[(&str, &str)], ends: bool, more: &[u8]) -> Came {
    let mut stream = served.connect();
    let head = frame(1, if ends { 5 } else { 4 }, 1, &block(headers));
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], &head, more].concat();
    let _ = stream.write_all(&begin);
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Came::End;
        }
        let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut content).is_err() {
            return Came::End;
        }
        match (head[3], head[8]) {
            (1, 1) => return Came::Answer(content[0]),
            (3, 1) => return Came::Reset,
            (7, _) => return Came::End,
            _ => {}
        }
    }
}

#[test]
fn heads_of_the_second_version_are_as_it_wants_them() {
    let mut served = Served::new("");
    let at = served.at.clone();
    let sound = [(":method", "GET"), (":scheme", "http"), (":authority", at.as_str()), (":path", "/v1/cluster")];
    let with = |more: &[(&'static str, &'static str)]| [&sound[..], more].concat();
    let good = Came::Answer(0x88);
    assert_eq!(ask(&served, &sound, true, &[]), good);
    let cases = [
        ("no path", sound[..3].to_vec()),
        ("no method", sound[1..].to_vec()),
        ("no scheme", [&sound[..1], &sound[2..]].concat()),
        ("an empty path", [&sound[..3], &[(":path", "")]].concat()),
        ("two methods", [&[(":method", "GET")], &sound[..]].concat()),
        ("two paths", with(&[(":path", "/v1/jobs")])),
        ("one that is none", with(&[(":user", "x")])),
        ("one of an answer", with(&[(":status", "200")])),
        ("one behind the others", [&[("x", "y")], &sound[..]].concat()),
        ("capitals", with(&[("X-Y", "z")])),
        ("a space in a name", with(&[("x y", "z")])),
        ("a colon in a name", with(&[("x:y", "z")])),
        ("a line feed in a value", with(&[("x", "y\nz: a")])),
        ("a carriage return in a value", with(&[("x", "y\r\nz: a")])),
        ("NUL in a value", with(&[("x", "y\0z")])),
        ("what is the connection's", with(&[("connection", "close")])),
        ("a coding", with(&[("transfer-encoding", "chunked")])),
        ("a length without a body", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("another host", with(&[("host", "other")])),
        ("two who ask", with(&[("authorization", "a"), ("authorization", "b")])),
    ];
    for (what, headers) in cases {
        let came = ask(&served, &headers, true, &[]);
        // 400 is the one refusal of the static table.
        assert!([Came::Answer(0x8c), Came::Reset, Came::End].contains(&came), "{what}: {came:?}");
    }
    let put: Vec<_> =
        [&[(":method", "PUT")], &sound[1..3], &[(":path", "/v1/data/x"), ("content-length", "3")]].concat();
    let longer = ask(&served, &put, false, &frame(0, 1, 1, b"longer"));
    assert!([Came::Reset, Came::End].contains(&longer), "{longer:?}");
    assert_eq!(served.ask("GET", "/v1/data/x", "", b"").0, 404);
    // A frame beyond all, a head in pieces without an end, and streams that are given up as soon as they are asked for.
    let frames = frame(1, 4, 3, &block(&sound));
    let resets: Vec<u8> = (0..500)
        .flat_map(|n| [of(&frames, 2 * n + 3), of(&frame(3, 0, 3, &[0, 0, 0, 8]), 2 * n + 3)].concat())
        .collect();
    let pieces: Vec<u8> = [frame(1, 0, 3, &[])]
        .into_iter()
        .chain((0..20_000).map(|_| frame(9, 0, 3, &block(&[("x", "y")]))))
        .flatten()
        .collect();
    let beyond = [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 3][..], &[0; 40_000]].concat();
    for (what, frames) in [("a frame", beyond), ("a head", pieces), ("resets", resets)] {
        let mut stream = served.connect();
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], &frames].concat();
        let _ = stream.write_all(&begin);
        let said = super::rest(stream);
        assert!(said.len() < 100_000, "{what}: {} bytes", said.len());
    }
    served.is_well();
}

/// The same frame of another stream.
fn of(frame: &[u8], stream: u32) -> Vec<u8> {
    [&frame[..5], &stream.to_be_bytes(), &frame[9..]].concat()
}
