//! An installation that runs: its Kubernetes, its masters, and whoever asks them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gristmill_engine::node::pods::Seat;
use gristmill_k8s::{pod, pool};
use gristmill_k8s_fake::{Jobs, Kubelet, Server, StatefulSets};
use serde_json::{Value, json};

use crate::cluster::api::http;
use crate::cluster::nodes::{Client, first_login};
use crate::program::{Ended, Folder, ended, program, until};

pub(super) const NAMESPACE: &str = "mill";
pub(super) const IMAGE: &str = "gristmill:test";
/// Another version, which is the same program.
pub(super) const NEXT_IMAGE: &str = "gristmill:next";
/// The longest wait for an answer while a leader is lost, and for the end of a job.
const PATIENCE: Duration = Duration::from_secs(120);
/// Workers of the pool whose addresses are in their certificate.
const WORKERS: u32 = 16;

/// What is chosen of an installation.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) masters: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) idle: &'static str,
    pub(super) start_within: &'static str,
    pub(super) pending: u32,
}

impl Choice {
    /// One master, workers that go when there is nothing to do.
    pub(super) const SMALL: Self = Self { masters: 1, min: 0, max: 3, idle: "2s", start_within: "1m", pending: 10 };
}

/// A mapper that takes its time for each line, so that something can happen meanwhile.
const SLOW: &str = "#!/bin/sh\nwhile read -r line; do sleep 0.1; echo \"$line\"; done\n";

/// An installation. What comes first ends first.
pub(super) struct Mill {
    client: Client,
    token: String,
    pub(super) kubelet: Kubelet,
    _sets: StatefulSets,
    _jobs: Jobs,
    pub(super) server: Server,
    pub(super) folder: Folder,
    choice: Choice,
}

impl Mill {
    /// Installs, waits until masters are ready, and logs in as the first user.
    pub(super) async fn of(choice: Choice) -> Self {
        let (folder, server) = (Folder::new(), Server::start().await);
        let kubelet = Kubelet::of(&server).image(IMAGE, program()).image(NEXT_IMAGE, program()).start();
        let (sets, jobs) = (StatefulSets::start(&server), Jobs::start(&server));
        let masters = choice.masters;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let all = manifests(&folder, choice, IMAGE);
        let next = manifests(&folder, choice, NEXT_IMAGE);
        let secrets = certificates(&folder, &kubelet, &[&all, &next], masters);
        apply(&server, [namespace].into_iter().chain(secrets).chain(all));
        let addresses: Vec<String> =
            (0..masters).map(|n| format!("{}:7070", kubelet.address(NAMESPACE, &format!("gristmill-{n}")))).collect();
        // The name of the Service that is all masters.
        kubelet.resolve(r"(^|=)gristmill-masters\.mill\.svc:7070", &format!("${{1}}{}", addresses.join(",")));
        let client = Client::of(&folder, addresses, " --tls-ca certs/ca.pem");
        let mut mill = Self { client, token: String::new(), kubelet, _sets: sets, _jobs: jobs, server, folder, choice };
        until("masters that are ready", || mill.ready_masters() == masters as usize);
        mill.log_in();
        mill
    }

    /// As an upgrade without Helm: the job of the installation goes, since it cannot be changed, and then all is applied. With this
    /// image, so many masters, and a flag more of theirs if there is one.
    pub(super) fn upgrade(&self, image: &str, masters: u32, flag: Option<&str>) {
        self.delete(&format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs/gristmill-init"));
        let mut all = manifests(&self.folder, Choice { masters, ..self.choice }, image);
        let set = all.iter_mut().find(|object| object["kind"] == "StatefulSet").unwrap();
        let args = &mut set["spec"]["template"]["spec"]["containers"][0]["args"];
        args.as_array_mut().unwrap().extend(flag.map(Value::from));
        apply(&self.server, all);
    }

    /// As `kubectl scale`.
    pub(super) fn scale(&self, masters: u32) {
        let mut set = self.server.get("statefulsets.apps", NAMESPACE, "gristmill").unwrap();
        set["apiVersion"] = "apps/v1".into();
        set["kind"] = "StatefulSet".into();
        set["spec"]["replicas"] = masters.into();
        apply(&self.server, [set]);
    }

    fn log_in(&mut self) {
        let secret = self.server.get("secrets", NAMESPACE, "gristmill-admin").unwrap();
        let password = STANDARD.decode(secret["data"]["password"].as_str().unwrap()).unwrap();
        let at = format!("--at {} --tls-ca certs/ca.pem", self.client.addresses()[0]);
        self.token = first_login(&self.folder, &at, String::from_utf8(password).unwrap().trim());
        self.client.bears(&self.token);
    }

    pub(super) fn ready_masters(&self) -> usize {
        let masters = self.server.list("pods", Some(NAMESPACE)).into_iter();
        let is = |pod: &Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "master" && is_ready(pod);
        masters.filter(is).count()
    }

    /// Pods of workers that are there, those that have ended too.
    pub(super) fn workers(&self) -> Vec<Value> {
        workers(&self.server)
    }

    /// Names of pods whose workers run tasks or wait for some.
    pub(super) fn registered(&mut self) -> Vec<String> {
        let all = self.json("workers");
        let ready = all.as_array().unwrap().iter().filter(|worker| worker["state"] == "ready");
        ready.map(|worker| worker["name"].as_str().unwrap().to_string()).collect()
    }

    /// Waits for workers that can be given tasks, so many, and gives their names.
    pub(super) fn registers(&mut self, number: usize) -> Vec<String> {
        let mut names = Vec::new();
        until(&format!("{number} workers"), || {
            names = self.registered();
            names.len() >= number
        });
        names
    }

    /// Waits for a worker that runs something, and gives its name.
    pub(super) fn busy(&mut self) -> String {
        let mut busy = None;
        until("a worker that runs something", || {
            let all = self.json("workers");
            let runs = |worker: &&Value| worker["state"] == "ready" && worker["busy_slots"].as_u64() > Some(0);
            busy = all.as_array().unwrap().iter().find(runs).map(|worker| worker["name"].as_str().unwrap().to_string());
            busy.is_some()
        });
        busy.unwrap()
    }

    /// The pod of the master that leads.
    pub(super) fn leader(&mut self) -> String {
        let mut found = None;
        until("a leader", || {
            let status = self.json("cluster status");
            let leads = status["masters"].as_array().unwrap().iter().find(|master| master["role"] == "leader").cloned();
            let at = leads.and_then(|leads| leads["address"].as_str().map(String::from));
            let number = self.client.addresses().iter().position(|address| Some(address) == at.as_ref());
            found = number.map(|number| format!("gristmill-{number}"));
            found.is_some()
        });
        found.unwrap()
    }

    /// Asks a master that answers; the command must succeed.
    pub(super) fn done(&mut self, arguments: &str) -> String {
        let ended = self.ask(arguments);
        assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
        ended.out
    }

    pub(super) fn ask(&mut self, arguments: &str) -> Ended {
        self.client.ask(arguments, Duration::from_secs(20), PATIENCE)
    }

    pub(super) fn json(&mut self, arguments: &str) -> Value {
        let out = self.done(&format!("{arguments} -o json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments}: {e}: {out}"))
    }

    /// Puts so many small texts of so many lines into the store, and a mapper for them beside it.
    pub(super) fn texts(&mut self, files: usize, lines: usize) {
        for n in 0..files {
            let text: String = (0..lines).map(|line| format!("{} of {n}\n", (n * 31 + line * 7) % 13)).collect();
            self.folder.file(&format!("books/{n:02}.txt"), text);
        }
        self.folder.file("slow.sh", SLOW);
        self.done("data put --overwrite books admin/books");
    }

    /// Submits a job that takes a tenth of a second for each line, a map task a file; gives its id.
    pub(super) fn slow(&mut self, output: &str) -> String {
        self.submit(&format!(
            "streaming -input admin/books -mapper slow.sh -file slow.sh -reducer cat -numReduceTasks 2 \
             --require scripts -output admin/{output}"
        ))
    }

    pub(super) fn submit(&mut self, arguments: &str) -> String {
        self.client.submit(arguments, PATIENCE)
    }

    /// Waits for the good end of a job.
    pub(super) fn ends(&mut self, job: &str) {
        self.client.complete(job, PATIENCE);
    }

    /// Waits for the good end of a job that [`Mill::slow`] submitted, and compares what it wrote with a run on this machine.
    pub(super) fn complete(&mut self, job: &str, output: &str) {
        self.ends(job);
        self.done(&format!("data get admin/{output}/ got/{output}"));
        if !self.folder.path().join("expected").exists() {
            // What the mapper does, but at once.
            self.folder
                .out("run streaming -input books -mapper cat -reducer cat -numReduceTasks 2 -output expected -q");
        }
        let of = |at: &str| -> BTreeMap<String, String> {
            let names = self.folder.names(at).into_iter().filter(|name| name.starts_with("part-"));
            names.map(|name| (name.clone(), self.folder.read(&format!("{at}/{name}")))).collect()
        };
        assert_eq!(of(&format!("got/{output}")), of("expected"), "the output of {job}");
    }

    pub(super) fn job(&mut self, job: &str) -> Value {
        self.json(&format!("job show {job}"))
    }

    pub(super) fn goes_on(&mut self, job: &str) -> bool {
        self.job(job)["ended_ms"] == 0
    }

    /// What happened to a job, by kind.
    pub(super) fn events(&mut self, job: &str, kind: &str) -> Vec<Value> {
        let all = self.json(&format!("job events {job}"));
        all.as_array().unwrap().iter().filter(|event| event["kind"] == kind).cloned().collect()
    }

    /// Waits until a job has so many maps done.
    pub(super) fn mapped(&mut self, job: &str, maps: u64) {
        until(&format!("{maps} maps"), || self.job(job)["maps"]["done"].as_u64() >= Some(maps));
    }

    /// Has MapReduceJobs run: there is the user as whom they are submitted, and this app is what [`Mill::slow`] runs.
    pub(super) fn operates(&mut self, app: &str) {
        self.done("role put objects jobs.submit jobs.read jobs.cancel data.read data.write apps.read apps.read.any");
        self.done("user add kubernetes --role objects");
        let at = format!("--at {} --tls-ca certs/ca.pem", self.client.addresses()[0]);
        let mut push =
            self.folder.gristmill(&format!("app push {app} slow.sh {at} -- streaming -mapper slow.sh -reducer cat"));
        let pushed = ended(push.env("GRISTMILL_TOKEN", &self.token).output().unwrap());
        assert_eq!(pushed.code, Some(0), "{pushed:?}");
        self.done("data put books kubernetes/books");
    }

    /// A MapReduceJob of this app, as YAML.
    pub(super) fn object(&self, name: &str, app: &str) -> String {
        format!(
            "apiVersion: gristmill.dev/v1alpha1\nkind: MapReduceJob\nmetadata:\n  name: {name}\nspec:\n  \
             app: {{pushed: {app}}}\n  inputs: [kubernetes/books/]\n  output: kubernetes/{name}\n  requires: [scripts]\n"
        )
    }

    /// Where a MapReduceJob stands; empty at first.
    pub(super) fn phase(&self, name: &str) -> String {
        let object = self.server.get("mapreducejobs", NAMESPACE, name).unwrap_or_default();
        object["status"]["phase"].as_str().unwrap_or_default().to_string()
    }

    /// Events about the object of this name.
    pub(super) fn events_of(&self, name: &str) -> Vec<Value> {
        let all = self.server.list("events", Some(NAMESPACE)).into_iter();
        all.filter(|event| event["involvedObject"]["name"] == name || event["regarding"]["name"] == name).collect()
    }

    /// Deletes an object as an administrator.
    pub(super) fn delete(&self, path: &str) {
        let config = self.server.kubeconfig(NAMESPACE);
        let token = config.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let (code, said) = http(self.server.url().trim_start_matches("http://"), "DELETE", path, &bearer, "");
        assert!((200..300).contains(&code), "{code}: {said}");
    }

    /// Waits until nothing is left but the least: no pod without a worker, and no worker without a pod.
    pub(super) fn settles(&mut self) {
        let least = self.choice.min as usize;
        until("pods and workers to be the least", || {
            let mut pods: Vec<String> = self.workers().iter().map(|pod| name(pod).to_string()).collect();
            let mut workers = self.registered();
            pods.sort();
            workers.sort();
            pods.len() == least && pods == workers
        });
    }
}

impl Drop for Mill {
    /// Of a test that failed, tells what there is and what was said.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for pod in self.server.list("pods", Some(NAMESPACE)) {
            let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
            let said = self.kubelet.logs(NAMESPACE, name(&pod), container);
            let last: Vec<&str> = said.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            let states = &pod["status"]["containerStatuses"][0]["state"];
            eprintln!("--- pod {}: {} {states}\n{}", name(&pod), pod["status"]["phase"], last.join("\n"));
        }
        for object in self.server.list("mapreducejobs", Some(NAMESPACE)) {
            eprintln!("--- job {}: {}", name(&object), object["status"]);
        }
    }
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    pod["metadata"]["deletionTimestamp"].is_null() && ready.is_some_and(|ready| ready["status"] == "True")
}

fn workers(server: &Server) -> Vec<Value> {
    let pods = server.list("pods", Some(NAMESPACE)).into_iter();
    pods.filter(|pod| pod["metadata"]["labels"]["gristmill.dev/pool"].is_string()).collect()
}

/// What a manifest must say for a small machine and a short test, and for a pool that runs scripts.
fn fitted(mut object: Value, choice: Choice) -> Value {
    if object["kind"] == "StatefulSet" {
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        container["args"].as_array_mut().unwrap().push("--password-cost=8KiB,1".into());
        for probe in ["startupProbe", "readinessProbe"] {
            container[probe]["periodSeconds"] = json!(1);
        }
    }
    if object["metadata"]["name"] == "gristmill-pools" {
        let file = &mut object["data"]["default.yaml"];
        let Choice { min, max, idle, start_within, pending, .. } = choice;
        let mut text = file.as_str().unwrap().to_string();
        let flag = text.lines().find(|line| line.contains("- --memory=")).unwrap();
        let indent = " ".repeat(flag.len() - flag.trim_start().len());
        for (from, to) in [
            ("min: 1\n", format!("min: {min}\n")),
            ("max: 10\n", format!("max: {max}\n")),
            ("idle: 5m\n", format!("idle: {idle}\n")),
            ("pending: 10\n", format!("pending: {pending}\n")),
            ("startWithin: 10m\n", format!("startWithin: {start_within}\n")),
            ("capabilities: []\n", "capabilities: [scripts]\n".into()),
            ("--slots=2", "--slots=1".into()),
            ("- --memory=2GiB\n", format!("- --memory=64MiB\n{indent}- --processes=isolated\n")),
        ] {
            assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
            text = text.replace(from, &to);
        }
        *file = text.into();
    }
    object
}

/// What `gristmill k8s manifests` prints, fitted.
fn manifests(folder: &Folder, choice: Choice, image: &str) -> Vec<Value> {
    let masters = choice.masters;
    let printed = folder.out(&format!("k8s manifests --namespace {NAMESPACE} --image {image} --masters {masters}"));
    let all = serde_saphyr::from_multiple::<Value>(&printed).unwrap();
    all.into_iter().map(|object| fitted(object, choice)).collect()
}

fn apply(server: &Server, objects: impl IntoIterator<Item = Value>) {
    for object in objects {
        server.apply_yaml(&object.to_string(), NAMESPACE).unwrap();
    }
}

/// Secrets with certificates for where pods are here, instead of those that the job of the installation makes for names: here
/// are no names. That job makes what is left, the first password.
fn certificates(folder: &Folder, kubelet: &Kubelet, versions: &[&[Value]], masters: u32) -> Vec<Value> {
    let workers = versions.iter().flat_map(|all| {
        let pools = all.iter().find(|object| object["metadata"]["name"] == "gristmill-pools").unwrap();
        let file = pool::parse("default", pools["data"]["default.yaml"].as_str().unwrap()).unwrap();
        let seat = move |index| Seat { pool: "default".into(), generation: file.pool.generation, index };
        (0..WORKERS).map(move |n| pod::name("gristmill", &seat(n)).unwrap())
    });
    let pods = (0..masters).map(|n| format!("gristmill-{n}")).chain(workers);
    let names = pods.map(|pod| format!(" --name {}", kubelet.address(NAMESPACE, &pod)));
    folder.out(&format!("certs init certs{}", names.collect::<String>()));
    let secret = |name: &str, files: &[(&str, &str)]| {
        let read = |file: &str| fs::read_to_string(folder.path().join("certs").join(file)).unwrap();
        let data: BTreeMap<&str, String> = files.iter().map(|(key, file)| (*key, read(file))).collect();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
    };
    let of = |role: &str| {
        let (certificate, key) = (format!("{role}.pem"), format!("{role}-key.pem"));
        let files = [("ca.crt", "ca.pem"), ("tls.crt", certificate.as_str()), ("tls.key", key.as_str())];
        secret(&format!("gristmill-{role}-tls"), &files)
    };
    vec![secret("gristmill-ca", &[("ca.crt", "ca.pem"), ("ca.key", "ca-key.pem")]), of("master"), of("worker")]
}

/// Looks all the time how many pods of workers there are that have not ended, and that no two are of one seat.
pub(super) struct Watched {
    over: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    doubled: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    pub(super) fn of(mill: &Mill) -> Self {
        let server = mill.server.clone();
        let (over, most, doubled) = (Arc::default(), Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let watched = Self { over, most: most.clone(), doubled: doubled.clone(), thread: None };
        let over = watched.over.clone();
        let look = move || {
            while !over.load(Relaxed) {
                let mut seats = BTreeMap::<String, String>::new();
                for pod in workers(&server) {
                    let labels = &pod["metadata"]["labels"];
                    let of = |label: &str| labels[format!("gristmill.dev/{label}")].to_string();
                    let seat = [of("cluster"), of("pool"), of("generation"), of("index")].concat();
                    if let Some(other) = seats.insert(seat, name(&pod).into()) {
                        doubled.lock().unwrap().push(format!("{other} and {}", name(&pod)));
                    }
                }
                most.fetch_max(seats.len(), Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        Self { thread: Some(std::thread::spawn(look)), ..watched }
    }

    /// The most that were there at a time; fails if two were one.
    pub(super) fn most(mut self) -> usize {
        self.over.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert_eq!(*self.doubled.lock().unwrap(), Vec::<String>::new());
        self.most.load(Relaxed)
    }
}

/// How long it takes until something is so.
pub(super) fn measured(what: &str, happened: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    until(what, happened);
    begun.elapsed()
}
