//! `-reducer aggregate`: Hadoop's aggregate library as a reducer and a combiner in process.
//!
//! Keys are `Type:id`, and the types those of `org.apache.hadoop.mapred.lib.aggregate`. A combiner leaves the type in place, so
//! that a reducer can go on; a reducer drops it.

use std::collections::BTreeMap;

use gristmill_engine::runner::{Counters, Failed, Session};

/// What has come of the values of a key so far.
enum Sum {
    Long(i64, fn(i64, i64) -> i64),
    Double(f64),
    Text(String, fn(String, String) -> String),
    Unique(BTreeMap<String, i64>),
    Histogram(BTreeMap<String, i64>),
}

impl Sum {
    /// The first value of a key of this type.
    fn first(kind: &str, value: &str) -> Result<Self, String> {
        let long = |f| number(value).map(|n| Self::Long(n, f));
        match kind {
            "LongValueSum" => long(i64::wrapping_add),
            "LongValueMax" => long(i64::max),
            "LongValueMin" => long(i64::min),
            "DoubleValueSum" => double(value).map(Self::Double),
            "StringValueMax" => Ok(Self::Text(value.into(), String::max)),
            "StringValueMin" => Ok(Self::Text(value.into(), String::min)),
            "UniqValueCount" | "ValueHistogram" => {
                let none = BTreeMap::new();
                let mut sum = if kind == "UniqValueCount" { Self::Unique(none) } else { Self::Histogram(none) };
                sum.add(value)?;
                Ok(sum)
            }
            _ => Err(format!(
                "'{kind}' is no type of aggregate: a key is one of LongValueSum, LongValueMax, LongValueMin, \
                              DoubleValueSum, StringValueMax, StringValueMin, UniqValueCount and ValueHistogram, a colon, and an id"
            )),
        }
    }

    fn add(&mut self, value: &str) -> Result<(), String> {
        match self {
            Self::Long(sum, f) => *sum = f(*sum, number(value)?),
            Self::Double(sum) => *sum += double(value)?,
            Self::Text(text, f) => *text = f(std::mem::take(text), value.into()),
            Self::Unique(seen) => {
                seen.insert(value.into(), 1);
            }
            Self::Histogram(counts) => {
                let (value, n) = match value.rsplit_once('\t') {
                    Some((value, n)) => (value, number(n)?),
                    None => (value, 1),
                };
                *counts.entry(value.into()).or_default() += n;
            }
        }
        Ok(())
    }

    /// Values for a reducer to go on with.
    fn partial(&self) -> Vec<String> {
        match self {
            Self::Unique(seen) => seen.keys().cloned().collect(),
            Self::Histogram(counts) => counts.iter().map(|(value, n)| format!("{value}\t{n}")).collect(),
            _ => vec![self.report()],
        }
    }

    fn report(&self) -> String {
        match self {
            Self::Long(sum, _) => sum.to_string(),
            Self::Double(sum) => java_double(*sum),
            Self::Text(text, _) => text.clone(),
            Self::Unique(seen) => seen.len().to_string(),
            Self::Histogram(counts) => histogram(counts.values().copied().collect()),
        }
    }
}

fn number(value: &str) -> Result<i64, String> {
    value.trim().parse().map_err(|_| format!("'{value}' is no whole number"))
}

fn double(value: &str) -> Result<f64, String> {
    value.trim().parse().map_err(|_| format!("'{value}' is no number"))
}

/// How many values there are, the least count, the middle one, the most, their mean and standard deviation.
fn histogram(mut counts: Vec<i64>) -> String {
    counts.sort_unstable();
    let n = counts.len();
    let (Some(least), Some(most)) = (counts.first(), counts.last()) else { return String::new() };
    let mean = counts.iter().sum::<i64>() as f64 / n as f64;
    let deviation = (counts.iter().map(|c| (*c as f64 - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    format!("{n}\t{least}\t{}\t{most}\t{}\t{}", counts[n / 2], java_double(mean), java_double(deviation))
}

/// A number as Java's `Double.toString` writes it: with a fraction always, and with an exponent below 10^-3 and from 10^7 on.
fn java_double(n: f64) -> String {
    if n.is_nan() {
        return "NaN".into();
    }
    if n.is_infinite() {
        return if n > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if n == 0.0 || (1e-3..1e7).contains(&n.abs()) {
        return format!("{n:?}");
    }
    let text = format!("{n:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Aggregates lines that are in the order of their keys.
pub(super) struct Aggregate {
    /// What stands between key and value on the way in and out.
    between: Vec<u8>,
    out: Vec<u8>,
    /// Keeps types, for a reducer to go on.
    combines: bool,
    line: Vec<u8>,
    current: Option<(Vec<u8>, Sum)>,
}

impl Aggregate {
    pub(super) fn new(between: &[u8], out: &[u8], combines: bool) -> Self {
        Self { between: between.into(), out: out.into(), combines, line: Vec::new(), current: None }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let at = line.windows(self.between.len().max(1)).position(|window| window == self.between);
        let (key, value) = at.map_or((line, &b""[..]), |at| (&line[..at], &line[at + self.between.len()..]));
        let value = String::from_utf8_lossy(value);
        let of = |e: String| format!("{e}, as value of {}", key.escape_ascii());
        if let Some((current, sum)) = &mut self.current
            && current == key
        {
            return sum.add(&value).map_err(of);
        }
        self.flush(out);
        let Some(colon) = key.iter().position(|b| *b == b':') else {
            return Err(format!("key '{}' has no type and colon", key.escape_ascii()));
        };
        let kind = String::from_utf8_lossy(&key[..colon]);
        self.current = Some((key.into(), Sum::first(&kind, &value).map_err(of)?));
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        let Some((key, sum)) = self.current.take() else { return };
        let mut put = |key: &[u8], value: &str| {
            [key, &self.out, value.as_bytes(), b"\n"].iter().for_each(|bytes| out.extend_from_slice(bytes));
        };
        if self.combines {
            sum.partial().iter().for_each(|value| put(&key, value));
        } else {
            let id = key.iter().position(|b| *b == b':').map_or(0, |colon| colon + 1);
            put(&key[id..], &sum.report());
        }
    }
}

impl Session for Aggregate {
    fn exchange(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Failed> {
        for piece in input.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if let Some(b'\n') = self.line.last() {
                let line = std::mem::take(&mut self.line);
                self.line(&line[..line.len() - 1], out)
                    .map_err(|what| Failed { what: format!("aggregate: {what}"), words: Vec::new() })?;
            }
        }
        Ok(input.len())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Counters>, Failed> {
        self.flush(out);
        Ok(Some(Counters::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &str, combines: bool) -> Result<String, Failed> {
        let (mut aggregate, mut out) = (Aggregate::new(b"\t", b"\t", combines), Vec::new());
        for piece in lines.as_bytes().chunks(7) {
            aggregate.exchange(piece, &mut out)?;
        }
        aggregate.finish(&mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn every_type_is_summed_and_can_be_summed_in_two_steps() {
        let cases = [
            ("LongValueSum:n", &["3", "-1", "40"][..], "n\t42"),
            ("LongValueMax:n", &["3", "-1", "40"], "n\t40"),
            ("LongValueMin:n", &["3", "-1", "40"], "n\t-1"),
            ("DoubleValueSum:n", &["1.5", "2", "0.25"], "n\t3.75"),
            ("StringValueMax:n", &["b", "c", "a"], "n\tc"),
            ("StringValueMin:n", &["b", "c", "a"], "n\ta"),
            ("UniqValueCount:n", &["b", "c", "b"], "n\t2"),
            // Counts 1, 1, 3 and 5: mean 2.5, variance (2.25 + 2.25 + 0.25 + 6.25) / 4 = 2.75.
            ("ValueHistogram:n", &["a\t3", "b", "c\t5", "d"], "n\t4\t1\t3\t5\t2.5\t1.6583123951777"),
        ];
        for (key, values, want) in cases {
            let lines = |values: &[&str]| values.iter().map(|v| format!("{key}\t{v}\n")).collect::<String>();
            let once = run(&lines(values), false).unwrap();
            assert_eq!(once, format!("{want}\n"));
            let (first, second) = values.split_at(2);
            let twice = run(&lines(first), true).unwrap() + &run(&lines(second), true).unwrap();
            assert_eq!(run(&twice, false).unwrap(), once, "{twice}");
        }
    }

    #[test]
    fn keys_are_apart_and_wrong_ones_are_told() {
        assert_eq!(
            run("LongValueSum:a\t1\nLongValueSum:a\t2\nLongValueSum:b:c\t5\n", false).unwrap(),
            "a\t3\nb:c\t5\n"
        );
        for (line, why) in
            [("a\t1\n", "no type"), ("Sum:a\t1\n", "'Sum' is no type"), ("LongValueSum:a\tx\n", "'x' is no whole")]
        {
            let failed = run(line, false).unwrap_err();
            assert!(failed.what.contains(why), "{}", failed.what);
        }
    }

    #[test]
    fn keys_are_bytes() {
        let (mut aggregate, mut out) = (Aggregate::new(b"\t", b"\t", false), Vec::new());
        aggregate.exchange(b"LongValueSum:\xe8\t1\nLongValueSum:\xe9\t2\n", &mut out).unwrap();
        aggregate.finish(&mut out).unwrap();
        assert_eq!(out, b"\xe8\t1\n\xe9\t2\n");
    }

    #[test]
    fn numbers_are_written_as_java_does() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e7, "1.0E7"),
            (1.25e10, "1.25E10"),
            (9999999.0, "9999999.0"),
            (1e-4, "1.0E-4"),
            (-0.5, "-0.5"),
            (0.0, "0.0"),
        ];
        for (n, text) in cases {
            assert_eq!(java_double(n), text);
        }
    }
}
