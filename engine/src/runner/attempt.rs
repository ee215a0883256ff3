//! Attempts at a task: input in, output out, again if it failed and may be tried again, and the error if it may not.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use super::text::{LONGEST_LINE, Shape};
use super::{Attempt, Counters, Failed, Runner, Session};
use crate::error::{CodeFailed, Error};
use crate::job::Context;

/// Output that is handed on at a time, in bytes.
const BLOCK: usize = 256 << 10;

/// What ends an attempt early.
#[derive(Debug)]
pub enum Trouble {
    /// The code failed: it may be tried again.
    Code(Failed),
    /// Anything else: the job fails.
    Job(Error),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        Self::Code(failed)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Job(error)
    }
}

/// A session with what it wrote and was given.
pub(crate) struct Work<'w> {
    session: Box<dyn Session + 'w>,
    context: &'w Context<'w>,
    /// The job has failed elsewhere.
    halt: &'w AtomicBool,
    /// Told how many bytes the code was given in all.
    progress: &'w dyn Fn(u64),
    out: Vec<u8>,
    /// Bytes of a line whose end was not written yet; `None` for what is no text.
    line: Option<usize>,
    given: u64,
    /// Which task it is, and what was last told of it.
    task: String,
    told: (Counters, Option<String>),
}

/// Takes what an attempt writes.
pub(crate) type Take<'t> = dyn FnMut(&[u8]) -> Result<(), Error> + 't;

impl<'w> Work<'w> {
    pub(crate) fn begin(
        runner: &'w dyn Runner,
        attempt: &Attempt<'w>,
        (context, halt, progress): (&'w Context<'w>, &'w AtomicBool, &'w dyn Fn(u64)),
        shape: &Shape,
    ) -> Result<Self, Trouble> {
        let session = runner.begin(attempt)?;
        let line = matches!(shape, Shape::Text(_)).then_some(0);
        let task = attempt.to_string();
        Ok(Self { session, context, halt, progress, out: Vec::new(), line, given: 0, task, told: Default::default() })
    }

    /// Tells what is new to those who watch.
    fn tell(&mut self) {
        let Some((counters, status)) = self.session.so_far() else { return };
        if *counters != self.told.0 || status != self.told.1.as_deref() {
            self.context.observer.so_far(&self.task, counters, status);
            self.told = (counters.clone(), status.map(Into::into));
        }
    }

    fn stopped(&self) -> Result<(), Error> {
        let stops = self.context.stop.load(Ordering::Relaxed) || self.halt.load(Ordering::Relaxed);
        if stops { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn hand_on(&mut self, least: usize, take: &mut Take<'_>) -> Result<(), Trouble> {
        if self.out.len() >= least {
            if let Some(line) = &mut self.line {
                *line = match memchr::memrchr(b'\n', &self.out) {
                    Some(last) => self.out.len() - last - 1,
                    None => *line + self.out.len(),
                };
            }
            if self.line > Some(LONGEST_LINE) {
                let what = format!("it wrote a line of more than {} MiB", LONGEST_LINE >> 20);
                return Err(Trouble::Code(Failed { what, words: Vec::new() }));
            }
            take(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Gives input.
    pub(crate) fn give(&mut self, mut bytes: &[u8], take: &mut Take<'_>) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            self.stopped()?;
            let n = self.session.exchange(bytes, &mut self.out).map_err(Trouble::Code)?;
            self.given += n as u64;
            bytes = &bytes[n..];
            self.tell();
            (self.progress)(self.given);
            self.hand_on(BLOCK, take)?;
        }
        Ok(())
    }

    /// Waits for the end, when all input was given.
    pub(crate) fn finish(&mut self, take: &mut Take<'_>) -> Result<Counters, Trouble> {
        loop {
            self.stopped()?;
            let ended = self.session.finish(&mut self.out).map_err(Trouble::Code)?;
            match &ended {
                // Whole now, with what the session has no more.
                Some(counters) => self.context.observer.so_far(&self.task, counters, None),
                None => self.tell(),
            }
            self.hand_on(if ended.is_some() { 1 } else { BLOCK }, take)?;
            if let Some(counters) = ended {
                return Ok(counters);
            }
        }
    }

    /// Bytes of input that the code was given.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// Bytes of input that the code has read.
    pub(crate) fn read(&self) -> u64 {
        self.given.saturating_sub(self.session.unread())
    }
}

/// Tries a task until an attempt succeeds or there were `most` of them. `once` is one attempt; where it fails it says in
/// the place that it is given how far it came. `input` writes what the attempts were given, where that is to be kept.
pub(crate) fn until_done<'r, T>(
    runner: &'r dyn Runner,
    (mut attempt, most): (Attempt<'r>, u32),
    mut once: impl FnMut(&Attempt<'r>, &mut String) -> Result<T, Trouble>,
    mut input: Option<impl FnMut(&mut dyn Write) -> Result<(), Error>>,
) -> Result<T, Error> {
    loop {
        let mut place = String::new();
        let failed = match once(&attempt, &mut place) {
            Ok(done) => return Ok(done),
            Err(Trouble::Job(error)) => return Err(error),
            Err(Trouble::Code(failed)) => failed,
        };
        attempt.number += 1;
        attempt.id = attempt.id.wrapping_add(1);
        if attempt.number < most {
            let words = failed.words.last().map_or(String::new(), |last| format!("; its last words: {last}"));
            let Failed { what, .. } = &failed;
            let number = attempt.number;
            attempt.observer.note(&format!("{attempt}: attempt {number} of {most} failed{place}: {what}{words}"));
            continue;
        }
        let again = input.as_mut().and_then(|input| runner.keep(&attempt, input));
        let Failed { what, words } = failed;
        let task = attempt.to_string();
        return Err(Error::Code(Box::new(CodeFailed { task, attempts: most, place, what, words, again })));
    }
}
