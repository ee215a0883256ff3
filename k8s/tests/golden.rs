//! Pods as they are made, compared with files in `golden/`: what reaches Kubernetes is seen in a change's diff.
//!
//! `GRISTMILL_UPDATE_GOLDEN=1 cargo test -p gristmill-k8s --test golden` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_engine::node::pods::Seat;
use gristmill_k8s::pod::{Made, build};
use gristmill_k8s::pool::parse;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The pools' file of the manifests that everybody is given.
fn shipped() -> String {
    let text = fs::read_to_string(here("deploy/manifests.yaml")).expect("manifests");
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).expect("they are YAML");
    let pools = all.iter().find(|object| object["metadata"]["name"] == "gristmill-pools").expect("pools");
    pools["data"]["default.yaml"].as_str().expect("a pool").to_string()
}

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".into(),
        kind: "StatefulSet".into(),
        name: "gristmill".into(),
        uid: "5a17c1b1-0000-4000-8000-000000000001".into(),
        controller: Some(false),
        block_owner_deletion: Some(false),
    }
}

/// Makes the pod of a file, and compares.
fn golden(case: &str, file: &str, prefix: &str, owner: Option<&OwnerReference>, seat: (&str, u32)) {
    let file = parse(seat.0, file).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
    let (cluster, capabilities) = (0x0123_4567_89ab_cdef, &*file.pool.capabilities);
    let made = Made { prefix, cluster, term: 42, owner, template: &file.template, capabilities };
    let seat = Seat { pool: seat.0.into(), generation: file.pool.generation, index: seat.1 };
    let pod = build(made, &seat).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
    let name = pod.metadata.name.clone().unwrap_or_default();
    assert!(name.len() <= 63 && pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).is_some(), "{name}");
    let pod = serde_json::to_value(&pod).expect("JSON");
    let path = here("tests/golden").join(format!("{case}.yaml"));
    if std::env::var_os("GRISTMILL_UPDATE_GOLDEN").is_some() {
        let text = serde_saphyr::to_string(&pod).expect("YAML");
        fs::write(&path, format!("# Made by tests/golden.rs: GRISTMILL_UPDATE_GOLDEN=1 writes it anew.\n{text}"))
            .expect("a file");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let expected: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(pod, expected, "{case}: if that is meant, set GRISTMILL_UPDATE_GOLDEN=1 and look at the diff");
}

#[test]
fn the_pool_that_is_shipped() {
    golden("shipped", &shipped(), "gristmill", Some(&owner()), ("default", 0));
}

#[test]
fn a_pool_that_says_the_least() {
    let file = "max: 1\nslots: 1\ntemplate: {spec: {containers: [{name: worker, image: 'gristmill:0.1.0'}]}}";
    golden("least", file, "gristmill", None, ("a", 7));
}

/// Everything in it, with the longest names there can be.
#[test]
fn a_pool_that_says_much() {
    let file = "
max: 10000
slots: 8
capabilities: [python]
template:
  metadata:
    labels: {team: data}
    annotations: {example.com/note: 'yes'}
  spec:
    subdomain: workers
    terminationGracePeriodSeconds: 330
    nodeSelector: {disk: fast}
    tolerations: [{key: spot, operator: Exists, effect: NoSchedule}]
    initContainers:
      - {name: fetch, image: 'busybox:1', command: [sh, -c, 'true']}
    containers:
      - {name: proxy, image: 'proxy:1', env: [{name: A, value: b}]}
      - name: worker
        image: gristmill:0.1.0
        args: [worker, '--name=$(POD_NAME)', --slots, '8']
        env:
          - {name: POD_IP, value: 10.0.0.1}
          - {name: WHERE, value: '$(POD_NAMESPACE)/$(POD_NAME)'}
        resources: {limits: {memory: 4Gi, cpu: 2}}
    volumes:
      - {name: scratch, emptyDir: {sizeLimit: 10Gi}}
";
    let (prefix, pool) = ("r".repeat(53), "p".repeat(32));
    golden("much", file, &prefix, Some(&owner()), (&pool, 999_999));
}
