//! Rights: what the manifests install is enough for masters, and for nothing beyond; and whose a token is.

use std::time::Duration;

use gristmill_engine::node::pods::{Event, Pods as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::events::v1::Event as Told;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{WITHIN, World, lead, object, other_pod, pool, refused, seat, seen, until};

/// The status code of a refusal; 0: it is none.
fn code<T>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        _ => 0,
    }
}

/// The operator's part is in `jobs.rs`, where all runs with these rights.
pub(crate) async fn the_masters_role_is_enough_for_pods(world: &World) {
    let client = world.master().await;
    let masters = world.stateful_set("masters").await;
    // A master may not read StatefulSets: its own pod says which one it is of.
    let uid = masters.metadata.uid.clone().expect("a UID");
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "masters", "uid": uid});
    let own = other_pod("this-master", json!({"ownerReferences": [owner]}));
    world.api::<Pod>().create(&PostParams::default(), &own).await.expect("a master");
    let launcher = world.launcher_with(client.clone(), "a", &pool(""), |options| {
        options.owner = Some(("StatefulSet".into(), "masters".into()));
        options.pod = Some("this-master".into());
    });
    assert_eq!(lead(&launcher, 1).await, []);
    assert_eq!(launcher.make(&seat(&launcher, 0), 1).await, Ok(()));
    assert_eq!(launcher.make(&seat(&launcher, 0), 1).await, Ok(()));
    let pod = seen(&launcher, "the pod", WITHIN, |pods| pods.len() == 1).await.remove(0);
    let made = world.api::<Pod>().get(&pod.name).await.expect("it is there");
    assert_eq!(made.metadata.owner_references.unwrap_or_default()[0].uid, uid);
    // There are no words yet, and that is no matter of rights.
    assert_eq!(launcher.last_words(&pod.name, &pod.uid, 1_000).await, "");
    let own: Api<Pod> = Api::namespaced(client.clone(), &world.namespace);
    assert_ne!(code(own.logs(&pod.name, &LogParams::default()).await), 403);
    for about in [Some((pod.name.clone(), pod.uid.clone())), None] {
        let event = Event { pod: about, reason: "ScaledUp".into(), text: "by one".into(), warning: false };
        for _ in 0..2 {
            launcher.tell(&event).await;
        }
    }
    until("events are written", WITHIN, async || {
        let all = world.api::<Told>().list(&ListParams::default()).await.expect("a list");
        let counts: Vec<_> = all.items.iter().filter(|one| one.reason.as_deref() == Some("ScaledUp")).collect();
        let counted = counts.iter().all(|one| one.series.as_ref().is_some_and(|series| series.count == 2));
        if counts.len() == 2 && counted { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert_eq!(launcher.delete(&pod.name, &pod.uid).await, Ok(()));
    seen(&launcher, "its end", WITHIN, <[_]>::is_empty).await;
}

pub(crate) async fn the_masters_role_is_no_more_than_enough(world: &World) {
    let client = world.master().await;
    let elsewhere = world.another(json!({})).await;
    world.stateful_set("masters").await;
    let secret: Secret = object(json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}));
    world.api().create(&PostParams::default(), &secret).await.expect("a Secret");
    let pod = other_pod("p", json!({}));
    world.api::<Pod>().create(&PostParams::default(), &pod).await.expect("a pod");
    fn of<K>(client: &kube::Client, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(client.clone(), namespace)
    }
    let here = &world.namespace;
    let (post, patch, all) = (PostParams::default(), PatchParams::default(), ListParams::default());
    let status = Patch::Strategic(json!({"status": {"phase": "Running"}}));
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let map: ConfigMap = object(json!({"metadata": {"name": "m"}, "data": {}}));
    let codes = [
        ("get a Secret", code(of::<Secret>(&client, here).get("s").await)),
        ("list Secrets", code(of::<Secret>(&client, here).list(&all).await)),
        ("get a ConfigMap", code(of::<ConfigMap>(&client, here).get("kube-root-ca.crt").await)),
        ("list ConfigMaps", code(of::<ConfigMap>(&client, here).list(&all).await)),
        ("create a ConfigMap", code(of::<ConfigMap>(&client, here).create(&post, &map).await)),
        ("create pods elsewhere", code(of::<Pod>(&client, &elsewhere).create(&post, &pod).await)),
        ("list pods elsewhere", code(of::<Pod>(&client, &elsewhere).list(&all).await)),
        ("list all pods", code(Api::<Pod>::all(client.clone()).list(&all).await)),
        ("label pods", code(of::<Pod>(&client, here).patch("p", &patch, &label).await)),
        ("write pods' statuses", code(of::<Pod>(&client, here).patch_status("p", &patch, &status).await)),
        ("get a StatefulSet", code(of::<StatefulSet>(&client, here).get("masters").await)),
        (
            "delete a StatefulSet",
            code(of::<StatefulSet>(&client, here).delete("masters", &DeleteParams::default()).await),
        ),
        ("get a Role", code(of::<Role>(&client, here).get("gristmill-master").await)),
    ];
    for (what, code) in codes {
        assert_eq!(code, 403, "masters can {what}: does this server authorise by RBAC?");
    }
    assert!(world.api::<StatefulSet>().get("masters").await.is_ok());
}

/// What a cluster is told of somebody else's token (`--kubernetes-tokens`).
pub(crate) async fn tokens_are_reviewed_for_whom_they_are(world: &World) {
    world.account_in(&world.namespace, "somebody").await;
    let api: Api<TokenReview> = Api::all(world.client.clone());
    let review = async |token: &str, audience: &str| -> Value {
        let review = object(json!({"spec": {"token": token, "audiences": [audience]}}));
        let done: TokenReview = api.create(&PostParams::default(), &review).await.expect("a review");
        serde_json::to_value(done.status.expect("it is told")).expect("JSON")
    };
    let token = world.token("somebody", &["gristmill"]).await;
    let said = review(&token, "gristmill").await;
    assert_eq!((&said["authenticated"], &said["audiences"]), (&json!(true), &json!(["gristmill"])), "{said}");
    assert_eq!(said["user"]["username"], format!("system:serviceaccount:{}:somebody", world.namespace));
    // For somebody else, and what is none.
    for (token, audience) in [(token.as_str(), "others"), ("a.b.c", "gristmill"), ("nonsense", "gristmill")] {
        let said = review(token, audience).await;
        assert!(said["authenticated"] != true && said["user"]["username"].as_str().is_none_or(str::is_empty), "{said}");
    }
    // Nor is it one for the API server.
    let client = world.client_of(token);
    let status = refused(
        client
            .apiserver_version()
            .await
            .and(Api::<Pod>::namespaced(client.clone(), &world.namespace).list(&ListParams::default()).await),
    );
    assert_eq!(status.code, 401, "{status:?}");
    // Whose account is gone has no token any more.
    let token = world.token("somebody", &["gristmill"]).await;
    let accounts = world.api::<k8s_openapi::api::core::v1::ServiceAccount>();
    accounts.delete("somebody", &DeleteParams::default()).await.expect("it was there");
    until("the token is known no more", Duration::from_secs(60), async || {
        let said = review(&token, "gristmill").await;
        if said["authenticated"] == true { Err(said.to_string()) } else { Ok(()) }
    })
    .await;
}
