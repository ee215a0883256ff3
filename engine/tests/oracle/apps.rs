//! Apps for tests: one for every way in which keys and values meet, over the same simple records.
//!
//! A record is read as a key up to the first colon and a tail after it (all of it and nothing, where there is no
//! colon). A [`Kind`] says what is emitted as the value and how it looks in the output; [`Listing`] writes each key
//! with all its values in order, so that any value lost, doubled or moved shows.

use std::marker::PhantomData;

use gristmill_engine::app::{App, Bytes, Chunk, Emit, Fixed, Output, Shuffle, Value, Values};

use crate::naive::{self, Record};

pub fn split(record: &[u8]) -> (&[u8], &[u8]) {
    match record.iter().position(|b| *b == b':') {
        Some(at) => (&record[..at], &record[at + 1..]),
        None => (record, b""),
    }
}

/// A kind of value.
pub trait Kind: Send + Sync + 'static {
    type Value: Value;
    const SHUFFLE: Shuffle;

    fn value<'r>(record: &Record<'r>, made: &'r mut Vec<u8>) -> <Self::Value as Value>::Ref<'r>;
    fn show(value: <Self::Value as Value>::Ref<'_>) -> Vec<u8>;
    /// As in [`App::combine`], on what the engine keeps.
    fn combine(_: &mut <Self::Value as Value>::Stored, _: <Self::Value as Value>::Stored) -> bool {
        false
    }
    /// What the values of a key come to, from their looks in input order.
    fn reduce(values: Vec<Vec<u8>>) -> Vec<u8> {
        values.iter().flat_map(|v| [v, &b";"[..]].concat()).collect()
    }
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $value:ty, $shuffle:ident, $make:expr, $show:expr $(, $more:item)*) => {
        $(#[$doc])*
        pub struct $name;
        impl Kind for $name {
            type Value = $value;
            const SHUFFLE: Shuffle = Shuffle::$shuffle;
            fn value<'r>(record: &Record<'r>, made: &'r mut Vec<u8>) -> <$value as Value>::Ref<'r> {
                let make: for<'m> fn(&Record<'m>, &'m mut Vec<u8>) -> <$value as Value>::Ref<'m> = $make;
                make(record, made)
            }
            fn show(value: <$value as Value>::Ref<'_>) -> Vec<u8> {
                let show: fn(<$value as Value>::Ref<'_>) -> Vec<u8> = $show;
                show(value)
            }
            $($more)*
        }
    };
}

/// The first and last place of a key and how many it has: a value with a layout of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    first: (u32, u32),
    last: (u32, u32),
    count: u8,
}

impl Fixed for Extent {
    const SIZE: usize = 17;
    fn write(self, out: &mut [u8]) {
        ((self.first, self.last), self.count).write(out);
    }
    fn read(bytes: &[u8]) -> Self {
        let ((first, last), count) = Fixed::read(bytes);
        Self { first, last, count }
    }
}

impl Extent {
    fn join(self, other: Self) -> Self {
        let count = self.count.wrapping_add(other.count);
        Self { first: self.first.min(other.first), last: self.last.max(other.last), count }
    }
}

fn extent(record: &Record<'_>) -> Extent {
    let at = (record.input, record.offset as u32);
    Extent { first: at, last: at, count: 1 }
}

fn stretch(pad: usize, text: &[u8], made: &mut Vec<u8>) {
    made.clear();
    made.extend_from_slice(text);
    made.resize(text.len() + pad, b'.');
}

kind!(
    /// Lengths of tails, summed.
    Sum, u64, Fold, |r, _| split(r.bytes).1.len() as u64, |n| n.to_string().into_bytes(),
    fn combine(total: &mut u64, n: u64) -> bool {
        *total += n;
        true
    },
    fn reduce(values: Vec<Vec<u8>>) -> Vec<u8> {
        let number = |v: &Vec<u8>| String::from_utf8_lossy(v).parse::<u64>().unwrap_or_default();
        values.iter().map(number).sum::<u64>().to_string().into_bytes()
    }
);
kind!(
    /// Extents, joined.
    Joined, Extent, Fold, |r, _| extent(r), |e| {
        let mut out = vec![0; Extent::SIZE];
        e.write(&mut out);
        out
    },
    fn combine(total: &mut Extent, more: Extent) -> bool {
        *total = total.join(more);
        true
    },
    fn reduce(values: Vec<Vec<u8>>) -> Vec<u8> {
        format!("{:?}", values.iter().map(|v| Extent::read(v)).reduce(Extent::join)).into_bytes()
    }
);
kind!(
    /// Nothing but the key, any number of times.
    Seen, (), Fold, |_, _| (), |()| Vec::new(),
    fn combine(_: &mut (), _: ()) -> bool {
        true
    },
    fn reduce(_: Vec<Vec<u8>>) -> Vec<u8> {
        b"seen".to_vec()
    }
);
kind!(
    /// Where each record is.
    Places, (u32, f64), Group, |r, _| (r.input, r.offset as f64), |p| format!("{p:?}").into_bytes()
);
kind!(
    /// The inputs that hold a key; neighbours are absorbed as far as they meet.
    Inputs, u32, Group, |r, _| r.input, |n| n.to_string().into_bytes(),
    fn combine(last: &mut u32, input: u32) -> bool {
        *last == input
    },
    fn reduce(mut values: Vec<Vec<u8>>) -> Vec<u8> {
        values.dedup();
        values.join(&b","[..])
    }
);
kind!(
    /// Nothing, as often as it was emitted.
    Strokes, (), Group, |_, _| (), |()| b"|".to_vec()
);
kind!(
    /// Tails where they lie in the chunk.
    Tails, Bytes, Group, |r, _| split(r.bytes).1, <[u8]>::to_vec
);
kind!(
    /// Tails that the app makes anew.
    MadeTails, Bytes, Group, |r, made| {
        stretch(r.bytes.len() % 3, split(r.bytes).1, made);
        made
    }, <[u8]>::to_vec
);
kind!(
    /// Values of which a batch of pairs is more than the least memory holds.
    MiddleTails, Bytes, Group, |r, made| {
        stretch(5000, r.bytes, made);
        made
    }, |v| v[..v.len() - 4990].to_vec()
);
kind!(
    /// Long values of a few bytes of input: what fills memory.
    LongTails, Bytes, Group, |r, made| {
        stretch(100_000, r.bytes, made);
        made
    }, |v| v[..v.len() - 99_990].to_vec()
);
kind!(SortedKeys, (), Sort, |_, _| (), |()| b"|".to_vec());
kind!(SortedPlaces, u64, Sort, |r, _| u64::from(r.input) << 32 | r.offset, |n| n.to_string().into_bytes());
kind!(SortedTails, Bytes, Sort, |r, _| split(r.bytes).1, <[u8]>::to_vec);
kind!(
    SortedMade,
    Bytes,
    Sort,
    |r, made| {
        stretch(r.bytes.len() % 3, split(r.bytes).1, made);
        made
    },
    <[u8]>::to_vec
);
kind!(
    /// As [`LongTails`].
    SortedLong, Bytes, Sort, |r, made| {
        stretch(100_000, r.bytes, made);
        made
    }, |v| v[..v.len() - 99_990].to_vec()
);

/// How keys reach the emitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// As they lie in the chunk.
    Within,
    /// Copied by the app.
    Made,
    /// Copied, with this many bytes put before them.
    Padded(usize),
}

impl Keys {
    fn each(self, key: &[u8], mut f: impl FnMut(&[u8])) {
        match self {
            Self::Within => f(key),
            Self::Made => f(&[key, b""].concat()),
            Self::Padded(n) => f(&[&vec![b'k'; n], key].concat()),
        }
    }
}

/// Every key with all its values.
pub struct Listing<K> {
    pub keys: Keys,
    /// Values that are read of each key.
    pub reads: usize,
    pub kind: PhantomData<fn(K)>,
}

impl<K> Listing<K> {
    pub fn new(keys: Keys) -> Self {
        Self { keys, reads: usize::MAX, kind: PhantomData }
    }
}

impl<K: Kind> App for Listing<K> {
    type Value = K::Value;
    const SHUFFLE: Shuffle = K::SHUFFLE;

    fn map<E: Emit<K::Value>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        let mut made = Vec::new();
        for bytes in chunk.records() {
            let offset = chunk.offset() + (bytes.as_ptr() as u64 - chunk.bytes().as_ptr() as u64);
            let record = Record { input: chunk.input(), offset, bytes };
            out.count("records", 1);
            out.count("bytes", bytes.len() as u64);
            self.keys.each(split(bytes).0, |key| out.emit(key, K::value(&record, &mut made)));
        }
    }

    fn combine(&self, acc: &mut <K::Value as Value>::Stored, value: <K::Value as Value>::Stored) -> bool {
        K::combine(acc, value)
    }

    fn reduce<V: Values<K::Value>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let mut shown = Vec::new();
        while shown.len() < self.reads
            && let Some(value) = values.next()
        {
            shown.push(K::show(value));
        }
        out.put(&listed::<K>(key, shown));
        out.end();
    }
}

fn listed<K: Kind>(key: &[u8], shown: Vec<Vec<u8>>) -> Vec<u8> {
    [key, b"=", &K::reduce(shown), b"\n"].concat()
}

/// A key and the bytes that it comes to.
type Pair = (Vec<u8>, Vec<u8>);

/// What a [`Listing`] must come to: the bytes of each key, and how many pairs there are.
pub fn expected<K: Kind>(app: &Listing<K>, records: &[Record<'_>]) -> (Vec<Pair>, u64) {
    let mut pairs = Vec::new();
    for record in records {
        let mut made = Vec::new();
        let shown = K::show(K::value(record, &mut made));
        app.keys.each(split(record.bytes).0, |key| pairs.push((key.to_vec(), shown.clone())));
    }
    let emitted = pairs.len() as u64;
    let listed = naive::grouped(pairs).into_iter().map(|(key, mut values)| {
        values.truncate(app.reads);
        let bytes = listed::<K>(&key, values);
        (key, bytes)
    });
    (listed.collect(), emitted)
}
