//! Jobs whose map, combine and reduce are user code outside of the engine: scripts as processes, functions of other
//! languages.
//!
//! The engine knows such code as a [`Runner`], which begins a [`Session`] for each attempt at a task: bytes in, bytes out,
//! whichever goes. Whether these are lines or records of bytes is the job's [`Shape`]. [`RunnerJob`] is the [`Job`](crate::job::Job) over it. On the way of a job, in this order:
//!
//! 1. `feed`: a task is a split of one input; its records go through a mapper, and through a combiner once they are sorted.
//!    Only what an attempt wrote that succeeded is passed on.
//! 2. `text`: lines are divided into keys and values, brought together by the data plane that all jobs share, in parts and
//!    in an order that `keys` knows of, and put together again. Records of bytes (`packed`) have a key and a value already.
//! 3. `job`: each part's pairs go through a reducer and into the output.
//!
//! On a cluster `tasks` does the same for one task: what crosses machines are segments, as of any job.
//!
//! `attempt` is what all stages share: trying again, counters that count once, and the error that says what failed where.
//! Left to the [`Runner`]: processes, time limits, what code may do, and what it says on standard error.

mod attempt;
mod feed;
mod job;
mod keys;
pub mod packed;
mod parts;
mod spool;
mod tasks;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;

pub use attempt::Trouble;
pub use job::{Reduces, RunnerJob};
pub use keys::{Comparator, KeySpec, Partition};
pub use text::{Between, Fed, Fields, Shape, Text, Written};

use crate::app::Format;
use crate::error::Error;
use crate::job::{Context, Observer};

/// What code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Input to pairs.
    Map,
    /// Pairs of one map task to fewer pairs.
    Combine,
    /// All pairs of a part to output.
    Reduce,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::Combine => "combine",
            Self::Reduce => "reduce",
        })
    }
}

/// The stretch of an input that a map task is for.
#[derive(Clone, Copy, Debug)]
pub struct SplitOf<'a> {
    /// The input's name.
    pub name: &'a str,
    /// Its first byte.
    pub start: u64,
    /// Bytes in it; 0 where the input does not say.
    pub len: u64,
}

/// One try at one stage of one task, and where it stands in its job.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The job, as a cluster's people call it; empty on one machine.
    pub job: &'a str,
    /// What is to be done.
    pub stage: Stage,
    /// Number of the task among those that map, or of the part.
    pub task: u32,
    /// How often it was tried before, on this machine.
    pub number: u32,
    /// Its number among all attempts at the task.
    pub id: u32,
    /// What is mapped.
    pub split: Option<SplitOf<'a>>,
    /// What records of the input are. Mappers of text are given lines. Others are given lines as the input has them, or each
    /// record of another format behind its length in 32 bits, little-endian.
    pub format: Format,
    /// Map tasks of the job.
    pub maps: u32,
    /// Parts of the job; 0 when it only maps.
    pub reduces: u32,
    /// Whom to tell of what the code says.
    pub observer: &'a dyn Observer,
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} task {}", self.stage, self.task)
    }
}

/// What code counted: sums by name, of an attempt that succeeded.
pub type Counters = BTreeMap<String, i64>;

/// Why an attempt failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// What happened, as in "it exited with code 1".
    pub what: String,
    /// The last lines that the code wrote for people.
    pub words: Vec<String>,
}

/// Bytes of a map task of so many in all, on whatever machine: what code remembers within a task is the same everywhere.
pub(crate) fn even_share(all: u64) -> u64 {
    (all / 32).clamp(4 << 20, 64 << 20)
}

/// Runs user code.
pub trait Runner: Send + Sync {
    /// Called before the first attempt of a job, and not again once it went well: files may be put below `folder`, which is
    /// made if it is not there, and as many attempts as the context has threads will be made at a time.
    ///
    /// # Errors
    /// When the code is not there, or cannot be prepared.
    fn prepare(&self, folder: &Path, context: &Context<'_>) -> Result<(), Error>;

    /// Whether there is code for a stage.
    fn has(&self, stage: Stage) -> bool;

    /// How often a task may be tried, at least once.
    fn attempts(&self, stage: Stage) -> u32;

    /// Bytes of input that a map task on one machine has, where there are so many in all and so many threads: what a task costs
    /// by itself should not weigh much, nor doing one again.
    fn split_bytes(&self, all: u64, threads: u64) -> u64 {
        let _ = threads;
        even_share(all)
    }

    /// Begins an attempt.
    ///
    /// # Errors
    /// When the code cannot be begun, which counts as an attempt, or the machine has not what it takes.
    fn begin<'r>(&'r self, attempt: &Attempt<'r>) -> Result<Box<dyn Session + 'r>, Trouble>;

    /// Keeps what is needed to do a failed attempt again by hand, and gives the command for it. `input` writes what the
    /// code was given.
    fn keep(&self, attempt: &Attempt<'_>, input: &mut Input<'_>) -> Option<String>;
}

/// Writes the input of an attempt once more.
pub type Input<'i> = dyn FnMut(&mut dyn Write) -> Result<(), Error> + 'i;

/// Code at work on one attempt. Dropped, it is at an end, with all that it began.
pub trait Session {
    /// Gives `input` and appends to `out` what came of it, whichever goes; waits a moment for one of the two. Returns how
    /// many bytes were taken, which may be none. Code that reads no more takes everything.
    ///
    /// # Errors
    /// When the code has failed.
    fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed>;

    /// As `exchange`, when there is no more input; what the code counted, once it has ended well.
    ///
    /// # Errors
    /// When the code has failed.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed>;

    /// What the code has counted so far, and the last status that it told.
    fn so_far(&self) -> Option<(&Counters, Option<&str>)> {
        None
    }

    /// Bytes that were taken and that the code had not read when it ended or was last looked at.
    fn unread(&self) -> u64 {
        0
    }
}
