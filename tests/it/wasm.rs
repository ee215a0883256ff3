//! `run wasm`: what apps as WebAssembly do, and may not.
//!
//! Apps are modules in text form, for which clang is not needed; the example in C is compiled where it is there.

use crate::program::{COUNTS, Ended, Folder, TEXT, ended, program};

/// A module with memory that is taken in order, and whatever else a test adds.
fn module(functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "gristmill:app/host@0.1.0" "counter" (func $counter (param i32 i32 i32 i32 i64)))
            (import "gristmill:app/host@0.1.0" "log" (func $log (param i32 i32)))
            (memory (export "memory") 2)
            (global $top (mut i32) (i32.const 4096))
            (data (i32.const 0) "group lines hello failed")
            (func $alloc (param $n i32) (result i32) (local $at i32)
                (local.set $at (global.get $top))
                (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $n)) (i32.const 15)) (i32.const -16)))
                (block $enough
                    (br_if $enough (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
                    (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $n) (i32.const 16)))))
                        (then unreachable)))
                (local.get $at))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
            ;; result<list<u8>, string>
            (func $return (param $failed i32) (param $at i32) (param $len i32) (result i32) (local $to i32)
                (local.set $to (call $alloc (i32.const 12)))
                (i32.store (local.get $to) (local.get $failed))
                (i32.store offset=4 (local.get $to) (local.get $at))
                (i32.store offset=8 (local.get $to) (local.get $len))
                (local.get $to))
            ;; One pair: a key of these bytes, and the value "1".
            (func $pair (param $at i32) (param $len i32) (result i32) (local $to i32)
                (local.set $to (call $alloc (i32.add (local.get $len) (i32.const 9))))
                (i32.store (local.get $to) (local.get $len))
                (i32.store offset=4 (local.get $to) (i32.const 1))
                (memory.copy (i32.add (local.get $to) (i32.const 8)) (local.get $at) (local.get $len))
                (i32.store8 offset=8 (i32.add (local.get $to) (local.get $len)) (i32.const 49))
                (call $return (i32.const 0) (local.get $to) (i32.add (local.get $len) (i32.const 9))))
            {functions})"#
    );
    wat::parse_str(text).unwrap()
}

/// The first line of a batch is the key of a pair.
const FIRST_LINE: &str = r#"(func (export "map") (param $at i32) (param $len i32) (result i32) (local $n i32)
    (block $end (loop $more
        (br_if $end (i32.ge_u (local.get $n) (local.get $len)))
        (br_if $end (i32.eq (i32.const 10) (i32.load8_u (i32.add (local.get $at) (local.get $n)))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $more)))
    (call $counter (i32.const 0) (i32.const 5) (i32.const 6) (i32.const 5) (i64.const 2))
    (call $log (i32.const 12) (i32.const 5))
    (call $pair (local.get $at) (local.get $n)))"#;

fn map(body: &str) -> Vec<u8> {
    module(&format!(r#"(func (export "map") (param $at i32) (param $len i32) (result i32) {body})"#))
}

impl Folder {
    fn wasm(&self, app: &[u8], args: &[&str]) -> Ended {
        self.file("app.wasm", app);
        ended(self.command(program()).args(["run", "wasm", "app.wasm", "in"]).args(args).output().unwrap())
    }
}

fn folder(text: &str) -> Folder {
    let f = Folder::new();
    f.file("in", text);
    f
}

#[test]
fn an_app_maps_and_says_what_it_has_to_say() {
    let f = folder("one\ntwo\n");
    let app = module(FIRST_LINE);
    let done = f.wasm(&app, &["-o", "out"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(f.read("out/part-00000"), "one\t1\n");
    assert!(done.err.contains("group:lines 2") && done.err.contains("map task 0: hello"), "{}", done.err);
    assert_eq!(f.wasm(&app, &["--map-only"]).out, "one\t1\n");
    f.file("in", b"a\0b\0".as_slice());
    // Records of other formats stand behind their lengths.
    let length = map("(call $pair (i32.add (local.get $at) (i32.const 4)) (i32.load (local.get $at)))");
    assert_eq!(f.wasm(&length, &["--input-format", "nul"]).out, "a\t1\n");
}

#[test]
fn pairs_are_combined_and_reduced_in_the_order_of_keys() {
    let f = folder("x\n");
    f.file("in", "b\n");
    f.file("in2", "a\n");
    // What is combined and reduced comes back as it is: packed pairs, as the output then shows.
    let same = |name: &str, more: &str| {
        format!(
            r#"(func (export "{name}") (param $at i32) (param $len i32) {more} (result i32) (call $return (i32.const 0) (local.get $at) (local.get $len)))"#
        )
    };
    let app = module(&[FIRST_LINE, &same("combine", ""), &same("reduce", "(param i32)")].concat());
    f.file("app.wasm", app);
    let done = ended(f.command(program()).args(["run", "wasm", "app.wasm", "in", "in2", "in"]).output().unwrap());
    let pair = |key: &str| format!("\u{1}\0\0\0\u{1}\0\0\0{key}1");
    assert_eq!((done.code, done.out), (Some(0), pair("a") + &pair("b") + &pair("b")), "{}", done.err);
}

#[test]
fn what_an_app_returns_must_be_pairs() {
    let f = folder("one\n");
    let done = f.wasm(&map("(call $return (i32.const 0) (local.get $at) (i32.const 3))"), &["--attempts", "1"]);
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("what it returned is no pair from byte 0 on"), "{}", done.err);
    let done = f.wasm(&map("(call $return (i32.const 1) (i32.const 18) (i32.const 6))"), &["--attempts", "1"]);
    assert!(done.err.contains("map task 0 failed in in near byte 0: map failed: failed"), "{}", done.err);
    // A place outside of its memory.
    let done = f.wasm(&map("(call $return (i32.const 0) (i32.const -8) (i32.const 400))"), &["--attempts", "1"]);
    assert!(done.code == Some(3) && done.err.contains("map"), "{}", done.err);
}

/// The place is that of the batch which failed.
#[test]
fn batches_have_a_size_and_a_failure_has_a_place() {
    let f = folder(&("aaaaaaa\n".repeat(3 << 17) + "z\n"));
    let body = "(if (i32.eq (i32.const 122) (i32.load8_u (local.get $at))) (then unreachable)) (call $pair (local.get $at) (i32.const 1))";
    let done = f.wasm(&map(body), &["--attempts", "1"]);
    assert!(done.err.contains("map task 0 failed in in near byte 3145728: map trapped"), "{}", done.err);
    // One pair came of each of the four.
    let done = f.wasm(&map("(call $pair (local.get $at) (i32.const 1))"), &[]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "a\t1\na\t1\na\t1\nz\t1\n"), "{}", done.err);
}

/// A part for each task: how many there are was once the machine's to say.
#[test]
fn parts_of_an_app_that_only_maps_do_not_depend_on_threads() {
    let f = folder(&"aaaaaaa\n".repeat(3 << 19));
    let app = map("(call $pair (local.get $at) (i32.const 1))");
    let mut all = Vec::new();
    for threads in ["1", "3"] {
        let done = f.wasm(&app, &["--map-only", "--threads", threads, "-o", threads]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        all.push(f.read(&format!("{threads}/_SUCCESS")));
    }
    assert!(all[0] == all[1] && all[0].contains("part-00002"), "{} {}", all[0], all[1]);
}

#[test]
fn an_app_that_misbehaves_is_ended_with_its_task() {
    let f = folder("one\n");
    let once = ["--attempts", "1"];
    for (body, args, message) in [
        (
            "(loop $on (br $on)) unreachable",
            &["--timeout", "1"][..],
            "map took more than 1 s, which is all that a call may take (--timeout)",
        ),
        (
            "(drop (memory.grow (i32.const 30000))) unreachable",
            &["--task-memory", "16MiB"],
            "MiB (--task-memory), and ended with: ",
        ),
        (
            "(local.set $at (call $alloc (i32.const 1000000000))) (local.get $at)",
            &["--task-memory", "16MiB"],
            "map wanted 954 MiB of memory and may use 16 MiB",
        ),
        ("unreachable", &[], "map trapped: wasm trap: wasm `unreachable` instruction executed"),
        ("(i32.load (i32.const -4))", &[], "out of bounds memory access"),
        ("(i32.div_u (local.get $at) (i32.const 0))", &[], "integer divide by zero"),
        (
            "(local.set $len (i32.const 0)) (loop $on (call $log (i32.const 12) (i32.const 5)) (local.set $len (i32.add (local.get $len) (i32.const 1))) (br_if $on (i32.lt_u (local.get $len) (i32.const 100000)))) unreachable",
            &[],
            "it says more than is shown",
        ),
    ] {
        let done = f.wasm(&map(body), &[&once[..], args].concat());
        assert_eq!((done.code, done.out.as_str()), (Some(3), ""), "{body}: {}", done.err);
        assert!(done.err.contains("map task 0 failed") && done.err.contains(message), "{body}: {}", done.err);
        assert!(done.err.len() < 100_000, "{} bytes", done.err.len());
    }
    // All memories of an instance are one.
    let two = module(
        r#"(memory $other 1)
        (func (export "map") (param $at i32) (param $len i32) (result i32)
            (if (i32.eq (i32.const -1) (memory.grow $other (i32.const 150))) (then (return (i32.const 0))))
            (call $return (i32.const 0) (call $alloc (i32.const 9000000)) (i32.const 0)))"#,
    );
    let done = f.wasm(&two, &["--attempts", "1", "--task-memory", "16MiB"]);
    assert!(done.err.contains("map wanted 18 MiB of memory and may use 16 MiB"), "{}", done.err);
    assert_eq!(f.wasm(&two, &["--task-memory", "20MiB"]).code, Some(0));
    // What it returns is held by the program as well.
    let much = map("(call $return (i32.const 0) (call $alloc (i32.const 200000000)) (i32.const 200000000))");
    let done = f.wasm(&much, &["--attempts", "1", "--task-memory", "1GiB"]);
    assert!(done.err.contains("a call may return 128 MiB"), "{}", done.err);
    // Calls without end.
    let deep = module(
        r#"(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
        (func (export "map") (param i32 i32) (result i32) (call $deep (i32.const 0)))"#,
    );
    assert!(f.wasm(&deep, &once).err.contains("call stack exhausted"));
}

#[test]
fn what_is_no_app_is_refused() {
    let f = folder("one\n");
    let core = |text: &str| wat::parse_str(text).unwrap();
    let cases: [(Vec<u8>, &str); 7] = [
        (b"\x7fELF".to_vec(), "it is neither a component nor a module of WebAssembly"),
        (Vec::new(), "it is neither a component nor a module of WebAssembly"),
        (core("(module)"), "it exports no function map; see docs/wasm.md"),
        (core("(component)"), "it exports no function map; see docs/wasm.md"),
        (core(r#"(module (memory (export "memory") 1) (func (export "map")))"#), "app.wasm is no app"),
        (
            core(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#),
            "it asks for wasi:cli/environment@0.2.0, which no app is given",
        ),
        (
            core(
                r#"(module (import "env" "open" (func)) (memory (export "memory") 1) (func (export "map") (param i32 i32) (result i32) unreachable))"#,
            ),
            "app.wasm is no app",
        ),
    ];
    for (app, message) in cases {
        let done = f.wasm(&app, &[]);
        assert_eq!(done.code, Some(2), "{message}: {}", done.err);
        assert!(done.err.contains(message), "{message}: {}", done.err);
    }
}

/// Modules that were damaged are refused, or are apps that fail, or that work: nothing else.
#[test]
fn a_damaged_module_harms_nobody() {
    let f = folder("one\n");
    let good = module(FIRST_LINE);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut ends = [0; 4];
    for _ in 0..60 {
        let mut bad = good.clone();
        for _ in 0..=random(3) {
            let at = 8 + random(bad.len() - 8);
            bad[at] ^= 1 << random(8);
        }
        if random(4) == 0 {
            bad.truncate(8 + random(bad.len() - 8));
        }
        let done = f.wasm(&bad, &["--attempts", "1", "--timeout", "1"]);
        let code = done.code.unwrap_or_else(|| panic!("ended by a signal: {}", done.err));
        assert!([0, 2, 3].contains(&code), "{code}: {}", done.err);
        assert!(!done.err.contains("bug"), "{}", done.err);
        ends[code as usize] += 1;
    }
    assert!(ends[2] > 10 && ends[0] + ends[3] > 5, "{ends:?}");
}

#[test]
fn the_example_in_c_counts_words() {
    let f = folder(TEXT);
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wasm/wordcount.c");
    let made = f
        .command("clang")
        .args([
            "--target=wasm32",
            "-O3",
            "-mbulk-memory",
            "-msimd128",
            "-nostdlib",
            "-Wl,--no-entry",
            "-Wall",
            "-o",
            "app.wasm",
        ])
        .arg(source)
        .output();
    let Ok(made) = made else { return };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let app = std::fs::read(f.path().join("app.wasm")).unwrap();
    assert_eq!(f.wasm(&app, &[]).out, COUNTS);
    // More words than its table holds at once, in many batches, against the built-in app.
    let text: String = (0..400_000u32)
        .map(|n| {
            // Words of all lengths, of which many have the same beginning.
            let m = n.wrapping_mul(2_654_435_761) % 300_000;
            format!(
                "w{m}, \"x{}\" (\u{e9}-B) {:0>2$} sharedhead{m:0>3$}\r\n",
                n % 7,
                m % 50,
                (n % 30) as usize,
                (m % 60) as usize
            )
        })
        .collect();
    f.file("in", text);
    let expected = f.run("run wordcount in");
    assert_eq!(expected.code, Some(0));
    assert!(f.wasm(&app, &[]).out == expected.out);
    let parts = f.wasm(&app, &["-o", "out", "--reducers", "4"]);
    assert_eq!(parts.code, Some(0), "{}", parts.err);
    let mut lines: Vec<String> = (0..4)
        .flat_map(|n| f.read(&format!("out/part-0000{n}")).lines().map(String::from).collect::<Vec<_>>())
        .collect();
    lines.sort_unstable();
    assert!(lines == expected.out.lines().collect::<Vec<_>>());
}

/// What the page shows is what is there.
#[test]
fn the_page_shows_the_world_as_it_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/wasm.md")).unwrap();
    assert!(page.contains(&std::fs::read_to_string(root.join("src/wasm/app.wit")).unwrap()));
}

/// Where Rust's target for WebAssembly is installed.
#[test]
fn the_example_in_rust_counts_words() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut library = std::process::Command::new("rustc");
    library.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).current_dir(root);
    let library = library.output().map(|found| String::from_utf8_lossy(&found.stdout).trim().to_string());
    if !library.is_ok_and(|library| std::path::Path::new(&library).is_dir()) {
        return;
    }
    let f = folder(TEXT);
    let target = f.path().join("target");
    let made = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "--locked", "--offline", "-p", "gristmill-guest", "--example", "wordcount"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .current_dir(root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let app = std::fs::read(target.join("wasm32-unknown-unknown/release/examples/wordcount.wasm")).unwrap();
    let done = f.wasm(&app, &[]);
    assert_eq!(done.out, COUNTS, "{}", done.err);
    assert!(done.err.contains("wordcount:tasks "), "{}", done.err);
    // Many words, and keys that go on from call to call.
    let text: String =
        (0..300_000u32).map(|n| format!("w{} same\n", n.wrapping_mul(2_654_435_761) % 150_000)).collect();
    f.file("in", &text);
    let done = f.wasm(&app, &["-o", "out", "--reducers", "2"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let native =
        f.command(program()).args(["run", "wordcount", "in", "-o", "ref", "--reducers", "2"]).output().unwrap();
    assert!(native.status.success());
    let lines = |folder: &str| {
        let mut all: Vec<String> = (0..2)
            .flat_map(|n| f.read(&format!("{folder}/part-0000{n}")).lines().map(String::from).collect::<Vec<_>>())
            .collect();
        all.sort();
        all
    };
    assert!(lines("out") == lines("ref"));
}
