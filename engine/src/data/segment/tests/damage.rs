//! Every way to damage a segment, each met with the right refusal.

use super::*;

#[test]
fn every_bit_flip_is_refused() {
    let (records, bytes) = three_blocks();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_refused(&bad, &records, &format!("bit {bit}"));
    }
}

#[test]
fn every_truncation_is_refused() {
    let (records, bytes) = three_blocks();
    for len in 0..bytes.len() {
        assert_refused(&bytes[..len], &records, &format!("first {len} bytes"));
        assert_refused(&bytes[bytes.len() - len..], &records, &format!("last {len} bytes"));
        // The range is right, the file is not.
        let (_, end) = read_range(&bytes[..len], 0, bytes.len() as u64);
        assert!(matches!(end, Err(Error::Read { .. })), "{len} of {} bytes", bytes.len());
    }
}

#[test]
fn missing_repeated_and_moved_blocks_are_refused_where_met() {
    let (records, bytes) = three_blocks();
    let len = |at: usize| HEADER_LEN + u32_at(&bytes, at + 4) as usize;
    let (first, rest) = bytes.split_at(len(0));
    let (second, rest) = rest.split_at(len(first.len()));
    let footer = &rest[rest.len() - FOOTER_LEN..];
    let third = &rest[..rest.len() - FOOTER_LEN];
    let orders: [&[&[u8]]; 4] =
        [&[first, third], &[first, first, second, third], &[second, first, third], &[first, second]];
    for (n, blocks) in orders.into_iter().enumerate() {
        let blocks = blocks.concat();
        // The length is put right, so that the checksums alone have to notice.
        let mut mended = Totals::from_footer(footer.first_chunk().unwrap()).unwrap();
        mended.blocks_len = blocks.len() as u64;
        assert_refused(&[&blocks, &mended.to_footer()[..]].concat(), &records, &format!("order {n}"));
    }
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let (_, mut bytes) = three_blocks();
    let second = HEADER_LEN + u32_at(&bytes, 4) as usize;
    let stored = u32_at(&bytes, second + FIELDS_LEN);
    bytes[second + HEADER_LEN + 2] ^= 1;
    let text = message(&bytes);
    let head = format!("spill-3.run: block at byte {second}: checksum mismatch (stored 0x{stored:08x}, computed 0x");
    assert!(text.starts_with(&head), "{text}");
    assert!(text.ends_with("); the file was damaged after it was written, run the job again"), "{text}");
}

#[test]
fn footers_of_other_versions_are_named() {
    let mut bytes = write(&[]).0;
    bytes[CRC_AT + 4] = 9;
    assert!(matches!(read(&bytes).1, Err(Error::Version { found: 9, .. })));
}

#[test]
fn unsorted_keys_are_refused() {
    let raw = [&[0, 1, 0, b'b'][..], &[0, 2, 0, b'a', b'b']].concat();
    let (got, end) = read(&seal(&raw, 2, totals(2, 2, 3)));
    assert_eq!(got, [(b"b".to_vec(), vec![])]);
    assert!(matches!(end, Err(Error::Unsorted { record: 1, at: 0, .. })), "{end:?}");
}

#[test]
fn unsorted_keys_across_blocks_are_refused() {
    let raws = [[0, 1, 0, b'b'], [0, 1, 0, b'a']];
    let (mut bytes, mut sums) = (Vec::new(), totals(2, 2, 2));
    for raw in raws {
        let fields = Header { raw_len: 4, stored_len: 4, compressed: false, records: 1 }.encode();
        let crc = block_crc(sums.blocks_crc, &fields, &raw);
        sums.add_block(4, crc);
        bytes.extend([&fields[..], &crc.to_le_bytes(), &raw].concat());
    }
    bytes.extend(sums.to_footer());
    let (_, end) = read(&bytes);
    assert!(matches!(end, Err(Error::Unsorted { record: 1, at: 20, .. })), "{end:?}");
}

#[test]
fn malformed_records_are_refused() {
    let cases: [(&str, &[u8], u32); 7] = [
        ("shared at block start", &[1, 1, 0, b'a'], 1),
        ("shared beyond the key before", &[0, 1, 0, b'a', 2, 1, 0, b'a'], 2),
        ("suffix past the block", &[0, 9, 0, b'a'], 1),
        ("value past the block", &[0, 1, 9, b'a'], 1),
        ("bytes over", &[0, 1, 0, b'a', 0], 1),
        ("varint of more than 32 bits", &[0, 0, 0x80, 0x80, 0x80, 0x80, 0x10], 1),
        ("varint without an end", &[0, 0, 0x80, 0x80], 1),
    ];
    for (what, raw, records) in cases {
        let fault = read(&seal(raw, records, totals(records.into(), 1, 1))).1;
        assert!(matches!(fault, Err(Error::Damaged { fault: Fault::Record { .. }, .. })), "{what}: {fault:?}");
    }
}

#[test]
fn impossible_headers_are_refused_before_memory_is_taken() {
    let ok = Header { raw_len: 4, stored_len: 4, compressed: false, records: 1 };
    let cases = [
        ("above the bound", Header { raw_len: MAX_BLOCK + 1, compressed: true, ..ok }),
        ("beyond any expansion", Header { raw_len: 4 * 255 + 1, compressed: true, ..ok }),
        ("stored larger than raw", Header { raw_len: 3, compressed: true, ..ok }),
        ("uncompressed of another length", Header { raw_len: 5, ..ok }),
        ("past the footer", Header { raw_len: 5, stored_len: 5, ..ok }),
        ("no records", Header { records: 0, ..ok }),
        ("more records than bytes", Header { records: 2, ..ok }),
    ];
    for (what, header) in cases {
        let end = read(&seal_block(header, &[0, 1, 0, b'a'], totals(1, 1, 1))).1;
        assert!(matches!(end, Err(Error::Damaged { fault: Fault::Header { .. }, .. })), "{what}: {end:?}");
    }
}

#[test]
fn totals_must_agree() {
    let raw = [0, 1, 0, b'a'];
    assert!(read(&seal(&raw, 1, totals(1, 1, 1))).1.is_ok());
    for wrong in [totals(2, 1, 1), totals(1, 0, 1), totals(1, 1, 2)] {
        let end = read(&seal(&raw, 1, wrong)).1;
        assert!(matches!(end, Err(Error::Damaged { fault: Fault::Total { .. }, .. })), "{wrong:?}: {end:?}");
    }
}

#[test]
fn ranges_that_hold_nothing_are_refused() {
    for (offset, len) in [(0, 0), (0, 59), (u64::MAX, 60), (1, u64::MAX), (1 << 40, 60)] {
        assert!(read_range(&[0; 80], offset, len).1.is_err(), "{offset} {len}");
    }
}
