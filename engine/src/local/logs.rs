//! Jobs that sort: spans of input into logs of references, and logs into parts in total order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::outputs::Outputs;
use super::{Run, panic_message};
use crate::app::{App, Chunk};
use crate::data::emit::Tally;
use crate::data::external::{reduce_entries, spill_log};
use crate::data::log::{Entry, Known, Log, LogEmitter, Shapes};
use crate::data::output::lock;
use crate::data::ranges::Ranges;
use crate::data::runs::Order;
use crate::data::sort::Sorter;
use crate::data::source::{Loaded, Loader};
use crate::data::tasks::{Division, Task};
use crate::error::Error;
use crate::exec::in_order;
use crate::job::Phase;
use crate::value::Stable;

/// Bytes of input in one range, about: its entries are sorted in the cache, and a log writes to few places at once.
const RANGE_BYTES: u64 = 2 << 20;
/// Most ranges. A log writes to all of them at once, and each takes 4 KiB at least.
const MOST_RANGES: u64 = 4096;
/// Records sampled to divide a job into parts.
const SPLIT_SAMPLE: usize = 4096;
/// Records sampled for each range, when there is one part only.
const RANGE_SAMPLE: u64 = 2;

/// How the keys of a job are divided.
struct Survey {
    ranges: Ranges,
    /// The first keys of all parts but the first.
    splitters: Vec<Vec<u8>>,
}

impl<A: App> Run<'_, A> {
    /// Maps all input into logs, sorts them and reduces them, in memory if they fit.
    pub(super) fn with_logs(&self, outputs: &Outputs) -> Result<(), Error> {
        let survey = self.survey()?;
        let shapes = Shapes::default();
        let done: Mutex<Vec<(u64, Log)>> = Mutex::default();
        let exec = self.context.exec;
        exec.run(exec.threads(), &|thread| {
            self.guarded("map", &|| "between chunks".into(), || self.map_logs(thread, &shapes, &survey, &done));
        });
        self.outcome()?;
        let mut logs = std::mem::take(&mut *lock(&done));
        logs.sort_by_key(|(start, _)| *start);
        let known = shapes.known();
        if !self.runs.is_empty() {
            in_order(exec, logs.len(), &|i| {
                self.guarded("map", &|| "spilling".into(), || {
                    self.spill_log(&logs[i].1, &survey, &known, (logs[i].0, u64::MAX))
                });
            });
            self.outcome()?;
            drop(logs);
            self.sources.release_pinned();
            return self.reduce_runs(outputs);
        }
        self.context.observer.phase(Phase::Shuffle, 1);
        let division = Division::new(exec, logs.iter().map(|(_, log)| log));
        self.reduce_tasks(division.tasks(&survey.ranges, &survey.splitters), &survey.splitters, &known, outputs)
    }

    /// Sorts and reduces tasks on all threads, each into a piece of every part that its keys may belong to.
    fn reduce_tasks<'t>(
        &self,
        tasks: Vec<Task<'t>>,
        splitters: &[Vec<u8>],
        known: &Known,
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let (mut counts, mut pieces) = (vec![0; self.parts as usize], vec![0; self.parts as usize]);
        let number = |task: Task<'t>| {
            // Done with the last of its parts: then what it gives to those before comes early, and does not hold them up.
            counts[*task.parts.end()] += 1;
            let first = pieces[*task.parts.start()];
            task.parts.clone().for_each(|part| pieces[part] += 1);
            (first, task)
        };
        let tasks: Vec<(usize, Task<'t>)> = tasks.into_iter().map(number).collect();
        outputs.expect(&pieces);
        self.context.observer.phase(Phase::Reduce, tasks.len() as u64);
        // SAFETY: logs and input are alive.
        let key = |e: &Entry| -> *const [u8] { unsafe { known.key(e) } };
        let best = Mutex::default();
        self.each_task(&counts, outputs, |i, sorter: &mut Sorter<Entry>| {
            let (first, task) = &tasks[i];
            let mut rest: &[Entry] = sorter.sort(&task.blocks, &key, task.skip);
            for part in task.parts.clone() {
                // SAFETY: as above.
                let ours = |e: &Entry| splitters.get(part).is_none_or(|s| unsafe { known.key(e) } < s.as_slice());
                let n = if part == *task.parts.end() { rest.len() } else { rest.partition_point(ours) };
                let (now, later) = rest.split_at(n);
                // Only the first part of a task has pieces of others before.
                let piece = if part == *task.parts.start() { *first } else { 0 };
                self.piece((part, piece), outputs, &best, |out| reduce_entries(self.app, now, known, out))?;
                rest = later;
            }
            Ok(())
        })?;
        self.write_best(best, outputs)
    }

    fn spill_log(&self, log: &Log, survey: &Survey, known: &Known, order: Order) -> Result<(), Error> {
        spill_log(log, &survey.ranges, known, &survey.splitters, &self.runs, order)
    }

    /// The work of one thread: spans of units into logs.
    fn map_logs(
        &self,
        thread: usize,
        shapes: &Shapes,
        survey: &Survey,
        done: &Mutex<Vec<(u64, Log)>>,
    ) -> Result<(), Error> {
        let mut loader = Loader::default();
        let mut current: Option<(u64, Log)> = None;
        // Bytes of input that are held for this thread's logs, bytes of those before this one, and how often this one was
        // spilled.
        let (mut referred, mut held, mut spills) = (0, 0, 0);
        while !self.stopped()
            && let Some(claim) = self.spans.claim(thread, current.is_none())
        {
            if claim.fresh
                && let Some((start, log)) = current.take()
            {
                held += 2 * log.bytes();
                lock(done).push((start, log));
            }
            let (start, log) = current.get_or_insert_with(|| {
                spills = 0;
                (claim.unit, Log::new(&survey.ranges))
            });
            self.map_unit(claim.unit, &mut loader, |loaded| {
                let mut tally = Tally::default();
                map_log(self.app, log, &mut tally, &survey.ranges, shapes, loaded);
                referred += loaded.chunk.bytes().len();
                let budget = self.share().saturating_sub(held).max(self.share() / 4);
                // Sorting a heavy range takes as many entries again.
                if 2 * log.bytes() + referred > budget {
                    // Once there are runs all goes there in the end: until a log is of some size it is enough to give
                    // the input back.
                    if self.runs.is_empty() || 2 * log.bytes() > budget / 4 {
                        self.spill_log(log, survey, &shapes.known(), (*start, spills))?;
                        spills += 1;
                        *log = Log::new(&survey.ranges);
                    }
                    referred = 0;
                    self.sources.release_pinned();
                }
                Ok(tally)
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }

    /// Looks at a sample of the input. Parts depend on the input alone.
    fn survey(&self) -> Result<Survey, Error> {
        let parts = self.parts as usize;
        let known = self.sources.known_bytes();
        // A log is spilled before it holds more than its share: ranges are for what it holds by then.
        let most = (known.min(self.share() as u64) / RANGE_BYTES).min(MOST_RANGES);
        let records = if parts > 1 { SPLIT_SAMPLE.max(16 * parts) } else { (most * RANGE_SAMPLE) as usize };
        let mut sample = Sample::default();
        let mut size = 4 << 10;
        while records > 0 && sample.keys.is_empty() && size <= 16 << 20 {
            sample = self.sample(records, size)?;
            size *= 64;
        }
        let mut keys = sample.keys;
        keys.sort_unstable();
        let n = keys.len() as u64 * known / sample.bytes.max(1);
        let ranges = if most < 2 { Ranges::one() } else { Ranges::fit(&keys, n as usize, (n / most) as usize) };
        let splitter = |i: usize| if keys.is_empty() { Vec::new() } else { keys[keys.len() * i / parts].clone() };
        Ok(Survey { ranges, splitters: (1..parts).map(splitter).collect() })
    }

    /// The keys of records here and there, looked for in pieces of `size` bytes.
    fn sample(&self, records: usize, size: usize) -> Result<Sample, Error> {
        let ranges = Ranges::one();
        let (mut log, mut tally, shapes) = (Log::new(&ranges), Tally::default(), Shapes::default());
        let mut sampled = 0;
        for (input, bytes) in self.sources.sample(records, size)? {
            let name = &self.sources.names[input as usize];
            let chunk = Chunk::new_with(&bytes, self.sources.format, input, name, self.options.isa);
            let loaded = Loaded { chunk, stable: Stable::NONE };
            let mapped = catch_unwind(AssertUnwindSafe(|| {
                map_log(self.app, &mut log, &mut tally, &ranges, &shapes, &loaded);
            }));
            mapped.map_err(|panic| {
                let place = format!("a sample of {name}");
                Error::Panic { phase: "map", place, message: panic_message(&*panic) }
            })?;
            sampled += bytes.len() as u64;
        }
        let known = shapes.known();
        // SAFETY: nothing of the samples was stable, so all is in the log.
        let keys = log.entries().map(|e| unsafe { known.key(e) }.to_vec()).collect();
        Ok(Sample { keys, bytes: sampled })
    }
}

#[derive(Default)]
struct Sample {
    keys: Vec<Vec<u8>>,
    /// Bytes of the records that they are of.
    bytes: u64,
}

#[inline(never)]
fn map_log<A: App>(app: &A, log: &mut Log, tally: &mut Tally, ranges: &Ranges, shapes: &Shapes, loaded: &Loaded<'_>) {
    app.map(&loaded.chunk, &mut LogEmitter::new(log, tally, ranges, shapes, &loaded.chunk, loaded.stable));
}
