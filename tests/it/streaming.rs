//! `run streaming`, clause by clause: what scripts are fed and what becomes of what they write. Values are worked out by hand
//! from Hadoop's contract (docs/streaming.md).

use crate::program::{Ended, Folder, ended, gzip, program};

impl Folder {
    /// Runs a job of scripts with these arguments.
    fn streaming(&self, args: &[&str]) -> Ended {
        ended(self.command(program()).args(["run", "streaming"]).args(args).output().unwrap())
    }

    /// As `streaming`, into `out`; the bytes of all parts.
    #[track_caller]
    fn parts(&self, args: &[&str]) -> Vec<String> {
        let done = self.streaming(&[&["-output", "out"], args].concat());
        assert_eq!(done.code, Some(0), "{}", done.err);
        let names = self.names("out").into_iter().filter(|name| name.starts_with("part-"));
        let parts = names.map(|name| self.read(&format!("out/{name}"))).collect();
        std::fs::remove_dir_all(self.path().join("out")).unwrap();
        parts
    }

    /// The only part.
    #[track_caller]
    fn part(&self, args: &[&str]) -> String {
        let parts = self.parts(args);
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts.concat()
    }
}

fn folder(text: impl AsRef<[u8]>) -> Folder {
    let f = Folder::new();
    f.file("in", text);
    f
}

const MAP: &str = "#!/usr/bin/env python3
import sys
for line in sys.stdin:
    for word in line.split():
        print(word + '\\t1')
";

const REDUCE: &str = "#!/usr/bin/env python3
import sys
from itertools import groupby
pairs = (line.rstrip('\\n').split('\\t', 1) for line in sys.stdin)
for word, group in groupby(pairs, key=lambda pair: pair[0]):
    print('%s\\t%d' % (word, sum(int(n) for _, n in group)))
";

#[test]
fn scripts_of_four_languages_count_words_alike() {
    let f = folder(crate::program::TEXT);
    f.file("map.py", MAP);
    f.file("reduce.py", REDUCE);
    f.file("map.sh", "#!/bin/sh\ntr -s ' ' '\\n' | sed 's/$/\\t1/'\n");
    f.file("map.pl", "#!/usr/bin/perl\nwhile (<STDIN>) { print \"$_\\t1\\n\" for split; }\n");
    f.file("map.awk", "{ for (i = 1; i <= NF; i++) print $i \"\\t1\" }\n");
    let awk = "awk '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'";
    for (mapper, file) in
        [("map.py", "map.py"), ("./map.sh", "map.sh"), ("perl map.pl", "map.pl"), ("awk -f map.awk", "map.awk")]
    {
        for combiner in [None, Some("reduce.py")] {
            let mut args =
                vec!["-input", "in", "-mapper", mapper, "-file", file, "-reducer", "reduce.py", "-file", "reduce.py"];
            args.extend(combiner.iter().flat_map(|c| ["-combiner", c]));
            assert_eq!(f.part(&args), crate::program::COUNTS, "{mapper}, {combiner:?}");
        }
        let mut lines: Vec<String> = f
            .part(&["-input", "in", "-mapper", mapper, "-file", file, "-reducer", awk])
            .lines()
            .map(String::from)
            .collect();
        lines.sort();
        assert_eq!(lines.join("\n") + "\n", crate::program::COUNTS);
    }
}

#[test]
fn a_mapper_is_fed_lines_whatever_ends_them() {
    let f = folder("\u{feff}one\r\ntwo\rthree\n\nlast");
    assert_eq!(
        f.part(&["-input", "in", "-mapper", "cat -A", "-reducer", "NONE"]),
        "one$\t\ntwo$\t\nthree$\t\n$\t\nlast$\t\n"
    );
    // A split of its own for each file, and a process for an empty one.
    f.file("empty", "");
    let done = f.parts(&["-input", "in,empty", "-mapper", "wc -l", "-reducer", "NONE"]);
    assert_eq!(done, ["0\t\n", "5\t\n"]);
    f.file("packed.gz", gzip(b"a\nb\n"));
    assert_eq!(f.part(&["-input", "packed.gz", "-mapper", "cat", "-reducer", "NONE"]), "a\t\nb\t\n");
}

#[test]
fn a_reducer_is_fed_pairs_in_the_order_of_keys() {
    let f = folder("b\t2\na\t1\nb\nc\t\n");
    let args = ["-input", "in", "-mapper", "cat", "-reducer", "cat -A"];
    // An empty value leaves the tab; the order of the values of b is left open.
    let lines = f.part(&args);
    let mut of_b: Vec<&str> = lines.lines().skip(1).take(2).collect();
    of_b.sort_unstable();
    assert_eq!(
        (lines.lines().next(), of_b, lines.lines().last()),
        (Some("a^I1$\t"), vec!["b^I$\t", "b^I2$\t"], Some("c^I$\t"))
    );
    // Without a reducer lines are sorted by raw bytes.
    let f = folder("é\t1\nz\t2\nZ\t3\na b\t4\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cat"]), "Z\t3\na b\t4\nz\t2\né\t1\n");
}

#[test]
fn a_reducer_without_input_runs_and_what_it_writes_is_dropped() {
    let f = folder("a\t1\n");
    let log = f.path().join("log");
    let reducer = format!("sh -c 'echo ran >> {}; echo always; cat'", log.display());
    let args = ["-input", "in", "-mapper", "cat", "-reducer", &reducer, "-numReduceTasks", "3", "--sandbox=off"];
    // The hash of "a" is 31 + 97 = 128, and 128 % 3 = 2.
    assert_eq!(f.parts(&args), ["", "", "always\t\na\t1\n"]);
    assert_eq!(f.read("log"), "ran\nran\nran\n");
}

#[test]
fn keys_are_divided_at_the_nth_separator() {
    let f = folder("a.b.c.d\na.b\n");
    let by = |defines: &[&str]| {
        let mut args = vec!["-input", "in", "-mapper", "cat"];
        defines.iter().for_each(|define| args.extend(["-D", *define]));
        f.part(&args)
    };
    assert_eq!(by(&["stream.map.output.field.separator=."]), "a\tb.c.d\na\tb\n");
    let two = ["stream.map.output.field.separator=.", "stream.num.map.output.key.fields=2"];
    // The key of both is a.b; the second has no value.
    assert!(["a.b\tc.d\na.b\t\n", "a.b\t\na.b\tc.d\n"].contains(&by(&two).as_str()), "{}", by(&two));
    assert_eq!(
        by(&["stream.map.output.field.separator=b."]),
        "a.b\t\na.\tc.d\n".lines().rev().map(|l| l.to_string() + "\n").collect::<String>()
    );
    let reduced = ["stream.reduce.output.field.separator=.", "mapreduce.output.textoutputformat.separator=|"];
    let mut args = vec!["-input", "in", "-mapper", "cat", "-reducer", "cut -f1"];
    reduced.iter().for_each(|define| args.extend(["-D", *define]));
    assert_eq!(f.part(&args), "a|b\na|b.c.d\n");
    args.extend(["-D", "stream.reduce.input.field.separator=~", "-D", "stream.map.output.field.separator=."]);
    args[5] = "cat";
    let lines = f.part(&args);
    assert_eq!(lines, "a~b|c.d\na~b|\n");
}

#[test]
fn a_line_without_a_tab_gets_one_unless_told_otherwise() {
    let f = folder("a\nb\tc\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cat", "-reducer", "cut -f1"]), "a\t\nb\t\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cat", "-reducer", "cut -f1", "--no-trailing-tab"]), "a\nb\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cat", "-reducer", "cat", "-io", "keyonlytext"]), "a\nb\tc\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cut -f1", "-reducer", "NONE", "-io", "keyonlytext"]), "a\nb\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "cut -f1", "-io", "keyonlytext"]), "a\nb\n");
}

/// What came of a pipe is gone when an attempt fails: a second one would go on behind it and succeed.
#[test]
fn a_task_over_a_pipe_is_tried_once() {
    let f = Folder::new();
    let mapper = "sh -c 'case $mapred_task_id in *_0) head -c1 >/dev/null; exit 1;; esac; cat'";
    let mut command = f.command(program());
    command.args(["run", "streaming", "-output", "out", "-mapper", mapper]);
    let mut running = crate::program::Running::start(command);
    running.feed("one\ntwo\n");
    let done = running.wait();
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("map task 0 failed") && !done.err.contains("do it again"), "{}", done.err);
}

/// A script that has ended while its input still comes slowly is heard to its end.
#[test]
fn the_last_words_of_a_script_that_ended_early_count() {
    let f = Folder::new();
    let mut command = f.command(program());
    command.args([
        "run",
        "streaming",
        "-output",
        "out",
        "-mapper",
        "sh -c 'head -1; echo reporter:counter:g,n,1 >&2'",
        "-reducer",
        "NONE",
    ]);
    let mut running = crate::program::Running::start(command);
    running.feed("one\n");
    std::thread::sleep(std::time::Duration::from_millis(6000));
    let done = running.wait();
    assert!(done.code == Some(0) && done.err.contains("g:n 1"), "{}", done.err);
    assert_eq!(f.read("out/part-00000"), "one\t\n");
}

#[test]
fn a_combiner_does_not_run_over_nothing() {
    let f = folder("a\t1\n");
    f.file("empty", "");
    let total = "awk -F\t '{ s += $2 } END { print \"total\\t\" s }'";
    assert_eq!(
        f.part(&["-input", "in,empty", "-mapper", "cat", "-combiner", &total.replace("-F\t ", "")]),
        "total\t1\n"
    );
}

/// A job that has failed does not wait for what else runs.
#[test]
fn a_failure_ends_what_else_runs() {
    let f = folder("a\n");
    f.file("more", "b\n");
    let flag = f.path().join("flag");
    let mapper =
        format!("sh -c 'case $map_input_file in *more) sleep 0.3; exit 1;; esac; sleep 20; touch {}'", flag.display());
    let attempts = ["-D", "mapreduce.map.maxattempts=1", "--threads", "2", "--temp-dir", "."];
    let done = f.streaming(&[&["-input", "in,more", "-output", "out", "-mapper", &mapper], &attempts[..]].concat());
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(!flag.exists(), "it was waited for");
}

/// The parts of keys by Hadoop's hash, computed here from its definition.
#[test]
fn keys_go_to_the_parts_of_hadoops_hash() {
    let keys = ["apple", "pear", "plum", "fig", "é", "", "a.b", "A longer key of several words"];
    let hash = |key: &str| key.bytes().fold(1i32, |h, b| h.wrapping_mul(31).wrapping_add(i32::from(b as i8)));
    let f = folder(keys.map(|key| format!("{key}\tv\n")).concat());
    let mut want = vec![Vec::new(); 5];
    let mut sorted = keys;
    sorted.sort_unstable();
    sorted.iter().for_each(|key| want[((hash(key) & i32::MAX) % 5) as usize].push(format!("{key}\tv\n")));
    let want: Vec<String> = want.iter().map(|lines| lines.concat()).collect();
    assert_eq!(f.parts(&["-input", "in", "-mapper", "cat", "-numReduceTasks", "5"]), want);
    assert_eq!(f.parts(&["-D", "mapred.reduce.tasks=5", "-input", "in", "-mapper", "cat", "-reducer", "cat"]), want);
}

/// The example of Hadoop's own documentation: parts by the first two fields, sorted by all four.
#[test]
fn keys_are_divided_and_sorted_by_fields() {
    let f = folder("11.12.1.2\n11.14.2.3\n11.11.4.1\n11.12.1.1\n11.14.2.2\n");
    let base = [
        "-D",
        "stream.map.output.field.separator=.",
        "-D",
        "stream.num.map.output.key.fields=4",
        "-D",
        "map.output.key.field.separator=.",
        "-input",
        "in",
        "-mapper",
        "cat",
        "--no-trailing-tab",
        "-partitioner",
        "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
        "-numReduceTasks",
        "3",
    ];
    // "11.11", "11.12" and "11.14" hash to h = 31 h + b from 0.
    let part = |key: &str| key.bytes().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b))) as usize % 3;
    let mut want = [const { String::new() }; 3];
    for line in ["11.11.4.1", "11.12.1.1", "11.12.1.2", "11.14.2.2", "11.14.2.3"] {
        want[part(&line[..5])] += &format!("{line}\n");
    }
    for option in [
        "mapreduce.partition.keypartitioner.options=-k1,2",
        "mapred.text.key.partitioner.options=-k1,2",
        "num.key.fields.for.partition=2",
    ] {
        assert_eq!(f.parts(&[&["-D", option], &base[..]].concat()), want, "{option}");
    }
    let sorted = |options: &str| {
        let comparator = "mapreduce.job.output.key.comparator.class=org.apache.hadoop.mapreduce.lib.partition.KeyFieldBasedComparator";
        let options = format!("mapreduce.partition.keycomparator.options={options}");
        f.part(&[&["-D", comparator, "-D", &options], &base[..11]].concat())
    };
    assert_eq!(sorted("-k2,2nr -k4,4n"), "11.14.2.2\n11.14.2.3\n11.12.1.1\n11.12.1.2\n11.11.4.1\n");
    assert_eq!(sorted("-k3,3nr -k4,4nr"), "11.11.4.1\n11.14.2.3\n11.14.2.2\n11.12.1.2\n11.12.1.1\n");
}

#[test]
fn numbers_sort_as_numbers() {
    let f = folder("10\n9\n-3\n2.5\n-20\n0.5\n");
    let sorted = |options: &str| {
        let options = format!("mapred.text.key.comparator.options={options}");
        f.part(&[
            "-D",
            "mapred.output.key.comparator.class=KeyFieldBasedComparator",
            "-D",
            &options,
            "-input",
            "in",
            "-mapper",
            "cat",
            "--no-trailing-tab",
        ])
    };
    assert_eq!(sorted("-n"), "-20\n-3\n0.5\n2.5\n9\n10\n");
    assert_eq!(sorted("-nr"), "10\n9\n2.5\n0.5\n-3\n-20\n");
    assert_eq!(sorted("-r"), "9\n2.5\n10\n0.5\n-3\n-20\n");
}

#[test]
fn counters_are_summed_once_and_words_are_shown() {
    let f = folder("a\nb\n");
    // The first attempt counts too, and fails.
    let script = "#!/bin/sh\necho reporter:counter:G,tried,1 >&2\necho reporter:counter:G,down,-2 >&2\necho reporter:status:busy >&2\n\
        echo reporter:counter:G,bad >&2\necho hello >&2\ncase $mapred_task_id in *_0) exit 3; esac\ncat\n";
    f.file("map.sh", script);
    let done = f.streaming(&["-input", "in", "-output", "out", "-mapper", "map.sh", "-file", "map.sh"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.err.contains("map task 0: hello") && done.err.contains("map task 0: reporter:counter:G,bad\n"),
        "{}",
        done.err
    );
    assert!(!done.err.contains("reporter:status") && done.err.contains("G:down -2, G:tried 1"), "{}", done.err);
    assert!(done.err.contains("attempt 1 of 4 failed") && done.err.contains("exited with code 3"), "{}", done.err);
    assert!(f.read("out/_SUCCESS").contains("\"G:down\": -2"), "{}", f.read("out/_SUCCESS"));
    assert_eq!(f.read("out/part-00000"), "a\t\nb\t\n", "the first attempt wrote nothing that counts");
    let prefix = ["-D", "stream.stderr.reporter.prefix=x:"];
    let args = [&prefix[..], &["-input", "in", "-mapper", "sh -c 'echo x:counter:g,n,7 >&2; cat'", "-output", "out2"]]
        .concat();
    assert!(f.streaming(&args).err.contains("g:n 7"));
}

#[test]
fn an_exit_code_fails_the_job_unless_told_otherwise() {
    let f = folder("one\ntwo\nthree\n");
    f.file("map.py", "import sys\nfor line in sys.stdin:\n    print(int(line))\n");
    let args = ["-input", "in", "-output", "out", "-mapper", "python3 map.py", "-file", "map.py", "--temp-dir", "."];
    let done = f.streaming(&[&["-D", "mapreduce.map.maxattempts=2"], &args[..]].concat());
    assert_eq!(done.code, Some(3));
    let last = done.err.lines().last().unwrap_or_default();
    for part in [
        "map task 0 failed 2 times, the last in in near byte 14: it exited with code 1",
        "ValueError: invalid literal for int() with base 10: 'one\\n'",
        "do it again with: sh ",
    ] {
        assert!(last.contains(part), "{part} in {last}");
    }
    assert!(done.err.contains("  Traceback (most recent call last):\n"), "{}", done.err);
    assert!(!f.names(".").contains(&"out".to_string()), "nothing is left of it");
    // The command does it again, with the same words.
    let script = last.rsplit("sh ").next().unwrap();
    let again = ended(f.command("sh").arg(script).output().unwrap());
    assert_eq!(again.code, Some(1));
    assert!(again.err.ends_with("ValueError: invalid literal for int() with base 10: 'one\\n'\n"), "{}", again.err);
    let fine = ["-D", "stream.non.zero.exit.is.failure=false", "-input", "in", "-mapper", "sh -c 'cat; exit 9'"];
    assert_eq!(f.part(&fine), "one\t\nthree\t\ntwo\t\n");
    let killed = f.streaming(&[
        "-D",
        "mapreduce.reduce.maxattempts=1",
        "-input",
        "in",
        "-output",
        "out",
        "-mapper",
        "cat",
        "-reducer",
        "sh -c 'kill -9 $$'",
        "--temp-dir",
        ".",
    ]);
    assert!(
        killed.err.contains("reduce task 0 failed after ") && killed.err.contains("signal 9 (SIGKILL)"),
        "{}",
        killed.err
    );
}

#[test]
fn a_script_that_stops_reading_is_no_failure() {
    let f = folder("line of text\n".repeat(500_000));
    // In two splits.
    let first = ["line of text\t\n"; 2];
    assert_eq!(f.parts(&["-input", "in", "-mapper", "head -1", "-reducer", "NONE"]), first);
    assert_eq!(f.part(&["-input", "in", "-mapper", "cat", "-reducer", "head -2"]), "line of text\t\n".repeat(2));
    assert_eq!(f.part(&["-input", "in", "-mapper", "true", "-reducer", "cat"]), "");
}

#[test]
fn a_task_that_does_nothing_is_killed() {
    let f = folder("a\n");
    let done = f.streaming(&[
        "-D",
        "mapreduce.task.timeout=300",
        "-D",
        "mapred.map.max.attempts=1",
        "-input",
        "in",
        "-output",
        "out",
        "-mapper",
        "sh -c 'sleep 60'",
        "--temp-dir",
        ".",
    ]);
    assert_eq!(done.code, Some(3));
    assert!(done.err.contains("it neither read nor wrote nor said anything for 0.3 s and was killed"), "{}", done.err);
    // One that only says something is alive.
    let slow = "sh -c 'for i in 1 2 3 4 5; do sleep 1; echo $i >&2; done; cat'";
    assert_eq!(f.part(&["-D", "mapreduce.task.timeout=4000", "-input", "in", "-mapper", slow]), "a\t\n");
}

#[test]
fn the_environment_tells_where_a_script_is() {
    let f = folder("a\n");
    let vars = "mapreduce_job_id mapred_job_id mapreduce_job_name mapred_job_name mapreduce_task_id mapred_tip_id \
        mapreduce_task_attempt_id mapred_task_id mapreduce_task_partition mapred_task_partition mapreduce_task_ismap \
        mapred_task_is_map mapreduce_map_input_file map_input_file mapreduce_map_input_start map_input_start \
        mapreduce_map_input_length map_input_length mapreduce_job_maps mapred_map_tasks mapreduce_job_reduces \
        mapred_reduce_tasks my_setting_1 MINE TMPDIR SECRET mapreduce_task_output_dir mapred_work_output_dir";
    let script = format!("#!/bin/sh\ncat >/dev/null\nfor v in {vars}; do eval \"echo $v=\\${{$v-none}}\"; done\n");
    f.file("show.sh", script);
    let base = [
        "-D",
        "my.setting-1=x y",
        "-D",
        "mapred.job.name=name",
        "-input",
        "in",
        "-file",
        "show.sh",
        "-cmdenv",
        "MINE=a=b",
        "--no-trailing-tab",
    ];
    let run = |more: &[&str]| {
        let output = f
            .command(program())
            .args(["run", "streaming", "-output", "out"])
            .args(base)
            .args(more)
            .env("SECRET", "x")
            .output();
        assert_eq!(ended(output.unwrap()).code, Some(0));
        let part = f.read("out/part-00000");
        std::fs::remove_dir_all(f.path().join("out")).unwrap();
        move |name: &str| part.lines().find_map(|l| l.strip_prefix(&format!("{name}="))).unwrap_or_default().to_string()
    };
    let map = run(&["-mapper", "show.sh", "-reducer", "NONE"]);
    let job = map("mapreduce_job_id");
    let of = job.strip_prefix("job_").unwrap();
    let input = f.path().canonicalize().unwrap().join("in").display().to_string();
    for (names, value) in [
        (["mapreduce_job_id", "mapred_job_id"], job.clone()),
        (["mapreduce_job_name", "mapred_job_name"], "name".into()),
        (["mapreduce_task_id", "mapred_tip_id"], format!("task_{of}_m_000000")),
        (["mapreduce_task_attempt_id", "mapred_task_id"], format!("attempt_{of}_m_000000_0")),
        (["mapreduce_task_partition", "mapred_task_partition"], "0".into()),
        (["mapreduce_task_ismap", "mapred_task_is_map"], "true".into()),
        (["mapreduce_map_input_file", "map_input_file"], input),
        (["mapreduce_map_input_start", "map_input_start"], "0".into()),
        (["mapreduce_map_input_length", "map_input_length"], "2".into()),
        (["mapreduce_job_maps", "mapred_map_tasks"], "1".into()),
        (["mapreduce_job_reduces", "mapred_reduce_tasks"], "0".into()),
        (["my_setting_1", "my_setting_1"], "x y".into()),
        (["MINE", "MINE"], "a=b".into()),
        (["SECRET", "SECRET"], "none".into()),
    ] {
        for name in names {
            assert_eq!(map(name), value, "{name}");
        }
    }
    assert!(map("TMPDIR").starts_with(&map("mapreduce_task_output_dir")));
    let reduce = run(&["-mapper", "cat", "-reducer", "show.sh"]);
    for (name, value) in [("mapred_task_is_map", "false"), ("map_input_file", "none"), ("mapred_reduce_tasks", "1")] {
        assert_eq!(reduce(name), value, "{name}");
    }
    assert!(reduce("mapred_task_id").contains("_r_000000_0"));
}

#[test]
fn files_are_shipped_under_their_names() {
    let f = folder("a\nb\n");
    f.file("lib/map.sh", "#!/bin/sh\ncat data other/x - | sed 's/$/\\t1/'\n");
    f.file("lib/data", "from data\n");
    f.file("dir/x", "from x\n");
    // The path of a shipped file becomes its name, which is found in PATH.
    let args = ["-files", "lib/data,dir#other", "-input", "in", "-mapper", "lib/map.sh", "-file", "lib/map.sh"];
    assert_eq!(f.part(&args), "a\t1\nb\t1\nfrom data\t1\nfrom x\t1\n");
    let args = [&args[..], &["-cmdenv", "PATH=/usr/bin:/bin"]].concat();
    assert_eq!(f.part(&args), "a\t1\nb\t1\nfrom data\t1\nfrom x\t1\n", "found first whatever PATH is");
    let missing = f.streaming(&[
        "-input",
        "in",
        "-output",
        "out",
        "-mapper",
        "nothing.py",
        "-D",
        "mapreduce.map.maxattempts=1",
        "--temp-dir",
        ".",
    ]);
    assert_eq!(missing.code, Some(3));
    assert!(
        missing.err.contains("'nothing.py' cannot be begun") && missing.err.contains("-file FILE ships one"),
        "{}",
        missing.err
    );
    for (args, why) in [
        (&["-files", "in#../in"][..], "a name of its own is needed"),
        (&["-file", "gone"], "cannot ship gone"),
        (&["-file", "in", "-files", "dir#in"], "would both be called in"),
        (&["-D", "x"], "is not NAME=VALUE"),
        (&["-partitioner", "my.Own"], "partitioner my.Own is not known"),
        (&["-inputformat", "SequenceFileInputFormat"], "is not known"),
        (&["-archives", "x.rar"], "no archive that is unpacked"),
        (&["-archives", "none.zip"], "cannot ship none.zip"),
    ] {
        let done = f.streaming(&[&["-input", "in", "-output", "out", "-mapper", "cat"], args].concat());
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(done.err.contains(why) && done.err.lines().count() == 1, "{}", done.err);
    }
}

#[test]
fn commands_are_divided_without_a_shell() {
    let f = folder("x y\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "awk '{ print $2, \"a  b\", \"$HOME\" }'"]), "y a  b $HOME\t\n");
    assert_eq!(f.part(&["-input", "in", "-mapper", "sed \"s/x/'z'/\" -"]), "'z' y\t\n");
}

#[test]
fn aggregate_reduces_and_combines() {
    let f = folder("a 1\nb 5\na 3\n");
    let mapper = "awk '{ print \"LongValueSum:\" $1 \"\\t\" $2; print \"UniqValueCount:keys\\t\" $1; print \"LongValueMax:most\\t\" $2 }'";
    let args = ["-input", "in", "-mapper", mapper, "-reducer", "aggregate"];
    assert_eq!(f.part(&args), "most\t5\na\t4\nb\t5\nkeys\t2\n");
    let wrong = f.streaming(&["-input", "in", "-output", "out", "-mapper", "cat", "-reducer", "aggregate"]);
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.err.contains("aggregate: key 'a 1' has no type and colon"), "{}", wrong.err);
}

#[test]
fn an_output_is_as_hadoops() {
    let f = folder("a\t1\nb\t2\n");
    assert_eq!(
        f.streaming(&["-input", "in", "-output", "out", "-mapper", "cat", "-numReduceTasks", "2"]).code,
        Some(0)
    );
    assert_eq!(f.names("out"), ["_SUCCESS", "part-00000", "part-00001"]);
    let again = f.streaming(&["-input", "in", "-output", "out", "-mapper", "cat"]);
    assert_eq!(again.code, Some(5), "{}", again.err);
    // "b" is 129, which is odd; part 0 has "a", and a third would have nothing.
    assert_eq!(
        f.parts(&["-input", "in", "-mapper", "cat", "-numReduceTasks", "2", "--overwrite"]),
        ["a\t1\n", "b\t2\n"]
    );
    assert_eq!(f.parts(&["-input", "in", "-mapper", "grep a", "-numReduceTasks", "2", "-lazyOutput"]), ["a\t1\n"]);
    let out = f.streaming(&["-input", "in", "-mapper", "cat", "-numReduceTasks", "2"]);
    assert_eq!(out.out, "a\t1\nb\t2\n");
    let compressed =
        f.streaming(&["-input", "in", "-output", "packed", "-mapper", "cat", "-reducer", "cat", "--compress", "gzip"]);
    assert_eq!(compressed.code, Some(0), "{}", compressed.err);
    assert_eq!(f.run("cat packed").out, "a\t1\nb\t2\n");
    let pairs =
        ["-inputformat", "org.apache.hadoop.mapred.KeyValueTextInputFormat", "-input", "in", "-reducer", "NONE"];
    assert_eq!(
        f.part(&[&pairs[..], &["-D", "stream.map.input.field.separator==", "-mapper", "cat"]].concat()),
        "a=1\t\nb=2\t\n"
    );
}

/// More than fits into memory, over several tasks and reducers: the same as sort(1) of the same lines.
#[test]
fn many_lines_are_sorted_through_scratch() {
    let line = |i: u64| format!("{:08x}\t{i}\n", i.wrapping_mul(0x9e37_79b9) as u32);
    let text: String = (0..1_500_000).map(line).collect();
    let f = folder(&text);
    let args = ["-input", "in", "-mapper", "cat", "-numReduceTasks", "3", "--memory", "16m", "--threads", "2"];
    let parts = f.parts(&args);
    let mut want: Vec<&str> = text.lines().collect();
    want.sort_unstable();
    let mut got: Vec<&str> = parts.iter().flat_map(|part| part.lines()).collect();
    assert!(parts.iter().all(|part| part.lines().is_sorted() && part.lines().count() > 400_000));
    got.sort_unstable();
    assert!(got == want);
    let combined = f.parts(&[&args[..], &["-combiner", "cat", "-reducer", "cat"]].concat());
    assert!(combined == parts);
}
