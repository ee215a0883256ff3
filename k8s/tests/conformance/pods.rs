//! Worker pods: made once, deleted by UID, watched, and refused in words that say whether to try again.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use gristmill_engine::node::pods::{Phase, Pods as _, Refusal};
use gristmill_k8s::pod;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, PodStatus};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{CLUSTER, PREFIX, WITHIN, World, lead, object, other_pod, pool, seat, seen, until};

/// What no object has for its UID.
const NO_UID: &str = "00000000-0000-4000-8000-000000000000";

/// Whether it may be tried again, and the word for it.
pub(crate) fn word(result: Result<(), Refusal>) -> (bool, String) {
    match result {
        Err(Refusal::Later(reason, _)) => (true, reason.word),
        Err(Refusal::Never(reason)) => (false, reason.word),
        Ok(()) => (false, "it was made".into()),
    }
}

pub(crate) fn later(word: &str) -> (bool, String) {
    (true, word.into())
}

pub(crate) fn never(word: &str) -> (bool, String) {
    (false, word.into())
}

pub(crate) async fn a_seat_has_one_pod_however_often_it_is_made(world: &World) {
    let masters = world.stateful_set("masters").await;
    let launcher = world.launcher_with(world.client.clone(), "a", &pool(""), |options| {
        options.owner = Some(("StatefulSet".into(), "masters".into()));
    });
    assert_eq!(lead(&launcher, 7).await, []);
    let seat = seat(&launcher, 2);
    for _ in 0..3 {
        assert_eq!(launcher.make(&seat, 7).await, Ok(()));
    }
    let told = seen(&launcher, "the pod", WITHIN, |pods| !pods.is_empty()).await;
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.seat.as_ref(), told.term, told.phase, told.leaving), (Some(&seat), 7, Phase::Pending, false));
    assert!(told.created_ms > 1_700_000_000_000, "{told:?}");
    let name = pod::name(PREFIX, &seat).expect("a name");
    let made = world.api::<Pod>().get(&name).await.expect("it is there");
    assert_eq!((told.name.as_str(), Some(&told.uid)), (name.as_str(), made.metadata.uid.as_ref()));
    let generation = format!("{:08x}", seat.generation);
    for (label, value) in [
        (pod::CLUSTER, "000000000000feed"),
        (pod::TERM, "7"),
        (pod::POOL_LABEL, "a"),
        (pod::GENERATION, generation.as_str()),
        (pod::INDEX_LABEL, "2"),
        ("app.kubernetes.io/managed-by", "gristmill"),
    ] {
        assert_eq!(made.labels().get(label).map(String::as_str), Some(value), "{label}");
    }
    let [owner] = made.owner_references() else { panic!("{:?}", made.owner_references()) };
    assert_eq!((owner.kind.as_str(), Some(&owner.uid)), ("StatefulSet", masters.metadata.uid.as_ref()));
    let spec = made.spec.expect("a spec");
    assert_eq!((spec.hostname.as_deref(), spec.restart_policy.as_deref()), (Some(name.as_str()), Some("Never")));
    assert_eq!(spec.automount_service_account_token, Some(false));
    // Nothing mounts a token into it.
    assert!(spec.containers.iter().all(|container| container.volume_mounts.as_deref().unwrap_or_default().is_empty()));
}

pub(crate) async fn names_that_others_have_are_not_taken_for_ours(world: &World) {
    let launcher = world.launcher(&pool(""));
    lead(&launcher, 1).await;
    for (index, labels, says) in [
        (0, json!({}), "a pod of nobody's is called "),
        (
            1,
            json!({"gristmill.dev/cluster": "0000000000000001", "gristmill.dev/pool": "a"}),
            "a pod of cluster 0000000000000001 is called ",
        ),
    ] {
        let seat = seat(&launcher, index);
        let name = pod::name(PREFIX, &seat).expect("a name");
        let other = other_pod(&name, json!({"labels": labels}));
        world.api::<Pod>().create(&PostParams::default(), &other).await.expect("a pod");
        let Err(Refusal::Never(why)) = launcher.make(&seat, 1).await else { panic!("{name} was taken for ours") };
        assert_eq!(why.word, "AlreadyExists");
        assert!(why.text.starts_with(&format!("{says}{name}: ")), "{why}");
    }
    // Nor are they watched.
    launcher.make(&seat(&launcher, 2), 1).await.expect("it is made");
    let pods = seen(&launcher, "ours", WITHIN, |pods| !pods.is_empty()).await;
    assert_eq!(pods.len(), 1, "{pods:?}");
}

pub(crate) async fn pods_are_deleted_by_uid_and_no_others_are(world: &World) {
    let launcher = world.launcher(&pool(""));
    lead(&launcher, 1).await;
    launcher.make(&seat(&launcher, 0), 1).await.expect("it is made");
    let told = seen(&launcher, "the pod", WITHIN, |pods| pods.len() == 1).await.remove(0);
    assert_eq!(launcher.delete(&told.name, NO_UID).await, Ok(()));
    let there = world.api::<Pod>().get(&told.name).await.expect("it is still there");
    assert_eq!((there.metadata.uid.as_ref(), &there.metadata.deletion_timestamp), (Some(&told.uid), &None));
    assert_eq!(launcher.delete(&told.name, &told.uid).await, Ok(()));
    // It was on no node, so nobody has to end it.
    seen(&launcher, "its end", WITHIN, <[_]>::is_empty).await;
    assert_eq!(launcher.delete(&told.name, &told.uid).await, Ok(()));
    assert_eq!(launcher.delete("nobody", NO_UID).await, Ok(()));
    // Its seat is free, and another pod's UID is another.
    launcher.make(&seat(&launcher, 0), 1).await.expect("it is made again");
    let again = seen(&launcher, "the next", WITHIN, |pods| pods.len() == 1).await.remove(0);
    assert_eq!(again.name, told.name);
    assert_eq!(launcher.delete(&told.name, &told.uid).await, Ok(()));
    let there = world.api::<Pod>().get(&told.name).await.expect("the next is there");
    assert_eq!(there.metadata.uid, Some(again.uid));
}

pub(crate) async fn what_happens_to_pods_arrives(world: &World) {
    let launcher = world.launcher(&pool(""));
    lead(&launcher, 1).await;
    let api = world.api::<Pod>();
    for index in 0..3 {
        launcher.make(&seat(&launcher, index), 1).await.expect("it is made");
    }
    let pods = seen(&launcher, "what was made", WITHIN, |pods| pods.len() == 3).await;
    let (first, second) = (&pods[0].name, &pods[1].name);
    let running = Patch::Strategic(json!({"status": {"phase": "Running"}}));
    api.patch_status(first, &PatchParams::default(), &running).await.expect("a status");
    seen(&launcher, "a change", WITHIN, |pods| {
        pods.iter().any(|pod| pod.name == *first && pod.phase == Phase::Running)
    })
    .await;
    api.delete(second, &DeleteParams::default()).await.expect("it was there");
    seen(&launcher, "an end", WITHIN, |pods| pods.iter().all(|pod| pod.name != *second)).await;
    // One that is labelled away is no longer ours.
    let label = Patch::Merge(json!({"metadata": {"labels": {pod::CLUSTER: "0000000000000001"}}}));
    api.patch(&pods[2].name, &PatchParams::default(), &label).await.expect("labels change");
    let left = seen(&launcher, "what is left", WITHIN, |pods| pods.len() == 1).await;
    assert_eq!(left[0].name, *first);
    // Other clusters' pods in the same namespace are not seen.
    let others = world.launcher(&pool(""));
    others.lead(CLUSTER + 1, Some(1));
    let theirs = seen(&others, "another cluster's list", WITHIN, |_| true).await;
    assert_eq!(theirs, []);
}

pub(crate) async fn who_leads_later_sees_what_others_made(world: &World) {
    let (one, two) = (world.launcher(&pool("")), world.launcher(&pool("")));
    assert_eq!(word(one.make(&seat(&one, 0), 5).await), later("NotLeading"));
    lead(&one, 5).await;
    assert_eq!(word(one.make(&seat(&one, 0), 4).await), later("NotLeading"));
    one.make(&seat(&one, 0), 5).await.expect("it is made");
    assert_eq!(two.pods().expect_err("it does not lead").word, "NotLeading");
    let pods = lead(&two, 6).await;
    assert_eq!(pods.iter().map(|pod| pod.term).collect::<Vec<_>>(), [5], "a list is complete: {pods:?}");
    one.lead(CLUSTER, None);
    assert_eq!(one.pods().expect_err("it has ended").word, "NotLeading");
    assert_eq!(word(one.make(&seat(&one, 1), 5).await), later("NotLeading"));
    two.make(&seat(&two, 1), 6).await.expect("it is made");
    seen(&two, "both", WITHIN, |pods| pods.len() == 2).await;
    assert_eq!(one.pods().expect_err("nothing comes any more").word, "NotLeading");
    let pods = lead(&one, 7).await;
    let mut terms: Vec<u64> = pods.iter().map(|pod| pod.term).collect();
    terms.sort_unstable();
    assert_eq!(terms, [5, 6]);
}

pub(crate) async fn two_that_believe_to_lead_make_one_pod_for_each_seat(world: &World) {
    const SEATS: u32 = 12;
    let (one, two) = (world.launcher(&pool("")), world.launcher(&pool("")));
    lead(&one, 5).await;
    lead(&two, 6).await;
    let seats: Vec<_> = (0..SEATS).map(|index| seat(&one, index)).collect();
    assert_eq!(seats[0], seat(&two, 0), "the same file is the same generation");
    let (by_one, by_two) = (seats.iter().map(|seat| one.make(seat, 5)), seats.iter().map(|seat| two.make(seat, 6)));
    for made in join_all(by_one.zip(by_two).flat_map(|(one, two)| [one, two])).await {
        assert_eq!(made, Ok(()));
    }
    let all = world.api::<Pod>().list(&ListParams::default().labels(&pod::selector(CLUSTER))).await.expect("a list");
    let mut by_seat = BTreeMap::new();
    for pod in &all.items {
        *by_seat.entry(pod::seat(pod).expect("a seat").index).or_insert(0) += 1;
        assert!(["5", "6"].contains(&pod.labels()[pod::TERM].as_str()), "{:?}", pod.labels());
    }
    assert_eq!(by_seat, (0..SEATS).map(|index| (index, 1)).collect());
    let there = usize::try_from(SEATS).expect("it is small");
    let sees_one = seen(&one, "all", WITHIN, |pods| pods.len() == there).await;
    let sees_two = seen(&two, "all", WITHIN, |pods| pods.len() == there).await;
    assert_eq!(sees_one, sees_two);
}

pub(crate) async fn what_may_come_right_is_tried_again_and_what_stays_wrong_is_not(world: &World) {
    // A pod that no server takes.
    let wrong = world.launcher(&pool("").replace("gristmill.invalid/none:1", " "));
    lead(&wrong, 1).await;
    assert_eq!(word(wrong.make(&seat(&wrong, 0), 1).await), never("Invalid"));
    // Accounts and owners may be made at the same time.
    let early = world.launcher_with(world.client.clone(), "a", &pool("serviceAccountName: late"), |options| {
        options.owner = Some(("ConfigMap".into(), "late".into()));
    });
    lead(&early, 1).await;
    let make = async || word(early.make(&seat(&early, 1), 1).await);
    assert_eq!(make().await, later("NoOwner"));
    let owner: ConfigMap = object(json!({"metadata": {"name": "late"}}));
    let owner = world.api().create(&PostParams::default(), &owner).await.expect("an owner");
    assert_eq!(make().await, later("NoServiceAccount"));
    world.account_in(&world.namespace, "late").await;
    until("it is made", WITHIN, async || {
        early.make(&seat(&early, 1), 1).await.map_err(|refusal| format!("{refusal:?}"))
    })
    .await;
    let name = pod::name(PREFIX, &seat(&early, 1)).expect("a name");
    let made = world.api::<Pod>().get(&name).await.expect("it is there");
    assert_eq!(made.owner_references()[0].uid, owner.metadata.uid.expect("a UID"));
    assert_eq!(made.spec.expect("a spec").service_account_name.as_deref(), Some("late"));
    // Where no namespace is there is none later.
    let nowhere = world.launcher_with(world.client.clone(), "a", &pool(""), |options| {
        options.namespace = format!("{}-none", options.namespace);
    });
    lead(&nowhere, 1).await;
    assert_eq!(word(nowhere.make(&seat(&nowhere, 0), 1).await), never("NotFound"));
    // Of a pod that never ran there are no last words, nor of nobody.
    assert_eq!(early.last_words(&name, made.metadata.uid.as_deref().unwrap_or_default(), 1_000).await, "");
    assert_eq!(early.last_words("nobody", NO_UID, 1_000).await, "");
    assert_eq!(made.status.as_ref().and_then(|status: &PodStatus| status.phase.as_deref()), Some("Pending"));
}

pub(crate) async fn a_namespace_that_ends_takes_no_pods(world: &World) {
    let ends = world.another(json!({})).await;
    // Something in it holds it, or it would be gone at once where there are controllers.
    let holds = json!({"metadata": {"name": "holds", "finalizers": ["gristmill.dev/conformance"]}});
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &ends);
    maps.create(&PostParams::default(), &object(holds)).await.expect("a ConfigMap");
    let launcher =
        world.launcher_with(world.client.clone(), "a", &pool(""), |options| options.namespace = ends.clone());
    lead(&launcher, 1).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&ends, &DeleteParams::default()).await.expect("it was there");
    until("it takes no pods", WITHIN, async || match word(launcher.make(&seat(&launcher, 0), 1).await) {
        refused if refused == never("NamespaceTerminating") => Ok(()),
        (_, other) => Err(other),
    })
    .await;
}
