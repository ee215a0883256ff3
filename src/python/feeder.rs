//! What a task is given, in frames for the interpreter: a mapper's lines or records in batches, a reducer's records as groups.

use std::collections::VecDeque;

use gristmill_engine::app::Format;
use gristmill_engine::runner::packed::Records;
use gristmill_engine::runner::{Attempt, Stage};
use serde_json::json;

use super::key;
use super::marshal::{begin, mark};

/// Bytes of input that are given at a time.
const BATCH: usize = 256 << 10;
/// Bytes of groups that are given at a time.
const GROUPS: usize = 256 << 10;
/// Bytes of values beyond which a group is given in several frames.
const LARGE: usize = 4 << 20;
/// A record may have so many bytes.
const LONGEST: usize = 256 << 20;
/// What ends where a record is too long.
const TOO_LONG: &str = "a record of its input has more than 256 MiB";

/// A value's bytes: how it is to be read, its key if that cannot be told from the record's, and how many values there are.
pub(super) mod value {
    use super::super::marshal::Reader;

    const KEY: u8 = 1;
    const PICKLED: u8 = 2;

    /// Values of one key, as they were mapped together.
    pub(crate) struct Values<'v> {
        /// The key, if it is here.
        pub(crate) key: Option<&'v [u8]>,
        /// They are one pickled list.
        pub(crate) pickled: bool,
        /// How many.
        pub(crate) n: usize,
        /// What marshal wrote of each.
        pub(crate) bytes: &'v [u8],
    }

    impl<'v> Values<'v> {
        pub(crate) fn write(&self, out: &mut Vec<u8>) {
            let key = if self.key.is_some() { KEY } else { 0 };
            out.push(key | if self.pickled { PICKLED } else { 0 });
            if let Some(key) = self.key {
                out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                out.extend_from_slice(key);
            }
            out.extend_from_slice(&(self.n as u32).to_le_bytes());
            out.extend_from_slice(self.bytes);
        }

        pub(crate) fn read(bytes: &'v [u8]) -> Option<Self> {
            let mut reader = Reader(bytes);
            let how = reader.byte()?;
            let key = match how & KEY {
                0 => None,
                _ => {
                    let len = reader.len()?;
                    Some(reader.take(len)?)
                }
            };
            Some(Self { key, pickled: how & PICKLED != 0, n: reader.len()?, bytes: reader.0 })
        }
    }
}

/// Makes frames of a task's input.
pub(super) struct Feeder {
    kind: Kind,
    /// Bytes of input whose frame is not full.
    batch: Vec<u8>,
    /// Finished frames.
    pub(super) frames: Vec<u8>,
    /// Bytes of input in each frame that was not dealt with yet.
    pub(super) given: VecDeque<usize>,
}

enum Kind {
    Lines,
    /// Each behind its length; where the next one of the batch begins that was not looked at.
    Records(usize),
    Groups(Groups),
}

/// Records that are being put together into groups.
#[derive(Default)]
struct Groups {
    records: Records,
    /// The key of the group at hand, as it is sorted.
    key: Option<Vec<u8>>,
    /// As Python has it.
    marshalled: Vec<u8>,
    values: Vec<u8>,
    pieces: Vec<Piece>,
    /// The group's beginning has been given already.
    large: bool,
    /// Groups of the next frame, which they follow the head of, and how many.
    batch: Vec<u8>,
    n: usize,
    /// The values of these come in pieces.
    in_pieces: bool,
}

/// Values that were mapped together: where they end, how many they are, and whether they are one pickled list.
#[derive(Clone, Copy)]
struct Piece {
    end: usize,
    n: usize,
    pickled: bool,
}

impl Feeder {
    /// For an attempt at a task.
    pub(super) fn new(attempt: &Attempt<'_>) -> Self {
        let kind = match (attempt.stage, attempt.format) {
            (Stage::Reduce, _) => Kind::Groups(Groups::default()),
            (_, Format::Lines) => Kind::Lines,
            _ => Kind::Records(0),
        };
        let name = attempt.split.map_or("", |split| split.name);
        let task = json!({
            "name": name, "parts": attempt.reduces, "map_only": attempt.reduces == 0,
            "stage": attempt.stage.to_string(), "task": attempt.task, "attempt": attempt.id,
        });
        let mut feeder = Self { kind, batch: Vec::new(), frames: Vec::new(), given: VecDeque::new() };
        frame(b'T', &[task.to_string().as_bytes()], &mut feeder.frames);
        feeder
    }

    /// Takes input.
    ///
    /// # Errors
    /// When a record is too long, or is none.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if let Kind::Groups(groups) = &mut self.kind {
            let frames = &mut self.frames;
            let mut records = std::mem::take(&mut groups.records);
            let done = records.push_each(bytes, |key, value| groups.add(key, value, frames).ok_or(DAMAGED));
            groups.records = records;
            return done;
        }
        self.batch.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(whole) = self.whole(from) {
            self.give(from, from + whole);
            from += whole;
        }
        self.batch.drain(..from);
        if self.batch.len() > LONGEST { Err(TOO_LONG) } else { Ok(()) }
    }

    /// Bytes of the next batch behind `from`, if it is there. It ends with the first record that ends at or behind its size,
    /// however the input comes: what is mapped together is the same in each attempt.
    fn whole(&mut self, from: usize) -> Option<usize> {
        let rest = &self.batch[from..];
        match &mut self.kind {
            Kind::Lines => Some(BATCH + memchr::memchr(b'\n', rest.get(BATCH - 1..)?)?),
            Kind::Records(at) => {
                // Where the next record begins is known from before.
                while *at < BATCH {
                    *at += 4 + u32::from_le_bytes(*rest.get(*at..)?.first_chunk()?) as usize;
                }
                let whole = (*at <= rest.len()).then_some(*at)?;
                *at = 0;
                Some(whole)
            }
            Kind::Groups(_) => None,
        }
    }

    /// Gives a stretch of the batch.
    fn give(&mut self, from: usize, to: usize) {
        if from < to {
            let kind = if matches!(self.kind, Kind::Lines) { b'L' } else { b'R' };
            frame(kind, &[&self.batch[from..to]], &mut self.frames);
            self.given.push_back(to - from);
        }
    }

    /// Gives what is left, and the end.
    pub(super) fn finish(&mut self) {
        self.give(0, self.batch.len());
        if let Kind::Groups(groups) = &mut self.kind {
            groups.close(&mut self.frames);
            groups.give(&mut self.frames);
        }
        frame(b'F', &[], &mut self.frames);
    }
}

/// What is said of records that nobody can have written.
const DAMAGED: &str = "what was kept of its input is damaged";

impl Groups {
    fn add(&mut self, key: &[u8], value: &[u8], frames: &mut Vec<u8>) -> Option<()> {
        let value = value::Values::read(value)?;
        if self.key.as_deref() != Some(key) {
            self.close(frames);
            let own = self.key.get_or_insert_default();
            own.clear();
            own.extend_from_slice(key);
            self.marshalled.clear();
            match value.key {
                Some(key) => self.marshalled.extend_from_slice(key),
                None => key::decode(key, &mut self.marshalled)?,
            }
        }
        self.values.extend_from_slice(value.bytes);
        self.pieces.push(Piece { end: self.values.len(), n: value.n, pickled: value.pickled });
        if self.values.len() > LARGE {
            self.give(frames);
            let pieces = self.pieces();
            if self.large {
                frame(b'V', &[&pieces], frames);
            } else {
                let mut group = Vec::new();
                begin(mark::TUPLE, 2, &mut group);
                frame(b'B', &[&group, &self.marshalled, &pieces], frames);
            }
            self.large = true;
        }
        Some(())
    }

    /// The values at hand as a list of pieces.
    fn pieces(&mut self) -> Vec<u8> {
        let (mut all, mut start) = (Vec::with_capacity(self.values.len() + 5 * self.pieces.len()), 0);
        begin(mark::LIST, self.pieces.len(), &mut all);
        for piece in self.pieces.drain(..) {
            if !piece.pickled {
                begin(mark::LIST, piece.n, &mut all);
            }
            all.extend_from_slice(&self.values[start..piece.end]);
            start = piece.end;
        }
        self.values.clear();
        all
    }

    /// Ends the group at hand.
    fn close(&mut self, frames: &mut Vec<u8>) {
        if self.key.is_none() {
            return;
        }
        if self.large {
            if !self.pieces.is_empty() {
                let pieces = self.pieces();
                frame(b'V', &[&pieces], frames);
            }
            frame(b'E', &[], frames);
        } else {
            let in_pieces = self.pieces.iter().any(|piece| piece.pickled);
            if in_pieces != self.in_pieces || self.batch.len() > GROUPS {
                self.give(frames);
            }
            self.in_pieces = in_pieces;
            begin(mark::TUPLE, 2, &mut self.batch);
            self.batch.extend_from_slice(&self.marshalled);
            if in_pieces {
                let pieces = self.pieces();
                self.batch.extend_from_slice(&pieces);
            } else {
                begin(mark::LIST, self.pieces.iter().map(|piece| piece.n).sum(), &mut self.batch);
                self.batch.extend_from_slice(&self.values);
                self.values.clear();
                self.pieces.clear();
            }
            self.n += 1;
        }
        (self.key, self.large) = (None, false);
    }

    /// Gives the groups that are whole.
    fn give(&mut self, frames: &mut Vec<u8>) {
        if self.n > 0 {
            let mut head = Vec::new();
            begin(mark::LIST, self.n, &mut head);
            frame(if self.in_pieces { b'H' } else { b'G' }, &[&head, &self.batch], frames);
            self.batch.clear();
            self.n = 0;
        }
    }
}

/// Appends a frame.
pub(super) fn frame(kind: u8, payload: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.push(kind);
    payload.iter().for_each(|part| out.extend_from_slice(part));
}

/// Bytes of a frame beyond which nobody writes one.
const LONGEST_FRAME: usize = 1 << 30;

/// A frame from an interpreter.
pub(super) struct Frame<'f> {
    pub(super) kind: u8,
    pub(super) payload: &'f [u8],
    /// Bytes of all of it.
    pub(super) len: usize,
}

/// The first whole frame; `Ok(None)` if it is not wholly there.
pub(super) fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let Some(([a, b, c, d, kind], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    if len > LONGEST_FRAME {
        return Err("it made more at once than the 1 GiB that it may");
    }
    Ok(rest.get(..len).map(|payload| Frame { kind: *kind, payload, len: 5 + len }))
}
