//! Jobs that sort: spans of input into logs of references, and logs into parts in total order.

use std::sync::Mutex;

use super::Run;
use super::outputs::Outputs;
use super::survey::Survey;
use crate::app::App;
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
            self.feed.release_pinned();
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
        outputs.expect(&pieces)?;
        self.context.observer.phase(Phase::Reduce, tasks.len() as u64);
        let best = Mutex::default();
        self.each_task(&counts, outputs, |i, sorter: &mut Sorter<Entry>| {
            let (first, task) = &tasks[i];
            // SAFETY: logs and input are alive.
            let mut rest: &[Entry] = unsafe { known.sort(sorter, &task.blocks, task.skip) };
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
                    self.feed.release_pinned();
                }
                Ok(tally)
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }
}

#[inline(never)]
pub(super) fn map_log<A: App>(
    app: &A,
    log: &mut Log,
    tally: &mut Tally,
    ranges: &Ranges,
    shapes: &Shapes,
    loaded: &Loaded<'_>,
) {
    app.map(&loaded.chunk, &mut LogEmitter::new(log, tally, ranges, shapes, &loaded.chunk, loaded.stable));
}
