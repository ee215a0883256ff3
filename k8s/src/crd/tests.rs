//! The definition is what lies in `deploy`, and its rules refuse what they should, with words that help.

use std::path::Path;

use kube::core::cel::compile_schema;
use serde_json::{Value, json};

use super::*;

fn good() -> Value {
    json!({"app": {"name": "wordcount"}, "inputs": ["in/"], "output": "out/words"})
}

fn object(changes: &Value) -> MapReduceJob {
    let mut spec = good();
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(spec.as_object_mut().unwrap().remove(field)),
            value => spec[field] = value.clone(),
        }
    }
    MapReduceJob::new("job", serde_json::from_value(spec).unwrap())
}

#[test]
fn what_lies_in_deploy_is_what_is_generated() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for path in ["crd.yaml", "chart/crds/mapreducejobs.yaml"].map(|path| deploy.join(path)) {
        if std::env::var_os("GRISTMILL_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, yaml()).unwrap();
        }
        let lies = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(lies, yaml(), "{}: write it anew with GRISTMILL_UPDATE_GOLDEN=1", path.display());
    }
}

#[test]
fn the_text_says_what_the_definition_does() {
    let read: CustomResourceDefinition = serde_saphyr::from_str(&yaml()).unwrap();
    assert_eq!(read, crd());
    assert_eq!(read.metadata.name.as_deref(), Some("mapreducejobs.gristmill.dev"));
    assert_eq!(yaml(), yaml());
}

#[test]
fn nothing_may_be_null_and_nothing_is_filled_in() {
    // A field that is null, or that the server fills in, is one that rules would have to reckon with.
    let schema = serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let spec = &schema["properties"]["spec"];
    for (field, schema) in spec["properties"].as_object().unwrap() {
        assert!(schema.get("nullable").is_none() && schema.get("default").is_none(), "{field}: {schema}");
        assert!(schema.get("description").is_some(), "{field} is not explained");
    }
    assert_eq!(spec["required"], json!(["app", "inputs", "output"]));
    let conditions = &schema["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    for field in FIXED {
        assert!(spec["properties"].get(field).is_some(), "{field} is not there");
    }
    let may_change = ["suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"];
    let all = spec["properties"].as_object().unwrap().keys();
    let others: Vec<&str> = all.map(String::as_str).filter(|field| !may_change.contains(field)).collect();
    let mut fixed = FIXED.to_vec();
    fixed.sort_unstable();
    assert_eq!(others, fixed, "a field is neither fixed nor one that may change");
    let compiled = compile_schema(&schema);
    assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
}

#[test]
fn bounds_are_those_of_the_masters() {
    let schema = serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let field = |name: &str| &schema["properties"]["spec"]["properties"][name];
    let bounds = |name: &str| (field(name)["minimum"].as_f64().unwrap(), field(name)["maximum"].as_f64().unwrap());
    assert_eq!(bounds("reducers"), (1.0, 10_000.0));
    assert_eq!(bounds("mapTaskBytes"), (65_536.0, 17_179_869_184.0));
    assert_eq!(bounds("skipBadRecords"), (0.0, 100_000.0));
    assert_eq!(bounds("priority"), (-100.0, 100.0));
    assert_eq!(bounds("maxAttempts"), (1.0, 16.0));
    assert_eq!(field("inputs")["maxItems"], 1000);
    assert_eq!(field("inputs")["items"]["maxLength"], 1024);
    assert_eq!(field("output")["maxLength"], 1024);
    assert_eq!(field("requires")["maxItems"], 16);
    assert_eq!(field("requires")["items"]["maxLength"], 64);
    assert_eq!(field("labels")["maxProperties"], 32);
    assert_eq!(field("labels")["additionalProperties"]["maxLength"], 255);
    assert_eq!(field("compress")["enum"], json!(["gzip", "zstd"]));
    assert_eq!(field("phase")["enum"], json!(["map", "reduce"]));
    assert_eq!(field("app")["properties"]["arguments"]["maxItems"], 256);
}

#[test]
fn bad_specs_are_refused_with_words_that_help() {
    // What is changed in a good spec, and what must be said of it; nothing: it is good.
    let table: [(Value, &str); 24] = [
        (json!({}), ""),
        (json!({"output": "out/words/"}), ""),
        (json!({"output": "/out"}), "without '/' in front"),
        (json!({"output": "out/../etc"}), "'..'"),
        (json!({"output": ".."}), "'..'"),
        (json!({"output": "./out"}), "'.'"),
        (json!({"output": "out//words"}), "may be empty"),
        (json!({"output": "out/..words"}), ""),
        (json!({"output": "a.b/c..d"}), ""),
        (json!({"output": "in/words"}), "lies in one of the inputs"),
        (json!({"output": "in"}), "lies in one of the inputs"),
        (json!({"output": "in/"}), "lies in one of the inputs"),
        (json!({"output": "inside"}), ""),
        (json!({"output": "out", "inputs": ["a", "out"]}), "lies in one of the inputs"),
        (json!({"output": "a/b", "inputs": ["a/*.txt"]}), ""),
        (json!({"app": {"name": "grep", "pushed": "mine@3"}}), "one of the two"),
        (json!({"app": {"arguments": ["x"]}}), "one of the two"),
        (json!({"app": {"pushed": "mine@3", "arguments": ["--key"]}}), ""),
        (json!({"phase": "reduce", "inputs": ["a", "b"]}), "exactly one input"),
        (json!({"phase": "reduce", "inputs": ["a/"]}), ""),
        (json!({"phase": "map", "inputs": ["a", "b"]}), ""),
        (json!({"labels": {"": "x"}}), "1 to 63"),
        (json!({"labels": {"k".repeat(64): "x"}}), "1 to 63"),
        (json!({"labels": {"team": "search"}, "priority": -5, "compress": "zstd"}), ""),
    ];
    for (changes, wanted) in table {
        let told = object(&changes).validate_cel().map_err(|errors| errors.to_string());
        match (told, wanted) {
            (Ok(()), "") => {}
            (Err(told), wanted) if !wanted.is_empty() => assert!(told.contains(wanted), "{changes}: {told}"),
            (told, _) => panic!("{changes}: {told:?}, not {wanted:?}"),
        }
    }
}

#[test]
fn only_three_fields_change() {
    let table = [
        (json!({}), json!({"suspend": true}), true),
        (json!({"suspend": true}), json!({}), true),
        (json!({}), json!({"activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 0}), true),
        (json!({"ttlSecondsAfterFinished": 9}), json!({}), true),
        (json!({}), json!({"output": "out/others"}), false),
        (json!({}), json!({"inputs": ["in/", "more/"]}), false),
        (json!({}), json!({"app": {"name": "grep"}}), false),
        (json!({}), json!({"reducers": 3}), false),
        (json!({"reducers": 3}), json!({}), false),
        (json!({"reducers": 3}), json!({"reducers": 4}), false),
        (json!({}), json!({"mapTaskBytes": 65536}), false),
        (json!({}), json!({"format": "nul"}), false),
        (json!({}), json!({"compress": "gzip"}), false),
        (json!({"compress": "gzip"}), json!({"compress": "zstd"}), false),
        (json!({}), json!({"phase": "map"}), false),
        (json!({}), json!({"skipBadRecords": 1}), false),
        (json!({}), json!({"overwrite": true}), false),
        (json!({}), json!({"priority": 1}), false),
        (json!({}), json!({"maxAttempts": 1}), false),
        (json!({}), json!({"requires": ["python"]}), false),
        (json!({}), json!({"labels": {"a": "b"}}), false),
        (json!({}), json!({"noBackups": true}), false),
    ];
    for (before, after, allowed) in table {
        let told = object(&after).validate_cel_update(&object(&before)).map_err(|errors| errors.to_string());
        assert_eq!(told.is_ok(), allowed, "{before} -> {after}: {told:?}");
        if let Err(told) = told {
            assert!(told.contains("apply the other job under another name"), "{told}");
        }
    }
}
