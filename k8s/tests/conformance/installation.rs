//! What an installation is made of: its Secrets, the manifests, the pool that is shipped, and the doctor.

use std::collections::BTreeMap;

use gristmill_engine::node::pods::Pods as _;
use gristmill_k8s::crd::MapReduceJob;
use gristmill_k8s::doctor::{self, Verdict};
use gristmill_k8s::secrets;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::pods::{never, word};
use crate::world::{ENFORCE, MANAGER, NOBODY, WITHIN, World, lead, object, refused, seat, seen, until};

/// With the rights that whoever makes them has.
pub(crate) async fn secrets_are_made_once_and_stay(world: &World) {
    let client = world.installed("gristmill-init", "create", "secrets").await;
    let (namespace, name) = (world.namespace.as_str(), "gristmill");
    let pair = |certificate, key| secrets::Pair { certificate, key };
    let parts = secrets::Parts {
        authority: pair("ca", "ca-key"),
        master: pair("m", "m-key"),
        worker: pair("w", "w-key"),
        password: secrets::Password("p"),
    };
    let found = secrets::found(&client, namespace, name).await.expect("they can be read");
    assert_eq!((found.missing.len(), found.authority.is_none()), (4, true));
    let made = secrets::make(&client, namespace, name, &found, &parts).await.expect("they can be made");
    assert_eq!(made, secrets::names(name));
    // Somebody was at it at the same time: what this one's authority signed would not be trusted.
    let meanwhile = secrets::make(&client, namespace, name, &found, &parts).await.expect_err("it is there");
    assert!(matches!(meanwhile, secrets::Error::Meanwhile(_)), "{meanwhile}");
    let api = world.api::<Secret>();
    let worker = api.get("gristmill-worker-tls").await.expect("it was made");
    assert_eq!(worker.type_.as_deref(), Some("kubernetes.io/tls"));
    let data: BTreeMap<String, Vec<u8>> =
        worker.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    assert_eq!(
        data.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect::<Vec<_>>(),
        [("ca.crt", &b"ca"[..]), ("tls.crt", b"w"), ("tls.key", b"w-key")]
    );
    api.delete("gristmill-worker-tls", &DeleteParams::default()).await.expect("it was there");
    let found = secrets::found(&client, namespace, name).await.expect("they can be read");
    assert_eq!(found.missing, ["gristmill-worker-tls"]);
    assert_eq!(found.authority.as_ref().map(|(_, key)| key.as_str()), Some("ca-key"));
    let made = secrets::make(&client, namespace, name, &found, &parts).await.expect("it can be made");
    assert_eq!(made, ["gristmill-worker-tls"]);
    let found = secrets::found(&client, namespace, name).await.expect("they can be read");
    assert!(found.missing.is_empty() && found.authority.is_none());
    let made = secrets::make(&client, namespace, name, &found, &parts).await.expect("nothing is missing");
    assert_eq!(made, Vec::<String>::new());
    // Other Secrets are none of its business.
    let other: Secret = object(json!({"metadata": {"name": "other"}}));
    api.create(&PostParams::default(), &other).await.expect("a Secret");
    let theirs: Api<Secret> = Api::namespaced(client, namespace);
    assert_eq!(refused(theirs.get("other").await).code, 403);
    assert_eq!(refused(theirs.list(&ListParams::default()).await).code, 403);
}

pub(crate) async fn the_manifests_are_taken_in_a_dry_run(world: &World) {
    let params = PatchParams::apply(MANAGER).force().dry_run().validation_strict();
    let mut wrong = Vec::new();
    for one in world.manifests() {
        let what = format!("{} {}", one["kind"], one["metadata"]["name"]);
        match world.apply(&one, &params).await {
            Ok(taken) => {
                assert_eq!(taken.metadata.name.as_deref(), one["metadata"]["name"].as_str(), "{what}");
                let namespace = taken.metadata.namespace.as_ref();
                assert!(namespace.is_none_or(|namespace| *namespace == world.namespace), "{what}: {namespace:?}");
            }
            // What adds to a cluster that has something for it: nothing here depends on it.
            Err(kube::Error::Api(status)) if status.code == 404 && one["kind"] == "ServiceMonitor" => {}
            Err(e) => wrong.push(format!("{what}: {e}")),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // It was dry.
    assert_eq!(
        world
            .api::<k8s_openapi::api::apps::v1::StatefulSet>()
            .list(&ListParams::default())
            .await
            .expect("a list")
            .items
            .len(),
        0
    );
    assert_eq!(
        world.api::<k8s_openapi::api::batch::v1::Job>().list(&ListParams::default()).await.expect("a list").items.len(),
        0
    );
    // A field that there is not would have been found.
    let mut wrong = world.manifest("StatefulSet", "gristmill");
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always".into();
    assert!(world.apply(&wrong, &params).await.is_err());
}

pub(crate) async fn workers_of_the_shipped_pool_are_restricted(world: &World) {
    let namespace = world.another(json!({ENFORCE: "restricted"})).await;
    world.account_in(&namespace, "gristmill-worker").await;
    let pools = world.manifest("ConfigMap", "gristmill-pools");
    let shipped: Value = serde_saphyr::from_str(pools["data"]["default.yaml"].as_str().expect("a pool")).expect("YAML");
    let launcher = |change: &dyn Fn(&mut Value)| {
        let mut pool = shipped.clone();
        pool["template"]["spec"]["schedulerName"] = NOBODY.into();
        change(&mut pool);
        let text = serde_saphyr::to_string(&pool).expect("YAML");
        world.launcher_with(world.client.clone(), "default", &text, |options| options.namespace = namespace.clone())
    };
    let good = launcher(&|_| ());
    lead(&good, 1).await;
    assert_eq!(good.make(&seat(&good, 0), 1).await, Ok(()));
    let made = seen(&good, "the pod", WITHIN, |pods| pods.len() == 1).await.remove(0);
    let api: Api<Pod> = Api::namespaced(world.client.clone(), &namespace);
    let pod = api.get(&made.name).await.expect("it is there").spec.expect("a spec");
    assert_eq!(pod.service_account_name.as_deref(), Some("gristmill-worker"));
    // Workers have no access to the API: nothing was mounted into it that the file does not say.
    let mounts = |of: &Value| of.as_array().map_or(0, Vec::len);
    let said = &shipped["template"]["spec"];
    assert_eq!(
        pod.containers[0].volume_mounts.as_ref().map_or(0, Vec::len),
        mounts(&said["containers"][0]["volumeMounts"])
    );
    assert_eq!(pod.volumes.as_ref().map_or(0, Vec::len), mounts(&said["volumes"]));
    type Change = fn(&mut Value);
    let bad: [Change; 3] = [
        |pool| pool["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = true.into(),
        |pool| pool["template"]["spec"]["securityContext"]["runAsNonRoot"] = false.into(),
        |pool| pool["template"]["spec"]["hostNetwork"] = true.into(),
    ];
    for (at, change) in bad.iter().enumerate() {
        let launcher = launcher(&|pool| {
            change(pool);
            if at == 0 {
                // What is privileged and may not escalate is no pod at all.
                pool["template"]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
            }
        });
        lead(&launcher, 1).await;
        assert_eq!(word(launcher.make(&seat(&launcher, 1), 1).await), never("PodSecurity"), "the change {at}");
    }
    assert_eq!(api.list(&ListParams::default()).await.expect("a list").items.len(), 1);
}

pub(crate) async fn the_doctor_tells_what_it_looks_at(world: &World) {
    world.define().await;
    let master = world.master().await;
    let told = |found: &[doctor::Finding], check: &str| -> Option<Verdict> {
        found.iter().filter(|one| one.check == check).map(|one| one.verdict).max()
    };
    let options =
        |namespace: &str| doctor::Options { namespace: namespace.into(), name: "gristmill".into(), in_pod: false };
    let found = doctor::examine(world.client.clone(), &options(&world.namespace)).await;
    for (check, wanted) in [
        ("version", Verdict::Good),
        ("mapreducejobs", Verdict::Good),
        ("rights", Verdict::Good),
        // It takes pods of any level.
        ("namespace", Verdict::Warning),
        ("masters", Verdict::Bad),
        ("quota", Verdict::Good),
    ] {
        assert_eq!(told(&found, check), Some(wanted), "{check}: {found:#?}");
    }
    assert!(found.iter().all(|one| !one.what.is_empty() && !one.what.contains('\n')), "{found:#?}");
    // A namespace as the manifests make it, where the account of masters has no rights.
    let restricted = world.another(json!({ENFORCE: "restricted"})).await;
    let found = doctor::examine(world.client.clone(), &options(&restricted)).await;
    for (check, wanted) in [("namespace", Verdict::Good), ("rights", Verdict::Bad)] {
        assert_eq!(told(&found, check), Some(wanted), "{check}: {found:#?}");
    }
    let found = doctor::examine(world.client.clone(), &options(&format!("{restricted}-none"))).await;
    assert_eq!(told(&found, "namespace"), Some(Verdict::Bad), "{found:#?}");
    // A master sees less, and that is no failure of anything.
    until("a master may see jobs", WITHIN, async || {
        let api: Api<MapReduceJob> = Api::namespaced(master.clone(), &world.namespace);
        api.list(&ListParams::default()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let own = doctor::examine(master, &options(&world.namespace)).await;
    for check in ["version", "rights", "mapreducejobs"] {
        assert_eq!(told(&own, check), Some(Verdict::Good), "{check}: {own:#?}");
    }
    assert_eq!(told(&own, "namespace"), Some(Verdict::Warning), "{own:#?}");
    assert!(own.iter().all(|one| one.verdict < Verdict::Bad), "{own:#?}");
}
