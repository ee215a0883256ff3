//! The scheduler and the kubelets of a server's nodes: pods become processes of this machine, or seem to run at once.
//!
//! A pod has an address of its own, in 127.0.0.0/8, reserved by namespace and name at first mention: a pod that comes
//! again under its name has the address it had, other than upstream, because there is no DNS here: names of pods become
//! addresses in `command`, `args` and `env` when a container starts. There are no mount namespaces either: a mount path
//! at the beginning of a word, or after one of `=`, `,`, `:` and quotes, becomes the folder of its volume; and `0.0.0.0`
//! becomes the pod's address, as all pods share this machine's ports. A container's environment is its own, and `PATH`.
//!
//! In place of the in-cluster configuration, whose paths are fixed, a pod with a service account's token has `KUBECONFIG`.

mod container;
mod env;
mod instant;
mod node;
mod pod;
mod probe;
mod report;
mod scheduler;
mod volumes;
mod weather;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use regex::Regex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::Server;
use crate::selector::Labels;
use crate::state::Shared;
use pod::Order;

/// Pods of this process so far; addresses of processes that test at the same time differ by their ids.
static ADDRESSES: AtomicU32 = AtomicU32::new(0);

/// What a kubelet is begun with.
#[derive(Debug)]
pub struct Setup {
    server: Server,
    images: BTreeMap<String, PathBuf>,
    nodes: Vec<(String, BTreeMap<String, String>)>,
    env: BTreeMap<String, String>,
    instant: bool,
}

impl Setup {
    /// What program stands for an image's entrypoint. A `command` whose first word is not a file here, but has this
    /// program's file name, is this program as well.
    #[must_use]
    pub fn image(mut self, image: &str, program: impl Into<PathBuf>) -> Setup {
        self.images.insert(image.into(), program.into());
        self
    }

    /// A node with labels; without any, there is one, `node-1`.
    #[must_use]
    pub fn node(mut self, name: &str, labels: &[(&str, &str)]) -> Setup {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.nodes.push((name.into(), labels));
        self
    }

    /// A variable that all containers have besides their own.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Whether pods are no processes at all, but seem to run and to be ready at once.
    #[must_use]
    pub fn instant(mut self, instant: bool) -> Setup {
        self.instant = instant;
        self
    }

    /// Begins: the nodes are there, and pods run. Must be called within a tokio runtime.
    ///
    /// # Panics
    ///
    /// If no temporary folder can be made.
    pub fn start(mut self) -> Kubelet {
        if self.nodes.is_empty() {
            self.nodes.push(("node-1".into(), BTreeMap::new()));
        }
        let weather = Weather { instant: self.instant, ..Weather::default() };
        let inner = Arc::new(Inner {
            shared: self.server.shared.clone(),
            images: self.images,
            env: self.env,
            folder: tempfile::Builder::new().prefix("kubelet-").tempdir().expect("a temporary folder"),
            weather: Mutex::new(weather),
            woken: watch::channel(()).0,
            runs: Mutex::new(HashMap::new()),
        });
        for (name, labels) in &self.nodes {
            node::join(&inner.shared, name, labels);
        }
        let task = tokio::spawn(scheduler::run(Arc::downgrade(&inner)));
        Kubelet { inner, _task: Arc::new(Ends(task)), _server: self.server }
    }
}

/// The kubelets of all nodes, and the scheduler. Clones are the same; the last one ends its processes.
#[derive(Clone)]
pub struct Kubelet {
    inner: Arc<Inner>,
    _task: Arc<Ends>,
    _server: Server,
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet").field("folder", &self.inner.folder.path()).finish_non_exhaustive()
    }
}

/// A task that ends with this.
pub(crate) struct Ends(pub(crate) JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What goes wrong, and where names lead.
#[derive(Default)]
struct Weather {
    hold: bool,
    instant: bool,
    unschedulable: Vec<(Labels, String)>,
    bad_images: BTreeSet<String>,
    /// Nodes that are lost, and how long their pods stay.
    lost: BTreeMap<String, Duration>,
    addresses: HashMap<(String, String), Ipv4Addr>,
    resolve: Vec<(Regex, String)>,
    next_node: usize,
}

struct Inner {
    shared: Arc<Shared>,
    images: BTreeMap<String, PathBuf>,
    env: BTreeMap<String, String>,
    folder: tempfile::TempDir,
    weather: Mutex<Weather>,
    /// The weather has changed.
    woken: watch::Sender<()>,
    /// Pods that run, by uid.
    runs: Mutex<HashMap<String, Run>>,
}

/// A pod that runs.
struct Run {
    namespace: String,
    name: String,
    node: String,
    orders: mpsc::UnboundedSender<Order>,
    /// The grace that it was told to end with.
    ending: Option<i64>,
    _task: Ends,
}

impl Inner {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<String, Run>> {
        self.runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn address(&self, namespace: &str, pod: &str) -> Ipv4Addr {
        let mut weather = self.weather();
        *weather.addresses.entry((namespace.into(), pod.into())).or_insert_with(next_address)
    }

    fn pod_folder(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.folder.path().join("pods").join(format!("{namespace}_{name}_{uid}"))
    }

    fn order(&self, namespace: &str, pod: &str, order: impl Fn() -> Order) {
        for run in self.runs().values().filter(|run| run.namespace == namespace && run.name == pod) {
            // One that has just ended hears nothing any more.
            let _ = run.orders.send(order());
        }
    }
}

/// 127.x.y.z with x by this process, y and z counted; 0 and 255 are left out.
fn next_address() -> Ipv4Addr {
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let byte = |number: u32| u8::try_from(number).unwrap_or(1);
    Ipv4Addr::new(127, byte(16 + process % 200), byte((number / 250) % 250), byte(number % 250 + 1))
}

impl Kubelet {
    /// What a kubelet for this server is to be begun with.
    pub fn of(server: &Server) -> Setup {
        Setup {
            server: server.clone(),
            images: BTreeMap::new(),
            nodes: Vec::new(),
            env: BTreeMap::new(),
            instant: false,
        }
    }

    /// The address of a pod, now or when it comes.
    pub fn address(&self, namespace: &str, pod: &str) -> Ipv4Addr {
        self.inner.address(namespace, pod)
    }

    /// From now on, what matches becomes the replacement (`$1` is its first group) in `command`, `args` and `env`, before
    /// the rule that is there: `POD.SUBDOMAIN.NAMESPACE.svc`, with or without `.cluster.local`, becomes the pod's address.
    /// The names of Services become nothing by themselves: a test knows which of their pods it means.
    ///
    /// # Panics
    ///
    /// If the pattern is no regular expression.
    pub fn resolve(&self, pattern: &str, replacement: &str) {
        let pattern = Regex::new(pattern).expect("a regular expression");
        self.inner.weather().resolve.push((pattern, replacement.into()));
    }

    /// Where a pod's files are, while the kubelet lasts; its volumes are in `volumes`.
    pub fn folder(&self, namespace: &str, pod: &str) -> Option<PathBuf> {
        let uid = self.inner.shared.state().get("pods", namespace, pod)?["metadata"]["uid"].as_str()?.to_string();
        Some(self.inner.pod_folder(namespace, pod, &uid))
    }

    /// What a container wrote since it was last started; empty if it never was.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> String {
        let key = (namespace.to_string(), pod.to_string(), container.to_string());
        let files = self.inner.shared.state().logs.get(&key).cloned();
        let text = files.and_then(|files| std::fs::read(files.current).ok()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Kills all processes at once, and does nothing more.
    pub fn stop(&self) {
        self._task.0.abort();
        self.inner.runs().clear();
    }
}
