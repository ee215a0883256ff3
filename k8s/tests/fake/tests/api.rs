//! The API server by the real client: what upstream's documentation promises, and what goes wrong on purpose.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, pin_mut};
use gristmill_k8s_fake::{Rule, Server};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod};
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, ResourceExt,
    WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, Resource};
use serde_json::{Value, json};

async fn client_of(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // A refusal with 429 is to be seen, not to be tried again for minutes.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn begin() -> (Server, Client) {
    let server = Server::start().await;
    let client = client_of(&server.kubeconfig("default")).await;
    (server, client)
}

fn pod(name: &str) -> Pod {
    let pod = json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    serde_json::from_value(pod).unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": value}})).unwrap()
}

fn status(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// Tries again soon, however often it failed.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(50))
    }
}

impl kube::runtime::utils::Backoff for Soon {
    fn reset(&mut self) {}
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn objects_live_and_conflicts_are_told() {
    let (_server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let made = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(made.meta().generation, Some(1));
    assert_eq!(made.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    let again = status(pods.create(&PostParams::default(), &pod("a")).await.unwrap_err());
    assert_eq!(
        (again.code, &again.reason[..], &again.message[..]),
        (409, "AlreadyExists", "pods \"a\" already exists")
    );

    let mut changed = made.clone();
    changed.labels_mut().insert("x".into(), "y".into());
    let newer = pods.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(newer.resource_version(), made.resource_version());
    let stale = status(pods.replace("a", &PostParams::default(), &changed).await.unwrap_err());
    assert_eq!((stale.code, &stale.reason[..]), (409, "Conflict"));

    let mut other = newer.clone();
    other.spec.as_mut().unwrap().containers[0].args = Some(vec!["x".into()]);
    let refused = status(pods.replace("a", &PostParams::default(), &other).await.unwrap_err());
    assert_eq!((refused.code, &refused.reason[..]), (422, "Invalid"));
    let missing = status(pods.get("b").await.unwrap_err());
    assert_eq!((missing.code, &missing.message[..]), (404, "pods \"b\" not found"));
}

#[tokio::test]
async fn names_are_made() {
    let (_server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut map = config_map("a", "1");
    map.metadata = ObjectMeta { generate_name: Some("a-".into()), ..ObjectMeta::default() };
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(made.name_any().len() == 7 && made.name_any().starts_with("a-"), "{}", made.name_any());
}

#[tokio::test]
async fn dry_runs_answer_as_if_and_leave_nothing() {
    let (server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = maps.create(&dry, &config_map("dry", "1")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dry"}, "data": {"a": "1"}});
    let apply = PatchParams::apply("t").dry_run();
    maps.patch("dry", &apply, &Patch::Apply(&applied)).await.unwrap();
    assert!(maps.get_opt("dry").await.unwrap().is_none());
    // Of what is there, too.
    let there = maps.create(&PostParams::default(), &config_map("dry", "0")).await.unwrap();
    let taken = status(maps.create(&dry, &config_map("dry", "1")).await.unwrap_err());
    assert_eq!((taken.code, &taken.reason[..]), (409, "AlreadyExists"));
    let forced = maps.patch("dry", &apply.clone().force(), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(forced.data.unwrap()["a"], "1");
    assert_eq!(status(maps.patch("dry", &apply, &Patch::Apply(&applied)).await.unwrap_err()).code, 409);
    let merge = PatchParams { dry_run: true, ..PatchParams::default() };
    let merged = maps.patch("dry", &merge, &Patch::Merge(json!({"data": {"a": "2"}}))).await.unwrap();
    assert_eq!(merged.data.unwrap()["a"], "2");
    let mut replaced = there.clone();
    replaced.data = config_map("dry", "3").data;
    assert_eq!(maps.replace("dry", &dry, &replaced).await.unwrap().data.unwrap()["a"], "3");
    maps.delete("dry", &DeleteParams::default().dry_run()).await.unwrap();
    maps.delete_collection(&DeleteParams::default().dry_run(), &ListParams::default()).await.unwrap();
    // What comes with an object does not come, nor what only a definition would serve.
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "dry"}})).unwrap();
    Api::all(client.clone()).create(&dry, &namespace).await.unwrap();
    assert!(server.get("serviceaccounts", "dry", "default").is_none());
    assert_eq!(maps.get("dry").await.unwrap(), there);
    // There is one way to be dry.
    let path = "/api/v1/namespaces/default/configmaps?dryRun=Some";
    let body = serde_json::to_vec(&config_map("odd", "1")).unwrap();
    let refused = client.request::<Value>(hyper::Request::post(path).body(body).unwrap()).await;
    assert_eq!(status(refused.unwrap_err()).code, 422);
}

#[tokio::test]
async fn unknown_fields_are_refused_when_strict() {
    let (_server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let patch = Patch::Merge(json!({"daat": {"b": "2"}}));
    let strict = PatchParams::default().validation_strict();
    let refused = status(maps.patch("a", &strict, &patch).await.unwrap_err());
    assert!(refused.code == 400 && refused.message.contains("unknown field \"daat\""), "{refused:?}");
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn the_status_changes_by_its_subresource_alone() {
    let (_server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let running = Patch::Merge(json!({"status": {"phase": "Running"}, "metadata": {"labels": {"l": "1"}}}));
    let by_main = pods.patch("a", &PatchParams::default(), &running).await.unwrap();
    assert_eq!(by_main.status.unwrap().phase.as_deref(), Some("Pending"));
    let by_status = pods.patch_status("a", &PatchParams::default(), &running).await.unwrap();
    assert_eq!(by_status.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(by_status.metadata.generation, Some(1));
}

#[tokio::test]
async fn lists_select_and_go_on() {
    let (server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    for name in ["a", "b", "c", "d", "e"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
    let names = |list: &kube::api::ObjectList<Pod>| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let some = pods.list(&ListParams::default().labels("app in (b, d)")).await.unwrap();
    assert_eq!(names(&some), ["b", "d"]);
    let one = pods.list(&ListParams::default().fields("metadata.name=c,status.phase=Pending")).await.unwrap();
    assert_eq!(names(&one), ["c"]);
    assert_eq!(status(pods.list(&ListParams::default().fields("spec.x=1")).await.unwrap_err()).code, 400);

    let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    pods.delete("c", &DeleteParams::default()).await.unwrap();
    let second = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!((names(&first), names(&second)), (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()]));
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
    server.compact();
    let gone = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap_err();
    assert_eq!(status(gone).code, 410);
}

#[tokio::test]
async fn watches_tell_changes_bookmarks_and_their_end() {
    let (server, client) = begin().await;
    server.bookmarks_every(Duration::from_millis(100));
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let watch = pods.watch(&WatchParams::streaming_lists().labels("app=a"), "").await.unwrap();
    pin_mut!(watch);
    let Some(WatchEvent::Added(first)) = watch.try_next().await.unwrap() else { panic!("no initial event") };
    assert_eq!(first.name_any(), "a");
    let Some(WatchEvent::Bookmark(mark)) = watch.try_next().await.unwrap() else { panic!("no bookmark") };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
    pods.create(&PostParams::default(), &pod("other")).await.unwrap();
    let Some(WatchEvent::Bookmark(mark)) = watch.try_next().await.unwrap() else { panic!("no bookmark") };
    assert!(mark.metadata.annotations.is_empty());
    // An object that no longer matches is deleted for this watch.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "z"}}}));
    pods.patch("a", &PatchParams::default(), &patch).await.unwrap();
    loop {
        match watch.try_next().await.unwrap() {
            Some(WatchEvent::Deleted(pod)) => break assert_eq!(pod.name_any(), "a"),
            Some(WatchEvent::Bookmark(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let short = pods.watch(&WatchParams::default().timeout(1), "0").await.unwrap();
    assert!(short.count().await >= 2);
}

#[tokio::test]
async fn a_reflector_survives_410_drops_and_a_restart() {
    let (server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (store, writer) = reflector::store();
        let stream = reflector(writer, watcher(pods.clone(), config)).backoff(Soon);
        let task = tokio::spawn(stream.for_each(|_| async {}));
        store.wait_until_ready().await.unwrap();
        let has = |name: &'static str| {
            let store = store.clone();
            move || store.state().iter().any(|pod| pod.name_any() == name)
        };
        until("the first pod", has("a")).await;
        server.drop_watches();
        pods.create(&PostParams::default(), &pod("b")).await.unwrap();
        until("a pod after a drop", has("b")).await;
        server.compact();
        server.drop_watches();
        pods.create(&PostParams::default(), &pod("c")).await.unwrap();
        until("a pod after 410", has("c")).await;
        server.stop();
        assert!(pods.get("a").await.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.start_again().await;
        pods.create(&PostParams::default(), &pod("e")).await.unwrap();
        until("a pod after a restart", has("e")).await;
        task.abort();
        for name in ["b", "c", "e"] {
            pods.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_gone_by_event_or_by_status() {
    let (server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let version = pods.create(&PostParams::default(), &pod("a")).await.unwrap().resource_version().unwrap();
    server.compact();
    let watch = pods.watch(&WatchParams::default(), &version).await.unwrap();
    pin_mut!(watch);
    let Some(WatchEvent::Error(gone)) = watch.try_next().await.unwrap() else { panic!("no error") };
    assert_eq!((gone.code, &gone.reason[..]), (410, "Expired"));
    server.gone_by_status(true);
    let Err(gone) = pods.watch(&WatchParams::default(), &version).await else { panic!("it watches") };
    assert_eq!(status(gone).code, 410);
}

#[tokio::test]
async fn appliers_own_their_fields() {
    let (_server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let apply = |manager: &str, data: Value| {
        let maps = maps.clone();
        let params = PatchParams::apply(manager);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
        async move { maps.patch("m", &params, &Patch::Apply(body)).await }
    };
    apply("one", json!({"a": "1", "b": "1"})).await.unwrap();
    let conflict = status(apply("two", json!({"a": "2"})).await.unwrap_err());
    assert_eq!((conflict.code, &conflict.reason[..]), (409, "Conflict"));
    let cause = &conflict.details.unwrap().causes[0];
    assert_eq!((&cause.reason[..], &cause.field[..]), ("FieldManagerConflict", ".data.a"));
    apply("two", json!({"a": "1", "c": "1"})).await.unwrap();
    // What one leaves out and two manages stays; what nobody manages goes.
    let left = apply("one", json!({})).await.unwrap();
    let data = left.data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["a", "c"]);
    let forced = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "9"}});
    maps.patch("m", &PatchParams::apply("three").force(), &Patch::Apply(forced)).await.unwrap();
    let conflict = status(apply("two", json!({"a": "1", "c": "1"})).await.unwrap_err());
    assert!(conflict.message.contains("\"three\""), "{}", conflict.message);
}

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let (_server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut map = config_map("a", "1");
    map.metadata.finalizers = Some(vec!["gristmill.dev/hold".into()]);
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let wrong =
        DeleteParams::default().preconditions(Preconditions { uid: Some("other".into()), resource_version: None });
    assert_eq!(status(maps.delete("a", &wrong).await.unwrap_err()).code, 409);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let dying = maps.get("a").await.unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some() && dying.uid() == made.uid());
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["gristmill.dev/hold", "gristmill.dev/more"]}}));
    assert_eq!(status(maps.patch("a", &PatchParams::default(), &more).await.unwrap_err()).code, 422);
    let none =
        Patch::Json::<()>(serde_json::from_value(json!([{"op": "remove", "path": "/metadata/finalizers"}])).unwrap());
    maps.patch("a", &PatchParams::default(), &none).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn dependents_go_with_their_owner_unless_orphaned() {
    let (server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for (policy, stays) in
        [(DeleteParams::background(), false), (DeleteParams::foreground(), false), (DeleteParams::orphan(), true)]
    {
        let owner = maps.create(&PostParams::default(), &config_map("owner", "1")).await.unwrap();
        let mut dependent = config_map("dependent", "1");
        dependent.metadata.owner_references = Some(vec![owner.owner_ref(&()).unwrap()]);
        maps.create(&PostParams::default(), &dependent).await.unwrap();
        maps.delete("owner", &policy).await.unwrap();
        until("the owner goes", || server.get("configmaps", "default", "owner").is_none()).await;
        if stays {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(maps.get("dependent").await.unwrap().metadata.owner_references.is_none_or(|list| list.is_empty()));
        } else {
            until("the dependent goes", || server.get("configmaps", "default", "dependent").is_none()).await;
        }
    }
}

#[tokio::test]
async fn namespaces_take_all_with_them() {
    let (server, client) = begin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "x");
    let missing = maps.create(&PostParams::default(), &config_map("a", "1")).await;
    assert_eq!(status(missing.unwrap_err()).code, 404);
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    namespaces.delete("x", &DeleteParams::default()).await.unwrap();
    until("the namespace goes", || server.get("namespaces", "", "x").is_none()).await;
    assert!(server.list("configmaps", Some("x")).is_empty());
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let (server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    server
        .apply_yaml(
            "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}}",
            "default",
        )
        .unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("a", &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
    let refused = status(pods.evict("a", &EvictParams::default()).await.unwrap_err());
    assert_eq!((refused.code, &refused.reason[..]), (429, "TooManyRequests"));
    pods.create(&PostParams::default(), &pod("free")).await.unwrap();
    pods.evict("free", &EvictParams::default()).await.unwrap();
    assert!(pods.get_opt("free").await.unwrap().is_none());
}

#[tokio::test]
async fn faults_are_what_a_client_meets() {
    let (server, client) = begin().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    server.quota(Some(1));
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let full = status(pods.create(&PostParams::default(), &pod("b")).await.unwrap_err());
    let message = "pods \"b\" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!((full.code, &full.message[..]), (403, message));
    server.quota(None);
    server
        .apply_yaml("{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {pods: '1'}}}", "default")
        .unwrap();
    assert_eq!(status(pods.create(&PostParams::default(), &pod("b")).await.unwrap_err()).code, 403);
    server.deny("create", "", "pods");
    let denied = status(pods.create(&PostParams::default(), &pod("b")).await.unwrap_err());
    let message = "pods is forbidden: User \"kubernetes-admin\" cannot create resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((denied.code, &denied.message[..]), (403, message));
    server.forget_calls();
    server.throttle(1);
    assert_eq!(status(pods.get("a").await.unwrap_err()).code, 429);
    assert_eq!(server.calls()[0].status, 429);
    pods.get("a").await.unwrap();
    let calls = server.calls();
    let last = calls.last().unwrap();
    assert_eq!((&last.verb[..], &last.resource[..], &last.name[..], last.status), ("get", "pods", "a", 200));
    assert_eq!(last.user, "kubernetes-admin");
}

#[tokio::test]
async fn namespaces_enforce_pod_security() {
    let (_server, client) = begin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let labels = Patch::Merge(json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}));
    namespaces.patch("default", &PatchParams::default(), &labels).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let refused = status(pods.create(&PostParams::default(), &pod("a")).await.unwrap_err());
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("violates PodSecurity \"restricted:latest\""), "{}", refused.message);
}

#[tokio::test]
async fn tokens_may_do_what_their_role_says() {
    let (server, admin) = begin().await;
    let token = server.enforce("default", "worker", &[Rule::new(&[""], &["pods"], &["get", "list"])]);
    let client = client_of(&server.kubeconfig_of(&token, "default")).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.list(&ListParams::default()).await.unwrap();
    let refused = status(pods.create(&PostParams::default(), &pod("a")).await.unwrap_err());
    let message = "pods is forbidden: User \"system:serviceaccount:default:worker\" cannot create resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((refused.code, &refused.message[..]), (403, message));
    assert_eq!(status(Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.unwrap_err()).code, 403);
    let wrong = client_of(&server.kubeconfig_of("nobody", "default")).await;
    assert_eq!(status(Api::<Pod>::default_namespaced(wrong).get("a").await.unwrap_err()).code, 401);

    let asked = ResourceAttributes {
        namespace: Some("default".into()),
        verb: Some("list".into()),
        resource: Some("pods".into()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..Default::default() },
        ..Default::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client).create(&PostParams::default(), &review).await.unwrap();
    assert!(answer.status.unwrap().allowed);
    let review = TokenReview { spec: TokenReviewSpec { token, ..Default::default() }, ..Default::default() };
    let answer = Api::<TokenReview>::all(admin).create(&PostParams::default(), &review).await.unwrap();
    let answer = answer.status.unwrap();
    assert_eq!(answer.user.unwrap().username.as_deref(), Some("system:serviceaccount:default:worker"));
    assert_eq!(answer.authenticated, Some(true));
}

#[tokio::test]
async fn events_of_both_apis_are_the_same() {
    let (_server, client) = begin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let recorder = Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: Some("one".into()) });
    let event = kube::runtime::events::Event {
        type_: EventType::Warning,
        reason: "Odd".into(),
        note: Some("it is odd".into()),
        action: "Looking".into(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &map.object_ref(&())).await.unwrap();
    }
    let events: Api<Event> = Api::default_namespaced(client);
    let found = events.list(&ListParams::default().fields("involvedObject.name=a,type=Warning")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("it is odd"));
    assert_eq!(found.items[0].series.as_ref().and_then(|series| series.count), Some(2));
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let (_server, client) = begin().await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let discovery = kube::discovery::Discovery::new(client.clone()).run().await.unwrap();
    let names: Vec<&str> = discovery.groups().map(|group| group.name()).collect();
    assert!(names.contains(&"") && names.contains(&"apps") && names.contains(&"events.k8s.io"), "{names:?}");
    let aggregated = kube::discovery::Discovery::new(client).run_aggregated().await.unwrap();
    let (resource, _) = aggregated.resolve_gvk(&kube::core::GroupVersionKind::gvk("batch", "v1", "Job")).unwrap();
    assert_eq!(resource.plural, "jobs");
}
