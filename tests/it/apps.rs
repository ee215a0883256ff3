//! What each app computes, against the plainest computation of the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::program::Folder;

/// Ways to run a job that must not change its result.
const WAYS: [&str; 4] =
    ["--threads 1", "--threads 3 --chunk-size 300", "--chunk-size 7k --memory 16m", "-o out --overwrite"];

/// The result of an app over `docs`, the same whichever way it is run.
#[track_caller]
fn result(f: &Folder, args: &str) -> String {
    let results = WAYS.map(|way| match f.out(&format!("run {args} {way}")) {
        out if way.contains("-o") => out + &f.out("cat out"),
        out => out,
    });
    for (result, way) in results.iter().zip(WAYS) {
        assert!(*result == results[0], "{args} {way} differs");
    }
    results[0].clone()
}

/// Documents of words, some of which are rare, in three files, one of them compressed.
fn documents() -> (Folder, Vec<(String, String)>) {
    let mut state = 7u64;
    let mut next = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let separators = [" ", "  ", ", ", ".\n", "\n\n", "-", "\t", " é "];
    let mut text = |words: usize| {
        let mut out = String::new();
        for _ in 0..words {
            let range = [20, 300, 5000][next(3) as usize];
            let word = format!("{}{}", ["w", "Wo", "x1", "été"][next(4) as usize], next(range));
            out += &word;
            out += separators[next(separators.len() as u64) as usize];
        }
        out
    };
    let all = [("docs/a.txt", text(20_000)), ("docs/b.txt", text(7)), ("docs/c,%.txt", text(3000))];
    let f = Folder::new();
    for (name, text) in &all {
        f.file(name, text);
    }
    let zipped = text(500);
    f.file("docs/d.gz", crate::program::gzip(zipped.as_bytes()));
    let all = all.map(|(name, text)| (name.to_string(), text)).into_iter();
    (f, all.chain([("docs/d.gz".to_string(), zipped)]).collect())
}

fn ascii_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty())
}

fn counts(words: impl IntoIterator<Item = impl Into<String>>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    words.into_iter().for_each(|w| *counts.entry(w.into()).or_insert(0) += 1);
    counts
}

fn lines<K: std::fmt::Display, V: std::fmt::Display>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    pairs.into_iter().map(|(k, v)| format!("{k}\t{v}\n")).collect()
}

fn records(docs: &[(String, String)]) -> Vec<&str> {
    docs.iter().flat_map(|(_, text)| text.lines()).collect()
}

#[test]
fn wordcount() {
    let (f, docs) = documents();
    let all = || docs.iter().flat_map(|(_, text)| ascii_words(text));
    assert_eq!(result(&f, "wordcount docs"), lines(counts(all())));
    assert_eq!(result(&f, "wordcount -i docs"), lines(counts(all().map(str::to_ascii_lowercase))));
    let unicode =
        || docs.iter().flat_map(|(_, text)| text.split(|c: char| !c.is_alphanumeric())).filter(|w| !w.is_empty());
    assert_eq!(result(&f, "wordcount --unicode docs"), lines(counts(unicode())));
    let lower = unicode().map(str::to_lowercase);
    assert_eq!(result(&f, "wordcount --unicode --ignore-case docs"), lines(counts(lower)));
}

#[test]
fn grep_counts_matches() {
    let (f, docs) = documents();
    for (flags, pattern) in [("", "w1[0-9]"), ("", "^x1"), ("-i", "WO[0-9]+$"), ("-F", "é w"), ("", r"\S+,")] {
        let naive = if flags == "-F" { regex::escape(pattern) } else { pattern.into() };
        let naive = regex::RegexBuilder::new(&naive).case_insensitive(flags == "-i").build().unwrap();
        let found = records(&docs).into_iter().flat_map(|line| naive.find_iter(line).map(|m| m.as_str()));
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "{pattern}");
        let results = WAYS.map(|way| {
            let mut command = f.gristmill(&format!("run grep {flags} {}", if way.contains("-o") { "" } else { way }));
            let ended = crate::program::ended(command.args([pattern, "docs"]).output().unwrap());
            assert_eq!(ended.code, Some(0), "{ended:?}");
            ended.out
        });
        for result in results {
            assert_eq!(result, lines(counts(found.iter().copied())), "{flags} {pattern}");
        }
    }
}

#[test]
fn grep_prints_lines_in_input_order() {
    let (f, docs) = documents();
    let put = |prefix: bool, invert: bool| {
        let mut out = String::new();
        for (name, text) in &docs {
            for line in text.lines().filter(|line| line.contains("w1") != invert) {
                let prefix = if prefix { format!("{name}:") } else { String::new() };
                out += &format!("{prefix}{line}\n");
            }
        }
        out
    };
    assert_eq!(result(&f, "grep w1 --lines docs"), put(false, false));
    assert_eq!(result(&f, "grep w1 --lines -v docs"), put(false, true));
    assert_eq!(result(&f, "grep w1 --lines --with-filename docs"), put(true, false));
    assert_eq!(result(&f, "grep w1 --lines -H --invert-match docs"), put(true, true));
}

#[test]
fn sort() {
    let (f, docs) = documents();
    let mut expected = records(&docs);
    let text = |lines: &[&str]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    expected.sort();
    assert_eq!(result(&f, "sort docs"), text(&expected));
    let unique: BTreeSet<_> = expected.iter().copied().collect();
    assert_eq!(result(&f, "sort -u docs"), text(&Vec::from_iter(unique)));
    // Equal records look alike, so the reverse of the whole is that of its order.
    expected.reverse();
    assert_eq!(result(&f, "sort --reverse docs"), text(&expected));
    let mut by_bytes = records(&docs);
    let key = |line: &&str| line.as_bytes()[1.min(line.len())..4.min(line.len())].to_vec();
    by_bytes.sort_by_key(key);
    assert_eq!(result(&f, "sort --key 2-4 docs"), text(&by_bytes));
}

#[test]
fn sort_by_fields_and_numbers() {
    let f = Folder::new();
    let rows: Vec<String> = (0..5000i64).map(|n| format!("r{n};{};{}.5", n * 7919 % 101, (n * 31) % 97 - 48)).collect();
    f.file("rows", rows.iter().map(|r| format!("{r}\n")).collect::<String>());
    let field = |row: &str, n: usize| row.split(';').nth(n - 1).unwrap().to_string();
    let text = |rows: Vec<String>| rows.into_iter().map(|r| r + "\n").collect::<String>();
    let mut expected = rows.clone();
    expected.sort_by_key(|row| field(row, 2));
    assert_eq!(result(&f, "sort --field 2 --separator ; rows"), text(expected));
    let mut expected = rows.clone();
    expected.sort_by(|a, b| field(a, 3).parse::<f64>().unwrap().total_cmp(&field(b, 3).parse().unwrap()));
    assert_eq!(result(&f, "sort --field 3 --separator ; --numeric rows"), text(expected.clone()));
    expected = rows.clone();
    expected.sort_by(|a, b| field(b, 3).parse::<f64>().unwrap().total_cmp(&field(a, 3).parse().unwrap()));
    assert_eq!(result(&f, "sort --field 3 --separator ; -n -r rows"), text(expected.clone()));
    expected.dedup_by_key(|row| field(row, 3));
    assert_eq!(result(&f, "sort --field 3 --separator ; -nru rows"), text(expected));
}

#[test]
fn index() {
    let (f, docs) = documents();
    let mut words: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (id, (_, text)) in docs.iter().enumerate() {
        ascii_words(text).for_each(|w| {
            words.entry(w).or_default().insert(id);
        });
    }
    let joined = |name: &dyn Fn(usize) -> String| {
        lines(words.iter().map(|(w, ids)| (w, ids.iter().map(|id| name(*id)).collect::<Vec<_>>().join(","))))
    };
    let escaped = |id: usize| docs[id].0.replace('%', "%25").replace(',', "%2C");
    assert_eq!(result(&f, "index docs"), joined(&escaped));
    for way in WAYS {
        f.out(&format!("run index --ids docs {way} -o out --overwrite"));
        assert_eq!(f.out("cat out"), joined(&|id| id.to_string()));
        assert_eq!(f.read("out/_documents"), lines((0..docs.len()).map(|id| (id, escaped(id)))));
    }
    let ended = f.run("run index --ids docs");
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.err.contains("_documents") && ended.err.contains("-o DIR"), "{ended:?}");
}

#[test]
fn reverse_links() {
    let f = Folder::new();
    let pages = [
        ("site/a.html", "<a href=\"x.html\">x</a> <A HREF='y.html#part'>y</A>\n<a href=x.html>again</a>"),
        ("site/b.html", "<p>href=no</p><a class=k\nhref = \"x.html\">x</a><a href=\"#here\">no</a>"),
        ("site/c.html", "no links"),
    ];
    for (name, text) in pages {
        f.file(name, text);
    }
    assert_eq!(result(&f, "reverse-links site"), "x.html\tsite/a.html,site/b.html\ny.html\tsite/a.html\n");
    let edges: Vec<(u32, u32)> = (0..3000u32).map(|n| (n % 40, n.wrapping_mul(2_654_435_761) >> 24)).collect();
    f.file("edges", lines(edges.iter().copied()));
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (source, target) in edges {
        let sources = expected.entry(target.to_string()).or_default();
        if !sources.contains(&source.to_string()) {
            sources.push(source.to_string());
        }
    }
    let expected = lines(expected.into_iter().map(|(target, sources)| (target, sources.join(","))));
    assert_eq!(result(&f, "reverse-links --edges edges"), expected);
}

#[test]
fn term_vector() {
    let (f, docs) = documents();
    let expected = |terms: usize, least: u64| {
        let vector = |text: &str| {
            let mut all: Vec<_> = counts(ascii_words(text)).into_iter().filter(|(_, n)| *n >= least).collect();
            all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            all.iter().take(terms).map(|(w, n)| format!("{w}:{n}")).collect::<Vec<_>>().join(" ")
        };
        let escaped = |name: &str| name.replace('%', "%25").replace(',', "%2C");
        let named = docs.iter().map(|(name, text)| (escaped(name), vector(text)));
        lines(named)
    };
    assert_eq!(result(&f, "term-vector docs"), expected(10, 1));
    assert_eq!(result(&f, "term-vector -n 3 --min-count 5 docs"), expected(3, 5));
}

#[test]
fn top() {
    let (f, docs) = documents();
    let best = |counts: BTreeMap<String, u64>, k: usize| {
        let mut all: Vec<_> = counts.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        lines(all.into_iter().take(k))
    };
    let words = || counts(docs.iter().flat_map(|(_, text)| ascii_words(text)));
    assert_eq!(result(&f, "top docs"), best(words(), 10));
    assert_eq!(result(&f, "top -k 2000 docs"), best(words(), 2000));
    assert_eq!(result(&f, "top -k 100000 docs"), best(words(), 100_000));
    assert_eq!(result(&f, "top --records -k 25 docs"), best(counts(records(&docs)), 25));
    assert_eq!(f.run("run top --records --unicode docs").code, Some(2));
}

#[test]
fn distinct() {
    let (f, docs) = documents();
    let all = counts(records(&docs));
    assert_eq!(result(&f, "distinct docs"), all.keys().map(|k| format!("{k}\n")).collect::<String>());
    assert_eq!(result(&f, "distinct --count docs"), lines(all));
    let counted = f.fed("run distinct -c - --input-format nul", b"a\nb\0c\0a\nb\0");
    assert_eq!(counted.out, "a\nb\t2\0c\t1\0", "{}", counted.err);
}
