//! Watching the pods of a cluster: a list, then what changes, and the list again whenever something is wrong and every few
//! minutes besides, so that nothing that was missed stays missed.
//!
//! kube's `watcher` resumes a watch that ended as it should, and begins again where a server has forgotten its place (410). Any
//! error begins again here with a list, since a `watcher` that has recovered says nothing until a pod changes: the list's end is
//! the one sign that what is known is right. Of each pod only what the engine is told is kept.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use gristmill_engine::node::pods::{Pod, Reason};
use k8s_openapi::api::core::v1::Pod as Object;
use kube::Api;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use tokio::time::{Instant, timeout_at};

use crate::client::{chain, told};
use crate::pod::{known, selector};
use crate::reason::reason;

/// For so long what was heard last is relied on although the watch is broken.
const RELIED_ON: Duration = Duration::from_secs(60);
/// How often all pods are listed although nothing is wrong.
const LISTED_EVERY: Duration = Duration::from_secs(300);
/// Within this a list is there, or a page of it.
const LIST_WITHIN: Duration = Duration::from_secs(30);
/// A server ends a watch after so many seconds; kube takes one as dead that is silent for 5 s longer.
const WATCH_SECONDS: u32 = 60;
/// Between attempts; kube's waiting grows beyond it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Pods that are kept in mind: five of the largest pools.
const PODS: usize = 50_000;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Pod>,
    /// A list has been complete.
    complete: bool,
    /// Since when nothing is heard, and why.
    broken: Option<(Instant, String)>,
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods, if they are known.
    pub(super) fn pods(&self) -> Result<Vec<Pod>, Reason> {
        let state = self.state();
        match &state.broken {
            Some((since, why)) if !state.complete || since.elapsed() > RELIED_ON => {
                // Without how long: each second would be another reason.
                Err(reason("WatchBroken", &format!("pods cannot be watched: {why}")))
            }
            _ if !state.complete => Err(reason("NotListed", "pods have not been listed yet")),
            _ if state.pods.len() > PODS => Err(reason("TooManyPods", &format!("there are more than {PODS} pods"))),
            _ => Ok(state.pods.values().cloned().collect()),
        }
    }

    /// The UID of the pod that has this name now.
    pub(super) fn uid(&self, name: &str) -> Option<String> {
        self.state().pods.get(name).map(|pod| pod.uid.clone())
    }

    fn broke(&self, why: String) {
        let mut state = self.state();
        let since = state.broken.take().map_or_else(Instant::now, |(since, _)| since);
        state.broken = Some((since, why));
    }
}

/// Watches for as long as it is polled, and calls `changed` whenever something may be otherwise.
pub(super) async fn watch(api: Api<Object>, cluster: u64, heard: &Heard, changed: impl Fn()) {
    let mut pauses = DefaultBackoff::default();
    loop {
        let config = watcher::Config::default().labels(&selector(cluster)).timeout(WATCH_SECONDS);
        if let Err(why) = follow(watcher(api.clone(), config), heard, &changed).await {
            heard.broke(why);
            changed();
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)).await;
        }
    }
}

/// Follows one watch until it is time to list again, or something is wrong.
async fn follow(
    events: impl Stream<Item = watcher::Result<Event<Object>>>,
    heard: &Heard,
    changed: &impl Fn(),
) -> Result<(), String> {
    let mut events = pin!(events);
    let mut listing = BTreeMap::new();
    let mut listed = false;
    let begun = Instant::now();
    let mut last = begun;
    loop {
        let until = if listed { begun + LISTED_EVERY } else { last + LIST_WITHIN };
        // Also where events never cease.
        if listed && Instant::now() >= until {
            return Ok(());
        }
        let event = match timeout_at(until, events.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(e))) => return Err(said(&e)),
            Ok(None) => return Err("the watch has ended".into()),
            Err(_) if listed => return Ok(()),
            Err(_) => return Err(format!("no list within {} s", LIST_WITHIN.as_secs())),
        };
        last = Instant::now();
        match event {
            Event::Init => (listing, listed) = (BTreeMap::new(), false),
            Event::InitApply(object) => {
                // One more than may be is enough to know that they are too many.
                if listing.len() <= PODS {
                    listing.extend(known(&object).map(|pod| (pod.name.clone(), pod)));
                }
            }
            Event::InitDone => {
                listed = true;
                *heard.state() = State { pods: std::mem::take(&mut listing), complete: true, broken: None };
                changed();
            }
            Event::Apply(object) => {
                let mut state = heard.state();
                if state.pods.len() <= PODS {
                    state.pods.extend(known(&object).map(|pod| (pod.name.clone(), pod)));
                }
                drop(state);
                changed();
            }
            Event::Delete(object) => {
                heard.state().pods.remove(&object.metadata.name.unwrap_or_default());
                changed();
            }
        }
    }
}

fn said(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(e) => format!("they cannot be listed: {}", told(e)),
        watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => told(e),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::stream;
    use serde_json::json;

    use super::*;

    fn object(name: &str, uid: &str) -> Object {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": uid}})).expect("a pod")
    }

    fn uids(heard: &Heard) -> Vec<String> {
        heard.pods().expect("they are known").into_iter().map(|pod| pod.uid).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_known_before_the_list_is_complete() {
        let heard = Heard::default();
        let changes = Cell::new(0);
        let changed = || changes.set(changes.get() + 1);
        assert_eq!(heard.pods().expect_err("nothing was heard").word, "NotListed");
        let half = [Event::Init, Event::InitApply(object("a", "1"))].map(Ok);
        let ended = follow(stream::iter(half).chain(stream::pending()), &heard, &changed).await;
        assert_eq!(ended, Err("no list within 30 s".into()));
        assert_eq!((heard.pods().expect_err("it is half").word.as_str(), changes.get()), ("NotListed", 0));
        heard.broke("down".into());
        assert_eq!(heard.pods().expect_err("it is broken").to_string(), "WatchBroken: pods cannot be watched: down");
        let all = [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "2")),
            Event::InitDone,
            Event::Apply(object("c", "3")),
            Event::Delete(object("a", "1")),
            Event::Apply(object("b", "4")),
        ];
        let ended = follow(stream::iter(all.map(Ok)), &heard, &changed).await;
        assert_eq!((ended, changes.get()), (Err("the watch has ended".into()), 4));
        assert_eq!((uids(&heard), heard.uid("b").as_deref()), (vec!["4".to_string(), "3".into()], Some("4")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_heard_is_relied_on_for_a_minute() {
        let heard = Heard::default();
        let all = || stream::iter([Event::Init, Event::InitApply(object("a", "1")), Event::InitDone].map(Ok));
        let _ = follow(all(), &heard, &|| ()).await;
        heard.broke("first".into());
        tokio::time::advance(RELIED_ON - Duration::from_secs(1)).await;
        heard.broke("then".into());
        assert_eq!(uids(&heard), ["1"]);
        // While all are listed again it is as before.
        let _ = follow(stream::iter([Ok(Event::Init)]), &heard, &|| ()).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(heard.pods().expect_err("too long").text, "pods cannot be watched: then");
        let _ = follow(all(), &heard, &|| ()).await;
        assert_eq!(uids(&heard), ["1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_when_all_are_listed_again_is_gone() {
        let heard = Heard::default();
        let first = [Event::Init, Event::InitApply(object("a", "1")), Event::InitDone].map(Ok);
        let begun = Instant::now();
        assert_eq!(follow(stream::iter(first).chain(stream::pending()), &heard, &|| ()).await, Ok(()));
        assert_eq!(begun.elapsed(), LISTED_EVERY);
        let again = [Event::Init, Event::InitDone].map(Ok);
        let _ = follow(stream::iter(again), &heard, &|| ()).await;
        assert_eq!(uids(&heard), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_begin_again() {
        let heard = Heard::default();
        let gone = kube::core::Status::failure("too old resource version", "Expired").with_code(410);
        let events = [Ok(Event::Init), Ok(Event::InitDone), Err(watcher::Error::WatchError(gone.boxed()))];
        let ended = follow(stream::iter(events), &heard, &|| ()).await.expect_err("it is an error");
        assert!(ended.contains("too old resource version"), "{ended}");
    }
}
