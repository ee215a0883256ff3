//! Commands and flags: each is given, and its effect looked at.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Folder, Running, ended, seen, terminal};

const TEXT: &str = "the cat and the dog\nthe end\n";
const COUNTS: &str = "and\t1\ncat\t1\ndog\t1\nend\t1\nthe\t3\n";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.file("in.txt", TEXT);
    folder
}

/// Many different words, so that parts and runs have something in them.
fn many_words() -> String {
    (0..60_000).map(|n| format!("word{} x{}\n", n % 30_011, n % 7)).collect()
}

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
fn inputs_are_files_folders_globs_and_standard_input() {
    let f = folder();
    f.file("d/a.txt", "the\n");
    f.file("d/e/b.log", "end\n");
    f.file("d/_SUCCESS", "hidden");
    let cases = [
        ("in.txt in.txt", "and\t2\ncat\t2\ndog\t2\nend\t2\nthe\t6\n"),
        ("d", "end\t1\nthe\t1\n"),
        ("d/", "end\t1\nthe\t1\n"),
        ("d/**/*.log", "end\t1\n"),
        ("d/*.txt", "the\t1\n"),
        ("-", "fed\t1\n"),
        ("", "fed\t1\n"),
        ("- d/*.txt", "fed\t1\nthe\t1\n"),
    ];
    for (inputs, counts) in cases {
        let ended = f.fed(&format!("run wordcount {inputs}"), "fed");
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), counts, ""), "{inputs}");
    }
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff name");
    fs::write(f.path().join(odd), "odd\n").unwrap();
    assert_eq!(ended(f.gristmill("run wordcount").arg(odd).output().unwrap()).out, "odd\t1\n");
}

#[test]
fn a_terminal_is_no_input_unasked() {
    let f = folder();
    let (person, program) = terminal();
    let ended = ended(f.gristmill("run wordcount").stdin(program).output().unwrap());
    drop(person);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("no INPUT, and standard input is a terminal"), "{ended:?}");
}

#[test]
fn inputs_from_a_list() {
    let f = folder();
    f.file("a b.txt", "one\n");
    f.file("list", "in.txt\na b.txt\n\n");
    f.file("nul", "in.txt\0a b.txt\0");
    f.file("empty", "");
    let all = "and\t1\ncat\t1\ndog\t1\nend\t1\none\t1\nthe\t3\n";
    assert_eq!(f.out("run wordcount --inputs-from list"), all);
    assert_eq!(f.out("run wordcount --inputs-from nul"), all);
    assert_eq!(f.fed("run wordcount --inputs-from -", "in.txt\na b.txt").out, all);
    assert_eq!(f.out("run grep --inputs-from list one in.txt"), "one\t1\n");
    for (list, error) in [("empty", "the list of inputs is empty"), ("none", "cannot read the list of inputs none: ")] {
        let ended = f.run(&format!("run wordcount --inputs-from {list}"));
        assert!(ended.code != Some(0) && ended.err.contains(error), "{ended:?}");
    }
    let ended = f.fed("run wordcount --inputs-from - -", "in.txt\n");
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn a_list_may_be_long() {
    const FILES: usize = 60_000;
    let f = Folder::new();
    let mut list = Vec::new();
    for n in 0..FILES {
        let name = format!("folder-{:03}/file-with-a-long-name-{n:06}.txt", n / 1000);
        f.file(&name, format!("w{}\n", n % 3));
        writeln!(list, "{name}").unwrap();
    }
    f.file("list", &list);
    let counts = "w0\t20000\nw1\t20000\nw2\t20000\n";
    assert_eq!(f.out("run wordcount --inputs-from list"), counts);
    assert_eq!(f.out("run wordcount folder-*"), counts);
}

#[test]
fn parts_together_are_the_result() {
    let f = folder();
    f.file("many.txt", many_words());
    let whole = f.out("run wordcount many.txt");
    assert!(whole.lines().is_sorted());
    for flags in ["-r 7", "--reducers 7 --compress zstd", "-r 7 --compress gzip", "-r 7 --sync"] {
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
fn standard_output_is_in_order_however_the_job_runs() {
    let f = folder();
    f.file("many.txt", many_words());
    let whole = f.out("run wordcount many.txt");
    let flags = ["--threads 1", "--threads 5 --chunk-size 4k", "--memory 16MiB --chunk-size 100", "--temp-dir ."];
    for flags in flags {
        assert_eq!(f.out(&format!("run wordcount many.txt {flags}")), whole, "{flags}");
    }
}

#[test]
fn short_memory_is_met_with_runs_in_the_temp_dir() {
    let f = Folder::new();
    let line = |n: u64| format!("{:016x} {:0100}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n);
    f.file("big.txt", (0..200_000).map(line).collect::<String>());
    fs::create_dir(f.path().join("scratch")).unwrap();
    let args = "run sort big.txt --json --threads 2 -o";
    let spilled: Value =
        serde_json::from_str(&f.out(&format!("{args} a --memory 16m --temp-dir scratch --reducers 3"))).unwrap();
    assert!(spilled["spilled_bytes"].as_u64() > Some(1 << 20) && spilled["spilled_runs"].as_u64() > Some(0));
    let held: Value = serde_json::from_str(&f.out(&format!("{args} b --memory 1g"))).unwrap();
    assert_eq!((&held["spilled_bytes"], &held["memory"]), (&0.into(), &(1u64 << 30).into()));
    assert_eq!(f.names("scratch"), [""; 0]);
    assert!(f.out("cat a") == f.out("cat b"));
    let nowhere = f.run("run sort big.txt --memory 16m --temp-dir nowhere");
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.err.contains("nowhere"), "{nowhere:?}");
}

#[test]
fn inputs_are_cut_as_told() {
    let f = Folder::new();
    f.file("in", "ab\0cd\nab");
    let cases = [
        ("lines", "ab\nab\0cd\n"),
        ("nul", "ab\0cd\nab\0"),
        ("whole", "ab\0cd\nab"),
        ("fixed:2", "\0cababd\n"),
        ("fixed:4", "ab\0cd\nab"),
    ];
    for (format, result) in cases {
        let sorted = f.out(&format!("run sort in --input-format {format}"));
        assert_eq!(sorted, result, "{format}");
    }
    for format in ["fixed:0", "fixed:", "words"] {
        assert_eq!(f.run(&format!("run sort in --input-format {format}")).code, Some(2), "{format}");
    }
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
}

#[test]
fn json_report_keeps_its_fields() {
    let f = folder();
    f.file("more.txt", "the\n");
    let line = f.out("run wordcount in.txt more.txt -o out --reducers 2 --threads 3 --memory 64MiB --json");
    assert_eq!(line.lines().count(), 1);
    let report: Value = serde_json::from_str(&line).unwrap();
    let fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let mut promised = [
        "app",
        "output",
        "inputs",
        "input_bytes",
        "compressed_inputs",
        "emitted_pairs",
        "output_records",
        "output_bytes",
        "parts",
        "counters",
        "bad_records",
        "spilled_runs",
        "spilled_bytes",
        "phases",
        "seconds",
        "threads",
        "memory",
        "peak_memory",
        "notes",
    ];
    let help = f.out("run wordcount --help").split_whitespace().collect::<Vec<_>>().join(" ");
    for field in promised {
        assert!(help.contains(field), "{field} is not in the help");
    }
    promised.sort_unstable();
    assert_eq!(fields, promised);
    let numbers = [
        ("inputs", 2),
        ("input_bytes", TEXT.len() + 4),
        ("compressed_inputs", 0),
        ("emitted_pairs", 8),
        ("output_records", 5),
        ("output_bytes", COUNTS.len()),
        ("bad_records", 0),
        ("threads", 3),
        ("memory", 64 << 20),
    ];
    for (field, n) in numbers {
        assert_eq!(report[field], n, "{field}");
    }
    assert_eq!((&report["app"], &report["output"]), (&"wordcount".into(), &"out".into()));
    let phases: Vec<_> = report["phases"].as_array().unwrap().iter().map(|p| p["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["map", "shuffle", "reduce", "commit"]);
    let seconds = |v: &Value| v["seconds"].as_f64().unwrap();
    assert!(report["phases"].as_array().unwrap().iter().map(seconds).sum::<f64>() <= seconds(&report));
    assert!(report["peak_memory"].as_u64().unwrap() > 1 << 20);
    let manifest: Value = serde_json::from_str(&f.read("out/_SUCCESS")).unwrap();
    for (part, written) in report["parts"].as_array().unwrap().iter().zip(manifest["parts"].as_array().unwrap()) {
        for field in ["records", "bytes", "crc32c"] {
            assert_eq!(part[field], written[field]);
        }
    }
}

#[test]
fn json_report_stays_out_of_the_result() {
    let f = folder();
    f.file("in.txt.gz", gzip(TEXT.as_bytes()));
    let ended = f.run("run wordcount in.txt.gz --json --threads 2");
    assert_eq!(ended.out, COUNTS);
    let report: Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!((&report["output"], &report["compressed_inputs"]), (&Value::Null, &1.into()));
    assert_eq!(report["notes"].as_array().unwrap().len(), 1);
    let counted = ended_json(f.faulty("run faulty in.txt --json -o out"));
    assert_eq!(counted["counters"]["lines"], 2);
}

fn ended_json(mut command: std::process::Command) -> Value {
    serde_json::from_str(&ended(command.output().unwrap()).out).unwrap()
}

#[test]
fn counters_are_told() {
    let f = folder();
    let ended = ended(f.faulty("run faulty in.txt -o out").output().unwrap());
    assert!(ended.err.ends_with("faulty: lines 2\n"), "{ended:?}");
}

#[test]
fn explaining_does_nothing() {
    let f = folder();
    f.file("in.gz", gzip(b"x"));
    let text = f.out("run sort in.txt in.gz -o out --explain --reducers 4 --threads 3 --memory 1GiB");
    let lines: Vec<Vec<_>> = text.lines().map(|l| l.splitn(2, ' ').map(str::trim).collect()).collect();
    let value = |label: &str| lines.iter().find(|l| l[0] == label).map(|l| l[1]).unwrap_or_default();
    assert!(value("input").starts_with("2 inputs of ") && value("input").ends_with(", 1 of which cannot be split"));
    assert_eq!((value("app"), value("records"), value("memory")), ("sort", "lines", "1.0 GiB"));
    assert_eq!((value("work"), value("output")), ("2 units for 3 threads", "4 parts to out"));
    assert!(value("shuffle").starts_with("sort"));
    let plan: Value = serde_json::from_str(&f.out("run wordcount in.txt --explain --json")).unwrap();
    assert_eq!((&plan["inputs"], &plan["parts"], &plan["shuffle"]), (&1.into(), &1.into(), &"fold".into()));
    assert_eq!(f.names("."), ["in.gz", "in.txt"]);
}

#[test]
fn inputs_that_cannot_be_split_are_told_of_once() {
    let f = folder();
    f.file("a.gz", gzip(TEXT.as_bytes()));
    f.file("b.zst", zstd::encode_all(TEXT.as_bytes(), 1).unwrap());
    let told = |inputs: &str| f.run(&format!("run wordcount --threads 2 {inputs}")).err;
    let rest = "compressed and cannot be split:";
    assert_eq!(told("a.gz"), format!("gristmill: the input is {rest} it is read by one thread\n"));
    assert_eq!(told("a.gz in.txt"), format!("gristmill: 1 of 2 inputs is {rest} it is read by one thread\n"));
    assert_eq!(told("."), format!("gristmill: 2 of 3 inputs are {rest} each is read by one thread\n"));
    assert_eq!(told("in.txt") + &told("-q .") + &told("--threads 1 ."), "");
}

#[test]
fn progress_is_shown_when_wanted() {
    let f = folder();
    let run = |flags: &str| {
        let (person, program) = terminal();
        let mut command = f.faulty(&format!("run faulty --slow 300 in.txt -o out --overwrite {flags}"));
        let child = command.stderr(program).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        let ended = Running::adopt(child).wait_unfed();
        assert_eq!(ended.code, Some(0));
        seen(person)
    };
    let bar = run("");
    assert!(bar.contains("map ") && bar.contains("] 0 B of 28 B"), "{bar:?}");
    for flags in ["--progress never", "--quiet"] {
        let seen = run(flags);
        assert!(!seen.contains("map "), "{flags}: {seen:?}");
    }
    let piped = |flags: &str| ended(f.faulty(&format!("run faulty in.txt {flags}")).output().unwrap()).err;
    assert!(piped("--progress always").contains("of 28 bytes") || piped("--progress always").contains("commit: "));
    assert_eq!(piped("--progress auto --quiet") + &piped("-q"), "");
}

#[test]
fn flags_that_have_no_effect_are_refused() {
    let f = folder();
    for flags in ["--compress zstd", "--compress gzip -o -", "--overwrite", "--overwrite -o -"] {
        let ended = f.run(&format!("run wordcount in.txt {flags}"));
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{flags}");
        assert!(ended.err.ends_with("is about a folder; name one with -o DIR\n"), "{ended:?}");
    }
}

#[test]
fn wrong_command_lines_are_told_in_a_line() {
    let f = folder();
    let cases = [
        ("run wordcout in.txt", "a similar subcommand exists: 'wordcount'"),
        ("run wordcount --reducer 3", "a similar argument exists: '--reducers'"),
        ("run wordcount --reducers 0 in.txt", "0 is not in 1..=10000"),
        ("run wordcount --reducers 10001 in.txt", "10001 is not in 1..=10000"),
        ("run wordcount --threads 0 in.txt", "--threads"),
        ("run wordcount --memory lots in.txt", "'lots' is not a size"),
        ("run wordcount --memory 1k in.txt", "at least 16 MiB"),
        ("run wordcount --input-format fixed:x in.txt", "fixed:N"),
        ("run wordcount --compress lz4 -o o in.txt", "possible values: zstd, gzip"),
        ("run wordcount --progress maybe in.txt", "possible values: auto, always, never"),
        ("run grep", "<PATTERN>"),
        ("run grep ( in.txt", "pattern '(': unclosed group"),
        ("run sort --key 0 in.txt", "1-10"),
        ("run wordcount in[ in.txt", "invalid pattern"),
        ("run wordcount - -", "standard input is named twice"),
        ("cat", "<DIR>"),
        ("completions tcl", "bash"),
        ("walk", "unrecognized subcommand 'walk'"),
    ];
    for (args, part) in cases {
        let ended = f.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args}: {ended:?}");
        assert!(ended.err.starts_with("gristmill: ") && ended.err.contains(part), "{args}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{args}: {ended:?}");
    }
    for args in ["", "run"] {
        let ended = f.run(args);
        assert!(ended.code == Some(2) && ended.err.contains("Usage: gristmill"), "{args}: {ended:?}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let f = folder();
    let apps = f.out("apps");
    let names: Vec<_> = apps.lines().map(|l| l.split_whitespace().next().unwrap()).collect();
    let all = ["wordcount", "grep", "sort", "index", "reverse-links", "term-vector", "top", "distinct"];
    assert_eq!(names, all);
    assert!(apps.lines().all(|line| line.split_whitespace().count() > 3), "{apps}");
    let commands = ["", "run", "cat", "apps", "completions"].map(String::from).into_iter();
    for command in commands.chain(names.iter().map(|name| format!("run {name}"))) {
        for flag in ["--help", "-h"] {
            let help = f.out(&format!("{command} {flag}"));
            assert!(help.contains("Example") && help.contains("\n  gristmill "), "{command}: {help}");
        }
    }
    let help = f.out("--help");
    for code in ["0  ", "1  ", "2  ", "3  ", "4  ", "5  ", "130"] {
        assert!(help.contains(&format!("\n  {code}")), "exit code {code}: {help}");
    }
    assert!(f.out("run grep --help").contains("[OPTIONS] <PATTERN> [INPUT]..."));
    assert_eq!(f.out("--version"), format!("gristmill {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn shells_complete_commands_apps_and_flags() {
    let f = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = f.out(&format!("completions {shell}"));
        for word in ["wordcount", "reverse-links", "inputs-from", "no-verify"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    f.file("script", f.out("completions bash"));
    let words = "source ./script; COMP_WORDS=(gristmill run wordcount --red); COMP_CWORD=3; \
                 _gristmill gristmill --red wordcount; echo ${COMPREPLY[@]}";
    let ended = ended(f.command("bash").args(["-c", words]).output().unwrap());
    assert_eq!(ended.out, "--reducers\n", "{ended:?}");
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

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
