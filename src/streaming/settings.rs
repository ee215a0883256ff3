//! From flags and `-D` settings, by names old and new, to what a job does with lines.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_engine::runner::{Between, Comparator, Fed, Fields, KeySpec, Partition, Text, Written};

/// Settings by name, later ones in the place of earlier ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    pub(super) fn new(defines: &[String]) -> Result<Self, String> {
        let pair = |define: &String| match define.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.to_string())),
            _ => Err(format!("-D {define} is not NAME=VALUE")),
        };
        Ok(Self(defines.iter().map(pair).collect::<Result<_, _>>()?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value under the first of these names that was set.
    pub(super) fn get(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.0.get(*name)).map(String::as_str)
    }

    /// As `get`, of a number.
    pub(super) fn number(&self, names: &[&str]) -> Result<Option<u64>, String> {
        let parse = |text: &str| text.trim().parse().map_err(|_| format!("{} is no number: '{text}'", names[0]));
        self.get(names).map(parse).transpose()
    }

    pub(super) fn is(&self, names: &[&str], default: bool) -> Result<bool, String> {
        match self.get(names).map(str::trim) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("{} is true or false, not '{other}'", names[0])),
        }
    }

    fn separator(&self, names: &[&str]) -> Vec<u8> {
        // Empty is as not set, as in Hadoop.
        self.get(names).filter(|text| !text.is_empty()).unwrap_or("\t").into()
    }

    fn fields(&self, separator: &str, keys: &str) -> Result<Fields, String> {
        let keys = self.number(&[keys])?.unwrap_or(1);
        let keys = u32::try_from(keys).map_err(|_| format!("{keys} fields of a key are too many"))?;
        Ok(Fields { separator: self.separator(&[separator]), keys })
    }

    /// How long a task may do nothing; 0 is for ever.
    pub(super) fn patience(&self) -> Result<Option<Duration>, String> {
        let ms = self.number(&["mapreduce.task.timeout", "mapred.task.timeout"])?.unwrap_or(600_000);
        Ok((ms > 0).then(|| Duration::from_millis(ms)))
    }

    /// How lines are taken apart, sorted and written.
    pub(super) fn text(&self, classes: &Classes<'_>) -> Result<Text, String> {
        let partitioner = self.get(&["mapreduce.job.partitioner.class", "mapred.partitioner.class"]);
        let key_separator = &["mapreduce.map.output.key.field.separator", "map.output.key.field.separator"];
        let input = self.get(&["mapreduce.job.inputformat.class", "mapred.input.format.class"]);
        let input = classes.input.or(input).unwrap_or("TextInputFormat");
        let fed = match class(input) {
            "TextInputFormat" => Fed::Lines,
            "KeyValueTextInputFormat" => Fed::Pairs {
                separator: self.separator(&[
                    "mapreduce.input.keyvaluelinerecordreader.key.value.separator",
                    "key.value.separator.in.input.line",
                ]),
                between: self.separator(&["stream.map.input.field.separator"]),
            },
            _ => {
                return Err(format!(
                    "input format {input} is not known: TextInputFormat and KeyValueTextInputFormat are"
                ));
            }
        };
        if let Some(output) = classes.output.filter(|output| class(output) != "TextOutputFormat") {
            return Err(format!("output format {output} is not known: TextOutputFormat is"));
        }
        let all_key = match classes.io {
            None | Some("text") => false,
            Some("keyonlytext") => true,
            Some(other) => return Err(format!("-io {other} is not known: text and keyonlytext are")),
        };
        let key_only = all_key || self.get(&["stream.reduce.output"]) == Some("keyonlytext");
        let fields = |separator, keys| match all_key {
            true => Ok(Fields { keys: 0, ..Fields::default() }),
            false => self.fields(separator, keys),
        };
        let between = self.separator(&["stream.reduce.input.field.separator"]);
        Ok(Text {
            fed,
            mapped: fields("stream.map.output.field.separator", "stream.num.map.output.key.fields")?,
            between: Between(if all_key { Vec::new() } else { between }),
            reduced: fields("stream.reduce.output.field.separator", "stream.num.reduce.output.key.fields")?,
            written: Written {
                separator: match self
                    .get(&["mapreduce.output.textoutputformat.separator", "mapred.textoutputformat.separator"])
                {
                    Some(separator) => separator.into(),
                    None => b"\t".to_vec(),
                },
                bare: classes.bare,
                key_only,
            },
            partition: self.partition(classes.partitioner.or(partitioner), self.separator(key_separator))?,
            comparator: self.comparator(self.separator(key_separator))?,
        })
    }

    fn partition(&self, name: Option<&str>, separator: Vec<u8>) -> Result<Partition, String> {
        let name = name.unwrap_or("HashPartitioner");
        match class(name) {
            "HashPartitioner" => Ok(Partition::Whole),
            "KeyFieldBasedPartitioner" => {
                let fields =
                    self.number(&["mapreduce.partition.keypartitioner.num.fields", "num.key.fields.for.partition"])?;
                let options = ["mapreduce.partition.keypartitioner.options", "mapred.text.key.partitioner.options"];
                let keys = match fields {
                    Some(0) => Vec::new(),
                    Some(n) => vec![KeySpec::fields(usize::try_from(n).unwrap_or(usize::MAX))],
                    None => specs(self.get(&options).unwrap_or_default(), false)?,
                };
                Ok(Partition::Fields { keys, separator })
            }
            _ => Err(format!("partitioner {name} is not known: HashPartitioner and KeyFieldBasedPartitioner are")),
        }
    }

    fn comparator(&self, separator: Vec<u8>) -> Result<Comparator, String> {
        let names = ["mapreduce.job.output.key.comparator.class", "mapred.output.key.comparator.class"];
        let name = self.get(&names).unwrap_or("Text");
        match class(name) {
            "Text" | "Comparator" | "Text$Comparator" => Ok(Comparator::Bytes),
            "KeyFieldBasedComparator" => {
                let options = ["mapreduce.partition.keycomparator.options", "mapred.text.key.comparator.options"];
                Ok(Comparator::Fields { keys: specs(self.get(&options).unwrap_or_default(), true)?, separator })
            }
            _ => Err(format!("comparator {name} is not known: KeyFieldBasedComparator is")),
        }
    }
}

/// What flags name beside settings.
pub(super) struct Classes<'c> {
    pub(super) input: Option<&'c str>,
    pub(super) output: Option<&'c str>,
    pub(super) partitioner: Option<&'c str>,
    pub(super) io: Option<&'c str>,
    pub(super) bare: bool,
}

/// The name of a class without its package.
pub(super) fn class(name: &str) -> &str {
    name.trim().rsplit('.').next().unwrap_or_default()
}

/// The keys of options as `-k1,2n -k3.2r -nr`. `whole`: options without keys are about the whole key.
fn specs(options: &str, whole: bool) -> Result<Vec<KeySpec>, String> {
    let wrong = |word: &str| format!("'{word}' is no key option: they are -kF[.C][nr][,F[.C][nr]], -n, -r and -nr");
    let mut keys: Vec<(KeySpec, bool)> = Vec::new();
    let (mut numeric, mut reverse) = (false, false);
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(spec) = word.strip_prefix("-k") {
            let spec = if spec.is_empty() { words.next().unwrap_or_default() } else { spec };
            keys.push(key(spec).ok_or_else(|| wrong(word))?);
        } else if let Some(flags) =
            word.strip_prefix('-').filter(|f| !f.is_empty() && f.chars().all(|c| "nr".contains(c)))
        {
            numeric |= flags.contains('n');
            reverse |= flags.contains('r');
        } else {
            return Err(wrong(word));
        }
    }
    if keys.is_empty() && whole {
        keys.push((KeySpec { last_field: None, ..KeySpec::fields(1) }, false));
    }
    // As in sort(1), a key with options of its own does not take those of all.
    for (spec, own) in &mut keys {
        if !*own {
            (spec.numeric, spec.reverse) = (numeric, reverse);
        }
    }
    Ok(keys.into_iter().map(|(spec, _)| spec).collect())
}

/// `F[.C][nr][,F[.C][nr]]`, and whether it has options of its own.
fn key(text: &str) -> Option<(KeySpec, bool)> {
    let (first, last) = match text.split_once(',') {
        Some((first, last)) => (first, Some(last)),
        None => (text, None),
    };
    let mut flags = String::new();
    let mut place = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (place, own) = text.split_at(end);
        flags.push_str(own);
        let (field, byte) = match place.split_once('.') {
            Some((field, byte)) => (field, Some(byte.parse::<usize>().ok()?)),
            None => (place, None),
        };
        Some((field.parse::<usize>().ok().filter(|n| *n > 0)?, byte))
    };
    let (first_field, first_byte) = place(first)?;
    let last = match last {
        Some(last) => Some(place(last)?),
        None => None,
    };
    if !flags.chars().all(|c| "nr".contains(c)) || first_byte == Some(0) {
        return None;
    }
    let spec = KeySpec {
        first_field,
        first_byte: first_byte.unwrap_or(1),
        last_field: last.map(|(field, _)| field),
        // Byte 0 of the last field is its end.
        last_byte: last.and_then(|(_, byte)| byte).filter(|byte| *byte > 0),
        numeric: flags.contains('n'),
        reverse: flags.contains('r'),
    };
    Some((spec, !flags.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_options_are_read() {
        let read = |options: &str| specs(options, true).unwrap();
        let spec = |first, byte, last, end, numeric, reverse| KeySpec {
            first_field: first,
            first_byte: byte,
            last_field: last,
            last_byte: end,
            numeric,
            reverse,
        };
        assert_eq!(read("-k1,2"), [spec(1, 1, Some(2), None, false, false)]);
        assert_eq!(read("-k2.3nr,4.5"), [spec(2, 3, Some(4), Some(5), true, true)]);
        assert_eq!(read("-k 2,2n -k1r"), [spec(2, 1, Some(2), None, true, false), spec(1, 1, None, None, false, true)]);
        assert_eq!(read("-nr"), [spec(1, 1, None, None, true, true)]);
        assert_eq!(
            read("-r -k2,2 -k1n"),
            [spec(2, 1, Some(2), None, false, true), spec(1, 1, None, None, true, false)]
        );
        assert_eq!(read("-k1.2,1.0"), [spec(1, 2, Some(1), None, false, false)]);
        assert_eq!(specs("", false).unwrap(), []);
        for wrong in ["-k", "-k0", "-kx", "-k1,2x", "k1", "-", "-z", "-k1.0"] {
            assert!(specs(wrong, true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn old_names_and_new_ones_are_known() {
        let classes = Classes { input: None, output: None, partitioner: None, io: None, bare: false };
        let text = |defines: &[&str]| {
            let defines: Vec<String> = defines.iter().map(ToString::to_string).collect();
            Settings::new(&defines).and_then(|settings| settings.text(&classes)).unwrap()
        };
        let new = text(&[
            "mapreduce.job.partitioner.class=org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
            "mapreduce.partition.keypartitioner.options=-k1,2",
            "mapreduce.map.output.key.field.separator=.",
            "mapreduce.job.output.key.comparator.class=org.apache.hadoop.mapreduce.lib.partition.KeyFieldBasedComparator",
            "mapreduce.partition.keycomparator.options=-k2,2nr",
        ]);
        let old = text(&[
            "mapred.partitioner.class=KeyFieldBasedPartitioner",
            "mapred.text.key.partitioner.options=-k1,2",
            "map.output.key.field.separator=.",
            "mapred.output.key.comparator.class=KeyFieldBasedComparator",
            "mapred.text.key.comparator.options=-k2,2nr",
        ]);
        assert_eq!(new, old);
        assert_ne!(new, text(&[]));
        assert_eq!(text(&["stream.map.output.field.separator="]).mapped, Fields::default());
        let fields = text(&["stream.map.output.field.separator=::", "stream.num.map.output.key.fields=4"]).mapped;
        assert_eq!((fields.separator.as_slice(), fields.keys), (&b"::"[..], 4));
    }
}
