//! What scripts may not do, tried: each attempt to get out is contained, told of clearly, and harms nobody. Those that differ
//! for root and for ordinary users are made as both, where the tests run as root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::program::{Ended, Folder, ended, program};

/// A user without any rights.
const NOBODY: u32 = 65534;

/// Who runs the program.
fn users() -> Vec<Option<u32>> {
    if rustix::process::geteuid().is_root() { vec![None, Some(NOBODY)] } else { vec![None] }
}

/// A folder in which a user may do as it likes.
fn folder(user: Option<u32>) -> Folder {
    let f = Folder::new();
    f.file("in", "line 1\nline 2\n");
    if let Some(user) = user {
        for path in [f.path().to_path_buf(), f.path().join("in")] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
    }
    f
}

/// The program where everybody may execute it.
fn everybodys() -> &'static Path {
    static COPY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let copy = || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("gristmill");
        std::fs::copy(program(), &path).unwrap();
        (folder, path)
    };
    &COPY.get_or_init(copy).1
}

/// Runs a mapper of one attempt as a user.
fn mapped(f: &Folder, user: Option<u32>, mapper: &str, args: &[&str]) -> Ended {
    let mut command = f.command(user.map_or_else(program, |_| everybodys().into()));
    command.args(["run", "streaming", "-input", "in", "-reducer", "NONE", "-D", "mapreduce.map.maxattempts=1"]);
    command.args(["-mapper", mapper]).args(args);
    if let Some(user) = user {
        use std::os::unix::process::CommandExt;
        command.uid(user).gid(user);
    }
    // Whoever runs it: the sandbox is whole here, or the test says why not.
    command.args(["--sandbox=required"]);
    ended(command.output().unwrap())
}

#[track_caller]
fn refused(user: Option<u32>, mapper: &str, args: &[&str], message: &str) {
    let f = folder(user);
    let done = mapped(&f, user, mapper, args);
    assert_eq!(done.code, Some(3), "{user:?}, {mapper}: {} {}", done.out, done.err);
    assert!(done.err.contains(message), "{user:?}, {mapper}: {}", done.err);
    assert_eq!(done.out, "");
}

#[test]
fn files_of_others_are_not_read() {
    let other = Folder::new();
    other.file("secret", "x\n");
    for user in users() {
        // One of the user's own too, which nothing but the sandbox keeps from the script.
        let own = folder(user);
        for path in [
            "/etc/shadow",
            &other.path().join("secret").display().to_string(),
            &own.path().join("in").display().to_string(),
        ] {
            refused(user, &format!("sh -c 'cat {path}'"), &[], "Permission denied");
        }
        let why = "it runs in a sandbox: --sandbox-read PATH, --network and --sandbox=off let it do more";
        refused(user, "sh -c 'ls /tmp'", &[], why);
        refused(user, "sh -c 'cat /proc/$PPID/environ'", &[], "Permission denied");
        refused(user, "sh -c 'ls /proc/$PPID/cwd/'", &[], "denied");
    }
    // Unless it is said that they may.
    let f = folder(None);
    let path = other.path().display().to_string();
    let done = mapped(&f, None, &format!("cat {path}/secret -"), &["--sandbox-read", &path]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "x\t\nline 1\t\nline 2\t\n"), "{}", done.err);
}

/// The folder of a job is beside those of others in the same place.
#[test]
fn folders_of_other_jobs_and_attempts_are_not_read() {
    let f = folder(None);
    let temp = f.path().join("temp");
    std::fs::create_dir_all(temp.join("gristmill-files-other")).unwrap();
    std::fs::write(temp.join("gristmill-files-other/x"), "theirs").unwrap();
    let temp = temp.display().to_string();
    for look in ["cat ../../gristmill-files-other/x", "ls ..", "touch ../files/x"] {
        let done = mapped(&f, None, &format!("sh -c '{look}'"), &["--temp-dir", &temp]);
        assert!(done.code == Some(3) && done.err.contains("ermission denied"), "{look}: {} {}", done.out, done.err);
    }
}

#[test]
fn nothing_is_written_but_in_its_own_folder() {
    for user in users() {
        let f = folder(user);
        let open = f.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        for path in [open.join("x").display().to_string(), "/tmp/gristmill-was-here".into(), "/dev/shm/x".into()] {
            let done = mapped(&f, user, &format!("sh -c 'echo x > {path}'"), &[]);
            assert!(done.code == Some(3) && done.err.contains("ermission denied"), "{user:?} {path}: {}", done.err);
            assert!(!std::path::Path::new(&path).exists());
        }
        let done = mapped(&f, user, "sh -c 'mkdir a && echo mine > a/b && cat a/b && mktemp >/dev/null'", &[]);
        assert_eq!((done.code, done.out.as_str()), (Some(0), "mine\t\n"), "{user:?} {}", done.err);
    }
}

#[test]
fn the_network_is_reached_only_where_the_job_asks_for_it() {
    const CALL: &str = "import socket,sys\n\
        for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]:\n\
        \x20   for family in [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET]:\n\
        \x20       try: socket.socket(family, kind); print(family.name, kind.name)\n\
        \x20       except OSError: pass\n";
    for user in users() {
        let f = folder(user);
        f.file("call.py", CALL);
        let args = ["-file", "call.py"];
        let done = mapped(&f, user, "python3 call.py", &args);
        assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{user:?} {}", done.err);
        let done = mapped(&f, user, "python3 call.py", &[&args[..], &["--network"]].concat());
        let mut made: Vec<&str> = done.out.lines().map(|line| line.trim_end()).collect();
        made.retain(|line| !line.starts_with("AF_INET6"));
        let expected = ["AF_INET SOCK_STREAM", "AF_INET SOCK_DGRAM", "AF_NETLINK SOCK_DGRAM", "AF_NETLINK SOCK_RAW"];
        made.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!((done.code, made), (Some(0), expected), "{user:?} {}", done.err);
    }
}

#[test]
fn calls_that_change_the_machine_are_refused() {
    for user in users() {
        refused(user, "sh -c 'unshare -U true'", &[], "Operation not permitted");
        let pair = "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)";
        refused(user, &format!("python3 -c '{pair}'"), &[], "Operation not permitted");
        // Memory that no process has is not counted.
        refused(user, "python3 -c 'import os; os.memfd_create(\"x\")'", &[], "Operation not permitted");
        // No rights beyond those of the user, whatever the file says, and none of root.
        let done = mapped(&folder(user), user, "grep -E CapEff|CapBnd|NoNewPrivs|Seccomp: /proc/self/status", &[]);
        let user_is_root = user.is_none() && rustix::process::geteuid().is_root();
        let reads_all = if user_is_root { "0000000000000004" } else { "0000000000000000" };
        assert!(done.out.contains(&format!("CapEff:\t{reads_all}")), "{}", done.out);
        // An ordinary user has no right to give rights away that it might never have.
        assert!(!user_is_root || done.out.contains(&format!("CapBnd:\t{reads_all}")), "{}", done.out);
        assert!(done.out.contains("NoNewPrivs:\t1") && done.out.contains("Seccomp:\t2"), "{}", done.out);
    }
}

/// Processes that were begun with these words.
fn running(words: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(words)).count()
}

#[track_caller]
fn all_gone(words: &str) {
    let begun = Instant::now();
    while running(words) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} of '{words}' still run", running(words));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn no_child_outlives_its_task() {
    for (n, user) in users().into_iter().enumerate() {
        for (m, begin) in
            ["{} & ", "setsid {} & ", "(setsid {} &) & ", "nohup setsid {} >/dev/null 2>&1 & "].iter().enumerate()
        {
            let words = format!("sleep {}", 7_700_000 + 10 * n + m);
            let closed = format!("{words} </dev/null >/dev/null 2>&1");
            let mapper = format!("sh -c '{} cat'", begin.replace("{}", &closed));
            let f = folder(user);
            let done = mapped(&f, user, &mapper, &[]);
            assert_eq!((done.code, done.out.as_str()), (Some(0), "line 1\t\nline 2\t\n"), "{mapper} {}", done.err);
            all_gone(&words);
        }
    }
}

/// Whoever kills the program leaves nothing running.
#[test]
fn nothing_outlives_the_program() {
    let f = folder(None);
    let mut command = f.command(program());
    command.args(["run", "streaming", "-input", "in", "-reducer", "NONE"]);
    command.args(["-mapper", "sh -c 'setsid sleep 7710000 & sleep 7710000'"]);
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while running("sleep 7710000") < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    all_gone("sleep 7710000");
}

#[test]
fn a_fork_bomb_ends_with_its_task() {
    for user in users() {
        let f = folder(user);
        f.file("bomb.sh", "#!/bin/bash\nbomb() { bomb | bomb & }\nbomb\nwhile :; do sleep 7720000 & done\n");
        let args = ["-file", "bomb.sh", "--task-processes", "200"];
        let done = mapped(&f, user, "bash bomb.sh", &args);
        assert_eq!(done.code, Some(3), "{user:?} {}", done.err);
        let told = "processes and threads, as many as it may (--task-processes)";
        assert!(done.err.contains(told), "{user:?} {}", done.err);
        all_gone("bomb.sh");
        all_gone("sleep 7720000");
    }
}

#[test]
fn memory_over_the_limit_is_told_as_that() {
    for user in users() {
        let args = ["--task-memory", "64MiB", "-file", "grow.py"];
        let f = folder(user);
        // One process, and several together.
        f.file("grow.py", "import os,sys\nsys.stdin.read()\nif sys.argv[1:]: os.fork(); os.fork()\nx=[]\nwhile len(x) < 30 or not sys.argv[1:]: x.append(b'x'*1000000)\nimport time; time.sleep(60)\n");
        for mapper in ["python3 grow.py", "python3 grow.py 4"] {
            let done = mapped(&f, user, mapper, &args);
            assert_eq!(done.code, Some(3), "{}", done.err);
            assert!(done.err.contains("MiB of memory and may use 64 MiB (--task-memory)"), "{}", done.err);
            assert!(done.err.contains("map task 0 failed"), "{}", done.err);
        }
        all_gone("grow.py");
    }
}

/// Of a reducer, the key that it was at is told.
#[test]
fn the_key_that_took_too_much_is_told() {
    let f = folder(None);
    f.file("in", "a\t1\nb\t2\nheavy\t3\n");
    f.file("grow.py", "import sys\nfor line in sys.stdin:\n  if line.startswith('heavy'):\n    x=[]\n    while 1: x.append(b'x'*1000000)\n");
    let mut command = f.command(program());
    command.args([
        "run",
        "streaming",
        "-input",
        "in",
        "-mapper",
        "cat",
        "-reducer",
        "python3 grow.py",
        "-file",
        "grow.py",
    ]);
    command.args(["-D", "mapreduce.reduce.maxattempts=1", "--task-memory", "64MiB"]);
    let done = ended(command.output().unwrap());
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("reduce task 0 failed") && done.err.contains("last key: heavy"), "{}", done.err);
}

#[test]
fn what_never_ends_is_ended() {
    for user in users() {
        let f = folder(user);
        let done = mapped(&f, user, "sh -c 'while :; do :; done'", &["-D", "mapreduce.task.timeout=500"]);
        assert!(done.err.contains("neither read nor wrote nor said anything for 0.5 s"), "{user:?} {}", done.err);
        // One that is busy all the time.
        let done = mapped(&f, user, "sh -c 'while :; do echo busy >&2; done'", &["--task-cpu", "1"]);
        assert!(
            done.err.contains("it used 1 s of a core, which is all that a process may use (--task-cpu)"),
            "{}",
            done.err
        );
        assert!(done.err.contains("it says more than is shown"), "{}", done.err);
        assert!(done.err.len() < 200_000, "{} bytes of words", done.err.len());
    }
}

#[test]
fn a_folder_has_a_bound() {
    for user in users() {
        let f = folder(user);
        let one =
            mapped(&f, user, "sh -c 'dd if=/dev/zero of=x bs=1M count=64; sleep 9'", &["--task-scratch", "10MiB"]);
        assert!(one.code == Some(3) && one.err.contains("10 MiB"), "{}", one.err);
        let many = "sh -c 'for i in 1 2 3 4 5; do dd if=/dev/zero of=x$i bs=1M count=4 2>/dev/null; done; sleep 9'";
        let many = mapped(&f, user, many, &["--task-scratch", "10MiB"]);
        assert!(many.code == Some(3) && many.err.contains("in its folder, where 10 MiB may be"), "{}", many.err);
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let f = folder(None);
    let done = mapped(&f, None, "head -c 4000000000 /dev/zero", &[]);
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(
        done.err.contains("map task 0 failed") && done.err.contains("it wrote a line of more than 256 MiB"),
        "{}",
        done.err
    );
}

#[test]
fn shipped_names_stay_in_the_folder() {
    let f = folder(None);
    for name in ["in#../x", "in#/x", "in#a/b", "in#..", "in#."] {
        let done = mapped(&f, None, "cat", &["-files", name]);
        assert_eq!(done.code, Some(2), "{name}: {}", done.err);
        assert!(done.err.contains("a name of its own is needed, without a folder"), "{name}: {}", done.err);
    }
}

/// A script that ends whoever began it ends nobody.
#[test]
fn a_script_signals_nobody_else() {
    for user in users() {
        let mut bystander = std::process::Command::new("sleep");
        if let Some(user) = user {
            use std::os::unix::process::CommandExt;
            bystander.uid(user);
        }
        let mut bystander = bystander.arg("7730000").spawn().unwrap();
        let kill = format!("sh -c 'kill -9 {} $PPID; kill -9 -1; cat'", bystander.id());
        let done = mapped(&folder(user), user, &kill, &[]);
        assert!(!done.err.contains("its supervisor"), "{}", done.err);
        assert!(bystander.try_wait().unwrap().is_none(), "{user:?}: it was ended");
        // Nor does it give others limits or turns.
        let limits = "import os, resource\nfor pid in [os.getppid(), %d]:\n  try: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)); print('limited')\n  except PermissionError: pass\n  try: os.setpriority(os.PRIO_PROCESS, pid, 19); print('niced')\n  except PermissionError: pass\n";
        let f = folder(user);
        f.file("limits.py", limits.replace("%d", &bystander.id().to_string()));
        let done = mapped(&f, user, "python3 limits.py", &["-file", "limits.py"]);
        assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{user:?} {}", done.err);
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}

/// What whoever began the program has open, a script has not.
#[test]
fn descriptors_are_not_inherited() {
    let f = folder(None);
    f.file("secret", "x\n");
    let line = "exec 7<secret; exec \"$0\" run streaming -input in -reducer NONE -mapper 'sh -c \"cat >/dev/null; cat <&7\"' -D mapreduce.map.maxattempts=1";
    let done = ended(f.command("bash").args(["-c", line]).arg(program()).output().unwrap());
    assert!(done.code == Some(3) && done.err.contains("7: Bad file descriptor"), "{} {}", done.out, done.err);
}

#[test]
fn streams_can_be_opened_again_by_name() {
    for user in users() {
        let script = "sh -c 'echo hello > /dev/stderr; cat /dev/stdin > /dev/stdout; echo reporter:counter:g,n,1 | tee /dev/stderr > /dev/null'";
        let done = mapped(&folder(user), user, script, &[]);
        assert_eq!((done.code, done.out.as_str()), (Some(0), "line 1\t\nline 2\t\n"), "{user:?} {}", done.err);
        assert!(done.err.contains("map task 0: hello") && done.err.contains("g:n 1"), "{user:?} {}", done.err);
    }
}

/// A pipeline whose first part has ended still writes.
#[test]
fn output_that_comes_late_counts() {
    let f = folder(None);
    let done = mapped(&f, None, "bash -c 'cat > >(sleep 6; wc -l)'", &[]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "2\t\n"), "{}", done.err);
    // One that is cut off is none that came.
    f.file("grow.py", "import sys\nsys.stdin.read()\nx=[]\nwhile 1: x.append(b'x'*1000000)\n");
    let grow = "bash -c 'cat > >(sleep 0.5; python3 grow.py)'";
    let done = mapped(&f, None, grow, &["-file", "grow.py", "--task-memory", "64MiB"]);
    assert!(done.code == Some(3) && done.err.contains("may use 64 MiB (--task-memory)"), "{} {}", done.out, done.err);
    // One that never comes is a failure.
    let done = mapped(&f, None, "bash -c 'sleep 7740000 & exit 0'", &["-D", "mapreduce.task.timeout=500"]);
    assert!(done.code == Some(3) && done.err.contains("neither read nor wrote"), "{} {}", done.out, done.err);
    all_gone("sleep 7740000");
}

/// Nothing is left even when the supervisor cannot tell how it ended.
#[test]
fn bounds_are_those_of_the_code_and_not_of_its_supervisor() {
    let f = folder(None);
    let done = mapped(&f, None, "sh -c 'setsid sleep 7750000 >/dev/null 2>&1 & cat'", &["--task-scratch", "1"]);
    assert!(!done.err.contains("supervisor"), "{}", done.err);
    all_gone("sleep 7750000");
    let many = "bash -c 'for i in {1..100}; do sleep 7760000 & done >/dev/null 2>&1; sleep 3; cat'";
    let done = mapped(&f, None, many, &["--task-cpu", "1"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "line 1\t\nline 2\t\n"), "{}", done.err);
    all_gone("sleep 7760000");
    let done = mapped(&f, None, "cat", &["--sandbox-read", "/no/such/path"]);
    assert!(done.code == Some(2) && done.err.contains("--sandbox-read /no/such/path"), "{}", done.err);
}

#[test]
fn the_sandbox_can_be_left_out() {
    let f = folder(None);
    let mut command = f.command(program());
    command.args(["run", "streaming", "-input", "in", "-reducer", "NONE", "--sandbox=off"]);
    command.args(["-mapper", "sh -c 'cat; ls /tmp >/dev/null && grep NoNewPrivs /proc/self/status'"]);
    let done = ended(command.output().unwrap());
    assert!(done.code == Some(0) && done.out.contains("NoNewPrivs:\t0"), "{} {}", done.out, done.err);
}
