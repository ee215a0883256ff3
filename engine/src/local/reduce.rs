//! Reducing: groups of keys in memory into pieces of parts, or merged runs into whole parts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Run;
use super::outputs::Outputs;
use crate::app::App;
use crate::data::commit::part_name;
use crate::data::external::reduce_merge;
use crate::data::output::{Output, Ranked, Top, lock};
use crate::data::pieces::Pieces;
use crate::data::scatter::Group;
use crate::error::Error;
use crate::exec::in_order;
use crate::job::Phase;

/// The best records of each piece, for apps that keep the best only.
pub(super) type Best = Mutex<BTreeMap<(usize, usize), Vec<Ranked>>>;

impl<A: App> Run<'_, A> {
    /// Reduces groups of keys on all threads, each into a piece of its part.
    pub(super) fn reduce_pieces<'g, T: Copy + Send>(
        &self,
        groups: Vec<Group<'g, T>>,
        outputs: &Outputs,
        best: &Best,
        reduce: impl Fn(&mut Group<'_, T>, &mut Output<'_>) + Sync,
    ) -> Result<(), Error> {
        let mut pieces = vec![0; self.parts as usize];
        let number = |group: Group<'g, T>| {
            pieces[group.part] += 1;
            (pieces[group.part] - 1, Mutex::new(group))
        };
        let groups: Vec<(usize, Mutex<Group<'g, T>>)> = groups.into_iter().map(number).collect();
        self.each_task(&pieces, outputs, |task, ()| {
            let (piece, group) = &groups[task];
            let mut group = lock(group);
            self.piece((group.part, *piece), outputs, best, |out| reduce(&mut group, out))
        })
    }

    /// Does numbered tasks on all threads; `counts` says how many belong to each part. Every thread keeps an `L`.
    pub(super) fn each_task<L: Default>(
        &self,
        counts: &[usize],
        outputs: &Outputs,
        task: impl Fn(usize, &mut L) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let tasks = counts.iter().sum();
        // One stream takes one part after the other.
        let pieces = if outputs.is_stream() { Pieces::new(&[tasks]) } else { Pieces::new(counts) };
        let exec = self.context.exec;
        exec.run(exec.threads().min(tasks), &|_| {
            let (mut own, mut local) = (None, L::default());
            while !self.stopped()
                && let Some((part, i)) = pieces.claim(own)
            {
                own = Some(part);
                self.guarded("reduce", &|| part_name(part, None), || {
                    task(i, &mut local)?;
                    self.context.observer.advance(1);
                    Ok(())
                });
            }
        });
        self.outcome()
    }

    /// Reduces into a piece of a part. What is not the next piece of its part waits in memory, which is bounded by what
    /// was mapped: all of it is in memory.
    pub(super) fn piece(
        &self,
        at: (usize, usize),
        outputs: &Outputs,
        best: &Best,
        reduce: impl FnOnce(&mut Output<'_>),
    ) -> Result<(), Error> {
        let mut failed = None;
        let mut flush = |buf: &mut Vec<u8>| {
            let full = std::mem::replace(buf, self.spare.get());
            if let Err(e) = outputs.submit(at, full, None, &self.spare) {
                failed.get_or_insert(e);
            }
        };
        let mut out = self.output().flushing(&mut flush);
        reduce(&mut out);
        if self.app.top().is_some() {
            lock(best).insert(at, out.into_ranked());
            return Ok(());
        }
        let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
        drop(out);
        failed.map_or(Ok(()), Err)?;
        outputs.submit(at, bytes, Some(records), &self.spare)
    }

    /// Writes the best records of all pieces, if the app asked for the best only.
    pub(super) fn write_best(&self, best: Best, outputs: &Outputs) -> Result<(), Error> {
        let best = best.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.write_top(best.into_values().flatten(), outputs)
    }

    /// Writes the best of the ranked records, if the app asked for the best only.
    fn write_top(&self, ranked: impl Iterator<Item = Ranked>, outputs: &Outputs) -> Result<(), Error> {
        let Some(most) = self.app.top() else { return Ok(()) };
        let mut top = Top::new(most);
        ranked.for_each(|r| top.add(r));
        let best = top.into_best();
        outputs.expect(&[1]);
        let bytes = best.iter().flat_map(|r| r.record.iter().copied()).collect();
        outputs.submit((0, 0), bytes, Some(best.len() as u64), &self.spare)
    }

    /// Reduces what was spilled, a partition a thread.
    pub(super) fn reduce_runs(&self, outputs: &Outputs) -> Result<(), Error> {
        self.context.observer.phase(Phase::Shuffle, 1);
        self.runs.reduce_to_fan_in(&|| self.stopped())?;
        self.context.observer.phase(Phase::Reduce, u64::from(self.parts));
        outputs.expect(&vec![1; self.parts as usize]);
        let reduce = |part: usize| {
            if self.stopped() {
                return;
            }
            self.guarded("reduce", &|| part_name(part, None), || self.reduce_part(part, outputs));
        };
        if outputs.is_stream() {
            // One stream takes one part after the other.
            (0..self.parts as usize).for_each(reduce);
        } else {
            in_order(self.context.exec, self.parts as usize, &reduce);
        }
        self.outcome()
    }

    fn reduce_part(&self, part: usize, outputs: &Outputs) -> Result<(), Error> {
        let merge = self.runs.merge(part as u32)?;
        let failed = std::cell::RefCell::new(None);
        let mut flush = |buf: &mut Vec<u8>| {
            if let Err(e) = outputs.append(part, buf) {
                failed.borrow_mut().get_or_insert(e);
            }
            buf.clear();
        };
        let mut out = self.output().flushing(&mut flush);
        reduce_merge(self.app, merge, &mut out, |_| match failed.borrow_mut().take() {
            Some(e) => Err(e),
            None if self.stopped() => Err(Error::Interrupted),
            None => Ok(()),
        })?;
        let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
        if self.app.top().is_some() {
            return self.write_top(out.into_ranked().into_iter(), outputs);
        }
        drop(out);
        if let Some(e) = failed.into_inner() {
            return Err(e);
        }
        outputs.append(part, &bytes)?;
        outputs.count(part, records);
        self.context.observer.advance(1);
        Ok(())
    }
}
