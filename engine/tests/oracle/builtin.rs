//! The built-in apps on random text, against what anybody would write for each over the records of the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use gristmill_engine::app::Format;
use gristmill_engine::job::Job;
use gristmill_engine::registry::Files;
use proptest::prelude::*;

use crate::naive::{Record, hashed_parts, records};
use crate::world::{Outcome, Run, Shape, World, any_run, cases};

/// The job that a command line would make.
fn job(app: &str, flags: &[String]) -> Box<dyn Job> {
    let entry = gristmill_engine::apps::all().into_iter().find(|entry| entry.name() == app).unwrap();
    let args = [app.to_string()].into_iter().chain(flags.iter().cloned());
    entry.job(&entry.command().try_get_matches_from(args).unwrap(), Files::Here).unwrap()
}

/// Documents, how they are cut into records, and ways to run over them.
#[derive(Clone, Debug)]
struct Case {
    inputs: Vec<Vec<u8>>,
    shape: Shape,
    runs: Vec<Run>,
}

/// Text of these pieces.
fn text(pieces: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(pieces), 0..150).prop_map(|pieces| pieces.concat())
}

const PROSE: &[&[u8]] = &[
    b"the",
    b"The",
    b"THE",
    b"a",
    b"x1",
    b"\xc3\x89t\xc3\xa9",
    b"\xc3\xa9",
    b"stra\xc3\x9fe",
    b"\xe2\x82",
    b"\xff",
    b" ",
    b" ",
    b" ",
    b", ",
    b"\t",
    b"\n",
    b"\n",
    b"\r\n",
    b"\0",
    b"a word of more than sixteen letters",
    b"incomprehensibilities",
];

fn case(text: impl Strategy<Value = Vec<u8>>, formats: &'static [Format]) -> impl Strategy<Value = Case> {
    let format = prop::sample::select(formats);
    let inputs = prop::collection::vec(text, 1..5);
    (inputs, format, 1u32..12).prop_flat_map(|(mut inputs, format, parts)| {
        if let Format::Fixed(n) = format {
            inputs.iter_mut().for_each(|bytes| bytes.truncate(bytes.len() / n * n));
        }
        let most = inputs.iter().map(Vec::len).max().unwrap_or(0);
        let shape = Shape { format, ..Shape::parts(parts) };
        (Just(inputs), prop::collection::vec(any_run(most), 2)).prop_map(move |(inputs, runs)| Case {
            inputs,
            shape,
            runs,
        })
    })
}

const ALL: &[Format] = &[Format::Lines, Format::Lines, Format::Nul, Format::Whole, Format::Fixed(5)];
const LINES: &[Format] = &[Format::Lines];

/// What a job must leave.
enum Want {
    /// What each key comes to; the keys are divided by their hash.
    Keys(BTreeMap<Vec<u8>, Vec<u8>>),
    /// All parts together.
    All(Vec<u8>),
}

/// Runs an app every way of the case.
fn check(
    case: &Case,
    app: &str,
    flags: &[&str],
    want: impl Fn(&[Record<'_>], &[String]) -> Want,
) -> Result<(), TestCaseError> {
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    check_also(case, app, &flags, want, |_, _| Ok(()))
}

fn check_also(
    case: &Case,
    app: &str,
    flags: &[String],
    want: impl Fn(&[Record<'_>], &[String]) -> Want,
    also: impl Fn(&Outcome, &[String]) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let world = World::of(&case.inputs);
    let names: Vec<String> = world.inputs().iter().map(|input| input.name().into_owned()).collect();
    let want = want(&records(case.shape.format, &case.inputs), &names);
    for run in &case.runs {
        let got = world.run_job(&*job(app, flags), case.shape, *run)?;
        let (got_bytes, want_bytes) = match &want {
            Want::Keys(keys) => (got.parts.clone(), hashed_parts(got.parts.len() as u32, keys.clone())),
            Want::All(bytes) => (vec![got.all()], vec![bytes.clone()]),
        };
        let shown = |parts: &[Vec<u8>]| parts.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
        prop_assert_eq!(shown(&got_bytes), shown(&want_bytes), "{} {:?}, {:?}", app, flags, run);
        also(&got, &names)?;
    }
    Ok(())
}

/// The words of a record: runs of letters and digits of ASCII, or of all of Unicode.
fn words(record: &[u8], unicode: bool, ignore_case: bool) -> Vec<Vec<u8>> {
    let words: Vec<Vec<u8>> = if unicode {
        // What is not UTF-8 becomes a character that is no letter.
        let text = String::from_utf8_lossy(record).into_owned();
        let text = if ignore_case { text.to_lowercase() } else { text };
        text.split(|c: char| !c.is_alphanumeric()).map(|word| word.as_bytes().to_vec()).collect()
    } else {
        let text = if ignore_case { record.to_ascii_lowercase() } else { record.to_vec() };
        text.split(|b| !b.is_ascii_alphanumeric()).map(<[u8]>::to_vec).collect()
    };
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

fn counts(keys: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Vec<u8>, u64> {
    let mut all = BTreeMap::new();
    keys.into_iter().for_each(|key| *all.entry(key).or_default() += 1);
    all
}

/// A line of a key, a TAB and more.
fn row(key: &[u8], more: impl AsRef<[u8]>) -> Vec<u8> {
    [key, b"\t", more.as_ref(), b"\n"].concat()
}

fn counted(counts: BTreeMap<Vec<u8>, u64>) -> Want {
    Want::Keys(counts.into_iter().map(|(key, n)| (key.clone(), row(&key, n.to_string()))).collect())
}

/// A name in a list of names.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace(',', "%2C")
}

/// The flags about words, and what they mean.
const WORDS: [(&[&str], bool, bool); 4] = [
    (&[], false, false),
    (&["--ignore-case"], false, true),
    (&["--unicode"], true, false),
    (&["--unicode", "-i"], true, true),
];

const PATTERNS: &[&str] =
    &["the", "[a-z]+", r"\w+ ", "^a", "x1$", "[^t]+", ".", "(?i)THE|x", r"\Athe", "a*", "", r"\s", "^$", r"\B"];

/// As a record ends in the output.
fn ended(record: &[u8], format: Format) -> Vec<u8> {
    let end: &[u8] = match format {
        Format::Lines => b"\n",
        Format::Nul => b"\0",
        Format::Whole | Format::Fixed(_) => b"",
    };
    [record, end].concat()
}

fn regex(pattern: &str, ignore_case: bool) -> regex::bytes::Regex {
    let mut builder = regex::bytes::RegexBuilder::new(pattern);
    builder.multi_line(true).crlf(true).case_insensitive(ignore_case).build().unwrap()
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn wordcount(case in case(text(PROSE), ALL)) {
        for (flags, unicode, ignore_case) in WORDS {
            check(&case, "wordcount", flags, |records, _| {
                counted(counts(records.iter().flat_map(|r| words(r.bytes, unicode, ignore_case))))
            })?;
        }
    }

    #[test]
    fn grep_counts(case in case(text(PROSE), ALL), pattern in prop::sample::select(PATTERNS)) {
        for (flags, ignore_case) in [(vec!["--", pattern], false), (vec!["-i", "--", pattern], true)] {
            let regex = regex(pattern, ignore_case);
            check(&case, "grep", &flags, |records, _| {
                let found = records.iter().flat_map(|r| regex.find_iter(r.bytes).map(|m| m.as_bytes().to_vec()));
                counted(counts(found.filter(|found| !found.is_empty())))
            })?;
        }
    }

    #[test]
    fn grep_lines(case in case(text(PROSE), ALL), pattern in prop::sample::select(PATTERNS)) {
        for (flag, invert, names) in [(&[][..], false, false), (&["-v"][..], true, false), (&["-H"], false, true)] {
            let regex = regex(pattern, false);
            let flags = [&["--lines"], flag, &["--", pattern]].concat();
            check(&case, "grep", &flags, |records, inputs| {
                let matching = records.iter().filter(|r| regex.is_match(r.bytes) != invert);
                Want::All(matching.flat_map(|r| {
                    let name = if names { inputs[r.input as usize].clone() + ":" } else { String::new() };
                    [name.into_bytes(), ended(r.bytes, case.shape.format)].concat()
                }).collect())
            })?;
        }
    }

    #[test]
    fn grep_for_a_plain_string(case in case(text(&[b".", b"*", b"a", b"(", b"\n"]), LINES)) {
        check(&case, "grep", &["--lines", "-F", ".("], |records, _| {
            let matching = records.iter().filter(|r| r.bytes.windows(2).any(|two| two == b".("));
            Want::All(matching.flat_map(|r| ended(r.bytes, Format::Lines)).collect())
        })?;
    }

    #[test]
    fn sort(case in case(text(PROSE), ALL), from in 1usize..6, more in 0usize..4) {
        let to = from + more;
        let range = format!("{from}-{to}");
        let key = |r: &[u8], ranged: bool| match ranged {
            true => r[(from - 1).min(r.len())..to.min(r.len())].to_vec(),
            false => r.to_vec(),
        };
        let ranged = ["--key", &range];
        let tables: [(&[&str], bool); 2] = [(&[], false), (&ranged, true)];
        for (flags, ranged) in tables {
            for (reverse, unique) in [(false, false), (true, false), (false, true), (true, true)] {
                let more = [(reverse, "--reverse"), (unique, "--unique")].into_iter().filter(|(on, _)| *on);
                let flags: Vec<&str> = flags.iter().copied().chain(more.map(|(_, flag)| flag)).collect();
                check(&case, "sort", &flags, |records, _| {
                    sorted(records, case.shape.format, reverse, unique, |r| key(r, ranged))
                })?;
            }
        }
    }

    #[test]
    fn sort_by_fields(
        rows in prop::collection::vec(("[ab]{0,2}", -30i32..30, prop::sample::select(vec!["", ".5", ".0", ".25", ".250"])), 0..60),
        runs in prop::collection::vec(any_run(600), 2),
        parts in 1u32..6,
    ) {
        let line = |(name, whole, fraction): &(String, i32, &str)| format!("{name};{whole:03}{fraction};rest\n").into_bytes();
        let case = Case { inputs: vec![rows.iter().flat_map(line).collect()], shape: Shape::parts(parts), runs };
        let field = |r: &[u8], n: usize| String::from_utf8_lossy(r).split(';').nth(n - 1).unwrap_or_default().to_string();
        for (reverse, unique) in [(false, false), (true, false), (false, true), (true, true)] {
            let more: Vec<&str> = [(reverse, "-r"), (unique, "-u")].into_iter().filter(|(on, _)| *on).map(|(_, f)| f).collect();
            let flags: Vec<&str> = ["--separator", ";", "--field", "1"].into_iter().chain(more.clone()).collect();
            check(&case, "sort", &flags, |records, _| {
                sorted(records, Format::Lines, reverse, unique, |r| field(r, 1))
            })?;
            let flags: Vec<&str> = ["--separator", ";", "--field", "2", "--numeric"].into_iter().chain(more).collect();
            check(&case, "sort", &flags, |records, _| {
                sorted(records, Format::Lines, reverse, unique, |r| (field(r, 2).parse::<f64>().unwrap_or(f64::NAN) * 100.0) as i64)
            })?;
        }
    }

    #[test]
    fn index(case in case(text(PROSE), ALL)) {
        for (word_flags, unicode, ignore_case) in WORDS {
            let documents = |records: &[Record<'_>]| {
                let mut all: BTreeMap<Vec<u8>, BTreeSet<u32>> = BTreeMap::new();
                for r in records {
                    words(r.bytes, unicode, ignore_case).into_iter().for_each(|w| { all.entry(w).or_default().insert(r.input); });
                }
                all
            };
            let listed = |records: &[Record<'_>], name: &dyn Fn(u32) -> String| {
                let list = |inputs: BTreeSet<u32>| inputs.into_iter().map(name).collect::<Vec<_>>().join(",");
                Want::Keys(documents(records).into_iter().map(|(w, inputs)| (w.clone(), row(&w, list(inputs)))).collect())
            };
            check(&case, "index", word_flags, |records, names| listed(records, &|n| escaped(&names[n as usize])))?;
            let flags: Vec<String> = word_flags.iter().chain(&["--ids"]).map(ToString::to_string).collect();
            check_also(&case, "index", &flags, |records, _| listed(records, &|n| n.to_string()), |got, names| {
                let lines = names.iter().enumerate().map(|(n, name)| format!("{n}\t{name}\n"));
                prop_assert_eq!(&got.files[&PathBuf::from("_documents")], &lines.collect::<String>().into_bytes());
                Ok(())
            })?;
        }
    }

    #[test]
    fn reverse_links(case in case(text(&[b"<a href=\"x\">", b"<A HREF='y#z'>", b"<a\nhref = x >", b"<p>", b"\n", b"<a class=k href=y>"]), &[Format::Whole, Format::Lines])) {
        let href = regex::bytes::Regex::new(r#"(?i)\shref *= *["']?([xy])"#).unwrap();
        check(&case, "reverse-links", &[], |records, names| {
            let mut all: BTreeMap<Vec<u8>, BTreeSet<u32>> = BTreeMap::new();
            for r in records {
                href.captures_iter(r.bytes).for_each(|link| { all.entry(link[1].to_vec()).or_default().insert(r.input); });
            }
            let list = |inputs: BTreeSet<u32>| inputs.into_iter().map(|n| escaped(&names[n as usize])).collect::<Vec<_>>().join(",");
            Want::Keys(all.into_iter().map(|(target, inputs)| (target.clone(), row(&target, list(inputs)))).collect())
        })?;
    }

    #[test]
    fn reverse_links_of_edges(case in case(text(&[b"a\tb\n", b"b\tb\n", b"a\t\n", b"c,%\tb\r\n", b"a\tb\tc\n", b"\tlong target of many letters\n"]), LINES)) {
        check(&case, "reverse-links", &["--edges"], |records, _| {
            let mut all: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
            for r in records {
                let text = String::from_utf8_lossy(r.bytes);
                let (source, target) = text.split_once('\t').unwrap();
                all.entry(target.into()).or_default().push(source.into());
            }
            let list = |sources: Vec<String>| {
                let mut seen = BTreeSet::new();
                let first = sources.iter().filter(|source| seen.insert(*source));
                first.map(|s| escaped(s)).collect::<Vec<_>>().join(",")
            };
            let shown = |target: &[u8]| String::from_utf8_lossy(target).replace('\t', "%09").into_bytes();
            Want::Keys(all.into_iter().map(|(target, sources)| (target.clone(), row(&shown(&target), list(sources)))).collect())
        })?;
    }

    #[test]
    fn term_vector(case in case(text(PROSE), ALL), terms in 1usize..5, least in 1u64..4) {
        let flags = ["--terms", &terms.to_string(), "--min-count", &least.to_string(), "-i"];
        check(&case, "term-vector", &flags, |records, names| {
            let vector = |input: u32| {
                let of = records.iter().filter(|r| r.input == input).flat_map(|r| words(r.bytes, false, true));
                let mut all: Vec<_> = counts(of).into_iter().filter(|(_, n)| *n >= least).collect();
                all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                let shown = all.iter().take(terms).map(|(w, n)| format!("{}:{n}", String::from_utf8_lossy(w)));
                shown.collect::<Vec<_>>().join(" ")
            };
            // An empty file has no chunk, and so no vector.
            let documents: BTreeSet<u32> = records.iter().map(|r| r.input).collect();
            Want::Keys(documents.into_iter().map(|n| {
                let name = &names[n as usize];
                (n.to_be_bytes().to_vec(), row(escaped(name).as_bytes(), vector(n)))
            }).collect())
        })?;
    }

    #[test]
    fn top(mut case in case(text(PROSE), ALL), k in 1usize..12) {
        // The best of all are in one part.
        case.shape.reducers = None;
        let best = |counts: BTreeMap<Vec<u8>, u64>| {
            let mut all: Vec<_> = counts.into_iter().collect();
            all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            Want::All(all.into_iter().take(k).flat_map(|(key, n)| row(&key, n.to_string())).collect())
        };
        let k = k.to_string();
        check(&case, "top", &["-k", &k, "--records"], |records, _| best(counts(records.iter().map(|r| r.bytes.to_vec()))))?;
        for (flags, unicode, ignore_case) in WORDS {
            let flags: Vec<&str> = ["--k", &k].into_iter().chain(flags.iter().copied()).collect();
            check(&case, "top", &flags, |records, _| best(counts(records.iter().flat_map(|r| words(r.bytes, unicode, ignore_case)))))?;
        }
    }

    #[test]
    fn distinct(case in case(text(&[b"a", b"b", b"\n", b"\r\n", b"\0", b"a line of more than sixteen bytes"]), ALL)) {
        let all = |records: &[Record<'_>]| counts(records.iter().map(|r| r.bytes.to_vec()));
        // As records end in the input, and where nothing ends them, as lines do.
        let end: &[u8] = if case.shape.format == Format::Nul { b"\0" } else { b"\n" };
        check(&case, "distinct", &["--count"], |records, _| {
            let line = |(key, n): (Vec<u8>, u64)| (key.clone(), [&key[..], b"\t", n.to_string().as_bytes(), end].concat());
            Want::Keys(all(records).into_iter().map(line).collect())
        })?;
        check(&case, "distinct", &[], |records, _| {
            Want::Keys(all(records).into_keys().map(|key| (key.clone(), ended(&key, case.shape.format))).collect())
        })?;
    }
}

/// Where matches are empty or classes hold line ends, a chunk searched as a whole could differ from its records.
#[test]
fn grep_at_the_ends_of_records() {
    let text: &[u8] = b"a\r\nab\n\r\n\n1 a\r\na\n\0b\n\0ba\r\nb\r";
    let patterns = [r"\B", "^$", "$", "^", "a$", "(?-R)a$", "a[^x]", "[^x]b", r"\s", r"\bb", ".", ""];
    for format in [Format::Lines, Format::Nul, Format::Whole, Format::Fixed(1)] {
        let case = Case {
            inputs: vec![text.to_vec()],
            shape: Shape { format, ..Shape::parts(1) },
            runs: vec![Run::PLAIN, Run::tight()],
        };
        for pattern in patterns {
            let regex = regex(pattern, false);
            for (flags, invert) in [(&["--lines"][..], false), (&["--lines", "-v"], true)] {
                let flags = [flags, &["--", pattern]].concat();
                let done = check(&case, "grep", &flags, |records, _| {
                    let matching = records.iter().filter(|r| regex.is_match(r.bytes) != invert);
                    Want::All(matching.flat_map(|r| ended(r.bytes, format)).collect())
                });
                done.unwrap();
            }
        }
    }
}

/// Records by a key, those with equal keys in input order, or the first of them only.
fn sorted<K: Ord>(
    records: &[Record<'_>],
    format: Format,
    reverse: bool,
    unique: bool,
    key: impl Fn(&[u8]) -> K,
) -> Want {
    let mut all: Vec<(K, &[u8])> = records.iter().map(|r| (key(r.bytes), r.bytes)).collect();
    all.sort_by(|a, b| if reverse { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
    if unique {
        all.dedup_by(|later, first| later.0 == first.0);
    }
    Want::All(all.into_iter().flat_map(|(_, record)| ended(record, format)).collect())
}
