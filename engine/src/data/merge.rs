//! Merge: many sorted cursors read as one.
//!
//! A reduce task merges the segments of all map tasks, a map task the spills of its own. [`Merge`]
//! works on anything that is a [`Cursor`] and is one itself, so merges nest when there are more
//! inputs than files may be open. Grouping equal keys is left to whoever reads.

use std::cmp::Ordering;

#[cfg(test)]
mod tests;

/// A position in a sequence of records in non-decreasing order of key bytes. It starts before the
/// first record; a key and a value are lent until the next move.
pub trait Cursor {
    /// Why a move can fail.
    type Error;

    /// Moves to the next record; `false` if there is none.
    ///
    /// # Errors
    ///
    /// When the next record cannot be had.
    fn advance(&mut self) -> Result<bool, Self::Error>;

    /// Key of the current record; of no meaning unless the last move returned `true`.
    fn key(&self) -> &[u8];

    /// Value of the current record; of no meaning unless the last move returned `true`.
    fn value(&self) -> &[u8];
}

impl<C: Cursor + ?Sized> Cursor for Box<C> {
    type Error = C::Error;

    fn advance(&mut self) -> Result<bool, Self::Error> {
        (**self).advance()
    }

    fn key(&self) -> &[u8] {
        (**self).key()
    }

    fn value(&self) -> &[u8] {
        (**self).value()
    }
}

/// Merges any number of cursors by key. Records with equal keys come in the order of their cursors
/// and, within a cursor, in its order: the merge is stable.
///
/// A loser tree (Knuth, The Art of Computer Programming, vol. 3, 5.4.1) takes at most ⌈log₂ k⌉
/// comparisons a record. An inner node keeps the loser of the match played there, with the first
/// eight bytes of its key, so that most matches touch neither cursors nor keys.
#[derive(Debug)]
pub struct Merge<C> {
    cursors: Vec<C>,
    /// Node `n` of the tree has the nodes `2n` and `2n + 1` below it, the root is 1; from `k` on
    /// nodes are leaves, one for each cursor, and not stored. Slot 0 is not used.
    losers: Vec<Contender>,
    /// Who won against all, `None` only if there are no cursors.
    winner: Option<Contender>,
    /// Whether the winner has been given out and is to move on before the next match.
    spent: bool,
}

/// A cursor as it takes part in matches.
#[derive(Clone, Copy, Debug)]
struct Contender {
    /// The key's first eight bytes as a big-endian number, zeros after its end; `u64::MAX` at the
    /// end of the cursor. Smaller means a smaller key, equal means nothing.
    prefix: u64,
    cursor: usize,
    live: bool,
}

impl<C: Cursor> Merge<C> {
    /// Moves every cursor to its first record and sets up the tree, in O(k).
    ///
    /// # Errors
    ///
    /// The first error of a cursor.
    pub fn new(mut cursors: Vec<C>) -> Result<Self, C::Error> {
        let k = cursors.len();
        // Winners of the matches at nodes 1..k, after them the leaves.
        let mut winners = vec![Contender { prefix: u64::MAX, cursor: 0, live: false }; k];
        for (index, cursor) in cursors.iter_mut().enumerate() {
            winners.push(contend(index, cursor)?);
        }
        let mut losers = winners[..k].to_vec();
        for node in (1..k).rev() {
            let (left, right) = (winners[2 * node], winners[2 * node + 1]);
            let left_wins = beats(&cursors, &left, &right);
            (winners[node], losers[node]) = if left_wins { (left, right) } else { (right, left) };
        }
        // The root, or the only leaf.
        let winner = winners.get(1).copied();
        Ok(Self { cursors, losers, winner, spent: false })
    }

    /// Moves to the next record of all; `false` at the end of every cursor.
    ///
    /// # Errors
    ///
    /// That of the cursor that was to move. The merge stays where it was, so another call tries
    /// that cursor again.
    #[inline]
    pub fn advance(&mut self) -> Result<bool, C::Error> {
        let Some(winner) = self.winner else {
            return Ok(false);
        };
        if self.spent && winner.live {
            let moved = contend(winner.cursor, &mut self.cursors[winner.cursor])?;
            self.winner = Some(self.replay(moved));
        }
        self.spent = true;
        Ok(self.winner.is_some_and(|winner| winner.live))
    }

    /// Key of the current record; empty before the first and at the end.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.current().map_or(&[], C::key)
    }

    /// Value of the current record; empty before the first and at the end.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.current().map_or(&[], C::value)
    }

    #[inline]
    fn current(&self) -> Option<&C> {
        let winner = self.winner.filter(|winner| self.spent && winner.live)?;
        Some(&self.cursors[winner.cursor])
    }

    /// Plays the matches from the leaf of `contender` up to the root and returns who won.
    #[inline]
    fn replay(&mut self, mut contender: Contender) -> Contender {
        let mut node = (contender.cursor + self.cursors.len()) / 2;
        while node > 0 {
            if beats(&self.cursors, &self.losers[node], &contender) {
                std::mem::swap(&mut self.losers[node], &mut contender);
            }
            node /= 2;
        }
        contender
    }
}

impl<C: Cursor> Cursor for Merge<C> {
    type Error = C::Error;

    #[inline]
    fn advance(&mut self) -> Result<bool, Self::Error> {
        self.advance()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.value()
    }
}

/// Moves `cursor` and enters it for the matches.
#[inline]
fn contend<C: Cursor>(index: usize, cursor: &mut C) -> Result<Contender, C::Error> {
    let live = cursor.advance()?;
    let prefix = if live { prefix(cursor.key()) } else { u64::MAX };
    Ok(Contender { prefix, cursor: index, live })
}

/// Whether `a` comes before `b`. No two contenders are equal: ties go to the lower index.
#[inline]
fn beats<C: Cursor>(cursors: &[C], a: &Contender, b: &Contender) -> bool {
    match a.prefix.cmp(&b.prefix) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => beats_by_key(cursors, a, b),
    }
}

fn beats_by_key<C: Cursor>(cursors: &[C], a: &Contender, b: &Contender) -> bool {
    // A key of eight bytes 0xff has the prefix of an ended cursor, hence the flags.
    if !(a.live && b.live) {
        return a.live;
    }
    let keys = cursors[a.cursor].key().cmp(cursors[b.cursor].key());
    keys.then(a.cursor.cmp(&b.cursor)) == Ordering::Less
}

#[inline]
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; 8];
            padded[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(padded)
        }
    }
}
