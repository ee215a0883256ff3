//! Where a check runs: a namespace of its own on some API server, who acts there, and what waits and tidies up.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_engine::node::pods::{Pod, Pods as _, Seat};
use gristmill_k8s::crd::{self, MapReduceJob};
use gristmill_k8s::pods::{Launcher, Options};
use gristmill_k8s::{client, manifests};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod as Object, ResourceQuota, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{Scope, pinned_kind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Whatever is waited for is there long before, also where all checks run at a time.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// Tidying is given up after this.
const TIDY_WITHIN: Duration = Duration::from_secs(60);
/// Who applies what a check needs.
pub(crate) const MANAGER: &str = "gristmill-conformance";
/// No scheduler has this name, so that pods stay as the check makes them.
pub(crate) const NOBODY: &str = "gristmill-conformance-nobody";
/// The cluster whose workers the pods are.
pub(crate) const CLUSTER: u64 = 0xfeed;
/// What pods' names begin with.
pub(crate) const PREFIX: &str = "gm";
/// The label by which a namespace says which pods it takes (Pod Security Admission).
pub(crate) const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// What the definition is called.
pub(crate) const DEFINITION: &str = "mapreducejobs.gristmill.dev";

/// A check's own place.
pub(crate) struct World {
    /// An administrator's.
    pub(crate) client: Client,
    pub(crate) namespace: String,
    config: Config,
    folder: TempDir,
    namespaces: Mutex<Vec<String>>,
}

/// What a kubeconfig file says.
pub(crate) async fn config_of(text: &str) -> Config {
    let file = Kubeconfig::from_yaml(text).expect("a kubeconfig");
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a kubeconfig that can be used")
}

/// What KUBECONFIG says; never the user's own file, which nobody named.
pub(crate) async fn config_of_environment() -> Config {
    let named = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
    assert!(named, "KUBECONFIG names no file: it leads to the API server that is to be checked, as an administrator");
    Config::from_kubeconfig(&KubeConfigOptions::default()).await.expect("KUBECONFIG can be used")
}

/// A name that nobody else has.
pub(crate) fn unique() -> String {
    format!("gristmill-conformance-{:016x}", RandomState::new().hash_one((Instant::now(), std::process::id())))
}

/// Looks again and again, and says at the end what there was instead.
pub(crate) async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => {
                assert!(Instant::now() < end, "{what}: not within {} s, but {instead}", within.as_secs_f64());
            }
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// What the server said against a call.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("it is not refused: {other:?}"),
    }
}

/// An object out of what is written of it.
#[track_caller]
pub(crate) fn object<K: DeserializeOwned>(written: Value) -> K {
    serde_json::from_value(written).expect("an object")
}

/// The file of a pool whose pods nobody schedules; with more for its pods' spec, as `field: value`.
pub(crate) fn pool(more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("{more}, ") };
    let containers = "containers: [{name: worker, image: 'gristmill.invalid/none:1'}]";
    format!("max: 3\nslots: 1\ntemplate: {{spec: {{schedulerName: {NOBODY}, {more}{containers}}}}}")
}

/// A pod besides workers; nobody schedules it.
pub(crate) fn other_pod(name: &str, metadata: Value) -> Object {
    let mut pod = json!({"metadata": metadata, "spec": {"schedulerName": NOBODY, "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "gristmill.invalid/none:1"}]}});
    pod["metadata"]["name"] = name.into();
    object(pod)
}

impl World {
    pub(crate) async fn new(config: Config) -> Self {
        let client = client::of_config(config.clone()).expect("a client");
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = Self { client, namespace: String::new(), config, folder, namespaces: Mutex::default() };
        world.namespace = world.another(json!({})).await;
        world
    }

    /// Another namespace, with labels. It goes with the check, too. Unless they say otherwise it takes pods of any
    /// level, whatever the server's default is.
    pub(crate) async fn another(&self, mut labels: Value) -> String {
        let name = unique();
        if labels[ENFORCE].is_null() {
            labels[ENFORCE] = "privileged".into();
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = object(json!({"metadata": {"name": name, "labels": labels}}));
        api.create(&PostParams::default(), &namespace).await.expect("a namespace");
        self.namespaces.lock().expect("no panic").push(name.clone());
        // A controller makes it where there is one.
        self.account_in(&name, "default").await;
        name
    }

    /// A service account, made if it is not there.
    pub(crate) async fn account_in(&self, namespace: &str, name: &str) {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = object(json!({"metadata": {"name": name}}));
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(e) => panic!("service account {name}: {e}"),
        }
    }

    /// The administrator's view of what is in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A token of a service account, for these audiences; none: the API server's own.
    pub(crate) async fn token(&self, account: &str, audiences: &[&str]) -> String {
        let request: TokenRequest = object(json!({"spec": {"audiences": audiences, "expirationSeconds": 3_600}}));
        let made = self.api::<ServiceAccount>().create_token_request(account, &PostParams::default(), &request).await;
        made.expect("a token").status.and_then(|status| status.token).expect("it is told")
    }

    /// A client with a token and nothing else.
    pub(crate) fn client_of(&self, token: String) -> Client {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        client::of_config(config).expect("a client")
    }

    /// What `gristmill k8s manifests` prints for the namespace.
    pub(crate) fn manifests(&self) -> Vec<Value> {
        let namespace = Some(self.namespace.clone());
        let choices = manifests::Choices { namespace, ..manifests::Choices::default() };
        serde_saphyr::from_multiple(&manifests::render(&choices).expect("manifests")).expect("they are YAML")
    }

    /// The document of a kind and name among the manifests.
    pub(crate) fn manifest(&self, kind: &str, name: &str) -> Value {
        let is = |one: &Value| one["kind"] == kind && one["metadata"]["name"] == name;
        self.manifests().into_iter().find(is).unwrap_or_else(|| panic!("the manifests have no {kind} {name}"))
    }

    /// Applies an object, whatever its kind.
    pub(crate) async fn apply(&self, object: &Value, params: &PatchParams) -> Result<DynamicObject, kube::Error> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let version = text(&object["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
        let (resource, can) = pinned_kind(&self.client, &kind).await?;
        let api: Api<DynamicObject> = match can.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        };
        let name = text(&object["metadata"]["name"]);
        let mut tries = 0;
        loop {
            match api.patch(&name, params, &Patch::Apply(object)).await {
                // Another check applies the same, as the definition.
                Err(kube::Error::Api(status)) if status.code == 409 && tries < 10 => tries += 1,
                done => return done,
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// Installs an account of the manifests with its Role, and gives a client that acts as it. An authoriser hears of
    /// new Roles a little later: this waits until the account may do something, `verb` on `resource`.
    pub(crate) async fn installed(&self, account: &str, verb: &str, resource: &str) -> Client {
        for kind in ["ServiceAccount", "Role", "RoleBinding"] {
            let params = PatchParams::apply(MANAGER).force();
            self.apply(&self.manifest(kind, account), &params)
                .await
                .unwrap_or_else(|e| panic!("{kind} {account}: {e}"));
        }
        let client = self.client_of(self.token(account, &[]).await);
        until("the Role is known", WITHIN, async || match may(&client, &self.namespace, verb, resource).await? {
            true => Ok(()),
            false => Err(format!("{account} may not {verb} {resource}")),
        })
        .await;
        client
    }

    /// A client with the rights that masters have.
    pub(crate) async fn master(&self) -> Client {
        self.installed("gristmill-master", "create", "pods").await
    }

    /// Makes sure that MapReduceJobs are served as this version defines them.
    pub(crate) async fn define(&self) {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let text: Value = serde_saphyr::from_str(&crd::yaml()).expect("YAML");
        let params = PatchParams::apply(MANAGER).force();
        // Other checks do the same now.
        until("the definition is applied", WITHIN, async || {
            match api.patch(DEFINITION, &params, &Patch::Apply(&text)).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Err(status.message),
                Err(e) => panic!("the definition is refused: {e}"),
            }
        })
        .await;
        let established = await_condition(api, DEFINITION, conditions::is_crd_established());
        timeout(WITHIN, established).await.expect("it is established in time").expect("it can be watched");
        until("MapReduceJobs are served", WITHIN, async || {
            let list = self.api::<MapReduceJob>().list(&ListParams::default()).await;
            list.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }

    /// Something that pods can go with, and whose controller makes none of its own.
    pub(crate) async fn stateful_set(&self, name: &str) -> StatefulSet {
        let template = json!({"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "master", "image": "gristmill.invalid/none:1"}]}});
        let spec = json!({"serviceName": "gm-masters", "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": template});
        let set = object(json!({"metadata": {"name": name}, "spec": spec}));
        self.api::<StatefulSet>().create(&PostParams::default(), &set).await.expect("a StatefulSet")
    }

    /// An administrator's launcher of one pool, "a", that does not lead yet.
    pub(crate) fn launcher(&self, pool: &str) -> Arc<Launcher> {
        self.launcher_with(self.client.clone(), "a", pool, |_| ())
    }

    pub(crate) fn launcher_with(
        &self,
        client: Client,
        name: &str,
        pool: &str,
        change: impl FnOnce(&mut Options),
    ) -> Arc<Launcher> {
        let folder = self.folder.path().join(unique());
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join(format!("{name}.yaml")), pool).expect("a file");
        let mut options =
            Options { namespace: self.namespace.clone(), prefix: PREFIX.into(), folder, owner: None, pod: None };
        change(&mut options);
        Launcher::new(client, options).expect("a launcher")
    }

    /// Takes away what it made. Best effort: without controllers a namespace is never gone, so what is in it goes
    /// first.
    pub(crate) async fn leave(self) {
        let namespaces = self.namespaces.lock().map(|all| all.clone()).unwrap_or_default();
        let tidy = async {
            for namespace in namespaces {
                empty(&self.client, &namespace).await;
                let api: Api<Namespace> = Api::all(self.client.clone());
                let _ = api.delete(&namespace, &DeleteParams::default()).await;
            }
        };
        let _ = timeout(TIDY_WITHIN, tidy).await;
    }
}

/// Whether a client may do something in a namespace.
async fn may(client: &Client, namespace: &str, verb: &str, resource: &str) -> Result<bool, String> {
    let attributes = json!({"namespace": namespace, "verb": verb, "resource": resource});
    let review: SelfSubjectAccessReview = object(json!({"spec": {"resourceAttributes": attributes}}));
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let done = api.create(&PostParams::default(), &review).await.map_err(|e| e.to_string())?;
    Ok(done.status.is_some_and(|status| status.allowed))
}

async fn empty(client: &Client, namespace: &str) {
    release::<MapReduceJob>(client, namespace).await;
    release::<ConfigMap>(client, namespace).await;
    clear::<MapReduceJob>(client, namespace).await;
    clear::<StatefulSet>(client, namespace).await;
    clear::<Object>(client, namespace).await;
    clear::<ResourceQuota>(client, namespace).await;
    clear::<Secret>(client, namespace).await;
    clear::<RoleBinding>(client, namespace).await;
    clear::<Role>(client, namespace).await;
    clear::<ServiceAccount>(client, namespace).await;
}

/// Takes finalizers off what has some: whoever would has gone.
async fn release<K>(client: &Client, namespace: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let Ok(all) = api.list(&ListParams::default()).await else { return };
    for one in all.items.iter().filter(|one| one.meta().finalizers.as_ref().is_some_and(|list| !list.is_empty())) {
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let _ = api.patch(one.meta().name.as_deref().unwrap_or_default(), &PatchParams::default(), &none).await;
    }
}

async fn clear<K>(client: &Client, namespace: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let _ = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
}

/// A seat of a launcher's one pool.
pub(crate) fn seat(launcher: &Launcher, index: u32) -> Seat {
    let pool = gristmill_engine::node::pods::Pods::pools(launcher).expect("it is good").remove(0);
    Seat { pool: pool.name, generation: pool.generation, index }
}

/// Waits, as the engine does, until a launcher tells so of its pods.
pub(crate) async fn seen(launcher: &Launcher, what: &str, within: Duration, so: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
    let told = timeout(within, async {
        loop {
            if let Ok(pods) = launcher.pods()
                && so(&pods)
            {
                return pods;
            }
            launcher.changed().await;
        }
    });
    told.await.unwrap_or_else(|_| panic!("{what}: not within {} s, but {:?}", within.as_secs(), launcher.pods()))
}

/// Makes a launcher lead, and waits until it has heard which pods there are.
pub(crate) async fn lead(launcher: &Launcher, term: u64) -> Vec<Pod> {
    launcher.lead(CLUSTER, Some(term));
    seen(launcher, "the list", WITHIN, |_| true).await
}
