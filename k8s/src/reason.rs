//! Why a pod waits, leaves or has ended, out of what Kubernetes says of it: the engine's words for the state of a pod.
//!
//! Pure. Kubernetes has no one place for this: conditions, the pod's own reason, and the states of its containers each tell a
//! part, and the first of them that says something specific wins. Events are not read: they are best effort upstream.
//!
//! What the places are: *Pod v1 core* in the API reference (`PodStatus`, `PodCondition`, `ContainerStateWaiting`,
//! `ContainerStateTerminated`), and in the documentation *Pod Lifecycle*, *Disruptions* (pod disruption conditions) and
//! *Node-pressure Eviction*.

use gristmill_engine::node::pods::{Phase, Reason};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};

use crate::client::line;
use crate::pod::CONTAINER;

/// Bytes of a word and of a text.
const WORD: usize = 64;
const TEXT: usize = 256;

/// How the engine knows a container that ran out of memory.
const OUT_OF_MEMORY: &str = gristmill_engine::control::pools::decide::OUT_OF_MEMORY;

/// A reason within its bounds, in one line.
pub fn reason(word: &str, text: &str) -> Reason {
    Reason { word: cut(&line(word), WORD), text: cut(&line(text), TEXT) }
}

/// At most so many bytes, and whole characters.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_string()
}

/// How a pod is: its phase, whether it is leaving, and why it is as it is.
pub fn standing(pod: &Pod) -> (Phase, bool, Option<Reason>) {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let (phase, leaving) = (phase(status), leaving(pod, status));
    let reason = match phase {
        Phase::Ended => ended(pod, status),
        _ if leaving => of_itself(status).or_else(|| disrupted(status)).or_else(|| deleted(pod)),
        Phase::Pending => waiting(status).or_else(|| unscheduled(status)).or_else(|| of_itself(status)),
        // Its node may be out of reach (`NodeLost`); what a running pod says otherwise is not about its end.
        Phase::Running => of_itself(status),
    };
    (phase, leaving, reason)
}

/// Our container has been started, or has ended, which with `restartPolicy: Never` is the end (*Pod Lifecycle*, container
/// restart policy). Others that still run do not count: a mesh's proxy may never end.
fn phase(status: &PodStatus) -> Phase {
    let state = worker(status).and_then(|container| container.state.as_ref());
    match (status.phase.as_deref(), state) {
        (Some("Succeeded" | "Failed"), _) => Phase::Ended,
        (_, Some(ContainerState { terminated: Some(_), .. })) => Phase::Ended,
        (_, Some(ContainerState { running: Some(_), .. })) => Phase::Running,
        (_, Some(ContainerState { waiting: Some(_), .. })) => Phase::Pending,
        // `Unknown`: its node is silent. It ran once, as far as is known.
        (Some("Running" | "Unknown"), None) => Phase::Running,
        _ => Phase::Pending,
    }
}

fn worker(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER)
}

/// Being deleted (*ObjectMeta*, `deletionTimestamp`), or about to be (*Disruptions*: `DisruptionTarget` is set before the pod is
/// deleted, and taken back if it is not).
fn leaving(pod: &Pod, status: &PodStatus) -> bool {
    pod.metadata.deletion_timestamp.is_some() || condition(status, "DisruptionTarget", "True").is_some()
}

fn condition<'s>(status: &'s PodStatus, kind: &str, is: &str) -> Option<&'s PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == is)
}

/// Why it ended. The pod's own reason says that it was ended from outside, which its container cannot know; the kernel's
/// killing is more specific than that somebody wanted it gone as well.
fn ended(pod: &Pod, status: &PodStatus) -> Option<Reason> {
    let end = worker(status).and_then(|container| container.state.as_ref()?.terminated.as_ref());
    let out_of_memory = end.filter(|end| end.reason.as_deref() == Some(OUT_OF_MEMORY));
    of_itself(status)
        .or_else(|| out_of_memory.map(|end| reason(OUT_OF_MEMORY, &out_of_memory_text(pod, status, end))))
        .or_else(|| disrupted(status))
        .or_else(|| end.map(|end| reason(end.reason.as_deref().unwrap_or("Ended"), &exit(end))))
        .or_else(|| other_container(status))
        .or_else(|| deleted(pod))
}

/// *PodStatus*, `reason` and `message`: "Evicted" (*Node-pressure Eviction*), "DeadlineExceeded" (`activeDeadlineSeconds`),
/// "Preempting" (the kubelet made room for a critical pod), "NodeLost", "Terminated" and "NodeShutdown" (*Node Shutdowns*),
/// "NodeAffinity", "OutOfcpu", "OutOfmemory", "UnexpectedAdmissionError" (the kubelet did not admit it).
fn of_itself(status: &PodStatus) -> Option<Reason> {
    let word = status.reason.as_deref().filter(|word| !word.is_empty())?;
    Some(reason(word, status.message.as_deref().unwrap_or_default()))
}

/// *Disruptions*: "PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI", "DeletionByPodGC",
/// "TerminationByKubelet".
fn disrupted(status: &PodStatus) -> Option<Reason> {
    let condition = condition(status, "DisruptionTarget", "True")?;
    let word = condition.reason.as_deref().filter(|word| !word.is_empty()).unwrap_or("DisruptionTarget");
    Some(reason(word, condition.message.as_deref().unwrap_or_default()))
}

fn deleted(pod: &Pod) -> Option<Reason> {
    let by = pod.metadata.deletion_timestamp.as_ref()?;
    Some(reason("Deleted", &format!("it is deleted, and has until {} to end", by.0)))
}

/// *ContainerStateWaiting*, `reason`: "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
/// "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff" (of an init container).
/// "ContainerCreating" and "PodInitializing" say that all is as it should be (*Images*, *Debug Pods*).
fn waiting(status: &PodStatus) -> Option<Reason> {
    let first = worker(status).into_iter();
    let init = status.init_container_statuses.iter().flatten();
    let others = status.container_statuses.iter().flatten().filter(|container| container.name != CONTAINER);
    first.chain(init).chain(others).find_map(|container| {
        let waits = container.state.as_ref()?.waiting.as_ref()?;
        let word =
            waits.reason.as_deref().filter(|word| !matches!(*word, "" | "ContainerCreating" | "PodInitializing"))?;
        let text = waits.message.as_deref().unwrap_or_default();
        match container.name.as_str() {
            CONTAINER => Some(reason(word, text)),
            name => Some(reason(word, &format!("container {name}: {text}"))),
        }
    })
}

/// *PodCondition* `PodScheduled`: "Unschedulable", with what the scheduler lacks, and "SchedulingGated" (*Pod Scheduling
/// Readiness*).
fn unscheduled(status: &PodStatus) -> Option<Reason> {
    let condition = condition(status, "PodScheduled", "False")?;
    let word = condition.reason.as_deref().filter(|word| !word.is_empty()).unwrap_or("Unschedulable");
    Some(reason(word, condition.message.as_deref().unwrap_or_default()))
}

/// A pod fails without our container's doing if one before it has failed (*Init Containers*).
fn other_container(status: &PodStatus) -> Option<Reason> {
    let init = status.init_container_statuses.iter().flatten();
    let others = status.container_statuses.iter().flatten().filter(|container| container.name != CONTAINER);
    init.chain(others).find_map(|container| {
        let end = container.state.as_ref()?.terminated.as_ref().filter(|end| end.exit_code != 0)?;
        let text = format!("container {}: {}", container.name, exit(end));
        Some(reason(end.reason.as_deref().unwrap_or("Error"), &text))
    })
}

/// *ContainerStateTerminated*: exit code, signal, message.
fn exit(end: &ContainerStateTerminated) -> String {
    let signal =
        end.signal.filter(|signal| *signal != 0).map(|signal| format!(", signal {signal}")).unwrap_or_default();
    let more = end.message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
    format!("exit code {}{signal}{more}", end.exit_code)
}

/// The limit is what holds (`ContainerStatus.resources`, which follows a resize), else what was asked for.
fn out_of_memory_text(pod: &Pod, status: &PodStatus, end: &ContainerStateTerminated) -> String {
    let held = worker(status).and_then(|container| container.resources.as_ref()?.limits.as_ref()?.get("memory"));
    let spec = pod.spec.as_ref();
    let asked = spec.and_then(|spec| {
        let container = spec.containers.iter().find(|container| container.name == CONTAINER)?;
        let own = container.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory"));
        own.or_else(|| spec.resources.as_ref()?.limits.as_ref()?.get("memory"))
    });
    match held.or(asked) {
        Some(limit) => format!("{}, its memory limit is {}", exit(end), limit.0),
        None => format!("{}, it has no memory limit of its own: its node ran out", exit(end)),
    }
}

#[cfg(test)]
mod tests;
