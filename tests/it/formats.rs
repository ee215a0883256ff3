//! Records of every format, in chunks of every size: what an app makes of them depends on neither cuts nor threads.

use std::collections::{BTreeMap, BTreeSet};

use crate::program::{Folder, ended};

/// Sizes of chunks, from those that cut within each record to one that never does.
const CHUNKS: [&str; 4] = ["1", "2", "7", "1m"];

/// A text whose length is a multiple of three, with words that go on over borders of records.
fn text() -> Vec<u8> {
    let mut bytes = b"abcdef one\0two\nthree four\r\nfive\r\n\nsix\0\0\xc3\xa9t\xc3\xa9 end\xffed a\0b\nc".to_vec();
    bytes.extend(
        (0..200u32)
            .flat_map(|n| format!("w{}{}", n % 13, [" ", "\n", "\0", "", "\u{e9}"][n as usize % 5]).into_bytes()),
    );
    while !bytes.len().is_multiple_of(3) {
        bytes.push(b'x');
    }
    bytes
}

/// The plainest way to cut.
fn records<'t>(format: &str, text: &'t [u8]) -> Vec<&'t [u8]> {
    let until = |byte: u8| text.split_inclusive(move |b| *b == byte).map(move |r| r.strip_suffix(&[byte]).unwrap_or(r));
    match format {
        "lines" => {
            until(b'\n').map(|r| if r.len() < text.len() { r.strip_suffix(b"\r").unwrap_or(r) } else { r }).collect()
        }
        "nul" => until(0).collect(),
        "whole" => vec![text],
        _ => text.chunks(3).collect(),
    }
}

/// The result of an app, the same whatever the chunks.
#[track_caller]
fn result(f: &Folder, args: &str) -> String {
    let run = |chunk: &str| {
        let threads = if chunk == "7" { 3 } else { 1 };
        let mut command = f.gristmill(&format!("run {args} --chunk-size {chunk} --threads {threads}"));
        let ended = ended(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{args} {chunk}: {ended:?}");
        ended.out
    };
    let results = CHUNKS.map(run);
    for (result, chunk) in results.iter().zip(CHUNKS) {
        assert!(*result == results[3], "{args} --chunk-size {chunk}: {result:?}, not {:?}", results[3]);
    }
    results[3].clone()
}

#[test]
fn words_lie_within_records() {
    let f = Folder::new();
    let text = text();
    f.file("in", &text);
    f.file("more", b"abcdef");
    for format in ["lines", "nul", "whole", "fixed:3"] {
        let mut ascii: BTreeMap<String, u64> = BTreeMap::new();
        let mut unicode = ascii.clone();
        for record in records(format, &text).into_iter().chain(records(format, b"abcdef")) {
            for word in record.split(|b| !b.is_ascii_alphanumeric()).filter(|w| !w.is_empty()) {
                *ascii.entry(String::from_utf8_lossy(word).into()).or_default() += 1;
            }
            let decoded = String::from_utf8_lossy(record).into_owned();
            for word in decoded.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
                *unicode.entry(word.into()).or_default() += 1;
            }
        }
        let lines =
            |counts: &BTreeMap<String, u64>| counts.iter().map(|(w, n)| format!("{w}\t{n}\n")).collect::<String>();
        assert_eq!(result(&f, &format!("wordcount in more --input-format {format}")), lines(&ascii), "{format}");
        assert_eq!(
            result(&f, &format!("wordcount --unicode in more --input-format {format}")),
            lines(&unicode),
            "{format}"
        );
        let words: BTreeSet<String> = ascii.keys().cloned().collect();
        let index = result(&f, &format!("index in more --input-format {format}"));
        assert_eq!(index.lines().map(|l| l.split('\t').next().unwrap().to_string()).collect::<BTreeSet<_>>(), words);
    }
}

#[test]
fn every_app_is_indifferent_to_chunks() {
    let f = Folder::new();
    f.file("in", text());
    f.file("more", b"abcdef");
    for format in ["lines", "nul", "whole", "fixed:3"] {
        for app in [
            "grep -i [a-f]+",
            "grep --lines w1",
            "sort",
            "term-vector",
            "top --k 5",
            "top --records",
            "distinct",
            "distinct -c",
        ] {
            result(&f, &format!("{app} in more --input-format {format}"));
        }
    }
}

#[test]
fn links_lie_within_records() {
    let f = Folder::new();
    let page = "<a href=one>\n<a\nhref=two> <a href=\n'three'> <a href=\"fo\nur\">".repeat(20);
    f.file("page", &page);
    assert_eq!(result(&f, "reverse-links page"), "fo%0Aur\tpage\none\tpage\nthree\tpage\ntwo\tpage\n");
    assert_eq!(result(&f, "reverse-links page --input-format lines"), "fo\tpage\none\tpage\n");
}

#[test]
fn documents_are_told_apart() {
    use std::os::unix::ffi::OsStrExt;
    let f = Folder::new();
    let odd = |byte: u8| f.path().join(std::ffi::OsStr::from_bytes(&[b'd', b'/', byte]));
    f.file("d/\\xff", "literal");
    for byte in [0xfe, 0xff] {
        std::fs::write(odd(byte), "word word").unwrap();
    }
    f.file("standard input", "file");
    let vectors = f.fed("run term-vector d - ./standard* d/\\xff", "fed");
    let expected = [
        "standard input\tfed:1",
        "./standard input\tfile:1",
        "d/\\x5cxff\tliteral:1",
        "d/\\x5cxff\tliteral:1",
        "d/\\xfe\tword:2",
        "d/\\xff\tword:2",
    ];
    assert_eq!((vectors.code, vectors.out.lines().collect::<Vec<_>>()), (Some(0), expected.to_vec()), "{vectors:?}");
    assert_eq!(f.fed("run index - standard?input", "file").out, "file\tstandard input,./standard input\n");
    f.file("line\nfeed", "x");
    f.out("run index --ids -q -o out line?feed line?feed");
    assert_eq!(f.read("out/_documents"), "0\tline%0Afeed\n1\tline%0Afeed\n");
    assert_eq!(f.out("cat out"), "x\t0,1\n");
    f.file("none", "...");
    assert_eq!(f.out("run term-vector none"), "none\t\n");
}

#[test]
fn each_source_is_listed_once() {
    let f = Folder::new();
    f.file("edges", "a\tx\nb\tx\na\tx\n\tx\nb\tx\n\tx\nc\ty\tz\n");
    assert_eq!(result(&f, "reverse-links --edges edges"), "x\ta,b,\ny%09z\tc\n");
}
