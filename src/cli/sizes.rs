//! Sizes in bytes, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, with a unit if one is given: `4096`, `64k`, `1.5GiB`. K, M, G and T, alone or with `iB`, are
/// powers of 1024; with `B` alone they are powers of 1000, as in coreutils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("'{text}' is not a size; write it as 512MiB, 2g or 1048576");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let (prefix, base) = match unit.as_str() {
            "" | "b" => ("", 1),
            other => match (other.strip_suffix("ib"), other.strip_suffix('b')) {
                (Some(prefix), _) => (prefix, 1024),
                (None, Some(prefix)) => (prefix, 1000),
                (None, None) => (other, 1024),
            },
        };
        let power = ["", "k", "m", "g", "t"].iter().position(|p| *p == prefix).ok_or_else(fail)?;
        let factor = u64::pow(base, power as u32);
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor),
            Err(_) => {
                let bytes = number.parse::<f64>().map_err(|_| fail())? * factor as f64;
                (bytes < u64::MAX as f64).then_some(bytes as u64)
            }
        };
        bytes.filter(|n| *n > 0).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let power = (0..4).find(|p| self.0 < 1 << (10 * (p + 1))).unwrap_or(4);
        let n = self.0 as f64 / (1u64 << (10 * power)) as f64;
        match (power, n) {
            (0, _) if self.0 == 1 => f.write_str("1 byte"),
            (0, _) => write!(f, "{} bytes", self.0),
            (_, n) if n < 10.0 => write!(f, "{n:.1} {}", units[power]),
            (_, n) => write!(f, "{n:.0} {}", units[power]),
        }
    }
}

/// What a job's flag asks for of something that a worker has so much of for each task; all of it where it does not ask.
///
/// # Errors
/// When it asks for more.
#[cfg(any(feature = "scripts", feature = "wasm"))]
pub(crate) fn within(flag: &str, asked: Option<Size>, most: Size) -> Result<Size, String> {
    match asked {
        Some(asked) if asked.0 > most.0 => {
            Err(format!("{flag} {asked} is more than the {most} that this worker has for a task's code"))
        }
        asked => Ok(asked.unwrap_or(most)),
    }
}

/// A number with commas between its thousands.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 part`, `2 parts`.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("1", 1),
            ("4096", 4096),
            ("10b", 10),
            ("1k", 1024),
            ("1KiB", 1024),
            ("1kB", 1000),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1g", 1 << 30),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for not in ["", "0", "k", "-1", "1x", "1.2.3", "1 k b", "18446744073709551616", "99999999T", "0.1", "MiB", "é"]
        {
            assert!(not.parse::<Size>().is_err(), "{not}");
        }
    }

    #[test]
    fn sizes_and_counts_are_told_in_few_digits() {
        let sizes = [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (15 << 20, "15 MiB")];
        for (bytes, text) in sizes {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Size(u64::MAX).to_string(), "16777216 TiB");
        for (n, text) in [(0, "0 parts"), (1, "1 part"), (999, "999 parts"), (1_234_567, "1,234,567 parts")] {
            assert_eq!(counted(n, "part"), text);
        }
    }
}
