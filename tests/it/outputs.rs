//! What a job leaves: parts, their manifest, and how they are read back.

use std::fs::{self, File};

use serde_json::Value;

use crate::program::{COUNTS, Folder, folder, many_words};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn result_goes_to_standard_output_or_a_folder() {
    let f = folder();
    for args in ["run wordcount in.txt", "run wordcount -o - in.txt", "run wordcount --output=- in.txt"] {
        assert_eq!(f.out(args), COUNTS, "{args}");
    }
    let ended = f.run("run wordcount in.txt -o deep/out");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""));
    assert!(ended.err.starts_with("gristmill: 5 records in 1 part of deep/out; read 28 bytes in "), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 1);
    assert_eq!(f.names("deep"), ["out"]);
    assert_eq!(f.names("deep/out"), ["_SUCCESS", "part-00000"]);
    assert_eq!(f.read("deep/out/part-00000"), COUNTS);
    assert_eq!(f.run("run wordcount in.txt -o quiet -q").err, "");
}

#[test]
fn parts_together_are_the_result() {
    let f = folder();
    f.file("many.txt", many_words());
    let whole = f.out("run wordcount many.txt");
    assert!(whole.lines().is_sorted());
    for flags in ["--reducers 7", "--reducers 7 --compress zstd", "--reducers 7 --compress gzip", "--reducers 7 --sync"]
    {
        f.out(&format!("run wordcount many.txt -o out --overwrite {flags}"));
        let extension = if flags.contains("zstd") { ".zst" } else { "" };
        let extension = if flags.contains("gzip") { ".gz" } else { extension };
        let mut names: Vec<_> = (0..7).map(|n| format!("part-0000{n}{extension}")).collect();
        names.insert(0, "_SUCCESS".into());
        assert_eq!(f.names("out"), names, "{flags}");
        for args in ["cat out", "cat --no-verify out/"] {
            assert_eq!(sorted(&f.out(args)), sorted(&whole), "{flags}");
        }
    }
    f.out("run sort many.txt -o ordered --reducers 5");
    assert_eq!(f.names("ordered").len(), 6);
    assert_eq!(f.out("cat ordered"), f.out("run sort many.txt"));
    assert!(f.out("cat ordered").lines().is_sorted());
}

#[test]
fn the_number_of_parts_goes_by_the_input_but_on_standard_output() {
    let f = folder();
    File::create(f.path().join("large")).unwrap().set_len(300 << 20).unwrap();
    let parts = |flags: &str| -> Value {
        let plan: Value =
            serde_json::from_str(&f.out(&format!("run wordcount large --explain --json {flags}"))).unwrap();
        plan["parts"].clone()
    };
    assert_eq!([parts(""), parts("-o out"), parts("--reducers 4"), parts("--reducers 4 -o out")], [1, 3, 4, 4]);
    assert_eq!(f.names("."), ["in.txt", "large"]);
}

#[test]
fn overwriting_is_asked_for() {
    let f = folder();
    f.out("run wordcount in.txt -o out");
    let again = f.run("run distinct in.txt -o out");
    assert_eq!(again.code, Some(5));
    assert_eq!(again.err, "gristmill: output out exists; choose another name or pass --overwrite\n");
    assert_eq!(f.out("cat out"), COUNTS);
    f.out("run distinct in.txt -o out --overwrite");
    assert_eq!(f.out("cat out"), "the cat and the dog\nthe end\n");
    assert_eq!(f.names("."), ["in.txt", "out"]);
}

#[test]
fn names_of_outputs_may_be_long_or_end_in_a_dot() {
    let f = folder();
    for name in ["new/.", "new/", &"n".repeat(245), &"n".repeat(255)] {
        f.out(&format!("run wordcount in.txt -o {name} --overwrite"));
        assert_eq!(f.out(&format!("cat {name}")), COUNTS, "{name}");
    }
}

#[test]
fn bad_records_are_passed_over_and_kept() {
    let f = Folder::new();
    f.file("edges", "a\tb\nno tab\nc\tb\nnone here\n");
    let ended = f.run("run reverse-links --edges edges --skip-bad-records 2 -o out");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("gristmill: passed over 2 bad records: see out/_bad/records.jsonl\n"), "{ended:?}");
    assert_eq!(f.out("cat out"), "b\ta,c\n");
    let kept: Vec<Value> = f.read("out/_bad/records.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&kept[0]["offset"], &kept[0]["record"], kept.len()), (&4.into(), &"no tab".into(), 2));
    let one_too_many = f.run("run reverse-links --edges edges --skip-bad-records 1 -o other");
    assert_eq!(one_too_many.code, Some(3), "{one_too_many:?}");
    assert!(f.run("run reverse-links --edges edges --skip-bad-records 9").err.contains("passed over 2 bad records"));
    let too_many = f.run("run reverse-links --edges edges --skip-bad-records 100001");
    assert!(too_many.code == Some(2) && too_many.err.contains("at most 100000 bad records"), "{too_many:?}");
}

#[test]
fn an_output_that_is_not_whole_is_not_printed() {
    let f = folder();
    f.file("dir/part-00000", "x");
    f.file("bad/_SUCCESS", "{}");
    let cases = [
        ("none", "none: no such folder"),
        ("dir", "dir has no _SUCCESS: the job that writes it has not ended or was killed"),
        ("in.txt", "in.txt is a file, not the output of a job"),
        ("bad", "bad/_SUCCESS: not a manifest"),
    ];
    for (name, part) in cases {
        let ended = f.run(&format!("cat {name}"));
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.err.contains(part) && ended.err.lines().count() == 1, "{ended:?}");
    }
}

#[test]
fn damage_to_an_output_is_found() {
    let f = folder();
    f.out("run wordcount in.txt -o out");
    f.out("run wordcount in.txt -o packed --compress gzip");
    let damaged = |what: &str, folder: &str, part: &str| {
        let ended = f.run(&format!("cat {folder}"));
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        assert!(ended.err.contains(part) && ended.err.lines().count() == 1, "{what}: {ended:?}");
    };
    f.file("out/part-00000", COUNTS.replace('3', "4"));
    damaged("a byte", "out", "out/part-00000 is damaged: its checksum is not that of what was written");
    assert!(f.out("cat --no-verify out").contains("the\t4"));
    f.file("out/part-00000", &COUNTS[1..]);
    damaged("length", "out", "it has 29 bytes, and had 30 when it was written");
    fs::remove_file(f.path().join("out/part-00000")).unwrap();
    damaged("part", "out", "out/part-00000 is damaged: it is missing");
    let packed = fs::read(f.path().join("packed/part-00000.gz")).unwrap();
    f.file("packed/part-00000.gz", &packed[..packed.len() - 5]);
    damaged("end", "packed", "truncated gzip data");
    let manifest = f.read("packed/_SUCCESS").replace("part-00000.gz", "../in.txt");
    f.file("packed/_SUCCESS", manifest);
    damaged("a way out", "packed", "'../in.txt' is not the name of a part");
}
