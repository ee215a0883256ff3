//! The decoder of runs and segments: arbitrary bytes, blocks that lie under checksums that hold, and damage to what the
//! writer wrote.
//!
//! Input: which of the three, then as each takes it apart.

use gristmill_engine::data::merge::Merge;
use gristmill_engine::data::segment::{Error, Fault, Reader, Summary, Writer};
use gristmill_engine::fuzz::{self, Block};

use crate::bytes::Bytes;
use crate::memory::largest_while;

/// Memory that a reader may take at once whatever it reads: a block of ordinary size, twice over.
const ORDINARY: usize = 256 << 10;
/// Raw bytes that a stored one may stand for in LZ4, and buffers grow to twice what is needed.
const EXPANSION: usize = 2 * 255;

/// Reads, writes and damages segments.
pub fn run(data: &[u8]) {
    let mut data = Bytes(data);
    match data.byte() % 4 {
        0 => foreign(data),
        1 => sealed(data),
        2 => damaged(data),
        _ => merged(data),
    }
}

type Record = (Vec<u8>, Vec<u8>);

/// The records up to the end or the first error. No more memory is taken than the bytes account for.
fn read(src: &[u8], offset: u64, len: u64) -> (Vec<Record>, Result<Summary, Error>) {
    let each = |visit: &mut dyn FnMut(&[u8], &[u8])| {
        let mut reader = Reader::open(src, offset, len, "fuzz")?;
        while reader.next()? {
            visit(reader.key(), reader.value());
        }
        Ok(reader.summary())
    };
    let mut count = 0;
    let largest = largest_while(|| drop(each(&mut |_, _| count += 1)));
    assert!(largest <= ORDINARY + EXPANSION * src.len(), "{largest} bytes at once for {} of segment", src.len());

    let mut records = Vec::new();
    let end = each(&mut |key, value| records.push((key.to_vec(), value.to_vec())));
    assert_eq!(records.len(), count, "read again, it is the same");
    assert!(records.is_sorted_by(|a, b| a.0 <= b.0), "keys in order");
    if let Ok(summary) = &end {
        assert_eq!(*summary, summary_of(&records, summary.bytes), "totals are those of the records");
    }
    (records, end)
}

fn summary_of(records: &[Record], bytes: u64) -> Summary {
    let [records, keys, raw_bytes] = totals(records);
    Summary { records, keys, raw_bytes, bytes }
}

/// Records, keys, and bytes of both.
fn totals(records: &[Record]) -> [u64; 3] {
    let keys = records.chunk_by(|a, b| a.0 == b.0).count();
    let bytes: usize = records.iter().map(|(key, value)| key.len() + value.len()).sum();
    [records.len() as u64, keys as u64, bytes as u64]
}

fn write(records: &[Record], file: Vec<u8>) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(file);
    for (key, value) in records {
        writer.push(key, value).expect("a vector takes everything");
    }
    writer.finish().expect("a vector takes everything")
}

/// Bytes that nobody wrote: as a whole, and some range of them.
fn foreign(mut data: Bytes<'_>) {
    let (offset, len) = (data.number() as u64, data.number() as u64);
    let _ = read(data.0, 0, data.0.len() as u64);
    let _ = read(data.0, offset, len);
}

/// Blocks of arbitrary bytes under right checksums. If nothing but the totals is wrong, the segment with right totals is
/// accepted, and what it holds can be written and read again.
fn sealed(mut data: Bytes<'_>) {
    let mut blocks = Vec::new();
    while !data.is_empty() && blocks.len() < 8 {
        let (flags, raw_len, len) = (data.byte(), data.number(), data.number());
        let compressed = flags & 1 != 0;
        let records = u32::from(flags >> 1);
        blocks.push(Block { raw_len, compressed, records, stored: data.take(len) });
    }
    let read_as = |totals| {
        let bytes = fuzz::segment_of(&blocks, totals);
        read(&bytes, 0, bytes.len() as u64)
    };
    let (records, end) = read_as([u64::MAX; 3]);
    if !matches!(end, Err(Error::Damaged { fault: Fault::Total { .. }, .. }) | Ok(_)) {
        return;
    }
    let (again, end) = read_as(totals(&records));
    end.expect("all that was wrong were the totals");
    assert_eq!(again, records);
    let (bytes, summary) = write(&records, Vec::new());
    let (again, end) = read(&bytes, 0, bytes.len() as u64);
    assert_eq!((again, end.ok()), (records, Some(summary)));
}

/// Sorted records: each begins with the lengths of its key and value, and how often the value's bytes are repeated.
fn records(data: &mut Bytes<'_>) -> Vec<Record> {
    let mut records = Vec::new();
    while !data.is_empty() && records.len() < 200 {
        let (key, value, times) = (data.byte(), data.byte(), data.byte());
        let key = data.take(usize::from(key % 40)).to_vec();
        // Now and then as long as a block, so that several are written.
        let times = if times > 250 { 3000 } else { usize::from(times % 4) };
        records.push((key, data.take(usize::from(value % 40)).repeat(times)));
    }
    records.sort_by(|a, b| a.0.cmp(&b.0));
    records
}

/// What was written reads the same; with bytes changed, or cut short, it is refused, and what came before the error is
/// as written.
fn damaged(mut data: Bytes<'_>) {
    let changes = data.byte() % 4;
    let changes: Vec<_> = (0..changes).map(|_| (data.number(), data.byte())).collect();
    let cut = data.number();
    let records = records(&mut data);
    let (sound, summary) = write(&records, Vec::new());
    let (got, end) = read(&sound, 0, sound.len() as u64);
    assert_eq!((got, end.ok()), (records.clone(), Some(summary)));

    let mut bytes = sound.clone();
    for (at, mask) in changes {
        let at = at % bytes.len();
        bytes[at] ^= mask;
    }
    bytes.truncate(sound.len() - cut % sound.len().min(64));
    let (got, end) = read(&bytes, 0, bytes.len() as u64);
    assert!(records.starts_with(&got), "records before the error are as written");
    assert_eq!(end.is_ok(), bytes == sound, "{end:?}");
}

/// Segments side by side in one file, as a run has them, merged: a stable sort of all records.
fn merged(mut data: Bytes<'_>) {
    let (mut file, mut ranges, mut all) = (vec![7; usize::from(data.byte())], Vec::new(), Vec::new());
    for _ in 0..1 + data.byte() % 5 {
        let len = data.number();
        let records = records(&mut Bytes(data.take(len)));
        let at = file.len() as u64;
        let (longer, summary) = write(&records, file);
        file = longer;
        ranges.push((at, summary.bytes));
        all.extend(records);
    }
    let open = |&(at, len): &(u64, u64)| Reader::open(&file[..], at, len, "fuzz").expect("as it was written");
    let mut merge = Merge::new(ranges.iter().map(open).collect()).expect("as it was written");
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, value) in &all {
        assert!(merge.advance().expect("as it was written"), "a record is missing");
        assert_eq!((merge.key(), merge.value()), (&key[..], &value[..]));
    }
    assert!(!merge.advance().expect("as it was written"), "a record too many");
}
