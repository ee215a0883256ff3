//! Passwords: argon2id (RFC 9106), kept as PHC strings.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use super::Secret;

/// Bytes of a password: fewer are guessed, more are no password.
pub const BYTES: std::ops::RangeInclusive<usize> = 12..=1024;
/// Characters of a password that is made up: 120 bits of 5 each.
pub const MADE_UP: usize = 24;

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB: at least 8.
    pub memory_kib: u32,
    /// Passes over it: at least 1.
    pub passes: u32,
}

impl Default for Cost {
    /// OWASP's "Password Storage Cheat Sheet", its first choice of argon2id with less than 20 MiB.
    fn default() -> Self {
        Self { memory_kib: 19 << 10, passes: 2 }
    }
}

impl Cost {
    fn argon2(self) -> Option<Argon2<'static>> {
        let params = Params::new(self.memory_kib, self.passes, 1, None).ok()?;
        Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    /// Whether such a cost can be asked for.
    pub fn is_possible(self) -> bool {
        self.argon2().is_some()
    }

    /// Whether a verifier is of this cost.
    pub fn made(self, verifier: &str) -> bool {
        let Ok(parsed) = PasswordHash::new(verifier) else { return false };
        Params::try_from(&parsed).is_ok_and(|params| {
            params.m_cost() == self.memory_kib && params.t_cost() == self.passes && params.p_cost() == 1
        })
    }
}

/// The verifier of a password. `None` if the cost is impossible. Takes as long as the cost says.
pub fn verifier(password: &Secret, salt: &[u8; 16], cost: Cost) -> Option<String> {
    let hashed = cost.argon2()?.hash_password_with_salt(password.expose().as_bytes(), salt);
    hashed.ok().map(|hashed| hashed.to_string())
}

/// Whether a password is right. Takes as long whatever the answer, also for a verifier that is none: an unknown user costs
/// what a known one does.
pub fn is_right(password: &Secret, verifier: &str, cost: Cost) -> bool {
    let parsed = PasswordHash::new(verifier).ok().filter(|parsed| parsed.hash.is_some());
    match (parsed, cost.argon2()) {
        (Some(parsed), _) => Argon2::default().verify_password(password.expose().as_bytes(), &parsed).is_ok(),
        (None, Some(argon2)) => {
            let mut out = [0; 32];
            let _ = argon2.hash_password_into(password.expose().as_bytes(), &[0; 16], &mut out);
            false
        }
        (None, None) => false,
    }
}

/// A password made of random bytes: letters and digits that are not taken for each other.
pub fn made_up(random: &[u8; MADE_UP]) -> Secret {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
    random.iter().map(letter).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

    fn secret(text: &str) -> Secret {
        text.to_string().into()
    }

    #[test]
    fn a_password_is_right_by_its_own_verifier_alone() {
        let kept = verifier(&secret("correct horse"), &[7; 16], CHEAP).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{kept}");
        assert!(is_right(&secret("correct horse"), &kept, CHEAP));
        assert!(!is_right(&secret("correct horsf"), &kept, CHEAP));
        assert!(!is_right(&secret(""), &kept, CHEAP));
        for none in ["", "$argon2id$v=19$m=8,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw", "plain"] {
            assert!(!is_right(&secret("correct horse"), none, CHEAP), "{none}");
        }
        assert_ne!(verifier(&secret("correct horse"), &[8; 16], CHEAP).unwrap(), kept, "another salt");
    }

    #[test]
    fn a_verifier_says_of_which_cost_it_is() {
        let kept = verifier(&secret("correct horse"), &[7; 16], CHEAP).unwrap();
        assert!(CHEAP.made(&kept) && !Cost::default().made(&kept) && !CHEAP.made("x"));
        assert!(Cost::default().is_possible() && !Cost { memory_kib: 1, passes: 0 }.is_possible());
    }

    #[test]
    fn a_made_up_password_is_long_enough_and_plain() {
        let made = made_up(&[255; MADE_UP]);
        assert!(BYTES.contains(&made.expose().len()));
        assert!(made.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
