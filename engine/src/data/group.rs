//! What tables keep for a key: an accumulator ([`Fold`]) or a list of values in input order ([`Group`]).
//!
//! A list keeps its last value in the entry, where the next one may be combined with it, and the others in nodes of
//! doubling size in one region of memory: 4 values, 8, up to 256, each node ending in the index of the next.

use std::mem::MaybeUninit;

use super::pages::Pages;
use super::table::Slots;
use crate::app::App;
use crate::value::Value;

pub(crate) type Stored<A> = <<A as App>::Value as Value>::Stored;

/// One accumulator a key.
pub(crate) struct Fold<'a, A>(pub(crate) &'a A);

impl<A: App> Slots for Fold<'_, A> {
    type Value = Stored<A>;
    type Slot = Stored<A>;

    #[inline(always)]
    fn first(&mut self, value: Stored<A>) -> Stored<A> {
        value
    }
    #[inline(always)]
    fn add(&mut self, slot: &mut Stored<A>, value: Stored<A>) {
        self.0.combine(slot, value);
    }
    fn bytes(&self) -> usize {
        0
    }
    fn clear(&mut self) {}
    fn values<'s>(&'s self, slot: &'s Stored<A>) -> impl Iterator<Item = Stored<A>> + 's {
        std::iter::once(*slot)
    }
}

const FIRST_NODE: u32 = 4;
const LARGEST_NODE: u32 = 256;
/// Room is kept for one batch of values, each of which may begin a node.
const RESERVE: usize = 128 * (LARGEST_NODE as usize + 1);

/// A list of values: those in nodes, and the last.
#[derive(Clone, Copy)]
pub(crate) struct List<V> {
    pub(crate) last: V,
    /// How many stand in nodes.
    count: u32,
    head: u32,
    /// Where the next value goes.
    tail: u32,
}

/// A value, or at a node's end the index of the next node.
pub(crate) union Unit<V: Copy> {
    value: MaybeUninit<V>,
    next: u32,
}

/// A list of values a key.
pub(crate) struct Group<'a, A: App> {
    app: &'a A,
    nodes: Pages<Unit<Stored<A>>>,
    used: usize,
}

impl<'a, A: App> Group<'a, A> {
    /// `limit` bytes at the most for nodes. Memory is taken as it is used.
    pub(crate) fn new(app: &'a A, limit: usize) -> Self {
        let units = (limit / size_of::<Unit<Stored<A>>>()).max(4 * RESERVE).min(u32::MAX as usize);
        Self { app, nodes: Pages::zeroed(units), used: 0 }
    }

    /// Begins a node and returns its first place.
    #[inline(always)]
    fn node(&mut self, size: u32) -> u32 {
        let at = self.used;
        self.used += size as usize + 1;
        at as u32
    }
}

/// Whether a list with `count` values in nodes is at a node's end, and the size of the next node. Sizes run
/// 4, 8, .. 256, 256, .., so that the counts at the ends are 0, 4, 12, .. 508, 764, ..: plus 4, the powers of two up
/// to 512, then multiples of 256.
#[inline(always)]
fn next_node(count: u32) -> Option<u32> {
    let n = count + FIRST_NODE;
    if n < 2 * LARGEST_NODE {
        n.is_power_of_two().then_some(n.min(LARGEST_NODE))
    } else {
        n.is_multiple_of(LARGEST_NODE).then_some(LARGEST_NODE)
    }
}

impl<A: App> Slots for Group<'_, A> {
    type Value = Stored<A>;
    type Slot = List<Stored<A>>;

    #[inline(always)]
    fn first(&mut self, value: Stored<A>) -> List<Stored<A>> {
        List { last: value, count: 0, head: 0, tail: 0 }
    }

    #[inline(always)]
    fn add(&mut self, list: &mut List<Stored<A>>, value: Stored<A>) {
        if self.app.combine(&mut list.last, value) {
            return;
        }
        if let Some(size) = next_node(list.count) {
            let node = self.node(size);
            if list.count == 0 {
                list.head = node;
            } else {
                self.nodes[list.tail as usize].write(Unit { next: node });
            }
            list.tail = node;
        }
        self.nodes[list.tail as usize].write(Unit { value: MaybeUninit::new(list.last) });
        list.tail += 1;
        list.count += 1;
        list.last = value;
    }

    fn bytes(&self) -> usize {
        self.used * size_of::<Unit<Stored<A>>>()
    }

    fn clear(&mut self) {
        self.nodes.clear();
        self.used = 0;
    }

    fn values<'s>(&'s self, list: &'s List<Stored<A>>) -> impl Iterator<Item = Stored<A>> + 's {
        let (left, at) = (list.count, list.head);
        ListValues { nodes: &self.nodes, left, room: FIRST_NODE, size: FIRST_NODE, at, last: Some(list.last) }
    }

    fn is_full(&self) -> bool {
        self.used + RESERVE > self.nodes.len()
    }
}

/// Iterator over a list.
struct ListValues<'s, V: Copy> {
    nodes: &'s [MaybeUninit<Unit<V>>],
    left: u32,
    /// Values left in the current node, and its size.
    room: u32,
    size: u32,
    at: u32,
    last: Option<V>,
}

impl<V: Copy> Iterator for ListValues<'_, V> {
    type Item = V;

    #[inline(always)]
    fn next(&mut self) -> Option<V> {
        if self.left == 0 {
            return self.last.take();
        }
        if self.room == 0 {
            // SAFETY: a node that is full and followed by more values ends in the index of the next.
            self.at = unsafe { self.nodes[self.at as usize].assume_init_ref().next };
            self.size = (self.size * 2).min(LARGEST_NODE);
            self.room = self.size;
        }
        self.left -= 1;
        self.room -= 1;
        // SAFETY: `left` says that a value was written here.
        let value = unsafe { self.nodes[self.at as usize].assume_init_ref().value.assume_init() };
        self.at += 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Chunk, Emit, Output, Shuffle, Values};

    struct Distinct;
    impl App for Distinct {
        type Value = u32;
        const SHUFFLE: Shuffle = Shuffle::Group;
        fn map<E: Emit<u32>>(&self, _: &Chunk<'_>, _: &mut E) {}
        fn combine(&self, acc: &mut u32, value: u32) -> bool {
            *acc == value
        }
        fn reduce<V: Values<u32>>(&self, _: &[u8], _: &mut V, _: &mut Output<'_>) {}
    }

    #[test]
    fn lists_of_every_length_come_back_in_order() {
        let mut group = Group::new(&Distinct, 1 << 22);
        let mut lists = Vec::new();
        // Interleaved, so that nodes of different lists alternate.
        for n in 0..1500u32 {
            for (i, list) in lists.iter_mut().enumerate() {
                if n % (i as u32 + 1) == 0 {
                    group.add(list, n);
                    group.add(list, n); // combined away
                }
            }
            if n % 100 == 0 {
                lists.push(group.first(n));
            }
        }
        for (i, list) in lists.iter().enumerate() {
            let first = i as u32 * 100;
            let want: Vec<u32> =
                std::iter::once(first).chain((first + 1..1500).filter(|n| n % (i as u32 + 1) == 0)).collect();
            assert_eq!(group.values(list).collect::<Vec<_>>(), want, "list {i}");
        }
    }
}
