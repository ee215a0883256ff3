//! The world of a node: everything that the shells of masters and workers see of it. Production fills it with Tokio,
//! gRPC, files and rayon; the simulator with virtual ones. Nothing else may be used here: no clock, no randomness, no
//! thread.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use clap::Command;
use gristmill_proto::internal::v1 as proto;
use gristmill_raft::runtime::AsyncRuntime;

use super::point::Point;
use super::rpc::Net;
use crate::auth::Secret;
use crate::control::limits::LEVEL;
use crate::exec::Exec;
use crate::job::Job;
use crate::registry::{Entry, Files};
use crate::scratch::Scratch;
use crate::store::Store;

/// What a node is made over.
pub trait Env: Clone + Send + Sync + 'static {
    /// Clock, tasks, channels, randomness.
    type Rt: AsyncRuntime;
    /// Other nodes.
    type Net: Net;
    /// The store that all nodes share.
    type Store: Store;

    /// Other nodes.
    fn net(&self) -> &Self::Net;

    /// The store that all nodes share: inputs, outputs, plans, history.
    fn store(&self) -> &Self::Store;

    /// This node's own disk.
    fn scratch(&self) -> &Arc<dyn Scratch>;

    /// Apps that run here.
    fn apps(&self) -> &Apps;

    /// Runs CPU work on about `bytes` of data away from the tasks of the runtime. `None` if it panicked.
    fn offload<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce(&dyn Exec) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send;

    /// Runs work that waits for a disk away from the tasks of the runtime, which must not wait: heartbeats are among them.
    /// `None` if it panicked.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send;

    /// Hashes a password: work that takes a core for a while and that nobody else may have to wait for. `None` if it
    /// panicked.
    fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send {
        self.blocking(work)
    }

    /// Milliseconds since 1970 by this machine's clock, which may be wrong: for people, and for what outlives machines.
    fn wall_ms(&self) -> u64;

    /// Something happened that an operator may want to see.
    fn note(&self, note: Note);

    /// The feature level up to which this node understands commands.
    fn level(&self) -> u32 {
        LEVEL
    }

    /// The node is at this point of its work. A world that wants it to die there does not return.
    fn reached(&self, _: Point) {}
}

/// What happens on a node beyond its duties.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The cluster took this worker in.
    Registered {
        /// As what.
        incarnation: u64,
    },
    /// The cluster has given this worker up; it begins anew.
    Fenced {
        /// The leader's word.
        why: String,
    },
    /// This master leads from now on.
    Leads {
        /// In this term.
        term: u64,
    },
    /// This master leads no longer.
    Follows,
    /// The first user was made, who manages the others.
    FirstUser {
        /// Whom to log in as.
        name: String,
        /// The password that was made up: it is told once, here, and nowhere else.
        password: Option<Secret>,
    },
    /// Something did not work, and will be tried again or done without.
    Trouble {
        /// One line.
        what: String,
    },
}

/// Apps by name, and the digest of the build that they are in.
pub struct Apps {
    entries: BTreeMap<String, Entry>,
    build: String,
}

impl Apps {
    /// These apps, of a build with this digest in hexadecimal.
    pub fn new(entries: impl IntoIterator<Item = Entry>, build: impl Into<String>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.name().to_string(), entry)).collect();
        Self { entries, build: build.into() }
    }

    pub(crate) fn offers(&self) -> Vec<proto::AppOffer> {
        let offer = |name: &String| proto::AppOffer { name: name.clone(), build: self.build.clone() };
        self.entries.keys().map(offer).collect()
    }

    /// Whether there is an app of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The job of an app with these flags, and the files that they name.
    ///
    /// # Errors
    /// One line that says what is wrong with them.
    pub fn job(&self, name: &str, arguments: &[String], files: Files<'_>) -> Result<Box<dyn Job>, String> {
        let entry = self.entries.get(name).ok_or_else(|| format!("there is no app '{name}' here"))?;
        let command: Command = entry.command().no_binary_name(true).disable_help_flag(true);
        let told = |e: clap::Error| {
            let text = e.render().to_string();
            let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("bad flags");
            format!("app {name}: {}", line.trim_start_matches("error: "))
        };
        let matches = command.try_get_matches_from(arguments).map_err(told)?;
        entry.job(&matches, files).map_err(told)
    }
}
