//! Events on what people look at: one for each thing that is told, and counted when it is told again.

use gristmill_engine::node::pods::{Event, Pods as _};
use gristmill_k8s::crd::MapReduceJob;
use gristmill_k8s::events::{CONTROLLER, Teller};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Told;
use kube::Resource as _;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::world::{WITHIN, World, lead, object, pool, seat, seen, until};

/// Waits for the events about an object with this note, and gives how often each was counted.
async fn counts(world: &World, uid: &str, note: &str, wanted: &[i32]) -> Vec<Told> {
    until(&format!("{note} is counted {wanted:?}"), WITHIN, async || {
        let all = world.api::<Told>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let about = |event: &Told| event.regarding.as_ref().and_then(|of| of.uid.as_deref()) == Some(uid);
        let is = |event: &Told| about(event) && event.note.as_deref() == Some(note);
        let found: Vec<Told> = all.items.into_iter().filter(is).collect();
        let counts: Vec<i32> = found.iter().map(|one| one.series.as_ref().map_or(1, |series| series.count)).collect();
        if counts == wanted { Ok(found) } else { Err(format!("{counts:?}")) }
    })
    .await
}

pub(crate) async fn events_are_written_once_and_counted_after(world: &World) {
    world.define().await;
    let client = world.master().await;
    // On a pod.
    let launcher = world.launcher_with(client.clone(), "a", &pool(""), |options| options.pod = Some("gm-0".into()));
    lead(&launcher, 1).await;
    launcher.make(&seat(&launcher, 0), 1).await.expect("it is made");
    let pod = seen(&launcher, "the pod", WITHIN, |pods| pods.len() == 1).await.remove(0);
    let event = |text: &str| Event {
        pod: Some((pod.name.clone(), pod.uid.clone())),
        reason: "OOMKilled".into(),
        text: text.into(),
        warning: true,
    };
    launcher.tell(&event("one")).await;
    let [first] = &counts(world, &pod.uid, "one", &[1]).await[..] else { panic!("there is one") };
    assert_eq!((first.type_.as_deref(), first.reason.as_deref()), (Some("Warning"), Some("OOMKilled")));
    let regarding = first.regarding.clone().unwrap_or_default();
    assert_eq!((regarding.kind.as_deref(), regarding.name.as_ref()), (Some("Pod"), Some(&pod.name)));
    assert_eq!(
        (first.reporting_controller.as_deref(), first.reporting_instance.as_deref()),
        (Some(CONTROLLER), Some("gm-0"))
    );
    for text in ["one", "two", "one"] {
        launcher.tell(&event(text)).await;
    }
    let again = counts(world, &pod.uid, "one", &[3]).await;
    assert_eq!(again[0].metadata.uid, first.metadata.uid, "it is the same event");
    counts(world, &pod.uid, "two", &[1]).await;

    // On a MapReduceJob.
    let spec = json!({"app": {"name": "grep"}, "inputs": ["in/"], "output": "out"});
    let job = world
        .api()
        .create(&PostParams::default(), &MapReduceJob::new("words", object(spec)))
        .await
        .expect("it is good");
    let reference = ObjectReference { resource_version: None, ..job.object_ref(&()) };
    let teller = Teller::new(client, Some("gm-0"));
    let uid = job.metadata.uid.expect("a UID");
    let long = "ä".repeat(2_000);
    for text in ["it runs", "it runs", &long] {
        teller.tell(async { Some(reference.clone()) }, "Started", text, false).await;
    }
    let told = counts(world, &uid, "it runs", &[2]).await;
    let regarding = told[0].regarding.clone().unwrap_or_default();
    assert_eq!((regarding.kind.as_deref(), regarding.name.as_deref()), (Some("MapReduceJob"), Some("words")));
    assert_eq!((told[0].type_.as_deref(), told[0].reason.as_deref()), (Some("Normal"), Some("Started")));
    // What is too long for a note is cut, and not refused.
    counts(world, &uid, &"ä".repeat(512), &[1]).await;
}
