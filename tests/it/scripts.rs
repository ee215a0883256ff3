//! Scripts as people have them, in Python, shell, awk and Perl, with what they make of a small log, a table and a text. What is
//! expected was worked out from the inputs by hand.

use crate::program::{Folder, ended, program};

const LOG: &str = "\
10.0.0.1 - - [01/Mar/2024:10:00:01 +0000] \"GET /index.html HTTP/1.1\" 200 1000
10.0.0.2 - - [01/Mar/2024:10:00:02 +0000] \"GET /about.html HTTP/1.1\" 200 500
10.0.0.1 - - [01/Mar/2024:10:59:59 +0000] \"GET /missing HTTP/1.1\" 404 0
10.0.0.3 - - [01/Mar/2024:11:00:00 +0000] \"POST /form HTTP/1.1\" 500 20
10.0.0.1 - - [01/Mar/2024:11:30:00 +0000] \"GET /index.html HTTP/1.1\" 304 -
malformed line
10.0.0.2 - - [01/Mar/2024:23:00:00 +0000] \"GET /index.html HTTP/1.0\" 200 1000
";

const PEOPLE: &str = "1,ann,berlin\n2,bob,paris\n3,cid,berlin\n4,dot,\n";
const ORDERS: &str = "100,1,9.50\n101,2,20.00\n102,1,0.50\n103,9,5.00\n104,3,7.25\n";

const TEXT: &str = "It was the best of times, it was the worst of times,\nit was the age of wisdom.\n";

/// A job: its files, its arguments, and its parts.
struct Case<'c> {
    name: &'c str,
    files: &'c [(&'c str, &'c str)],
    args: &'c [&'c str],
    parts: &'c [&'c str],
}

const CASES: &[Case<'_>] = &[
    Case {
        name: "requests by status, awk one-liners",
        files: &[],
        args: &[
            "-input",
            "log",
            "-mapper",
            r#"awk '$9 ~ /^[0-9]+$/ { print $9 "\t" 1 }'"#,
            "-reducer",
            r#"awk -F"\t" '{ n[$1] += $2 } END { for (s in n) print s "\t" n[s] | "sort" }'"#,
        ],
        parts: &["200\t3\n304\t1\n404\t1\n500\t1\n"],
    },
    Case {
        name: "bytes by client, Perl, with a combiner and a counter",
        files: &[
            (
                "map.pl",
                "#!/usr/bin/perl\nuse strict; use warnings;\nwhile (my $line = <STDIN>) {\n  chomp $line;\n  if ($line =~ /\"/ and $line =~ /^(\\S+) .* (\\d+|-)$/) {\n    print \"$1\\t\", ($2 eq '-' ? 0 : $2), \"\\n\";\n  } else { print STDERR \"reporter:counter:log,malformed,1\\n\"; }\n}\n",
            ),
            (
                "sum.pl",
                "#!/usr/bin/perl\nuse strict; use warnings;\nmy ($last, $sum);\nwhile (<STDIN>) {\n  chomp; my ($key, $n) = split /\\t/;\n  if (defined $last and $last ne $key) { print \"$last\\t$sum\\n\"; $sum = 0; }\n  $last = $key; $sum += $n;\n}\nprint \"$last\\t$sum\\n\" if defined $last;\n",
            ),
        ],
        args: &[
            "-input",
            "log",
            "-mapper",
            "map.pl",
            "-combiner",
            "sum.pl",
            "-reducer",
            "sum.pl",
            "-file",
            "map.pl",
            "-file",
            "sum.pl",
        ],
        parts: &["10.0.0.1\t1000\n10.0.0.2\t1500\n10.0.0.3\t20\n"],
    },
    Case {
        name: "requests by hour, a shell pipeline in bash",
        files: &[(
            "hours.sh",
            "#!/bin/bash\nset -o pipefail\ngrep -oE '\\[[^]]+\\]' | cut -d: -f2 | sed 's/^/h/; s/$/\\t1/'\n",
        )],
        args: &["-input", "log", "-mapper", "bash hours.sh", "-file", "hours.sh", "-reducer", "uniq -c"],
        parts: &["      3 h10\t1\n      2 h11\t1\n      1 h23\t1\n"],
    },
    Case {
        name: "a join on the reduce side, Python, tags in the value",
        files: &[
            (
                "map.py",
                "#!/usr/bin/env python3\nimport csv, os, sys\npeople = 'people' in os.environ['mapreduce_map_input_file']\nfor row in csv.reader(sys.stdin):\n    if people:\n        print(row[0], 'A', row[1], sep='\\t')\n    else:\n        print(row[1], 'B', row[2], sep='\\t')\n",
            ),
            (
                "reduce.py",
                "#!/usr/bin/env python3\nimport sys\nfrom itertools import groupby\nrows = (line.rstrip('\\n').split('\\t') for line in sys.stdin)\nfor person, group in groupby(rows, key=lambda row: row[0]):\n    name, total = '?', 0.0\n    for _, tag, value in group:\n        if tag == 'A':\n            name = value\n        else:\n            total += float(value)\n    print('%s\\t%s\\t%.2f' % (person, name, total))\n",
            ),
        ],
        args: &["-input", "people,orders", "-mapper", "map.py", "-reducer", "reduce.py", "-files", "map.py,reduce.py"],
        parts: &["1\tann\t10.00\n2\tbob\t20.00\n3\tcid\t7.25\n4\tdot\t0.00\n9\t?\t5.00\n"],
    },
    Case {
        name: "a join with a secondary sort: the person comes before the orders",
        files: &[
            (
                "map.sh",
                "#!/bin/sh\ncase $map_input_file in *people) tag=0 ;; *) tag=1 ;; esac\nawk -F, -v t=$tag '{ if (t == 0) print $1 \"\\t0\\t\" $2; else print $2 \"\\t1\\t\" $3 }'\n",
            ),
            (
                "join.awk",
                "BEGIN { FS = OFS = \"\\t\" }\n$2 == 0 { id = $1; name = $3; next }\n{ print $1, ($1 == id ? name : \"nobody\"), $3 }\n",
            ),
        ],
        args: &[
            "-D",
            "stream.num.map.output.key.fields=3",
            "-D",
            "mapreduce.partition.keypartitioner.options=-k1,1",
            "-D",
            "mapreduce.job.output.key.comparator.class=org.apache.hadoop.mapreduce.lib.partition.KeyFieldBasedComparator",
            "-D",
            "mapreduce.partition.keycomparator.options=-k1,1n -k2,2n -k3,3n",
            "-partitioner",
            "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
            "-input",
            "people",
            "-input",
            "orders",
            "-mapper",
            "sh map.sh",
            "-reducer",
            "awk -f join.awk",
            "-file",
            "map.sh",
            "-file",
            "join.awk",
            "-numReduceTasks",
            "1",
        ],
        parts: &["1\tann\t0.50\n1\tann\t9.50\n2\tbob\t20.00\n3\tcid\t7.25\n9\tnobody\t5.00\n"],
    },
    Case {
        name: "an index of words, Python 3 with a shebang and sets",
        files: &[
            (
                "index_map.py",
                "#!/usr/bin/env python3\nimport re, sys\nfor number, line in enumerate(sys.stdin, 1):\n    for word in sorted(set(re.findall(r'[a-z]+', line.lower()))):\n        print(f'{word}\\t{number}')\n",
            ),
            (
                "index_reduce.py",
                "#!/usr/bin/env python3\nimport sys\nindex = {}\nfor line in sys.stdin:\n    word, _, number = line.rstrip('\\n').partition('\\t')\n    index.setdefault(word, []).append(int(number))\nfor word in index:\n    print(word, ','.join(map(str, sorted(index[word]))), sep='\\t')\n",
            ),
        ],
        args: &[
            "-input",
            "text",
            "-mapper",
            "index_map.py",
            "-reducer",
            "index_reduce.py",
            "-file",
            "index_map.py",
            "-file",
            "index_reduce.py",
        ],
        parts: &["age\t2\nbest\t1\nit\t1,2\nof\t1,2\nthe\t1,2\ntimes\t1\nwas\t1,2\nwisdom\t2\nworst\t1\n"],
    },
    Case {
        name: "the built-in aggregate over a mapper in awk",
        files: &[],
        args: &[
            "-input",
            "people",
            "-mapper",
            r#"awk -F, '{ print "LongValueSum:all\t1"; if ($3 != "") print "UniqValueCount:cities\t" $3; print "StringValueMax:last\t" $2 }'"#,
            "-reducer",
            "aggregate",
        ],
        parts: &["all\t4\nlast\tdot\ncities\t2\n"],
    },
    Case {
        name: "grep -c in many parts, zeros allowed by the exit code",
        files: &[],
        args: &[
            "-D",
            "stream.non.zero.exit.is.failure=false",
            "-input",
            "log,text",
            "-mapper",
            "grep -c index",
            "-reducer",
            "NONE",
        ],
        parts: &["3\t\n", "0\t\n"],
    },
    Case {
        name: "a mapper that takes the first lines and leaves",
        files: &[],
        args: &["-input", "log", "-mapper", "head -n 1", "-reducer", "NONE"],
        parts: &["10.0.0.1 - - [01/Mar/2024:10:00:01 +0000] \"GET /index.html HTTP/1.1\" 200 1000\t\n"],
    },
    Case {
        name: "a lookup table beside the script, and scratch files of its own",
        files: &[
            ("names.txt", "berlin DE\nparis FR\n"),
            (
                "lookup.sh",
                "#!/bin/sh\nset -e\nsort names.txt > sorted\ncut -d, -f3 | grep . | sort > $TMPDIR/cities\njoin $TMPDIR/cities sorted | awk '{ print $2 \"\\t1\" }'\n",
            ),
        ],
        args: &[
            "-input",
            "people",
            "-mapper",
            "sh lookup.sh",
            "-files",
            "lookup.sh,names.txt",
            "-reducer",
            "sh -c 'cut -f1 | uniq -c | sed \"s/^ *//\"'",
        ],
        parts: &["2 DE\t\n1 FR\t\n"],
    },
];

#[test]
fn scripts_as_people_have_them_make_what_they_should() {
    for case in CASES {
        let f = Folder::new();
        for (name, text) in
            [("log", LOG), ("people", PEOPLE), ("orders", ORDERS), ("text", TEXT)].iter().chain(case.files)
        {
            f.file(name, text);
        }
        let done =
            ended(f.command(program()).args(["run", "streaming", "-output", "out"]).args(case.args).output().unwrap());
        assert_eq!(done.code, Some(0), "{}: {}", case.name, done.err);
        let mut names = f.names("out");
        names.retain(|name| name.starts_with("part-"));
        let parts: Vec<String> = names.iter().map(|name| f.read(&format!("out/{name}"))).collect();
        assert_eq!(parts, case.parts, "{}: {}", case.name, done.err);
        assert_eq!(case.name.contains("counter"), done.err.contains("log:malformed 1"), "{}: {}", case.name, done.err);
    }
}

#[test]
fn archives_are_folders_of_their_names() {
    let f = Folder::new();
    f.file("in", "one\n");
    let make = "\
import io, tarfile, zipfile
z = zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED)
z.writestr('below/words.txt', 'of a zip\\n'); z.close()
def tar(name, mode, members):
    t = tarfile.open(name, mode)
    for path, text, link in members:
        i = tarfile.TarInfo(path)
        if link: i.type = tarfile.SYMTYPE; i.linkname = link
        i.size = len(text); i.mode = 0o755
        t.addfile(i, io.BytesIO(text))
    t.close()
tar('b.tar.gz', 'w:gz', [('run.sh', b'#!/bin/sh\\necho of a tar\\n', None), ('secret', b'', '/etc/shadow')])
tar('c.tar', 'w', [('../out-of-it', b'x', None)])
z = zipfile.ZipFile('d.jar', 'w'); z.writestr('../../out-of-it', 'x'); z.close()
";
    let made = f.command("python3").args(["-c", make]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = |archives: &str, mapper: &str| {
        let args = ["run", "streaming", "-input", "in", "-reducer", "NONE", "-archives", archives, "-mapper", mapper];
        ended(f.command(program()).args(args).output().unwrap())
    };
    let done =
        run("a.zip,b.tar.gz#tools", "sh -c 'cat > /dev/null; cat a.zip/below/words.txt; tools/run.sh; ls tools'");
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.out, "of a zip\t\nof a tar\t\nrun.sh\t\n");
    for outside in ["c.tar", "d.jar"] {
        let told = run(outside, "cat");
        assert!(told.code != Some(0) && told.err.contains("lies outside of it"), "{}", told.err);
    }
    std::fs::write(f.path().join("e.zip"), "no zip").unwrap();
    assert!(run("e.zip", "cat").err.contains("e.zip cannot be unpacked"));
}
