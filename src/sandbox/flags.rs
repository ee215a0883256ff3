//! What users say about the sandbox, and how much a task may use unless they say; and what the administrator of a worker says
//! about the code of others, within which their words count.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gristmill_engine::registry::Files;

use super::{Limits, Sandbox};
use crate::cli::memory;
use crate::cli::sizes::{self, Size};

const HEADING: &str = "Sandbox";

/// Processes and threads of a task.
const PROCESSES: u64 = 512;
/// Bytes that a task may write.
const SCRATCH: u64 = 10 << 30;
/// No task is given less memory than this unless the user says so, in bytes.
const LEAST_MEMORY: u64 = 512 << 20;

// No documentation comment: clap would take it for the help of the app.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SandboxFlags {
    /// Whether code is kept from the rest of the machine: auto is as far as the system can, required is wholly or not at all
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = HEADING)]
    pub(crate) sandbox: When,
    /// Let code use the network
    #[arg(long, help_heading = HEADING)]
    pub(crate) network: bool,
    /// A file or folder that code may read beside its own and the system's
    #[arg(long, value_name = "PATH", help_heading = HEADING)]
    pub(crate) sandbox_read: Vec<PathBuf>,
    /// Memory that a task may use; by default a thread's share of what there is
    #[arg(long, value_name = "SIZE", help_heading = HEADING)]
    pub(crate) task_memory: Option<Size>,
    /// Bytes that a task may write into its folder [default: 10GiB]
    #[arg(long, value_name = "SIZE", help_heading = HEADING)]
    pub(crate) task_scratch: Option<Size>,
    /// Processes and threads that a task may have at a time
    #[arg(long, value_name = "N", default_value_t = PROCESSES, help_heading = HEADING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) task_processes: u64,
    /// Seconds of a core that a process of a task may use; by default any
    #[arg(long, value_name = "SECONDS", help_heading = HEADING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) task_cpu: Option<u64>,
    /// The job comes from elsewhere: what its command and variables name is not let be read for that.
    #[arg(skip)]
    foreign: bool,
}

/// What a worker lets the code of its cluster's users do.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether there must be a whole sandbox.
    pub(crate) required: bool,
    /// Whether code may use the network if its job asks for it.
    pub(crate) network: bool,
    /// Files and folders that code may read beside its own and the system's.
    pub(crate) readable: Vec<PathBuf>,
    /// Bytes of memory that a task's code has unless its job says, and at the most.
    pub(crate) memory: u64,
    /// Bytes that a task may write into its folder, at the most.
    pub(crate) scratch: u64,
}

/// Whether there is a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// As far as the system can.
    Auto,
    /// Wholly, or the job is refused.
    Required,
    /// Code has the rights of who runs it.
    Off,
}

impl SandboxFlags {
    /// The same within what a worker allows.
    ///
    /// # Errors
    /// When the job asks for more.
    pub(crate) fn under(mut self, files: Files<'_>, policy: Option<&Policy>) -> Result<Self, String> {
        if let Files::Here = files {
            return Ok(self);
        }
        if self.sandbox == When::Off {
            return Err("--sandbox=off is for run: a cluster's code stays in the sandbox".into());
        }
        if !self.sandbox_read.is_empty() {
            return Err("--sandbox-read is for run: what code may read on a worker is said where that is begun".into());
        }
        self.foreign = true;
        // Without one it is looked at by who does not run it, or done again by its user.
        let Some(policy) = policy else { return Ok(self) };
        if self.network && !policy.network {
            return Err("--network: this worker lets no code use the network (see its --processes)".into());
        }
        if policy.required {
            self.sandbox = When::Required;
        }
        self.task_memory = Some(sizes::within("--task-memory", self.task_memory, Size(policy.memory))?);
        self.task_scratch = Some(sizes::within("--task-scratch", self.task_scratch, Size(policy.scratch))?);
        if self.task_processes > PROCESSES {
            let asked = self.task_processes;
            return Err(format!("--task-processes {asked} is more than the {PROCESSES} of a cluster's tasks"));
        }
        self.sandbox_read.clone_from(&policy.readable);
        Ok(self)
    }

    /// How much a task may use if so many run at a time.
    pub(crate) fn limits(&self, threads: usize) -> Limits {
        let share = || (memory::whole() / threads.max(1) as u64).max(LEAST_MEMORY);
        Limits {
            memory: self.task_memory.map_or_else(share, |size| size.0),
            scratch: self.task_scratch.map_or(SCRATCH, |size| size.0),
            processes: self.task_processes,
            cpu: self.task_cpu,
        }
    }

    /// Where a command is kept that works in `folder`, with what it may read beside what its environment names; `None` where
    /// there is to be no sandbox.
    pub(crate) fn sandbox(
        &self,
        words: &[String],
        environment: &[(OsString, OsString)],
        folder: &Path,
        more: impl IntoIterator<Item = PathBuf>,
    ) -> Option<Sandbox> {
        let variable = |name: &str| {
            // Whoever sends a job does not choose what its code may read.
            if self.foreign {
                return std::env::var(name).ok();
            }
            let pair = environment.iter().find(|(other, _)| other == name)?;
            Some(pair.1.to_string_lossy().into_owned())
        };
        let named = |word: &String| !self.foreign || !word.starts_with('/');
        let words: Vec<String> = words.iter().filter(|word| named(word)).cloned().collect();
        let mut readable = super::needed(&words, variable);
        readable.extend(more);
        readable.extend(self.sandbox_read.iter().cloned());
        (self.sandbox != When::Off).then(|| Sandbox { readable, own: vec![folder.into()], network: self.network })
    }

    /// What is said to code that wanted something that it may not.
    pub(crate) fn advice(&self) -> &'static str {
        match self.foreign {
            true => {
                "; it runs in a sandbox, which is the worker's: --processes and --sandbox-read of its command let code do more"
            }
            false => "; it runs in a sandbox: --sandbox-read PATH, --network and --sandbox=off let it do more",
        }
    }

    /// What is to be told before code is begun.
    ///
    /// # Errors
    /// When the sandbox is required and not whole.
    pub(crate) fn check(&self) -> Result<Option<String>, String> {
        if self.sandbox == When::Off {
            return Ok(None);
        }
        for path in &self.sandbox_read {
            std::fs::metadata(path).map_err(|e| format!("--sandbox-read {}: {e}", path.display()))?;
        }
        check(self.sandbox)
    }
}

/// What of a sandbox this machine lacks, as a note where there need not be all of it.
///
/// # Errors
/// When it is required and not whole.
pub(crate) fn check(when: When) -> Result<Option<String>, String> {
    let missing = super::missing();
    match when {
        _ if missing.is_empty() => Ok(None),
        When::Required => Err(format!("the sandbox is not whole on this machine: {}", missing.join("; "))),
        _ => Ok(Some(format!("the sandbox is not whole: {}", missing.join("; ")))),
    }
}
