//! A node's door: what connects to it and is no client, or no good one. Nothing of that ends it, fills it or gets past it.
//!
//! `connections` is about many and slow ones, `heads` about requests that two readers could read differently, `bodies` about
//! those that are too large, too slow or would have to be decompressed, `names` about ways out of the store, `messages`
//! about bytes that are no messages. Here is the node, and as much of a client as each needs.

mod bodies;
mod connections;
mod heads;
mod messages;
mod names;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::program::{Folder, until};

/// Longest wait for an answer or the end of a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with a master and a worker in one process, over a folder.
struct Served {
    process: Process,
    at: String,
    folder: Folder,
}

impl Served {
    /// A node with these bounds, as in `head=300,idle=500`: milliseconds.
    fn new(bounds: &str) -> Self {
        Self::over(Folder::new(), bounds)
    }

    fn over(folder: Folder, bounds: &str) -> Self {
        let mut command = folder.gristmill("serve --no-login --data data --store store --listen 127.0.0.1:0 --slots 1");
        if !bounds.is_empty() {
            command.env("GRISTMILL_BOUNDS", bounds);
        }
        let mut process = Process::of(command, folder.path().join("serve.log"));
        let at = process.ready();
        Self { process, at, folder }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes, and reads until the other end closes the connection.
    fn said_to(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be closed before all of it is taken.
        let _ = stream.write_all(bytes);
        rest(stream)
    }

    /// One request over a connection of its own; gives the answer's code and body.
    fn ask(&self, verb: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let (at, length) = (&self.at, body.len());
        let head = format!("{verb} {path} HTTP/1.0\r\nHost: {at}\r\nContent-Length: {length}\r\n{headers}\r\n");
        let said = self.said_to(&[head.as_bytes(), body].concat());
        let (head, body) =
            said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{verb} {path}: no answer but {said:?}"));
        (code(head), body.to_string())
    }

    /// Fails unless it answers as ever, and none of its tasks has panicked.
    fn is_well(&mut self) {
        assert!(self.process.is_up(), "it has ended");
        assert!(!self.process.has_said("panicked"), "{}", self.process.said());
        let (folder, at) = (&self.folder, &self.at);
        until("an answer", || folder.run(&format!("jobs --at {at}")).code == Some(0));
    }

    /// A line of what the system says of the process, in its own unit.
    fn status(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
    }

    /// Files that it has open, connections among them.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid().as_raw_nonzero())).unwrap().count()
    }
}

/// What is said until the end of a connection, however that ends.
fn rest(mut stream: TcpStream) -> String {
    let (mut said, begun) = (Vec::new(), Instant::now());
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&bytes[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(e) => panic!("the connection stays open ({e}) after {:?}", String::from_utf8_lossy(&said)),
        }
        assert!(begun.elapsed() < PATIENCE, "the connection stays open");
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The code of an answer.
fn code(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer but {head:?}"))
}
