//! The kubelet and the controllers by the real client: pods are processes, and what happens to them is told as upstream
//! tells it.

use std::time::Duration;

use gristmill_k8s_fake::{Jobs, Kubelet, Server, StatefulSets};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config};
use serde_json::{Value, json};

async fn begin(kubelet: impl FnOnce(&Server) -> Kubelet) -> (Server, Kubelet, Api<Pod>) {
    let server = Server::start().await;
    let kubelet = kubelet(&server);
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig("default")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let pods = Api::default_namespaced(Client::try_from(config).unwrap());
    (server, kubelet, pods)
}

fn shell(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "c", "image": "sh:1", "command": ["/bin/sh", "-c", script]}]}})
}

async fn create(pods: &Api<Pod>, pod: Value) {
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

async fn phase(pods: &Api<Pod>, name: &str, phase: &'static str) -> Value {
    let is = move |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|is| is == phase)
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), await_condition(pods.clone(), name, is)).await;
    match waited {
        Ok(found) => serde_json::to_value(found.unwrap().unwrap()).unwrap(),
        Err(_) => panic!("{name} is never {phase}: {:?}", pods.get_opt(name).await),
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

fn terminated(pod: &Value) -> (i64, String) {
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    (state["exitCode"].as_i64().unwrap_or(-1), state["reason"].as_str().unwrap_or_default().into())
}

#[tokio::test]
async fn a_pod_is_a_process_with_its_words_and_files() {
    let (server, kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    server
        .apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {key: from-map}}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {word: hush}}", "default")
        .unwrap();
    let mut pod = shell(
        "a",
        "cat /etc/conf/key; echo; echo $(NAME) $IP $WORD $CPU; cat '/run/both/where'; echo; echo p-0.svc-x.default.svc:70; test -f $KUBECONFIG && echo config; echo kept >/data/x",
    );
    let spec = &mut pod["spec"];
    spec["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    spec["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "conf", "mountPath": "/etc/conf"},
        {"name": "both", "mountPath": "/run/both"}, {"name": "data", "mountPath": "/data"}]);
    spec["volumes"] = json!([{"name": "conf", "configMap": {"name": "m"}}, {"name": "data", "emptyDir": {}},
        {"name": "both", "projected": {"sources": [{"downwardAPI": {"items": [
            {"path": "where", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]);
    create(&pods, pod).await;
    let ended = phase(&pods, "a", "Succeeded").await;
    assert_eq!(terminated(&ended), (0, "Completed".into()));
    let (own, other) = (kubelet.address("default", "a"), kubelet.address("default", "p-0"));
    let said = pods.logs("a", &LogParams::default()).await.unwrap();
    assert_eq!(said, format!("from-map\na {own} hush 2\ndefault\n{other}:70\nconfig\n"));
    assert_eq!(ended["status"]["podIP"], own.to_string());
    let last = pods.logs("a", &LogParams { tail_lines: Some(1), ..LogParams::default() }).await.unwrap();
    assert_eq!(last, "config\n");
    let file = kubelet.folder("default", "a").unwrap().join("volumes/data/x");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "kept\n");
}

#[tokio::test]
async fn ends_are_told() {
    let (_server, kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    create(&pods, shell("fails", "exit 3")).await;
    assert_eq!(terminated(&phase(&pods, "fails", "Failed").await), (3, "Error".into()));
    for name in ["killed", "oom", "evicted"] {
        create(&pods, shell(name, "sleep 60")).await;
        phase(&pods, name, "Running").await;
    }
    kubelet.kill("default", "killed");
    assert_eq!(terminated(&phase(&pods, "killed", "Failed").await), (137, "Error".into()));
    kubelet.oom("default", "oom");
    assert_eq!(terminated(&phase(&pods, "oom", "Failed").await), (137, "OOMKilled".into()));
    kubelet.evict("default", "evicted", "The node was low on resource: memory.");
    let evicted = phase(&pods, "evicted", "Failed").await;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    assert_eq!(evicted["status"]["message"], "The node was low on resource: memory.");
}

#[tokio::test]
async fn deletion_gives_time_and_then_none() {
    let (server, _kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    create(&pods, shell("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")).await;
    create(&pods, shell("rude", "trap '' TERM; echo up; while :; do sleep 0.05; done")).await;
    for name in ["polite", "rude"] {
        phase(&pods, name, "Running").await;
        until("it is up", || Some(()).filter(|()| _kubelet.logs("default", name, "c") == "up\n")).await;
    }
    let mut watch = server.list("pods", None).len();
    let begun = std::time::Instant::now();
    pods.delete("rude", &DeleteParams::default().grace_period(1)).await.unwrap();
    pods.delete("polite", &DeleteParams::default()).await.unwrap();
    assert!(pods.get("polite").await.unwrap().metadata.deletion_timestamp.is_some());
    until("the polite goes", || server.get("pods", "default", "polite").is_none().then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for the grace");
    until("the rude goes", || server.get("pods", "default", "rude").is_none().then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it had no grace");
    watch -= server.list("pods", None).len();
    assert_eq!(watch, 2);
}

#[tokio::test]
async fn containers_start_again_by_policy_and_in_order() {
    let (_server, kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    let mut pod =
        shell("a", "test -f /data/init || exit 9; test -f /data/once && exec sleep 60; touch /data/once; exit 1");
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    let mount = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-f", "/data/ready"]}, "periodSeconds": 1});
    pod["spec"]["initContainers"] =
        json!([{"name": "i", "image": "x", "command": ["touch", "/data/init"], "volumeMounts": mount}]);
    create(&pods, pod).await;
    phase(&pods, "a", "Running").await;
    let restarted = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref()?.first());
        status.is_some_and(|one| {
            one.restart_count == 1 && one.state.as_ref().is_some_and(|state| state.running.is_some())
        })
    };
    let wait = Duration::from_secs(10);
    tokio::time::timeout(wait, await_condition(pods.clone(), "a", restarted)).await.expect("started again").unwrap();
    let again = serde_json::to_value(pods.get("a").await.unwrap()).unwrap();
    assert_eq!(again["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(again["status"]["containerStatuses"][0]["ready"], false);
    std::fs::write(kubelet.folder("default", "a").unwrap().join("volumes/data/ready"), "").unwrap();
    let ready = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        status.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    tokio::time::timeout(wait, await_condition(pods.clone(), "a", ready)).await.expect("ready").unwrap();
}

#[tokio::test]
async fn pods_wait_for_reasons() {
    let (server, kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    kubelet.hold(true);
    create(&pods, shell("held", "true")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(pods.get("held").await.unwrap().spec.unwrap().node_name.is_none());
    kubelet.unschedulable("app=held", "0/1 nodes are available: 1 Insufficient cpu.");
    kubelet.hold(false);
    let events: Api<Event> = Api::default_namespaced(pods.clone().into_client());
    let told = until("it is unschedulable", || {
        let pod = server.get("pods", "default", "held")?;
        Some(pod["status"]["conditions"][0].clone()).filter(|condition| condition["reason"] == "Unschedulable")
    })
    .await;
    assert_eq!((told["type"].as_str(), told["status"].as_str()), (Some("PodScheduled"), Some("False")));
    let failed = events.list(&ListParams::default().fields("reason=FailedScheduling")).await.unwrap();
    assert_eq!(failed.items[0].message.as_deref(), Some("0/1 nodes are available: 1 Insufficient cpu."));
    kubelet.schedulable();
    phase(&pods, "held", "Succeeded").await;

    kubelet.bad_image("sh:1");
    create(&pods, shell("image", "true")).await;
    until("it backs off", || {
        let pod = server.get("pods", "default", "image")?;
        (pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff").then_some(())
    })
    .await;
    kubelet.good_image("sh:1");
    phase(&pods, "image", "Succeeded").await;
}

#[tokio::test]
async fn a_preempted_pod_says_so_on_its_way_out() {
    let (server, kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    create(&pods, shell("a", "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done")).await;
    phase(&pods, "a", "Running").await;
    kubelet.preempt("default", "a");
    let pod = server.get("pods", "default", "a").unwrap();
    let all = pod["status"]["conditions"].as_array().unwrap();
    assert!(all.iter().any(|one| one["type"] == "DisruptionTarget" && one["reason"] == "PreemptionByScheduler"));
    until("it goes", || server.get("pods", "default", "a").is_none().then_some(())).await;
}

#[tokio::test]
async fn hundreds_of_pods_are_there_at_once_and_go() {
    let (server, _kubelet, pods) = begin(|server| Kubelet::of(server).instant(true).start()).await;
    for number in 0..300 {
        create(&pods, shell(&format!("p-{number}"), "true")).await;
    }
    let all =
        |server: &Server| server.list("pods", None).iter().filter(|pod| pod["status"]["phase"] == "Running").count();
    until("all run", || Some(()).filter(|()| all(&server) == 300)).await;
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    until("all are gone", || Some(()).filter(|()| server.list("pods", None).is_empty())).await;
}

#[tokio::test]
async fn a_lost_node_keeps_its_pods_terminating() {
    let nodes =
        |server: &Server| Kubelet::of(server).node("one", &[("zone", "a")]).node("two", &[("zone", "b")]).start();
    let (server, kubelet, pods) = begin(nodes).await;
    let mut pod = shell("a", "sleep 60");
    pod["spec"]["nodeSelector"] = json!({"zone": "a"});
    create(&pods, pod).await;
    assert_eq!(phase(&pods, "a", "Running").await["spec"]["nodeName"], "one");
    kubelet.lose_node("one", Duration::from_millis(200));
    let pod = until("it is deleted", || {
        server.get("pods", "default", "a").filter(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    })
    .await;
    let all = pod["status"]["conditions"].as_array().unwrap();
    assert!(all.iter().any(|one| one["reason"] == "DeletionByTaintManager"), "{all:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(pods.get_opt("a").await.unwrap().is_some());
    kubelet.find_node("one");
    until("it goes", || server.get("pods", "default", "a").is_none().then_some(())).await;
}

#[tokio::test]
async fn a_stateful_set_keeps_names_and_data() {
    let (server, _kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    let _sets = StatefulSets::start(&server);
    let set = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: x, command: [/bin/sh, -c, "echo $HOSTNAME >>/data/log; cat /data/log; exec sleep 60"], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
"#;
    server.apply_yaml(set, "default").unwrap();
    let ready = |server: &Server| {
        server.get("statefulsets", "default", "db").and_then(|set| set["status"]["readyReplicas"].as_i64())
    };
    until("three are ready", || ready(&server).filter(|ready| *ready == 3)).await;
    let names: Vec<Value> = server.list("pods", None).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    let first = pods.get("db-1").await.unwrap();
    assert_eq!(first.spec.as_ref().unwrap().subdomain.as_deref(), Some("db"));
    pods.delete("db-1", &DeleteParams::default()).await.unwrap();
    until("it comes again", || {
        let pod = server.get("pods", "default", "db-1")?;
        let other = pod["metadata"]["uid"].as_str() != first.metadata.uid.as_deref();
        (other && _kubelet.logs("default", "db-1", "c") == "db-1\ndb-1\n").then_some(())
    })
    .await;
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::default_namespaced(pods.clone().into_client());
    sets.patch_scale("db", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.unwrap();
    until("one is left", || Some(()).filter(|()| server.list("pods", None).len() == 1)).await;
    sets.delete("db", &DeleteParams::default()).await.unwrap();
    until("all are gone", || Some(()).filter(|()| server.list("pods", None).is_empty())).await;
    assert_eq!(server.list("persistentvolumeclaims", None).len(), 3);
}

#[tokio::test]
async fn jobs_complete_or_fail() {
    let (server, _kubelet, pods) = begin(|server| Kubelet::of(server).start()).await;
    let _jobs = Jobs::start(&server);
    let job = |name: &str, script: &str| {
        format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{backoffLimit: 1, template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: x, command: [/bin/sh, -c, '{script}']}}]}}}}}}}}"
        )
    };
    server.apply_yaml(&format!("{}\n---\n{}", job("good", "true"), job("bad", "exit 1")), "default").unwrap();
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::default_namespaced(pods.into_client());
    let wait = Duration::from_secs(20);
    let done = await_condition(jobs.clone(), "good", conditions::is_job_completed());
    tokio::time::timeout(wait, done).await.expect("it completes").unwrap();
    until("it fails", || {
        let job = server.get("jobs", "default", "bad")?;
        let all = job["status"]["conditions"].as_array()?.clone();
        all.iter().any(|one| one["type"] == "Failed" && one["reason"] == "BackoffLimitExceeded").then_some(())
    })
    .await;
    assert_eq!(jobs.get("bad").await.unwrap().status.unwrap().failed, Some(2));
}
