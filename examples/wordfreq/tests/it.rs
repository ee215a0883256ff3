//! The tutorial's program does what it says: an app from another crate has the whole command line.

use std::fs;
use std::process::{Command, Output};

fn wordfreq(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wordfreq")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn counts_hashtags_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let posts = dir.path().join("posts");
    fs::create_dir(&posts).unwrap();
    fs::write(posts.join("1.txt"), "I like #rust and #map_reduce.\n#rust!\n").unwrap();
    fs::write(posts.join("2.txt"), "#go, #rust #\nno tags # here\n").unwrap();
    let (posts, out) = (posts.to_str().unwrap(), dir.path().join("out"));
    let out = out.to_str().unwrap();

    let run = wordfreq(&["run", "hashtags", posts]);
    assert_eq!(text(&run.stdout), "#go\t1\n#map_reduce\t1\n#rust\t3\n");
    let run = wordfreq(&["run", "hashtags", "--min-length", "3", posts, "-o", out, "--reducers", "3"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let mut lines: Vec<_> = text(&wordfreq(&["cat", out]).stdout).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["#map_reduce\t1", "#rust\t3"]);
}

#[test]
fn speaks_by_its_own_name() {
    // Built beside others of the workspace, it has their features too, and with them the app for scripts.
    let apps = text(&wordfreq(&["apps"]).stdout);
    let own: Vec<&str> = apps
        .lines()
        .filter(|line| !["python ", "streaming ", "wasm "].iter().any(|app| line.starts_with(app)))
        .collect();
    assert_eq!(own.len(), 1, "{apps}");
    assert_eq!(own[0].split_whitespace().collect::<Vec<_>>(), ["hashtags", "Count", "hashtags"]);
    let help = text(&wordfreq(&["run", "hashtags", "--help"]).stdout);
    for part in ["Usage: wordfreq run hashtags", "--min-length <N>", "--reducers", "wordfreq run hashtags posts/"] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    let wrong = wordfreq(&["run", "wordcount"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).starts_with("wordfreq: "), "{}", text(&wrong.stderr));
    assert!(text(&wordfreq(&["--version"]).stdout).starts_with("wordfreq with gristmill "));
}
