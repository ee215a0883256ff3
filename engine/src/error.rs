//! What can go wrong with a job, said in one line: what, where, and what to do.

use std::io;
use std::path::PathBuf;

use crate::data::{input, segment};
use crate::scratch;

/// Why a job did not produce its output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The inputs that the user named cannot be listed.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// Opening an input failed.
    #[error("cannot open {name}: {source}")]
    Open {
        /// The input's name.
        name: String,
        /// The system's word on it.
        source: io::Error,
    },
    /// Compressed bytes came of a pipe, which has no name to tell their codec.
    #[error("{name} is {tool} data; only files are decompressed, by their extension: put '{tool} -dc' before it")]
    Compressed {
        /// The input's name.
        name: String,
        /// The tool that reads it.
        tool: &'static str,
    },
    /// Reading an input failed.
    #[error("cannot read {name} near byte {offset}: {source}")]
    Read {
        /// The input's name.
        name: String,
        /// Offset in the (decompressed) input, in bytes.
        offset: u64,
        /// The system's or codec's word on it.
        source: io::Error,
    },
    /// An input became shorter than it was when the job began.
    #[error("{name} shrank while it was read: byte {offset} is gone; run the job again when nothing writes to it")]
    Shrank {
        /// The input's name.
        name: String,
        /// First offset that was expected and is missing.
        offset: u64,
    },
    /// An input of fixed-length records ends within one.
    #[error(
        "{name} has {len} bytes, which is not a multiple of the record length {size}: the last record is cut short; \
         correct --input-format or the file"
    )]
    Ragged {
        /// The input's name.
        name: String,
        /// Its length in bytes.
        len: u64,
        /// Length of a record in bytes.
        size: usize,
    },
    /// A record that the app cannot map.
    #[error(
        "bad record in {name} at byte {offset}: {reason}; it begins with '{excerpt}' (--skip-bad-records N passes over up to N)"
    )]
    BadRecord {
        /// The input's name.
        name: String,
        /// Offset of the record in the (decompressed) input, in bytes.
        offset: u64,
        /// The app's reason.
        reason: String,
        /// The record's first bytes, escaped.
        excerpt: String,
    },
    /// The app panicked.
    #[error("the app panicked in {phase} ({place}): {message}")]
    Panic {
        /// `map` or `reduce`.
        phase: &'static str,
        /// Where: an input and offset, or a part.
        place: String,
        /// The panic's message.
        message: String,
    },
    /// User code outside of the engine failed as often as it may.
    #[error(transparent)]
    Code(Box<CodeFailed>),
    /// The output exists and was not to be overwritten.
    #[error("output {} exists; choose another name or pass --overwrite", .0.display())]
    OutputExists(PathBuf),
    /// What is in the output's place is no output, and so is not replaced.
    #[error(
        "{} is not the output of a job (it has no _SUCCESS), so --overwrite leaves it alone; remove it yourself",
        .0.display()
    )]
    NotAnOutput(PathBuf),
    /// A file of the output or of scratch cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Write {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's word on it.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write the result to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// Scratch cannot be written or read.
    #[error(transparent)]
    Scratch(#[from] scratch::Error),
    /// A run on disk is damaged.
    #[error(transparent)]
    Segment(#[from] segment::Error),
    /// The options contradict each other or the app.
    #[error("{0}")]
    Usage(String),
    /// The job was asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// User code that failed as often as it may: which task, where, what happened, and how to see it again.
#[derive(Debug, thiserror::Error)]
#[error(
    "{task} failed{}{place}: {what}{}{}",
    if *attempts > 1 { format!(" {attempts} times, the last") } else { String::new() },
    words.last().map_or(String::new(), |last| format!("; its last words: {last}")),
    again.as_ref().map_or(String::new(), |again| format!("; do it again with: {again}"))
)]
pub struct CodeFailed {
    /// Which task.
    pub task: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Where it was in its input, as in " in a.txt near byte 10"; empty where that is not known.
    pub place: String,
    /// What happened.
    pub what: String,
    /// The last lines that the code wrote for people.
    pub words: Vec<String>,
    /// The command that does the last attempt again.
    pub again: Option<String>,
}

impl Error {
    pub(crate) fn write(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { action, path, source }
    }

    /// Whether this is the reader of our standard output having left, which is no failure of ours.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Stdout(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The first bytes of a record, fit for one line of a message.
pub(crate) fn excerpt(record: &[u8]) -> String {
    const MOST: usize = 60;
    let shown = record[..record.len().min(MOST)].escape_ascii().to_string();
    if record.len() > MOST { shown + "…" } else { shown }
}
