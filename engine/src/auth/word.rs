//! Words that stand for a session: those that continue one ("gmr_…") and tokens for machines ("gmt_…").
//!
//! A word is the session's number and 32 random bytes. The state keeps its SHA-256: what is random needs no slow hash.
//! The prefix lets scanners of secrets find one that has leaked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Secret;

/// The most bytes of a word.
const MOST: usize = 128;

/// What a word is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It continues a session.
    Refresh,
    /// It is a token for a machine.
    Machine,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "gmr_",
            Self::Machine => "gmt_",
        }
    }
}

/// The word of a session.
pub fn make(kind: Kind, session: u64, random: &Zeroizing<[u8; 32]>) -> Secret {
    format!("{}{session:x}_{}", kind.prefix(), URL_SAFE_NO_PAD.encode(**random)).into()
}

/// Whether a text may be a word of this kind.
pub fn is(kind: Kind, text: &str) -> bool {
    text.starts_with(kind.prefix())
}

/// The session that a word is of, and the digest by which it is known; `None` if it is no such word.
pub fn read(kind: Kind, text: &str) -> Option<(u64, [u8; 32])> {
    let (session, random) = text.strip_prefix(kind.prefix()).filter(|_| text.len() <= MOST)?.split_once('_')?;
    let random = Zeroizing::new(URL_SAFE_NO_PAD.decode(random).ok()?);
    let random = Zeroizing::new(<[u8; 32]>::try_from(&random[..]).ok()?);
    Some((u64::from_str_radix(session, 16).ok()?, digest(&random)))
}

/// What is kept of the random part.
pub fn digest(random: &Zeroizing<[u8; 32]>) -> [u8; 32] {
    Sha256::digest(**random).into()
}

/// Whether two digests are the same, in a time that does not tell where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == 32 && one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_made() {
        let random = Zeroizing::new([9; 32]);
        let made = make(Kind::Machine, 0x2f, &random);
        assert!(made.expose().starts_with("gmt_2f_"), "{}", made.expose());
        assert_eq!(read(Kind::Machine, made.expose()), Some((0x2f, digest(&random))));
        assert_eq!(read(Kind::Refresh, made.expose()), None);
        for wrong in ["", "gmt_", "gmt_2f", "gmt_2f_AAAA", "gmt_zz_CQkJ", &format!("{}A", made.expose())] {
            assert_eq!(read(Kind::Machine, wrong), None, "{wrong}");
        }
        assert!(same(&digest(&random), &digest(&random)) && !same(&digest(&random), &[0; 32]) && !same(&[], &[]));
    }
}
