//! Passwords and tokens: pure functions over bytes and times. Who is known, and what follows from a token that holds, is
//! the replicated state's (`control::access`); which calls need what is [`crate::control::rights`].
//!
//! Access tokens are JWTs that only Ed25519 signs ([`token`]); passwords are kept as argon2id verifiers ([`password`]);
//! words for sessions and machines are random, and what is kept of one is its SHA-256 ([`word`]).

pub mod attempts;
pub mod password;
pub mod token;
pub mod word;

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: printed nowhere, overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::from("word".to_string()))), "Some(Secret)");
    }
}
