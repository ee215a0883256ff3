//! A segment gives back what was pushed and refuses everything else.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests make files")]

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::sealed::{seal, seal_block};
use super::*;

mod damage;

type Record = (Vec<u8>, Vec<u8>);

fn write(records: &[Record]) -> (Vec<u8>, Summary) {
    append(Vec::new(), records)
}

fn append(file: Vec<u8>, records: &[Record]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(file);
    for (key, value) in records {
        writer.push(key, value).unwrap();
    }
    writer.finish().unwrap()
}

/// A byte without order.
fn scrambled(i: u32) -> u8 {
    let x = (i ^ i >> 16).wrapping_mul(0x85eb_ca6b);
    ((x ^ x >> 13).wrapping_mul(0xc2b2_ae35) >> 24) as u8
}

/// A segment is no smaller than its records where LZ4 saves less than half, and is where it saves more: tried again
/// after some blocks.
#[test]
fn local_segments_are_compressed_where_it_pays() {
    let noise = |i: u32| -> Vec<u8> {
        // Half of each value repeats: that alone does not pay.
        (0..50u32).map(|j| scrambled(i * 50 + j)).chain([b'-'; 40]).collect()
    };
    let plain = |_: u32| vec![b'-'; 90];
    let blocks = 90 * 700; // records of a block are about 700
    for (value, expected) in [(&noise as &dyn Fn(u32) -> Vec<u8>, false), (&plain, true)] {
        let records: Vec<Record> = (0..40 * 700u32).map(|i| (i.to_be_bytes().to_vec(), value(i))).collect();
        let mut writer = Writer::local(Vec::new());
        records.iter().for_each(|(key, value)| writer.push(key, value).unwrap());
        let (bytes, _) = writer.finish().unwrap();
        assert_eq!(bytes.len() < 40 * blocks / 2, expected, "{} bytes", bytes.len());
        assert!(expected || bytes.len() >= 40 * blocks, "{} bytes", bytes.len());
        assert_eq!(read(&bytes).0, records);
    }
    // What pays is found again after what does not.
    let records: Vec<Record> =
        (0..80 * 700u32).map(|i| (i.to_be_bytes().to_vec(), if i < 700 { noise(i) } else { plain(i) })).collect();
    let mut writer = Writer::local(Vec::new());
    records.iter().for_each(|(key, value)| writer.push(key, value).unwrap());
    let (bytes, _) = writer.finish().unwrap();
    assert!(bytes.len() < 25 * blocks, "{} bytes", bytes.len());
    assert_eq!(read(&bytes).0, records);
}

/// The records up to the end or the first error, which must then be reported again.
fn read_range(src: &[u8], offset: u64, len: u64) -> (Vec<Record>, Result<Summary, Error>) {
    let mut records = Vec::new();
    let mut reader = match Reader::open(src, offset, len, "spill-3.run") {
        Ok(reader) => reader,
        Err(error) => return (records, Err(error)),
    };
    loop {
        match reader.next() {
            Ok(true) => records.push((reader.key().to_vec(), reader.value().to_vec())),
            Ok(false) => {
                assert!(!reader.next().unwrap(), "the end is not final");
                return (records, Ok(reader.summary()));
            }
            Err(error) => {
                let again = reader.next().expect_err("an error is not final");
                assert_eq!(again.to_string(), error.to_string());
                let _ = (reader.key(), reader.value());
                return (records, Err(error));
            }
        }
    }
}

fn read(src: &[u8]) -> (Vec<Record>, Result<Summary, Error>) {
    read_range(src, 0, src.len() as u64)
}

/// Asserts that `src` is refused, whatever came before the error being as written.
fn assert_refused(src: &[u8], written: &[Record], what: &str) {
    let (got, end) = read(src);
    assert!(end.is_err(), "{what}: accepted");
    assert!(written.starts_with(&got), "{what}: wrong records before the error");
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by(|a, b| a.0.cmp(&b.0));
    records
}

/// Records over few letters, so that keys repeat and share prefixes.
fn some_records() -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof![vec(0u8..3, 0..6), vec(any::<u8>(), 0..300)];
    let value = prop_oneof![vec(any::<u8>(), 0..4), vec(0u8..2, 0..5000)];
    vec((key, value), 0..200).prop_map(sorted)
}

/// Two compressible blocks and one that is not, small enough to flip every bit.
fn three_blocks() -> (Vec<Record>, Vec<u8>) {
    let noise = (0..200u32).map(|n| (crc32c::crc32c(&n.to_le_bytes()) >> 9) as u8).collect();
    let records = vec![
        (b"a".to_vec(), vec![7; BLOCK_TARGET - 16]),
        (b"b".to_vec(), vec![8; BLOCK_TARGET - 16]),
        (b"b".to_vec(), noise),
    ];
    let bytes = write(&records).0;
    assert!(bytes.len() < 1500, "{} bytes are too many to flip", bytes.len());
    (records, bytes)
}

fn totals(records: u64, keys: u64, raw_bytes: u64) -> Totals {
    Totals { records, keys, raw_bytes, ..Totals::default() }
}

fn message(src: &[u8]) -> String {
    read(src).1.expect_err("accepted").to_string()
}

#[test]
fn empty_segment() {
    let (bytes, summary) = write(&[]);
    assert_eq!(bytes.len(), FOOTER_LEN);
    assert_eq!(summary, Summary { records: 0, keys: 0, raw_bytes: 0, bytes: FOOTER_LEN as u64 });
    let (got, end) = read(&bytes);
    assert!(got.is_empty());
    assert_eq!(end.unwrap(), summary);
}

#[test]
fn large_records_get_blocks_of_their_own() {
    let big: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
    let records = sorted(vec![
        (vec![], vec![]),
        (vec![0], big.clone()),
        (vec![1; 1 << 20], b"v".to_vec()),
        (vec![1; 1 << 20], vec![]),
        (big.clone(), big),
        (vec![255], b"last".to_vec()),
    ]);
    let (bytes, summary) = write(&records);
    assert_eq!((summary.records, summary.keys), (6, 5));
    let (got, end) = read(&bytes);
    assert_eq!(end.unwrap(), summary);
    assert!(got == records);
}

#[test]
fn blocks_keep_to_their_target() {
    let mut writer = Writer::new(Vec::new());
    for n in 0..20_000u32 {
        writer.push(&n.to_be_bytes(), &[n as u8; 20]).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    let mut at = 0;
    let mut raw_lens = Vec::new();
    while at < bytes.len() - FOOTER_LEN {
        let header = Header::decode(bytes[at..].first_chunk().unwrap());
        raw_lens.push(header.raw_len);
        at += HEADER_LEN + header.stored_len;
    }
    raw_lens.pop();
    let ordinary = BLOCK_TARGET - 100..=BLOCK_TARGET;
    assert!(raw_lens.len() > 3 && raw_lens.iter().all(|len| ordinary.contains(len)), "{raw_lens:?}");
}

#[test]
fn shared_prefixes_take_no_room() {
    let records: Vec<Record> = (0..250u8).map(|n| ([&[7; 200][..], &[n]].concat(), vec![])).collect();
    let (bytes, summary) = write(&records);
    let header = Header::decode(bytes.first_chunk().unwrap());
    // Four bytes of lengths (200 takes two), one of suffix; the first key is whole.
    assert_eq!(header.raw_len, 250 * 5 + 200);
    assert_eq!(summary.raw_bytes, 250 * 201);
}

#[test]
fn too_large_a_record_is_left_out() {
    let half = vec![0; MAX_BLOCK / 2];
    let mut writer = Writer::new(Vec::new());
    writer.push(b"", b"kept").unwrap();
    let error = writer.push(&half, &half).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    writer.push(b"\0", b"kept too").unwrap();
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.records, 2);
    assert_eq!(read(&bytes).1.unwrap(), summary);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "in order")]
fn unsorted_push_is_caught_in_debug_builds() {
    let mut writer = Writer::new(Vec::new());
    writer.push(b"b", b"").unwrap();
    writer.push(b"ab", b"").unwrap();
}

#[test]
fn huge_buffers_are_let_go() {
    let records = [
        (b"a".to_vec(), vec![1; 8 * KEEP]),
        (b"b".to_vec(), vec![2; 10]),
        (b"c".to_vec(), vec![3; BLOCK_TARGET]),
        (b"d".to_vec(), vec![4; 10]),
    ];
    let bytes = write(&records).0;
    let mut reader = Reader::open(bytes, 0, write(&records).1.bytes, "spill").unwrap();
    assert!(reader.next().unwrap());
    assert!(reader.held() > 8 * KEEP);
    while reader.next().unwrap() {}
    assert!(reader.held() <= 3 * KEEP, "{} bytes", reader.held());
}

#[test]
fn sources_can_be_shared_files() {
    let path = std::env::temp_dir().join(format!("segment-test-{}", std::process::id()));
    let records = vec![(b"k".to_vec(), b"v".to_vec())];
    std::fs::write(&path, write(&records).0).unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let len = file.metadata().unwrap().len();
    for _ in 0..2 {
        let mut reader = Reader::open(file.clone(), 0, len, "k.run").unwrap();
        assert!(reader.next().unwrap());
        assert_eq!((reader.key(), reader.value()), (&b"k"[..], &b"v"[..]));
        assert!(!reader.next().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn round_trip_of_segments_end_to_end(segments in vec(some_records(), 0..4)) {
        let mut file = b"something before".to_vec();
        let mut ranges = Vec::new();
        for records in &segments {
            let offset = file.len() as u64;
            let (grown, summary) = append(file, records);
            file = grown;
            prop_assert_eq!(offset + summary.bytes, file.len() as u64);
            ranges.push((offset, summary));
        }
        file.extend(b"something after");
        for (records, (offset, summary)) in segments.iter().zip(ranges) {
            let mut keys: Vec<_> = records.iter().map(|(key, _)| key).collect();
            keys.dedup();
            let raw_bytes: usize = records.iter().map(|(k, v)| k.len() + v.len()).sum();
            prop_assert_eq!(summary.records, records.len() as u64);
            prop_assert_eq!(summary.keys, keys.len() as u64);
            prop_assert_eq!(summary.raw_bytes, raw_bytes as u64);
            let (got, end) = read_range(&file, offset, summary.bytes);
            prop_assert_eq!(end.unwrap(), summary);
            prop_assert!(&got == records);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..300), magic: bool) {
        if magic && bytes.len() >= MAGIC.len() {
            let at = bytes.len() - MAGIC.len();
            bytes[at..].copy_from_slice(&MAGIC);
        }
        prop_assert!(read(&bytes).1.is_err());
    }

    /// Past the checksums: whatever the decoder accepts is in order and adds up.
    #[test]
    fn arbitrary_raw_blocks_never_panic(
        raw in vec(prop_oneof![0u8..4, any::<u8>()], 1..60),
        records in 1u32..6,
        compressed: bool,
    ) {
        let header = Header { raw_len: raw.len(), stored_len: raw.len(), compressed, records };
        let bytes = seal_block(header, &raw, totals(records.into(), 1, 1));
        let (got, _) = read(&bytes);
        prop_assert!(got.len() <= records as usize);
        prop_assert!(got.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn damaged_segments_are_refused(
        records in some_records(),
        flips in vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let bytes = write(&records).0;
        let mut bad = bytes.clone();
        for (at, mask) in flips {
            bad[at.index(bytes.len())] ^= mask;
        }
        if bad != bytes {
            assert_refused(&bad, &records, "flips");
        }
    }
}
