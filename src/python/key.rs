//! Keys of Python as bytes whose order is that of the keys: None, numbers, bytes, str, tuples; within a type as Python has it.
//!
//! Numbers that Python calls equal (1, 1.0, True) are one key, however they came. Which of them it was cannot be told from
//! the bytes; [`encode`] says so where it is not a whole number of type int, and the key then goes with the value.
//!
//! A number is its whole part, cut towards zero (two bytes for sign and length, then its bytes), and its fraction.

use super::marshal::{Reader, mark};

const NONE: u8 = 0x10;
const LESS: u8 = 0x1f;
const NUMBER: u8 = 0x20;
const MORE: u8 = 0x21;
const NAN: u8 = 0x22;
const BYTES: u8 = 0x30;
const STR: u8 = 0x40;
const TUPLE: u8 = 0x50;
/// The end of a tuple: before anything that may follow.
const END: u8 = 0;

/// The sign and length of zero.
const ZERO: u16 = 0x8000;
/// Most bytes of a whole number.
const LONGEST: usize = 0x4000;
/// The byte of no fraction.
const WHOLE: u8 = 0x80;
/// Tuples within tuples.
const DEEPEST: usize = 100;

/// Appends the bytes of a key; returns whether [`decode`] makes the same key of them. `None` if it is no key.
pub(super) fn encode(key: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut reader = Reader(key);
    let same = one(&mut reader, out, 0)?;
    reader.0.is_empty().then_some(same)
}

fn one(key: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Option<bool> {
    let kind = key.byte()?;
    let mut same = true;
    match kind {
        mark::NONE => out.push(NONE),
        mark::TRUE | mark::FALSE => {
            whole(false, if kind == mark::TRUE { &[1] } else { &[] }, out)?;
            out.push(WHOLE);
            same = false;
        }
        mark::INT => {
            let n = key.number()?;
            let bytes = n.unsigned_abs().to_be_bytes();
            whole(n < 0, trimmed(&bytes), out)?;
            out.push(WHOLE);
        }
        mark::LONG => {
            let digits = key.number()?;
            let bytes = from_digits(key.take((digits.unsigned_abs() as usize).checked_mul(2)?)?)?;
            whole(digits < 0, trimmed(&bytes), out)?;
            out.push(WHOLE);
        }
        mark::FLOAT => same = float(f64::from_le_bytes(*key.take(8)?.first_chunk()?), out)?,
        mark::BYTES | mark::STR => {
            let len = key.len()?;
            let bytes = key.take(len)?;
            out.push(if kind == mark::STR { STR } else { BYTES });
            // A key by itself ends where it ends.
            if depth == 0 { out.extend_from_slice(bytes) } else { escaped(bytes, out) }
        }
        mark::TUPLE => {
            if depth == DEEPEST {
                return None;
            }
            out.push(TUPLE);
            for _ in 0..key.len()? {
                same &= one(key, out, depth + 1)?;
            }
            out.push(END);
        }
        _ => return None,
    }
    Some(same)
}

/// The bytes of a whole number of this sign and magnitude.
fn whole(negative: bool, magnitude: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let len = u16::try_from(magnitude.len()).ok().filter(|len| usize::from(*len) <= LONGEST)?;
    out.push(NUMBER);
    let head = if negative { ZERO - len } else { ZERO + len };
    out.extend_from_slice(&head.to_be_bytes());
    out.extend(magnitude.iter().map(|byte| if negative { !byte } else { *byte }));
    Some(())
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}

/// A magnitude of digits of 15 bits, the least first.
fn from_digits(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.len() > LONGEST {
        return None;
    }
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in digits.chunks_exact(2) {
        held |= u32::from(u16::from_le_bytes([digit[0], digit[1]])) << bits;
        bits += 15;
        while bits >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    bytes.push(held as u8);
    bytes.reverse();
    Some(bytes)
}

fn to_digits(magnitude: &[u8]) -> Vec<u16> {
    let (mut digits, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for byte in magnitude.iter().rev() {
        held |= u32::from(*byte) << bits;
        bits += 8;
        if bits >= 15 {
            digits.push((held & 0x7fff) as u16);
            held >>= 15;
            bits -= 15;
        }
    }
    digits.push(held as u16);
    while digits.last() == Some(&0) {
        digits.pop();
    }
    digits
}

fn float(x: f64, out: &mut Vec<u8>) -> Option<bool> {
    if x.is_nan() {
        out.push(NAN);
    } else if x.is_infinite() {
        out.push(if x > 0.0 { MORE } else { LESS });
    } else {
        let (bits, fraction) = (x.trunc().to_bits(), x.fract());
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1075;
        let mantissa = if exponent == -1075 { 0 } else { bits & ((1 << 52) - 1) | 1 << 52 };
        let magnitude = match exponent {
            ..=0 => mantissa.checked_shr(exponent.unsigned_abs()).unwrap_or(0).to_be_bytes().to_vec(),
            up => {
                // Shifted by whole bytes, and by the bits that are left.
                let mut bytes = (u128::from(mantissa) << (up % 8)).to_be_bytes().to_vec();
                bytes.extend(std::iter::repeat_n(0, up as usize / 8));
                bytes
            }
        };
        whole(x < 0.0, trimmed(&magnitude), out)?;
        if fraction == 0.0 {
            out.push(WHOLE);
            return Some(false);
        }
        let bytes = fraction.abs().to_be_bytes();
        if fraction > 0.0 {
            out.push(WHOLE + 1);
            out.extend_from_slice(&bytes);
        } else {
            out.push(WHOLE - 1);
            out.extend(bytes.map(|byte| !byte));
        }
    }
    Some(true)
}

/// Bytes that end before any longer ones do: 0 as 0 255, and 0 0 at the end.
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(255);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Appends the key that was encoded, as marshal writes it. `None` if these are the bytes of none.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader(bytes);
    again(&mut reader, out, 0)?;
    reader.0.is_empty().then_some(())
}

fn again(bytes: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    let float = |x: f64, out: &mut Vec<u8>| {
        out.push(mark::FLOAT);
        out.extend_from_slice(&x.to_le_bytes());
    };
    match bytes.byte()? {
        NONE => out.push(mark::NONE),
        LESS => float(f64::NEG_INFINITY, out),
        MORE => float(f64::INFINITY, out),
        NAN => float(f64::NAN, out),
        NUMBER => {
            let head = u16::from_be_bytes(*bytes.take(2)?.first_chunk()?);
            let negative = head < ZERO;
            let magnitude = bytes.take(usize::from(head.abs_diff(ZERO)))?;
            let magnitude: Vec<u8> = magnitude.iter().map(|byte| if negative { !byte } else { *byte }).collect();
            let kind = bytes.byte()?;
            if kind == WHOLE {
                number(negative, &magnitude, out);
            } else {
                let fraction: [u8; 8] = *bytes.take(8)?.first_chunk()?;
                let minus = kind < WHOLE;
                let fraction = f64::from_be_bytes(if minus { fraction.map(|byte| !byte) } else { fraction });
                // A number with a fraction has at most 53 bits before it.
                let of = magnitude.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) as f64 + fraction;
                float(if minus { -of } else { of }, out);
            }
        }
        kind @ (BYTES | STR) => {
            let text = if depth == 0 { std::mem::take(&mut bytes.0).to_vec() } else { unescaped(bytes)? };
            super::marshal::begin(if kind == STR { mark::STR } else { mark::BYTES }, text.len(), out);
            out.extend_from_slice(&text);
        }
        TUPLE => {
            let at = out.len();
            super::marshal::begin(mark::TUPLE, 0, out);
            let mut n = 0u32;
            while *bytes.0.first()? != END {
                again(bytes, out, depth + 1)?;
                n += 1;
            }
            bytes.byte()?;
            out[at + 1..at + 5].copy_from_slice(&n.to_le_bytes());
        }
        _ => return None,
    }
    Some(())
}

fn number(negative: bool, magnitude: &[u8], out: &mut Vec<u8>) {
    let small = magnitude.len() <= 4;
    let n = magnitude.iter().fold(0i64, |n, byte| if small { n << 8 | i64::from(*byte) } else { 0 });
    match i32::try_from(if negative { -n } else { n }) {
        Ok(n) if small => {
            out.push(mark::INT);
            out.extend_from_slice(&n.to_le_bytes());
        }
        _ => {
            let digits = to_digits(magnitude);
            let n = digits.len() as i32;
            out.push(mark::LONG);
            out.extend_from_slice(&if negative { -n } else { n }.to_le_bytes());
            digits.iter().for_each(|digit| out.extend_from_slice(&digit.to_le_bytes()));
        }
    }
}

fn unescaped(bytes: &mut Reader<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        match (bytes.byte()?, bytes.0.first()) {
            (0, Some(0)) => {
                bytes.byte()?;
                return Some(text);
            }
            (0, _) => {
                bytes.byte()?;
                text.push(0);
            }
            (byte, _) => text.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::marshal::begin;

    fn int(n: i32) -> Vec<u8> {
        [&[mark::INT][..], &n.to_le_bytes()].concat()
    }
    fn long(negative: bool, digits: &[u16]) -> Vec<u8> {
        let n = digits.len() as i32;
        let mut all = [&[mark::LONG][..], &if negative { -n } else { n }.to_le_bytes()].concat();
        digits.iter().for_each(|digit| all.extend_from_slice(&digit.to_le_bytes()));
        all
    }
    fn real(x: f64) -> Vec<u8> {
        [&[mark::FLOAT][..], &x.to_le_bytes()].concat()
    }
    fn text(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        begin(kind, bytes.len(), &mut all);
        [all, bytes.to_vec()].concat()
    }
    fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        let mut all = Vec::new();
        begin(mark::TUPLE, items.len(), &mut all);
        [all, items.concat()].concat()
    }
    fn encoded(key: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let same = encode(key, &mut out).unwrap();
        (out, same)
    }

    #[test]
    fn keys_are_in_the_order_of_python() {
        let s = |bytes: &str| text(mark::STR, bytes.as_bytes());
        let keys = [
            vec![mark::NONE],
            real(f64::NEG_INFINITY),
            real(-1e300),
            long(true, &[0, 0, 0, 1]),
            int(-70_000),
            int(-256),
            int(-255),
            real(-1.5),
            int(-1),
            real(-0.75),
            real(-1e-300),
            int(0),
            real(1e-300),
            real(0.25),
            real(0.5),
            int(1),
            real(1.25),
            int(2),
            int(255),
            int(256),
            real(256.5),
            int(i32::MAX),
            long(false, &[0, 0, 2]),
            long(false, &[1, 0, 2]),
            real(1e300),
            real(f64::INFINITY),
            text(mark::BYTES, b"a"),
            s(""),
            s("a"),
            s("a\0"),
            s("ab"),
            s("b"),
            tuple(&[]),
            tuple(&[int(1)]),
            tuple(&[int(1), s("a")]),
            tuple(&[int(1), s("a\0")]),
            tuple(&[int(1), s("ab")]),
            tuple(&[int(2)]),
            tuple(&[tuple(&[s("z")]), int(1)]),
        ];
        let all: Vec<Vec<u8>> = keys.iter().map(|key| encoded(key).0).collect();
        for (i, pair) in all.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{:?} before {:?}", keys[i], keys[i + 1]);
        }
        for (key, (bytes, same)) in keys.iter().map(|key| (key, encoded(key))) {
            let mut back = Vec::new();
            decode(&bytes, &mut back).unwrap();
            assert!(!same || back == *key, "{key:?} came back as {back:?}");
            // What does not come back is a float without a fraction.
            assert!(same || key[0] == mark::FLOAT, "{key:?}");
        }
    }

    #[test]
    fn numbers_that_are_equal_are_one_key() {
        let same = |keys: &[Vec<u8>]| {
            let all: Vec<Vec<u8>> = keys.iter().map(|key| encoded(key).0).collect();
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}: {all:?}");
        };
        same(&[int(1), real(1.0), vec![mark::TRUE], long(false, &[1])]);
        same(&[int(0), real(0.0), real(-0.0), vec![mark::FALSE]]);
        same(&[int(-70_000), real(-70_000.0), long(true, &[4464, 2])]);
        // 2 to the 70th.
        same(&[real(1_180_591_620_717_411_303_424.0), long(false, &[0, 0, 0, 0, 1 << 10])]);
        same(&[tuple(&[int(3)]), tuple(&[real(3.0)])]);
        assert!(!encoded(&tuple(&[real(3.0)])).1 && encoded(&tuple(&[int(3)])).1);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let mut out = Vec::new();
        assert_eq!(encode(&text(mark::DICT, b""), &mut out), None);
        assert_eq!(encode(b"i\0\0", &mut out), None);
        assert_eq!(encode(b"NN", &mut out), None);
        assert_eq!(encode(&b"(\x01\0\0\0".repeat(200), &mut out), None);
        for bytes in [&b""[..], b"\x20", b"\x20\x80\x01", b"\x50\x10", b"\x50\x40a", b"\x99"] {
            assert_eq!(decode(bytes, &mut out), None, "{bytes:?}");
        }
    }
}
