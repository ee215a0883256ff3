//! Term vectors: the words that matter most in each document (OSDI 2004, section 2.3).

use std::collections::HashMap;

use super::Words;
use super::text::put_name;
use crate::app::{App, Bytes, Chunk, Emit, Output, Shuffle, Values};

/// List the most frequent words of each document
///
/// A document is an input file that is not empty. Prints its name, TAB, and word:count separated by spaces, the most
/// frequent first. Commas, percent signs and control characters in names are written as %XX.
#[derive(Clone, Debug, clap::Args)]
pub struct TermVector {
    /// Words for each document
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub terms: u32,
    /// Leave out words that occur less often
    #[arg(long, default_value_t = 1)]
    pub min_count: u64,
    /// What a word is
    #[command(flatten)]
    pub words: Words,
}

impl App for TermVector {
    type Value = Bytes;
    const SHUFFLE: Shuffle = Shuffle::Group;

    fn map<E: Emit<Bytes>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        self.words.each(chunk, |word| match counts.get_mut(word) {
            Some(n) => *n += 1,
            None => {
                counts.insert(word.to_vec(), 1);
            }
        });
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        // The number, not the name: two inputs may look alike. It also puts documents into the order of the inputs.
        out.emit(&chunk.input().to_be_bytes(), &encode(&counts));
    }

    fn reduce<V: Values<Bytes>>(&self, document: &[u8], vectors: &mut V, out: &mut Output<'_>) {
        let mut totals: HashMap<Vec<u8>, u64> = HashMap::new();
        while let Some(vector) = vectors.next() {
            for (word, n) in decode(vector) {
                *totals.entry(word.to_vec()).or_default() += n;
            }
        }
        let mut totals: Vec<_> = totals.into_iter().filter(|(_, n)| *n >= self.min_count).collect();
        totals.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        totals.truncate(self.terms as usize);
        let number = document.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        put_name(out.input_name(number).as_bytes(), |text| out.put(text));
        out.put(b"\t");
        for (i, (word, n)) in totals.into_iter().enumerate() {
            if i > 0 {
                out.put(b" ");
            }
            out.put(&word);
            out.put(b":");
            out.number(n);
        }
        out.put(b"\n");
        out.end();
    }
}

/// Each word as length (u32), count (u64), both little-endian, and bytes.
fn encode(counts: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (word, n) in counts {
        out.extend((word.len() as u32).to_le_bytes());
        out.extend(n.to_le_bytes());
        out.extend_from_slice(word);
    }
    out
}

fn decode(vector: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    let mut rest = vector;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (n, tail) = tail.split_first_chunk::<8>()?;
        let (word, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = tail;
        Some((word, u64::from_le_bytes(*n)))
    })
}
