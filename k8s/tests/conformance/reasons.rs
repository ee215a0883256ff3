//! Why a pod waits, leaves or has ended, as a launcher tells it; the check writes what a kubelet, a scheduler and a
//! controller of quotas would.

use std::time::Duration;

use gristmill_engine::node::pods::{Phase, Pods as _};
use gristmill_k8s::pod;
use gristmill_k8s::pods::Launcher;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::pods::{later, word};
use crate::world::{PREFIX, WITHIN, World, lead, object, pool, seat, seen, until};

/// So soon a reason is told after it was written.
const SOON: Duration = Duration::from_secs(2);
/// So long the controller of quotas has to count, if there is one.
const COUNTED: Duration = Duration::from_secs(1);

/// The status of our container in this state.
fn worker(state: Value) -> Value {
    json!([{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

pub(crate) async fn pods_say_why_they_are_as_they_are(world: &World) {
    let killed = worker(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
    let pulls = |word: &str| {
        let waits = worker(json!({"waiting": {"reason": word, "message": "it cannot be pulled"}}));
        json!({"phase": "Pending", "containerStatuses": waits})
    };
    let disrupted = |word: &str| {
        let running = worker(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": word, "message": "it goes"});
        json!({"phase": "Running", "containerStatuses": running, "conditions": [condition]})
    };
    let lacks = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"});
    let table = [
        ("OOMKilled", json!({"phase": "Failed", "containerStatuses": killed}), Phase::Ended, false, "memory limit"),
        ("Evicted", json!({"phase": "Failed", "reason": "Evicted", "message": "full"}), Phase::Ended, false, "full"),
        ("ErrImagePull", pulls("ErrImagePull"), Phase::Pending, false, "it cannot be pulled"),
        ("ImagePullBackOff", pulls("ImagePullBackOff"), Phase::Pending, false, "it cannot be pulled"),
        ("Unschedulable", json!({"conditions": [lacks]}), Phase::Pending, false, "no room"),
        ("PreemptionByScheduler", disrupted("PreemptionByScheduler"), Phase::Running, true, "it goes"),
        ("DeletionByTaintManager", disrupted("DeletionByTaintManager"), Phase::Running, true, "it goes"),
    ];
    let launcher = world.launcher(&pool(""));
    lead(&launcher, 1).await;
    for index in 0..table.len() {
        launcher.make(&seat(&launcher, u32::try_from(index).expect("it is small")), 1).await.expect("it is made");
    }
    let pods = seen(&launcher, "all of them", WITHIN, |pods| pods.len() == table.len()).await;
    assert!(pods.iter().all(|pod| pod.reason.is_none() && !pod.leaving), "{pods:?}");
    for (word, status, phase, leaving, says) in table {
        let name = &pods.iter().find(|pod| !is_told(&launcher, &pod.name)).expect("one is left").name;
        let patch = Patch::Strategic(json!({"status": status}));
        world.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await.expect("a status");
        let told = seen(&launcher, word, SOON, |pods| pods.iter().any(|pod| pod.name == *name && pod.reason.is_some()));
        let pod = told.await.into_iter().find(|pod| pod.name == *name).expect("it is there");
        let why = pod.reason.expect("a reason");
        assert_eq!((why.word.as_str(), pod.phase, pod.leaving), (word, phase, leaving));
        assert!(why.text.contains(says), "{why}");
    }
    // What was going to be disrupted and is not says nothing any more.
    let stays = pods.iter().map(|pod| &pod.name).find(|name| leaves(&launcher, name)).expect("one leaves");
    let back = json!([{"type": "DisruptionTarget", "status": "False", "reason": "", "message": ""}]);
    let patch = Patch::Strategic(json!({"status": {"conditions": back}}));
    world.api::<Pod>().patch_status(stays, &PatchParams::default(), &patch).await.expect("a status");
    seen(&launcher, "it stays", SOON, |pods| pods.iter().any(|pod| pod.name == *stays && !pod.leaving)).await;
}

fn is_told(launcher: &Launcher, name: &str) -> bool {
    launcher.pods().expect("they are known").iter().any(|pod| pod.name == name && pod.reason.is_some())
}

fn leaves(launcher: &Launcher, name: &str) -> bool {
    launcher.pods().expect("they are known").iter().any(|pod| pod.name == name && pod.leaving)
}

pub(crate) async fn a_quota_holds_and_may_have_room_again(world: &World) {
    let launcher = world.launcher(&pool(""));
    lead(&launcher, 1).await;
    let quota: ResourceQuota = object(json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}));
    world.api().create(&PostParams::default(), &quota).await.expect("a quota");
    counted(world, "0").await;
    refused(world, &launcher, 0).await;
    let room = Patch::Merge(json!({"spec": {"hard": {"pods": "1"}}}));
    world.api::<ResourceQuota>().patch("few", &PatchParams::default(), &room).await.expect("a larger quota");
    counted(world, "1").await;
    until("there is room", WITHIN, async || {
        launcher.make(&seat(&launcher, 1), 1).await.map_err(|refusal| format!("{refusal:?}"))
    })
    .await;
    refused(world, &launcher, 2).await;
    // What is there already is no further pod, whatever the server looks at first.
    let again = launcher.make(&seat(&launcher, 1), 1).await;
    assert!(again == Ok(()) || word(again.clone()) == later("QuotaExceeded"), "{again:?}");
}

/// Waits until a quota refuses a seat's pod. Admission hears of a quota a little later than it is written.
async fn refused(world: &World, launcher: &Launcher, index: u32) {
    let seat = seat(launcher, index);
    let name = pod::name(PREFIX, &seat).expect("a name");
    until("it is refused", WITHIN, async || {
        let (again, word) = word(launcher.make(&seat, 1).await);
        if (again, word.as_str()) == (true, "QuotaExceeded") {
            return Ok(());
        }
        let _ = world.api::<Pod>().delete(&name, &DeleteParams::default()).await;
        Err(word)
    })
    .await;
}

/// Has the quota's status say what its spec does. Admission counts by the status, and only a controller writes that.
async fn counted(world: &World, pods: &str) {
    let api = world.api::<ResourceQuota>();
    let is = async || {
        let status = api.get("few").await.expect("it is there").status.unwrap_or_default();
        let number = |of: Option<std::collections::BTreeMap<String, _>>| of.unwrap_or_default().remove("pods");
        let hard: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity> = number(status.hard);
        hard.is_some_and(|hard| hard.0 == pods) && number(status.used).is_some()
    };
    let end = Instant::now() + COUNTED;
    while !is().await {
        if Instant::now() >= end {
            let status = json!({"hard": {"pods": pods}, "used": {"pods": "0"}});
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status("few", &PatchParams::default(), &patch).await.expect("a status");
            return;
        }
        sleep(Duration::from_millis(30)).await;
    }
}
