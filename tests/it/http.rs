//! As much of HTTP/1.1 as a small server and a proxy of tests need: bodies whose length is told, one thread a connection.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// What somebody asks.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as they were sent.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The decoded path.
    pub(crate) fn path(&self) -> String {
        decoded(self.target.split('?').next().unwrap())
    }

    /// The decoded value of a parameter; empty where it has none.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| decoded(&value.replace('+', " ")))
    }

    /// Reads the next one of a connection.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(String::from);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self { method, target, headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        assert_eq!(request.header("transfer-encoding"), None, "bodies have a length");
        request.body = vec![0; length];
        stream.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    /// Sends it on, as the only one of a connection.
    pub(crate) fn send(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(to)?;
        let kept = self.headers.iter().filter(|(name, _)| name != "connection");
        let headers: String = kept.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "{} {} HTTP/1.1\r\n{headers}connection: close\r\n\r\n", self.method, self.target)?;
        stream.write_all(&self.body)?;
        Ok(stream)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let (hex, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()
            }
            _ => *first,
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// Answers connections at an address of its own with `each`, for as long as the test runs.
pub(crate) fn listen(each: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let each = each.clone();
            // Who asks may go at any time.
            thread::spawn(move || each(stream));
        }
    });
    address
}

/// Answers all requests of a connection.
pub(crate) fn serve(stream: TcpStream, answer: impl Fn(&Request) -> Answer) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    while let Some(request) = Request::read(&mut requests)? {
        let mut answer = answer(&request);
        let last = answer.cut.is_some() || request.header("connection") == Some("close");
        answer.headers.extend(last.then(|| ("connection", "close".to_string())));
        answer.write(&mut out, request.method == "HEAD")?;
        if last {
            break;
        }
    }
    Ok(())
}

/// What is answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    pub(crate) cut: Option<usize>,
}

impl Answer {
    pub(crate) fn of(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn write(&self, out: &mut impl Write, head: bool) -> io::Result<()> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        write!(out, "HTTP/1.1 {} -\r\n{headers}content-length: {length}\r\n\r\n", self.status)?;
        let sent = self.cut.unwrap_or(length);
        out.write_all(if head { &[] } else { &self.body[..sent] })
    }
}
