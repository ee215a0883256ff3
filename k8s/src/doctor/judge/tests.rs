//! What is found and what is thought of it, as tables.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::Verdict::{self, Bad, Good, Warning};
use super::*;
use crate::crd;

fn of<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The verdict, words of the finding, and that whoever has to do something is told what.
fn check(found: &Finding, verdict: Verdict, words: &str) {
    assert_eq!(found.verdict, verdict, "{found:?}");
    assert!(found.what.contains(words), "{words:?} is not in {found:?}");
    assert_eq!(found.verdict == Good, found.next_step.is_empty(), "{found:?}");
    assert!(!found.what.contains('\n') && !found.next_step.contains('\n'));
}

#[test]
fn versions_are_compared_as_numbers() {
    let told = |major: &str, minor: &str| {
        let info = Info {
            major: major.into(),
            minor: minor.into(),
            git_version: format!("v{major}.{minor}"),
            ..Info::default()
        };
        version(&info)
    };
    check(&told("1", "36"), Good, "v1.36");
    check(&told("1", "29"), Good, "");
    check(&told("1", "29+"), Good, "");
    check(&told("1", "100"), Good, "");
    check(&told("2", "0"), Good, "");
    check(&told("1", "28"), Bad, "v1.28");
    check(&told("1", "9"), Bad, "");
    check(&told("", "x"), Warning, "not a version");
}

#[test]
fn clocks_may_differ_by_two_seconds() {
    // 784111777 s after the epoch.
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let at = |ms: i64| Timestamp::from_millisecond(784_111_777_000 + ms).unwrap();
    for (begun, ended, verdict) in [
        (0, 10, Good),
        (990, 1_010, Good),
        (2_900, 2_910, Good),
        (3_100, 3_110, Warning),
        (-1_900, -1_890, Good),
        (-2_200, -2_100, Warning),
        (-10_000, 10_000, Good),
        (3_600_000, 3_600_010, Warning),
    ] {
        check(&clock(date, at(begun), at(ended)), verdict, "API server");
    }
    check(&clock(Some("yesterday"), at(0), at(0)), Warning, "does not tell");
    check(&clock(None, at(0), at(0)), Warning, "does not tell");
}

#[test]
fn a_missing_right_is_named() {
    let right = |verb: &str| Right {
        verb: verb.into(),
        group: String::new(),
        resource: "pods".into(),
        subresource: String::new(),
    };
    let told = |own, may: [Asked<bool>; 2]| {
        let all = [right("create"), right("delete")].into_iter().zip(may).collect();
        rights(&Rights { own, all }, "gm")
    };
    let (yes, no) = (Asked::There(true), Asked::There(false));
    check(&told(false, [yes.clone(), yes.clone()]), Good, "service account gm-master has all 2");
    check(&told(false, [yes.clone(), no.clone()]), Bad, "gm-master may not delete pods");
    check(&told(true, [yes.clone(), no.clone()]), Warning, "this user may not delete pods");
    check(&told(false, [yes, Asked::Unknown("x".into())]), Warning, "1 of 2");
    check(&rights(&Rights { own: true, all: Vec::new() }, "gm"), Warning, "not known");
}

#[test]
fn the_definition_is_there_and_is_this_one() {
    let wanted = crd::crd();
    let mut other = wanted.clone();
    other.spec.versions[0].schema = None;
    // What a server adds is no difference.
    let mut kept = wanted.clone();
    kept.spec.names.list_kind = Some("MapReduceJobList".into());
    check(&definition(Asked::There(wanted.clone()), None, &wanted), Good, "");
    check(&definition(Asked::There(kept), None, &wanted), Good, "");
    check(&definition(Asked::There(other), None, &wanted), Warning, "another");
    check(&definition(Asked::Missing, None, &wanted), Bad, "not installed");
    check(&definition(Asked::Forbidden, Some(Asked::There(())), &wanted), Good, "served");
    check(&definition(Asked::Forbidden, Some(Asked::Missing), &wanted), Bad, "not installed");
    check(&definition(Asked::Forbidden, Some(Asked::Forbidden), &wanted), Warning, "not known");
}

#[test]
fn the_namespace_lets_restricted_pods_in_alone() {
    let told = |labels: Value| namespace(Asked::There(of(&json!({"name": "batch", "labels": labels}))));
    check(&told(json!({LEVEL: "restricted"})), Good, "restricted");
    check(&told(json!({LEVEL: "baseline"})), Warning, "baseline");
    check(&told(json!({})), Warning, "any level");
    assert!(told(json!({})).next_step.contains("namespace batch "));
    check(&namespace(Asked::Missing), Bad, "no such namespace");
    check(&namespace(Asked::Forbidden), Warning, "may not look");
}

fn claim(name: &str, mode: &str, class: Value, phase: &str) -> PersistentVolumeClaim {
    of(&json!({
        "metadata": {"name": name}, "spec": {"accessModes": [mode], "storageClassName": class}, "status": {"phase": phase},
    }))
}

fn classes() -> Asked<Vec<StorageClass>> {
    let class = |name: &str, provisioner: &str, is_default: &str| {
        let annotations = json!({DEFAULT_CLASS: is_default});
        of(&json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner}))
    };
    Asked::There(vec![
        class("disk", "ebs.csi.aws.com", "true"),
        class("longhorn", "driver.longhorn.io", "false"),
        class("odd", "example.com/odd", "false"),
    ])
}

#[test]
fn a_store_is_a_volume_that_many_nodes_write() {
    let (rwx, rwo) = ("ReadWriteMany", "ReadWriteOnce");
    let table = [
        (rwx, json!("longhorn"), "Bound", Good, "driver.longhorn.io"),
        (rwo, json!("longhorn"), "Bound", Bad, "only one node can write"),
        (rwx, json!("disk"), "Pending", Bad, "ebs.csi.aws.com has no volumes"),
        (rwx, Value::Null, "Pending", Bad, "ebs.csi.aws.com has no volumes"),
        (rwx, json!("odd"), "Bound", Warning, "not known whether"),
        (rwx, json!("longhorn"), "Pending", Warning, "is Pending"),
        (rwx, json!("longhorn"), "Lost", Bad, "lost its volume"),
        (rwx, json!("none"), "Pending", Bad, "no storage class none"),
        (rwx, json!(""), "Bound", Good, "is bound"),
    ];
    for (mode, class, phase, verdict, words) in table {
        let found = volumes(Asked::There(vec![claim("gm-store", mode, class, phase)]), classes(), "gm");
        assert_eq!((found.len(), found[0].check), (1, "store"));
        check(&found[0], verdict, words);
    }
    let nobody_says = volumes(Asked::There(vec![claim("gm-store", rwx, Value::Null, "Bound")]), Asked::Forbidden, "gm");
    check(&nobody_says[0], Good, "is bound");
    let no_default =
        volumes(Asked::There(vec![claim("gm-store", rwx, Value::Null, "Pending")]), Asked::There(vec![]), "gm");
    check(&no_default[0], Bad, "none is the default");
}

#[test]
fn masters_have_volumes_of_their_own() {
    let data = |phase: &str, class: &str| claim("data-gm-0", "ReadWriteOnce", json!(class), phase);
    let told = |one| volumes(Asked::There(vec![one]), classes(), "gm");
    let found = told(data("Bound", "disk"));
    check(&found[0], Good, "data-gm-0 is bound");
    check(&found[1], Good, "buckets");
    check(&told(data("Pending", "disk"))[0], Warning, "is Pending");
    check(&told(data("Pending", "gone"))[0], Bad, "no storage class gone");
    check(&volumes(Asked::Forbidden, classes(), "gm")[0], Warning, "not known");
}

#[test]
fn a_service_has_masters_behind_it() {
    let there = || Asked::There(Service::default());
    let slices = |ready: &[Value]| {
        let endpoint = |ready: &Value| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}});
        let endpoints: Vec<Value> = ready.iter().map(endpoint).collect();
        Asked::There(vec![of::<EndpointSlice>(&json!({"addressType": "IPv4", "endpoints": endpoints}))])
    };
    let yes = [json!(true), json!(null), json!(false)];
    check(&service("gm-masters", there(), slices(&yes), "gm"), Good, "2 addresses");
    check(&service("gm-masters", there(), slices(&[json!(false)]), "gm"), Bad, "nothing answers");
    check(&service("gm", there(), Asked::There(vec![]), "gm"), Bad, "nothing answers");
    check(&service("gm-workers", there(), Asked::There(vec![]), "gm"), Good, "0 addresses");
    check(&service("gm", Asked::Missing, slices(&yes), "gm"), Bad, "no Service gm");
    check(&service("gm", Asked::Forbidden, slices(&yes), "gm"), Warning, "not known");
    check(&service("gm", there(), Asked::Forbidden, "gm"), Warning, "not known");
    check(&dns("h", Ok(3)), Good, "3");
    check(&dns("h", Ok(0)), Bad, "no address");
    check(&dns("h", Err("no such name".into())), Bad, "no such name");
}

#[test]
fn policies_are_there_or_asked_for() {
    let told = |of: Asked<()>| network(BTreeMap::from([("a".to_string(), Asked::There(())), ("b".to_string(), of)]));
    check(&told(Asked::There(())), Good, "there");
    check(&told(Asked::Missing), Warning, "no NetworkPolicy b:");
    check(&told(Asked::Forbidden), Warning, "NetworkPolicy b: not known");
}

#[test]
fn masters_have_a_majority() {
    let told = |wanted: i32, ready: Option<i32>| {
        let spec = json!({"replicas": wanted, "selector": {}, "serviceName": "x", "template": {}});
        let mut set: StatefulSet = of(&json!({"spec": spec, "status": {"replicas": wanted}}));
        set.status.as_mut().unwrap().ready_replicas = ready;
        masters(Asked::There(set), "gm")
    };
    check(&told(3, Some(3)), Good, "3 of 3");
    check(&told(3, Some(2)), Warning, "2 of 3");
    check(&told(3, Some(1)), Bad, "no majority");
    check(&told(5, Some(3)), Warning, "3 of 5");
    check(&told(1, None), Bad, "0 of 1");
    check(&masters(Asked::Missing, "gm"), Bad, "no StatefulSet gm");
}

#[test]
fn pods_that_are_not_as_they_should_be_say_why() {
    let pod = |name: &str, status: Value| of::<Pod>(&json!({"metadata": {"name": name}, "status": status}));
    let ready = |ready: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    let waits = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]});
    let told = |all: Vec<Pod>| pods(Asked::There(all));
    check(&told(vec![pod("a", ready("True"))])[0], Good, "all 1");
    let found = told(vec![pod("a", ready("False")), pod("b", waits), pod("c", ready("True"))]);
    assert_eq!(found.len(), 2);
    check(&found[0], Warning, "pod a runs and is not ready");
    check(&found[1], Warning, "0/3 nodes");
    let many = told((0..30).map(|i| pod(&format!("p{i}"), ready("False"))).collect());
    assert_eq!(many.len(), NAMED + 1);
    check(&many[NAMED], Warning, "and 20 more");
}

#[test]
fn quotas_have_room() {
    let told = |hard: Value, used: Value| {
        let one = of::<ResourceQuota>(&json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}}));
        quota(Asked::There(vec![one]))
    };
    check(&told(json!({"pods": "10"}), json!({"pods": "3"})), Good, "room");
    check(&told(json!({"pods": "10"}), json!({"pods": "10"})), Bad, "10 of 10 pods");
    check(
        &told(json!({"pods": "10", "requests.cpu": "4"}), json!({"pods": "1", "requests.cpu": "3700m"})),
        Warning,
        "3700m of 4",
    );
    check(&told(json!({"requests.memory": "1Ti"}), json!({"requests.memory": "1000Gi"})), Warning, "1000Gi of 1Ti");
    check(&told(json!({"pods": "10"}), json!({})), Good, "room");
    check(&quota(Asked::There(vec![])), Good, "none");
    check(&quota(Asked::Forbidden), Warning, "not known");
    for (text, wanted) in [("100m", 0.1), ("4Gi", 4_294_967_296.0), ("1e3", 1_000.0), ("2k", 2_000.0), ("1.5", 1.5)] {
        assert_eq!(number(&Quantity(text.into())), Some(wanted), "{text}");
    }
    assert_eq!(number(&Quantity("4Zi".into())), None);
}
