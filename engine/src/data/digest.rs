//! The digest by which copies of the same bytes are told: XXH3 of 128 bits.
//!
//! It guards against accidents, of which 128 bits leave none, and not against forgery: who may write to the store or be
//! a worker is decided elsewhere.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use twox_hash::xxhash3_128::Hasher;

/// A digest of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Hasher::oneshot(bytes).to_be_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = plain.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|n| Self(n.to_be_bytes())).ok_or_else(|| format!("'{text}' is no digest of 32 hexadecimal digits"))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes the digest of bytes that come one after the other.
#[derive(Clone)]
pub struct Digester {
    hasher: Hasher,
    bytes: u64,
}

impl Default for Digester {
    fn default() -> Self {
        Self { hasher: Hasher::new(), bytes: 0 }
    }
}

impl Digester {
    /// Takes in what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all that has come.
    pub fn finish(&self) -> Digest {
        Digest(self.hasher.finish_128().to_be_bytes())
    }
}

/// A writer that makes the digest of what goes through.
pub(crate) struct Digesting<W> {
    pub(crate) inner: W,
    pub(crate) digester: Digester,
}

impl<W: Write> Digesting<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, digester: Digester::default() }
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.digester.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_in_pieces_and_in_text() {
        let bytes: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let mut writer = Digesting::new(Vec::new());
        bytes.chunks(777).for_each(|piece| writer.write_all(piece).unwrap());
        assert_eq!(writer.digester.finish(), Digest::of(&bytes));
        assert_eq!(writer.digester.bytes(), bytes.len() as u64);
        let digest = Digest::of(&bytes);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        // XXH3 of nothing, as its specification has it.
        assert_eq!(Digest::of(b"").to_string(), "99aa06d3014798d86001c324468d497f");
        for text in ["", "99aa", "+9aa06d3014798d86001c324468d497f"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
