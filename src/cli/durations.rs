//! Lengths of time, as people write them.

/// Seconds: `90s`, `15m`, `12h`, `30d`; without a unit, seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let fail = || format!("'{text}' is not a length of time; write it as 90s, 15m, 12h or 30d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(fail()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(fail)
}

/// Milliseconds, in the largest unit that they are a whole number of: as [`seconds`] reads them, if they are seconds.
pub(crate) fn told(ms: u64) -> String {
    let units = [(24 * 60 * 60 * 1000, "d"), (60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s")];
    let whole = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_again() {
        for text in ["1s", "90s", "15m", "36h", "30d"] {
            assert_eq!(told(seconds(text).unwrap() * 1000), text);
        }
        assert_eq!((told(0), told(1500), told(120_000)), ("0ms".into(), "1500ms".into(), "2m".into()));
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, want) in [("1", 1), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for not in ["", "0", "0d", "d", "-1s", "1w", "1.5h", "1 h", "18446744073709551615d", "99999999999999999999s"] {
            assert!(seconds(not).is_err(), "{not}");
        }
    }
}
