//! A task at an interpreter: frames of input to it, and what its frames say.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gristmill_engine::job::Observer;
use gristmill_engine::runner::packed::{self, pack};
use gristmill_engine::runner::{Attempt, Counters, Failed, Session, Trouble};
use serde::Deserialize;

use super::feeder::value::Values;
use super::feeder::{Feeder, first};
use super::key;
use super::marshal::Reader;
use crate::process::Command;
use crate::process::folder::Folder;
use crate::process::session::Process;

/// Bytes of frames that may wait for the interpreter to read them.
const WAITING: usize = 2 << 20;
/// Bytes of a key with its values that were mapped together.
const LONGEST: usize = 1 << 30;
/// What is said of pairs that cannot be taken.
const NO_KEY: &str = "it made pairs that cannot be sorted: integers in keys may have 16 KiB, tuples 100 levels, and a key with its values 1 GiB";
/// The number of a part that says that the key's hash tells it.
const BY_HASH: u32 = u32::MAX;

/// A process with the functions of a job, which does one task after the other. Its folder goes after it.
pub(super) struct Interpreter {
    process: Process,
    _folder: Folder,
    /// What it wrote that is no whole frame yet.
    inbox: Vec<u8>,
}

impl Interpreter {
    /// Begins one; it has not loaded the functions yet.
    pub(super) fn begin(command: &Command, folder: Folder) -> Result<Self, Trouble> {
        Ok(Self { process: Process::begin(command)?, _folder: folder, inbox: Vec::new() })
    }

    /// Waits for the functions to be loaded, or for `stop`.
    pub(super) fn loaded(&mut self, observer: &dyn Observer, stop: &AtomicBool) -> Result<(), Failed> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(failed("the job was stopped"));
            }
            self.exchange(&[])?;
            self.process.shown().for_each(|line| observer.log("setup", &line));
            if let Some(frame) = first(&self.inbox).map_err(failed)? {
                let told = (frame.kind == b'X').then(|| frame.payload.to_vec());
                let len = frame.len;
                self.inbox.drain(..len);
                return told.map_or(Ok(()), |payload| Err(self.failure(&payload).0));
            }
        }
    }

    /// Gives input, and takes what there is. Returns how much was given.
    fn exchange(&mut self, input: &[u8]) -> Result<usize, Failed> {
        let given = self.process.exchange(input, &mut self.inbox);
        match given.and_then(|given| Ok((given, self.process.has_ended()?))) {
            Ok((given, false)) => Ok(given),
            other => {
                // The last that it wrote tells more than how it ended.
                self.process.drain(&mut self.inbox);
                let mut at = 0;
                while let Ok(Some(frame)) = first(&self.inbox[at..]) {
                    if frame.kind == b'X' {
                        return other.map(|(given, _)| given);
                    }
                    at += frame.len;
                }
                other?;
                Err(self.process.failed("it ended in the middle of its work".into(), Vec::new()))
            }
        }
    }

    /// What the code told of its failure, and how many bytes of its input it had dealt with.
    fn failure(&mut self, payload: &[u8]) -> (Failed, u64) {
        #[derive(Deserialize)]
        struct Told {
            what: String,
            words: Vec<String>,
            done: u64,
        }
        match serde_json::from_slice::<Told>(payload) {
            Ok(told) => (self.process.failed(told.what, told.words), told.done),
            Err(e) => {
                (self.process.failed(format!("it failed, and what it told of it is damaged: {e}"), Vec::new()), 0)
            }
        }
    }
}

fn failed(what: &str) -> Failed {
    Failed { what: what.into(), words: Vec::new() }
}

/// Interpreters that wait for tasks. Those of all jobs of this process are no more than it has cores: each holds memory.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Interpreter>>);

/// How many wait, in all pools.
static IDLE: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    pub(super) fn take(&self) -> Option<Interpreter> {
        let interpreter = lock(&self.0).pop()?;
        IDLE.fetch_sub(1, Ordering::Relaxed);
        Some(interpreter)
    }

    pub(super) fn put(&self, interpreter: Interpreter) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if IDLE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < cores).then_some(n + 1)).is_ok() {
            lock(&self.0).push(interpreter);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        IDLE.fetch_sub(lock(&self.0).len(), Ordering::Relaxed);
    }
}

fn lock(all: &Mutex<Vec<Interpreter>>) -> MutexGuard<'_, Vec<Interpreter>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task at work.
pub(super) struct Task<'t> {
    pool: &'t Pool,
    /// Goes back to the pool when the task succeeded, and ends otherwise.
    interpreter: Option<Interpreter>,
    feeder: Feeder,
    /// Frames that the interpreter has.
    sent: usize,
    name: String,
    observer: &'t dyn Observer,
    /// Parts of the job.
    parts: u32,
    taken: u64,
    /// Bytes of input that were dealt with.
    done: u64,
    finished: bool,
    counters: Option<Counters>,
    made: Vec<u8>,
}

impl<'t> Task<'t> {
    pub(super) fn new(
        pool: &'t Pool,
        mut interpreter: Interpreter,
        attempt: &Attempt<'t>,
        observer: &'t dyn Observer,
    ) -> Self {
        interpreter.process.begin_attempt();
        Self {
            pool,
            interpreter: Some(interpreter),
            feeder: Feeder::new(attempt),
            sent: 0,
            name: attempt.to_string(),
            observer,
            parts: attempt.reduces,
            taken: 0,
            done: 0,
            finished: false,
            counters: None,
            made: Vec::new(),
        }
    }

    /// Moves frames both ways.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        let Some(interpreter) = &mut self.interpreter else { return Ok(()) };
        let stepped = interpreter.exchange(&self.feeder.frames[self.sent..]);
        interpreter.process.shown().for_each(|line| self.observer.log(&self.name, &line));
        if let Ok(given) = stepped {
            self.sent += given;
            if self.sent == self.feeder.frames.len() {
                self.feeder.frames.clear();
                self.sent = 0;
            }
        }
        let mut inbox = std::mem::take(&mut interpreter.inbox);
        let mut at = 0;
        let heard = loop {
            match first(&inbox[at..]) {
                Ok(None) => break stepped.map(drop),
                Err(what) => break Err(failed(what)),
                Ok(Some(frame)) => {
                    if let Err(failed) = self.hear(frame.kind, frame.payload, out) {
                        break Err(failed);
                    }
                    at += frame.len;
                }
            }
        };
        inbox.drain(..at);
        if let Some(interpreter) = &mut self.interpreter {
            interpreter.inbox = inbox;
        }
        heard
    }

    fn hear(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        match kind {
            b'P' | b'Q' => self.pairs(payload, kind == b'Q', out).ok_or_else(|| failed(NO_KEY)),
            b'O' => {
                out.extend_from_slice(payload);
                Ok(())
            }
            b'A' => {
                self.done += self.feeder.given.pop_front().unwrap_or(0) as u64;
                Ok(())
            }
            b'D' => {
                let counters = serde_json::from_slice(payload);
                self.counters = Some(counters.map_err(|e| failed(&format!("its counters are damaged: {e}")))?);
                Ok(())
            }
            b'X' => {
                let Some(interpreter) = &mut self.interpreter else { return Ok(()) };
                let (failed, done) = interpreter.failure(payload);
                interpreter.process.shown().for_each(|line| self.observer.log(&self.name, &line));
                self.done = done;
                Err(failed)
            }
            // A sign of life, or that the functions are loaded.
            _ => Ok(()),
        }
    }

    /// Pairs as records; `None` if they are none.
    fn pairs(&mut self, payload: &[u8], pickled: bool, out: &mut Vec<u8>) -> Option<()> {
        let (part, dict) = payload.split_first_chunk()?;
        let part = u32::from_le_bytes(*part);
        if part != BY_HASH && part >= self.parts {
            return None;
        }
        let parts = self.parts;
        let (mut record, mut sorted, mut made) = (Vec::new(), Vec::new(), std::mem::take(&mut self.made));
        Reader(dict).groups(|key, n, bytes| {
            sorted.clear();
            let same = key::encode(key, &mut sorted)?;
            record.clear();
            packed::number(if part == BY_HASH { packed::part_of(&sorted, parts) } else { part }, parts, &mut record);
            record.extend_from_slice(&sorted);
            made.clear();
            Values { key: (!same).then_some(key), pickled, n, bytes }.write(&mut made);
            if record.len() + made.len() > LONGEST {
                return None;
            }
            pack(&record, &made, out);
            Some(())
        })?;
        self.made = made;
        Some(())
    }
}

impl Session for Task<'_> {
    fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        let room = WAITING.saturating_sub(self.feeder.frames.len() - self.sent);
        let taken = input.len().min(room);
        self.feeder.push(&input[..taken]).map_err(failed)?;
        self.taken += taken as u64;
        // A batch that is not full is nothing to wait for.
        if !self.feeder.frames.is_empty() {
            self.step(out)?;
        }
        Ok(taken)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed> {
        if !self.finished {
            self.feeder.finish();
            self.finished = true;
        }
        self.step(out)?;
        let Some(mut counters) = self.counters.take() else { return Ok(None) };
        if let Some(mut interpreter) = self.interpreter.take() {
            interpreter.process.settle();
            interpreter.process.shown().for_each(|line| self.observer.log(&self.name, &line));
            for (name, n) in interpreter.process.counters() {
                *counters.entry(name).or_default() += n;
            }
            self.pool.put(interpreter);
        }
        Ok(Some(counters))
    }

    fn so_far(&self) -> Option<(&Counters, Option<&str>)> {
        self.interpreter.as_ref().map(|interpreter| interpreter.process.so_far())
    }

    fn unread(&self) -> u64 {
        self.taken - self.done.min(self.taken)
    }
}

/// The file below the job's that is the interpreter's program. It is by itself: what stands beside a program can be imported
/// in place of what the program means.
pub(super) fn harness(files: &Path) -> PathBuf {
    files.join(".harness/harness.py")
}
