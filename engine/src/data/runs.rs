//! Sorted runs on scratch: what a map spills when memory is used up, and the merge that reads them back.
//!
//! A run is one unnamed file with a segment for each partition; it is gone when the process is, however it ends. Runs
//! carry the place of their data in the input, so that a merge gives the values of a key in input order.

#![expect(clippy::disallowed_types, reason = "runs are kept here")]

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::merge::Merge;
use super::output::lock;
use super::segment;
use crate::error::Error;

/// Most runs that one merge reads. More are merged in several passes; each open run holds two blocks of 64 KiB.
const FAN_IN: usize = 128;

/// Where data is from: the unit that its span began with, and the number of the spill within the span.
pub(crate) type Order = (u64, u64);

struct Run {
    order: Order,
    file: Arc<File>,
    name: Arc<str>,
    /// Offset and length of each partition's segment.
    segments: Vec<(u64, u64)>,
}

/// The runs of a job.
pub(crate) struct Runs {
    dir: PathBuf,
    partitions: u32,
    all: Mutex<Vec<Run>>,
    written: AtomicU64,
    count: AtomicU64,
}

/// A run being written, partition after partition.
pub(crate) struct RunWriter<'r> {
    runs: &'r Runs,
    order: Order,
    name: Arc<str>,
    /// `None` only after an error.
    segment: Option<segment::Writer<File>>,
    partition: u32,
    at: u64,
    segments: Vec<(u64, u64)>,
}

pub(crate) type Merged = Merge<segment::Reader<Arc<File>>>;

impl Runs {
    pub(crate) fn new(dir: PathBuf, partitions: u32) -> Self {
        Self { dir, partitions, all: Mutex::default(), written: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.all).is_empty()
    }

    /// Runs written so far, and their bytes.
    pub(crate) fn spilled(&self) -> (u64, u64) {
        (self.count.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    pub(crate) fn create(&self, order: Order) -> Result<RunWriter<'_>, Error> {
        let file = tempfile::tempfile_in(&self.dir).map_err(Error::write("create a run in", &self.dir))?;
        let name = format!("run {}.{} in {}", order.0, order.1, self.dir.display()).into();
        let segment = Some(segment::Writer::local(file));
        Ok(RunWriter { runs: self, order, name, segment, partition: 0, at: 0, segments: Vec::new() })
    }

    /// Merges neighbouring runs until one merge can read those that are left, or the job is to stop.
    pub(crate) fn reduce_to_fan_in(&self, stopped: &dyn Fn() -> bool) -> Result<(), Error> {
        loop {
            let mut runs = std::mem::take(&mut *lock(&self.all));
            runs.sort_by_key(|r| r.order);
            let mut excess = runs.len().saturating_sub(FAN_IN);
            if excess == 0 {
                *lock(&self.all) = runs;
                return Ok(());
            }
            // As few as it takes, so that most data is not copied once more.
            while excess > 0 && runs.len() > 1 {
                let some: Vec<Run> = runs.drain(..FAN_IN.min(excess + 1).min(runs.len())).collect();
                self.merge_into_one(&some, stopped)?;
                excess -= some.len() - 1;
            }
            lock(&self.all).extend(runs);
        }
    }

    fn merge_into_one(&self, some: &[Run], stopped: &dyn Fn() -> bool) -> Result<(), Error> {
        let mut writer = self.create(some[0].order)?;
        for partition in 0..self.partitions {
            let mut merge = self.merge_of(some, partition)?;
            while merge.advance()? {
                if stopped() {
                    return Err(Error::Interrupted);
                }
                writer.push(partition, merge.key(), merge.value())?;
            }
        }
        writer.finish()
    }

    /// All records of a partition, in order. Call [`Runs::reduce_to_fan_in`] first.
    pub(crate) fn merge(&self, partition: u32) -> Result<Merged, Error> {
        let runs = lock(&self.all);
        self.merge_of(&runs, partition)
    }

    fn merge_of(&self, runs: &[Run], partition: u32) -> Result<Merged, Error> {
        let open = |run: &Run| {
            let (at, len) = run.segments[partition as usize];
            segment::Reader::open(run.file.clone(), at, len, run.name.clone())
        };
        let readers = runs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Merge::new(readers)?)
    }
}

impl RunWriter<'_> {
    /// Adds a record. Partitions come in rising order, keys in rising order within each.
    #[inline]
    pub(crate) fn push(&mut self, partition: u32, key: &[u8], value: &[u8]) -> Result<(), Error> {
        while self.partition < partition {
            self.next_segment()?;
        }
        match &mut self.segment {
            Some(segment) => segment.push(key, value).map_err(Error::write("write a run in", &self.runs.dir)),
            None => Ok(()),
        }
    }

    fn next_segment(&mut self) -> Result<(), Error> {
        if let Some(segment) = self.segment.take() {
            let (file, summary) = segment.finish().map_err(Error::write("write a run in", &self.runs.dir))?;
            self.segments.push((self.at, summary.bytes));
            self.at += summary.bytes;
            self.segment = Some(segment::Writer::local(file));
        }
        self.partition += 1;
        Ok(())
    }

    /// Ends the run and adds it to the job's.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let partitions = self.runs.partitions;
        while self.partition + 1 < partitions {
            self.next_segment()?;
        }
        let Some(segment) = self.segment else { return Ok(()) };
        let (file, summary) = segment.finish().map_err(Error::write("write a run in", &self.runs.dir))?;
        self.segments.push((self.at, summary.bytes));
        self.at += summary.bytes;
        self.runs.written.fetch_add(self.at, Ordering::Relaxed);
        self.runs.count.fetch_add(1, Ordering::Relaxed);
        let run = Run { order: self.order, file: Arc::new(file), name: self.name, segments: self.segments };
        lock(&self.runs.all).push(run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_are_merged_in_the_order_of_the_input() {
        let all = 3 * FAN_IN as u64 + 5;
        let runs = Runs::new(std::env::temp_dir(), 2);
        // Written in another order than that of the input, as threads do.
        for n in (0..all).rev() {
            let mut writer = runs.create((n, 0)).unwrap();
            writer.push(0, b"everywhere", &n.to_be_bytes()).unwrap();
            writer.push(1, n.to_string().as_bytes(), b"").unwrap();
            writer.finish().unwrap();
        }
        runs.reduce_to_fan_in(&|| false).unwrap();
        assert_eq!(lock(&runs.all).len(), FAN_IN);
        let mut merge = runs.merge(0).unwrap();
        for n in 0..all {
            assert!(merge.advance().unwrap());
            assert_eq!((merge.key(), merge.value()), (&b"everywhere"[..], &n.to_be_bytes()[..]));
        }
        assert!(!merge.advance().unwrap());
        let mut keys = 0;
        let mut merge = runs.merge(1).unwrap();
        while merge.advance().unwrap() {
            keys += 1;
        }
        assert_eq!(keys, all);
    }

    #[test]
    fn a_merge_ahead_of_the_reduce_stops_when_the_job_does() {
        let runs = Runs::new(std::env::temp_dir(), 1);
        for n in 0..=FAN_IN as u64 {
            let mut writer = runs.create((n, 0)).unwrap();
            (0..100u8).for_each(|key| writer.push(0, &[key], b"").unwrap());
            writer.finish().unwrap();
        }
        let asked = AtomicU64::new(0);
        let stopped = || asked.fetch_add(1, Ordering::Relaxed) == 50;
        assert!(matches!(runs.reduce_to_fan_in(&stopped), Err(Error::Interrupted)));
        assert_eq!(asked.into_inner(), 51);
    }
}
