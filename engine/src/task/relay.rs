//! An app whose reduce hands its pairs on: what a map task runs in place of the app itself.

use crate::app::{App, Chunk, Emit, Output, Shuffle, Values};
use crate::data::group::Stored;
use crate::value::Value;

/// Maps and combines as `A` does, and writes pairs for [`super::shelf`] where `A` would reduce them.
#[repr(transparent)]
pub(crate) struct Relay<A>(A);

impl<A: App> Relay<A> {
    pub(crate) fn of(app: &A) -> &Self {
        // SAFETY: the layout is that of `A`.
        unsafe { &*std::ptr::from_ref(app).cast::<Self>() }
    }
}

impl<A: App> App for Relay<A> {
    type Value = A::Value;
    const SHUFFLE: Shuffle = A::SHUFFLE;
    const PARTITIONS: bool = A::PARTITIONS;

    #[inline(always)]
    fn map<E: Emit<A::Value>>(&self, chunk: &Chunk<'_>, out: &mut E) {
        self.0.map(chunk, out);
    }

    #[inline(always)]
    fn combine(&self, acc: &mut Stored<A>, value: Stored<A>) -> bool {
        self.0.combine(acc, value)
    }

    fn partition(&self, key: &[u8], parts: u32) -> u32 {
        self.0.partition(key, parts)
    }

    /// Values of different tables and runs meet here for the first time: they are combined once more, so that a task
    /// gives the same bytes however its input was divided among threads and spills.
    fn reduce<V: Values<A::Value>>(&self, key: &[u8], values: &mut V, out: &mut Output<'_>) {
        let mut held = None;
        while let Some(value) = values.next() {
            let at = out.buf.len();
            A::Value::encode(value, &mut out.buf);
            let stored = match A::SHUFFLE {
                Shuffle::Sort => None,
                Shuffle::Fold | Shuffle::Group => A::Value::decode_stored(&out.buf[at..]),
            };
            out.buf.truncate(at);
            match (&mut held, stored) {
                (_, None) => out.framed(key, |buf| A::Value::encode(value, buf)),
                (None, Some(stored)) => held = Some(stored),
                (Some(acc), Some(stored)) => {
                    if !self.0.combine(acc, stored) {
                        self.write(key, &std::mem::replace(acc, stored), out);
                    }
                }
            }
        }
        if let Some(acc) = held {
            self.write(key, &acc, out);
        }
    }
}

impl<A: App> Relay<A> {
    fn write(&self, key: &[u8], stored: &Stored<A>, out: &mut Output<'_>) {
        // SAFETY: only types that hold all of their bytes themselves can be read back for combining.
        out.framed(key, |buf| A::Value::encode(unsafe { A::Value::load(stored) }, buf));
    }
}
