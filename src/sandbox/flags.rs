//! What users say about the sandbox, and how much a task may use unless they say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Limits, Sandbox};
use crate::cli::memory;
use crate::cli::sizes::Size;

const HEADING: &str = "Sandbox";

/// Processes and threads of a task.
const PROCESSES: u64 = 512;
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
    /// Bytes that a task may write into its folder
    #[arg(long, value_name = "SIZE", default_value = "10GiB", help_heading = HEADING)]
    pub(crate) task_scratch: Size,
    /// Processes and threads that a task may have at a time
    #[arg(long, value_name = "N", default_value_t = PROCESSES, help_heading = HEADING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) task_processes: u64,
    /// Seconds of a core that a process of a task may use; by default any
    #[arg(long, value_name = "SECONDS", help_heading = HEADING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) task_cpu: Option<u64>,
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
    /// How much a task may use if so many run at a time.
    pub(crate) fn limits(&self, threads: usize) -> Limits {
        let share = || (memory::whole() / threads.max(1) as u64).max(LEAST_MEMORY);
        Limits {
            memory: self.task_memory.map_or_else(share, |size| size.0),
            scratch: self.task_scratch.0,
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
            let pair = environment.iter().find(|(other, _)| other == name)?;
            Some(pair.1.to_string_lossy().into_owned())
        };
        let mut readable = super::needed(words, variable);
        readable.extend(more);
        readable.extend(self.sandbox_read.iter().cloned());
        (self.sandbox != When::Off).then(|| Sandbox { readable, own: vec![folder.into()], network: self.network })
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
        let missing = super::missing();
        match self.sandbox {
            _ if missing.is_empty() => Ok(None),
            When::Required => Err(format!("the sandbox is not whole on this machine: {}", missing.join("; "))),
            _ => Ok(Some(format!("the sandbox is not whole: {}", missing.join("; ")))),
        }
    }
}
