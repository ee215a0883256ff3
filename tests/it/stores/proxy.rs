//! A proxy before a store that breaks requests on purpose, as a test plans it. The store gets one request at a time.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{Answer, Request, listen};

/// How long an answer stalls: longer than any client of a test waits for the next byte.
const STALL: Duration = Duration::from_secs(20);

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This is answered, and the store does not hear of it.
    Status(u16),
    /// The connection is closed, and the store does not hear of it.
    Lost,
    /// The store does it, and the connection is closed without an answer.
    Unheard,
    /// The connection is closed within the answer's body.
    Cut,
    /// The answer stops within its body.
    Stalls,
}

/// What the proxy saw: of each request method, target and what became of it.
pub(super) type Seen = Arc<Mutex<Vec<(Request, Option<Fault>)>>>;

/// A proxy before `to`. `plan` is given each request and how many like it came before.
pub(super) fn start(
    to: SocketAddr,
    plan: impl Fn(&Request, usize) -> Option<Fault> + Send + Sync + 'static,
) -> (SocketAddr, Seen) {
    let seen: Seen = Arc::default();
    let (noted, one) = (seen.clone(), Mutex::new(()));
    let address = listen(move |stream| {
        let Some(request) = Request::read(&mut BufReader::new(stream.try_clone()?))? else { return Ok(()) };
        let fault = {
            let mut noted = noted.lock().unwrap();
            let same =
                |(before, _): &&(Request, _)| before.method == request.method && meant(before) == meant(&request);
            let fault = plan(&request, noted.iter().filter(same).count());
            noted.push((Request { body: Vec::new(), ..request.clone() }, fault));
            fault
        };
        pass_on(&request, fault, stream, to, &one)
    });
    (address, seen)
}

/// What a request is about, whoever signed it when.
fn meant(request: &Request) -> String {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let signature =
        |pair: &&str| !["X-Amz-", "s", "rscc"].iter().any(|begin| pair.starts_with(begin)) || pair.starts_with("start");
    let kept: Vec<&str> = query.split('&').filter(signature).collect();
    format!("{path}?{}", kept.join("&"))
}

fn pass_on(
    request: &Request,
    fault: Option<Fault>,
    mut back: TcpStream,
    to: SocketAddr,
    one: &Mutex<()>,
) -> io::Result<()> {
    match fault {
        Some(Fault::Status(status)) => {
            let answer = Answer { headers: vec![("connection", "close".into())], ..Answer::of(status) };
            return answer.write(&mut back, false);
        }
        Some(Fault::Lost) => return Ok(()),
        _ => {}
    }
    let mut answer = Vec::new();
    {
        // One at a time: a cloud decides on a condition and writes in one step, emulators may not.
        let _one = one.lock();
        request.send(to)?.read_to_end(&mut answer)?;
    }
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    match fault {
        Some(Fault::Unheard) => Ok(()),
        Some(Fault::Cut | Fault::Stalls) => {
            // Where there is no body, within the head.
            let part = if body < answer.len() { body + (answer.len() - body) / 2 } else { body / 2 };
            back.write_all(&answer[..part])?;
            if fault == Some(Fault::Stalls) {
                std::thread::sleep(STALL);
            }
            Ok(())
        }
        _ => back.write_all(&answer),
    }
}
