//! The launcher against a server that answers as Kubernetes does, with the rights that a master has and no more: what goes
//! wrong, and which calls are made. What any server must do is in `k8s/tests/conformance`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::node::pods::{Event, Pod, Pods, Refusal, Seat};
use gristmill_k8s::client::connect_by;
use gristmill_k8s::pods::{Launcher, Options};
use gristmill_k8s_fake::{Rule, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const NAMESPACE: &str = "mill";
const CLUSTER: u64 = 0xfeed;
const SOON: Duration = Duration::from_secs(30);

/// A server with a master's StatefulSet and its pod, and a launcher beside it.
struct World {
    server: Server,
    folder: TempDir,
    launcher: Arc<Launcher>,
}

fn pool(image: &str) -> String {
    format!("max: 3\nslots: 1\ntemplate: {{spec: {{containers: [{{name: worker, image: {image}}}]}}}}")
}

fn masters() -> &'static str {
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: mill}\n---\n
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: gm, namespace: mill}
spec:
  serviceName: gm-masters
  replicas: 1
  selector: {matchLabels: {app: gm}}
  template: {metadata: {labels: {app: gm}}, spec: {containers: [{name: master, image: gristmill}]}}
"
}

async fn launcher(kubeconfig: &str, folder: &Path, owner: bool) -> Arc<Launcher> {
    let file = folder.join(".kubeconfig");
    fs::write(&file, kubeconfig).expect("a file");
    let options = Options {
        namespace: NAMESPACE.into(),
        prefix: "gm".into(),
        folder: folder.into(),
        owner: owner.then(|| ("StatefulSet".into(), "gm".into())),
        pod: Some("gm-0".into()),
    };
    Launcher::new(connect_by(&file).await.expect("a client"), options).expect("a launcher")
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.apply_yaml(masters(), "mill").expect("masters");
        let uid = server.get("statefulsets.apps", NAMESPACE, "gm").expect("it is there")["metadata"]["uid"].clone();
        let owner = format!("[{{apiVersion: apps/v1, kind: StatefulSet, name: gm, uid: {uid}, controller: true}}]");
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: gm-0, namespace: mill, ownerReferences: {owner}}}\nspec: {{containers: [{{name: master, image: gristmill}}]}}"
        );
        server.apply_yaml(&pod, NAMESPACE).expect("a master");
        // As the chart's Role has them.
        let rules = [
            Rule::new(&[""], &["pods"], &["get", "list", "watch", "create", "delete"]),
            Rule::new(&[""], &["pods/log"], &["get"]),
            Rule::new(&["events.k8s.io"], &["events"], &["create", "patch"]),
        ];
        let token = server.enforce(NAMESPACE, "gm-master", &rules);
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.yaml"), pool("one")).expect("a file");
        let launcher = launcher(&server.kubeconfig_of(&token, NAMESPACE), folder.path(), true).await;
        Self { server, folder, launcher }
    }

    /// One that leads.
    async fn leading(term: u64) -> Self {
        let world = Self::new().await;
        world.launcher.lead(CLUSTER, Some(term));
        world.seen("the list", |pods| pods.is_empty()).await;
        world
    }

    fn seat(&self, index: u32) -> Seat {
        let pool = self.launcher.pools().expect("they are good").remove(0);
        Seat { pool: pool.name, generation: pool.generation, index }
    }

    /// Waits, as the engine does, until pods are so.
    async fn seen(&self, what: &str, so: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        let seen = timeout(SOON, async {
            loop {
                if let Ok(pods) = self.launcher.pods()
                    && so(&pods)
                {
                    return pods;
                }
                self.launcher.changed().await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("{what}: {:?}", self.launcher.pods()))
    }

    fn workers(&self) -> Vec<Value> {
        let pods = self.server.list("pods", Some(NAMESPACE)).into_iter();
        pods.filter(|pod| pod["metadata"]["name"] != "gm-0").collect()
    }

    fn calls(&self, verb: &str) -> usize {
        self.server.calls().iter().filter(|call| call.verb == verb && call.resource == "pods").count()
    }
}

fn word(result: Result<(), Refusal>) -> (bool, String) {
    match result.expect_err("it is refused") {
        Refusal::Later(reason, _) => (true, reason.word),
        Refusal::Never(reason) => (false, reason.word),
    }
}

fn later(word: &str) -> (bool, String) {
    (true, word.into())
}

fn never(word: &str) -> (bool, String) {
    (false, word.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_asked_of_the_own_pod_and_each_making_is_one_call() {
    let world = World::leading(7).await;
    for _ in 0..3 {
        assert_eq!(world.launcher.make(&world.seat(2), 7).await, Ok(()));
    }
    let owner = &world.workers().remove(0)["metadata"]["ownerReferences"][0];
    let masters = world.server.get("statefulsets.apps", NAMESPACE, "gm").expect("it is there");
    assert_eq!((&owner["name"], &owner["uid"]), (&masters["metadata"]["name"], &masters["metadata"]["uid"]));
    // Without a right to read StatefulSets.
    assert!(world.server.calls().iter().all(|call| call.resource != "statefulsets" || call.user.contains("admin")));
    assert_eq!(world.calls("create"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_whether_to_try_again() {
    let world = World::leading(1).await;
    let seat = world.seat(0);
    let make = || world.launcher.make(&seat, 1);
    // The master's own pod is one.
    world.server.quota(Some(1));
    assert_eq!(word(make().await), later("QuotaExceeded"));
    let Err(Refusal::Later(reason, None)) = make().await else { panic!("a quota may have room again") };
    assert!(reason.text.contains("exceeded quota"), "{reason}");
    world.server.quota(None);
    world.server.deny("create", "", "pods");
    assert_eq!(word(make().await), never("Forbidden"));
    world.server.allow_again();
    world.server.forget_calls();
    world.server.throttle(1);
    let Err(Refusal::Later(reason, wait)) = make().await else { panic!("a limit of calls passes") };
    assert_eq!((reason.word.as_str(), wait), ("TooManyRequests", Some(Duration::from_secs(1))));
    // It is for the engine to try again.
    assert_eq!(world.calls("create"), 1);
    world.server.stop();
    assert_eq!(word(make().await), later("Unreachable"));
    assert_eq!(word(world.launcher.delete("a", "b").await), later("Unreachable"));
    world.server.start_again().await;
    assert_eq!(make().await, Ok(()));
    // What a server takes as wrong stays wrong.
    fs::write(world.folder.path().join("a.yaml"), pool("' '")).expect("a file");
    let now = seat.generation;
    timeout(SOON, async {
        while world.seat(0).generation == now {
            world.launcher.changed().await;
        }
    })
    .await
    .expect("files are read again");
    assert_eq!(word(world.launcher.make(&seat, 1).await), later("PoolChanged"));
    assert_eq!(word(world.launcher.make(&world.seat(0), 1).await), never("Invalid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_lives_through_what_servers_do() {
    let world = World::leading(1).await;
    let makes = async |index| world.launcher.make(&world.seat(index), 1).await.expect("it is made");
    makes(0).await;
    world.seen("the first", |pods| pods.len() == 1).await;
    world.server.drop_watches();
    makes(1).await;
    world.seen("what came after a break", |pods| pods.len() == 2).await;
    for by_status in [false, true] {
        world.server.gone_by_status(by_status);
        let before = world.workers().len();
        makes(before as u32).await;
        world.server.compact();
        world.server.drop_watches();
        world.seen("what came when the place was forgotten", |pods| pods.len() == before + 1).await;
    }
    // While the server is down, what is known stays known.
    world.server.stop();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.launcher.pods().map(|pods| pods.len()), Ok(4));
    world.server.start_again().await;
    makes(4).await;
    world.seen("what came after the server was down", |pods| pods.len() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_makes_and_watches_nothing() {
    let world = World::new().await;
    let seat = world.seat(0);
    assert_eq!(word(world.launcher.make(&seat, 1).await), later("NotLeading"));
    assert_eq!(world.launcher.pods().expect_err("it does not watch").word, "NotLeading");
    world.launcher.lead(CLUSTER, Some(5));
    world.seen("the list", |_| true).await;
    assert_eq!(word(world.launcher.make(&seat, 4).await), later("NotLeading"));
    assert_eq!(world.launcher.make(&seat, 5).await, Ok(()));
    world.seen("the pod", |pods| pods.len() == 1).await;
    assert!(world.calls("list") == 1 && world.calls("watch") >= 1);
    world.launcher.lead(CLUSTER, None);
    assert_eq!(world.launcher.pods().expect_err("it has ended").word, "NotLeading");
    assert_eq!(word(world.launcher.make(&seat, 5).await), later("NotLeading"));
    world.server.forget_calls();
    world.server.drop_watches();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.calls("watch") + world.calls("list"), 0);
    world.launcher.lead(CLUSTER, Some(9));
    let pods = world.seen("the pod that another term made", |pods| pods.len() == 1).await;
    assert_eq!(pods[0].term, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_where_people_look() {
    let world = World::leading(1).await;
    world.launcher.make(&world.seat(0), 1).await.expect("it is made");
    let pod = world.seen("the pod", |pods| pods.len() == 1).await.remove(0);
    let event = |pod: Option<&Pod>, text: &str| Event {
        pod: pod.map(|pod| (pod.name.clone(), pod.uid.clone())),
        reason: "ScaledUp".into(),
        text: text.into(),
        warning: pod.is_some(),
    };
    for (about, text) in [(Some(&pod), "one"), (Some(&pod), "one"), (Some(&pod), "two"), (None, "all")] {
        world.launcher.tell(&event(about, text)).await;
    }
    let told = world.server.list("events", Some(NAMESPACE));
    let of = |text: &str| told.iter().filter(|event| event["message"] == text).collect::<Vec<_>>();
    let [one] = of("one")[..] else { panic!("{told:?}") };
    assert_eq!((&one["involvedObject"]["uid"], &one["type"]), (&Value::from(pod.uid.as_str()), &"Warning".into()));
    assert_eq!(one["series"]["count"], 2);
    assert_eq!(of("two").len(), 1);
    let [all] = of("all")[..] else { panic!("{told:?}") };
    assert_eq!((&all["involvedObject"]["kind"], &all["involvedObject"]["name"]), (&"StatefulSet".into(), &"gm".into()));
    // A few at a time: what is beyond is dropped, at once.
    world.server.forget_calls();
    world.server.slow(Duration::from_millis(500));
    let many = (0..20).map(|at| event(Some(&pod), &at.to_string())).collect::<Vec<_>>();
    let mut telling = tokio::task::JoinSet::new();
    for event in many {
        let launcher = world.launcher.clone();
        telling.spawn(async move { launcher.tell(&event).await });
    }
    telling.join_all().await;
    world.server.slow(Duration::ZERO);
    assert_eq!(world.server.calls().iter().filter(|call| call.resource == "events").count(), 4);
    // Nobody waits for what nobody may write.
    world.server.deny("*", "events.k8s.io", "events");
    world.launcher.tell(&event(None, "never")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_nobody_are_none() {
    let world = World::leading(1).await;
    assert_eq!(world.launcher.last_words("nobody", "none", 1_000).await, "");
    world.server.stop();
    assert_eq!(world.launcher.last_words("nobody", "none", 1_000).await, "");
}

/// Answers every call with these bytes, and gives back the first line of the last.
async fn canned(answer: &'static [u8]) -> (String, tokio::sync::watch::Receiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, asked) = tokio::sync::watch::channel(String::new());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 16 << 10];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&head[..read]).to_string();
            tell.send_replace(text);
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'URL'}}]\n\
        contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n";
    (config.replace("URL", &url), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_the_end_in_whatever_letters() {
    let (config, asked) = canned(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nfirst\nsecond \xff\nthird\n").await;
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = launcher(&config, folder.path(), false).await;
    assert_eq!(launcher.last_words("p", "u", 1_000).await, "first\nsecond \u{fffd}\nthird");
    assert_eq!(launcher.last_words("p", "u", 9).await, "third");
    let asked = asked.borrow().clone();
    let line = asked.lines().next().unwrap_or_default();
    for part in ["/api/v1/namespaces/mill/pods/p/log?", "container=worker", "tailLines=64", "limitBytes="] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("previous=true") && !line.contains("follow=true"), "{line}");
    let agent = format!("user-agent: gristmill/{}", env!("CARGO_PKG_VERSION"));
    assert!(asked.lines().any(|line| line.eq_ignore_ascii_case(&agent)), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_are_read_out_of_answers_in_plain_text() {
    // API Priority and Fairness answers so.
    let (config, _) = canned(
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nconnection: close\r\n\r\nToo many requests, please try again later.",
    )
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = launcher(&config, folder.path(), false).await;
    match launcher.delete("p", "u").await {
        Err(Refusal::Later(reason, wait)) => {
            assert_eq!(reason.to_string(), "TooManyRequests: Too many requests, please try again later.");
            assert_eq!(wait, Some(Duration::from_secs(7)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_say_nothing_are_given_up() {
    let world = World::leading(1).await;
    world.server.slow(Duration::from_secs(60));
    let begun = std::time::Instant::now();
    assert_eq!(word(world.launcher.make(&world.seat(0), 1).await), later("Unreachable"));
    assert!(begun.elapsed() < Duration::from_secs(15));
    world.server.slow(Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_and_owners_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, _) = canned(b"").await;
    fs::write(folder.path().join(".kubeconfig"), config).expect("a file");
    let client = connect_by(&folder.path().join(".kubeconfig")).await.expect("a client");
    let of = |prefix: &str, owner: Option<&str>| {
        let options = Options {
            namespace: NAMESPACE.into(),
            prefix: prefix.into(),
            folder: folder.path().into(),
            owner: owner.map(|kind| (kind.into(), "n".into())),
            pod: None,
        };
        Launcher::new(client.clone(), options).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(of("gm", Some("StatefulSet")), Ok(()));
    for prefix in ["", "Gm", "-gm", "gm-", "g.m", "1gm", &"g".repeat(64)] {
        assert!(of(prefix, None).is_err(), "{prefix:?}");
    }
    let said = of("gm", Some("Pod")).expect_err("a master's pod is no owner");
    assert!(said.contains("StatefulSet, Deployment"), "{said}");
}
