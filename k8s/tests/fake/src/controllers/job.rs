//! The controller of Jobs.
//!
//! Jobs: "Parallel execution for Jobs", "Pod backoff failure policy", "Job termination and cleanup", "Suspending a Job",
//! "Clean up finished jobs automatically". Completion is not indexed, and there are no failure policies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{begin, controlled, delete, key, reference, set_status, text};
use crate::Server;
use crate::conditions;
use crate::kubelet::Ends;
use crate::state::{State, now};

const STORAGE: &str = "jobs.batch";

/// After a failure the next pod waits so long, and longer each time. Upstream: 10 s, up to ten minutes.
const BACKOFF: Duration = Duration::from_millis(100);

/// Runs Jobs, until it is dropped.
pub struct Jobs(#[expect(dead_code, reason = "its end is what it is for")] Ends);

impl Jobs {
    /// Begins. Must be called within a tokio runtime.
    pub fn start(server: &Server) -> Jobs {
        let mut known: HashMap<String, Known> = HashMap::new();
        Jobs(begin(server, move |state| look(state, &mut known)))
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

/// What is known of a Job's pods, which count even when they are deleted.
#[derive(Default)]
struct Known {
    /// Whether each that has ended succeeded, by uid.
    ended: HashMap<String, bool>,
    after: Option<Instant>,
}

fn look(state: &mut State, known: &mut HashMap<String, Known>) {
    let jobs: Vec<Arc<Value>> = state.store.list(STORAGE, "").cloned().collect();
    for job in jobs.iter().filter(|job| job["metadata"]["deletionTimestamp"].is_null()) {
        let known = known.entry(text(&job["metadata"]["uid"]).into()).or_default();
        if conditions::holds(&job["status"], "Complete") || conditions::holds(&job["status"], "Failed") {
            clean(state, job);
        } else {
            tend(state, job, known);
        }
    }
    known.retain(|uid, _| jobs.iter().any(|job| job["metadata"]["uid"] == *uid));
}

/// Seconds since a time.
fn since(time: &Value) -> Option<i64> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(jiff::Timestamp::now().as_second() - time.as_second())
}

fn clean(state: &mut State, job: &Value) {
    let Some(after) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else { return };
    let list = job["status"]["conditions"].as_array().into_iter().flatten();
    let ended =
        list.into_iter().find(|one| (one["type"] == "Complete" || one["type"] == "Failed") && one["status"] == "True");
    let ago = ended.and_then(|ended| since(&ended["lastTransitionTime"]));
    if ago.is_some_and(|ago| ago >= after) {
        delete(state, &key(STORAGE, job));
    }
}

fn tend(state: &mut State, job: &Value, known: &mut Known) {
    let pods = controlled(state, job);
    let ended = |pod: &Value| match text(&pod["status"]["phase"]) {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ => None,
    };
    for pod in &pods {
        let uid = text(&pod["metadata"]["uid"]).to_string();
        if let Some(succeeded) = ended(pod)
            && known.ended.insert(uid, succeeded).is_none()
            && !succeeded
        {
            let failures = known.ended.values().filter(|succeeded| !**succeeded).count();
            let wait = BACKOFF.saturating_mul(2u32.saturating_pow(u32::try_from(failures.min(8)).unwrap_or(8)));
            known.after = Some(Instant::now() + wait);
        }
    }
    let count = |wanted: bool| known.ended.values().filter(|succeeded| **succeeded == wanted).count() as i64;
    let active: Vec<&Arc<Value>> =
        pods.iter().filter(|pod| ended(pod).is_none() && pod["metadata"]["deletionTimestamp"].is_null()).collect();
    let restarts: i64 = active.iter().map(|pod| restarts(pod)).sum();
    let spec = &job["spec"];
    let (succeeded, failed) = (count(true), count(false));
    let suspended = spec["suspend"] == true;
    let mut status = job["status"].clone();
    if status["startTime"].is_null() && !suspended {
        status["startTime"] = json!(now());
    }
    let late =
        spec["activeDeadlineSeconds"].as_i64().zip(since(&status["startTime"])).is_some_and(|(most, is)| is >= most);
    // Containers that are started again in their pods count like pods.
    let spent = failed + restarts > spec["backoffLimit"].as_i64().unwrap_or(6);
    let completions = spec["completions"].as_i64();
    let done = match completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && active.is_empty(),
    };
    let failure = match (late, spent) {
        (true, _) => Some(("DeadlineExceeded", "Job was active longer than specified deadline")),
        (_, true) => Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit")),
        _ => None,
    };
    let mut running = active.len() as i64;
    if done || failure.is_some() || suspended {
        active.iter().for_each(|pod| delete(state, &key("pods", pod)));
        running = 0;
    } else if known.after.is_none_or(|after| after <= Instant::now()) {
        let left = completions.map_or(i64::MAX, |completions| completions - succeeded);
        let wanted = spec["parallelism"].as_i64().unwrap_or(1).min(left);
        // Without a number of completions, none is begun once one has succeeded.
        let wanted = if completions.is_none() && succeeded > 0 { running } else { wanted };
        while running < wanted && create(state, job) {
            running += 1;
        }
    }
    for (field, value) in [("active", running), ("succeeded", succeeded), ("failed", failed), ("terminating", 0)] {
        status[field] = json!(value);
    }
    status["ready"] = json!(active.iter().filter(|pod| conditions::holds(&pod["status"], "Ready")).count());
    status["uncountedTerminatedPods"] = json!({});
    let now = now();
    if done {
        conditions::set(
            &mut status,
            "SuccessCriteriaMet",
            "True",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            &now,
        );
        conditions::set(
            &mut status,
            "Complete",
            "True",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            &now,
        );
        status["completionTime"] = json!(now);
    } else if let Some((reason, message)) = failure {
        conditions::set(&mut status, "FailureTarget", "True", reason, message, &now);
        conditions::set(&mut status, "Failed", "True", reason, message, &now);
    } else if suspended {
        conditions::set(&mut status, "Suspended", "True", "JobSuspended", "Job suspended", &now);
    } else if conditions::holds(&status, "Suspended") {
        conditions::set(&mut status, "Suspended", "False", "JobResumed", "Job resumed", &now);
    }
    set_status(state, STORAGE, job, status);
}

fn restarts(pod: &Value) -> i64 {
    let all = ["initContainerStatuses", "containerStatuses"].into_iter();
    let all = all.flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.filter_map(|one| one["restartCount"].as_i64()).sum()
}

fn create(state: &mut State, job: &Value) -> bool {
    let template = &job["spec"]["template"];
    let name = text(&job["metadata"]["name"]);
    let metadata = json!({"generateName": format!("{name}-"), "labels": template["metadata"]["labels"],
        "annotations": template["metadata"]["annotations"], "ownerReferences": [reference(job)]});
    let pod = json!({"metadata": metadata, "spec": template["spec"]});
    match state.system("pods", text(&job["metadata"]["namespace"]), pod) {
        Ok(pod) => {
            let message = format!("Created pod: {}", text(&pod["metadata"]["name"]));
            state.event(job, "Normal", "SuccessfulCreate", &message, "job-controller");
            true
        }
        Err(error) => {
            state.event(job, "Warning", "FailedCreate", &format!("Error creating: {error}"), "job-controller");
            false
        }
    }
}
