//! What is told of connections that were closed: a line at the first, then one each ten seconds for as long as there are
//! more, however many there are.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::End;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Who hears it.
#[derive(Clone)]
pub(super) struct Tell(pub(super) Arc<dyn Fn(String) + Send + Sync>);

impl Tell {
    pub(super) fn nobody() -> Self {
        Self(Arc::new(|_| {}))
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// What was not told yet.
#[derive(Debug)]
pub(super) struct Report {
    at: SocketAddr,
    most: usize,
    beyond: u64,
    silent: u64,
    malformed: u64,
    next: Instant,
}

impl Report {
    /// Of a listener at this address, with so many connections at most.
    pub(super) fn new(at: SocketAddr, most: usize, now: Instant) -> Self {
        Self { at, most, beyond: 0, silent: 0, malformed: 0, next: now }
    }

    /// One more was there than may be.
    pub(super) fn beyond(&mut self) {
        self.beyond += 1;
    }

    /// One has ended.
    pub(super) fn ended(&mut self, how: End) {
        match how {
            End::Fine => {}
            End::Silent => self.silent += 1,
            End::Malformed => self.malformed += 1,
        }
    }

    /// When there is a line to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.beyond + self.silent + self.malformed > 0).then_some(self.next)
    }

    /// The line; what comes later is of another one.
    pub(super) fn line(&mut self, now: Instant) -> String {
        self.next = now + EVERY;
        let most = self.most;
        let beyond = (self.beyond, format!("beyond the {most} that may be open"));
        let silent = (self.silent, "that sent no whole request in time".to_string());
        let malformed = (self.malformed, "that broke the protocol".to_string());
        let parts = [beyond, silent, malformed].into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        (self.beyond, self.silent, self.malformed) = (0, 0, 0);
        format!("closed connections at {}: {}; see who makes them", self.at, parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_one_line() {
        let begun = Instant::now();
        let mut report = Report::new(([127, 0, 0, 1], 7070).into(), 2, begun);
        report.ended(End::Fine);
        assert_eq!(report.due(), None);
        report.ended(End::Silent);
        assert_eq!(report.due(), Some(begun));
        let line = "closed connections at 127.0.0.1:7070: 1 that sent no whole request in time; see who makes them";
        assert_eq!(report.line(begun), line);
        (0..1000).for_each(|_| report.beyond());
        report.ended(End::Malformed);
        assert_eq!(report.due(), Some(begun + EVERY));
        let line = report.line(begun + EVERY);
        assert!(line.contains(": 1000 beyond the 2 that may be open, 1 that broke the protocol;"), "{line}");
        assert_eq!(report.due(), None);
    }
}
