//! Jobs that fold or group: spans of input into tables, and tables into sorted keys.

use std::sync::Mutex;

use super::Run;
use super::outputs::Outputs;
use super::reduce::Best;
use crate::app::{App, Shuffle};
use crate::data::emit::Mapper;
use crate::data::external::TableSpill;
use crate::data::gather::{Gather, reduce_group, scatter_tables};
use crate::data::output::lock;
use crate::data::source::Loader;
use crate::error::Error;
use crate::exec::in_order;
use crate::job::Phase;

/// Keys that are reduced into one piece of a part.
const PIECE_KEYS: usize = 1 << 14;
/// Keys that are brought together at a time, at least.
const BATCH_KEYS: usize = 1 << 20;

impl<A: App> Run<'_, A> {
    /// Maps all input into tables and reduces them, in memory if they fit.
    pub(super) fn with_tables<'j, M>(&'j self, slots: &(dyn Fn() -> M + Sync), outputs: &Outputs) -> Result<(), Error>
    where
        M: Gather<A> + Send + 'j,
    {
        let done: Mutex<Vec<(u64, Mapper<'j, A, M>)>> = Mutex::default();
        let exec = self.context.exec;
        exec.run(exec.threads(), &|thread| {
            self.guarded("map", &|| "between chunks".into(), || self.map_tables(thread, slots, &done));
        });
        self.outcome()?;
        let mut mappers = std::mem::take(&mut *lock(&done));
        mappers.sort_by_key(|(start, _)| *start);
        let mappers: Vec<Mapper<'j, A, M>> = mappers.into_iter().map(|(_, m)| m).collect();
        let held: usize = mappers.iter().map(Mapper::bytes).sum();
        let external = !self.runs.is_empty()
            || mappers.iter().any(|m| m.table.is_reseeded())
            || held as u64 > self.options.memory * 8 / 10;
        if external {
            let waiting: Vec<Mutex<Option<Mapper<'j, A, M>>>> =
                mappers.into_iter().map(|m| Mutex::new(Some(m))).collect();
            in_order(exec, waiting.len(), &|i| {
                self.guarded("map", &|| "spilling".into(), || {
                    let Some(mut mapper) = lock(&waiting[i]).take() else { return Ok(()) };
                    mapper.spill();
                    mapper.error.map_or(Ok(()), Err)
                });
            });
            self.outcome()?;
            return self.reduce_runs(outputs);
        }
        self.context.observer.phase(Phase::Shuffle, 1);
        let scatter = scatter_tables(exec, &mappers, self.parts as usize);
        let slots: Vec<&M> = mappers.iter().map(|m| &m.slots).collect();
        let pieces = scatter.groups(PIECE_KEYS);
        outputs.expect(&pieces)?;
        self.context.observer.phase(Phase::Reduce, pieces.iter().sum::<usize>() as u64);
        let best = Best::default();
        // A part for every thread: they do not write to one file then.
        let batches = scatter.batches(exec.threads(), BATCH_KEYS);
        let mut room = scatter.room(&batches);
        for parts in batches {
            let mut scattered = scatter.place(exec, parts, room);
            let groups = scattered.groups(PIECE_KEYS);
            self.reduce_pieces(groups, outputs, &best, |group, out| reduce_group(self.app, group, &slots, out))?;
            room = scattered.into_room();
        }
        self.write_best(best, outputs)
    }

    /// The work of one thread: spans of units into tables.
    fn map_tables<'j, M: Gather<A> + Send + 'j>(
        &'j self,
        thread: usize,
        slots: &dyn Fn() -> M,
        done: &Mutex<Vec<(u64, Mapper<'j, A, M>)>>,
    ) -> Result<(), Error> {
        let mut loader = Loader::default();
        let mut current: Option<(u64, Mapper<'j, A, M>)> = None;
        let mut held = 0;
        while !self.stopped()
            && let Some(claim) = self.spans.claim(thread, current.is_none())
        {
            // Folding does not ask for order: one table will do for all spans.
            if claim.fresh
                && A::SHUFFLE != Shuffle::Fold
                && let Some((start, mut mapper)) = current.take()
            {
                if held + mapper.bytes() > self.share() / 2 {
                    mapper.spill();
                }
                held += mapper.bytes();
                lock(done).push((start, mapper));
            }
            let (_, mapper) = current.get_or_insert_with(|| {
                let spill =
                    TableSpill::<A> { runs: &self.runs, parts: self.parts, order: (claim.unit, 0), app: self.app };
                let budget = self.share().saturating_sub(held).max(self.share() / 4);
                (claim.unit, Mapper::new(self.app, slots(), (self.options.isa, self.parts), budget, Box::new(spill)))
            });
            mapper.done = self.spans.done();
            self.map_unit(claim.unit, &mut loader, |loaded| {
                mapper.map(&loaded.chunk, loaded.stable);
                match mapper.error.take() {
                    Some(e) => Err(e),
                    None => Ok(std::mem::take(&mut mapper.tally)),
                }
            })?;
        }
        lock(done).extend(current);
        Ok(())
    }
}
