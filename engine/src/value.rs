//! Types of values: what an app emits, what a table keeps of it, and its bytes in a run.
//!
//! Implement [`Fixed`] for a plain type of your own; [`Value`] follows. [`Bytes`] is for values of any length.

use crate::data::arena::{Arena, Span};

/// A type of values that can be emitted. Implemented for every [`Fixed`] type and for [`Bytes`].
pub trait Value: Send + Sync + 'static {
    /// What an app emits and gets back.
    type Ref<'a>: Copy;
    /// What the engine's tables keep.
    type Stored: Copy + Send + Sync + 'static;

    /// Makes a value fit to be kept. `stable` holds the bytes that stay in place for as long as the value may be
    /// kept; anything else is copied into `arena`.
    #[doc(hidden)]
    fn store(value: Self::Ref<'_>, stable: Stable, arena: &mut Arena) -> Self::Stored;

    /// # Safety
    /// What `stored` was made from (stable memory, arena) must still be there for `'a`.
    #[doc(hidden)]
    unsafe fn load<'a>(stored: &Self::Stored) -> Self::Ref<'a>;

    /// Appends the value's bytes.
    fn encode(value: Self::Ref<'_>, out: &mut Vec<u8>);

    /// Reads a value back from exactly the bytes that [`Value::encode`] wrote; `None` if they are not such bytes.
    fn decode(bytes: &[u8]) -> Option<Self::Ref<'_>>;

    /// Reads a value back for combining; `None` where the type does not combine.
    #[doc(hidden)]
    fn decode_stored(bytes: &[u8]) -> Option<Self::Stored>;

    /// Whether a stored value may refer to bytes in the arena.
    #[doc(hidden)]
    const REFERS: bool;

    /// The bytes of a value that is a byte string.
    #[doc(hidden)]
    #[inline(always)]
    fn place<'a>(_value: Self::Ref<'a>) -> Option<&'a [u8]> {
        None
    }
}

/// A range of addresses whose bytes outlive the map task; empty when there is none.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Stable {
    start: usize,
    len: usize,
}

impl Stable {
    pub(crate) const NONE: Self = Self { start: 0, len: 0 };

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr() as usize, len: bytes.len() }
    }

    /// Whether all of `bytes` lies within. An empty slice does not count: it may point anywhere.
    #[inline(always)]
    pub(crate) fn holds(self, bytes: &[u8]) -> bool {
        let at = (bytes.as_ptr() as usize).wrapping_sub(self.start);
        at < self.len && bytes.len() <= self.len - at
    }
}

/// Plain data of a fixed encoded size.
pub trait Fixed: Copy + Send + Sync + 'static {
    /// Encoded size in bytes.
    const SIZE: usize;

    /// Writes the value into exactly `SIZE` bytes.
    fn write(self, out: &mut [u8]);

    /// Reads the value from exactly `SIZE` bytes.
    fn read(bytes: &[u8]) -> Self;
}

impl<T: Fixed> Value for T {
    type Ref<'a> = T;
    type Stored = T;
    const REFERS: bool = false;

    #[inline(always)]
    fn store(value: T, _: Stable, _: &mut Arena) -> T {
        value
    }
    #[inline(always)]
    unsafe fn load<'a>(stored: &T) -> Self::Ref<'a> {
        *stored
    }
    fn encode(value: T, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + T::SIZE, 0);
        value.write(&mut out[at..]);
    }
    fn decode(bytes: &[u8]) -> Option<T> {
        (bytes.len() == T::SIZE).then(|| T::read(bytes))
    }
    fn decode_stored(bytes: &[u8]) -> Option<T> {
        Self::decode(bytes)
    }
}

macro_rules! fixed {
    ($($t:ty),*) => {$(
        impl Fixed for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline]
            fn write(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn read(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$t>()];
                raw.copy_from_slice(bytes);
                <$t>::from_le_bytes(raw)
            }
        }
    )*};
}
fixed!(u8, u16, u32, u64, i32, i64, f64);

impl Fixed for () {
    const SIZE: usize = 0;
    fn write(self, _: &mut [u8]) {}
    fn read(_: &[u8]) {}
}

impl<A: Fixed, B: Fixed> Fixed for (A, B) {
    const SIZE: usize = A::SIZE + B::SIZE;
    fn write(self, out: &mut [u8]) {
        let (a, b) = out.split_at_mut(A::SIZE);
        self.0.write(a);
        self.1.write(b);
    }
    fn read(bytes: &[u8]) -> Self {
        let (a, b) = bytes.split_at(A::SIZE);
        (A::read(a), B::read(b))
    }
}

/// Values that are byte strings of any length up to 1 GiB. A value that is a slice of the chunk is kept by reference
/// where the engine keeps the input in memory; any other is copied.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {}

impl Value for Bytes {
    type Ref<'a> = &'a [u8];
    type Stored = Span;
    const REFERS: bool = true;

    #[inline(always)]
    fn store(value: &[u8], stable: Stable, arena: &mut Arena) -> Span {
        if stable.holds(value) { Span::of(value) } else { arena.put(value) }
    }
    #[inline(always)]
    unsafe fn load<'a>(stored: &Span) -> Self::Ref<'a> {
        // SAFETY: passed on to the caller.
        unsafe { stored.bytes() }
    }
    fn encode(value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }
    fn decode(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }
    fn decode_stored(_: &[u8]) -> Option<Span> {
        None
    }
    #[inline(always)]
    fn place<'a>(value: Self::Ref<'a>) -> Option<&'a [u8]> {
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_values_come_back() {
        let mut out = Vec::new();
        <(u32, f64) as Value>::encode((7, -0.5), &mut out);
        assert_eq!(out.len(), 12);
        assert_eq!(<(u32, f64) as Value>::decode(&out), Some((7, -0.5)));
        assert_eq!(<(u32, f64) as Value>::decode(&out[1..]), None);
        assert_eq!(<() as Value>::decode(&[]), Some(()));
    }

    #[test]
    fn stable_knows_its_own_bytes() {
        let data = b"0123456789".to_vec();
        let stable = Stable::of(&data[2..8]);
        assert!(stable.holds(&data[2..8]));
        assert!(stable.holds(&data[7..8]));
        assert!(!stable.holds(&data[7..9]));
        assert!(!stable.holds(&data[1..3]));
        assert!(!Stable::NONE.holds(&data));
    }
}
