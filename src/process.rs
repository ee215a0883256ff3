//! User code as processes: how one is begun, fed and listened to, and what is kept when it fails.
//!
//! [`Command`] is what to run and where. [`session`] feeds it over pipes and takes what it writes, on the thread that asks;
//! [`stderr`] hears counters, status and last words; [`folder`] is where its files are, [`archive`] unpacks some; [`words`] divides a command line as
//! Hadoop does. Above each process is a [`supervisor`] that begins it in its sandbox and ends all that came of it; [`plan`] is
//! what it is told and tells, [`tree`] how it knows of them, [`child`] what comes between fork and exec. What contracts a process follows is the business of who begins it
//! (`streaming`).

pub(crate) mod archive;
pub(crate) mod child;
pub(crate) mod folder;
mod plan;
pub(crate) mod session;
mod stderr;
pub(crate) mod supervisor;
mod tree;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_engine::error::Error;
use gristmill_engine::job::Context;

use crate::sandbox::flags::SandboxFlags;
use crate::sandbox::{Limits, Sandbox};
use archive::Room;
use folder::{Files, Shipped};

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Program and arguments; not empty.
    pub(crate) words: Vec<String>,
    /// All of its environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where it works.
    pub(crate) folder: PathBuf,
    /// Where it is kept; `None` is anywhere.
    pub(crate) sandbox: Option<Sandbox>,
    /// What is said to code that wanted something that it may not.
    pub(crate) advice: &'static str,
    /// How much it may use.
    pub(crate) limits: Limits,
    /// What begins a line on standard error that is a counter or a status.
    pub(crate) prefix: String,
    /// How long it may neither read nor write nor say anything; `None` is for ever.
    pub(crate) patience: Option<Duration>,
    /// Whether an exit code other than zero is a failure.
    pub(crate) codes_count: bool,
}

/// Where a job's processes run: known once it begins.
pub(crate) struct Place {
    pub(crate) files: Files,
    pub(crate) limits: Limits,
}

impl Place {
    /// Ships files into a new folder below `parent`, and tells what the sandbox lacks. With it what more can be unpacked there.
    pub(crate) fn new<'c>(
        sandbox: &SandboxFlags,
        shipped: &[Shipped],
        parent: &Path,
        context: &Context<'c>,
    ) -> Result<(Self, Room<'c>), Error> {
        if let Some(note) = sandbox.check().map_err(Error::Usage)? {
            context.observer.note(&note);
        }
        let limits = sandbox.limits(context.exec.threads());
        let mut room = Room::new(limits.scratch, context.stop);
        let files = Files::new(parent, shipped, &mut room)?;
        Ok((Self { files, limits }, room))
    }
}

/// What code gets of our own environment.
pub(crate) fn inherited() -> BTreeMap<OsString, OsString> {
    const NAMES: [&str; 9] = ["HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH"];
    let kept = |name: &str| NAMES.contains(&name) || name.starts_with("LC_");
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(kept)).collect()
}

/// The environment of a process that works in `folder`. Whatever `PATH` is, what is there is found first.
pub(crate) fn with_path(folder: &Path, mut all: BTreeMap<OsString, OsString>) -> Vec<(OsString, OsString)> {
    let rest = all.remove(&OsString::from("PATH")).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut path = OsString::from(folder);
    path.push(":");
    path.push(rest);
    all.insert("PATH".into(), path);
    all.into_iter().collect()
}
