//! What one thread sorts and reduces at a time in a sorting job: the entries of a range, from all logs.
//!
//! A range that is much larger than the sample foretold, or of which nothing was known, is divided by all threads
//! first, with a sample of its own.

use std::ops::RangeInclusive;

use super::buckets::Buckets;
use super::log::{Entry, Log};
use super::ranges::Ranges;
use super::scatter::{Scan, Scatter, Scattered};
use super::sort::Prefixed;
use crate::exec::Exec;

/// Entries of a range that are too many for one task, at least.
const HEAVY: usize = 1 << 17;
/// Entries of a task that a heavy range is divided into, about.
const SLICE: usize = 1 << 13;
/// Entries of a bucket that a heavy range is scattered into, about: a slice is a few of them.
const BUCKET: usize = 384;
/// Entries that a heavy range is sampled at, about.
const SAMPLE: usize = 1 << 16;

/// Neighbouring keys that one thread sorts and reduces.
pub(crate) struct Task<'l> {
    /// The entries, in input order.
    pub(crate) blocks: Vec<&'l [Entry]>,
    /// What all their keys have in common at the start, in bytes.
    pub(crate) skip: usize,
    /// The parts that the keys may belong to.
    pub(crate) parts: RangeInclusive<usize>,
}

/// The entries of all logs by range, heavy ranges divided.
pub(crate) struct Division<'l> {
    ranges: Vec<(Vec<&'l [Entry]>, Option<Divided>)>,
}

struct Divided {
    scattered: Scattered<Entry>,
    fitted: Buckets,
}

impl<'l> Division<'l> {
    /// Of logs in input order, all of which have the same ranges.
    pub(crate) fn new(exec: &dyn Exec, logs: impl Iterator<Item = &'l Log>) -> Self {
        let mut ranges: Vec<Vec<&[Entry]>> = Vec::new();
        for log in logs {
            let own = log.ranges();
            ranges.resize(own.len(), Vec::new());
            ranges.iter_mut().zip(own).for_each(|(all, blocks)| all.extend(blocks));
        }
        let divide = |blocks: Vec<&'l [Entry]>| {
            let n: usize = blocks.iter().map(|b| b.len()).sum();
            let divided = (n > HEAVY).then(|| Divided::new(exec, &blocks, n));
            (blocks, divided)
        };
        Self { ranges: ranges.into_iter().map(divide).collect() }
    }

    /// The tasks, in the order of their keys. `splitters` are the first keys of all parts but the first.
    pub(crate) fn tasks(&self, ranges: &Ranges, splitters: &[Vec<u8>]) -> Vec<Task<'_>> {
        let placed: Vec<(u64, usize)> = splitters.iter().map(|s| ranges.of(s)).collect();
        let mut tasks = Vec::new();
        for (range, (blocks, divided)) in self.ranges.iter().enumerate() {
            let before = placed.partition_point(|p| p.1 < range);
            let within = &placed[before..][..placed[before..].partition_point(|p| p.1 == range)];
            let skip = ranges.skip(range);
            match divided {
                None if blocks.is_empty() => {}
                None => tasks.push(Task { blocks: blocks.clone(), skip, parts: before..=before + within.len() }),
                Some(Divided { scattered, fitted }) => {
                    let up_to = |bucket| before + within.partition_point(|p| fitted.of(p.0) < bucket);
                    let slices = scattered.slices(SLICE);
                    tasks.extend(slices.into_iter().map(|(buckets, entries)| Task {
                        blocks: vec![entries],
                        skip,
                        parts: up_to(buckets.start)..=up_to(buckets.end),
                    }));
                }
            }
        }
        tasks
    }
}

impl Divided {
    fn new(exec: &dyn Exec, blocks: &[&[Entry]], n: usize) -> Self {
        let step = (n / SAMPLE).max(1);
        let sample: Vec<u64> = blocks.iter().copied().flatten().step_by(step).map(Prefixed::prefix).collect();
        let fitted = Buckets::fit(&sample, n, BUCKET);
        // A histogram for each thread, not for each block.
        let share = blocks.len().div_ceil(exec.threads()).max(1);
        let scans: Vec<Blocks<'_>> = blocks.chunks(share).map(Blocks).collect();
        let scatter = Scatter::new(exec, scans, 1, fitted.count(), |e: &Entry| fitted.of(e.prefix()));
        Self { scattered: scatter.place_all(exec), fitted }
    }
}

/// Neighbouring blocks of logs, to scatter.
struct Blocks<'b>(&'b [&'b [Entry]]);

impl Scan for Blocks<'_> {
    type Item = Entry;
    fn part(&self) -> usize {
        0
    }
    fn scan(&self, mut visit: impl FnMut(Entry)) {
        self.0.iter().copied().flatten().for_each(|e| visit(*e));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Chunk, Emit, Format};
    use crate::data::emit::Tally;
    use crate::data::log::{LogEmitter, Shapes};
    use crate::data::sort::Sorter;
    use crate::exec::Threads;
    use crate::value::Stable;

    /// Sorts records of eight bytes by tasks, in ranges fitted to some of them.
    fn check(input: &[u8], ranges: &Ranges, splitters: &[Vec<u8>], tasks_at_least: usize) {
        let chunk = Chunk::new(input, Format::Fixed(8), 0, "");
        let (mut log, mut tally, shapes) = (Log::new(ranges), Tally::default(), Shapes::default());
        let mut emitter = LogEmitter::new(&mut log, &mut tally, ranges, &shapes, &chunk, Stable::of(input));
        chunk.records().for_each(|record| Emit::<()>::emit(&mut emitter, record, ()));
        let known = shapes.known();
        let exec = Threads::new(2).unwrap();
        let division = Division::new(&exec, std::iter::once(&log));
        let tasks = division.tasks(ranges, splitters);
        assert!(tasks.len() >= tasks_at_least, "{} tasks", tasks.len());
        let (mut got, mut sorter, mut part) = (Vec::new(), Sorter::default(), 0);
        for task in tasks {
            assert!(*task.parts.start() >= part, "parts of tasks do not go back");
            part = *task.parts.end();
            // SAFETY: log and input are alive.
            for entry in unsafe { known.sort(&mut sorter, &task.blocks, task.skip) } {
                // SAFETY: as above.
                let key = unsafe { known.key(entry) };
                assert!(task.parts.contains(&splitters.partition_point(|s| s.as_slice() <= key)));
                got.push(key);
            }
        }
        let mut want: Vec<&[u8]> = input.chunks(8).collect();
        want.sort();
        assert!(got == want);
    }

    fn numbers(n: u64, of: impl Fn(u64) -> u64) -> Vec<u8> {
        (0..n).flat_map(|i| of(i).to_be_bytes()).collect()
    }

    fn scrambled(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn keys_of(input: &[u8], every: usize) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = input.chunks(8).step_by(every).map(<[u8]>::to_vec).collect();
        keys.sort();
        keys
    }

    #[test]
    fn ranges_that_were_fitted_are_tasks() {
        let input = numbers(100_000, scrambled);
        let sample = keys_of(&input, 100);
        let splitters = [200, 500, 900].map(|i| sample[i].clone());
        check(&input, &Ranges::fit(&sample, 100_000, 1000), &splitters, 50);
    }

    #[test]
    fn a_heavy_range_is_divided() {
        let input = numbers(2 * HEAVY as u64, scrambled);
        let splitters = keys_of(&input, HEAVY / 2);
        check(&input, &Ranges::one(), &splitters[1..], 16);
    }

    #[test]
    fn a_sample_unlike_the_rest() {
        let input = numbers(HEAVY as u64 + 5000, |i| scrambled(i) >> 20);
        let sample = keys_of(&numbers(1000, |i| i), 1);
        check(&input, &Ranges::fit(&sample, 1 << 20, 1000), &[vec![], vec![0], vec![0, 0, 1]], 2);
    }

    #[test]
    fn one_key_and_all_parts_at_it() {
        let input = numbers(HEAVY as u64 + 1, |_| 7);
        let key = input[..8].to_vec();
        check(&input, &Ranges::one(), &[key.clone(), key.clone(), key], 1);
    }
}
