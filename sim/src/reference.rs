//! What jobs should give, by code that is as plain as can be and shares nothing with the engine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A job's app with its flags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum App {
    /// How often each word occurs.
    WordCount,
    /// Lines with a text in them.
    Grep(String),
    /// Lines in order.
    Sort,
    /// Different lines, and how often each occurs.
    Distinct,
    /// Files in which each word occurs.
    Index,
    /// Lines without a word, and how often each occurs: see [`crate::picky`].
    Picky(String),
    /// What no plain code can foretell: see [`crate::fickle`].
    Fickle,
}

impl App {
    /// Its name, and its flags.
    pub(crate) fn command(&self) -> (&'static str, Vec<String>) {
        let flags = |flags: &[&str]| flags.iter().map(ToString::to_string).collect();
        match self {
            Self::WordCount => ("wordcount", Vec::new()),
            Self::Grep(text) => ("grep", flags(&[text, "--lines"])),
            Self::Sort => ("sort", Vec::new()),
            Self::Distinct => ("distinct", flags(&["--count"])),
            Self::Index => ("index", Vec::new()),
            Self::Picky(word) => ("picky", flags(&[word])),
            Self::Fickle => ("fickle", Vec::new()),
        }
    }

    /// All lines of the result, in the order of their bytes; none of an app that nobody can foretell.
    pub(crate) fn lines(&self, inputs: &BTreeMap<String, String>) -> Vec<String> {
        let lines = || inputs.values().flat_map(|text| text.lines());
        let mut result: Vec<String> = match self {
            Self::Fickle => Vec::new(),
            Self::WordCount => {
                let mut counts = BTreeMap::<&str, u64>::new();
                lines().flat_map(split).for_each(|word| *counts.entry(word).or_default() += 1);
                counts.into_iter().map(|(word, n)| format!("{word}\t{n}")).collect()
            }
            Self::Grep(text) => lines().filter(|line| line.contains(text.as_str())).map(String::from).collect(),
            Self::Sort => lines().map(String::from).collect(),
            Self::Distinct => counted(lines()),
            Self::Picky(word) => counted(lines().filter(|line| !line.contains(word.as_str()))),
            Self::Index => {
                let mut found = BTreeMap::<&str, BTreeSet<&str>>::new();
                for (name, text) in inputs {
                    for word in text.lines().flat_map(split) {
                        found.entry(word).or_default().insert(name);
                    }
                }
                let line = |(word, names): (&str, BTreeSet<&str>)| {
                    format!("{word}\t{}", names.into_iter().collect::<Vec<_>>().join(","))
                };
                found.into_iter().map(line).collect()
            }
        };
        result.sort();
        result
    }

    /// Records of the input that it cannot take.
    pub(crate) fn bad_records(&self, inputs: &BTreeMap<String, String>) -> usize {
        match self {
            Self::Picky(word) => {
                inputs.values().flat_map(|text| text.lines()).filter(|line| line.contains(word.as_str())).count()
            }
            _ => 0,
        }
    }

    /// Whether the parts one after the other are in order.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::Sort)
    }
}

fn counted<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut counts = BTreeMap::<&str, u64>::new();
    lines.for_each(|line| *counts.entry(line).or_default() += 1);
    counts.into_iter().map(|(line, n)| format!("{line}\t{n}")).collect()
}

fn split(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files() {
        let inputs = [("in/a", "the cat\nand the dog\n"), ("in/b", "the end\nthe cat\n")];
        let inputs = inputs.map(|(name, text)| (name.to_string(), text.to_string())).into();
        assert_eq!(App::WordCount.lines(&inputs), ["and\t1", "cat\t2", "dog\t1", "end\t1", "the\t4"]);
        assert_eq!(App::Grep("cat".into()).lines(&inputs), ["the cat", "the cat"]);
        assert_eq!(App::Sort.lines(&inputs), ["and the dog", "the cat", "the cat", "the end"]);
        assert_eq!(App::Distinct.lines(&inputs), ["and the dog\t1", "the cat\t2", "the end\t1"]);
        assert_eq!(App::Picky("cat".into()).lines(&inputs), ["and the dog\t1", "the end\t1"]);
        assert_eq!(App::Picky("cat".into()).bad_records(&inputs), 2);
        assert_eq!(App::Index.lines(&inputs)[1..3], ["cat\tin/a,in/b", "dog\tin/a"]);
    }
}
