//! The engine's `Pods`, over Kubernetes: pools out of a folder ([`crate::pool`]), their pods made one at a time, and what
//! became of them as a watch tells it.
//!
//! It decides nothing and repeats nothing but its watch. What keeps two masters from making more than one of them would: a
//! seat's pod has one name, is made only in the term that this node was told it leads in, and carries that term. `call` is one
//! call with its refusal, `owner` whom pods go with, `folder` the files, `watch` the watch.

mod call;
mod folder;
mod owner;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use gristmill_engine::node::pods::{Event, Pod, Pods, Pool, Reason, Refusal, Seat};
use k8s_openapi::api::core::v1::{ObjectReference, Pod as Object};
use kube::api::{DeleteParams, GetParams, LogParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::call::{WITHIN, ask};
use self::folder::Folder;
use self::owner::Owner;
use self::watch::Heard;
use crate::events::Teller;
use crate::pod;
use crate::reason::reason;

/// Lines of a pod's last words, and bytes of them that are fetched. More than are wanted: the server cuts at the end, where the
/// last ones are (*Pod log*, `limitBytes` and `tailLines`).
const LINES: i64 = 64;
const FETCHED: i64 = 1 << 20;
/// Within this last words are there, or there are none.
const WORDS_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a label's value.
const LABEL: usize = 63;

/// Where pods are made, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where pods are made: the masters' own.
    pub namespace: String,
    /// With what their names begin: a label of DNS.
    pub prefix: String,
    /// The folder with a file for each pool.
    pub folder: PathBuf,
    /// Kind and name of the object that they go with, in the same namespace.
    pub owner: Option<(String, String)>,
    /// The name of the pod that this node is in, if it is in one: it says what the owner's UID is, and signs events.
    pub pod: Option<String>,
}

/// Why pods cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prefix is none that names can begin with.
    #[error(
        "pods' names cannot begin with {0:?}: a prefix has 1 to 63 of a-z, 0-9 and, within, -, and begins with a letter"
    )]
    Prefix(String),
    /// Objects of this kind are no owners.
    #[error("pods cannot go with a {kind}: owners are of these kinds: {kinds}")]
    Owner {
        /// What was said.
        kind: String,
        /// What can be.
        kinds: String,
    },
    /// There is no runtime to watch in.
    #[error("pods are watched in a tokio runtime, and there is none here")]
    Runtime,
}

/// Makes worker pods.
#[derive(Debug)]
pub struct Launcher {
    shared: Arc<Shared>,
    prefix: String,
    owner: Option<Owner>,
    teller: Teller,
    runtime: Handle,
    leading: Mutex<Option<Leading>>,
}

/// What the watch's task needs as well.
struct Shared {
    client: Client,
    namespace: String,
    folder: Folder,
    /// One waits at most: the engine's loop. What happens while it does not wait is kept for it.
    changed: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("namespace", &self.namespace)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Leading {
    cluster: u64,
    term: u64,
    heard: Arc<Heard>,
    task: AbortHandle,
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Launcher {
    /// One that does nothing until it is told to lead. The folder is read; what is wrong with it is told by `pools`, since a
    /// node with a wrong file can still do all else.
    ///
    /// # Errors
    /// A prefix or an owner that cannot be, or no runtime.
    pub fn new(client: Client, options: Options) -> Result<Arc<Self>, Error> {
        let Options { namespace, prefix, folder, owner, pod } = options;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let first = prefix.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !first || prefix.len() > LABEL || prefix.ends_with('-') || !prefix.bytes().all(plain) {
            return Err(Error::Prefix(prefix));
        }
        let owner = owner.map(|(kind, name)| {
            let owner = Owner::new(&kind, name, namespace.clone(), pod.clone());
            owner.map_err(|kinds| Error::Owner { kind, kinds })
        });
        let owner = owner.transpose()?;
        let runtime = Handle::try_current().map_err(|_| Error::Runtime)?;
        let teller = Teller::new(client.clone(), pod.as_deref());
        let shared = Shared { client, namespace, folder: Folder::new(folder), changed: Notify::new() };
        Ok(Arc::new(Self { shared: Arc::new(shared), prefix, owner, teller, runtime, leading: Mutex::default() }))
    }

    fn leading(&self) -> MutexGuard<'_, Option<Leading>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's id, if this node leads it in this term.
    fn leads(&self, term: u64) -> Result<u64, Refusal> {
        let cluster = self.leading().as_ref().filter(|leading| leading.term == term).map(|leading| leading.cluster);
        cluster.ok_or_else(|| {
            Refusal::Later(reason("NotLeading", &format!("this node does not lead in term {term}")), None)
        })
    }

    async fn make(&self, seat: &Seat, term: u64) -> Result<(), Refusal> {
        self.leads(term)?;
        let Some(file) = self.shared.folder.file(seat) else {
            let text = format!("pool {} is gone, or its file has changed", seat.pool);
            return Err(Refusal::Later(reason("PoolChanged", &text), None));
        };
        let owner = match &self.owner {
            Some(owner) => Some(owner.reference(&self.shared.client).await?),
            None => None,
        };
        // Looked at last: the owner may have taken its time.
        let cluster = self.leads(term)?;
        let made = pod::Made {
            prefix: &self.prefix,
            cluster,
            term,
            owner: owner.as_ref(),
            template: &file.template,
            capabilities: &file.pool.capabilities,
        };
        let invalid = |text: String| Refusal::Never(reason("Invalid", &text));
        let object = pod::build(made, seat).map_err(invalid)?;
        let body = serde_json::to_vec(&object).map_err(|e| invalid(e.to_string()))?;
        let params = PostParams { field_manager: Some("gristmill".into()), ..Default::default() };
        match ask(&self.shared.client, self.shared.pods().create(&params, body), WITHIN).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_already_exists() => self.is_ours(&object, cluster, seat).await,
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whether the pod that has the name already is the one that was to be made.
    async fn is_ours(&self, wanted: &Object, cluster: u64, seat: &Seat) -> Result<(), Refusal> {
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        let there = ask(&self.shared.client, self.shared.pods().get(name, &GetParams::default()), WITHIN).await;
        let there = match there {
            Ok(body) => body,
            Err(failure) if failure.is_not_found() => {
                let text = format!("pod {name} was there, and is no more");
                return Err(Refusal::Later(reason("AlreadyExists", &text), None));
            }
            Err(failure) => return Err(failure.into()),
        };
        let unreadable =
            |e: serde_json::Error| Refusal::Later(reason("Unreachable", &format!("pod {name}: {e}")), None);
        let there: Object = serde_json::from_slice(&there).map_err(unreadable)?;
        if pod::cluster(&there) == Some(cluster) && pod::seat(&there).as_ref() == Some(seat) {
            return Ok(());
        }
        let whose = match pod::cluster(&there) {
            Some(other) if other == cluster => "another pool's pod of this cluster".to_string(),
            Some(other) => format!("a pod of cluster {other:016x}"),
            None => "a pod of nobody's".to_string(),
        };
        let text = format!("{whose} is called {name}: delete it, or give this cluster another --pool-prefix");
        Err(Refusal::Never(reason("AlreadyExists", &text)))
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), Refusal> {
        let only = Preconditions { uid: Some(uid.into()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only), ..Default::default() };
        match ask(&self.shared.client, self.shared.pods().delete(name, &params), WITHIN).await {
            Ok(_) => Ok(()),
            // It is gone, or another one has its name.
            Err(failure) if failure.is_not_found() || failure.is_conflict() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn last_words(&self, name: &str, uid: &str, bytes: u32) -> String {
        // Logs go by name alone.
        let now = self.leading().as_ref().and_then(|leading| leading.heard.uid(name));
        if now.is_some_and(|now| now != uid) {
            return String::new();
        }
        let params = LogParams {
            container: Some(pod::CONTAINER.into()),
            tail_lines: Some(LINES),
            limit_bytes: Some(FETCHED),
            ..Default::default()
        };
        let words = ask(&self.shared.client, self.shared.pods().logs(name, &params), WORDS_WITHIN).await;
        last_of(&String::from_utf8_lossy(&words.unwrap_or_default()), bytes as usize)
    }

    async fn tell(&self, what: &Event) {
        let about = async {
            match (&what.pod, &self.owner) {
                (Some((name, uid)), _) => Some(self.shared.reference(name, uid)),
                (None, Some(owner)) => owner.object(&self.shared.client).await.ok(),
                (None, None) => None,
            }
        };
        self.teller.tell(about, &what.reason, &what.text, what.warning).await;
    }
}

impl Shared {
    /// Where pods are.
    fn pods(&self) -> Request {
        Request::new(format!("/api/v1/namespaces/{}/pods", self.namespace))
    }

    fn reference(&self, name: &str, uid: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.into()),
            namespace: Some(self.namespace.clone()),
            uid: Some(uid.into()),
            ..Default::default()
        }
    }
}

/// The end of a text: at most so many bytes, and whole lines if there is one.
fn last_of(text: &str, bytes: usize) -> String {
    let text = text.trim_end();
    let (before, end) = text.split_at(text.ceil_char_boundary(text.len().saturating_sub(bytes)));
    match end.split_once('\n') {
        Some((_, lines)) if !before.is_empty() && !before.ends_with('\n') => lines.into(),
        _ => end.into(),
    }
}

/// Reads the folder again and again.
async fn look(shared: &Arc<Shared>) {
    loop {
        let here = shared.clone();
        if let Ok(true) = tokio::task::spawn_blocking(move || here.folder.read_again()).await {
            shared.changed.notify_one();
        }
        tokio::time::sleep(folder::EVERY).await;
    }
}

impl Pods for Launcher {
    fn pools(&self) -> Result<Vec<Pool>, Reason> {
        self.shared.folder.pools()
    }

    fn trouble(&self) -> Option<Reason> {
        self.shared.folder.trouble()
    }

    fn pods(&self) -> Result<Vec<Pod>, Reason> {
        match self.leading().as_ref() {
            Some(leading) => leading.heard.pods(),
            None => Err(reason("NotLeading", "this node does not watch pods: it does not lead")),
        }
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.changed.notified())
    }

    fn lead(&self, cluster: u64, term: Option<u64>) {
        let mut leading = self.leading();
        let Some(term) = term else {
            *leading = None;
            return self.shared.changed.notify_one();
        };
        if let Some(now) = leading.as_mut().filter(|now| now.cluster == cluster) {
            // What is watched is the same.
            now.term = term;
            return;
        }
        let heard = Arc::new(Heard::default());
        let (shared, hears) = (self.shared.clone(), heard.clone());
        let task = self.runtime.spawn(async move {
            let api = Api::namespaced(shared.client.clone(), &shared.namespace);
            let watch = watch::watch(api, cluster, &hears, || shared.changed.notify_one());
            tokio::join!(watch, look(&shared));
        });
        *leading = Some(Leading { cluster, term, heard, task: task.abort_handle() });
    }

    fn make<'s>(&'s self, seat: &'s Seat, term: u64) -> BoxFuture<'s, Result<(), Refusal>> {
        Box::pin(self.make(seat, term))
    }

    fn delete<'s>(&'s self, name: &'s str, uid: &'s str) -> BoxFuture<'s, Result<(), Refusal>> {
        Box::pin(self.delete(name, uid))
    }

    fn last_words<'s>(&'s self, name: &'s str, uid: &'s str, bytes: u32) -> BoxFuture<'s, String> {
        Box::pin(self.last_words(name, uid, bytes))
    }

    fn tell<'s>(&'s self, what: &'s Event) -> BoxFuture<'s, ()> {
        Box::pin(self.tell(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_last() {
        for (text, bytes, words) in [
            ("one\ntwo\nthree\n", 100, "one\ntwo\nthree"),
            ("one\ntwo\nthree\n", 8, "three"),
            ("one\ntwo\nthree\n", 9, "two\nthree"),
            ("one\ntwo\nthree\n", 3, "ree"),
            ("äöü", 3, "ü"),
            ("", 9, ""),
            ("a", 0, ""),
        ] {
            assert_eq!(last_of(text, bytes), words, "{text:?} in {bytes}");
        }
    }
}
