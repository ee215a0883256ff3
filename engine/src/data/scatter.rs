//! Moves items into buckets on all threads, stably: a histogram per scan, then every item straight to its place.

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

/// Items by part, and within by bucket; within a bucket in the order of the scans.
pub(crate) struct Scattered<T> {
    items: Pages<T>,
    /// Where each bucket of each part begins, and the end.
    starts: Vec<usize>,
    buckets: usize,
}

/// A run of whole buckets of one part.
pub(crate) struct Group<'s, T> {
    pub(crate) part: usize,
    /// First bucket.
    pub(crate) first: usize,
    pub(crate) items: &'s mut [T],
    /// Where each of its buckets ends among all items; the first begins at `base`.
    ends: &'s [usize],
    base: usize,
}

/// Scatters the items of all scans. `bucket` gives a number below `buckets`.
pub(crate) fn scatter<S: Scan>(
    exec: &dyn Exec,
    scans: &[S],
    parts: usize,
    buckets: usize,
    bucket: impl Fn(&S::Item) -> usize + Sync,
) -> Scattered<S::Item> {
    let counts: Vec<Mutex<Vec<usize>>> = scans.iter().map(|_| Mutex::default()).collect();
    in_order(exec, scans.len(), &|i| {
        let mut count = vec![0usize; buckets];
        scans[i].scan(|item| count[bucket(&item)] += 1);
        *lock(&counts[i]) = count;
    });
    let mut counts: Vec<Vec<usize>> = counts.into_iter().map(|c| std::mem::take(&mut *lock(&c))).collect();
    let starts = places(scans, &mut counts, parts, buckets);
    let items = Pages::<S::Item>::zeroed(starts.last().copied().unwrap_or(0));
    let counts: Vec<Mutex<Vec<usize>>> = counts.into_iter().map(Mutex::new).collect();
    let target = &items;
    in_order(exec, scans.len(), &|i| {
        let mut place = lock(&counts[i]);
        scans[i].scan(|item| {
            let at = &mut place[bucket(&item)];
            assert!(*at < target.len(), "a scan gives the same items twice");
            // SAFETY: within the items, and every scan has places of its own.
            unsafe { target.as_ptr().add(*at).write(item) };
            *at += 1;
        });
    });
    Scattered { items, starts, buckets }
}

/// Turns the counts of each scan into the places where its items go.
fn places<S: Scan>(scans: &[S], counts: &mut [Vec<usize>], parts: usize, buckets: usize) -> Vec<usize> {
    let mut of_part = vec![Vec::new(); parts];
    for (i, scan) in scans.iter().enumerate() {
        of_part[scan.part()].push(i);
    }
    let mut starts = Vec::with_capacity(parts * buckets + 1);
    let mut at = 0;
    for scans in &of_part {
        for bucket in 0..buckets {
            starts.push(at);
            for i in scans {
                at += std::mem::replace(&mut counts[*i][bucket], at);
            }
        }
    }
    starts.push(at);
    starts
}

impl<T: Copy> Scattered<T> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Divides each part's buckets into groups of about `each` items, at least one a part.
    pub(crate) fn groups(&mut self, each: usize) -> Vec<Group<'_, T>> {
        let parts = (self.starts.len() - 1) / self.buckets;
        let ranges: Vec<(usize, Range<usize>)> =
            (0..parts).flat_map(|p| self.cut(p, each).into_iter().map(move |r| (p, r))).collect();
        // SAFETY: `scatter` wrote every item.
        let mut rest = unsafe { self.items.assume_init_mut() };
        let mut base = 0;
        let mut groups = Vec::with_capacity(ranges.len());
        for (part, range) in ranges {
            let ends = &self.starts[range.start + 1..=range.end];
            let end = ends.last().copied().unwrap_or(base);
            let (items, others) = rest.split_at_mut(end - base);
            rest = others;
            groups.push(Group { part, first: range.start - part * self.buckets, items, ends, base });
            base = end;
        }
        groups
    }

    fn cut(&self, part: usize, each: usize) -> Vec<Range<usize>> {
        let (first, end) = (part * self.buckets, (part + 1) * self.buckets);
        let mut ranges = Vec::new();
        let mut from = first;
        while from < end {
            let want = self.starts[from] + each;
            let to = from + self.starts[from + 1..=end].partition_point(|s| *s < want) + 1;
            let to = to.min(end);
            ranges.push(from..to);
            from = to;
        }
        ranges
    }
}

impl<T> Group<'_, T> {
    /// Buckets in this group.
    pub(crate) fn buckets(&self) -> usize {
        self.ends.len()
    }

    /// Calls `f` with the items of each bucket.
    pub(crate) fn each_bucket(&mut self, mut f: impl FnMut(&mut [T])) {
        let mut from = self.base;
        for end in self.ends {
            let items = &mut self.items[from - self.base..end - self.base];
            f(items);
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
        let scans = vec![
            Numbers(1, (0..100).map(|i| (i % 7) << 8).collect()),
            Numbers(0, (0..30).map(|i| (i % 3) << 8 | 1).collect()),
            Numbers(1, (0..50).map(|i| (i % 5) << 8 | 2).collect()),
        ];
        let mut scattered = scatter(&exec, &scans, 3, 7, |n| (n >> 8) as usize);
        assert_eq!(scattered.len(), 180);
        let mut got = vec![Vec::new(); 3];
        for mut group in scattered.groups(20) {
            let part = group.part;
            assert!(group.buckets() > 0);
            group.each_bucket(|bucket| {
                assert!(bucket.iter().all(|n| n >> 8 == bucket[0] >> 8));
                got[part].extend_from_slice(bucket);
            });
        }
        for part in 0..3 {
            let mut want: Vec<u32> = scans.iter().filter(|s| s.0 == part).flat_map(|s| s.1.clone()).collect();
            want.sort_by_key(|n| n >> 8);
            assert_eq!(got[part], want, "part {part}");
        }
    }
}
