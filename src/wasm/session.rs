//! A task in an instance of an app: batches in, pairs or lines out.

use gristmill_engine::app::Format;
use gristmill_engine::job::Observer;
use gristmill_engine::runner::packed::{self, Records, pack};
use gristmill_engine::runner::{Attempt, Counters, Failed, Session, Stage};
use wasmtime::component::{Instance, TypedFunc};
use wasmtime::{Store, Trap};

use super::component::{App, Held, one_line};
use crate::cli::sizes::Size;

/// Bytes of records that are mapped at a time.
const BATCH: usize = 1 << 20;
/// Bytes of pairs that are combined together.
const COMBINED: usize = 8 << 20;
/// Bytes of pairs that are reduced at a time.
const REDUCED: usize = 1 << 20;
/// A record may have so many bytes.
const LONGEST: usize = 256 << 20;

/// What functions return: bytes, or why they failed.
type Returned = Result<Vec<u8>, String>;
type MapFunction<'f> = TypedFunc<(&'f [u8],), (Returned,)>;
type ReduceFunction<'f> = TypedFunc<(&'f [u8], bool), (Returned,)>;

/// A task at work.
pub(super) struct Task<'t> {
    app: &'t App,
    store: Store<Held>,
    instance: Instance,
    stage: Stage,
    lines: bool,
    name: String,
    observer: &'t dyn Observer,
    /// Parts of the job.
    parts: u32,
    /// Bytes of records that are no whole batch.
    batch: Vec<u8>,
    /// Pairs that wait to be combined.
    pairs: Vec<u8>,
    records: Records,
    /// The last key of the batch to be reduced, and where its pairs begin.
    last: (Vec<u8>, usize),
    taken: u64,
    done: u64,
}

impl<'t> Task<'t> {
    pub(super) fn begin(app: &'t App, attempt: &Attempt<'t>) -> Result<Self, Failed> {
        let mut store = app.store();
        store.set_epoch_deadline(app.ticks());
        let instance = app.instance.instantiate(&mut store);
        let instance = match instance {
            Ok(instance) => instance,
            Err(e) => return Err(failure(app, &store, &e, "its instance")),
        };
        let lines = attempt.format == Format::Lines;
        let mut task = Self {
            app,
            store,
            instance,
            stage: attempt.stage,
            lines,
            name: attempt.to_string(),
            observer: if attempt.number == 0 { attempt.observer } else { &() },
            parts: attempt.reduces,
            batch: Vec::new(),
            pairs: Vec::new(),
            records: Records::default(),
            last: (Vec::new(), 0),
            taken: 0,
            done: 0,
        };
        let (stage, input) = (attempt.stage.to_string(), attempt.split.map_or("", |split| split.name));
        let records = if lines { "lines" } else { "framed" };
        if let Ok(begin) =
            task.instance.get_typed_func::<(&str, &str, &str), (Result<(), String>,)>(&mut task.store, "begin")
        {
            let begun = task.call("begin", |store| begin.call(store, (&stage, input, records)))?;
            begun.0.map_err(|what| failed(format!("begin failed: {}", one_line(&what))))?;
        } else {
            task.optional("begin")?;
        }
        Ok(task)
    }

    /// A function that is there, but of another type, is not taken for one that is not there.
    fn optional(&mut self, name: &str) -> Result<(), Failed> {
        match self.instance.get_func(&mut self.store, name) {
            None => Ok(()),
            Some(_) => {
                Err(failed(format!("its function {name} has other parameters or results than docs/wasm.md has")))
            }
        }
    }

    /// Calls a function within its bounds.
    fn call<T>(&mut self, name: &str, f: impl FnOnce(&mut Store<Held>) -> wasmtime::Result<T>) -> Result<T, Failed> {
        self.store.set_epoch_deadline(self.app.ticks());
        let done = f(&mut self.store);
        for line in std::mem::take(&mut self.store.data_mut().lines) {
            self.observer.log(&self.name, &line);
        }
        done.map_err(|e| failure(self.app, &self.store, &e, name))
    }

    /// Calls a function from bytes to bytes.
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, Failed> {
        let function: MapFunction<'_> = match self.instance.get_typed_func(&mut self.store, name) {
            Ok(function) => function,
            Err(_) => {
                return Err(self.optional(name).err().unwrap_or_else(|| failed(format!("it has no function {name}"))));
            }
        };
        let (returned,) = self.call(name, |store| function.call(store, (bytes,)))?;
        returned.map_err(|what| failed(format!("{name} failed: {}", one_line(&what))))
    }

    /// Where in the input the batch at hand ends, if it does: with the first record that ends at or behind its size, however
    /// the input comes.
    fn batch_end(&self, input: &[u8]) -> Option<usize> {
        if !self.lines {
            // Framed records are given whole, one at a time.
            return (self.batch.len() + input.len() >= BATCH).then_some(input.len());
        }
        let from = (BATCH - 1).saturating_sub(self.batch.len());
        Some(from + memchr::memchr(b'\n', input.get(from..)?)? + 1)
    }

    fn map(&mut self, records: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let pairs = self.bytes("map", records)?;
        self.done += records.len() as u64;
        self.mapped(pairs, out)
    }

    /// Takes pairs that were mapped.
    fn mapped(&mut self, pairs: Vec<u8>, out: &mut Vec<u8>) -> Result<(), Failed> {
        if self.parts == 0 || !self.app.has_combine {
            return self.hand_on(pairs, out);
        }
        self.pairs.extend_from_slice(&pairs);
        if self.pairs.len() > COMBINED { self.combine(out) } else { Ok(()) }
    }

    /// Combines what waits.
    fn combine(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        let pairs = std::mem::take(&mut self.pairs);
        let mut all = Vec::new();
        each(&pairs, |key, value| all.push((key, value)))?;
        // Stable: values of a key stay in their order.
        all.sort_by_key(|(key, _)| *key);
        let mut sorted = Vec::with_capacity(pairs.len());
        all.iter().for_each(|(key, value)| pack(key, value, &mut sorted));
        let combined = self.bytes("combine", &sorted)?;
        self.hand_on(combined, out)
    }

    /// Gives pairs to the job: with the number of their part, or as lines if they are the output.
    fn hand_on(&self, pairs: Vec<u8>, out: &mut Vec<u8>) -> Result<(), Failed> {
        match self.parts {
            0 => return each(&pairs, |key, value| line(key, value, out)),
            // The number of the only part takes no bytes.
            1 if out.is_empty() => {
                each(&pairs, |_, _| ())?;
                *out = pairs;
                return Ok(());
            }
            _ => {}
        }
        let mut numbered = Vec::new();
        each(&pairs, |key, value| {
            numbered.clear();
            packed::number(packed::part_of(key, self.parts), self.parts, &mut numbered);
            numbered.extend_from_slice(key);
            pack(&numbered, value, out);
        })
    }

    /// Reduces the pairs at hand.
    fn reduce(&mut self, more: bool, out: &mut Vec<u8>) -> Result<(), Failed> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        if !self.app.has_reduce {
            return each(&batch, |key, value| line(key, value, out));
        }
        let function: ReduceFunction<'_> = match self.instance.get_typed_func(&mut self.store, "reduce") {
            Ok(function) => function,
            Err(_) => {
                let other = self.optional("reduce").err();
                return Err(other.unwrap_or_else(|| failed("it has no function reduce".into())));
            }
        };
        let returned = self.call("reduce", |store| function.call(store, (&batch[..], more)));
        let at = || format!(", at key '{}' or one before it", shown(&self.last.0));
        let (returned,) = returned.map_err(|failed| Failed { what: failed.what + &at(), ..failed })?;
        let lines = returned.map_err(|what| failed(format!("reduce failed: {}{}", one_line(&what), at())))?;
        out.extend_from_slice(&lines);
        Ok(())
    }

    /// Takes pairs to be reduced, whole ones.
    fn add(&mut self, pairs: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let (last, mut done) = (std::mem::take(&mut self.last.0), Ok(()));
        // Where those begin that are not in the batch, where the pair at hand does, and the key before it.
        let (mut from, mut at, mut before) = (0, 0, &last[..]);
        packed::each(pairs, |key, value| {
            if done.is_err() {
                return;
            }
            let same = key == before && self.batch.len() + at > from;
            if self.batch.len() + at - from > REDUCED {
                self.batch.extend_from_slice(&pairs[from..at]);
                from = at;
                self.last.0 = before.into();
                done = self.reduce_most(same, out);
            }
            if !same {
                self.last.1 = self.batch.len() + at - from;
                before = key;
            }
            at += packed::HEAD + key.len() + value.len();
        });
        self.batch.extend_from_slice(&pairs[from..]);
        self.last.0 = before.into();
        done
    }

    /// Reduces a batch that is large enough. Keys are whole where they can be: those before the last one are, of which more may
    /// come.
    fn reduce_most(&mut self, more: bool, out: &mut Vec<u8>) -> Result<(), Failed> {
        let rest = if more { self.batch.split_off(self.last.1) } else { Vec::new() };
        if self.batch.is_empty() {
            self.batch = rest;
            self.reduce(true, out)?;
        } else {
            self.reduce(false, out)?;
            self.batch = rest;
        }
        self.last.1 = 0;
        Ok(())
    }
}

impl Session for Task<'_> {
    fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        if self.stage == Stage::Reduce {
            self.taken += input.len() as u64;
            let mut records = std::mem::take(&mut self.records);
            let done = records.push(input, |pairs| self.add(pairs, out));
            self.records = records;
            return done.map(|()| input.len());
        }
        // One batch and no more: in between it is looked whether the job goes on, and what came of it is handed on.
        let end = self.batch_end(input);
        let n = end.unwrap_or(input.len());
        self.taken += n as u64;
        if end.is_some() && self.batch.is_empty() {
            self.map(&input[..n], out)?;
            return Ok(n);
        }
        self.batch.extend_from_slice(&input[..n]);
        if end.is_some() {
            let mut batch = std::mem::take(&mut self.batch);
            self.map(&batch, out)?;
            batch.clear();
            self.batch = batch;
        } else if self.batch.len() > LONGEST {
            return Err(failed(format!("a record of its input has more than {} MiB", LONGEST >> 20)));
        }
        Ok(n)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed> {
        if self.stage == Stage::Reduce {
            self.reduce(false, out)?;
        } else if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.map(&batch, out)?;
        }
        match self.instance.get_typed_func::<(), (Returned,)>(&mut self.store, "finish") {
            Ok(finish) => {
                let (returned,) = self.call("finish", |store| finish.call(store, ()))?;
                let left = returned.map_err(|what| failed(format!("finish failed: {}", one_line(&what))))?;
                match self.stage {
                    Stage::Reduce => out.extend_from_slice(&left),
                    _ => self.mapped(left, out)?,
                }
            }
            Err(_) => self.optional("finish")?,
        }
        if !self.pairs.is_empty() {
            self.combine(out)?;
        }
        Ok(Some(std::mem::take(&mut self.store.data_mut().counters)))
    }

    fn so_far(&self) -> Option<(&Counters, Option<&str>)> {
        let held = self.store.data();
        Some((&held.counters, held.status.as_deref()))
    }

    fn unread(&self) -> u64 {
        self.taken - self.done.min(self.taken)
    }
}

/// Calls `f` with each of the pairs that an app returned.
fn each<'p>(pairs: &'p [u8], f: impl FnMut(&'p [u8], &'p [u8])) -> Result<(), Failed> {
    match packed::each(pairs, f) {
        [] => Ok(()),
        left => Err(failed(format!("what it returned is no pair from byte {} on", pairs.len() - left.len()))),
    }
}

/// A line of the output.
fn line(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    out.push(b'\t');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn shown(key: &[u8]) -> String {
    key[..key.len().min(60)].escape_ascii().to_string()
}

fn failed(what: String) -> Failed {
    Failed { what, words: Vec::new() }
}

/// What is told of a call that did not return.
fn failure(app: &App, store: &Store<Held>, e: &wasmtime::Error, name: &str) -> Failed {
    let held = store.data();
    let most = Size(app.limits.memory);
    let what = match (e.downcast_ref::<Trap>(), held.denied) {
        (Some(Trap::Interrupt), _) => {
            format!(
                "{name} took more than {} s, which is all that a call may take (--timeout)",
                app.limits.time.as_secs()
            )
        }
        (trap, Some(wanted)) => {
            let trap = trap.map_or(String::new(), |trap| format!(", and ended with: {trap}"));
            format!("{name} wanted {} of memory and may use {most} (--task-memory){trap}", Size(wanted as u64))
        }
        (Some(trap), None) => format!("{name} trapped: {trap}"),
        (None, None) => {
            let what = one_line(&format!("{e:#}"));
            // Its type is not public.
            let much = if what.contains("hostcall") { "; a call may return 128 MiB" } else { "" };
            format!("{name}: {what}{much}")
        }
    };
    let status = held.status.as_ref().map_or(String::new(), |status| format!(" (its last status: {status})"));
    Failed { what: what + &status, words: Vec::new() }
}
