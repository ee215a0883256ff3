//! Limits that the system sets to this process and a job may meet.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the process have as many files open as it may at most: every part is one. The lower limit that processes begin
/// with is for programs that cannot wait for high numbers.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // If that is refused the old limit holds, and a job that needs more says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
