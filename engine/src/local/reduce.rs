//! Reducing: groups of keys in memory into pieces of parts, or merged runs into whole parts.

use std::collections::BTreeMap;
use std::sync::Mutex;

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

impl<A: App> Run<'_, A> {
    /// Reduces groups of keys on all threads, each into a piece of its part.
    pub(super) fn reduce_pieces<T: Copy + Send>(
        &self,
        groups: Vec<Group<'_, T>>,
        outputs: &Outputs,
        reduce: impl Fn(&mut Group<'_, T>, &mut Output<'_>) + Sync,
    ) -> Result<(), Error> {
        self.context.observer.phase(Phase::Reduce, groups.len() as u64);
        let mut counts = vec![0; self.parts as usize];
        groups.iter().for_each(|g| counts[g.part] += 1);
        let firsts = outputs.expect(&counts);
        // One stream takes one part after the other.
        let pieces = if outputs.is_stream() { Pieces::new(&[groups.len()]) } else { Pieces::new(&counts) };
        let ranked: Mutex<BTreeMap<usize, Vec<Ranked>>> = Mutex::default();
        let groups: Vec<Mutex<_>> = groups.into_iter().map(Mutex::new).collect();
        let exec = self.context.exec;
        exec.run(exec.threads().min(groups.len()), &|_| {
            let mut own = None;
            while !self.stopped()
                && let Some((queue, i)) = pieces.claim(own)
            {
                own = Some(queue);
                let mut group = lock(&groups[i]);
                let part = group.part;
                self.guarded("reduce", &|| part_name(part, None), || {
                    let mut out = self.output();
                    reduce(&mut group, &mut out);
                    let (bytes, records) = (std::mem::take(&mut out.buf), out.records);
                    if self.app.top().is_some() {
                        lock(&ranked).insert(i, out.into_ranked());
                    } else {
                        outputs.submit(part, i - firsts[part], bytes, records, &self.spare)?;
                    }
                    self.context.observer.advance(1);
                    Ok(())
                });
            }
        });
        self.outcome()?;
        let ranked = std::mem::take(&mut *lock(&ranked));
        self.write_top(ranked.into_values().flatten(), outputs)
    }

    /// Writes the best of the ranked records, if the app asked for the best only.
    fn write_top(&self, ranked: impl Iterator<Item = Ranked>, outputs: &Outputs) -> Result<(), Error> {
        let Some(most) = self.app.top() else { return Ok(()) };
        let mut top = Top::new(most);
        ranked.for_each(|r| top.add(r));
        let best = top.into_best();
        outputs.expect(&[1]);
        let bytes = best.iter().flat_map(|r| r.record.iter().copied()).collect();
        outputs.submit(0, 0, bytes, best.len() as u64, &self.spare)
    }

    /// Reduces what was spilled, a partition a thread.
    pub(super) fn reduce_runs(&self, outputs: &Outputs) -> Result<(), Error> {
        self.context.observer.phase(Phase::Shuffle, 1);
        self.runs.reduce_to_fan_in()?;
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
