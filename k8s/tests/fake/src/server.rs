//! The API server: its port, its methods for tests, and the faults that they make.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::state::Shared;
use crate::store::Key;
use crate::{http, janitor};

/// A request that the server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Kubernetes' verb, such as `list`; of what is no resource, the method in lower case.
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// The plural; empty if the path is not one of a resource.
    pub resource: String,
    /// Such as `status`; empty: the object itself.
    pub subresource: String,
    /// Empty: all namespaces, or none.
    pub namespace: String,
    /// Empty for lists, watches and creations.
    pub name: String,
    /// The path, without its query.
    pub path: String,
    /// The answer's HTTP status.
    pub status: u16,
    /// Whether it is a watch; it is noted when it begins.
    pub watch: bool,
    /// Whose token it was; empty: nobody's.
    pub user: String,
}

/// A rule of a Role.
#[derive(Clone, Debug, Default)]
pub struct Rule(Value);

impl Rule {
    /// Verbs on resources of groups; `*` is all of them, `pods/log` names a subresource.
    pub fn new(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Rule {
        Rule(json!({"apiGroups": groups, "resources": resources, "verbs": verbs}))
    }
}

/// An API server on a port of this machine. Clones are the same server; it ends with the last of them.
#[derive(Clone)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("port", &self.shared.port).finish_non_exhaustive()
    }
}

/// Tasks that end with the server.
struct Tasks {
    listener: Mutex<Option<JoinHandle<()>>>,
    janitor: JoinHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.janitor.abort();
        let listener = self.listener.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(listener) = listener.take() {
            listener.abort();
        }
    }
}

/// Accepts connections; those that run are cut when the task ends or the server goes down.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { Ok::<_, std::convert::Infallible>(http::serve(shared, request).await) }
                    });
                    // A client that goes away is no failure of the server.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Server {
    /// Starts a server on a free port.
    ///
    /// # Panics
    ///
    /// If this machine has no port to give.
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine");
        let port = listener.local_addr().expect("the port's address").port();
        let shared = Shared::new(port);
        let janitor = tokio::spawn(janitor::run(Arc::downgrade(&shared)));
        let listener = tokio::spawn(accept(listener, shared.clone()));
        Server { shared, tasks: Arc::new(Tasks { listener: Mutex::new(Some(listener)), janitor }) }
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// A kubeconfig of an administrator, who may do everything; YAML.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        let admin = self.shared.state().users.admin.clone();
        self.kubeconfig_of(&admin, namespace)
    }

    /// A kubeconfig with this token; YAML.
    pub fn kubeconfig_of(&self, token: &str, namespace: &str) -> String {
        kubeconfig(self.shared.port, token, namespace)
    }

    /// A bearer token of a service account, which need not be there. What it may do is what Roles, ClusterRoles and their
    /// bindings say.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        let mut state = self.shared.state();
        let found = state.get("serviceaccounts", namespace, account);
        let uid = found.and_then(|account| account["metadata"]["uid"].as_str().map(String::from)).unwrap_or_default();
        state.users.account(namespace, account, &uid)
    }

    /// Makes a service account that may do just this, in its namespace: an account, a Role and a RoleBinding of one name.
    /// Returns its token.
    ///
    /// # Panics
    ///
    /// If the namespace is not there, or one of them is.
    pub fn enforce(&self, namespace: &str, account: &str, rules: &[Rule]) -> String {
        let metadata = json!({"name": account});
        let rules: Vec<&Value> = rules.iter().map(|rule| &rule.0).collect();
        let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account});
        let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        let objects = [
            ("serviceaccounts", json!({"metadata": metadata})),
            ("roles.rbac.authorization.k8s.io", json!({"metadata": metadata, "rules": rules})),
            (
                "rolebindings.rbac.authorization.k8s.io",
                json!({"metadata": metadata, "roleRef": role_ref, "subjects": subjects}),
            ),
        ];
        for (storage, object) in objects {
            self.shared.state().system(storage, namespace, object).expect("a new service account with its role");
        }
        self.token(namespace, account)
    }

    /// What was asked until now, oldest first; at most the latest 100,000.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// Forgets what was asked.
    pub fn forget_calls(&self) {
        self.shared.state().calls.clear();
    }

    /// From now on, all resource versions handed out until now are too old: 410. Running watches go on.
    pub fn compact(&self) {
        self.shared.state().store.compact();
    }

    /// Whether a watch that begins too long ago is answered by the HTTP status 410, or by an ERROR event after 200, which
    /// is the default. Upstream does either ("410 Gone" responses: depending on whether it is served from cache). The
    /// watcher of kube 5.0 that goes on after a break answers the status by trying the same version for ever.
    pub fn gone_by_status(&self, by_status: bool) {
        self.shared.state().faults.gone_by_status = by_status;
    }

    /// Breaks all running watches off.
    pub fn drop_watches(&self) {
        self.shared.drops.send_modify(|drops| *drops += 1);
    }

    /// How often watches get bookmarks that asked for them; at first every minute, as upstream. Holds for new watches.
    pub fn bookmarks_every(&self, every: Duration) {
        self.shared.state().faults.bookmarks = every;
    }

    /// The API server is down: connections break, and nobody listens at its port. What it knows is kept.
    pub fn stop(&self) {
        self.shared.up.send_replace(false);
        if let Some(listener) = self.listener().take() {
            listener.abort();
        }
    }

    /// The API server is there again, at the same port.
    ///
    /// # Panics
    ///
    /// If another took the port meanwhile and keeps it for ten seconds.
    pub async fn start_again(&self) {
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.shared.port)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(tries < 500, "port {} is taken: {error}", self.shared.port),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let task = tokio::spawn(accept(listener, self.shared.clone()));
        if let Some(before) = self.listener().replace(task) {
            before.abort();
        }
        self.shared.up.send_replace(true);
    }

    fn listener(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.tasks.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next calls, so many, answer 429 with `Retry-After: 1`.
    pub fn throttle(&self, calls: u32) {
        self.shared.state().faults.throttled = calls;
    }

    /// Every call waits so long before it is looked at.
    pub fn slow(&self, wait: Duration) {
        self.shared.state().faults.slow = wait;
    }

    /// How many calls of a verb on a resource are waiting because of [`Server::slow`].
    pub fn held(&self, verb: &str, resource: &str) -> usize {
        let state = self.shared.state();
        state.faults.held.iter().filter(|(v, r)| v == verb && r == resource).count()
    }

    /// So many pods may be in a namespace, those that ended not counted; further ones are refused with 403. ResourceQuota
    /// objects do the same for one namespace.
    pub fn quota(&self, pods: Option<u64>) {
        self.shared.state().faults.quota = pods;
    }

    /// Nobody may do this any more, not even administrators: 403. `*` is all; the core group is empty; a subresource is
    /// `pods/log`.
    pub fn deny(&self, verb: &str, group: &str, resource: &str) {
        self.shared.state().faults.denied.push((verb.into(), group.into(), resource.into()));
    }

    /// Takes back all that was denied.
    pub fn allow_again(&self) {
        self.shared.state().faults.denied.clear();
    }

    /// An object; the resource is `pods`, or `jobs.batch`, or a plural that there is once.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.shared.state();
        let kind = state.stored_kind(resource)?;
        state.get(&kind.storage, namespace, name).map(|object| (*object).clone())
    }

    /// All objects of a resource, in one namespace or in all.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        let state = self.shared.state();
        let Some(kind) = state.stored_kind(resource) else { return Vec::new() };
        state.store.list(&kind.storage, namespace.unwrap_or_default()).map(|object| (**object).clone()).collect()
    }

    /// Creates or replaces what a text of YAML documents says, as an administrator; objects of no namespace are put into
    /// this one. Returns `Kind/name` of each.
    ///
    /// # Errors
    ///
    /// Says which object was refused, and why.
    pub fn apply_yaml(&self, text: &str, namespace: &str) -> Result<Vec<String>, String> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
        let all = documents.into_iter().flat_map(|document| match document["items"].as_array() {
            Some(items) if document["kind"] == "List" => items.clone(),
            _ => vec![document],
        });
        all.filter(Value::is_object).map(|object| self.apply(object, namespace)).collect()
    }

    fn apply(&self, object: Value, namespace: &str) -> Result<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let name = text(&object["metadata"]["name"]);
        let told = format!("{kind}/{name}");
        let mut state = self.shared.state();
        let kind = state.kind_of(&version, &kind).ok_or_else(|| format!("{told}: nothing serves {version} {kind}"))?;
        let own = text(&object["metadata"]["namespace"]);
        let namespace = match (kind.namespaced, own.is_empty()) {
            (false, _) => String::new(),
            (true, true) => namespace.into(),
            (true, false) => own,
        };
        let there = state.store.get(&Key::new(&kind.storage, &namespace, &name)).is_some();
        let mut ask =
            state.ask(&kind.storage, &namespace, if there { &name } else { "" }, "").ok_or("no such resource")?;
        ask.kind = kind;
        ask.agent = "kubectl".into();
        ask.query.insert("fieldValidation".into(), "Strict".into());
        let mut object = object;
        if there && object["metadata"]["resourceVersion"].is_null() {
            let old = state.store.get(&ask.key());
            object["metadata"]["resourceVersion"] = old.map(|old| old["metadata"]["resourceVersion"].clone()).into();
        }
        ask.body = object.to_string().into();
        let done = if there { crate::verbs::update(&mut state, &ask) } else { crate::verbs::create(&mut state, &ask) };
        done.map(|_| told.clone()).map_err(|failure| format!("{told}: {}", failure.message))
    }
}

/// A kubeconfig, as YAML, of which JSON is a part.
pub(crate) fn kubeconfig(port: u16, token: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
         clusters:\n- name: fake\n  cluster:\n    server: http://127.0.0.1:{port}\n\
         users:\n- name: user\n  user:\n    token: {token}\n\
         contexts:\n- name: fake\n  context:\n    cluster: fake\n    user: user\n    namespace: {namespace}\n"
    )
}
