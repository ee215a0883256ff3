//! The definition of MapReduceJob as a server keeps it: what it takes, refuses in our words, prunes, and lets change.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use gristmill_k8s::crd::{self, MapReduceJob};

use crate::world::{DEFINITION, MANAGER, World, refused};

fn good() -> Value {
    json!({"app": {"name": "wordcount"}, "inputs": ["in/"], "output": "out/words"})
}

/// A good spec with changes; null leaves a field out.
fn with(changes: &Value) -> Value {
    let mut spec = good();
    for (field, value) in changes.as_object().expect("fields") {
        match value {
            Value::Null => drop(spec.as_object_mut().expect("fields").remove(field)),
            value => spec[field] = value.clone(),
        }
    }
    spec
}

/// Creates an object as it is written: types of ours would not let all of it through.
async fn create(world: &World, name: &str, spec: &Value, query: &str) -> Result<Value, kube::Error> {
    let object = json!({"apiVersion": "gristmill.dev/v1alpha1", "kind": "MapReduceJob", "metadata": {"name": name},
        "spec": spec, "status": {"phase": "Completed"}});
    let path = format!("/apis/gristmill.dev/v1alpha1/namespaces/{}/mapreducejobs{query}", world.namespace);
    let request = http::Request::post(path).header("Content-Type", "application/json");
    world.client.request(request.body(object.to_string().into_bytes()).expect("a request")).await
}

async fn patch(world: &World, name: &str, change: Value) -> Result<MapReduceJob, kube::Error> {
    world.api::<MapReduceJob>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await
}

/// Where something of `ours` is not in `theirs`. Numbers are the same however they are written.
fn lacks(ours: &Value, theirs: &Value, path: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().find_map(|(field, value)| {
            lacks(value, theirs.get(field).unwrap_or(&Value::Null), &format!("{path}.{field}"))
        }),
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => ours
            .iter()
            .zip(theirs)
            .enumerate()
            .find_map(|(at, (ours, theirs))| lacks(ours, theirs, &format!("{path}[{at}]"))),
        (Value::Number(ours), Value::Number(theirs)) if ours.as_f64() == theirs.as_f64() => None,
        (ours, theirs) if ours == theirs => None,
        _ => Some(format!("{path} is {theirs}, not {ours}")),
    }
}

pub(crate) async fn the_definition_is_taken_as_it_is(world: &World) {
    world.define().await;
    let api: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let there = api.get(DEFINITION).await.expect("it is there");
    let ours: Value = serde_saphyr::from_str(&crd::yaml()).expect("YAML");
    let theirs = serde_json::to_value(&there).expect("JSON");
    assert_eq!(lacks(&ours["spec"], &theirs["spec"], "spec"), None);
    // A server adds nothing to schemas: that is how the doctor knows one of another version.
    assert_eq!(there.spec.versions[0].schema, crd::crd().spec.versions[0].schema);
    let conditions = there.status.and_then(|status| status.conditions).unwrap_or_default();
    for (kind, wanted) in [("Established", "True"), ("NamesAccepted", "True")] {
        assert!(conditions.iter().any(|one| one.type_ == kind && one.status == wanted), "{kind}: {conditions:?}");
    }
    let wrong = |kind: &str| conditions.iter().find(|one| one.type_ == kind && one.status == "True");
    assert_eq!(wrong("NonStructuralSchema"), None);
}

pub(crate) async fn bad_specs_are_refused_with_words_that_help(world: &World) {
    world.define().await;
    // What is changed in a good spec, and what our rules say of it.
    let said = [
        (json!({"output": "/out"}), "without '/' in front"),
        (json!({"output": "out/../etc"}), "'..'"),
        (json!({"output": "./out"}), "'.'"),
        (json!({"output": "out//words"}), "may be empty"),
        (json!({"output": "in/words"}), "the output lies in one of the inputs"),
        (json!({"output": "in"}), "the output lies in one of the inputs"),
        (json!({"output": "out", "inputs": ["a", "out"]}), "the output lies in one of the inputs"),
        (json!({"app": {"name": "grep", "pushed": "mine@3"}}), "one of the two"),
        (json!({"app": {"arguments": ["x"]}}), "one of the two"),
        (json!({"phase": "reduce", "inputs": ["a", "b"]}), "phase reduce has exactly one input"),
        (json!({"labels": {"": "x"}}), "a label's key has 1 to 63 characters"),
        (json!({"labels": {"k".repeat(64): "x"}}), "a label's key has 1 to 63 characters"),
    ];
    for (changes, says) in said {
        let status = refused(create(world, "bad", &with(&changes), "").await);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{changes}: {status:?}");
        assert!(status.message.contains(says), "{changes}: {}", status.message);
    }
    // What the schema bounds, and the field that it is about.
    let fields = [
        (json!({"output": null}), "spec.output"),
        (json!({"output": ""}), "spec.output"),
        (json!({"inputs": []}), "spec.inputs"),
        (json!({"inputs": [""]}), "spec.inputs"),
        (json!({"app": {"pushed": "no good name"}}), "spec.app.pushed"),
        (json!({"reducers": 0}), "spec.reducers"),
        (json!({"reducers": 10_001}), "spec.reducers"),
        (json!({"reducers": "7"}), "spec.reducers"),
        (json!({"mapTaskBytes": 1}), "spec.mapTaskBytes"),
        (json!({"format": "csv"}), "spec.format"),
        (json!({"compress": "lzma"}), "spec.compress"),
        (json!({"phase": "shuffle"}), "spec.phase"),
        (json!({"skipBadRecords": -1}), "spec.skipBadRecords"),
        (json!({"priority": 101}), "spec.priority"),
        (json!({"maxAttempts": 17}), "spec.maxAttempts"),
        (json!({"requires": vec!["x"; 17]}), "spec.requires"),
        (json!({"activeDeadlineSeconds": 0}), "spec.activeDeadlineSeconds"),
        (json!({"ttlSecondsAfterFinished": -1}), "spec.ttlSecondsAfterFinished"),
    ];
    for (changes, field) in fields {
        let status = refused(create(world, "bad", &with(&changes), "").await);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{changes}: {status:?}");
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        assert!(causes.iter().any(|cause| cause.field.starts_with(field)), "{changes}: {causes:?}");
    }
}

pub(crate) async fn good_specs_are_taken_as_they_are(world: &World) {
    world.define().await;
    let table = [
        json!({}),
        json!({"output": "out/words/"}),
        json!({"output": "out/..words"}),
        json!({"output": "inside"}),
        json!({"output": "a/b", "inputs": ["a/*.txt"]}),
        json!({"app": {"pushed": "mine@3", "arguments": ["--key"]}}),
        json!({"phase": "reduce", "inputs": ["a/"]}),
        json!({"phase": "map", "inputs": ["a", "b"]}),
        json!({"labels": {"team": "search"}, "priority": -5, "compress": "zstd", "format": "fixed:100"}),
        json!({"reducers": 10_000, "mapTaskBytes": 17_179_869_184_i64, "skipBadRecords": 0, "maxAttempts": 16,
            "requires": ["python"], "noBackups": true, "overwrite": true, "suspend": true,
            "activeDeadlineSeconds": 31_536_000, "ttlSecondsAfterFinished": 0}),
        // The longest there can be: rules cost no more than a server lets them.
        json!({"output": "o".repeat(1_024), "inputs": (0..1_000).map(|at| format!("{at:01024}")).collect::<Vec<_>>()}),
    ];
    for (at, changes) in table.iter().enumerate() {
        let spec = with(changes);
        let made = create(world, &format!("good-{at}"), &spec, "").await;
        let made = made.unwrap_or_else(|e| panic!("{changes:.200}: {e}"));
        // Nothing has a default: what is left out stays so, for the masters to choose.
        assert_eq!(made["spec"], spec, "{changes:.200}");
        assert_eq!(made["metadata"]["generation"], 1);
    }
}

pub(crate) async fn only_three_fields_change(world: &World) {
    world.define().await;
    let before = json!({"reducers": 3, "compress": "gzip"});
    create(world, "words", &with(&before), "").await.expect("it is good");
    let refuses = [
        json!({"output": "out/others"}),
        json!({"inputs": ["in/", "more/"]}),
        json!({"app": {"name": "grep"}}),
        json!({"reducers": 4}),
        json!({"reducers": null}),
        json!({"compress": "zstd"}),
        json!({"compress": null}),
        json!({"mapTaskBytes": 65_536}),
        json!({"format": "nul"}),
        json!({"phase": "map"}),
        json!({"skipBadRecords": 1}),
        json!({"overwrite": true}),
        json!({"priority": 1}),
        json!({"maxAttempts": 1}),
        json!({"requires": ["python"]}),
        json!({"labels": {"a": "b"}}),
        json!({"noBackups": true}),
        json!({"suspend": true, "reducers": 4}),
    ];
    for change in refuses {
        let status = refused(patch(world, "words", json!({"spec": change})).await);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{change}: {status:?}");
        assert!(status.message.contains("apply the other job under another name"), "{change}: {}", status.message);
    }
    let takes = [
        json!({"suspend": true}),
        json!({"suspend": null}),
        json!({"activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 0}),
        json!({"activeDeadlineSeconds": 6}),
        json!({"ttlSecondsAfterFinished": null}),
    ];
    for (at, change) in takes.into_iter().enumerate() {
        let changed = patch(world, "words", json!({"spec": change})).await.unwrap_or_else(|e| panic!("{change}: {e}"));
        let generation = 2 + i64::try_from(at).expect("it is small");
        assert_eq!(changed.metadata.generation, Some(generation), "{change}");
    }
}

pub(crate) async fn unknown_fields_are_pruned_and_refused_when_strict(world: &World) {
    world.define().await;
    let spec = with(&json!({"reducer": 7, "app": {"name": "grep", "user": "root"}}));
    let made = create(world, "pruned", &spec, "").await.expect("it is taken");
    assert_eq!(made["spec"], with(&json!({"app": {"name": "grep"}})));
    let status = refused(create(world, "strict", &spec, "?fieldValidation=Strict").await);
    assert_eq!(status.code, 400, "{status:?}");
    assert!(status.message.contains("spec.reducer") && status.message.contains("spec.app.user"), "{}", status.message);
    create(world, "strict", &with(&json!({})), "?fieldValidation=Strict").await.expect("it has no unknown fields");
}

pub(crate) async fn spec_and_status_are_written_apart(world: &World) {
    world.define().await;
    let made = create(world, "words", &good(), "").await.expect("it is good");
    assert_eq!(made["status"], Value::Null, "a status was created with its object");
    let both = json!({"spec": {"suspend": true}, "status": {"phase": "Running", "progress": "map 1%"}});
    let by_spec = patch(world, "words", both.clone()).await.expect("it is taken");
    assert_eq!((by_spec.spec.suspend, by_spec.status, by_spec.metadata.generation), (true, None, Some(2)));
    let both = json!({"spec": {"suspend": false}, "status": both["status"]});
    let api = world.api::<MapReduceJob>();
    let by_status = api.patch_status("words", &PatchParams::default(), &Patch::Merge(&both)).await.expect("a status");
    let told = by_status.status.expect("a status");
    assert_eq!((by_status.spec.suspend, by_status.metadata.generation), (true, Some(2)));
    assert_eq!((told.phase, told.progress.as_deref()), (Some(crd::Phase::Running), Some("map 1%")));
    // A status has its schema, too.
    let wrong = Patch::Merge(json!({"status": {"phase": "Lost"}}));
    let status = refused(api.patch_status("words", &PatchParams::default(), &wrong).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{status:?}");
}

/// What keeps a master that does not lead any more from writing over what its successor wrote.
pub(crate) async fn a_status_is_written_against_what_was_read(world: &World) {
    world.define().await;
    create(world, "words", &good(), "").await.expect("it is good");
    let api = world.api::<MapReduceJob>();
    let read = api.get("words").await.expect("it is there");
    let params = PatchParams::apply(MANAGER).force();
    let write = async |version: &Option<String>, uid: &Option<String>, progress: &str| {
        let metadata = json!({"name": "words", "resourceVersion": version, "uid": uid});
        let applied = json!({"apiVersion": "gristmill.dev/v1alpha1", "kind": "MapReduceJob", "metadata": metadata,
            "status": {"progress": progress, "term": 1}});
        api.patch_status("words", &params, &Patch::Apply(applied)).await
    };
    let (version, uid) = (&read.metadata.resource_version, &read.metadata.uid);
    let written = write(version, uid, "map 1%").await.expect("nobody was faster");
    assert_ne!(written.metadata.resource_version, *version);
    assert_eq!(refused(write(version, uid, "map 2%").await).code, 409);
    let another = Some("00000000-0000-4000-8000-000000000000".to_string());
    let code = refused(write(&written.metadata.resource_version, &another, "map 2%").await).code;
    assert!([409, 422].contains(&code), "another object's status was written: {code}");
    let there = api.get("words").await.expect("it is there").status.expect("a status");
    assert_eq!(there.progress.as_deref(), Some("map 1%"));
    // What is applied again without a field has it no more.
    let applied = json!({"apiVersion": "gristmill.dev/v1alpha1", "kind": "MapReduceJob", "metadata": {"name": "words"},
        "status": {"term": 2}});
    let written = api.patch_status("words", &params, &Patch::Apply(applied)).await.expect("it is forced");
    let status = written.status.expect("a status");
    assert_eq!((status.progress, status.term), (None, 2));
}
