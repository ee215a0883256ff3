//! Jobs that sort: spans of input into logs of references, and logs into parts in total order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::outputs::Outputs;
use super::{Run, panic_message};
use crate::app::{App, Chunk};
use crate::data::emit::Tally;
use crate::data::external::{cut_at, reduce_entries, scatter_logs, spill_log};
use crate::data::log::{Entry, Log, LogEmitter, Shapes};
use crate::data::output::lock;
use crate::data::sort::sort;
use crate::data::source::{Loaded, Loader};
use crate::error::Error;
use crate::exec::{Exec, in_order};
use crate::job::Phase;
use crate::value::Stable;

/// Bytes of output in one piece of a part, about: a piece is made and written while it is in the cache.
const PIECE_BYTES: usize = 256 << 10;
/// Most entries in one piece.
const PIECE_ENTRIES: usize = 1 << 14;
/// Records sampled to divide a job into parts.
const SPLIT_SAMPLE: usize = 4096;

impl<A: App> Run<'_, A> {
    /// Maps all input into logs, sorts them and reduces them, in memory if they fit.
    pub(super) fn with_logs(&self, outputs: &Outputs) -> Result<(), Error> {
        let splitters = self.splitters()?;
        let shapes = Shapes::default();
        let done: Mutex<Vec<(u64, Log)>> = Mutex::default();
        let exec = self.context.exec;
        exec.run(exec.threads(), &|thread| {
            self.guarded("map", &|| "between chunks".into(), || self.map_logs(thread, &shapes, &splitters, &done));
        });
        self.outcome()?;
        let mut logs = std::mem::take(&mut *lock(&done));
        logs.sort_by_key(|(start, _)| *start);
        let known = shapes.known();
        if !self.runs.is_empty() {
            in_order(exec, logs.len(), &|i| {
                self.guarded("map", &|| "spilling".into(), || {
                    spill_log(&Alone, &logs[i].1, &known, &splitters, &self.runs, (logs[i].0, u64::MAX))
                });
            });
            self.outcome()?;
            drop(logs);
            self.sources.release_pinned();
            return self.reduce_runs(outputs);
        }
        self.context.observer.phase(Phase::Shuffle, 1);
        let all: Vec<&Log> = logs.iter().map(|(_, log)| log).collect();
        let (mut scattered, fitted) = scatter_logs(exec, &all);
        let cuts = cut_at(&mut scattered, &fitted, &splitters, &known);
        let sample = &scattered.items()[..scattered.items().len().min(1000)];
        let each = PIECE_BYTES * sample.len() / known.size_of(sample).max(1);
        let groups = scattered.groups(&cuts, each.clamp(1, PIECE_ENTRIES));
        // SAFETY: logs and input are alive.
        let key = |e: &Entry| -> *const [u8] { unsafe { known.key(e) } };
        self.reduce_pieces(groups, outputs, |group, out| {
            group.each_bucket(|bucket| sort(bucket, &key));
            out.buf.reserve(known.size_of(group.items));
            reduce_entries(self.app, group.items, &known, out);
        })
    }

    /// The work of one thread: spans of units into logs.
    fn map_logs(
        &self,
        thread: usize,
        shapes: &Shapes,
        splitters: &[Vec<u8>],
        done: &Mutex<Vec<(u64, Log)>>,
    ) -> Result<(), Error> {
        let mut loader = Loader::default();
        let mut current: Option<(u64, Log)> = None;
        // Bytes of input that the log refers to, and how often it was spilled.
        let (mut referred, mut held, mut spills) = (0, 0, 0);
        while !self.stopped()
            && let Some(claim) = self.spans.claim(thread, current.is_none())
        {
            if claim.fresh
                && let Some((start, log)) = current.take()
            {
                held += 2 * log.bytes() + std::mem::take(&mut referred);
                lock(done).push((start, log));
            }
            let (start, log) = current.get_or_insert_with(|| {
                spills = 0;
                (claim.unit, Log::default())
            });
            self.map_unit(claim.unit, &mut loader, |loaded| {
                let mut tally = Tally::default();
                map_log(self.app, log, &mut tally, shapes, loaded);
                referred += loaded.chunk.bytes().len();
                let budget = self.share().saturating_sub(held).max(self.share() / 4);
                // Sorting takes as many entries again.
                if 2 * log.bytes() + referred > budget {
                    spill_log(&Alone, log, &shapes.known(), splitters, &self.runs, (*start, spills))?;
                    spills += 1;
                    *log = Log::default();
                    referred = 0;
                    self.sources.release_pinned();
                }
                Ok(tally)
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }

    /// Keys that divide a sample of the input evenly. The sample depends on the input alone.
    fn splitters(&self) -> Result<Vec<Vec<u8>>, Error> {
        let parts = self.parts as usize;
        if parts == 1 {
            return Ok(Vec::new());
        }
        let mut keys = Vec::new();
        let mut size = 4 << 10;
        while keys.is_empty() && size <= 16 << 20 {
            keys = self.sample_keys(size)?;
            size *= 64;
        }
        keys.sort_unstable();
        if keys.is_empty() {
            return Ok(vec![Vec::new(); parts - 1]);
        }
        Ok((1..parts).map(|i| keys[keys.len() * i / parts].clone()).collect())
    }

    /// The keys of records here and there, looked for in pieces of `size` bytes.
    fn sample_keys(&self, size: usize) -> Result<Vec<Vec<u8>>, Error> {
        let (mut log, mut tally, shapes) = (Log::default(), Tally::default(), Shapes::default());
        for (input, bytes) in self.sources.sample(SPLIT_SAMPLE.max(16 * self.parts as usize), size)? {
            let name = &self.sources.names[input as usize];
            let chunk = Chunk::new_with(&bytes, self.sources.format, input, name, self.options.isa);
            let loaded = Loaded { chunk, stable: Stable::NONE };
            let mapped = catch_unwind(AssertUnwindSafe(|| map_log(self.app, &mut log, &mut tally, &shapes, &loaded)));
            mapped.map_err(|panic| {
                let place = format!("a sample of {name}");
                Error::Panic { phase: "map", place, message: panic_message(&*panic) }
            })?;
        }
        let known = shapes.known();
        // SAFETY: nothing of the samples was stable, so all is in the log.
        Ok(log.blocks().flatten().map(|e| unsafe { known.key(e) }.to_vec()).collect())
    }
}

#[inline(never)]
fn map_log<A: App>(app: &A, log: &mut Log, tally: &mut Tally, shapes: &Shapes, loaded: &Loaded<'_>) {
    app.map(&loaded.chunk, &mut LogEmitter::new(log, tally, shapes, &loaded.chunk, loaded.stable));
}

/// No threads but this one: for work inside of a slice.
struct Alone;

impl Exec for Alone {
    fn threads(&self) -> usize {
        1
    }
    fn run(&self, n: usize, slice: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(slice);
    }
}
