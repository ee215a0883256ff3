//! Telling what happened where people look: as events on Kubernetes' objects (*Event v1 events.k8s.io*).
//!
//! Best effort: events are for reading, and nothing depends on them. The same one again is counted (kube's `Recorder` does
//! that), and beyond a few at a time they are dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Semaphore;

use crate::client::line;
use crate::reason::cut;

/// Who tells: a qualified name, as the API wants one (`reportingController`).
pub const CONTROLLER: &str = "gristmill.dev/master";
/// Events on their way.
const AT_A_TIME: usize = 4;
/// After this one is given up.
const WITHIN: Duration = Duration::from_secs(5);
/// Texts whose repetitions are counted.
const TEXTS: usize = 64;
/// Bytes of a note, and of a reason and of who tells (the API's validation).
const NOTE: usize = 1_024;
const REASON: usize = 128;

/// Tells of things.
pub struct Teller {
    client: Client,
    reporter: Reporter,
    turns: Semaphore,
    /// One for each text: to a recorder two events are the same if their reasons are, and the first one's text would be seen
    /// with the second's time.
    recorders: Mutex<BTreeMap<String, Recorder>>,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("reporter", &self.reporter).finish_non_exhaustive()
    }
}

impl Teller {
    /// One that tells as `instance`, as a rule this pod's name.
    pub fn new(client: Client, instance: Option<&str>) -> Self {
        let instance = cut(instance.unwrap_or("gristmill"), REASON);
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(instance) };
        Self { client, reporter, turns: Semaphore::new(AT_A_TIME), recorders: Mutex::default() }
    }

    /// Tells of an object, in a word and a line; or not, if too much is being told, the object is not found, or it does not
    /// succeed within 5 s.
    pub async fn tell(
        &self,
        about: impl Future<Output = Option<ObjectReference>>,
        reason: &str,
        text: &str,
        warning: bool,
    ) {
        let Ok(_turn) = self.turns.try_acquire() else { return };
        let note = cut(&line(text), NOTE);
        let recorder = self.recorder(&note);
        let reason = cut(reason, REASON);
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: reason.clone(),
            reason,
            note: Some(note),
            secondary: None,
        };
        // Whoever may not write events, or reaches no server, hears of it elsewhere.
        let _ = tokio::time::timeout(WITHIN, async {
            if let Some(about) = about.await {
                let _ = recorder.publish(&event, &about).await;
            }
        })
        .await;
    }

    fn recorder(&self, text: &str) -> Recorder {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if recorders.len() == TEXTS && !recorders.contains_key(text) {
            // What is told of again is counted from one again.
            recorders.clear();
        }
        let new = || Recorder::new(self.client.clone(), self.reporter.clone());
        recorders.entry(text.into()).or_insert_with(new).clone()
    }
}
