//! What a supervisor is told, and what it tells: two files beside the folder of an attempt, where the code cannot come.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sandbox::{Limits, Sandbox};

/// What to run, and within which bounds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Program and arguments.
    pub(crate) words: Vec<String>,
    /// All of its environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where it works.
    pub(crate) folder: PathBuf,
    /// Where it is kept; `None` is anywhere.
    pub(crate) sandbox: Option<Sandbox>,
    /// How much it may use.
    pub(crate) limits: Limits,
    /// The process that began the supervisor.
    pub(crate) parent: i32,
}

/// How code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It was never begun: the system's error.
    NotBegun(i32),
    /// It used too much.
    Over(Bound, u64),
}

/// Bounds that supervisors watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bound {
    /// Bytes of memory.
    Memory,
    /// Bytes in its folder.
    Scratch,
    /// Processes and threads.
    Processes,
}

/// What a supervisor tells at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The code has ended.
    Ended(End),
    /// It was not begun since the sandbox could not be made.
    NoSandbox(String),
}

impl Plan {
    /// Writes it where a supervisor finds it.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        // It has all of the environment.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(self)?)
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

impl Told {
    /// Where it is told for a plan.
    pub(crate) fn path(plan: &Path) -> PathBuf {
        plan.with_extension("end")
    }

    /// Tells, wholly or not at all.
    pub(crate) fn write(&self, plan: &Path) -> io::Result<()> {
        let part = plan.with_extension("part");
        fs::write(&part, serde_json::to_vec(self)?)?;
        fs::rename(part, Self::path(plan))
    }

    /// What was told; `None` if nothing was.
    pub(crate) fn read(plan: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(plan)).ok()?).ok()
    }
}
