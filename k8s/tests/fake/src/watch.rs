//! Watches: a stream of events, one line of JSON each.
//!
//! API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists" and "410 Gone responses".

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::look::Look;
use crate::selector::Selector;
use crate::state::{Ask, Shared, State};
use crate::status::Failure;
use crate::store::Change;
use crate::write::seen;

/// How long a watch lasts if the client says nothing; upstream takes a random time between half an hour and an hour.
const LASTS: Duration = Duration::from_secs(1800);

/// Before a watch ends by itself, the last bookmark is sent so much earlier.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running watch.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    ask: Ask,
    look: Look,
    selector: Selector,
    /// All changes up to here have been looked at.
    cursor: u64,
    lines: VecDeque<Bytes>,
    told: watch::Receiver<u64>,
    drops: watch::Receiver<u64>,
    up: watch::Receiver<bool>,
    bookmark: Option<Instant>,
    farewell: Option<Instant>,
    every: Duration,
    ends: Instant,
    over: bool,
}

/// Why a watch that had nothing to say goes on.
enum Woken {
    Change,
    Break,
    End,
    Bookmark,
    Farewell,
}

/// What a watch event's line looks like.
fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}

/// Where a watch begins.
enum Start {
    /// With what is there, as synthetic ADDED events; true: a bookmark tells where these end.
    Now(bool),
    At(u64),
    Gone(Failure),
}

fn start(state: &State, ask: &Ask) -> Result<Start, Failure> {
    let version = ask.param("resourceVersion");
    let initial = ask.param("sendInitialEvents");
    if !initial.is_empty() && ask.param("resourceVersionMatch") != "NotOlderThan" {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Failure::new(422, "Invalid", message));
    }
    let number = match version {
        "" => 0,
        text => text
            .parse::<u64>()
            .map_err(|_| Failure::bad_request(format!("Invalid value: \"{text}\": resourceVersion")))?,
    };
    if ask.is("sendInitialEvents") {
        return Ok(Start::Now(true));
    }
    if number == 0 && initial.is_empty() {
        return Ok(Start::Now(false));
    }
    if number == 0 {
        return Ok(Start::At(state.store.version()));
    }
    if number < state.store.oldest() {
        let failure = Failure::expired(format!("too old resource version: {number} ({})", state.store.oldest()));
        return if state.faults.gone_by_status { Err(failure) } else { Ok(Start::Gone(failure)) };
    }
    Ok(Start::At(number))
}

impl Watch {
    pub(crate) fn new(shared: &Arc<Shared>, state: &State, ask: Ask, look: Look) -> Result<Watch, Failure> {
        let selector = Selector::of_query(&ask.query, &ask.kind)?;
        let start = start(state, &ask)?;
        let lasts = match ask.param("timeoutSeconds").parse() {
            Ok(0) | Err(_) => LASTS,
            Ok(seconds) => Duration::from_secs(seconds),
        };
        let now = Instant::now();
        let wanted = ask.is("allowWatchBookmarks");
        let mut told = state.store.listen();
        told.mark_unchanged();
        let mut watch = Watch {
            shared: shared.clone(),
            look,
            selector,
            cursor: state.store.version(),
            lines: VecDeque::new(),
            told,
            drops: shared.drops.subscribe(),
            up: shared.up.subscribe(),
            bookmark: wanted.then(|| now + state.faults.bookmarks),
            farewell: (wanted && lasts > FAREWELL).then(|| now + lasts - FAREWELL),
            every: state.faults.bookmarks,
            ends: now + lasts,
            over: false,
            ask,
        };
        match start {
            Start::At(version) => watch.cursor = version,
            Start::Gone(failure) => {
                watch.lines.push_back(line("ERROR", &failure.body()));
                watch.over = true;
            }
            Start::Now(marked) => watch.initial(state, marked && wanted),
        }
        Ok(watch)
    }

    fn initial(&mut self, state: &State, marked: bool) {
        let all = state.store.list(&self.ask.kind.storage, &self.ask.namespace);
        for object in all.filter(|object| self.selector.matches(object)) {
            let line = line("ADDED", &self.look.of(seen(&self.ask.kind, object)));
            self.lines.push_back(line);
        }
        if marked {
            // "Streaming lists": this annotation marks the end of the initial events.
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            self.push_bookmark(Some(annotations));
        }
    }

    fn push_bookmark(&mut self, annotations: Option<Value>) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let kind = &self.ask.kind;
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        self.lines.push_back(line("BOOKMARK", &self.look.of(object)));
    }

    /// What a change is for this watch: an object that comes to match is added, one that no longer does is deleted.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let key = &change.key;
        let namespace = &self.ask.namespace;
        if key.storage != self.ask.kind.storage || !(namespace.is_empty() || *namespace == key.namespace) {
            return None;
        }
        let before = change.was.as_ref().is_some_and(|was| self.selector.matches(was));
        let after = !change.deleted && self.selector.matches(&change.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(line(kind, &self.look.of(seen(&self.ask.kind, &change.object))))
    }

    fn catch_up(&mut self) {
        let shared = self.shared.clone();
        let state = shared.state();
        let lines: Vec<Bytes> = state.store.since(self.cursor).filter_map(|change| self.event(change)).collect();
        self.lines.extend(lines);
        self.cursor = self.cursor.max(state.store.version());
    }

    /// The next line; an error breaks the connection off.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            if self.over {
                return None;
            }
            self.told.mark_unchanged();
            self.catch_up();
            if !self.lines.is_empty() {
                continue;
            }
            let never = self.ends + LASTS;
            let (bookmark, farewell) = (self.bookmark.unwrap_or(never), self.farewell.unwrap_or(never));
            let woken = tokio::select! {
                changed = self.told.changed() => if changed.is_ok() { Woken::Change } else { Woken::End },
                _ = self.drops.changed() => Woken::Break,
                _ = self.up.wait_for(|up| !*up) => Woken::Break,
                () = tokio::time::sleep_until(bookmark) => Woken::Bookmark,
                () = tokio::time::sleep_until(farewell) => Woken::Farewell,
                () = tokio::time::sleep_until(self.ends) => Woken::End,
            };
            match woken {
                Woken::Change => {}
                Woken::Break => return Some(Err(io::ErrorKind::ConnectionReset.into())),
                Woken::End => self.over = true,
                Woken::Bookmark => {
                    self.bookmark = Some(Instant::now() + self.every);
                    self.push_bookmark(None);
                }
                Woken::Farewell => {
                    self.farewell = None;
                    self.push_bookmark(None);
                }
            }
        }
    }

    /// The lines as a body.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            let next = watch.next().await?;
            let broken = next.is_err();
            Some((next, (!broken).then_some(watch)))
        })
    }
}
