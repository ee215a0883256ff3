//! openraft's own suite over both disks, and what a log does after crashes, losses and errors.

use openraft::storage::{RaftLogReader as _, RaftLogStorage, RaftLogStorageExt as _};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft_rt::AsyncRuntime as _;
use openraft_rt_tokio::TokioRuntime;

use super::open;
use super::store::Store;
use crate::disk::{Batch, Files, Folder, Kv, SledKv};
use crate::machine::{Machine, StateMachine};
use crate::model::{Disk, Faults, ModelKv};
use crate::types::{Command, Entry, LogId, Payload, Types, Vote};

mod size;

type Rt = TokioRuntime;

/// Databases below it are not rebuilt.
const FLOOR: u64 = 100_000;

/// A state machine without state.
struct Nothing;

impl StateMachine for Nothing {
    type View = std::iter::Empty<Vec<u8>>;

    fn apply(&mut self, _: u64, _: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Self::View {
        std::iter::empty()
    }

    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

async fn fresh<K: Kv, F: Files>(kv: K, files: F) -> (Store<Rt, K>, Machine<Rt, Nothing, F>) {
    open::create(&kv, &files, open::NODE).await.unwrap();
    let machine = Machine::open(Nothing, files.clone(), Types::<Rt>::watch_channel(0).0).unwrap();
    let store: Store<Rt, K> = open::open(kv, files, FLOOR).await.unwrap();
    // The suite begins logs anywhere.
    store.shared.allow_gap_at_start();
    (store, machine)
}

struct OnSled;

impl StoreBuilder<Types<Rt>, Store<Rt, SledKv>, Machine<Rt, Nothing, Folder>, tempfile::TempDir> for OnSled {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, Store<Rt, SledKv>, Machine<Rt, Nothing, Folder>), openraft::StorageError<Types<Rt>>>
    {
        let dir = tempfile::tempdir().unwrap();
        let files = Folder::open(&dir.path().join("files")).unwrap();
        let (store, machine) = fresh(SledKv::open(&dir.path().join("log")).unwrap(), files).await;
        Ok((dir, store, machine))
    }
}

struct OnModel;

type ModelStore = Store<Rt, ModelKv<Rt>>;

impl StoreBuilder<Types<Rt>, ModelStore, Machine<Rt, Nothing, crate::model::ModelFiles<Rt>>, ()> for OnModel {
    async fn build(
        &self,
    ) -> Result<((), ModelStore, Machine<Rt, Nothing, crate::model::ModelFiles<Rt>>), openraft::StorageError<Types<Rt>>>
    {
        let (kv, files) = Disk::new(1).boot();
        let (store, machine) = fresh(kv, files).await;
        Ok(((), store, machine))
    }
}

fn run<F: Future>(work: F) -> F::Output {
    Rt::new(2).block_on(work)
}

#[test]
fn openraft_suite_on_sled() {
    run(Suite::test_all(OnSled)).unwrap();
}

#[test]
fn openraft_suite_on_the_model() {
    run(Suite::test_all(OnModel)).unwrap();
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = vec![u8::try_from(index % 251).unwrap(); bytes];
    Entry { log_id: LogId::new_term_index(term, index), payload: Payload::Normal(Command(command.into())) }
}

fn ids(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|e| (e.log_id.committed_leader_id().term, e.log_id.index())).collect()
}

async fn append(store: &mut ModelStore, entries: Vec<Entry>) -> std::io::Result<()> {
    store.blocking_append(entries).await.map_err(std::io::Error::other)
}

async fn new_disk(seed: u64) -> Disk<Rt> {
    let disk = Disk::new(seed);
    let (kv, files) = disk.boot();
    open::create(&kv, &files, open::NODE).await.unwrap();
    disk
}

async fn reopen(disk: &Disk<Rt>) -> Result<ModelStore, super::Error> {
    let (kv, files) = disk.boot();
    open::open(kv, files, FLOOR).await
}

/// What a store has: its vote and its entries.
async fn contents(store: &mut ModelStore) -> (Option<Vote>, Vec<(u64, u64)>) {
    (store.read_vote().await.unwrap(), ids(&store.try_get_log_entries(0..).await.unwrap()))
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    run(async {
        for seed in 0..60 {
            let disk = new_disk(seed).await;
            let ms = std::time::Duration::from_micros;
            let faults = Faults { sync_min: ms(50), sync_max: ms(900), ..Faults::default() };
            disk.set_faults(Faults { torn_batches: false, ..faults });
            let mut store = reopen(&disk).await.unwrap();
            store.save_vote(&Vote::new(1, seed)).await.unwrap();
            append(&mut store, (0..9).map(|i| entry(1, i, 9000)).collect()).await.unwrap();
            store.truncate_after(Some(LogId::new_term_index(1, 5))).await.unwrap();
            append(&mut store, (6..8).map(|i| entry(2, i, 10)).collect()).await.unwrap();
            store.purge(LogId::new_term_index(1, 2)).await.unwrap();
            append(&mut store, vec![entry(2, 8, 5)]).await.unwrap();
            // Begun and not acknowledged: may be there or not.
            let (signal, _) = Types::<Rt>::oneshot();
            store.append([entry(2, 9, 5)], openraft::storage::IOFlushed::signal(signal)).await.unwrap();
            tokio::time::sleep(ms(seed * 20)).await;
            disk.crash();
            let (vote, entries) = contents(&mut reopen(&disk).await.unwrap()).await;
            assert_eq!(vote, Some(Vote::new(1, seed)));
            let expected = [(1, 3), (1, 4), (1, 5), (2, 6), (2, 7), (2, 8), (2, 9)];
            assert!(entries[..] == expected[..] || entries[..] == expected[..6], "{entries:?}");
        }
    });
}

#[test]
fn a_disk_that_lies_is_found_out() {
    run(async {
        let mut refused = 0;
        for seed in 0..40 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
            append(&mut store, vec![entry(1, 1, 10)]).await.unwrap();
            disk.roll_back(1);
            match reopen(&disk).await.map(|_| ()) {
                Ok(()) => panic!("seed {seed}: a rollback went unseen"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("write 3") && text.contains("write 2"), "{text}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 40);
    });
}

#[test]
fn no_flipped_bit_is_read_as_something_else() {
    run(async {
        let (mut whole, mut refused) = (0, 0);
        for seed in 0..300 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            store.save_vote(&Vote::new(3, 4)).await.unwrap();
            append(&mut store, (0..5).map(|i| entry(1, i, 9000)).collect()).await.unwrap();
            let before = contents(&mut store).await;
            let place = disk.rot().unwrap();
            match reopen(&disk).await {
                Ok(mut store) => {
                    assert_eq!(contents(&mut store).await, before, "{place}");
                    whole += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 200 && whole > 0, "refused {refused}, whole {whole}");
    });
}

#[test]
fn a_torn_batch_or_a_misdirected_write_is_refused_or_harmless() {
    run(async {
        let mut refused = 0;
        for seed in 0..80 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, (0..5).map(|i| entry(1, i, 9000)).collect()).await.unwrap();
            disk.set_faults(Faults {
                torn_batches: true,
                sync_min: std::time::Duration::from_secs(9),
                ..Faults::default()
            });
            append_and_go_on(&mut store, (5..9).map(|i| entry(1, i, 9000)).collect()).await;
            if seed % 2 == 0 {
                disk.crash();
            } else {
                disk.misdirect();
            }
            disk.set_faults(Faults::default());
            match reopen(&disk).await {
                Ok(mut store) => assert!(contents(&mut store).await.1.len() >= 5),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 10, "refused {refused}");
    });
}

/// Appends without waiting until it is durable.
async fn append_and_go_on(store: &mut ModelStore, entries: Vec<Entry>) {
    let (signal, _) = Types::<Rt>::oneshot();
    store.append(entries, openraft::storage::IOFlushed::signal(signal)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

/// Found by the simulator: a process that was killed between a write and its sync came back, answered for what it read,
/// and lost it with the machine's power.
#[test]
fn what_a_killed_process_left_unsynced_is_durable_once_it_is_opened() {
    run(async {
        for seed in 0..20 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
            disk.set_faults(Faults { sync_min: std::time::Duration::from_secs(9), ..Faults::default() });
            append_and_go_on(&mut store, vec![entry(1, 1, 10)]).await;
            disk.kill();
            disk.set_faults(Faults::default());
            let before = contents(&mut reopen(&disk).await.unwrap()).await;
            assert_eq!(before.1.len(), 2, "a process that ends takes nothing with it");
            disk.crash();
            assert_eq!(contents(&mut reopen(&disk).await.unwrap()).await, before, "seed {seed}");
        }
    });
}

/// Found by the simulator: a process was killed while it wrote a slot of the mark, the next one wrote the other, and a loss of
/// power tore both.
#[test]
fn a_mark_that_was_not_durable_is_made_so_before_the_other_slot_is_written() {
    run(async {
        let syncs = std::time::Duration::from_millis(20);
        for seed in 0..60 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
            // The barrier takes as long as the write of the mark after it.
            disk.set_faults(Faults { sync_min: syncs, sync_max: syncs, ..Faults::default() });
            append_and_go_on(&mut store, vec![entry(1, 1, 10)]).await;
            tokio::time::sleep(syncs * 3 / 2).await;
            disk.kill();
            let opened = tokio::time::timeout(syncs / 4 * (4 + seed as u32 % 8), reopen(&disk));
            drop(opened.await);
            disk.crash();
            disk.set_faults(Faults::default());
            let reopened = reopen(&disk).await.map_err(|e| format!("seed {seed}: {e}")).unwrap();
            assert!(!contents(&mut { reopened }).await.1.is_empty(), "seed {seed}");
        }
    });
}

/// Found by the simulator: the entries were gone and the head that said so as well.
#[test]
fn a_torn_purge_or_truncation_loses_no_folder() {
    run(async {
        for seed in 0..60 {
            let disk = new_disk(seed).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, (0..40).map(|i| entry(1, i, 10)).collect()).await.unwrap();
            let syncs = std::time::Duration::from_millis(20);
            disk.set_faults(Faults { torn_batches: true, sync_min: syncs, ..Faults::default() });
            if seed % 2 == 0 {
                store.purge(LogId::new_term_index(1, 30)).await.unwrap();
                tokio::time::sleep(syncs / 20 * (seed as u32 % 30)).await;
            } else {
                let last = Some(LogId::new_term_index(1, 5));
                let cut = tokio::time::timeout(syncs / 20 * (seed as u32 % 60), store.truncate_after(last));
                let _ = cut.await;
            }
            disk.crash();
            disk.set_faults(Faults::default());
            let reopened = reopen(&disk).await.map_err(|e| format!("seed {seed}: {e}")).unwrap();
            assert!(contents(&mut { reopened }).await.1.len() >= 6, "seed {seed}");
        }
    });
}

#[test]
fn a_failed_sync_ends_the_log_and_acknowledges_nothing() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
        disk.set_faults(Faults { sync_error: Some(std::io::ErrorKind::Other), ..Faults::default() });
        assert!(append(&mut store, vec![entry(1, 1, 10)]).await.is_err());
        // The disk works again, the log does not: whether entry 1 is there, nobody knows.
        disk.set_faults(Faults::default());
        assert!(store.save_vote(&Vote::new(9, 9)).await.is_err());
        assert!(append(&mut store, vec![entry(1, 2, 10)]).await.is_err());
        assert!(store.ended().unwrap().contains("sync"), "{:?}", store.ended());
        disk.crash();
        let (vote, entries) = contents(&mut reopen(&disk).await.unwrap()).await;
        assert_eq!((vote, entries[0]), (None, (1, 0)));
    });
}

#[test]
fn a_purge_beyond_the_end_begins_a_new_chain() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        append(&mut store, (0..600).map(|i| entry(1, i, 10)).collect()).await.unwrap();
        store.purge(LogId::new_term_index(4, 1000)).await.unwrap();
        append(&mut store, vec![entry(4, 1001, 10), entry(5, 1002, 10)]).await.unwrap();
        store.stop().await.unwrap();
        assert!(append(&mut store, vec![entry(5, 1003, 10)]).await.is_err(), "it was stopped");
        let mut store = reopen(&disk).await.unwrap();
        assert_eq!(contents(&mut store).await.1, [(4, 1001), (5, 1002)]);
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(LogId::new_term_index(4, 1000)));
        drop(store);
        let (kv, _) = disk.boot();
        assert_eq!(kv.range(b"l", b"m", 9).unwrap().len(), 2, "purged entries are gone");
    });
}

#[test]
fn a_gap_is_refused() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        assert!(append(&mut store, vec![entry(1, 1, 10)]).await.is_err(), "an empty log begins at 0");
        append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
        assert!(append(&mut store, vec![entry(1, 2, 10)]).await.is_err(), "1 comes before 2");
        assert!(append(&mut store, vec![entry(0, 1, 10)]).await.is_err(), "terms do not fall");
        append(&mut store, vec![entry(2, 1, 10)]).await.unwrap();
    });
}

#[test]
fn a_log_without_its_mark_or_its_head_is_refused() {
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
        let (kv, files) = disk.boot();
        files.remove("mark").await.unwrap();
        let text = reopen(&disk).await.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("expected a mark; found none"), "{text}");

        let disk = new_disk(6).await;
        drop((kv, files));
        let (kv, files) = disk.boot();
        let mut batch = Batch::default();
        batch.delete("head");
        kv.write(batch).await.unwrap();
        assert!(open::check(&kv, &files, open::NODE).is_err());
        assert!(open::create(&kv, &files, open::NODE).await.is_err(), "no new log over an old one's mark");
    });
}

#[test]
fn the_log_of_another_node_is_refused() {
    run(async {
        let (kv, _) = Disk::<Rt>::new(1).boot();
        let (_, files) = Disk::<Rt>::new(2).boot();
        let (other, _) = Disk::<Rt>::new(3).boot();
        open::create(&kv, &files, 1).await.unwrap();
        open::check(&kv, &files, 1).unwrap();
        let error = open::check(&kv, &files, 2).map(drop).unwrap_err().to_string();
        assert!(error.contains("expected the log of node 0000000000000002"), "{error}");
        // A database that is ahead of the mark, as after a crash, but another's.
        let mut batch = Batch::default();
        batch.put(super::head::KEY, super::head::Head { node: 2, write: 9, ..Default::default() }.encode());
        other.write(batch).await.unwrap();
        let error = open::check(&other, &files, 1).map(drop).unwrap_err().to_string();
        assert!(error.contains("found node 0000000000000002, write 9"), "{error}");
    });
}

#[test]
fn entries_are_streamed_piece_by_piece_to_the_last() {
    use futures_util::TryStreamExt as _;
    run(async {
        let disk = new_disk(5).await;
        let mut store = reopen(&disk).await.unwrap();
        append(&mut store, (0..45).map(|i| entry(1, i, if i % 9 == 8 { 1 << 20 } else { 100_000 })).collect())
            .await
            .unwrap();
        let expected: Vec<_> = (3..44).map(|index| (1, index)).collect();
        let from_memory: Vec<_> = store.entries_stream(3..44).await.try_collect().await.unwrap();
        assert_eq!(ids(&from_memory), expected);
        let mut store = reopen(&disk).await.unwrap();
        let from_disk: Vec<_> = store.entries_stream(3..44).await.try_collect().await.unwrap();
        assert_eq!(ids(&from_disk), expected);
    });
}

#[test]
fn a_vote_for_another_node_in_the_same_term_is_refused() {
    let head = |write, vote| super::head::Head { write, vote: Some(vote), ..Default::default() };
    let mark = head(5, Vote::new(3, 1));
    head(6, Vote::new_committed(3, 1)).check_against(&mark).unwrap();
    head(6, Vote::new(4, 2)).check_against(&mark).unwrap();
    assert!(head(6, Vote::new(3, 2)).check_against(&mark).is_err());
    assert!(head(6, Vote::new(2, 1)).check_against(&mark).is_err());
}

/// Every frame is whole and says the right index: only the chain knows.
#[test]
fn an_entry_exchanged_for_another_whole_one_is_refused() {
    run(async {
        for exchanged in [1, 2] {
            let disk = new_disk(5).await;
            let mut store = reopen(&disk).await.unwrap();
            append(&mut store, (0..3).map(|i| entry(1, i, 10)).collect()).await.unwrap();
            let (kv, files) = disk.boot();
            let old = super::read::Reader::new(&kv, exchanged, exchanged + 1, None).next().unwrap().unwrap();
            let (frame, _) = super::frame::encode(&old.tip.id, &old.previous, &[0]);
            let mut batch = Batch::default();
            super::frame::put(&mut batch, exchanged, &frame);
            kv.write(batch).await.unwrap();
            let error = open::check(&kv, &files, open::NODE).map(drop).unwrap_err().to_string();
            assert!(error.contains("entry 2 to follow entry 1") || exchanged == 2, "{error}");
        }
    });
}
