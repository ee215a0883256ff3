//! Inputs: made by a generator with a fixed seed, so that every run of the benches has the same bytes.

/// Bytes of a large input: `GRISTMILL_BENCH_MIB` in MiB, by default 8. Tiny when criterion only tests.
pub(crate) fn size() -> usize {
    if is_test() {
        return 256 << 10;
    }
    let asked = std::env::var("GRISTMILL_BENCH_MIB").ok();
    asked.map_or(8, |mib| mib.parse().expect("GRISTMILL_BENCH_MIB is a number of MiB")) << 20
}

/// Whether criterion runs each bench once instead of measuring it: with `--test`, or without cargo's `--bench`.
fn is_test() -> bool {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    has("--test") || !has("--bench")
}

/// Xorshift64* (Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A rank from 1 to `2^bits - 1`, about as Zipf's law has it: each octave of ranks is as likely as any other.
    fn rank(&mut self, bits: u64) -> u64 {
        let octave = 1 << self.below(bits);
        octave + self.below(octave)
    }
}

/// Ranks of words reach up to this power of two.
const VOCABULARY_BITS: u64 = 17;

/// Appends the word of a rank: 2 to 14 letters, frequent words shorter ones.
fn put_word(text: &mut Vec<u8>, rank: u64) {
    let mut letters = Random::new(rank << 1);
    letters.next();
    let n = 2 + u64::from(rank.ilog2()) / 2 + letters.below(5);
    text.extend((0..n).map(|_| b'a' + letters.below(26) as u8));
}

/// About `size` bytes of lines of 1 to 16 words.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let mut random = Random::new(0x0067_7269_7374);
    let mut text = Vec::with_capacity(size + 512);
    while text.len() < size {
        for _ in 0..random.below(16) {
            put_word(&mut text, random.rank(VOCABULARY_BITS));
            text.extend_from_slice(if random.below(12) == 0 { b", " } else { b" " });
        }
        put_word(&mut text, random.rank(VOCABULARY_BITS));
        text.extend_from_slice(b".\n");
    }
    text
}

/// About `size` bytes of lines that are URLs of 35 to 60 bytes, of few hosts and many pages.
pub(crate) fn urls(size: usize) -> Vec<u8> {
    let mut random = Random::new(0x0075_726c);
    let mut text = Vec::with_capacity(size + 512);
    while text.len() < size {
        text.extend_from_slice(b"https://www.");
        put_word(&mut text, random.rank(7));
        text.extend_from_slice(b".example/archive/");
        put_word(&mut text, random.rank(VOCABULARY_BITS));
        text.push(b'/');
        text.extend_from_slice(random.rank(8).to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

/// Length of a record of [`records`], and of the key that it begins with, as in the TeraSort benchmark.
pub(crate) const RECORD: usize = 100;
pub(crate) const RECORD_KEY: usize = 10;

/// About `size` bytes of records with random keys.
pub(crate) fn records(size: usize) -> Vec<u8> {
    let mut random = Random::new(0x7465_7261);
    let mut all = Vec::with_capacity(size + RECORD);
    while all.len() < size {
        all.extend((0..RECORD_KEY).map(|_| random.below(256) as u8));
        all.resize(all.len() + RECORD - RECORD_KEY, b'x');
    }
    all
}

/// The lines of a text.
pub(crate) fn lines(text: &[u8]) -> Vec<&[u8]> {
    let lines = text.split(|b| *b == b'\n');
    lines.filter(|line| !line.is_empty()).collect()
}

/// The words of a text.
pub(crate) fn words(text: &[u8]) -> Vec<&[u8]> {
    let words = text.split(|b| !b.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect()
}
