//! Whose a token is, by the state as it is here.
//!
//! A signature is checked once; what the token says is kept by its digest. Everything that may change is looked up each time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use gristmill_raft::planted::{Bug, planted};
use sha2::{Digest as _, Sha256};

use crate::auth::token::{self, Claims, Refusal, Verified};
use crate::auth::word;
use crate::control::rights::Principal;
use crate::control::state::State;

/// Tokens whose signatures are known to be right, in each of two generations.
const MOST_KNOWN: usize = 20_000;

/// Why a token is not good here and now.
#[derive(Debug)]
pub(crate) enum Bad {
    /// It may be, to a master that knows more.
    Perhaps(String),
    /// It is not, anywhere.
    Never(String),
}

/// By their digests, in two generations of which the older is forgotten when the newer is full.
#[derive(Default)]
struct Known {
    new: BTreeMap<[u8; 32], Verified>,
    old: BTreeMap<[u8; 32], Verified>,
}

impl Known {
    fn get(&mut self, digest: &[u8; 32]) -> Option<Verified> {
        if let Some(verified) = self.new.get(digest) {
            return Some(verified.clone());
        }
        let verified = self.old.remove(digest)?;
        self.put(*digest, verified.clone());
        Some(verified)
    }

    fn put(&mut self, digest: [u8; 32], verified: Verified) {
        if self.new.len() >= MOST_KNOWN {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest, verified);
    }
}

/// Tokens that were seen before.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<Known>);

impl Tokens {
    /// Who has this token, by this state; `wall_ms` is this machine's clock, of which the cluster's may be ahead.
    pub(crate) fn who_has(&self, state: &State, bearer: &str, wall_ms: u64) -> Result<Principal, Bad> {
        let (access, now_ms) = (state.access(), wall_ms.max(state.now_ms()));
        if word::is(word::Kind::Machine, bearer) {
            let none = || Bad::Never("the token is not one of this cluster's".into());
            let (session, digest) = word::read(word::Kind::Machine, bearer).ok_or_else(none)?;
            let ended = |_| Bad::Perhaps("the token has ended, or is not one of this cluster's".into());
            return access.machine(session, &digest, now_ms).map_err(ended);
        }
        let claims = self.claims(state, bearer, now_ms)?;
        // The clock of whoever made it a moment ago may be far ahead, which is seen once that is applied here.
        claims.holds(now_ms / 1000).map_err(|why| match why {
            Refusal::Early => Bad::Perhaps(why.to_string()),
            _ => Bad::Never(why.to_string()),
        })?;
        let principal = match access.principal(claims.session().unwrap_or_default(), now_ms) {
            Err(_) if planted(Bug::TokenOutlivesSession) => {
                Principal::with(&claims.sub, &claims.role, access.rights_of(&claims.role))
            }
            principal => principal.map_err(|_| Bad::Perhaps("the session has ended".into()))?,
        };
        if *principal.name != *claims.sub {
            return Err(Bad::Never(Refusal::Foreign.to_string()));
        }
        let expires_ms = principal.expires_ms.min(claims.exp.saturating_mul(1000));
        Ok(Principal { expires_ms, ..principal })
    }

    /// What a token says, if its signature is right.
    fn claims(&self, state: &State, bearer: &str, now_ms: u64) -> Result<Claims, Bad> {
        let digest: [u8; 32] = Sha256::digest(bearer).into();
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known().get(&digest);
        if let Some(Verified { kid, claims }) = seen {
            // A key that was withdrawn takes what it signed with it.
            return match state.access().public_key(&kid, now_ms) {
                Some(_) => Ok(claims),
                None => Err(Bad::Perhaps(Refusal::Key.to_string())),
            };
        }
        let key = |kid: &str| Some(Bytes::copy_from_slice(state.access().public_key(kid, now_ms)?));
        let verified = token::verified(bearer, state.cluster(), key).map_err(|why| match why {
            Refusal::Key => Bad::Perhaps(why.to_string()),
            _ => Bad::Never(why.to_string()),
        })?;
        known().put(digest, verified.clone());
        Ok(verified.claims)
    }
}
