//! What an installation gives and is looked at by: rights, and the doctor.

use gristmill_k8s::{doctor, manifests};
use gristmill_k8s_fake::Server;
use serde_json::Value;

use crate::{NAMESPACE, RIGHTS, connect};

/// What the other tests run with is what an installation gives.
#[test]
fn the_chart_gives_the_rights_that_the_operator_is_tested_with() {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(&manifests::render(&manifests::Choices::default()).unwrap()).unwrap();
    let role = all.iter().find(|one| one["kind"] == "Role" && one["metadata"]["name"] == "gristmill-master").unwrap();
    let rules = role["rules"].as_array().unwrap();
    for (group, resource, verbs) in RIGHTS {
        let is = |rule: &&Value| rule["apiGroups"][0] == group && rule["resources"][0] == resource;
        assert_eq!(rules.iter().find(is).map(|rule| &rule["verbs"]), Some(&serde_json::json!(verbs)), "{resource}");
    }
}

#[tokio::test]
async fn the_doctor_looks_at_what_the_manifests_install() {
    let server = Server::start().await;
    let choices = manifests::Choices { namespace: Some(NAMESPACE.into()), ..manifests::Choices::default() };
    let text = manifests::render(&choices).unwrap();
    let options = doctor::Options { namespace: NAMESPACE.into(), name: "gristmill".into(), in_pod: false };
    let client = connect(&server, None).await;
    let told =
        |all: &[doctor::Finding], check: &str| all.iter().filter(|one| one.check == check).map(|one| one.verdict).max();
    use doctor::Verdict::{Bad, Good};
    let nothing = doctor::examine(client.clone(), &options).await;
    for check in ["mapreducejobs", "namespace", "masters", "services"] {
        assert_eq!(told(&nothing, check), Some(Bad), "{check}: {nothing:#?}");
    }
    server.apply_yaml(&text, "").unwrap();
    let installed = doctor::examine(client, &options).await;
    for check in ["version", "mapreducejobs", "namespace", "network", "rights", "quota"] {
        assert_eq!(told(&installed, check), Some(Good), "{check}: {installed:#?}");
    }
    // There is neither a class for its volumes nor a master that runs.
    assert_eq!((told(&installed, "store"), told(&installed, "masters")), (Some(Bad), Some(Bad)), "{installed:#?}");
    // A master sees less, and that is no failure of anything.
    let token = server.token(NAMESPACE, "gristmill-master");
    let options = doctor::Options { in_pod: false, ..options };
    let own = doctor::examine(connect(&server, Some(&token)).await, &options).await;
    assert_eq!(told(&own, "rights"), Some(Good), "{own:#?}");
    assert_eq!(told(&own, "mapreducejobs"), Some(Good), "{own:#?}");
    assert!(own.iter().all(|one| one.verdict < Bad), "{own:#?}");
    server.stop();
    let none = doctor::examine(connect(&server, Some(&token)).await, &options).await;
    assert_eq!((none.len(), none[0].check, none[0].verdict), (1, "api", Bad));
}
