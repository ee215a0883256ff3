//! Watches the outputs in a store as a reader would who looks all the time: each is there whole or not at all.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// A thread that looks until it is asked what it saw.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    looks: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    /// Looks at every output in this folder.
    pub(crate) fn of(folder: PathBuf) -> Self {
        let over: Arc<AtomicBool> = Arc::default();
        let until = over.clone();
        let looks = std::thread::spawn(move || {
            let (mut whole, mut partial) = (0, Vec::new());
            while !until.load(Relaxed) {
                for output in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    match look(&output.path()) {
                        Ok(()) => whole += 1,
                        Err(why) => partial.push(why),
                    }
                }
                std::thread::sleep(PAUSE);
            }
            (whole, partial)
        });
        Self { over, looks }
    }

    /// Ends. Nothing may have been seen that was not whole.
    pub(crate) fn end(self) {
        self.over.store(true, Relaxed);
        let (whole, partial) = self.looks.join().expect("a watcher that does not panic");
        assert!(
            partial.is_empty(),
            "{} partial outputs were seen: {:#?}",
            partial.len(),
            &partial[..partial.len().min(5)]
        );
        assert!(whole > 0, "no output was seen");
    }
}

/// Whether an output is whole. One that is replaced meanwhile is looked at another time.
fn look(output: &Path) -> Result<(), String> {
    let number = || fs::metadata(output).map(|meta| meta.ino()).ok();
    let before = number();
    match whole(output) {
        Err(why) if number() == before => Err(format!("{}: {why}", output.display())),
        _ => Ok(()),
    }
}

fn whole(output: &Path) -> Result<(), String> {
    let success = fs::read(output.join("_SUCCESS")).map_err(|e| format!("_SUCCESS: {e}"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&success).map_err(|e| format!("_SUCCESS: {e}"))?;
    for part in manifest["parts"].as_array().ok_or("no parts")? {
        let name = part["name"].as_str().ok_or("a part without a name")?;
        let length = fs::metadata(output.join(name)).map_err(|e| format!("{name}: {e}"))?.len();
        let plain = !name.contains('.');
        if plain && Some(length) != part["bytes"].as_u64() {
            return Err(format!("{name} has {length} bytes, _SUCCESS says {}", part["bytes"]));
        }
    }
    Ok(())
}

#[test]
fn a_watcher_sees_what_is_not_whole() {
    let folder = crate::program::folder();
    folder.out("run wordcount in.txt -o outputs/a --reducers 2");
    let output = folder.path().join("outputs/a");
    assert_eq!(look(&output), Ok(()));
    fs::write(output.join("part-00001"), "x").unwrap();
    assert!(look(&output).unwrap_err().contains("part-00001 has 1 bytes"));
    fs::remove_file(output.join("_SUCCESS")).unwrap();
    assert!(look(&output).unwrap_err().contains("_SUCCESS: No such file"));
}
