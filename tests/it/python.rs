//! `run python`: functions of a file as a job.

use crate::program::{COUNTS, Ended, Folder, TEXT, ended, gzip, program};

impl Folder {
    /// Runs the functions of a file over `in`.
    fn python(&self, code: &str, args: &[&str]) -> Ended {
        self.file("job.py", code);
        ended(self.command(program()).args(["run", "python", "job.py"]).args(args).output().unwrap())
    }

    /// What they make, in one part.
    #[track_caller]
    fn made(&self, code: &str, args: &[&str]) -> String {
        let done = self.python(code, &[&["in"], args].concat());
        assert_eq!(done.code, Some(0), "{}", done.err);
        done.out
    }
}

fn folder(text: impl AsRef<[u8]>) -> Folder {
    let f = Folder::new();
    f.file("in", text);
    f
}

const WORDS: &str = "def map(key, value):
    for word in value.split():
        yield word, 1
";
const SUM: &str = "def reduce(key, values):
    yield key, sum(values)
";

#[test]
fn words_are_counted_however_the_functions_are_written() {
    let f = folder(TEXT);
    for code in [
        WORDS.to_string() + SUM,
        WORDS.to_string() + SUM + "def combine(key, values):\n    yield key, sum(values)\n",
        WORDS.to_string() + "def reduce(key, values):\n    return sum(values)\ndef combine(key, values):\n    return sum(values)\n",
        WORDS.to_string() + "def reduce(key, values):\n    return key, sum(values)\n",
        "def map(key, value):\n    return [(word, 1) for word in value.split()]\n".to_string() + SUM,
        "from collections import Counter\ndef map(key, value):\n    return Counter(value.split())\n".to_string() + SUM,
        "from collections import Counter\ndef map_batch(key, values):\n    c = Counter()\n    for v in values: c.update(v.split())\n    return c\n"
            .to_string()
            + SUM,
        // As older files have them.
        "def map_function(line):\n    return [(w, 1) for w in line.split()]\ndef reduce_function(pair):\n    key, values = pair\n    return (key, sum(values))\n"
            .to_string(),
        "def map_function(key, line):\n    return [(w, 1) for w in line.split()]\n\
         def shuffle_function(pairs):\n    groups = {}\n    for k, v in pairs: groups.setdefault(k, []).append(v)\n    return groups\n\
         def reduce_function(key, values):\n    return sum(values)\n"
            .to_string(),
    ] {
        assert_eq!(f.made(&code, &[]), COUNTS, "{code}");
    }
    let done = f.python(&(WORDS.to_string() + SUM), &["in", "-o", "out", "--reducers", "3"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let parts: Vec<String> = (0..3).map(|n| f.read(&format!("out/part-0000{n}"))).collect();
    let mut lines: Vec<&str> = parts.iter().flat_map(|part| part.lines()).collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n") + "\n", COUNTS);
    assert!(parts.iter().filter(|part| !part.is_empty()).count() > 1, "{parts:?}");
}

#[test]
fn keys_and_values_are_pythons_own() {
    let f = folder("x\n");
    let code = "class Point:\n    def __init__(self, x): self.x = x\n\
        def map(key, value):\n    \
            for k in [2, 10, -1, 2.5, 'b', 'a', b'raw', None, (1, 'z'), (1, 'a'), 10**30, -10**30, 2.0, True, float('inf')]:\n        \
                yield k, type(k).__name__\n    \
            yield 'point', Point(7)\n    yield 'set', {1, 2}\n    yield 'map', {'a': [1, 2.5, None]}\n    yield 'text', 'é\\u20ac'\n\
        def reduce(key, values):\n    \
            values = list(values)\n    \
            if key == 'point': return values[0].x\n    \
            if key == 'set': return sorted(values[0])\n    \
            return values[0] if len(values) == 1 else '+'.join(sorted(values))\n";
    let expected = "NoneType\n-1000000000000000000000000000000\tint\n-1\tint\nTrue\tbool\n2\tfloat+int\n2.5\tfloat\n10\tint\n\
        1000000000000000000000000000000\tint\ninf\tfloat\nraw\tbytes\na\tstr\nb\tstr\nmap\t{\"a\": [1, 2.5, null]}\npoint\t7\n\
        set\t[1, 2]\ntext\té€\n[1, \"a\"]\ttuple\n[1, \"z\"]\ttuple\n";
    assert_eq!(f.made(code, &[]), expected);
    // Bytes that are no text come through as they are.
    let f = folder(b"\xff\xfe a\r\nb\n".as_slice());
    let echo = "def map(key, value):\n    yield value, 1\n";
    f.file("job.py", echo);
    let done = f.command(program()).args(["run", "python", "job.py", "in"]).output().unwrap();
    assert_eq!(done.stdout, b"b\t1\n\xff\xfe a\t1\n", "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_functions_return_is_pairs_or_a_value() {
    let f = folder("a 1\na 2\nb 5\n");
    let map = "def map(key, value):\n    k, n = value.split()\n    yield k, (int(n), 1)\n";
    // A tuple of a combiner is a value, unless it begins with the key.
    for combine in
        ["return (sum(v[0] for v in values), len(values))", "yield key, (sum(v[0] for v in values), len(values))"]
    {
        let code = format!(
            "{map}def combine(key, values):\n    {combine}\ndef reduce(key, values):\n    s, n = [sum(v) for v in zip(*values)]\n    return s / n\n"
        );
        assert_eq!(f.made(&code, &[]), "a\t1.5\nb\t5.0\n", "{combine}");
    }
    let reduced = |body: &str| f.made(&format!("{map}def reduce(key, values):\n    {body}\n"), &[]);
    assert_eq!(reduced("return [v[0] for v in values]"), "a\t[1, 2]\nb\t[5]\n");
    assert_eq!(reduced("return [(v[0], key) for v in values]"), "a\t[[1, \"a\"], [2, \"a\"]]\nb\t[[5, \"b\"]]\n");
    assert_eq!(reduced("for v in values: yield v[0], key"), "1\ta\n2\ta\n5\tb\n");
    assert_eq!(reduced("for v in values: yield v[0]"), "a\t1\na\t2\nb\t5\n");
    assert_eq!(reduced("return None"), "");
    assert_eq!(reduced("return {'n': len(values)}"), "a\t{\"n\": 2}\nb\t{\"n\": 1}\n");
}

#[test]
fn the_key_of_map_is_the_name_of_the_input() {
    let f = Folder::new();
    f.file("d/one", "a b\n");
    f.file("d/two.gz", gzip(b"b\n"));
    f.file("d/none", "");
    let code = "def map(key, value):\n    for w in value.split(): yield w, key\ndef reduce(key, values):\n    return ' '.join(sorted(values))\n";
    let done = f.python(code, &["d"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "a\td/one\nb\td/one d/two.gz\n"), "{}", done.err);
    // A record may be a whole file, or what NUL ends, or so many bytes.
    let length = "def map(key, value):\n    yield key, len(value)\n";
    assert_eq!(f.python(length, &["d/one", "--input-format", "whole"]).out, "d/one\t4\n");
    f.file("nul", b"one\0three\0".as_slice());
    assert_eq!(f.python(length, &["nul", "--input-format", "nul"]).out, "nul\t3\nnul\t5\n");
    f.file("fixed", "aabbcc");
    let whole = "def map(key, value):\n    yield value, 1\n";
    assert_eq!(f.python(whole, &["fixed", "--input-format", "fixed:2"]).out, "aa\t1\nbb\t1\ncc\t1\n");
}

#[test]
fn what_is_mapped_can_be_the_output() {
    let f = folder("b\na\n");
    assert_eq!(f.made("def map(key, value):\n    yield value.upper(), len(value)\n", &["--map-only"]), "B\t1\nA\t1\n");
    assert_eq!(f.made("def map(key, value):\n    yield None, value\n", &["--map-only"]), "b\na\n");
    assert_eq!(f.made("def map(key, value):\n    yield value, None\n", &[]), "a\nb\n");
}

#[test]
fn partition_says_where_a_key_goes() {
    let f = folder("1\n2\n3\n4\n5\n");
    let code = "def map(key, value):\n    yield int(value), 1\ndef partition(key, parts):\n    return key % parts\n";
    let done = f.python(code, &["in", "-o", "out", "--reducers", "3"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let parts: Vec<String> = (0..3).map(|n| f.read(&format!("out/part-0000{n}"))).collect();
    assert_eq!(parts, ["3\t1\n", "1\t1\n4\t1\n", "2\t1\n5\t1\n"]);
    let code = "def map(key, value):\n    yield int(value), 1\ndef partition(key, parts):\n    return parts\n";
    let done = f.python(code, &["in", "-o", "out2", "--reducers", "3"]);
    assert!(
        done.code == Some(3) && done.err.contains("partition must return a number from 0 to 2, not 3"),
        "{}",
        done.err
    );
}

#[test]
fn an_error_points_into_the_file_and_names_the_record() {
    let mut text: String = (0..1000).map(|n| format!("{n}\n")).collect();
    let at = text.len();
    text += "zwei\n3\n";
    let f = folder(text);
    let code = "def parse(text):\n    return int(text)\n\ndef map(key, value):\n    yield parse(value) % 7, 1\n";
    let done = f.python(code, &["in"]);
    assert_eq!((done.code, done.out.as_str()), (Some(3), ""), "{}", done.err);
    for part in [
        format!("map task 0 failed 4 times, the last in in near byte {at}: ValueError: invalid literal for int()"),
        "(job.py, line 2, in parse), at 'zwei'".into(),
        "File \"job.py\", line 5, in map".into(),
        "    return int(text)".into(),
        "do it again with: sh ".into(),
    ] {
        assert!(done.err.contains(&part), "{part}: {}", done.err);
    }
    assert!(!done.err.contains("harness"), "{}", done.err);
    // The command shows the same.
    let script = done.err.split("do it again with: sh ").nth(1).unwrap().trim();
    let again = std::process::Command::new("sh").arg(script).output().unwrap();
    let words = String::from_utf8_lossy(&again.stderr);
    assert!(words.contains("File \"job.py\", line 2, in parse") && words.contains("at 'zwei'"), "{words}");
    std::fs::remove_dir_all(std::path::Path::new(script).parent().unwrap()).unwrap();
    // Of a reducer, the key.
    let code =
        "def map(key, value):\n    yield len(value), value\ndef reduce(key, values):\n    return 1 / (key - 4)\n";
    let done = f.python(code, &["in", "--attempts", "1"]);
    assert!(
        done.err.contains("reduce task 0 failed: ZeroDivisionError") && done.err.contains(", at 4"),
        "{}",
        done.err
    );
}

#[test]
fn what_is_no_job_is_refused_at_once() {
    let f = folder("a\n");
    for (code, message) in [
        ("def map(key value):\n    pass\n", "job.py cannot be loaded: SyntaxError"),
        ("def reduce(key, values):\n    pass\n", "job.py cannot be loaded: job.py has no function map(key, value)"),
        (
            "import nowhere\ndef map(k, v): pass\n",
            "job.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere' (job.py, line 1",
        ),
        (
            "def setup():\n    raise RuntimeError('not ready')\ndef map(k, v): pass\n",
            "job.py cannot be loaded: RuntimeError: not ready",
        ),
    ] {
        let done = f.python(code, &["in"]);
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(done.err.contains(message), "{message}: {}", done.err);
    }
    for (body, message) in [
        ("return 1", "map must return or yield pairs of a key and a value, not 1"),
        ("yield 1", "a pair of a key that can be hashed and a value is wanted"),
        ("yield [], 1", "a pair of a key that can be hashed and a value is wanted"),
        ("yield frozenset(), 1", "keys are str, bytes, int, float, None or tuples of these, not frozenset"),
        ("yield 1, (lambda: 1)", "a value cannot be pickled"),
        ("import os; os._exit(0)", "it ended in the middle of its work"),
        ("import os; os._exit(7)", "it exited with code 7"),
        ("import os; os.kill(os.getpid(), 11)", "it was ended by signal 11 (SIGSEGV)"),
        ("import sys; sys.exit('no more')", "SystemExit: no more"),
        ("open('/etc/shadow')", "PermissionError"),
    ] {
        let done = f.python(&format!("def map(key, value):\n    {body}\n"), &["in", "--attempts", "1"]);
        assert_eq!(done.code, Some(3), "{body}: {}", done.err);
        assert!(done.err.contains(message), "{body}: {}", done.err);
    }
    let done = ended(f.command(program()).args(["run", "python", "none.py", "in"]).output().unwrap());
    assert!(done.code == Some(2) && done.err.contains("cannot read none.py"), "{}", done.err);
    let done = f.python("def map(k, v): pass\n", &["in", "--python", "nopython"]);
    assert!(done.code == Some(2) && done.err.contains("'nopython' cannot be begun"), "{}", done.err);
}

#[test]
fn counters_and_words_come_through() {
    let f = folder("a\nb\n");
    let code = "import gristmill, sys\ndef setup():\n    print('ready')\n\
        def map(key, value):\n    gristmill.counter('g', 'lines')\n    gristmill.counter('g', 'bytes', len(value))\n    \
        print('at', value)\n    gristmill.status('busy')\n    yield value, 1\n\
        def reduce(key, values):\n    gristmill.counter('g', 'keys', 1)\n    print('reporter:counter:g,said,2', file=sys.stderr)\n    return 1\n";
    let done = f.python(code, &["in", "-o", "out"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("map task 0: at a\n") && done.err.contains("setup: ready\n"), "{}", done.err);
    assert!(done.err.contains("g:bytes 2, g:keys 2, g:lines 2, g:said 4"), "{}", done.err);
    assert!(!done.err.contains("status"), "{}", done.err);
}

#[test]
fn a_group_of_any_size_is_reduced() {
    // Two keys with 40 MB of values each, of both kinds, which come in several frames.
    let f = folder((0..400).map(|n| format!("{n}\n")).collect::<String>());
    let code = "def map(key, value):\n    yield 'a', 'x' * 100000\n    yield 'b', (value, 'y' * 100000)\n    yield value, 1\n\
        def reduce(key, values):\n    \
            if key == 'a': return sum(len(v) for v in values)\n    \
            if key == 'b': return sum(len(v[1]) for v in values)\n    \
            return 0\n";
    let out = f.made(code, &["--memory", "64MiB"]);
    let lines: Vec<&str> = out.lines().filter(|line| line.starts_with(['a', 'b'])).collect();
    assert_eq!(lines, ["a\t40000000", "b\t40000000"]);
    assert_eq!(out.lines().count(), 402);
    // One that stops reading them early, and one that never begins.
    let code = "def map(key, value):\n    yield 'a', 'x' * 100000\n    yield 'b', 1\n\
        def reduce(key, values):\n    return len(next(iter(values))) if key == 'a' else len(values)\n";
    assert_eq!(f.made(code, &[]), "a\t100000\nb\t400\n");
    let code = "def map(key, value):\n    yield 'a', 'x' * 100000\n    yield 'b', 1\ndef reduce(key, values):\n    return 'none'\n";
    assert_eq!(f.made(code, &[]), "a\tnone\nb\tnone\n");
}

#[test]
fn modules_and_wheels_are_shipped() {
    let f = folder("a\n");
    f.file("more.py", "def upper(text):\n    return text.upper()\n");
    let code = "import more, os\ndef map(key, value):\n    yield more.upper(value), sorted(n for n in os.listdir('.') if n[0] != '.')\n";
    assert_eq!(f.made(code, &["--file", "more.py"]), "A\t[\"job.py\", \"more.py\"]\n");
    let pack = "import zipfile\nwith zipfile.ZipFile('wheels/thing-1-py3-none-any.whl', 'w') as z: z.writestr('thing/__init__.py', 'N = 42\\n')\n";
    std::fs::create_dir(f.path().join("wheels")).unwrap();
    assert!(f.command("python3").args(["-c", pack]).status().unwrap().success());
    let code = "import thing\ndef map(key, value):\n    yield value, thing.N\n";
    assert_eq!(f.made(code, &["--requirements", "wheels"]), "a\t42\n");
    let done = f.python(code, &["in", "--requirements", "."]);
    assert!(done.code == Some(2) && done.err.contains("has no wheels"), "{}", done.err);
}

#[test]
fn a_slow_function_is_no_dead_one() {
    let f = folder("a\nb\nc\nd\n");
    let code = "import time\ndef map(key, value):\n    time.sleep(0.8)\n    yield value, 1\n";
    assert_eq!(f.made(code, &["--timeout", "3"]), "a\t1\nb\t1\nc\t1\nd\t1\n");
    let code = "def map(key, value):\n    while True: pass\n";
    let done = f.python(code, &["in", "--timeout", "2", "--attempts", "1"]);
    assert!(
        done.code == Some(3) && done.err.contains("neither read nor wrote nor said anything for 2 s"),
        "{}",
        done.err
    );
}

/// One interpreter for each thread, however many tasks there are.
#[test]
fn interpreters_stay_for_the_job() {
    let f = Folder::new();
    (0..20).for_each(|n| drop(f.file(&format!("d/{n}"), "x\n")));
    let code = "import gristmill\ndef setup():\n    print('begun')\ndef map(key, value):\n    yield value, 1\ndef reduce(key, values):\n    return sum(values)\n";
    let done = f.python(code, &["d", "--threads", "2"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "x\t20\n"), "{}", done.err);
    assert!(done.err.matches("begun").count() <= 2, "{}", done.err);
}

/// A value that happens to begin with its key is a value.
#[test]
fn a_combiner_keeps_the_shape_of_values() {
    let f = folder("5 2\n5 3\n6 1\n6 1\n");
    let map = "def map(key, value):\n    k, n = value.split()\n    yield int(k), (int(n), 1)\n";
    let list = "def reduce(key, values):\n    return list(values)\n";
    let sums = "sum(v[0] for v in values), sum(v[1] for v in values)";
    for combine in [format!("return {sums}"), format!("yield key, ({sums})")] {
        let code = format!("{map}def combine(key, values):\n    {combine}\n{list}");
        assert_eq!(f.made(&code, &[]), "5\t[[5, 2]]\n6\t[[2, 2]]\n", "{combine}");
    }
    let code = format!(
        "from collections import namedtuple\nP = namedtuple('P', 's n')\n{map}def combine(key, values):\n    return P({sums})\ndef reduce(key, values):\n    return values[0].s\n"
    );
    assert_eq!(f.made(&code, &[]), "5\t5\n6\t2\n");
    let code = "def map(key, value):\n    yield value, 1\ndef combine(key, values):\n    yield key + 'x', 1\n";
    let done = f.python(code, &["in", "--attempts", "1"]);
    assert!(done.err.contains("combine must keep the key, and made ('5 2x', 1) of it, at '5 2'"), "{}", done.err);
}

#[test]
fn what_a_file_imports_is_none_of_its_functions() {
    let f = folder("a b\nb\n");
    let code = "from functools import reduce\ndef map(key, value):\n    for w in value.split(): yield w, 1\n\
        def reducer(key, values):\n    return reduce(lambda a, b: a + b, values)\n";
    assert_eq!(f.made(code, &[]), "a\t1\nb\t2\n");
    // A default is no second argument that an older function wants.
    let code = "def map_function(line, sep=' '):\n    return [(w, 1) for w in line.split(sep)]\n";
    assert_eq!(f.made(code, &[]), "a\t1\nb\t1\nb\t1\n");
    // Nor is the file in the way of modules of its name.
    for name in ["types.py", "inspect.py", "json.py", "my.job.py"] {
        f.file(name, "class V: n = 7\ndef map(key, value):\n    yield 'v', V()\ndef reduce(key, values):\n    return values[0].n\n");
        let done = ended(f.command(program()).args(["run", "python", name, "in"]).output().unwrap());
        assert_eq!((done.code, done.out.as_str()), (Some(0), "v\t7\n"), "{name}: {}", done.err);
    }
}

/// Batches end at the same records whenever the input comes.
#[test]
fn what_is_mapped_together_does_not_depend_on_time() {
    let f = Folder::new();
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let len = text.len();
    f.file("in", gzip(text.as_bytes()));
    std::fs::rename(f.path().join("in"), f.path().join("in.gz")).unwrap();
    let code = "import random, time\nr = random.Random()\ndef map_batch(key, values):\n    time.sleep(r.random() * 0.05)\n    yield 'n', len(values)\n    yield 'bytes', sum(map(len, values)) + len(values)\n";
    let made: Vec<String> = (0..3).map(|_| f.python(code, &["in.gz"]).out).collect();
    assert!(made[0] == made[1] && made[1] == made[2], "{made:?}");
    let bytes: usize = made[0].lines().filter_map(|line| line.strip_prefix("bytes\t")?.parse::<usize>().ok()).sum();
    assert_eq!(bytes, len);
    assert!(made[0].lines().count() > 10, "{}", made[0]);
}

#[test]
fn what_looks_like_pairs_and_is_none_is_refused() {
    let f = folder("ab cd\n");
    for body in ["return value.split()", "return value", "return b'ab'"] {
        let done = f.python(&format!("def map(key, value):\n    {body}\n"), &["in", "--attempts", "1"]);
        assert!(
            done.code == Some(3) && done.err.contains("map must return or yield pairs"),
            "{body}: {} {}",
            done.out,
            done.err
        );
    }
    assert_eq!(f.made("def map(key, value):\n    return value, 1\n", &[]), "ab cd\t1\n");
    assert_eq!(f.made("def map(key, value):\n    return ('a', 1), ('b', 2)\n", &[]), "a\t1\nb\t2\n");
}

#[test]
fn a_large_group_that_is_gone_through_twice_is_told() {
    let f = folder((0..100).map(|n| format!("{n}\n")).collect::<String>());
    let map = "def map(key, value):\n    yield 'k', value * 50000\n";
    let done = f.python(
        &format!(
            "{map}def reduce(key, values):\n    n = sum(1 for v in values)\n    return n, sum(len(v) for v in values)\n"
        ),
        &["in", "--attempts", "1"],
    );
    assert!(
        done.code == Some(3) && done.err.contains("the values of a large group go by once"),
        "{} {}",
        done.out,
        done.err
    );
    let done =
        f.python(&format!("{map}def reduce(key, values):\n    return len(values)\n"), &["in", "--attempts", "1"]);
    assert!(done.code == Some(3) && done.err.contains("the values of a large group are not counted"), "{}", done.err);
}

#[test]
fn text_of_all_kinds_comes_out_and_is_told() {
    let f = folder("a\r\nb\r");
    assert_eq!(f.made("def map(key, value):\n    yield value, None\n", &[]), "a\nb\n");
    let f = folder("x\n");
    f.file("job.py", "def map(key, value):\n    yield '\\ud83d cut', '\\udcff'\n");
    let done = f.command(program()).args(["run", "python", "job.py", "in"]).output().unwrap();
    assert_eq!(done.stdout, b"\xed\xa0\xbd cut\t\xff\n", "{}", String::from_utf8_lossy(&done.stderr));
    f.file("in", b"caf\xe9\n".as_slice());
    let code = "import gristmill, sys\ndef map(key, value):\n    gristmill.counter('words', value, 2**70)\n    sys.stderr.write('no end')\n    yield 1, 1\n";
    let done = f.python(code, &["in"]);
    assert!(
        done.code == Some(0) && done.err.contains("9,223,372,036,854,775,807") && done.err.contains("no end\n"),
        "{}",
        done.err
    );
    let code = "def map(key, value):\n    try: int('x')\n    except ValueError as e: raise RuntimeError('bad line: ' + value + '\\nmore') from e\n";
    let done = f.python(code, &["in", "--attempts", "1"]);
    assert!(
        done.err.contains("RuntimeError: bad line: caf") && done.err.contains("(job.py, line 3, in map)"),
        "{}",
        done.err
    );
    assert!(done.err.contains("ValueError: invalid literal for int()"), "{}", done.err);
    let done = f.python("def map(a, b, c): pass\n", &["in", "--attempts", "1"]);
    assert!(done.err.contains("map() missing 1 required positional argument: 'c'"), "{}", done.err);
}

#[test]
fn children_of_functions_end_by_themselves() {
    let f = folder("a\n");
    let code = "import os, sys\ndef map(key, value):\n    pid = os.fork()\n    if pid == 0: sys.exit(3)\n    yield value, os.waitpid(pid, 0)[1] >> 8\n";
    assert_eq!(f.made(code, &[]), "a\t3\n");
    // What failed is told even when much of what was made before it is not read yet.
    let code = "def map(key, value):\n    for n in range(5000): yield n, 'x' * 100\n    yield 'z', 'y' * 1000000\n    yield 'w', (lambda: 1)\n\
        def partition(key, parts):\n    return {'z': 1, 'w': 2}.get(key, 0)\n";
    let done = f.python(code, &["in", "-o", "out", "--reducers", "3", "--attempts", "1"]);
    assert!(done.err.contains("a value cannot be pickled") && done.err.contains("at 'w'"), "{}", done.err);
}
