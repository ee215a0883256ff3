//! A container as a process of this machine: what is known of it, how it is started and signalled, what its end means.
//!
//! Pod Lifecycle, "Container states" and "Container restart policy".

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::state::now;

/// How long a container that ended waits before it is started again, first and at most. Upstream: 10 s and five minutes.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// What a container does.
pub(super) enum Phase {
    /// It has not been started, for this reason and with this message.
    Waiting(&'static str, String),
    Running {
        started: String,
    },
    Ended {
        state: Value,
    },
}

/// A container of a pod.
pub(super) struct Container {
    pub(super) spec: Value,
    pub(super) init: bool,
    pub(super) phase: Phase,
    pub(super) last: Option<Value>,
    pub(super) restarts: u32,
    pub(super) pid: Option<Pid>,
    /// When it may be started.
    pub(super) due: Instant,
    /// Why it is being killed, if we do.
    pub(super) killed: Option<&'static str>,
    pub(super) ready: bool,
    pub(super) startup: bool,
    pub(super) log: PathBuf,
    pub(super) previous: Option<PathBuf>,
}

impl Container {
    pub(super) fn new(spec: &Value, init: bool) -> Container {
        let waiting = if init { "PodInitializing" } else { "ContainerCreating" };
        Container {
            spec: spec.clone(),
            init,
            phase: Phase::Waiting(waiting, String::new()),
            last: None,
            restarts: 0,
            pid: None,
            due: Instant::now(),
            killed: None,
            ready: false,
            startup: false,
            log: PathBuf::new(),
            previous: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.spec["name"].as_str().unwrap_or_default()
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(super) fn exit_code(&self) -> Option<i64> {
        match &self.phase {
            Phase::Ended { state } => state["exitCode"].as_i64(),
            Phase::Waiting(..) | Phase::Running { .. } => None,
        }
    }

    /// It will not be started again, by the pod's policy.
    pub(super) fn is_done(&self, policy: &str) -> bool {
        match self.exit_code() {
            None => false,
            Some(0) => self.init || policy != "Always",
            Some(_) => policy == "Never",
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // All that it has started gets the signal, too; a process that has just ended needs none.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// It has ended: what upstream tells of it.
    pub(super) fn ended(&mut self, status: Option<ExitStatus>) {
        // What it left behind in its group ends with it, as a container's processes do.
        self.signal(Signal::KILL);
        let signal = status.and_then(|status| status.signal());
        let code = status.and_then(|status| status.code()).unwrap_or(128 + signal.unwrap_or(9));
        let reason = match (self.killed.take(), code) {
            (Some(reason), _) => reason,
            (None, 0) => "Completed",
            (None, _) => "Error",
        };
        let started = match &self.phase {
            Phase::Running { started } => started.clone(),
            Phase::Waiting(..) | Phase::Ended { .. } => now(),
        };
        self.pid = None;
        self.ready = false;
        self.startup = false;
        let state = json!({"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now(),
            "containerID": format!("fake://{}", self.restarts)});
        self.phase = Phase::Ended { state };
    }

    /// It is to be started again, after a while that grows.
    pub(super) fn again(&mut self) {
        let wait = BACKOFF.saturating_mul(2u32.saturating_pow(self.restarts.min(10))).min(BACKOFF_MOST);
        let message = format!("back-off restarting failed container {}", self.name());
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting("CrashLoopBackOff", message));
        if let Phase::Ended { state } = phase {
            self.last = Some(state);
        }
        self.restarts += 1;
        self.due = Instant::now() + wait;
    }

    /// The state as a status has it.
    pub(super) fn state(&self) -> Value {
        match &self.phase {
            Phase::Waiting(reason, message) if message.is_empty() => json!({"waiting": {"reason": reason}}),
            Phase::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
            Phase::Running { started } => json!({"running": {"startedAt": started}}),
            Phase::Ended { state } => json!({"terminated": state}),
        }
    }
}

/// Starts a process in a group of its own, which writes what it says into a file.
pub(super) fn spawn(
    words: &[String],
    env: &std::collections::BTreeMap<String, String>,
    folder: &std::path::Path,
    log: &std::path::Path,
) -> std::io::Result<Child> {
    let (program, args) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let out = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).current_dir(folder);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.process_group(0).kill_on_drop(true).spawn()
}
