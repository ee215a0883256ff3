//! What is told of a job beside its result: reports, plans, notes, progress.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{COUNTS, Running, TEXT, ended, folder, gzip, seen, terminal};

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
    assert_eq!(report["notes"].as_array().unwrap().len(), 0);
    let counted = ended_json(f.faulty("run faulty in.txt --json -o out"));
    assert_eq!(counted["counters"]["lines"], 2);
}

#[test]
fn threads_without_work_are_not_started() {
    let f = folder();
    let threads = |flags: &str| {
        let report: Value =
            serde_json::from_str(&f.out(&format!("run wordcount in.txt -o out --overwrite --json {flags}"))).unwrap();
        report["threads"].as_u64().unwrap()
    };
    let machine = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(threads("--threads 3"), 3);
    // The input is 28 bytes.
    assert_eq!(threads("--threads 1024"), machine.max(16));
    assert_eq!(threads("--threads 40 --chunk-size 1"), machine.max(29));
}

fn ended_json(mut command: Command) -> Value {
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
fn what_is_odd_about_inputs_is_told() {
    let f = folder();
    f.file("a.gz", gzip(TEXT.as_bytes()));
    assert_eq!(f.run("run wordcount --threads 2 a.gz in.txt").err, "", "it is not large");
    f.file("logs/b.xz", "packed");
    f.file("logs/c.txt", TEXT);
    f.out("run wordcount in.txt -o logs/old -q");
    let told = f.run("run wordcount logs");
    let lines = "gristmill: logs/old is the output of a job, and read as input\n\
                 gristmill: logs/b.xz is packed in a way that is not read: its bytes are the input\n";
    assert_eq!((told.code, told.err.as_str()), (Some(0), lines));
    let named = f.run("run wordcount logs/b.xz");
    assert_eq!(named.code, Some(1), "{named:?}");
    assert!(
        named.err.contains("logs/b.xz: its format is not one that is decompressed") && named.err.contains("'xz -d'")
    );
    assert_eq!(f.run("run wordcount logs/old -q").err + &f.run("run wordcount logs/old").err, "");
}

#[test]
fn a_result_on_the_terminal_has_no_bar_in_it() {
    let f = folder();
    let (person, program) = terminal();
    let mut command = f.faulty("run faulty --slow 800 in.txt");
    let child = command.stdout(program.try_clone().unwrap()).stderr(program).spawn().unwrap();
    drop(command);
    assert_eq!(Running::adopt(child).wait_unfed().code, Some(0));
    assert_eq!(seen(person).replace('\r', ""), "the cat and the dog\t1\nthe end\t1\nfaulty: lines 2\n");
}

#[test]
fn names_are_escaped_wherever_they_are_told() {
    let f = folder();
    let odd = "odd\n\u{1b}[2J";
    for (flag, out) in [("-q", ""), ("--explain", "odd\\n\\u{1b}[2J")] {
        let ended = ended(f.gristmill("run wordcount in.txt -o").args([odd, flag]).output().unwrap());
        assert!(!ended.out.contains('\u{1b}') && ended.out.contains(out), "{ended:?}");
        let _ = std::fs::remove_dir_all(f.path().join(odd));
    }
    let ended = ended(f.gristmill("run wordcount in.txt -o").arg(odd).output().unwrap());
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    assert!(ended.err.contains(" of odd\\n\\u{1b}[2J; "), "{ended:?}");
}

#[test]
fn explaining_says_what_would_be_refused_and_passed_over() {
    let f = folder();
    f.file("d/a", "x");
    f.file("d/_b", "x");
    f.file("d/.c/e", "x");
    f.file("precious/file", "x");
    let text = f.out("run wordcount d -o precious --explain");
    assert!(text.contains("passed over   2 files or folders whose names begin with '_' or '.'\n"), "{text}");
    assert!(text.contains("refused       output precious exists; "), "{text}");
    let plan: Value = serde_json::from_str(&f.out("run wordcount d -o precious --overwrite --explain --json")).unwrap();
    assert_eq!((&plan["app"], &plan["output"], &plan["hidden"]), (&"wordcount".into(), &"precious".into(), &2.into()));
    assert!(plan["refused"].as_str().unwrap().contains("is not the output of a job"), "{plan}");
    let plan: Value = serde_json::from_str(&f.out("run wordcount d --explain --json")).unwrap();
    assert_eq!((&plan["output"], &plan["refused"]), (&Value::Null, &Value::Null));
}

#[test]
fn progress_is_shown_when_wanted() {
    let f = folder();
    let run = |flags: &str| {
        let (person, program) = terminal();
        let mut command = f.faulty(&format!("run faulty --slow 800 in.txt -o out --overwrite {flags}"));
        let child = command.stderr(program).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        let ended = Running::adopt(child).wait_unfed();
        assert_eq!(ended.code, Some(0));
        seen(person)
    };
    let bar = run("");
    assert!(bar.contains("] map     0 bytes of 28 bytes, 0 bytes/s"), "{bar:?}");
    for flags in ["--progress never", "--quiet", "--json"] {
        let seen = run(flags);
        assert!(!seen.contains("map "), "{flags}: {seen:?}");
    }
    let piped = |flags: &str| ended(f.faulty(&format!("run faulty in.txt {flags}")).output().unwrap()).err;
    let always = piped("--progress always");
    assert!(always.lines().count() > 0 && always.lines().all(|line| line.starts_with("faulty: ")), "{always}");
    assert_eq!(piped("--progress auto --quiet") + &piped("-q"), "");
}
