//! Moves items into buckets on all threads, stably: a histogram per scan, then every item straight to its place. That
//! may be done for some parts at a time, in the same room: memory that was never touched is dear.

use std::ops::Range;
use std::sync::Mutex;

use super::output::lock;
use super::pages::Pages;
use crate::exec::{Exec, in_order};

/// Something that can be walked through twice and gives the same items both times.
pub(crate) trait Scan: Sync {
    type Item: Copy + Send + Sync;

    /// The part that all its items belong to.
    fn part(&self) -> usize;

    fn scan(&self, visit: impl FnMut(Self::Item));
}

/// Where the items of all scans go: by part, within by bucket, and within a bucket in the order of the scans.
pub(crate) struct Scatter<S, B> {
    scans: Vec<S>,
    bucket: B,
    buckets: usize,
    /// The place of each scan's next item of each bucket.
    places: Vec<Mutex<Vec<u32>>>,
    /// Where each bucket of each part begins, and the end.
    starts: Vec<usize>,
}

/// The items of neighbouring parts in their places.
pub(crate) struct Scattered<T> {
    /// The items, and perhaps room behind them.
    items: Pages<T>,
    first_part: usize,
    /// Where each bucket of each part begins, and the end.
    starts: Vec<usize>,
    buckets: usize,
}

/// A run of neighbouring items of one part.
pub(crate) struct Group<'s, T> {
    pub(crate) part: usize,
    pub(crate) items: &'s mut [T],
    /// Where its buckets end among `items`.
    ends: Vec<usize>,
}

impl<S: Scan, B: Fn(&S::Item) -> usize + Sync> Scatter<S, B> {
    /// Counts the items of all scans, fewer than 2^32. `bucket` gives a number below `buckets`.
    pub(crate) fn new(exec: &dyn Exec, scans: Vec<S>, parts: usize, buckets: usize, bucket: B) -> Self {
        let counts: Vec<Mutex<Vec<u32>>> = scans.iter().map(|_| Mutex::default()).collect();
        in_order(exec, scans.len(), &|i| {
            let mut count = vec![0u32; buckets];
            scans[i].scan(|item| count[bucket(&item)] += 1);
            *lock(&counts[i]) = count;
        });
        let mut counts: Vec<Vec<u32>> = counts.into_iter().map(|c| std::mem::take(&mut *lock(&c))).collect();
        let starts = places(&scans, &mut counts, parts, buckets);
        Self { scans, bucket, buckets, places: counts.into_iter().map(Mutex::new).collect(), starts }
    }

    fn start(&self, part: usize) -> usize {
        self.starts[part * self.buckets]
    }

    fn parts(&self) -> usize {
        (self.starts.len() - 1) / self.buckets
    }

    /// How many groups of about `each` items every part will have.
    pub(crate) fn groups(&self, each: usize) -> Vec<usize> {
        (0..self.parts()).map(|part| cut(of_part(&self.starts, part, self.buckets), each).count()).collect()
    }

    /// Divides the parts: at least `least` in each batch, and `items` items where they have as many.
    pub(crate) fn batches(&self, least: usize, items: usize) -> Vec<Range<usize>> {
        let (mut batches, mut first) = (Vec::new(), 0);
        while first < self.parts() {
            let enough = (first + least.max(1)..self.parts()).find(|end| self.start(*end) - self.start(first) >= items);
            let end = enough.unwrap_or(self.parts());
            batches.push(first..end);
            first = end;
        }
        batches
    }

    /// Room for the largest of some batches.
    pub(crate) fn room(&self, batches: &[Range<usize>]) -> Pages<S::Item> {
        let items = batches.iter().map(|parts| self.start(parts.end) - self.start(parts.start));
        Pages::zeroed(items.max().unwrap_or(0))
    }

    /// Moves the items of a batch to their places in `room`.
    pub(crate) fn place(&self, exec: &dyn Exec, parts: Range<usize>, room: Pages<S::Item>) -> Scattered<S::Item> {
        let from = self.start(parts.start);
        let starts: Vec<usize> =
            self.starts[parts.start * self.buckets..=parts.end * self.buckets].iter().map(|s| s - from).collect();
        let n = self.start(parts.end) - from;
        assert!(n <= room.len(), "room for the largest batch");
        let scans: Vec<usize> = (0..self.scans.len()).filter(|i| parts.contains(&self.scans[*i].part())).collect();
        in_order(exec, scans.len(), &|i| {
            let mut place = lock(&self.places[scans[i]]);
            self.scans[scans[i]].scan(|item| {
                let next = &mut place[(self.bucket)(&item)];
                let at = (*next as usize).wrapping_sub(from);
                assert!(at < n, "a scan gives the same items twice");
                // SAFETY: within the room, and every scan has places of its own.
                unsafe { room.as_ptr().add(at).write(item) };
                *next += 1;
            });
        });
        Scattered { items: room, first_part: parts.start, starts, buckets: self.buckets }
    }

    /// Moves all items to their places.
    pub(crate) fn place_all(&self, exec: &dyn Exec) -> Scattered<S::Item> {
        let all = 0..self.parts();
        self.place(exec, all.clone(), self.room(&[all]))
    }
}

/// Turns the counts of each scan into the places where its items go.
fn places<S: Scan>(scans: &[S], counts: &mut [Vec<u32>], parts: usize, buckets: usize) -> Vec<usize> {
    let mut scans_of = vec![Vec::new(); parts];
    for (i, scan) in scans.iter().enumerate() {
        scans_of[scan.part()].push(i);
    }
    let mut starts = Vec::with_capacity(parts * buckets + 1);
    let mut at = 0u32;
    for scans in &scans_of {
        #[expect(clippy::needless_range_loop, reason = "several counts are walked side by side")]
        for bucket in 0..buckets {
            starts.push(at as usize);
            for i in scans {
                at += std::mem::replace(&mut counts[*i][bucket], at);
            }
        }
    }
    starts.push(at as usize);
    starts
}

/// Where the buckets of a part begin, and the end.
fn of_part(starts: &[usize], part: usize, buckets: usize) -> &[usize] {
    &starts[part * buckets..=(part + 1) * buckets]
}

/// Cuts buckets, which begin at `starts`, into runs of about `each` items; runs without items are left out.
fn cut(starts: &[usize], each: usize) -> impl Iterator<Item = Range<usize>> {
    let (mut first, last) = (0, starts.len() - 1);
    let runs = std::iter::from_fn(move || {
        let from = starts[first];
        let run = (first < last).then(|| first..starts.partition_point(|s| *s < from + each).clamp(first + 1, last));
        first = run.as_ref().map_or(last, |run| run.end);
        run
    });
    runs.filter(|run| starts[run.start] < starts[run.end])
}

impl<T: Copy> Scattered<T> {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(crate) fn items(&self) -> &[T] {
        // SAFETY: `place` wrote every item.
        unsafe { self.items[..self.len()].assume_init_ref() }
    }

    /// The items in slices of about `each` that end with a bucket, with the buckets of each. For items of one part.
    pub(crate) fn slices(&self, each: usize) -> Vec<(Range<usize>, &[T])> {
        let items = self.items();
        cut(&self.starts, each).map(|run| (run.clone(), &items[self.starts[run.start]..self.starts[run.end]])).collect()
    }

    /// Divides each part into groups of about `each` items that end with a bucket.
    pub(crate) fn groups(&mut self, each: usize) -> Vec<Group<'_, T>> {
        let n = self.len();
        // SAFETY: as above.
        let mut rest = unsafe { self.items[..n].assume_init_mut() };
        let mut groups = Vec::new();
        for part in 0..(self.starts.len() - 1) / self.buckets {
            let starts = of_part(&self.starts, part, self.buckets);
            for run in cut(starts, each) {
                let from = starts[run.start];
                let (items, others) = rest.split_at_mut(starts[run.end] - from);
                rest = others;
                let ends = starts[run.start + 1..=run.end].iter().map(|s| s - from).collect();
                groups.push(Group { part: self.first_part + part, items, ends });
            }
        }
        groups
    }

    /// The room, for the next batch.
    pub(crate) fn into_room(self) -> Pages<T> {
        self.items
    }
}

impl<T> Group<'_, T> {
    /// Calls `f` with the items of each bucket that has any.
    pub(crate) fn each_bucket(&mut self, mut f: impl FnMut(&mut [T])) {
        let mut from = 0;
        for end in &self.ends {
            if from < *end {
                f(&mut self.items[from..*end]);
            }
            from = *end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Threads;

    struct Numbers(usize, Vec<u32>);
    impl Scan for Numbers {
        type Item = u32;
        fn part(&self) -> usize {
            self.0
        }
        fn scan(&self, visit: impl FnMut(u32)) {
            self.1.iter().copied().for_each(visit);
        }
    }

    #[test]
    fn items_are_in_their_buckets_in_scan_order() {
        let exec = Threads::new(2).unwrap();
        // The low byte tells the order within a bucket of 7.
        let scans = || {
            vec![
                Numbers(1, (0..100).map(|i| (i % 7) << 8).collect()),
                Numbers(0, (0..30).map(|i| (i % 3) << 8 | 1).collect()),
                Numbers(1, (0..50).map(|i| (i % 5) << 8 | 2).collect()),
            ]
        };
        let mut want = vec![Vec::new(); 3];
        scans().iter().for_each(|s| want[s.0].extend(&s.1));
        want.iter_mut().for_each(|part| part.sort_by_key(|n: &u32| n >> 8));
        let scatter = || Scatter::new(&exec, scans(), 3, 7, |n: &u32| (n >> 8) as usize);
        let all = scatter().place_all(&exec);
        assert_eq!(all.items(), want.concat());
        assert_eq!([0, 7, 14, 21].map(|b| all.starts[b]), [0, 30, 180, 180]);
        for (least, items) in [(1, 1), (1, 100), (2, 1), (3, 1), (1, 1000)] {
            let scatter = scatter();
            let batches = scatter.batches(least, items);
            assert!(batches.iter().all(|b| b.len() >= least || b.end == 3), "{batches:?}");
            let mut room = scatter.room(&batches);
            let (mut got, mut groups) = (vec![Vec::new(); 3], vec![0; 3]);
            for parts in batches {
                let mut scattered = scatter.place(&exec, parts, room);
                for mut group in scattered.groups(20) {
                    let part = group.part;
                    groups[part] += 1;
                    group.each_bucket(|bucket| {
                        assert!(bucket.iter().all(|n| n >> 8 == bucket[0] >> 8));
                        got[part].extend_from_slice(bucket);
                    });
                }
                room = scattered.into_room();
            }
            assert_eq!(got, want);
            assert_eq!(groups, scatter.groups(20));
        }
    }

    #[test]
    fn batches_have_enough_parts_and_items() {
        let exec = Threads::new(1).unwrap();
        let scans = (0..4).map(|part| Numbers(part, vec![0; 10])).collect();
        let scatter = Scatter::new(&exec, scans, 4, 1, |_: &u32| 0);
        assert_eq!(scatter.batches(1, 20), [0..2, 2..4]);
        assert_eq!(scatter.batches(3, 1), [0..3, 3..4]);
        assert_eq!(scatter.batches(9, 1).first(), Some(&(0..4)));
    }
}
