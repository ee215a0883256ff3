//! Everything the server knows, and a request as the verbs take it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::faults::Faults;
use crate::kinds::{self, Kind};
use crate::rbac::{User, Users};
use crate::store::{Key, Store};
use crate::{Call, crd};

/// So many calls are remembered; older ones are forgotten.
const CALLS: usize = 100_000;

/// What is behind one lock.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) kinds: Vec<Arc<Kind>>,
    pub(crate) faults: Faults,
    pub(crate) users: Users,
    pub(crate) calls: Vec<Call>,
    /// Where containers write what they say, by namespace, pod and container.
    pub(crate) logs: BTreeMap<(String, String, String), LogFiles>,
    services: u32,
}

/// What a container said, and what it said before it was last started again.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFiles {
    pub(crate) current: PathBuf,
    pub(crate) previous: Option<PathBuf>,
    pub(crate) ended: bool,
}

/// The state and what wakes those who wait for it.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Whether the API server is there.
    pub(crate) up: watch::Sender<bool>,
    /// Counts the times that watches were made to break off.
    pub(crate) drops: watch::Sender<u64>,
    pub(crate) port: u16,
}

impl Shared {
    pub(crate) fn new(port: u16) -> Arc<Shared> {
        let mut state = State {
            store: Store::new(),
            kinds: kinds::built_in().into_iter().map(Arc::new).collect(),
            faults: Faults::default(),
            users: Users::default(),
            calls: Vec::new(),
            logs: BTreeMap::new(),
            services: 0,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            let _ = state.system("namespaces", "", namespace);
        }
        Arc::new(Shared { state: Mutex::new(state), up: watch::channel(true).0, drops: watch::channel(0).0, port })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic of one test's thread does not hide what others look at.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until the API server is there. Components that write for themselves wait here first, as they would upstream.
    pub(crate) async fn wait_until_up(&self) {
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }
}

/// A request about a resource.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) kind: Arc<Kind>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) sub: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    pub(crate) content_type: String,
    pub(crate) user: User,
    /// The client's name, from its header `User-Agent`.
    pub(crate) agent: String,
}

impl Ask {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.param(name))
    }

    /// API concepts, "Dry-run": all is done but the write.
    pub(crate) fn dry(&self) -> bool {
        self.param("dryRun") == "All"
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(&self.kind.storage, &self.namespace, &self.name)
    }

    /// Server-Side Apply, "Managers": by default a prefix of the user agent.
    pub(crate) fn manager(&self) -> String {
        match self.param("fieldManager") {
            "" => self.agent.split('/').next().unwrap_or_default().to_string(),
            name => name.to_string(),
        }
    }
}

impl State {
    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let is = |kind: &&Arc<Kind>| kind.plural == plural && kind.group == group && kind.version == version;
        self.kinds.iter().find(is).cloned()
    }

    /// The resource behind a storage's name, `pods` or `jobs.batch`, or its plural alone.
    pub(crate) fn stored_kind(&self, storage: &str) -> Option<Arc<Kind>> {
        let of = |kind: &&Arc<Kind>| kind.storage == storage || kind.qualified() == storage;
        self.kinds.iter().find(of).or_else(|| self.kinds.iter().find(|kind| kind.plural == storage)).cloned()
    }

    /// The resource of objects that say `apiVersion` and `kind`.
    pub(crate) fn kind_of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds.iter().find(|one| one.kind == kind && one.api_version() == api_version).cloned()
    }

    /// Serves what the CustomResourceDefinitions say, and no more.
    pub(crate) fn refresh_kinds(&mut self) {
        self.kinds.retain(|kind| kind.custom.is_none());
        let definitions: Vec<Arc<Value>> =
            self.store.list("customresourcedefinitions.apiextensions.k8s.io", "").cloned().collect();
        for definition in definitions {
            self.kinds.extend(crd::served(&definition).into_iter().map(Arc::new));
        }
    }

    pub(crate) fn remember(&mut self, call: Call) {
        if self.calls.len() >= CALLS {
            self.calls.remove(0);
        }
        self.calls.push(call);
    }

    pub(crate) fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.store.get(&Key::new(storage, namespace, name))
    }

    /// A request of the control plane itself.
    pub(crate) fn ask(&self, storage: &str, namespace: &str, name: &str, sub: &str) -> Option<Ask> {
        Some(Ask {
            kind: self.stored_kind(storage)?,
            namespace: namespace.into(),
            name: name.into(),
            sub: sub.into(),
            query: BTreeMap::new(),
            body: Bytes::new(),
            content_type: "application/json".into(),
            user: User::system(),
            agent: "kube-controller-manager".into(),
        })
    }

    /// The control plane creates an object.
    pub(crate) fn system(&mut self, storage: &str, namespace: &str, object: Value) -> Result<Arc<Value>, String> {
        let mut ask = self.ask(storage, namespace, "", "").ok_or("no such resource")?;
        ask.body = object.to_string().into();
        crate::verbs::create(self, &ask).map(|answer| Arc::new(answer.body)).map_err(|failure| failure.message)
    }

    /// The control plane changes an object as it finds it; with `sub` "status", its status. Nothing happens if the object
    /// is not there, or not another one by its uid.
    pub(crate) fn change(&mut self, key: &Key, uid: &str, sub: &str, act: impl FnOnce(&mut Value)) -> bool {
        let Some(old) = self.store.get(key).filter(|old| uid.is_empty() || old["metadata"]["uid"] == uid) else {
            return false;
        };
        let Some(ask) = self.ask(&key.storage, &key.namespace, &key.name, sub) else { return false };
        let mut new = (*old).clone();
        act(&mut new);
        crate::write::replace(self, &ask, &old, new, crate::write::By::Update).is_ok()
    }

    /// An address for a Service: of a range that nothing here answers at.
    pub(crate) fn service_address(&mut self) -> String {
        self.services += 1;
        format!("10.96.{}.{}", self.services / 250, self.services % 250 + 1)
    }
}

/// 128 random bits.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(std::time::Instant::now()));
    half() << 64 | half()
}

/// A uid as upstream makes them: a random UUID.
pub(crate) fn uid() -> String {
    let hex = format!("{:032x}", random());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// Five characters after a `generateName` (API conventions, "Idempotency"): no vowels, so that they make no words.
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bits = random();
    let mut letter = || {
        let at = usize::try_from(bits % LETTERS.len() as u128).unwrap_or_default();
        bits /= LETTERS.len() as u128;
        char::from(LETTERS[at])
    };
    (0..5).map(|_| letter()).collect()
}

/// A secret that nobody guesses.
pub(crate) fn secret() -> String {
    format!("{:032x}", random())
}

/// The time as objects carry it: whole seconds.
pub(crate) fn now() -> String {
    later(0)
}

/// The time in some seconds.
pub(crate) fn later(seconds: i64) -> String {
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
