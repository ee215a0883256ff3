//! Everything outside of us that can go wrong: each is one clear line with its exit code, and leaves nothing behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::{Ended, Folder, Running, ended, gzip, until};

/// The job failed with this code and one line that holds this, and left nothing.
#[track_caller]
fn fails(f: &Folder, ended: &Ended, code: i32, part: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.err.starts_with("gristmill: ") || ended.err.starts_with("faulty: "), "{ended:?}");
    assert!(ended.err.contains(part), "'{part}' is not said: {ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    assert!(!f.path().join("out").exists());
    assert_eq!(f.hidden(), [""; 0]);
}

#[test]
fn missing_inputs() {
    let f = Folder::new();
    fs::create_dir(f.path().join("empty")).unwrap();
    f.file("good.txt", "x");
    for (input, part) in [
        ("none.txt", "none.txt: no such file or folder"),
        ("good.txt/below", "good.txt/below: no such file or folder"),
        ("*.log", "*.log: no file matches"),
        ("empty", "empty: the folder holds no input"),
    ] {
        fails(&f, &f.run(&format!("run wordcount good.txt {input} -o out")), 1, part);
    }
    fails(&f, &ended(f.gristmill("run wordcount -o out").arg("").output().unwrap()), 2, "an input has an empty name");
    let odd = ended(f.gristmill("run wordcount -o out").arg("line\nfeed").output().unwrap());
    fails(&f, &odd, 1, "line\\nfeed: no such file");
}

#[test]
fn an_input_that_vanishes_or_shrinks_before_it_is_read() {
    for (name, change) in [("gone", fs::remove_file as fn(_) -> _), ("short", |path| fs::write(path, "short"))] {
        let f = Folder::new();
        let path = f.file("in.txt", "line of text\n".repeat(1000));
        // One thread reads standard input first, and so waits with the file listed and not read.
        let running = f.start("run wordcount - in.txt -o out --threads 1");
        until("the hidden folder", || !f.hidden().is_empty());
        change(path).unwrap();
        let part = if name == "gone" { "cannot open in.txt: No such file" } else { "byte 5 is gone" };
        fails(&f, &running.wait(), 3, part);
    }
}

#[test]
fn an_input_that_shrinks_while_it_is_mapped() {
    let f = Folder::new();
    let path = f.file("in.txt", "some line of text\n".repeat(4 << 20));
    let running = f.start("run sort in.txt -o out --threads 1");
    let maps = format!("/proc/{}/maps", running.child.id());
    until("the file to be mapped", || fs::read_to_string(&maps).is_ok_and(|text| text.contains("in.txt")));
    File::options().write(true).open(path).unwrap().set_len(10_000).unwrap();
    fails(&f, &running.wait(), 3, "in.txt shrank while it was read: byte 10000 is gone");
}

#[test]
fn links_that_lead_nowhere_or_back() {
    let f = Folder::new();
    f.file("dir/sub/in.txt", "x");
    symlink("..", f.path().join("dir/sub/back")).unwrap();
    fails(&f, &f.run("run wordcount dir -o out"), 1, "dir/sub/back: symbolic link leads back to dir");
    fs::remove_file(f.path().join("dir/sub/back")).unwrap();
    symlink("nowhere", f.path().join("dir/broken")).unwrap();
    fails(&f, &f.run("run wordcount dir -o out"), 1, "dir/broken: broken symbolic link to nowhere");
    symlink("self", f.path().join("self")).unwrap();
    let ended = f.run("run wordcount self -o out");
    let part = "self: symbolic links that lead to each other and nowhere else";
    assert!(ended.code == Some(1) && ended.err.contains(part), "{ended:?}");
}

/// The program as a user who is not allowed everything, with the folder open to that user.
fn as_nobody(f: &Folder, args: &str) -> Command {
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(f.path(), 0o777);
    let program = f.path().join("program");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_gristmill"), &program).unwrap();
        open(&program, 0o755);
    }
    let mut command = f.command(program);
    command.args(args.split_whitespace());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command
}

#[test]
fn what_is_not_allowed() {
    let f = Folder::new();
    let closed = |name: &str| {
        let path = f.file(&format!("{name}/secret.txt"), "x");
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o000)).unwrap();
    };
    let secret = f.file("secret.txt", "some words\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    f.file("in.txt", "x");
    closed("closed");
    for (args, part) in [
        ("run wordcount secret.txt -o out", "cannot open secret.txt: Permission denied"),
        ("run wordcount closed -o out", "closed: cannot list the folder; check its permissions"),
        ("run wordcount closed/secret.txt -o out", "closed/secret.txt: cannot look the file up"),
        ("run wordcount in.txt -o closed/out", "cannot create a folder in closed: Permission denied (os error 13)\n"),
        (
            "run wordcount --inputs-from secret.txt -o out",
            "cannot read the list of inputs secret.txt: Permission denied",
        ),
        ("cat closed", "closed/_SUCCESS"),
    ] {
        let mut ended = ended(as_nobody(&f, args).output().unwrap());
        ended.err = ended.err.replacen("program: ", "gristmill: ", 1);
        fails(&f, &ended, 4, part);
    }
    // So that the folder can be removed.
    fs::set_permissions(f.path().join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn compressed_inputs_that_are_damaged() {
    let f = Folder::new();
    let text: Vec<u8> =
        (0..200_000u32).flat_map(|n| format!("{} ", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    let whole = gzip(&text);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let mut wrong_sum = whole.clone();
    let end = whole.len() - 6;
    wrong_sum[end] ^= 1;
    let zst = zstd::encode_all(&text[..], 1).unwrap();
    let cases = [
        ("cut.gz", whole[..whole.len() / 2].to_vec(), "cut.gz: truncated gzip data"),
        ("flipped.gz", flipped, "flipped.gz: corrupt gzip data near byte"),
        ("sum.gz", wrong_sum, "sum.gz: corrupt gzip data near byte"),
        ("text.gz", text[..100].to_vec(), "text.gz: corrupt gzip data near byte"),
        ("empty.gz", Vec::new(), "empty.gz: truncated gzip data"),
        ("more.gz", [&whole[..], b"garbage"].concat(), "more.gz: trailing garbage"),
        ("cut.zst", zst[..zst.len() - 3].to_vec(), "cut.zst: truncated zstd data"),
    ];
    for (name, bytes, part) in cases {
        f.file(name, bytes);
        fails(&f, &f.run(&format!("run wordcount {name} -o out --threads 1")), 3, part);
    }
}

#[test]
fn a_full_disk() {
    let f = Folder::new();
    f.file("in.txt", (0..100_000).map(|n| format!("word{n}\n")).collect::<String>());
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for args in ["run wordcount in.txt", "run sort in.txt"] {
        let ended = ended(f.gristmill(args).stdout(full()).output().unwrap());
        fails(&f, &ended, 1, "cannot write the result to standard output: No space left on device");
    }
    f.out("run wordcount in.txt -o made");
    for args in [
        "cat made",
        "apps",
        "--help",
        "--version",
        "run wordcount --help",
        "completions bash",
        "run wordcount in.txt --explain",
    ] {
        let ended = ended(f.gristmill(args).stdout(full()).output().unwrap());
        fails(&f, &ended, 1, "standard output: No space left on device");
    }
}

#[test]
fn a_file_that_may_not_grow() {
    let f = Folder::new();
    f.file("in.txt", (0..100_000).map(|n| format!("word{n}\n")).collect::<String>());
    let limited = |args: &str| {
        let mut command = f.command("sh");
        command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gristmill")]);
        ended(command.args(args.split_whitespace()).output().unwrap())
    };
    fails(&f, &limited("run wordcount in.txt -o out --reducers 2"), 1, "cannot write out/part-0000");
    f.file("big.txt", (0..300_000).map(|n| format!("{n:0100}\n")).collect::<String>());
    fails(&f, &limited("run sort big.txt -o out --memory 16m"), 1, "File too large");
}

#[test]
fn more_parts_than_files_may_be_open() {
    let f = Folder::new();
    f.file("in.txt", "a b c");
    let limited = |limit: &str| {
        let mut command = f.command("sh");
        command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_gristmill")]);
        ended(command.args("run wordcount in.txt -o out --reducers 200".split(' ')).output().unwrap())
    };
    fails(
        &f,
        &limited("-n 100"),
        2,
        "200 parts and 64 other files are more than this process may have open, which is 100;",
    );
    let raised = limited("-S -n 100");
    assert_eq!(raised.code, Some(0), "{raised:?}");
}

#[test]
fn a_full_file_system() {
    let f = Folder::new();
    f.file("in.txt", (0..100_000).map(|n| format!("word{n}\n")).collect::<String>());
    let small = f.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        eprintln!("not run: mounting is not allowed here");
        return;
    }
    let ended = f.run("run wordcount in.txt -o small/out");
    let left = f.names("small");
    let unmounted = Command::new("umount").arg(&small).status().unwrap();
    fails(&f, &ended, 1, "cannot write small/out/part-00000: No space left on device");
    assert_eq!(left, [""; 0]);
    assert!(unmounted.success());
}

#[test]
fn an_output_that_is_there() {
    let f = Folder::new();
    f.file("in.txt", "x");
    f.file("precious/file", "data");
    f.file("plain", "data");
    let error = |args: &str| f.run(&format!("run wordcount in.txt {args}"));
    for name in ["precious", "plain", "."] {
        fails(&f, &error(&format!("-o {name}")), 5, "exists; choose another name or pass --overwrite");
    }
    for name in ["precious", "plain"] {
        fails(&f, &error(&format!("-o {name} --overwrite")), 5, "is not the output of a job");
    }
    fails(&f, &error("-o plain/out"), 2, "output plain/out: plain is a file, not a folder; choose another name");
    fails(&f, &error(". -o new/./../x/.. --overwrite"), 2, "give the folder's own name");
    assert_eq!((f.read("precious/file"), f.read("plain")), ("data".into(), "data".into()));
}

#[test]
fn a_folder_made_while_the_job_runs_is_not_overwritten() {
    let f = Folder::new();
    let running = f.start("run wordcount - -o race --overwrite");
    until("the hidden folder", || f.names(".").iter().any(|name| name.starts_with(".race.gristmill-")));
    f.file("race/precious", "data");
    let ended = running.wait();
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("race is not the output of a job"), "{ended:?}");
    assert_eq!((f.read("race/precious"), f.names(".")), ("data".into(), vec!["race".to_string()]));
}

#[test]
fn folders_above_an_output_go_with_a_job_that_fails() {
    let f = Folder::new();
    f.file("edges", "no tab\n");
    for _ in 0..2 {
        fails(&f, &f.run("run reverse-links --edges edges -o da/db/dc"), 3, "no TAB");
        assert_eq!(f.names("."), ["edges"]);
    }
}

#[test]
fn whoever_reads_the_result_leaves() {
    let f = Folder::new();
    f.file("in.txt", (0..400_000).map(|n| format!("word{n}\n")).collect::<String>());
    f.out("run sort in.txt -o made");
    for args in ["run sort in.txt", "run wordcount in.txt", "cat made"] {
        let mut child = f.gristmill(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("word0"), "{line}");
        let ended = Running::adopt(child).wait();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args}");
    }
}

#[test]
fn a_panic_of_the_app() {
    let f = Folder::new();
    let faulty = |args: &str| ended(f.faulty(args).output().unwrap());
    f.file("map", "a\npanic-in-map\n");
    f.file("reduce", "a\npanic-in-reduce\nz\n");
    fails(&f, &faulty("run faulty map -o out"), 3, "the app panicked in map (map after byte 0): ");
    fails(&f, &faulty("run faulty reduce -o out"), 3, "the app panicked in reduce (part-00000): told to");
    let asked = ended(f.faulty("run faulty reduce").env("RUST_BACKTRACE", "1").output().unwrap());
    assert!(asked.code == Some(3) && asked.err.contains("stack backtrace"), "{asked:?}");
}

#[test]
fn records_that_are_bad() {
    let f = Folder::new();
    f.file("in.txt", "good\nbad-record\n");
    let part = "bad record in in.txt at byte 5: it says so itself; it begins with 'bad-record' (--skip-bad-records N";
    fails(&f, &ended(f.faulty("run faulty in.txt -o out").output().unwrap()), 3, part);
    fails(&f, &f.run("run sort --field 3 in.txt -o out"), 3, "bad record in in.txt at byte 0: it has no field 3");
    let ragged =
        "in.txt has 16 bytes, which is not a multiple of the record length 5: the last record is cut short; correct";
    fails(&f, &f.run("run sort --input-format fixed:5 in.txt -o out"), 3, ragged);
}

#[test]
fn faults_of_the_program_itself() {
    let f = Folder::new();
    f.file("in.txt", "x");
    for (fault, args, code, part) in [
        ("same-flag", "apps", 2, "app 'clashing' has a flag --threads, which every app has already; rename it"),
        ("same-name", "apps", 2, "two apps are called 'faulty'"),
        ("panic", "run crash in.txt -o out", 1, "internal error: told to at tests/it/faulty.rs:"),
    ] {
        let ended = ended(f.faulty(args).env("FAULTY", fault).output().unwrap());
        fails(&f, &ended, code, part);
    }
}

#[test]
fn a_socket_is_no_input() {
    let f = Folder::new();
    let _listener = std::os::unix::net::UnixListener::bind(f.path().join("socket")).unwrap();
    fails(&f, &f.run("run wordcount socket -o out"), 1, "socket: a socket cannot be read as input");
}

#[test]
fn closed_standard_streams() {
    let f = Folder::new();
    f.file("in.txt", "x\n");
    let with = |closed: &str| {
        let mut command = f.command("sh");
        let script = format!("exec \"$0\" run wordcount in.txt -o out {closed}");
        let ended = ended(command.args(["-c", &script, env!("CARGO_BIN_EXE_gristmill")]).output().unwrap());
        assert_eq!(f.read("out/part-00000"), "x\t1\n", "{closed}");
        fs::remove_dir_all(f.path().join("out")).unwrap();
        ended.code
    };
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        assert_eq!(with(closed), Some(0), "{closed}");
    }
    for args in
        ["run wordcount in.txt", "run sort in.txt", "cat made", "apps", "--help", "run wordcount in.txt -o o --json"]
    {
        let mut command = f.command("sh");
        let script = format!("exec \"$0\" {args} >&-");
        let ended = ended(command.args(["-c", &script, env!("CARGO_BIN_EXE_gristmill")]).output().unwrap());
        assert_eq!(ended.code, Some(1), "{args}: {ended:?}");
        assert!(ended.err.contains("standard output: Bad file descriptor"), "{args}: {ended:?}");
        f.out("run wordcount in.txt -o made --overwrite");
    }
    // An error that nobody hears is one all the same.
    let mut full = f.gristmill("run wordcount none");
    let full = full.stderr(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(full.output().unwrap().status.code(), Some(1));
}

#[test]
fn compressed_bytes_from_a_pipe_are_not_taken_for_text() {
    let f = Folder::new();
    for (bytes, tool) in [
        (gzip(b"some text"), "gzip"),
        (zstd::encode_all(&b"some text"[..], 1).unwrap(), "zstd"),
        (b"BZh91AY&SYxxxx".to_vec(), "bzip2"),
        (b"\x04\x22\x4d\x18xxxx".to_vec(), "lz4"),
        (b"\xfd7zXZ\0xxxx".to_vec(), "xz"),
    ] {
        let ended = f.fed("run wordcount - -o out", &bytes);
        fails(
            &f,
            &ended,
            3,
            &format!("standard input is {tool} data; only files are decompressed, by their extension"),
        );
        assert_eq!(f.fed("run distinct - --input-format fixed:1 -q -o raw --overwrite", &bytes).code, Some(0));
    }
    assert_eq!(f.fed("run wordcount -", "BZh is text").out, "BZh\t1\nis\t1\ntext\t1\n");
}

#[test]
fn an_output_is_not_its_own_input() {
    let f = Folder::new();
    f.file("win/a.txt", "x");
    f.out("run wordcount win -o win/out --overwrite");
    for _ in 0..2 {
        let ended = f.run("run wordcount win -o win/out --overwrite");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("input win/out/part-00000 lies in win/out, the output to be replaced"), "{ended:?}");
        assert_eq!(f.out("cat win/out"), "x\t1\n");
    }
    // What is named is meant.
    f.out("run distinct win/out -o win/out --overwrite");
    f.out("run wordcount win -o win/_out --overwrite");
    f.out("run wordcount win -o win/_out --overwrite");
}

#[test]
fn a_folder_for_spills_that_is_none_is_told_of_at_once() {
    let f = Folder::new();
    f.file("file", "x");
    for (name, part) in [("nowhere", "No such file"), ("file", "not a directory")] {
        fails(
            &f,
            &f.run(&format!("run wordcount file --temp-dir {name} -o out")),
            1,
            &format!("cannot spill to {name}: {part}"),
        );
    }
}
