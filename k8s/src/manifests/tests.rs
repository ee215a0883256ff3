//! What comes out of the choices, looked at as values.

use serde_json::Value;

use super::*;

fn parsed(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|one| !one.is_null()).collect()
}

fn rendered(choices: &Choices) -> Vec<Value> {
    parsed(&render(choices).unwrap())
}

fn find<'v>(all: &'v [Value], kind: &str, name: &str) -> &'v Value {
    all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name).unwrap()
}

/// The pool's file, parsed: how it is written is nothing that counts.
fn pool(all: &[Value]) -> Value {
    let file = find(all, "ConfigMap", "gristmill-pools")["data"]["default.yaml"].as_str().unwrap();
    serde_saphyr::from_str(file).unwrap()
}

fn arguments(of: &Value, at: &str) -> Vec<String> {
    of.pointer(at).unwrap().as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_string()).collect()
}

const MASTER: &str = "/spec/template/spec/containers/0/args";
const WORKER: &str = "/template/spec/containers/0/args";

#[test]
fn without_a_choice_it_is_what_the_chart_renders() {
    let all = rendered(&Choices::default());
    assert_eq!(all[0], serde_json::to_value(crd::crd()).unwrap(), "the definition comes before all that may need it");
    assert_eq!(all[1..], parsed(EMBEDDED));
    // Choosing what is the default anyway is no choice.
    let same = Choices {
        namespace: Some("gristmill".into()),
        masters: Some(3),
        image: pool(&all)["template"]["spec"]["containers"][0]["image"].as_str().map(String::from),
        store: None,
    };
    let again = rendered(&same);
    assert_eq!(pool(&again), pool(&all));
    let but_pools =
        |all: &[Value]| -> Vec<Value> { all.iter().filter(|one| one["kind"] != "ConfigMap").cloned().collect() };
    assert_eq!(but_pools(&again), but_pools(&all));
}

#[test]
fn it_is_the_same_text_each_time_in_the_order_of_the_chart() {
    let choices = Choices { masters: Some(5), ..Choices::default() };
    let text = render(&choices).unwrap();
    assert_eq!(text, render(&choices).unwrap());
    let place = |what: &str| text.find(what).unwrap();
    assert!(place("apiVersion: v1\nkind: Namespace") < place("kind: StatefulSet"));
    assert!(place("serviceName: gristmill-masters") < place("replicas: 5"));
    // Versions stay texts, whichever YAML reads them.
    assert!(text.contains("app.kubernetes.io/version: \"0.1.0\"") || text.contains("app.kubernetes.io/version: 0.1.0"));
}

#[test]
fn masters_know_all_of_their_peers() {
    for masters in [1, 3, 5] {
        let all = rendered(&Choices { masters: Some(masters), ..Choices::default() });
        let set = find(&all, "StatefulSet", "gristmill");
        assert_eq!(set["spec"]["replicas"], masters);
        let arguments = arguments(set, MASTER);
        let peers = arguments.iter().find_map(|one| one.strip_prefix("--peers=")).unwrap();
        let wanted: Vec<String> =
            (0..masters).map(|i| format!("gristmill-{i}.gristmill-masters.$(POD_NAMESPACE).svc:7070")).collect();
        assert_eq!(peers.split(',').collect::<Vec<_>>(), wanted);
    }
    for masters in [0, 2, 4, 7] {
        let refused = render(&Choices { masters: Some(masters), ..Choices::default() }).unwrap_err();
        assert!(refused.to_string().contains("1, 3 or 5"), "{refused}");
    }
}

#[test]
fn another_namespace_leaves_no_trace_of_the_old_one() {
    let all = rendered(&Choices { namespace: Some("batch".into()), ..Choices::default() });
    for one in &all[1..] {
        let place = if one["kind"] == "Namespace" { &one["metadata"]["name"] } else { &one["metadata"]["namespace"] };
        assert_eq!(place, "batch", "{}", one["kind"]);
        for subject in one["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], "batch");
        }
    }
    // Nothing else differs, so nothing else named it.
    let mut back = all;
    for one in &mut back[1..] {
        let field = if one["kind"] == "Namespace" { "name" } else { "namespace" };
        one["metadata"][field] = "gristmill".into();
        for subject in one.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            subject["namespace"] = "gristmill".into();
        }
    }
    assert_eq!(back, rendered(&Choices::default()));
    let text = render(&Choices { namespace: Some("batch".into()), ..Choices::default() }).unwrap();
    assert!(!text.contains("namespace: gristmill"));
    for bad in ["", "Batch", "a.b", "-a", "a-", &"a".repeat(64), "a b"] {
        let refused = render(&Choices { namespace: Some(bad.into()), ..Choices::default() }).unwrap_err();
        assert!(matches!(refused, Error::Namespace(_)), "{bad}");
    }
}

#[test]
fn an_image_is_in_three_places_and_in_no_other() {
    let image = "images.example/data/gristmill:1.2.3";
    let all = rendered(&Choices { image: Some(image.into()), ..Choices::default() });
    for (kind, name) in [("StatefulSet", "gristmill"), ("Job", "gristmill-init")] {
        assert_eq!(find(&all, kind, name).pointer("/spec/template/spec/containers/0/image").unwrap(), image);
    }
    assert_eq!(pool(&all)["template"]["spec"]["containers"][0]["image"], image);
    let text = render(&Choices { image: Some(image.into()), ..Choices::default() }).unwrap();
    assert_eq!(text.matches("image: ").count(), 3);
    assert_eq!(text.matches(image).count(), 3);
    for bad in ["", "a b", "a\nb", "-x", "a;b"] {
        assert!(
            matches!(render(&Choices { image: Some(bad.into()), ..Choices::default() }), Err(Error::Image(_))),
            "{bad}"
        );
    }
}

#[test]
fn a_store_in_buckets_needs_no_volume() {
    let url = "s3://bucket/prefix";
    let all = rendered(&Choices { store: Some(url.into()), ..Choices::default() });
    let (set, pool) = (find(&all, "StatefulSet", "gristmill"), pool(&all));
    let flag = format!("--store={url}");
    let (masters, workers) = (arguments(set, MASTER), arguments(&pool, WORKER));
    assert!(masters.contains(&flag) && workers.contains(&flag));
    let memory = workers.iter().position(|one| one.starts_with("--memory=")).unwrap();
    assert_eq!(workers[memory + 1], "--input-cache=4GiB");
    for pod in [&set["spec"]["template"]["spec"], &pool["template"]["spec"]] {
        let named = |list: &Value| list.as_array().unwrap().iter().any(|one| one["name"] == "store");
        assert!(!named(&pod["volumes"]) && !named(&pod["containers"][0]["volumeMounts"]));
        assert!(pod["volumes"].as_array().unwrap().len() > 1);
    }
    assert!(!all.iter().any(|one| one["kind"] == "PersistentVolumeClaim"));
    for name in ["gristmill-masters", "gristmill-workers"] {
        let rules = find(&all, "NetworkPolicy", name)["spec"]["egress"].as_array().unwrap();
        let last = rules.last().unwrap();
        assert_eq!(*last, serde_json::json!({"ports": [{"port": 443, "protocol": "TCP"}]}));
    }
    let text = render(&Choices { store: Some(url.into()), ..Choices::default() }).unwrap();
    assert!(!text.contains("/srv/gristmill") && !text.contains("gristmill-store"), "{text}");
    for bad in ["/srv/data", "s3://", "s3:///x", "http://x", "s3://a b", "s3://$(POD_IP)", ""] {
        let refused = render(&Choices { store: Some(bad.into()), ..Choices::default() }).unwrap_err();
        assert!(matches!(refused, Error::Store(_)), "{bad}");
    }
}

#[test]
fn a_rendering_that_does_not_fit_is_an_error() {
    let choices = Choices { masters: Some(5), ..Choices::default() };
    let mut none = documents("apiVersion: v1\nkind: Namespace\nmetadata: {name: gristmill}\n").unwrap();
    let refused = edit::apply(&mut none, &choices).unwrap_err();
    assert!(refused.to_string().contains("StatefulSet gristmill"), "{refused}");
    let mut other = documents(&EMBEDDED.replace("--peers=", "--others=")).unwrap();
    assert!(edit::apply(&mut other, &choices).is_err());
}

#[test]
fn what_looks_like_something_else_stays_a_text() {
    let text =
        "a: \"2\"\nb: \"0440\"\nc: 'yes'\nd: 288\ne: true\nf: null\ng: \"1.10\"\nh: []\ni: {}\nj: \"on\"\nk: \"1e3\"\n";
    let node = document(text).unwrap();
    let again = document(&print(&node).unwrap()).unwrap();
    assert_eq!(node, again);
    assert_eq!(node.at(&["b"]), Some(&Node::Text("0440".into())));
    assert_eq!(node.at(&["d"]), Some(&Node::Int(288)));
    let printed = print(&node).unwrap();
    for quoted in ["2", "0440", "yes", "on", "1.10", "1e3"] {
        let is = |mark: char| printed.contains(&format!(": {mark}{quoted}{mark}"));
        assert!(is('"') || is('\''), "{quoted} in {printed}");
    }
}
