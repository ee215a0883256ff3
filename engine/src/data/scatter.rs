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

/// A run of neighbouring items of one part.
pub(crate) struct Group<'s, T> {
    pub(crate) part: usize,
    pub(crate) items: &'s mut [T],
    /// Where its buckets end among `items`.
    ends: Vec<usize>,
}

/// Scatters the items of all scans, fewer than 2^32. `bucket` gives a number below `buckets`.
pub(crate) fn scatter<S: Scan>(
    exec: &dyn Exec,
    scans: &[S],
    parts: usize,
    buckets: usize,
    bucket: impl Fn(&S::Item) -> usize + Sync,
) -> Scattered<S::Item> {
    let counts: Vec<Mutex<Vec<u32>>> = scans.iter().map(|_| Mutex::default()).collect();
    in_order(exec, scans.len(), &|i| {
        let mut count = vec![0u32; buckets];
        scans[i].scan(|item| count[bucket(&item)] += 1);
        *lock(&counts[i]) = count;
    });
    let mut counts: Vec<Vec<u32>> = counts.into_iter().map(|c| std::mem::take(&mut *lock(&c))).collect();
    let starts = places(scans, &mut counts, parts, buckets);
    let items = Pages::<S::Item>::zeroed(starts.last().copied().unwrap_or(0));
    let counts: Vec<Mutex<Vec<u32>>> = counts.into_iter().map(Mutex::new).collect();
    let target = &items;
    in_order(exec, scans.len(), &|i| {
        let mut place = lock(&counts[i]);
        scans[i].scan(|item| {
            let at = &mut place[bucket(&item)];
            assert!((*at as usize) < target.len(), "a scan gives the same items twice");
            // SAFETY: within the items, and every scan has places of its own.
            unsafe { target.as_ptr().add(*at as usize).write(item) };
            *at += 1;
        });
    });
    Scattered { items, starts, buckets }
}

/// Turns the counts of each scan into the places where its items go.
fn places<S: Scan>(scans: &[S], counts: &mut [Vec<u32>], parts: usize, buckets: usize) -> Vec<usize> {
    let mut of_part = vec![Vec::new(); parts];
    for (i, scan) in scans.iter().enumerate() {
        of_part[scan.part()].push(i);
    }
    let mut starts = Vec::with_capacity(parts * buckets + 1);
    let mut at = 0u32;
    for scans in &of_part {
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

impl<T: Copy> Scattered<T> {
    pub(crate) fn items(&self) -> &[T] {
        // SAFETY: `scatter` wrote every item.
        unsafe { self.items.assume_init_ref() }
    }

    /// The items in slices of about `each` that end with a bucket, with the buckets of each. For items of one part.
    pub(crate) fn slices(&self, each: usize) -> Vec<(Range<usize>, &[T])> {
        let mut slices = Vec::new();
        let (items, mut first) = (self.items(), 0);
        while first < self.buckets {
            let from = self.starts[first];
            let end = self.starts.partition_point(|s| *s < from + each).clamp(first + 1, self.buckets);
            slices.push((first..end, &items[from..self.starts[end]]));
            first = end;
        }
        slices
    }

    /// Divides each part into groups of about `each` items that end with a bucket.
    pub(crate) fn groups(&mut self, each: usize) -> Vec<Group<'_, T>> {
        // SAFETY: as above.
        let mut rest = unsafe { self.items.assume_init_mut() };
        let mut groups = Vec::new();
        for part in 0..self.starts.len() / self.buckets {
            let starts = &self.starts[part * self.buckets..=(part + 1) * self.buckets];
            let mut first = 0;
            while first < self.buckets {
                let from = starts[first];
                let end = starts.partition_point(|s| *s < from + each).clamp(first + 1, self.buckets);
                let (items, others) = rest.split_at_mut(starts[end] - from);
                rest = others;
                if !items.is_empty() {
                    let ends = starts[first + 1..=end].iter().map(|s| s - from).collect();
                    groups.push(Group { part, items, ends });
                }
                first = end;
            }
        }
        groups
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
        let scans = vec![
            Numbers(1, (0..100).map(|i| (i % 7) << 8).collect()),
            Numbers(0, (0..30).map(|i| (i % 3) << 8 | 1).collect()),
            Numbers(1, (0..50).map(|i| (i % 5) << 8 | 2).collect()),
        ];
        let mut scattered = scatter(&exec, &scans, 3, 7, |n| (n >> 8) as usize);
        assert_eq!(scattered.items().len(), 180);
        assert_eq!([0, 7, 14, 21].map(|b| scattered.starts[b]), [0, 30, 180, 180]);
        let mut got = vec![Vec::new(); 3];
        for mut group in scattered.groups(20) {
            let part = group.part;
            group.each_bucket(|bucket| {
                assert!(bucket.iter().all(|n| n >> 8 == bucket[0] >> 8));
                got[part].extend_from_slice(bucket);
            });
        }
        for (part, got) in got.into_iter().enumerate() {
            let mut want: Vec<u32> = scans.iter().filter(|s| s.0 == part).flat_map(|s| s.1.clone()).collect();
            want.sort_by_key(|n| n >> 8);
            assert_eq!(got, want, "part {part}");
        }
    }
}
