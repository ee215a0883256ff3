//! Five hundred workers at once: how long until they are there, how many wait at a time, and what it costs the API server. Prints
//! figures, of which it asserts those that no machine changes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gristmill::cluster::proto::internal::v1 as wire;
use gristmill::cluster::proto::internal::v1::workers_client::WorkersClient;
use gristmill_k8s_fake::{Kubelet, Server};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::mill::{NAMESPACE, name};
use crate::process::Process;
use crate::program::Folder;

const PODS: usize = 500;
/// So many at most that have no worker yet.
const PENDING: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);
/// Workers are heard of so often.
const HEARTBEAT: Duration = Duration::from_secs(2);

fn pool() -> String {
    format!(
        "min: {PODS}\nmax: {PODS}\npending: {PENDING}\nslots: 1\n\
         template: {{spec: {{containers: [{{name: worker, image: 'gristmill:test'}}]}}}}\n"
    )
}

/// A worker, as its master knows it: registered, and heard of again and again.
async fn works(channel: Channel, pod: String, uid: String, index: usize) {
    let mut client = WorkersClient::new(channel);
    let apps = vec![wire::AppOffer { name: "wordcount".into(), build: "a".into() }];
    let register = wire::Register {
        name: pod,
        address: format!("127.0.0.1:{}", 20_000 + index),
        slots: 1,
        apps,
        uid,
        ..Default::default()
    };
    let known = client.register(register).await.unwrap().into_inner();
    assert!(known.incarnation > 0, "{}", known.refused);
    for sequence in 1.. {
        let poll = wire::Poll { incarnation: known.incarnation, sequence, free_slots: 1, ..Default::default() };
        // Whoever leads keeps it open; the next one says no more than this.
        let _ = tokio::time::timeout(HEARTBEAT, client.poll(poll)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_workers_are_made_without_a_flood() {
    let (folder, server) = (Folder::new(), Server::start().await);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    server.apply_yaml(&namespace.to_string(), NAMESPACE).unwrap();
    let _kubelet = Kubelet::of(&server).instant(true).start();
    let config = folder.file("config", server.kubeconfig(NAMESPACE));
    folder.file("pools/many.yaml", pool());
    let master = "master --no-login --data m --store store --listen 127.0.0.1:0 --pools pools --pool-prefix gm";
    let mut command = folder.gristmill(master);
    command.env("KUBECONFIG", config);
    server.forget_calls();
    let begun = Instant::now();
    let mut master = Process::of(command, folder.path().join("m.log"));
    let address = master.ready();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (mut working, mut workers, mut most, mut first) = (BTreeSet::new(), JoinSet::new(), 0, None);
    while working.len() < PODS {
        assert!(begun.elapsed() < PATIENCE, "{} pods", working.len());
        let pods = server.list("pods", Some(NAMESPACE));
        if !pods.is_empty() {
            first.get_or_insert_with(Instant::now);
        }
        most = most.max(pods.len() - working.len());
        for pod in pods.iter().filter(|pod| pod["status"]["phase"] == "Running") {
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_string();
            if working.insert(uid.clone()) {
                workers.spawn(works(channel.clone(), name(pod).into(), uid, working.len()));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = first.unwrap().elapsed();
    let listed = || {
        let told = folder.run(&format!("worker pool ls --at {address} -o json")).out;
        serde_json::from_str::<Value>(&told).unwrap()[0]["ready"].clone()
    };
    crate::program::until("all of them to be known", || listed() == PODS);
    let calls = server.calls();
    let of = |verb: &str, resource: &str| calls.iter().filter(|c| c.verb == verb && c.resource == resource).count();
    println!(
        "{PODS} workers in {:.1} s, at most {most} pods without one; {} calls: {} creations, {} lists, {} watches, {} about events",
        took.as_secs_f64(),
        calls.len(),
        of("create", "pods"),
        of("list", "pods"),
        of("watch", "pods"),
        of("create", "events") + of("patch", "events"),
    );
    assert!(most <= PENDING, "{most} were pending at a time");
    let made = calls.iter().filter(|c| c.verb == "create" && c.resource == "pods" && c.status == 201).count();
    assert_eq!(made, PODS, "each is made once");
    // Besides those, a few to begin with, an event for each batch, of which there are so many at least, and seats that are
    // asked for again before the watch has told of their pods.
    assert!(calls.len() <= PODS + PODS / PENDING * 4 + 20, "{} calls", calls.len());
    assert!(workers.try_join_next().is_none(), "a worker was not let in");
}
