//! The bounds of the replicated state. They are part of what `apply` does: a change of one needs a new feature level.

/// The feature level of this build: it understands commands up to this one.
pub const LEVEL: u32 = 1;
/// How long a submission's key is remembered.
pub const KEY_MS: u64 = 24 * 60 * 60 * 1000;
/// Keys that are remembered.
pub const KEYS: usize = 2 << 20;
/// Jobs that have not been archived.
pub const JOBS: usize = 20_000;
/// Jobs of one user that have not ended.
pub const JOBS_OF_A_USER: u32 = 5_000;
/// Rows of archived jobs.
pub const ARCHIVE: usize = 10_000;
/// Live workers.
pub const WORKERS: usize = 10_000;
/// Drained workers whose pods may still have to be deleted.
pub const DRAINED: usize = 1_000;
/// Pools of workers.
pub const POOLS: usize = 64;
/// Bytes of a pool's name.
pub const POOL_NAME_BYTES: usize = 32;
/// Workers of a pool.
pub const POOL_WORKERS: u32 = 10_000;
/// Milliseconds that a worker of a pool can be allowed to be idle.
pub const POOL_IDLE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// What a worker has that jobs may ask for, and what a job asks for.
pub const CAPABILITIES: usize = 16;
/// Jobs that are told when a worker leaves, beyond those of which it has segments.
pub const DRAINED_JOBS: usize = 64;
/// Slots of a worker.
pub const SLOTS: u32 = 1_024;
/// Apps that a worker offers.
pub const APPS: usize = 256;
/// Bytes of input that a job can ask for in each map task.
pub const MAP_TASK_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 30;
/// Map tasks of a job.
pub const MAPS: u32 = 100_000;
/// Parts of a job's output.
pub const PARTS: u32 = crate::job::MAX_PARTS;
/// Names of counters in a job, and counters of a task.
pub const COUNTERS: usize = 120;
/// Bytes of a counter's name.
pub const COUNTER_BYTES: usize = 128;
/// Bytes of an error's text.
pub const ERROR_BYTES: usize = 4 << 10;
/// Bytes of the advice that comes with an error.
pub const NEXT_STEP_BYTES: usize = 1 << 10;
/// Bytes of the name of an input or output.
pub const NAME_BYTES: usize = 1 << 10;
/// Bytes of the name of a user or an app.
pub const SHORT_NAME_BYTES: usize = 64;
/// Bytes of a worker's name, and of a submission's key.
pub const LONG_NAME_BYTES: usize = 128;
/// Bytes of a spec, the jobs after it included.
pub const SPEC_BYTES: usize = 64 << 10;
/// Jobs one after the other.
pub const CHAIN: usize = 16;
/// Patterns of input.
pub const INPUTS: usize = 1_000;
/// Flags of an app.
pub const ARGUMENTS: usize = 256;
/// Files of an app.
pub const FILES: usize = 512;
/// Bytes of one of them.
pub const FILE_BYTES: u64 = 256 << 20;
/// Bytes of the name and version under which an app was pushed.
pub const PUSHED_BYTES: usize = SHORT_NAME_BYTES + 11;
/// Labels of a job.
pub const LABELS: usize = 32;
/// Attempts of a task, unless the job says otherwise.
pub const ATTEMPTS: u32 = 4;
/// The most that a job can ask for.
pub const MAX_ATTEMPTS: u32 = 16;
/// Failures of a task, whoever is at fault.
pub const FAILURES: usize = 64;
/// Bad records that a job can ask to pass over.
pub const BAD_RECORDS: u64 = 100_000;
/// Incidents of a job that are kept, the newest of them.
pub const INCIDENTS: usize = 500;
/// Bytes of what is said of an incident.
pub const INCIDENT_BYTES: usize = 256;
/// So many workers on which the same record failed are enough.
pub const WORKERS_OF_A_BAD_RECORD: usize = 2;
/// Changes in one command.
pub const CHANGES: usize = 4_096;
/// Bytes of a chunk of a snapshot.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;

/// All of a task's work, in parts in a million.
pub const WHOLE_PPM: u32 = 1_000_000;
/// The share of a reducer's work that is fetching segments.
pub const FETCHED_PPM: u32 = 400_000;

/// Users.
pub const USERS: usize = 10_000;
/// Bytes of a service account's name, its namespace before it.
pub const ACCOUNT_BYTES: usize = 512;
/// Sessions and tokens for machines of all users.
pub const SESSIONS: usize = 200_000;
/// Sessions of one user, of which one more ends the oldest; and tokens for machines, of which there are no more.
pub const SESSIONS_OF_A_USER: usize = 100;
/// How long a session lasts.
pub const SESSION_MS: u64 = 14 * 24 * 60 * 60 * 1000;
/// How long a token for a machine may hold.
pub const TOKEN_MS: std::ops::RangeInclusive<u64> = 60_000..=366 * 24 * 60 * 60 * 1000;
/// For so long the word before the last continues a session too: the answer with the last one may have been lost.
pub const REFRESH_AGAIN_MS: u64 = 60_000;
/// Roles that are not built in.
pub const ROLES: usize = 100;
/// Keys that sign tokens or did.
pub const SIGNING_KEYS: usize = 16;
/// How long what an earlier key signed holds: longer than any access token.
pub const KEY_OVERLAP_MS: u64 = 60 * 60 * 1000;
/// Events of the audit log that are kept in the state.
pub const AUDIT: usize = 10_000;
/// So many are put into the store together.
pub const AUDIT_FILE: usize = 1_000;
/// Bytes of what an event says.
pub const AUDIT_BYTES: usize = 512;
/// Events in one command.
pub const AUDIT_EVENTS: usize = 1_000;

/// Whether these are words that workers may have and jobs ask for.
pub(super) fn are_capabilities(words: &[String]) -> bool {
    words.len() <= CAPABILITIES && words.iter().all(|word| (1..=SHORT_NAME_BYTES).contains(&word.len()))
}
