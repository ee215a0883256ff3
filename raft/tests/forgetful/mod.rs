//! The test's side of the forgetful disk: takes back what a killed process had written and not synced.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

struct Note {
    kind: u8,
    inode: u64,
    offset: u64,
    size: u64,
    before: Vec<u8>,
}

fn read(journal: &Path) -> Vec<Note> {
    let bytes = fs::read(journal).unwrap();
    let mut rest = &bytes[..];
    let mut notes = Vec::new();
    // The last note may be cut by the kill: then its write did not happen.
    while rest.len() >= 33 {
        let number = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().unwrap());
        let length = usize::try_from(number(25)).unwrap();
        let Some(before) = rest.get(33..33 + length) else { break };
        notes.push(Note {
            kind: rest[0],
            inode: number(1),
            offset: number(9),
            size: number(17),
            before: before.to_vec(),
        });
        rest = &rest[33 + length..];
    }
    notes
}

fn files(folder: &Path, found: &mut BTreeMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(fs::metadata(&path).unwrap().ino(), path);
        }
    }
}

/// Takes back every write to files below `folder` after the last sync of the file, but for the first few of each as
/// `keep` says. Gives the number of writes that were lost.
pub(crate) fn lose_power(folder: &Path, journal: &Path, mut keep: impl FnMut(usize) -> usize) -> usize {
    let mut unsynced: BTreeMap<u64, Vec<Note>> = BTreeMap::new();
    for note in read(journal) {
        match note.kind {
            b's' => drop(unsynced.remove(&note.inode)),
            _ => unsynced.entry(note.inode).or_default().push(note),
        }
    }
    let mut paths = BTreeMap::new();
    files(folder, &mut paths);
    let mut lost = 0;
    for (inode, mut notes) in unsynced {
        let Some(path) = paths.get(&inode) else { continue };
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let kept = keep(notes.len());
        for note in notes.drain(kept.min(notes.len())..).rev() {
            file.write_all_at(&note.before, note.offset).unwrap();
            file.set_len(note.size).unwrap();
            lost += 1;
        }
    }
    fs::remove_file(journal).unwrap();
    lost
}
