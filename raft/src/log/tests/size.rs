//! What a log takes of its disk: purged entries go, a database that has grown is rebuilt, and a full disk loses nothing.

use super::*;

/// Appends entries without waiting until they are durable.
async fn begin(store: &mut ModelStore, entries: Vec<Entry>) -> impl Future<Output = ()> + use<> {
    let (signal, flushed) = Types::<Rt>::oneshot();
    store.append(entries, openraft::storage::IOFlushed::signal(signal)).await.unwrap();
    async move { flushed.await.unwrap().unwrap() }
}

#[test]
fn old_entries_are_removed_as_fast_as_new_ones_come() {
    run(async {
        let disk = new_disk(5).await;
        let ms = std::time::Duration::from_millis;
        disk.set_faults(Faults { sync_min: ms(1), sync_max: ms(1), ..Faults::default() });
        let mut store = reopen(&disk).await.unwrap();
        let mut before = begin(&mut store, vec![entry(1, 0, 1)]).await;
        for round in 0..40 {
            // Another write waits all the time, so that the writer is never idle.
            let next = begin(&mut store, (0..1000).map(|i| entry(1, round * 1000 + i + 1, 1)).collect()).await;
            before.await;
            before = next;
            store.purge(LogId::new_term_index(1, round * 1000)).await.unwrap();
        }
        before.await;
        let left = disk.boot().0.range(b"l", b"m", usize::MAX).unwrap().len();
        assert!(left < 8000, "{left} entries are in the database, of which 1000 are wanted");
    });
}

#[test]
fn a_database_that_has_grown_is_rebuilt() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        for first in (0..5000).step_by(10) {
            append(&mut store, (first..first + 10).map(|i| entry(1, i, 1000)).collect()).await.unwrap();
            store.purge(LogId::new_term_index(1, first + 4)).await.unwrap();
            // The bound, and what is written between two looks.
            let size = store.bytes_on_disk().unwrap();
            assert!(size < FLOOR + 30_000, "{size} bytes after entry {first}");
        }
        let (used, rebuilds) = store.used();
        // 5 entries that stay, and 10 of each of the last two rounds: a purge in a group with an append is durable only when
        // that group is, and removes in the next one.
        assert!((10..100).contains(&rebuilds) && used <= 25 * 1041, "{rebuilds} rebuilds, {used} bytes used");
        store.stop().await.unwrap();
        let store = reopen(&disk).await.unwrap();
        assert_eq!(store.used().0, 5 * 1041, "counted anew at the start, it is what is left");
    });
}

#[test]
fn a_rebuild_for_which_there_is_no_room_ends_the_log_and_loses_nothing() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        disk.set_faults(Faults { rebuild_error: Some(std::io::ErrorKind::StorageFull), ..Faults::default() });
        let mut acknowledged = 0;
        let error = loop {
            let entries = (0..100).map(|i| entry(1, acknowledged + i, 1000)).collect();
            if let Err(error) = append(&mut store, entries).await {
                break error.to_string();
            }
            acknowledged += 100;
            if let Err(error) = store.purge(LogId::new_term_index(1, acknowledged - 11)).await {
                break error.to_string();
            }
            assert!(acknowledged < 5000, "no rebuild was tried");
        };
        assert!(error.contains("rebuild"), "{error}");
        disk.set_faults(Faults::default());
        drop(store);
        let mut store = reopen(&disk).await.unwrap();
        let (_, entries) = contents(&mut store).await;
        let expected: Vec<_> = (acknowledged - 10..acknowledged).map(|index| (1, index)).collect();
        // The last purge may be lost with the log, and what was not acknowledged may be there.
        assert!(entries.windows(10).any(|some| some == expected), "{entries:?}");
    });
}
