//! What a worker does with apps that users bring: whether it runs their programs, and what these may do.

use clap::{ArgMatches, Command};
use gristmill_engine::registry::Entry;

use super::super::failure::Failure;
use super::super::memory;
use super::super::sizes::Size;
#[cfg(feature = "scripts")]
use crate::sandbox::flags::{Policy, When};

/// No task's code has less memory than this unless the administrator says so, in bytes.
const LEAST_MEMORY: u64 = 256 << 20;

const HEADING: &str = "Apps that users bring";

// No documentation comment: clap would take it for the help of the command.
#[derive(clap::Args)]
struct CodeFlags {
    /// Whether jobs may bring programs that run here in a sandbox (streaming, python), and whether these may use the network
    /// when their job asks for it; WebAssembly runs anywhere
    #[cfg(feature = "scripts")]
    #[arg(long, value_name = "WHICH", default_value = "never", help_heading = HEADING)]
    processes: Processes,
    /// Whether there is to be a sandbox as far as this system can, or wholly: else no program of a job is run
    #[cfg(feature = "scripts")]
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "required"], help_heading = HEADING)]
    sandbox: String,
    /// A file or folder that programs of jobs may read beside their own and the system's
    #[cfg(feature = "scripts")]
    #[arg(long, value_name = "PATH", help_heading = HEADING)]
    sandbox_read: Vec<std::path::PathBuf>,
    /// Bytes that a task of a program may write into its folder, at the most
    #[cfg(feature = "scripts")]
    #[arg(long, value_name = "SIZE", default_value = "10GiB", help_heading = HEADING)]
    code_scratch: Size,
    /// Memory for the code of one task, beyond what --memory is for; by default a slot's share of what that leaves
    #[arg(long, value_name = "SIZE", help_heading = HEADING)]
    code_memory: Option<Size>,
}

/// Which programs of jobs run on a worker.
#[cfg(feature = "scripts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Processes {
    /// None.
    Never,
    /// Those that need no network.
    Isolated,
    /// All.
    Network,
}

/// The flags of a worker.
pub(super) fn flags(command: Command) -> Command {
    <CodeFlags as clap::Args>::augment_args(command)
}

/// The apps of a worker: of those here, those that users bring as its administrator allows. `rest` is the memory that its
/// tasks do not take for themselves.
pub(super) fn of_worker(here: &[Entry], of: &ArgMatches, slots: u32, rest: u64) -> Result<Vec<Entry>, Failure> {
    let flags = <CodeFlags as clap::FromArgMatches>::from_arg_matches(of)?;
    let share = || (rest / u64::from(slots.max(1))).max(LEAST_MEMORY);
    let memory = flags.code_memory.map_or_else(share, |size| size.0);
    #[cfg(feature = "scripts")]
    let policy = Policy {
        required: flags.sandbox == "required",
        network: flags.processes == Processes::Network,
        readable: flags.sandbox_read.clone(),
        memory,
        scratch: flags.code_scratch.0,
    };
    #[cfg(feature = "scripts")]
    if flags.processes != Processes::Never && policy.required {
        // Told now, and not to each job.
        crate::sandbox::flags::check(When::Required).map_err(Failure::Usage)?;
    }
    let chosen = here.iter().filter_map(|entry| match entry.name() {
        #[cfg(feature = "scripts")]
        crate::streaming::NAME | crate::python::NAME if flags.processes == Processes::Never => None,
        #[cfg(feature = "scripts")]
        crate::streaming::NAME => Some(crate::streaming::entry(Some(policy.clone()))),
        #[cfg(feature = "scripts")]
        crate::python::NAME => Some(crate::python::entry(Some(policy.clone()))),
        #[cfg(feature = "wasm")]
        crate::wasm::NAME => Some(crate::wasm::entry(Some(memory))),
        _ => Some(entry.clone()),
    });
    let chosen = chosen.collect();
    // Without user code in the program nobody asks.
    let _ = memory;
    Ok(chosen)
}

/// The memory that is left beside what tasks have.
pub(super) fn rest(tasks: u64) -> u64 {
    memory::whole().saturating_sub(tasks)
}
