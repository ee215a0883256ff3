//! Tables of folder trees, specs, and the paths they are listed as.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Error, Input, Source, list, listing};
use crate::data::compress::Compression;

/// A folder with the named files, each holding its own name.
fn tree(files: &[&str]) -> TempDir {
    let root = TempDir::new().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    root
}

/// Lists specs that are meant below `root`.
fn list_in(root: &TempDir, specs: &[&str]) -> Result<Vec<Input>, Error> {
    let prefix = root.path().to_str().unwrap();
    let specs: Vec<OsString> = specs.iter().map(|s| format!("{prefix}/{s}").into()).collect();
    list(&specs)
}

/// The listed paths without the folder they are in.
#[track_caller]
fn names(root: &TempDir, specs: &[&str]) -> Vec<String> {
    let prefix = format!("{}/", root.path().display());
    let inputs = list_in(root, specs).unwrap();
    let path = |input: &Input| input.path.to_str().unwrap().replacen(&prefix, "", 1);
    inputs.iter().map(path).collect()
}

#[test]
fn specs_name_files_in_byte_order() {
    let root = tree(&[
        "a/b",
        "a-b",
        "books/x.txt",
        "books/deep/er/y.txt",
        "books/_SUCCESS",
        "books/.crc",
        "books/_temporary/0/part",
        "books/z.gz",
        "_hidden/in",
        "logs/2024/01.log",
        "logs/2024/02.log",
        "logs/2025/01.log",
        "logs/2025/01.err",
        "lit/a[1].txt",
        "lit/a1.txt",
        "lit/{x,y}",
        "lit/x",
        "lit/*",
    ]);
    let table: &[(&[&str], &[&str])] = &[
        // Files and folders.
        (&["a", "a-b"], &["a-b", "a/b"]),
        (&["a-b", "a-b"], &["a-b", "a-b"]),
        (&["books"], &["books/deep/er/y.txt", "books/x.txt", "books/z.gz"]),
        (&["books///"], &["books/deep/er/y.txt", "books/x.txt", "books/z.gz"]),
        (&["books/_SUCCESS"], &["books/_SUCCESS"]),
        (&["_hidden"], &["_hidden/in"]),
        (&["books/_temporary"], &["books/_temporary/0/part"]),
        // One level, and no slash within a star or a question mark.
        (&["logs/*/01.log"], &["logs/2024/01.log", "logs/2025/01.log"]),
        (&["logs//*//01.log"], &["logs/2024/01.log", "logs/2025/01.log"]),
        (&["logs/202?/0[2-9].log"], &["logs/2024/02.log"]),
        (&["logs/202[!4]/*.log"], &["logs/2025/01.log"]),
        (&["bo*.txt", "a-b*"], &[]),
        (&["a?b"], &["a-b"]),
        // Braces, also across a slash.
        (&["logs/2025/*.{log,err}"], &["logs/2025/01.err", "logs/2025/01.log"]),
        (&["{logs/2025,books}/*.{err,txt}"], &["books/x.txt", "logs/2025/01.err"]),
        (&["logs/{2024,202*}/02.log"], &["logs/2024/02.log"]),
        // Any depth; a folder that matches stands for all below it, once.
        (&["books/**/*.txt"], &["books/deep/er/y.txt", "books/x.txt"]),
        (&["books/**"], &["books/deep/er/y.txt", "books/x.txt", "books/z.gz"]),
        (&["books/*"], &["books/deep/er/y.txt", "books/x.txt", "books/z.gz"]),
        (&["books/d*/"], &["books/deep/er/y.txt"]),
        (&["b*/d*/e*/y.*"], &["books/deep/er/y.txt"]),
        // Hidden names only where they are spelt out.
        (&["books/_*"], &["books/_SUCCESS", "books/_temporary/0/part"]),
        (&["books/{.crc,x.*}"], &["books/.crc", "books/x.txt"]),
        // What exists is meant literally.
        (&["lit/a[1].txt"], &["lit/a[1].txt"]),
        (&["lit/a[12].txt"], &["lit/a1.txt"]),
        (&["lit/{x,y}"], &["lit/{x,y}"]),
        (&["lit/*"], &["lit/*"]),
        (&["lit/a\\[?].txt"], &["lit/a[1].txt"]),
    ];
    for (specs, expected) in table {
        if expected.is_empty() {
            let error = list_in(&root, specs).unwrap_err();
            assert!(matches!(error, Error::NoMatch { .. }), "{specs:?}: {error}");
        } else {
            assert_eq!(names(&root, specs), *expected, "{specs:?}");
        }
    }
}

#[test]
fn wide_folders_are_listed_whole_and_their_errors_found() {
    let files: Vec<String> = (0..900).map(|i| format!("w/{:02}/{i:03}", i % 90)).collect();
    let root = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sorted = files.clone();
    sorted.sort();
    assert_eq!(names(&root, &["w"]), sorted);
    assert_eq!(names(&root, &["w*"]), sorted);
    // A flaw in any one of the folders must come through from whichever thread meets it.
    for folder in ["00", "41", "89"] {
        let link = root.path().join("w").join(folder).join("link");
        symlink("gone", &link).unwrap();
        let error = list_in(&root, &["w"]).unwrap_err();
        assert!(matches!(error, Error::BrokenLink { .. }), "{error}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn an_input_knows_its_length_codec_and_source() {
    let root = tree(&["x.txt", "y.gz"]);
    let inputs = list_in(&root, &["y.gz", "x.txt"]).unwrap();
    let facts = |i: &Input| (i.len, i.compression, i.source, i.is_splittable());
    assert_eq!(facts(&inputs[0]), (5, None, Source::File, true));
    assert_eq!(facts(&inputs[1]), (4, Some(Compression::Gzip), Source::File, false));
    assert_eq!(inputs[0].name(), inputs[0].path.to_str().unwrap());
}

#[test]
fn standard_input_sorts_as_a_dash_and_is_named_once() {
    let root = tree(&["x"]);
    let inputs = list(&["-".into(), root.path().into()]).unwrap();
    assert_eq!(inputs[0].source, Source::Stdin);
    assert_eq!(inputs[0].path, Path::new("-"));
    assert_eq!(inputs[0].name(), "standard input");
    assert_eq!(inputs.len(), 2);
    assert!(matches!(list(&["-".into(), "-".into()]), Err(Error::StdinTwice)));
}

#[test]
fn relative_specs_get_no_prefix() {
    // Tests run in the crate's folder; specs in it must come back as they would be typed.
    let paths = |spec: &str| -> Vec<String> {
        let inputs = list(&[spec.into()]).unwrap();
        inputs.iter().map(|i| i.path.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths("Cargo.tom[l]"), ["Cargo.toml"]);
    assert_eq!(paths("./Cargo.tom?"), ["./Cargo.toml"]);
    assert!(paths("src").iter().all(|p| p.starts_with("src/")));
    assert!(paths("s[r]c/**/*.rs").iter().all(|p| p.starts_with("src/")));
}

#[test]
fn what_names_nothing_is_an_error() {
    let root = tree(&["file", "hidden/_only"]);
    fs::create_dir(root.path().join("empty")).unwrap();
    let error = |spec: &str| list_in(&root, &[spec]).unwrap_err();
    assert!(matches!(error("nope"), Error::Missing { .. }));
    assert!(matches!(error("file/below"), Error::Missing { .. }));
    assert!(matches!(error("nope/*"), Error::NoMatch { .. }));
    assert!(matches!(error("file/*"), Error::NoMatch { .. }));
    assert!(matches!(error("hidden/*"), Error::NoMatch { .. }));
    assert!(matches!(error("emp*"), Error::NoMatch { .. }));
    assert!(matches!(error("empty"), Error::EmptyFolder { .. }));
    assert!(matches!(error("hidden"), Error::EmptyFolder { .. }));
    assert!(matches!(error("a[b"), Error::Pattern { .. }));
    assert!(matches!(list(&["".into()]), Err(Error::Nameless)));
    assert!(list(&[]).unwrap().is_empty());
    // A pattern longer than a name may be is still a pattern.
    let long = format!("f*{{{}}}", "x,".repeat(200));
    assert_eq!(names(&root, &[&format!("{long}le"), "file"][1..]), ["file"]);
    assert!(matches!(error(&long), Error::NoMatch { .. }));
}

#[test]
fn links_are_followed() {
    let root = tree(&["data/x", "other/deep/y"]);
    symlink("../other", root.path().join("data/folder")).unwrap();
    symlink("../other/deep/y", root.path().join("data/file")).unwrap();
    let all = ["data/file", "data/folder/deep/y", "data/x"];
    assert_eq!(names(&root, &["data"]), all);
    assert_eq!(names(&root, &["d*"]), all);
    assert_eq!(names(&root, &["data/*/*/y"]), ["data/folder/deep/y"]);
    assert_eq!(list_in(&root, &["data/file"]).unwrap()[0].len, 12);
}

#[test]
fn a_link_that_closes_a_loop_is_named_with_its_target() {
    let root = tree(&["data/a/x", "data/b/y"]);
    symlink("../../data", root.path().join("data/a/up")).unwrap();
    for spec in ["data", "data/**", "data/**/z", "data/*/*/*/x"] {
        let Err(Error::Loop { link, target }) = list_in(&root, &[spec]) else {
            panic!("{spec}");
        };
        assert!(link.ends_with("data/a/up"), "{spec}: {}", link.display());
        assert!(target.ends_with("data"), "{spec}: {}", target.display());
    }
}

#[test]
fn two_links_that_lead_to_each_other_are_a_loop() {
    let root = tree(&["data/a/x", "data/b/y"]);
    symlink("../b", root.path().join("data/a/to_b")).unwrap();
    symlink("../a", root.path().join("data/b/to_a")).unwrap();
    let error = list_in(&root, &["data"]).unwrap_err();
    assert!(matches!(error, Error::Loop { .. }), "{error}");
}

#[test]
fn the_same_folder_twice_is_no_loop() {
    let root = tree(&["data/a/x"]);
    symlink("a", root.path().join("data/b")).unwrap();
    assert_eq!(names(&root, &["data"]), ["data/a/x", "data/b/x"]);
}

#[test]
fn broken_links_are_errors_unless_hidden_or_unmatched() {
    let root = tree(&["data/x"]);
    symlink("gone", root.path().join("data/link")).unwrap();
    for spec in ["data", "data/*", "data/link"] {
        let Err(Error::BrokenLink { link, target }) = list_in(&root, &[spec]) else {
            panic!("{spec}");
        };
        assert!(link.ends_with("data/link"));
        assert_eq!(target, Path::new("gone"));
    }
    assert_eq!(names(&root, &["data/x*"]), ["data/x"]);
    fs::rename(root.path().join("data/link"), root.path().join("data/_link")).unwrap();
    assert_eq!(names(&root, &["data"]), ["data/x"]);
}

#[test]
fn names_need_not_be_utf8() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join(OsStr::from_bytes(b"f\xff"));
    fs::create_dir(&folder).unwrap();
    let file = folder.join(OsStr::from_bytes(b"n\xfe.gz"));
    fs::write(&file, "x").unwrap();
    let star = folder.join("n*");
    let any = root.path().join("f*").join("*.gz");
    for spec in [&folder, &file, &star, &any] {
        let inputs = list(&[spec.into()]).unwrap();
        assert_eq!(inputs[0].path, file);
        assert_eq!(inputs[0].compression, Some(Compression::Gzip));
        assert!(inputs[0].name().ends_with(r"/f\xff/n\xfe.gz"));
    }
    let pattern = root.path().join(OsStr::from_bytes(b"*\xff"));
    assert!(matches!(list(&[pattern.into()]), Err(Error::PatternNotUtf8 { .. })));
}

#[test]
fn pipes_and_devices_are_streams_when_named_and_errors_in_folders() {
    let root = tree(&["data/x"]);
    let pipe = root.path().join("data/pipe.gz");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/null")] {
        let inputs = list(&[path.into()]).unwrap();
        assert_eq!((inputs[0].source, inputs[0].len), (Source::Stream, 0));
        assert!(!inputs[0].is_splittable());
    }
    for spec in ["data", "data/*"] {
        let error = list_in(&root, &[spec]).unwrap_err();
        assert!(matches!(error, Error::NotAFile { kind: "a named pipe", .. }), "{error}");
    }
    assert_eq!(names(&root, &["data/x*"]), ["data/x"]);
    let socket = root.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(matches!(list(&[socket.into()]), Err(Error::Socket { .. })));
}

#[test]
fn names_are_different_where_paths_are() {
    let named = |path: &[u8]| Input::file(Path::new(OsStr::from_bytes(path)).into(), 1).name().into_owned();
    for (path, name) in [
        (&b"plain\\ \xc3\xa9"[..], "plain\\ \u{e9}"),
        (b"a\xff", "a\\xff"),
        (b"a\xfe", "a\\xfe"),
        (b"a\\xff", "a\\x5cxff"),
        (b"standard input", "./standard input"),
    ] {
        assert_eq!(named(path), name);
    }
    assert_eq!(Input::new("-".into(), 0, Source::Stdin).name(), "standard input");
}

#[test]
fn what_was_seen_on_the_way_is_told() {
    let root =
        tree(&["in/a", "in/_log", "in/.git/x", "in/day1/_SUCCESS", "in/day1/part-00000", "in/b.xz", "in/_SUCCESS"]);
    let seen = listing(&[root.path().join("in").into()]).unwrap();
    assert_eq!((seen.inputs.len(), seen.hidden), (3, 4));
    assert_eq!(seen.outputs, [root.path().join("in/day1")]);
    assert_eq!(seen.packed, [root.path().join("in/b.xz")]);
    let named = list(&[root.path().join("in/b.xz").into()]);
    assert!(matches!(named, Err(Error::Packed { unpacker: "xz -d", .. })));
}

#[test]
fn messages_say_what_where_and_what_to_do() {
    let table = [
        (Error::Missing { path: "a".into() }, "a: no such file or folder; check the path"),
        (
            Error::Loop { link: "a/l".into(), target: "a".into() },
            "a/l: symbolic link leads back to a, a folder it lies in; remove the link or name \
             the inputs one by one",
        ),
        (
            Error::BrokenLink { link: "l".into(), target: "t".into() },
            "l: broken symbolic link to t; remove or repair it",
        ),
    ];
    for (error, message) in table {
        assert_eq!(error.to_string(), message);
    }
}
