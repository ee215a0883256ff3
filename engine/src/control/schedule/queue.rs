//! Map tasks that wait for a slot, by the object that they read.
//!
//! A worker gets a task whose object it holds already, else one of the object that fewest have taken from, so that not
//! every worker fetches every object.

use std::collections::{BTreeMap, BTreeSet};

/// Objects of a worker's scratch that are looked for.
pub(crate) const HELD: usize = 8;
/// Objects, and tasks of each, that are looked at for one that may run here.
const LOOKED_AT: usize = 16;

/// The queue of one job.
#[derive(Debug, Default)]
pub(crate) struct MapQueue {
    /// Of each map.
    object_of: Vec<u32>,
    objects: Vec<Object>,
    by_tag: BTreeMap<u64, u32>,
    /// Objects with waiting tasks, by takers.
    order: BTreeSet<(u32, u32)>,
    waiting: usize,
}

#[derive(Debug)]
struct Object {
    tag: u64,
    taken: u32,
    waiting: BTreeSet<u32>,
}

impl MapQueue {
    /// An empty queue for maps that read these objects.
    pub(crate) fn new(tags: impl Iterator<Item = u64>) -> Self {
        let mut queue = Self::default();
        for tag in tags {
            let next = u32::try_from(queue.objects.len()).unwrap_or(u32::MAX);
            let object = *queue.by_tag.entry(tag).or_insert(next);
            if object == next {
                queue.objects.push(Object { tag, taken: 0, waiting: BTreeSet::new() });
            }
            queue.object_of.push(object);
        }
        queue
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// The object that a map reads.
    pub(crate) fn tag(&self, map: u32) -> Option<u64> {
        let object = *self.object_of.get(map as usize)?;
        Some(self.objects.get(object as usize)?.tag)
    }

    fn object(&mut self, map: u32) -> Option<(u32, &mut Object)> {
        let object = *self.object_of.get(map as usize)?;
        Some((object, self.objects.get_mut(object as usize)?))
    }

    pub(crate) fn insert(&mut self, map: u32) {
        let Some((number, object)) = self.object(map) else { return };
        let first = object.waiting.is_empty();
        if object.waiting.insert(map) {
            let place = (object.taken, number);
            self.waiting += 1;
            if first {
                self.order.insert(place);
            }
        }
    }

    pub(crate) fn remove(&mut self, map: u32) {
        let Some((number, object)) = self.object(map) else { return };
        if object.waiting.remove(&map) {
            let (place, last) = ((object.taken, number), object.waiting.is_empty());
            self.waiting -= 1;
            if last {
                self.order.remove(&place);
            }
        }
    }

    /// Takes a task that may run for a worker that holds these objects.
    pub(crate) fn take(&mut self, held: impl Iterator<Item = u64>, may: impl Fn(u32) -> bool) -> Option<u32> {
        let object = |number: &u32| self.objects.get(*number as usize);
        let first = |object: &Object| object.waiting.iter().take(LOOKED_AT).copied().find(|map| may(*map));
        let mut here = held.filter_map(|tag| self.by_tag.get(&tag)).filter_map(object).filter_map(first);
        let elsewhere = || self.order.iter().take(LOOKED_AT).filter_map(|(_, n)| object(n)).find_map(first);
        let map = here.next().or_else(elsewhere)?;
        self.remove(map);
        let (number, object) = self.object(map)?;
        let (before, waits) = (object.taken, !object.waiting.is_empty());
        object.taken += 1;
        if waits {
            self.order.remove(&(before, number));
            self.order.insert((before + 1, number));
        }
        Some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_first_then_what_fewest_took() {
        let mut queue = MapQueue::new([7, 7, 7, 8, 8, 9].into_iter());
        (0..6).for_each(|map| queue.insert(map));
        assert_eq!(queue.take([8].into_iter(), |_| true), Some(3), "held");
        assert_eq!(queue.take([].into_iter(), |_| true), Some(0), "not taken from");
        assert_eq!(queue.take([].into_iter(), |_| true), Some(5), "not taken from");
        assert_eq!(queue.take([8, 7].into_iter(), |map| map > 1), Some(4), "may run");
        queue.remove(1);
        assert_eq!(queue.take([].into_iter(), |_| true), Some(2));
        assert!(queue.is_empty() && queue.take([7].into_iter(), |_| true).is_none());
        queue.insert(1);
        assert_eq!(queue.len(), 1);
    }
}
