//! What control may not use, so that the same commands give the same state everywhere, and how long its files may be.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { sources(&path, found) } else { found.push(path) }
    }
}

#[test]
fn control_is_pure_and_its_files_are_short() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join("control.rs")];
    sources(&source.join("control"), &mut files);
    assert!(files.len() > 20);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for banned in
            ["HashMap", "HashSet", "Instant", "SystemTime", "std::fs", "std::thread", " rand::", "unwrap()", "async "]
        {
            assert!(!text.contains(banned), "{}: {banned}", path.display());
        }
        let lines = text.lines().count();
        assert!(lines < 400, "{} has {lines} lines; divide it", path.display());
    }
}
