//! Custom resources by the real client: definitions, schemas, rules, scale and status.

use std::time::Duration;

use gristmill_k8s_fake::Server;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

fn definition() -> CustomResourceDefinition {
    let spec = json!({"type": "object", "required": ["size"],
        "x-kubernetes-validations": [
            {"rule": "self.size <= 10", "message": "too large"},
            {"rule": "self.size >= oldSelf.size", "message": "may only grow"}],
        "properties": {
            "size": {"type": "integer", "minimum": 1},
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "value": {"type": "string"}}}}}});
    let schema = json!({"type": "object", "properties": {"spec": spec,
        "status": {"type": "object", "properties": {"done": {"type": "integer"}}}}});
    serde_json::from_value(json!({
        "metadata": {"name": "things.test.dev"},
        "spec": {"group": "test.dev", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.done"}}}]}
    }))
    .unwrap()
}

async fn begin() -> (Server, Client, Api<DynamicObject>) {
    let server = Server::start().await;
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig("default")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    let established = await_condition(definitions, "things.test.dev", conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(5), established).await.unwrap().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Thing"));
    let things = Api::default_namespaced_with(client.clone(), &resource);
    (server, client, things)
}

fn thing(spec: Value) -> DynamicObject {
    serde_json::from_value(
        json!({"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}),
    )
    .unwrap()
}

#[tokio::test]
async fn objects_are_held_against_schema_and_rules() {
    let (_server, _client, things) = begin().await;
    let create = |spec: Value| {
        let things = things.clone();
        async move { things.create(&PostParams::default(), &thing(spec)).await }
    };
    for (spec, field) in [
        (json!({}), "spec.size"),
        (json!({"size": 0}), "spec.size"),
        (json!({"size": "x"}), "spec.size"),
        (json!({"size": 1, "mode": "other"}), "spec.mode"),
        (json!({"size": 11}), "spec"),
        (json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}), "spec.parts[1]"),
    ] {
        let Err(kube::Error::Api(status)) = create(spec.clone()).await else { panic!("{spec} was taken") };
        assert_eq!((status.code, &status.reason[..]), (422, "Invalid"), "{spec}: {status:?}");
        assert_eq!(status.details.as_ref().unwrap().causes[0].field, field, "{status:?}");
    }
    let made = create(json!({"size": 3, "unknown": 1})).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 3, "mode": "fast"}));
    let smaller = things.patch("t", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": 2}}))).await;
    let Err(kube::Error::Api(status)) = smaller else { panic!("it shrank") };
    assert!(status.message.contains("may only grow"), "{}", status.message);
}

#[tokio::test]
async fn status_scale_and_generation_are_upstreams() {
    let (_server, _client, things) = begin().await;
    let made = things.create(&PostParams::default(), &thing(json!({"size": 3}))).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let status = Patch::Merge(json!({"spec": {"size": 5}, "status": {"done": 2}}));
    let told = things.patch_status("t", &PatchParams::default(), &status).await.unwrap();
    assert_eq!((told.data["spec"]["size"].as_i64(), told.data["status"]["done"].as_i64()), (Some(3), Some(2)));
    assert_eq!(told.metadata.generation, Some(1));
    let scale = things
        .patch_scale("t", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 4}})))
        .await
        .unwrap();
    assert_eq!((scale.spec.unwrap().replicas, scale.status.unwrap().replicas), (Some(4), 2));
    assert_eq!(things.get("t").await.unwrap().metadata.generation, Some(2));
    let strategic = things.patch("t", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"size": 6}}))).await;
    assert!(matches!(strategic, Err(kube::Error::Api(status)) if status.code == 415));
}

#[tokio::test]
async fn items_of_lists_have_appliers_of_their_own() {
    let (_server, _client, things) = begin().await;
    for (manager, name) in [("one", "a"), ("two", "b")] {
        let spec = json!({"size": 3, "parts": [{"name": name, "value": manager}]});
        things.patch("t", &PatchParams::apply(manager), &Patch::Apply(thing(spec))).await.unwrap();
    }
    let after = things.patch("t", &PatchParams::apply("one"), &Patch::Apply(thing(json!({"size": 3})))).await.unwrap();
    assert_eq!(after.data["spec"]["parts"], json!([{"name": "b", "value": "two"}]));
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let (server, client, things) = begin().await;
    things.create(&PostParams::default(), &thing(json!({"size": 3}))).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    definitions.delete("things.test.dev", &DeleteParams::default()).await.unwrap();
    for _ in 0..100 {
        if server.get("customresourcedefinitions", "", "things.test.dev").is_none() {
            let Err(kube::Error::Api(status)) = things.get("t").await else { panic!("still served") };
            return assert_eq!(status.code, 404);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the definition stays");
}

#[tokio::test]
async fn definitions_that_are_not_structural_are_refused() {
    let (_server, client, _things) = begin().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let mut bad: Value = serde_json::to_value(definition()).unwrap();
    bad["metadata"]["name"] = json!("others.test.dev");
    bad["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"minimum": 1});
    let bad: CustomResourceDefinition = serde_json::from_value(bad).unwrap();
    assert!(bad.name_any() == "others.test.dev");
    let Err(kube::Error::Api(status)) = definitions.create(&PostParams::default(), &bad).await else { panic!("taken") };
    assert!(
        status.code == 422 && status.message.contains("must not be empty for specified object fields"),
        "{status:?}"
    );
}
