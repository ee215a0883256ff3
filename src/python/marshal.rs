//! Python's `marshal` format, version 2, as far as jobs need it: where values end, what dictionaries and numbers hold, and how
//! lists and tuples begin.
//!
//! Source: `Python/marshal.c` of CPython. Version 2 has no references and has not changed since Python 2.5; it is what all
//! of Python 3 writes when asked for it.

/// Marks of types.
pub(super) mod mark {
    pub(crate) const NULL: u8 = b'0';
    pub(crate) const NONE: u8 = b'N';
    pub(crate) const TRUE: u8 = b'T';
    pub(crate) const FALSE: u8 = b'F';
    pub(crate) const INT: u8 = b'i';
    pub(crate) const LONG: u8 = b'l';
    pub(crate) const FLOAT: u8 = b'g';
    pub(crate) const COMPLEX: u8 = b'y';
    pub(crate) const BYTES: u8 = b's';
    pub(crate) const STR: u8 = b'u';
    pub(crate) const TUPLE: u8 = b'(';
    pub(crate) const LIST: u8 = b'[';
    pub(crate) const DICT: u8 = b'{';
}

/// What is left to read of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'m>(pub(super) &'m [u8]);

/// Values within values; deeper is damage.
const DEEPEST: usize = 2000;

impl<'m> Reader<'m> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// A number of 32 bits.
    pub(super) fn number(&mut self) -> Option<i32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_le_bytes(*bytes))
    }

    /// A length.
    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    /// The bytes of the next value.
    pub(super) fn value(&mut self) -> Option<&'m [u8]> {
        let before = self.0;
        self.skip()?;
        Some(&before[..before.len() - self.0.len()])
    }

    fn skip(&mut self) -> Option<()> {
        // How many values are to come at each depth; of a dictionary that is not known.
        let mut open: Vec<Option<usize>> = vec![Some(1)];
        while let Some(left) = open.last_mut() {
            match left {
                Some(0) => {
                    open.pop();
                    continue;
                }
                Some(n) => *n -= 1,
                None => {}
            }
            match self.byte()? {
                mark::NULL if open.last() == Some(&None) => {
                    open.pop();
                }
                mark::NONE | mark::TRUE | mark::FALSE => {}
                mark::INT => drop(self.take(4)?),
                mark::FLOAT => drop(self.take(8)?),
                mark::COMPLEX => drop(self.take(16)?),
                mark::LONG => {
                    let digits = self.number()?.unsigned_abs() as usize;
                    self.take(digits.checked_mul(2)?)?;
                }
                mark::BYTES | mark::STR => {
                    let len = self.len()?;
                    self.take(len)?;
                }
                mark::TUPLE | mark::LIST => {
                    let len = self.len()?;
                    open.push(Some(len));
                }
                mark::DICT => open.push(None),
                _ => return None,
            }
            if open.len() > DEEPEST {
                return None;
            }
        }
        Some(())
    }

    /// Keys and lists of values of a dictionary: how many values, and the bytes of all. `f` returns `None` to give up.
    pub(super) fn groups(&mut self, mut f: impl FnMut(&'m [u8], usize, &'m [u8]) -> Option<()>) -> Option<()> {
        if self.byte()? != mark::DICT {
            return None;
        }
        while *self.0.first()? != mark::NULL {
            let key = self.value()?;
            let list = self.value()?;
            match list.split_first()? {
                (&mark::LIST, rest) => {
                    let mut rest = Reader(rest);
                    let n = rest.len()?;
                    f(key, n, rest.0)?;
                }
                // One that was pickled.
                (&mark::BYTES, _) => f(key, 1, list)?,
                _ => return None,
            }
        }
        Some(())
    }
}

/// The beginning of a list or tuple.
pub(super) fn begin(kind: u8, n: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `marshal.dumps({"a": [1, -2.5, (None, b"x")], 7: [{True: [2**40]}]}, 2)` writes it.
    const DICT: &[u8] = b"{u\x01\0\0\0a[\x03\0\0\0i\x01\0\0\0g\0\0\0\0\0\0\x04\xc0(\x02\0\0\0Ns\x01\0\0\0x\
        i\x07\0\0\0[\x01\0\0\0{T[\x01\0\0\0l\x03\0\0\0\0\0\0\0\0\x0400";

    #[test]
    fn groups_of_a_dictionary_are_found() {
        let mut got = Vec::new();
        let mut reader = Reader(DICT);
        let group = |key, n, values: &[u8]| {
            got.push((key, n, values.len()));
            Some(())
        };
        reader.groups(group).unwrap();
        assert_eq!(got, [(&b"u\x01\0\0\0a"[..], 3, 5 + 9 + 12), (&b"i\x07\0\0\0"[..], 1, 19)]);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_no_value() {
        assert_eq!(Reader(DICT).value(), Some(DICT));
        for n in 0..DICT.len() {
            assert_eq!(Reader(&DICT[..n]).value(), None, "{n} bytes");
            assert!(n == DICT.len() - 1 || Reader(&DICT[..n]).groups(|_, _, _| Some(())).is_none(), "{n} bytes");
        }
        assert_eq!(Reader(b"z\x01a").value(), None);
        assert_eq!(Reader(b"(\xff\xff\xff\xff").value(), None);
        assert_eq!(Reader(b"0").value(), None);
        assert_eq!(Reader(&b"[\x01\0\0\0".repeat(3000)).value(), None);
    }
}
