//! Finds runs of bytes of a class (words), 64 bytes at a time.
//!
//! A class mask of 64 bytes comes from SIMD compares (SSE2, AVX2 or AVX-512, found at run time) or, elsewhere, from a
//! table; where the mask changes, a word begins or ends. The positions of a few KiB are gathered first and the words
//! handed out after, so that neither loop waits for the other's branches. Every load stays within the slice: the last
//! part of a block is copied out.

/// The instruction set that a map runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Nothing beyond the target's own baseline.
    Portable,
    /// x86-64's baseline.
    Sse2,
    /// AVX2 with BMI1, BMI2, LZCNT and POPCNT.
    Avx2,
    /// AVX-512 F, BW, VL, VBMI and VBMI2, and the above.
    Avx512,
}

impl Isa {
    /// The best of this machine. `GRISTMILL_ISA` (portable, sse2, avx2, avx512) asks for less, for comparisons.
    pub fn best() -> Self {
        let all = Self::available();
        let best = all.last().copied().unwrap_or(Self::Portable);
        let asked = std::env::var("GRISTMILL_ISA").unwrap_or_default();
        all.into_iter().find(|isa| format!("{isa:?}").eq_ignore_ascii_case(&asked)).unwrap_or(best)
    }

    /// All that this machine has, the least first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable];
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::is_x86_feature_detected as has;
            all.push(Self::Sse2);
            if has!("avx2") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt") {
                all.push(Self::Avx2);
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vbmi") && has!("avx512vbmi2")
                {
                    all.push(Self::Avx512);
                }
            }
        }
        all
    }
}

/// A set of byte values.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct ByteSet {
    /// 0xff for members, 0 for others.
    member: [u8; 256],
    /// By low nibble: bit `h` is set if the byte with high nibble `h` (first half) or `h + 8` (second) is a member.
    nibbles: [[u8; 16]; 2],
}

impl ByteSet {
    /// The bytes for which `f` is true.
    pub fn new(f: impl Fn(u8) -> bool) -> Self {
        let mut set = Self { member: [0; 256], nibbles: [[0; 16]; 2] };
        for byte in (0..=255u8).filter(|b| f(*b)) {
            set.member[usize::from(byte)] = 0xff;
            set.nibbles[usize::from(byte >> 7)][usize::from(byte & 15)] |= 1 << (byte >> 4 & 7);
        }
        set
    }

    /// Whether `byte` is a member.
    #[inline(always)]
    pub fn contains(&self, byte: u8) -> bool {
        self.member[usize::from(byte)] != 0
    }
}

/// Calls `f` with each maximal run of ASCII letters and digits.
#[inline(always)]
pub(crate) fn words<'c>(isa: Isa, bytes: &'c [u8], mut f: impl FnMut(&'c [u8])) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` beyond the baseline is only made where the machine has it.
        Isa::Avx512 => unsafe { x86::words_avx512(&(), bytes, f) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::words_avx2(&(), bytes, f) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Sse2 => unsafe { x86::words_sse2(&(), bytes, f) },
        _ => runs(bytes, |b| b.is_ascii_alphanumeric(), &mut f),
    }
}

/// Calls `f` with each maximal run of bytes of `set`.
#[inline(always)]
pub(crate) fn tokens<'c>(isa: Isa, set: &ByteSet, bytes: &'c [u8], mut f: impl FnMut(&'c [u8])) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `words`.
        Isa::Avx512 => unsafe { x86::tokens_avx512(set, bytes, f) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `words`.
        Isa::Avx2 => unsafe { x86::tokens_avx2(set, bytes, f) },
        _ => runs(bytes, |b| set.contains(b), &mut f),
    }
}

fn runs<'c>(bytes: &'c [u8], member: impl Fn(u8) -> bool, f: &mut impl FnMut(&'c [u8])) {
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|b| member(*b)) {
        let end = rest[start..].iter().position(|b| !member(*b)).map_or(rest.len(), |n| start + n);
        f(&rest[start..end]);
        rest = &rest[end..];
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::ByteSet;
    use std::arch::x86_64::*;

    /// Bytes whose positions are gathered before their words are handed out. The positions stay in the L1 cache.
    const GATHER: usize = 8192;

    /// Mask of the letters and digits among 16 bytes: one unsigned compare for both cases of letters, one for digits.
    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn alnum16(p: *const u8) -> u64 {
        // SAFETY: the caller has 16 bytes there.
        let v = unsafe { _mm_loadu_si128(p.cast()) };
        let letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8(b'a' as i8));
        let digit = _mm_sub_epi8(v, _mm_set1_epi8(b'0' as i8));
        let letters = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
        let digits = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
        u64::from(_mm_movemask_epi8(_mm_or_si128(letters, digits)) as u32)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn alnum_sse2(_: &(), p: *const u8) -> u64 {
        // SAFETY: the caller has 64 bytes there.
        unsafe { alnum16(p) | alnum16(p.add(16)) << 16 | alnum16(p.add(32)) << 32 | alnum16(p.add(48)) << 48 }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn alnum32(p: *const u8) -> u64 {
        // SAFETY: the caller has 32 bytes there.
        let v = unsafe { _mm256_loadu_si256(p.cast()) };
        let letter = _mm256_sub_epi8(_mm256_or_si256(v, _mm256_set1_epi8(0x20)), _mm256_set1_epi8(b'a' as i8));
        let digit = _mm256_sub_epi8(v, _mm256_set1_epi8(b'0' as i8));
        let letters = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, _mm256_set1_epi8(25)), letter);
        let digits = _mm256_cmpeq_epi8(_mm256_min_epu8(digit, _mm256_set1_epi8(9)), digit);
        u64::from(_mm256_movemask_epi8(_mm256_or_si256(letters, digits)) as u32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn alnum_avx2(_: &(), p: *const u8) -> u64 {
        // SAFETY: the caller has 64 bytes there.
        unsafe { alnum32(p) | alnum32(p.add(32)) << 32 }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn alnum_avx512(_: &(), p: *const u8) -> u64 {
        // SAFETY: the caller has 64 bytes there.
        let v = unsafe { _mm512_loadu_si512(p.cast()) };
        let letter = _mm512_sub_epi8(_mm512_or_si512(v, _mm512_set1_epi8(0x20)), _mm512_set1_epi8(b'a' as i8));
        let digit = _mm512_sub_epi8(v, _mm512_set1_epi8(b'0' as i8));
        _mm512_cmplt_epu8_mask(letter, _mm512_set1_epi8(26)) | _mm512_cmplt_epu8_mask(digit, _mm512_set1_epi8(10))
    }

    /// Membership of 32 bytes: the low nibble picks a row of high-nibble bits, one table for each half of the bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn member32(set: &ByteSet, p: *const u8) -> u64 {
        const BIT: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: the caller has 32 bytes at `p`; the tables have 16 each.
        let (v, low, high, bit) = unsafe {
            (
                _mm256_loadu_si256(p.cast()),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(set.nibbles[0].as_ptr().cast())),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(set.nibbles[1].as_ptr().cast())),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(BIT.as_ptr().cast())),
            )
        };
        let nibble = _mm256_set1_epi8(15);
        let column = _mm256_and_si256(v, nibble);
        // The sign bit of a byte chooses its half.
        let row = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, column), _mm256_shuffle_epi8(high, column), v);
        let bit = _mm256_shuffle_epi8(bit, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
        let member = _mm256_cmpeq_epi8(_mm256_and_si256(row, bit), bit);
        u64::from(_mm256_movemask_epi8(member) as u32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn member_avx2(set: &ByteSet, p: *const u8) -> u64 {
        // SAFETY: the caller has 64 bytes there.
        unsafe { member32(set, p) | member32(set, p.add(32)) << 32 }
    }

    /// Membership of 64 bytes by two lookups in 128 bytes each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn member_avx512(set: &ByteSet, p: *const u8) -> u64 {
        let t = set.member.as_ptr();
        // SAFETY: the caller has 64 bytes at `p`; the table has 256.
        let (v, t0, t1, t2, t3) = unsafe {
            (
                _mm512_loadu_si512(p.cast()),
                _mm512_loadu_si512(t.cast()),
                _mm512_loadu_si512(t.add(64).cast()),
                _mm512_loadu_si512(t.add(128).cast()),
                _mm512_loadu_si512(t.add(192).cast()),
            )
        };
        let upper = _mm512_movepi8_mask(v);
        let in_lower = _mm512_movepi8_mask(_mm512_permutex2var_epi8(t0, v, t1));
        let in_upper = _mm512_movepi8_mask(_mm512_permutex2var_epi8(t2, v, t3));
        (in_lower & !upper) | (in_upper & upper)
    }

    /// Writes `base` plus the position of each set bit. May write up to three positions more than there are.
    #[inline(always)]
    unsafe fn positions(mut bits: u64, base: u32, mut out: *mut u32) -> usize {
        let n = bits.count_ones() as usize;
        while bits != 0 {
            for i in 0..4 {
                // SAFETY: the caller has room for the bits and three more.
                unsafe { out.add(i).write(base.wrapping_add(bits.trailing_zeros())) };
                bits &= bits.wrapping_sub(1);
            }
            // SAFETY: as above.
            out = unsafe { out.add(4) };
        }
        n
    }

    /// As `positions`, by compressing the numbers 0 to 63. May write up to 64 positions whatever their number.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    unsafe fn positions_avx512(bits: u64, base: u32, out: *mut u32) -> usize {
        const NUMBERS: [u8; 64] = {
            let mut n = [0u8; 64];
            let mut i = 0;
            while i < 64 {
                n[i] = i as u8;
                i += 1;
            }
            n
        };
        let n = bits.count_ones() as usize;
        // SAFETY: 64 bytes are read, and the caller has room for 64 positions.
        unsafe {
            let packed = _mm512_maskz_compress_epi8(bits, _mm512_loadu_si512(NUMBERS.as_ptr().cast()));
            let base = _mm512_set1_epi32(base as i32);
            let put = |quarter: __m128i, at: usize| {
                _mm512_storeu_si512(out.add(at).cast(), _mm512_add_epi32(_mm512_cvtepu8_epi32(quarter), base));
            };
            put(_mm512_castsi512_si128(packed), 0);
            if n > 16 {
                put(_mm512_extracti32x4_epi32::<1>(packed), 16);
                if n > 32 {
                    put(_mm512_extracti32x4_epi32::<2>(packed), 32);
                    put(_mm512_extracti32x4_epi32::<3>(packed), 48);
                }
            }
        }
        n
    }

    macro_rules! finder {
        ($name:ident, $set:ty, $features:literal, $mask:ident, $positions:ident) => {
            /// # Safety
            /// The machine must have the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<'c>(set: &$set, bytes: &'c [u8], mut f: impl FnMut(&'c [u8])) {
                let mut found = [0u32; GATHER + 128];
                let start = bytes.as_ptr();
                // Positions are relative to `base`, so that chunks may be longer than 4 GiB.
                let (mut base, mut done, mut n, mut inside) = (0usize, 0usize, 0usize, 0u64);
                while done < bytes.len() {
                    let end = (done + GATHER).min(bytes.len());
                    // A word longer than 4 GiB would need a wider position.
                    if end - base > u32::MAX as usize {
                        break;
                    }
                    while done < end {
                        // SAFETY: 64 bytes from `done` on are within the slice, or copied out of it; `found` has
                        // room for one position a byte of this round, one before it, and 64 more.
                        unsafe {
                            let mask = if bytes.len() - done >= 64 {
                                $mask(set, start.add(done))
                            } else {
                                let mut last = [0u8; 64];
                                let left = bytes.len() - done;
                                std::ptr::copy_nonoverlapping(start.add(done), last.as_mut_ptr(), left);
                                $mask(set, last.as_ptr()) & ((1 << left) - 1)
                            };
                            let edges = mask ^ (mask << 1 | inside);
                            inside = mask >> 63;
                            n += $positions(edges, (done - base) as u32, found.as_mut_ptr().add(n));
                        }
                        done += 64;
                    }
                    if done >= bytes.len() && n % 2 == 1 {
                        found[n] = (bytes.len() - base) as u32;
                        n += 1;
                    }
                    for i in 0..n / 2 {
                        // SAFETY: positions rise and stay within the slice.
                        unsafe {
                            let from = *found.get_unchecked(2 * i) as usize;
                            let to = *found.get_unchecked(2 * i + 1) as usize;
                            f(std::slice::from_raw_parts(start.add(base + from), to - from));
                        }
                    }
                    if n % 2 == 1 {
                        base += found[n - 1] as usize;
                        (found[0], n) = (0, 1);
                    } else {
                        (base, n) = (done, 0);
                    }
                }
            }
        };
    }
    finder!(words_sse2, (), "sse2", alnum_sse2, positions);
    finder!(words_avx2, (), "avx2,bmi1,bmi2,lzcnt,popcnt", alnum_avx2, positions);
    finder!(
        words_avx512,
        (),
        "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt",
        alnum_avx512,
        positions_avx512
    );
    finder!(tokens_avx2, ByteSet, "avx2,bmi1,bmi2,lzcnt,popcnt", member_avx2, positions);
    finder!(
        tokens_avx512,
        ByteSet,
        "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt",
        member_avx512,
        positions_avx512
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(find: impl Fn(&mut Vec<(usize, usize)>)) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        find(&mut all);
        all
    }

    fn check(bytes: &[u8], set: &ByteSet) {
        let place = |w: &[u8]| (w.as_ptr() as usize - bytes.as_ptr() as usize, w.len());
        let plain = |member: &dyn Fn(u8) -> bool| found(|all| runs(bytes, member, &mut |w| all.push(place(w))));
        let (want_words, want_tokens) = (plain(&|b| b.is_ascii_alphanumeric()), plain(&|b| set.contains(b)));
        for isa in Isa::available() {
            assert_eq!(found(|all| words(isa, bytes, |w| all.push(place(w)))), want_words, "{isa:?}");
            assert_eq!(found(|all| tokens(isa, set, bytes, |w| all.push(place(w)))), want_tokens, "{isa:?}");
        }
    }

    #[test]
    fn all_byte_values_and_lengths_around_blocks() {
        let every: Vec<u8> = (0..=255).collect();
        let odd = ByteSet::new(|b| b % 3 == 1 || b > 0xe0);
        check(&every, &odd);
        for n in [0, 1, 63, 64, 65, 127, 128, 8191, 8192, 8193, 16384, 20000] {
            check(&vec![b'x'; n], &odd);
            check(&b"ab ".repeat(n)[..n], &odd);
            check(&b"1 ".repeat(n), &odd);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn every_isa_finds_the_same(
            bytes in prop::collection::vec(prop_oneof![Just(b' '), Just(b'a'), any::<u8>()], 0..20_000),
            mask in any::<[u64; 4]>(),
        ) {
            check(&bytes, &ByteSet::new(|b| mask[usize::from(b) / 64] >> (b % 64) & 1 == 1));
        }
    }
}
