//! Every codec against its own encoder, and against damage of every kind.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::{Compression, Decoder, Encoder, Error};

/// A zstd or lz4 skippable frame of five bytes.
const SKIPPABLE: &[u8] = b"\x53\x2a\x4d\x18\x05\0\0\0skip!";

fn encode(kind: Compression, content: &[u8]) -> Vec<u8> {
    match kind {
        Compression::Gzip | Compression::Zstd => {
            let mut encoder = Encoder::new(kind, Vec::new()).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let level = bzip2::Compression::fast();
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), level);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lz4 => encode_lz4(FrameInfo::new().content_checksum(true), content),
    }
}

fn encode_lz4(info: FrameInfo, content: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn open(kind: Compression, inner: impl Read + Send + 'static) -> Decoder<'static> {
    Decoder::new(kind, Box::new(inner), Arc::from("logs/a")).unwrap()
}

fn decode(kind: Compression, file: &[u8]) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let mut decoder = open(kind, io::Cursor::new(file.to_vec()));
    match decoder.read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => Err(flaw(&error)),
    }
}

fn flaw(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    inner.expect("every error carries a flaw").clone()
}

/// Content that compresses, yet not to nothing.
fn text(len: usize) -> Vec<u8> {
    let word = |i: usize| format!("{} ", i.wrapping_mul(2_654_435_761) % 977);
    (0..).flat_map(|i| word(i).into_bytes()).take(len).collect()
}

/// Gives one byte at a time and an interruption before each.
struct Trickle(io::Cursor<Vec<u8>>, bool);

impl Read for Trickle {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = out.len().min(1);
        self.0.read(&mut out[..len])
    }
}

#[test]
fn extensions_and_names_tell_codecs() {
    let table = [
        ("a.gz", Some(Compression::Gzip)),
        ("a.gzip", Some(Compression::Gzip)),
        ("b/a.txt.ZST", Some(Compression::Zstd)),
        ("a.zstd", Some(Compression::Zstd)),
        ("a.Bz2", Some(Compression::Bzip2)),
        ("a.lz4", Some(Compression::Lz4)),
        ("a.txt", None),
        ("a.gz.txt", None),
        ("gz", None),
        (".gz", None),
        ("a.gz/part", None),
    ];
    for (path, expected) in table {
        assert_eq!(Compression::of(Path::new(path)), expected, "{path}");
    }
    for kind in Compression::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(Compression::of(Path::new("a").with_extension(kind.extension()).as_path()), Some(kind));
    }
    let error = "gz".parse::<Compression>().unwrap_err();
    assert_eq!(error.to_string(), r#"unknown compression "gz"; choose gzip, zstd, bzip2 or lz4"#);
}

#[test]
fn content_comes_back() {
    for kind in Compression::ALL {
        for len in [0, 1, 1000, 70_000, 1_000_000] {
            let content = text(len);
            let file = encode(kind, &content);
            assert!(decode(kind, &file).unwrap() == content, "{kind} {len}");
        }
    }
}

#[test]
fn files_that_trickle_in_are_read_alike() {
    for kind in Compression::ALL {
        let content = text(3000);
        let file = [encode(kind, &content), encode(kind, &content)].concat();
        let mut decoder = open(kind, Trickle(io::Cursor::new(file), false));
        let mut got = Vec::new();
        decoder.read_to_end(&mut got).unwrap();
        assert!(got == content.repeat(2), "{kind}");
    }
}

#[test]
fn lz4_frames_of_every_make_are_read() {
    let content = text(300_000);
    for mode in [BlockMode::Linked, BlockMode::Independent] {
        for (blocks, whole, size) in [(true, true, true), (true, false, false), (false, false, true)] {
            let info = FrameInfo::new()
                .block_mode(mode)
                .block_checksums(blocks)
                .content_checksum(whole)
                .content_size(size.then_some(content.len() as u64));
            let file = encode_lz4(info, &content);
            assert!(decode(Compression::Lz4, &file).unwrap() == content);
            let cuts = (0..60).chain(file.len() - 60..file.len());
            for cut in cuts {
                let error = decode(Compression::Lz4, &file[..cut]).unwrap_err();
                assert!(matches!(error, Error::Truncated { .. }), "{cut}: {error}");
            }
        }
    }
}

#[test]
fn empty_lz4_blocks_do_not_end_a_frame() {
    let mut file = encode(Compression::Lz4, b"content");
    // Behind the 7 bytes of the header: a stored block of no bytes.
    file.splice(7..7, [0, 0, 0, 0x80]);
    assert_eq!(decode(Compression::Lz4, &file).unwrap(), b"content");
    let error = decode(Compression::Lz4, &file[..11]).unwrap_err();
    assert!(matches!(error, Error::Truncated { offset: 11, .. }), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    for kind in Compression::ALL {
        let one = encode(kind, &text(500));
        let file = [one.clone(), one.clone()].concat();
        for cut in (0..file.len()).filter(|&cut| cut != one.len()) {
            let error = decode(kind, &file[..cut]).unwrap_err();
            let Error::Truncated { offset, .. } = error else {
                panic!("{kind} cut at {cut}: {error}");
            };
            assert_eq!(offset, cut as u64, "{kind}");
        }
    }
}

#[test]
fn no_flipped_byte_gives_wrong_content() {
    for kind in Compression::ALL {
        let content = text(60);
        let sound = encode(kind, &content);
        for at in 0..sound.len() {
            let mut file = sound.clone();
            for flip in 1..=255 {
                file[at] = sound[at] ^ flip;
                if let Ok(got) = decode(kind, &file) {
                    assert!(got == content, "{kind} byte {at} flipped by {flip}");
                }
            }
        }
    }
}

#[test]
fn checksums_are_verified() {
    // Flips that leave the structure whole: the checksums alone can tell.
    let flips = [(Compression::Gzip, 8), (Compression::Zstd, 4), (Compression::Lz4, 4), (Compression::Bzip2, 4)];
    for (kind, from_end) in flips {
        let mut file = encode(kind, &text(500));
        let at = file.len() - from_end;
        file[at] ^= 0x40;
        let error = decode(kind, &file).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{kind}: {error}");
    }
}

#[test]
fn all_frames_of_a_file_are_read() {
    for kind in Compression::ALL {
        let parts = [text(100), Vec::new(), text(200_000), text(7)];
        let file = parts.each_ref().map(|part| encode(kind, part)).concat();
        assert!(decode(kind, &file).unwrap() == parts.concat(), "{kind}");
    }
}

#[test]
fn skippable_frames_are_passed_over() {
    for kind in [Compression::Zstd, Compression::Lz4] {
        let frame = encode(kind, b"content");
        for order in [[SKIPPABLE, &frame], [&frame, SKIPPABLE]] {
            let file = order.concat();
            assert_eq!(decode(kind, &file).unwrap(), b"content", "{kind}");
            for cut in (1..file.len()).filter(|&cut| cut != order[0].len()) {
                let error = decode(kind, &file[..cut]).unwrap_err();
                assert!(matches!(error, Error::Truncated { .. }), "{kind} {cut}: {error}");
            }
        }
    }
}

#[test]
fn trailing_garbage_is_an_error_and_gzip_padding_is_not() {
    for kind in Compression::ALL {
        let frame = encode(kind, b"content");
        for garbage in [&b"x"[..], b"\0\0\0x", b"garbage that is long enough"] {
            let error = decode(kind, &[&frame, garbage].concat()).unwrap_err();
            assert!(matches!(error, Error::TrailingGarbage { .. }), "{kind}: {error}");
        }
        let padded = decode(kind, &[&frame, &[0; 700][..]].concat());
        assert_eq!(padded.is_ok(), kind == Compression::Gzip, "{kind}");
        let zeros = decode(kind, &[0; 700]).unwrap_err();
        assert!(matches!(zeros, Error::Corrupt { .. }), "{kind}: {zeros}");
    }
}

#[test]
fn large_zstd_windows_and_old_lz4_frames_are_refused_by_name() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&text(1000)).unwrap();
    let error = decode(Compression::Zstd, &encoder.finish().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");

    // What `lz4 -l` writes: this magic number, then blocks up to the end of the file.
    let old = b"\x02\x21\x4c\x18\x02\0\0\0\x10x";
    let error = decode(Compression::Lz4, old).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn errors_name_the_file_the_place_and_the_next_step() {
    let mut file = encode(Compression::Gzip, b"content");
    let crc = file.len() - 8;
    file[crc] ^= 1;
    let len = file.len();
    assert_eq!(
        decode(Compression::Gzip, &file).unwrap_err().to_string(),
        format!(
            "logs/a: corrupt gzip data near byte {len} of the compressed file: corrupt gzip \
             stream does not have a matching checksum; check the file with 'gzip -t'"
        )
    );
    assert_eq!(
        decode(Compression::Zstd, b"").unwrap_err().to_string(),
        "logs/a: truncated zstd data: the compressed file ends at byte 0, before its content \
         does; write or copy the file again"
    );
}

#[test]
fn an_error_is_never_followed_by_an_end() {
    for kind in Compression::ALL {
        let file = encode(kind, &text(500));
        let mut decoder = open(kind, io::Cursor::new(file[..file.len() - 1].to_vec()));
        let first = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
        let again = decoder.read(&mut [0; 10]).unwrap_err();
        assert_eq!(first.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(first.to_string(), again.to_string(), "{kind}");
    }
}

#[test]
fn a_failed_read_is_neither_an_end_nor_corruption() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "disk on fire"))
        }
    }
    for kind in Compression::ALL {
        let file = encode(kind, &text(500));
        for cut in 0..=file.len() {
            let mut decoder = open(kind, io::Cursor::new(file[..cut].to_vec()).chain(Failing));
            let error = flaw(&io::copy(&mut decoder, &mut io::sink()).unwrap_err());
            assert!(matches!(error, Error::Read { .. }), "{kind} {cut}: {error}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, "disk on fire");
        }
    }
}

#[test]
fn outputs_are_the_same_on_every_run_and_only_for_some_codecs() {
    for kind in [Compression::Gzip, Compression::Zstd] {
        assert_eq!(encode(kind, &text(5000)), encode(kind, &text(5000)));
    }
    // RFC 1952, section 2.3: no flags, no time, and an unknown operating system.
    let gzip = encode(Compression::Gzip, b"content");
    assert_eq!(gzip[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    assert_eq!(gzip[9], 255);
    for kind in [Compression::Bzip2, Compression::Lz4] {
        let error = Encoder::new(kind, Vec::new()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}

#[test]
fn an_output_that_is_not_finished_is_truncated() {
    for kind in [Compression::Gzip, Compression::Zstd] {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(kind, &mut file).unwrap();
        encoder.write_all(&text(1_000_000)).unwrap();
        encoder.flush().unwrap();
        drop(encoder);
        assert!(file.len() > 100, "{kind}");
        let error = decode(kind, &file).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{kind}: {error}");
    }
}

/// Reads at most 4 MiB of whatever `file` decodes to.
fn drain(kind: Compression, file: Vec<u8>) {
    let decoder = open(kind, io::Cursor::new(file));
    // Any outcome will do, as long as it is one.
    let _ = io::copy(&mut decoder.take(4 << 20), &mut io::sink());
}

fn any_kind() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_survived(kind in any_kind(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut opened = encode(kind, b"")[..3].to_vec();
        opened.extend(&bytes);
        drain(kind, bytes);
        drain(kind, opened);
    }

    #[test]
    fn any_damage_is_survived(
        kind in any_kind(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = encode(kind, &text(2000));
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        drain(kind, file);
    }

    #[test]
    fn any_content_comes_back(kind in any_kind(), content in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert_eq!(decode(kind, &encode(kind, &content)).unwrap(), content);
    }
}
