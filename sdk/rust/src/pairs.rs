//! Pairs as they are packed: the length of the key and that of the value in 32 bits each, little-endian, then the two.

/// Pairs that are handed on.
#[derive(Debug, Default)]
pub struct Pairs(pub(crate) Vec<u8>);

impl Pairs {
    /// Appends a pair.
    ///
    /// # Panics
    /// If one of the two has 4 GiB or more.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let [key_len, value_len] = [key, value]
            .map(|part| u32::try_from(part.len()).unwrap_or_else(|_| panic!("a key or value has 4 GiB or more")));
        let head = u64::from(key_len) | u64::from(value_len) << 32;
        self.0.reserve(8 + key.len() + value.len());
        self.0.extend_from_slice(&head.to_le_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
    }
}

/// A key and a value.
type Pair<'p> = (&'p [u8], &'p [u8]);

/// The first pair, and what is behind it; `None` if there is no whole one.
pub(crate) fn first(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let len = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let (key, rest) = bytes.get(8..)?.split_at_checked(len(0)?)?;
    let (value, rest) = rest.split_at_checked(len(4)?)?;
    Some(((key, value), rest))
}

/// The values of a key.
#[derive(Clone, Debug)]
pub struct Values<'v>(&'v [u8]);

impl<'v> Iterator for Values<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let ((_, value), rest) = first(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

/// Calls `f` with each key and its values; returns where the pairs of the last key begin.
pub(crate) fn groups(
    pairs: &[u8],
    mut f: impl FnMut(&[u8], Values<'_>, bool) -> Result<(), String>,
) -> Result<usize, String> {
    let damaged = || "the pairs that it was given are damaged".to_string();
    let mut rest = pairs;
    let mut begin = 0;
    while !rest.is_empty() {
        let of = rest;
        let ((key, _), mut after) = first(rest).ok_or_else(damaged)?;
        while let Some(((next, _), behind)) = first(after)
            && next == key
        {
            after = behind;
        }
        begin = pairs.len() - of.len();
        f(key, Values(&of[..of.len() - after.len()]), after.is_empty())?;
        rest = after;
    }
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_groups() {
        let mut pairs = Pairs::default();
        for (key, value) in [("a", "1"), ("a", ""), ("b", "22"), ("", "3")] {
            pairs.push(key.as_bytes(), value.as_bytes());
        }
        let mut seen = Vec::new();
        let last = groups(&pairs.0, |key, values, last| {
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value).into_owned()).collect();
            seen.push((String::from_utf8_lossy(key).into_owned(), values.join(","), last));
            Ok(())
        });
        let want = [("a", "1,", false), ("b", "22", false), ("", "3", true)];
        assert_eq!(seen, want.map(|(key, values, last)| (key.to_string(), values.to_string(), last)));
        assert_eq!(last, Ok(pairs.0.len() - 9));
        assert!(groups(&pairs.0[..5], |_, _, _| Ok(())).is_err());
    }
}
