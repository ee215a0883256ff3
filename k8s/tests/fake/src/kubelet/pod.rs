//! A pod's life on its node: volumes, init containers in their order, containers, restarts, and its end.
//!
//! Pod Lifecycle; Init Containers; Pod Lifecycle, "Termination of Pods": SIGTERM, the grace, SIGKILL, and then the object
//! is removed. Sidecars (init containers that go on) and hooks are left out.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::container::{Container, Phase, spawn};
use super::probe::{Probed, Verdict};
use super::volumes::Volumes;
use super::{Ends, Inner, env, report};
use crate::state::{LogFiles, now};
use crate::store::Key;

/// What happens to a pod from outside.
pub(super) enum Order {
    /// It is deleted, and has so many seconds.
    Delete(i64),
    /// Its object is gone already.
    Gone,
    /// Its processes are killed, for this reason.
    Kill(&'static str),
    Evict,
    Signal(Signal),
    Probe(usize, Verdict),
    /// The grace of this process of a container is over.
    Late(usize, Pid),
}

/// Volumes are made fresh, and what could not be done is tried again, so often.
const TICK: Duration = Duration::from_secs(1);

/// Pods whose object is gone have this long (Pod Lifecycle, "Forced Pod termination": a small grace).
const FORCED: Duration = Duration::from_secs(2);

struct Life {
    inner: Arc<Inner>,
    pod: Arc<Value>,
    key: Key,
    uid: String,
    policy: String,
    folder: PathBuf,
    address: Ipv4Addr,
    begun: String,
    containers: Vec<Container>,
    exits: JoinSet<(usize, Option<ExitStatus>)>,
    probes: Vec<Option<Ends>>,
    volumes: Option<Volumes>,
    orders: mpsc::UnboundedSender<Order>,
    evicted: bool,
    /// It is being ended; from the given time on by SIGKILL.
    ending: Option<Instant>,
    gone: bool,
    told: Value,
}

/// Runs a pod until it has ended.
pub(super) async fn run(inner: Weak<Inner>, pod: Arc<Value>, mut heard: mpsc::UnboundedReceiver<Order>) {
    let Some(mut life) = inner.upgrade().map(|inner| Life::new(inner, pod)) else { return };
    life.lost();
    loop {
        life.start();
        life.report().await;
        if life.is_over() {
            break;
        }
        let wake = life.wake();
        tokio::select! {
            order = heard.recv() => match order {
                Some(order) => life.ordered(order),
                None => return,
            },
            Some(Ok((index, status))) = life.exits.join_next(), if !life.exits.is_empty() => life.exited(index, status),
            () = tokio::time::sleep_until(wake) => life.tick(),
        }
    }
    life.end().await;
}

fn list(pod: &Value, name: &str) -> Vec<Value> {
    pod["spec"][name].as_array().cloned().unwrap_or_default()
}

impl Life {
    fn new(inner: Arc<Inner>, pod: Arc<Value>) -> Life {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let metadata = &pod["metadata"];
        let (namespace, name, uid) = (text(&metadata["namespace"]), text(&metadata["name"]), text(&metadata["uid"]));
        let init = list(&pod, "initContainers").iter().map(|spec| Container::new(spec, true)).collect::<Vec<_>>();
        let main = list(&pod, "containers");
        let containers: Vec<Container> =
            init.into_iter().chain(main.iter().map(|spec| Container::new(spec, false))).collect();
        // Probes report by the same way as orders come.
        let orders = inner.runs().get(&uid).map(|run| run.orders.clone());
        Life {
            folder: inner.pod_folder(&namespace, &name, &uid),
            address: inner.address(&namespace, &name),
            key: Key::new("pods", &namespace, &name),
            uid,
            policy: text(&pod["spec"]["restartPolicy"]),
            begun: now(),
            probes: containers.iter().map(|_| None).collect(),
            containers,
            exits: JoinSet::new(),
            volumes: None,
            orders: orders.unwrap_or_else(|| mpsc::unbounded_channel().0),
            evicted: false,
            ending: None,
            gone: false,
            told: Value::Null,
            inner,
            pod,
        }
    }

    /// A pod that ran here before its node was lost: its processes are gone.
    fn lost(&mut self) {
        if self.pod["status"]["phase"] != "Running" {
            return;
        }
        for container in &mut self.containers {
            if container.init {
                container.phase = Phase::Ended { state: json!({"exitCode": 0, "reason": "Completed"}) };
                continue;
            }
            container.killed = Some("ContainerStatusUnknown");
            container.ended(None);
            if self.policy != "Never" {
                container.again();
            }
        }
    }

    fn is_over(&self) -> bool {
        let running = self.containers.iter().any(Container::is_running);
        let phase = report::phase(&self.containers, &self.policy, self.evicted);
        !running && (self.ending.is_some() || self.gone || phase == "Succeeded" || phase == "Failed")
    }

    /// When there is something to be done without an order.
    fn wake(&self) -> Instant {
        let due = self.containers.iter().filter(|one| matches!(one.phase, Phase::Waiting(..))).map(|one| one.due);
        let soonest = due.filter(|due| *due > Instant::now()).chain(self.ending).min();
        let tick = Instant::now() + TICK;
        soonest.map_or(tick, |soonest| soonest.min(tick))
    }

    fn tick(&mut self) {
        if self.ending.is_some_and(|at| at <= Instant::now()) {
            self.signal(Signal::KILL);
            // Should that not have been enough, it is said again.
            self.ending = Some(Instant::now() + TICK);
        }
        if let Some(volumes) = &mut self.volumes {
            // What is missing for a while keeps its last content.
            let _ = volumes.refresh(&self.inner, &self.pod, self.address);
        }
        let seconds = self.pod["spec"]["activeDeadlineSeconds"].as_i64();
        let begun: Option<jiff::Timestamp> = self.begun.parse().ok();
        if let (Some(seconds), Some(begun)) = (seconds, begun)
            && (jiff::Timestamp::now() - begun).get_seconds() >= seconds
            && !self.evicted
        {
            self.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
        }
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.inner.shared.state().change(&self.key, &self.uid, "status", |pod| {
            pod["status"]["reason"] = json!(reason);
            pod["status"]["message"] = json!(message);
        });
        self.ordered(Order::Evict);
    }

    fn signal(&self, signal: Signal) {
        self.containers.iter().for_each(|one| one.signal(signal));
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Delete(grace) => self.terminate(Duration::from_secs(u64::try_from(grace).unwrap_or_default())),
            Order::Gone => {
                self.gone = true;
                self.terminate(FORCED);
            }
            Order::Evict => {
                self.evicted = true;
                self.terminate(Duration::ZERO);
            }
            Order::Kill(reason) => {
                for container in self.containers.iter_mut().filter(|one| one.is_running()) {
                    container.killed = Some(reason);
                    container.signal(Signal::KILL);
                }
            }
            Order::Signal(signal) => self.signal(signal),
            Order::Probe(index, verdict) => self.probed(index, verdict),
            Order::Late(index, pid) => {
                let container = &self.containers[index];
                if container.pid == Some(pid) {
                    container.signal(Signal::KILL);
                }
            }
        }
    }

    fn terminate(&mut self, grace: Duration) {
        let at = Instant::now() + grace;
        let at = self.ending.map_or(at, |before| before.min(at));
        self.ending = Some(at);
        self.probes.iter_mut().for_each(|probe| *probe = None);
        self.signal(if grace.is_zero() { Signal::KILL } else { Signal::TERM });
        self.inner.event(&self.key, "Normal", "Killing", "Stopping containers", "kubelet");
    }

    fn probed(&mut self, index: usize, verdict: Verdict) {
        let container = &mut self.containers[index];
        match verdict {
            Verdict::Started => container.startup = true,
            Verdict::Ready(ready) => container.ready = ready && container.is_running(),
            Verdict::Dead => {
                container.signal(Signal::TERM);
                let message = format!("Container {} failed liveness probe, will be restarted", container.name());
                let pid = container.pid;
                self.inner.event(&self.key, "Warning", "Unhealthy", &message, "kubelet");
                let grace = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
                self.kill_later(index, pid, Duration::from_secs(grace));
            }
        }
    }

    /// By its number alone the process would not be known for sure when the grace is over.
    fn kill_later(&self, index: usize, pid: Option<Pid>, grace: Duration) {
        let (Some(pid), orders) = (pid, self.orders.clone()) else { return };
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            // The pod may have ended meanwhile.
            let _ = orders.send(Order::Late(index, pid));
        });
    }

    fn exited(&mut self, index: usize, status: Option<ExitStatus>) {
        self.probes[index] = None;
        let container = &mut self.containers[index];
        container.ended(status);
        let key = (self.key.namespace.clone(), self.key.name.clone(), container.name().to_string());
        let done = container.is_done(&self.policy) || self.ending.is_some();
        if let Some(files) = self.inner.shared.state().logs.get_mut(&key) {
            files.ended = true;
        }
        if !done {
            container.again();
            let message = format!("Back-off restarting failed container {}", container.name());
            self.inner.event(&self.key, "Warning", "BackOff", &message, "kubelet");
        }
    }

    /// Starts what is due: the first init container that has not succeeded, or else all containers.
    fn start(&mut self) {
        if self.ending.is_some() || self.gone || self.evicted {
            return;
        }
        if self.volumes.is_none() {
            match Volumes::make(&self.inner, &self.pod, &self.folder, self.address) {
                Ok(volumes) => self.volumes = Some(volumes),
                Err(error) => {
                    return self.inner.event(&self.key, "Warning", "FailedMount", &error, "kubelet");
                }
            }
        }
        let init = self.containers.iter().position(|one| one.init && one.exit_code() != Some(0));
        let which: Vec<usize> = match init {
            Some(index) => vec![index],
            None => (0..self.containers.len()).filter(|index| !self.containers[*index].init).collect(),
        };
        for index in which {
            let container = &self.containers[index];
            if matches!(container.phase, Phase::Waiting(..)) && container.due <= Instant::now() {
                self.start_one(index);
            }
        }
    }

    fn start_one(&mut self, index: usize) {
        match self.try_start(index) {
            Ok(()) => {}
            Err((reason, message)) => {
                let container = &mut self.containers[index];
                // A pull that failed is tried again after a while, and is said to wait meanwhile.
                let again = matches!(container.phase, Phase::Waiting("ErrImagePull" | "ImagePullBackOff", _));
                let reason = if reason == "ErrImagePull" && again { "ImagePullBackOff" } else { reason };
                container.phase = Phase::Waiting(reason, message.clone());
                container.due = Instant::now() + TICK;
                self.inner.event(&self.key, "Warning", "Failed", &message, "kubelet");
            }
        }
    }

    fn try_start(&mut self, index: usize) -> Result<(), (&'static str, String)> {
        let spec = self.containers[index].spec.clone();
        let image = spec["image"].as_str().unwrap_or_default();
        let pull = |why: &str| ("ErrImagePull", format!("Failed to pull image \"{image}\": {why}"));
        if self.inner.weather().bad_images.contains(image) {
            return Err(pull("not found"));
        }
        let config = |error: String| ("CreateContainerConfigError", error);
        let mut env = env::variables(&self.inner, &self.pod, &spec, self.address).map_err(config)?;
        let Some(volumes) = &mut self.volumes else { return Ok(()) };
        if let Some(path) = volumes.kubeconfig(&self.inner, &self.pod, &spec) {
            env.entry("KUBECONFIG".into()).or_insert_with(|| path.to_string_lossy().into_owned());
        }
        let places = env::Places::new(&self.inner, volumes.mounts(&spec, &env), self.address);
        let words = env::words(&self.inner, &spec, &env, &places).ok_or_else(|| pull("nothing stands for it here"))?;
        let mut replaced = std::collections::BTreeMap::new();
        for (name, value) in &env {
            let own = ["PATH", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"].contains(&name.as_str());
            let value = if own { value.clone() } else { places.replace(&self.inner, value) };
            replaced.insert(name.clone(), value);
        }
        let folder = match spec["workingDir"].as_str() {
            Some(folder) => PathBuf::from(places.replace(&self.inner, folder)),
            None => self.folder.join("work"),
        };
        let logs = self.folder.join("logs");
        let container = &mut self.containers[index];
        let log = logs.join(format!("{}.{}.log", container.name(), container.restarts));
        let made = std::fs::create_dir_all(&logs).and_then(|()| std::fs::create_dir_all(&folder));
        let child = made.and_then(|()| spawn(&words, &replaced, &folder, &log));
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                // RunContainerError ends the attempt with 128, as container runtimes do.
                let message = format!("failed to start {}: {error}", words[0]);
                self.inner.event(&self.key, "Warning", "Failed", &message, "kubelet");
                let state = json!({"exitCode": 128, "reason": "StartError", "message": message,
                    "startedAt": now(), "finishedAt": now()});
                container.phase = Phase::Ended { state };
                if !container.is_done(&self.policy) {
                    container.again();
                }
                return Ok(());
            }
        };
        container.pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        container.phase = Phase::Running { started: now() };
        container.previous = (container.restarts > 0).then(|| container.log.clone());
        container.log = log.clone();
        let key = (self.key.namespace.clone(), self.key.name.clone(), container.name().to_string());
        let files = LogFiles { current: log, previous: container.previous.clone(), ended: false };
        self.inner.shared.state().logs.insert(key, files);
        let message = format!("Started container {}", container.name());
        self.inner.event(&self.key, "Normal", "Started", &message, "kubelet");
        self.exits.spawn(async move { (index, child.wait().await.ok()) });
        self.probe(index, &spec, replaced, folder, &places, &env);
        Ok(())
    }

    fn probe(
        &mut self,
        index: usize,
        spec: &Value,
        env: std::collections::BTreeMap<String, String>,
        folder: PathBuf,
        places: &env::Places,
        names: &std::collections::BTreeMap<String, String>,
    ) {
        if self.containers[index].init {
            return;
        }
        let kinds = ["startupProbe", "readinessProbe", "livenessProbe"];
        if kinds.iter().all(|kind| !spec[kind].is_object()) {
            self.containers[index].startup = true;
            self.containers[index].ready = true;
            return;
        }
        let command = |kind: &&str| {
            let words = spec[*kind]["exec"]["command"].as_array()?.iter().filter_map(Value::as_str);
            let words: Vec<String> = words.map(|word| places.replace(&self.inner, &env::expand(word, names))).collect();
            Some((kind.to_string(), words))
        };
        let commands = kinds.iter().filter_map(command).collect();
        let orders = self.orders.clone();
        let probed = Probed { index, spec: spec.clone(), address: self.address, env, folder, commands, orders };
        self.probes[index] = Some(Ends(tokio::spawn(probed.run())));
    }

    /// Says what has changed, once the API server is there.
    async fn report(&mut self) {
        let mut status = json!({});
        report::write(&mut status, &self.containers, &self.policy, self.evicted, self.address, &self.begun);
        if self.gone || same(&status, &self.told) {
            return;
        }
        self.inner.shared.wait_until_up().await;
        let (containers, policy) = (&self.containers, &self.policy);
        self.inner.shared.state().change(&self.key, &self.uid, "status", |pod| {
            report::write(&mut pod["status"], containers, policy, self.evicted, self.address, &self.begun);
        });
        self.told = status;
    }

    /// All processes have ended: the object goes, if it is being deleted.
    async fn end(&mut self) {
        if self.ending.is_some() && !self.evicted && !self.gone {
            self.terminal();
            self.report().await;
        }
        self.inner.shared.wait_until_up().await;
        let pod = self.inner.shared.state().store.get(&self.key).filter(|pod| pod["metadata"]["uid"] == self.uid);
        if pod.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_string()) {
            self.inner.delete(&self.key, Some(0));
        }
        let there =
            self.inner.shared.state().store.get(&self.key).is_some_and(|pod| pod["metadata"]["uid"] == self.uid);
        if !there {
            let (namespace, name) = (self.key.namespace.clone(), self.key.name.clone());
            let mut state = self.inner.shared.state();
            // Another pod may have this name by now.
            if state.store.get(&self.key).is_none() {
                state.logs.retain(|(space, pod, _), _| *space != namespace || *pod != name);
            }
            drop(state);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        // Last: this ends the task that does it, at its next pause.
        self.inner.runs().remove(&self.uid);
    }

    /// Containers that never started will not, now that the pod ends: a phase that is final is told before the object
    /// goes.
    fn terminal(&mut self) {
        self.policy = "Never".into();
        for container in self.containers.iter_mut().filter(|one| matches!(one.phase, Phase::Waiting(..))) {
            let state = json!({"exitCode": 137, "reason": "ContainerStatusUnknown"});
            container.phase = Phase::Ended { state: container.last.clone().unwrap_or(state) };
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Whether two statuses differ in nothing but times.
fn same(one: &Value, other: &Value) -> bool {
    let bare = |status: &Value| {
        let mut status = status.clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = Value::Null;
        }
        status
    };
    one.is_object() && bare(one) == bare(other)
}
