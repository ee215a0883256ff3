//! Commands and flags: each is given, and its effect looked at.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{COUNTS, Folder, Running, ended, folder, many_words, terminal};

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
    let mut command = f.gristmill("run wordcount");
    let child = command.stdin(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = Running::adopt(child).wait_unfed();
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
    let f = Folder::new();
    let mut list = String::new();
    for n in 0..600 {
        let name = format!("folder-{:03}/file-with-a-long-name-{n:06}.txt", n / 100);
        f.file(&name, format!("w{}\n", n % 3));
        list += &(name + "\n");
    }
    assert_eq!(f.out("run wordcount folder-*"), "w0\t200\nw1\t200\nw2\t200\n");
    // Making 60,000 files takes long on some machines; to the job each name is an input.
    f.file("list", list.repeat(100));
    assert_eq!(f.out("run wordcount --inputs-from list"), "w0\t20000\nw1\t20000\nw2\t20000\n");
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
fn flags_that_have_no_effect_are_refused() {
    let f = folder();
    for flags in ["--compress zstd", "--compress gzip -o -", "--overwrite", "--overwrite -o -", "--sync"] {
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
        ("run wordcount --threads 0 in.txt", "--threads <N>': it must be a number from 1 to 1024"),
        ("run wordcount --threads x in.txt", "it must be a number from 1 to 1024"),
        ("run wordcount --threads 1025 in.txt", "it must be a number from 1 to 1024"),
        ("run wordcount --threads 100000 in.txt", "it must be a number from 1 to 1024"),
        ("run top --reducers 5 in.txt", "leave --reducers out"),
        ("run term-vector --terms 0 in.txt", "--terms"),
        ("run wordcount -j in.txt", "unexpected argument '-j' found; see"),
        ("run wordcount -r 3 in.txt", "unexpected argument '-r' found"),
        ("run grep -l x in.txt", "unexpected argument '-l' found"),
        ("run sort --field 1 --separator ab in.txt", "it must be one byte, or \\t for a TAB"),
        ("wordcount in.txt", "did you mean: gristmill run wordcount"),
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
    assert_eq!(f.out("run wordcount in.txt --threads 2 --threads 1"), COUNTS, "the last of a flag counts");
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
    let scripts = ["streaming", "python", "wasm"].into_iter().filter(|_| cfg!(feature = "scripts"));
    assert_eq!(names, all.into_iter().chain(scripts).collect::<Vec<_>>());
    assert!(apps.lines().all(|line| line.split_whitespace().count() > 3), "{apps}");
    let commands = ["", "run", "cat", "apps", "completions"].map(String::from).into_iter();
    let raft = ["raft", "raft inspect", "raft members", "raft remove", "raft transfer"];
    let certs = ["certs", "certs init", "certs issue", "certs show"];
    let workers = ["worker", "worker pool", "worker pool ls", "worker pool set", "worker add", "worker rm"];
    let nodes = raft.into_iter().chain(certs).chain(workers).map(String::from).filter(|_| cfg!(feature = "cluster"));
    let k8s = ["k8s", "k8s manifests", "k8s crd", "k8s secrets", "k8s doctor", "master"];
    let k8s = k8s.into_iter().map(String::from).filter(|_| cfg!(feature = "kubernetes"));
    let commands = commands.chain(nodes).chain(k8s);
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
fn a_file_that_hides_its_length_is_read() {
    let f = folder();
    for args in ["run wordcount /proc/version", "run sort /proc/version", "run grep Linux /proc/version --threads 2"] {
        assert!(f.out(args).contains("Linux"), "{args}");
    }
    f.file("empty", "");
    assert_eq!(f.out("run wordcount empty in.txt"), COUNTS);
}

#[test]
fn separators_that_shells_make_hard_have_names() {
    let f = folder();
    f.file("rows", "a\tz\nb\ty\n");
    for separator in ["\\t", "\t"] {
        let mut command = f.gristmill("run sort rows --field 2 --separator");
        assert_eq!(ended(command.arg(separator).output().unwrap()).out, "b\ty\na\tz\n");
    }
    f.file("rows", "a\\z\nb\\y\n");
    assert_eq!(f.out("run sort rows --field 2 --separator \\"), "b\\y\na\\z\n");
}
