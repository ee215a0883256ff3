//! From manifests to a result, and what of Kubernetes was used on the way: rights are those that are needed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::mill::{Choice, Mill, NAMESPACE};
use crate::program::until;

#[tokio::test(flavor = "multi_thread")]
async fn from_manifests_to_a_result_with_no_more_rights_than_are_used() {
    let mut mill = Mill::of(Choice::SMALL).await;
    // What was not given is made: the password of the first user, who is logged in already.
    let done = mill.server.get("jobs.batch", NAMESPACE, "gristmill-init").unwrap();
    assert_eq!(done["status"]["succeeded"], 1);
    mill.texts(8, 10);
    mill.operates("slow");
    mill.server.apply_yaml(&mill.object("words", "slow"), NAMESPACE).unwrap();
    until("workers", || mill.registered().len() == 3);
    // A pod that ends has its last words read; one with a name that is taken is looked at.
    let worker = mill.registers(3).remove(0);
    mill.kubelet.kill(NAMESPACE, &worker);
    until("the job to complete", || mill.phase("words") == "Completed");
    until("an event about it", || mill.events_of("words").iter().any(|event| event["reason"] == "Completed"));
    let object = mill.server.get("mapreducejobs", NAMESPACE, "words").unwrap();
    assert_eq!(object["status"]["progress"], "map 100% reduce 100%");
    mill.done("data get kubernetes/words/ got");
    assert_ne!(mill.folder.names("got").len(), 0);
    // Another one, which goes by itself once it has ended, and one that somebody deletes while it runs.
    let short = mill.object("short", "slow").replace("spec:", "spec:\n  ttlSecondsAfterFinished: 0");
    mill.server.apply_yaml(&short, NAMESPACE).unwrap();
    until("it to be gone", || mill.server.get("mapreducejobs", NAMESPACE, "short").is_none());
    mill.server.apply_yaml(&mill.object("deleted", "slow"), NAMESPACE).unwrap();
    until("it to run", || mill.phase("deleted") == "Running");
    mill.delete(&format!("/apis/gristmill.dev/v1alpha1/namespaces/{NAMESPACE}/mapreducejobs/deleted"));
    until("it to be gone", || mill.server.get("mapreducejobs", NAMESPACE, "deleted").is_none());
    let jobs = mill.json("jobs");
    let states: Vec<&Value> = jobs.as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["cancelled", "completed", "completed"]);
    mill.settles();
    // What was told before is counted.
    let job = mill.slow("again");
    mill.registers(3);
    mill.done(&format!("job cancel {job}"));
    for account in ["gristmill-master", "gristmill-init"] {
        let (used, given) = (mill.used(account), mill.given(account));
        let unused: Vec<&String> = given.difference(&used).collect();
        let missing: Vec<&String> = used.difference(&given).collect();
        assert_eq!((unused, missing), (Vec::new(), Vec::new()), "{account} used {used:#?}");
    }
    // Workers have no token, and so no calls.
    assert!(mill.server.calls().iter().all(|call| !call.user.contains("gristmill-worker")));
}

impl Mill {
    /// What an account has asked for, as verb, group and resource.
    fn used(&self, account: &str) -> BTreeSet<String> {
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let calls = self.server.calls().into_iter().filter(|call| call.user == user && !call.resource.is_empty());
        let right = |resource: &str, sub: &str| match sub {
            "" => resource.to_string(),
            sub => format!("{resource}/{sub}"),
        };
        calls.map(|call| format!("{} {} {}", call.verb, call.group, right(&call.resource, &call.subresource))).collect()
    }

    /// What its Role lets it.
    fn given(&self, account: &str) -> BTreeSet<String> {
        let role = self.server.get("roles.rbac.authorization.k8s.io", NAMESPACE, account).unwrap();
        let mut rights = BTreeSet::new();
        for rule in role["rules"].as_array().unwrap() {
            let of = |field: &str| rule[field].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
            for verb in of("verbs") {
                for group in of("apiGroups") {
                    rights.extend(of("resources").map(|resource| format!("{verb} {group} {resource}")));
                }
            }
        }
        rights
    }
}
