//! Access tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037) and nothing else.
//!
//! The library reads and writes them; ring signs. It is given no other algorithm, so that a token that names one is
//! refused before any key is looked at. Times are compared here, with the time that the caller has.

use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as Signed, new_error};
use jsonwebtoken::signature::{Error as Unsigned, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Secret;

/// For whom tokens are.
pub const AUDIENCE: &str = "gristmill";
/// How long an access token holds, in seconds.
pub const HOLDS_S: u64 = 30 * 60;
/// How far the clock of the master that made a token may be ahead of that of one that checks it, in seconds.
const AHEAD_S: u64 = 60;
/// The most bytes of a token.
const MOST: usize = 4 << 10;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The cluster.
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// The user.
    pub sub: String,
    /// The session, hexadecimal.
    pub sid: String,
    /// Seconds since 1970: made, holds from, holds until.
    pub iat: u64,
    /// Holds from.
    pub nbf: u64,
    /// Holds until.
    pub exp: u64,
    /// The user's role when it was made: for others to see. Here the state says.
    pub role: String,
}

impl Claims {
    /// Of a user's session, made now.
    pub fn new(cluster: u64, user: &str, role: &str, session: u64, now_s: u64) -> Self {
        let (iss, aud, sub, role) = (issuer(cluster), AUDIENCE.to_string(), user.to_string(), role.to_string());
        Self { iss, aud, sub, sid: format!("{session:x}"), iat: now_s, nbf: now_s, exp: now_s + HOLDS_S, role }
    }

    /// The session's number.
    pub fn session(&self) -> Option<u64> {
        u64::from_str_radix(&self.sid, 16).ok()
    }

    /// Whether it holds at this time.
    ///
    /// # Errors
    /// [`Refusal::Expired`], [`Refusal::Early`].
    pub fn holds(&self, now_s: u64) -> Result<(), Refusal> {
        match () {
            () if now_s >= self.exp => Err(Refusal::Expired),
            () if self.nbf > now_s + AHEAD_S => Err(Refusal::Early),
            () => Ok(()),
        }
    }
}

/// Who makes a cluster's tokens.
pub fn issuer(cluster: u64) -> String {
    format!("gristmill/{cluster:016x}")
}

/// Why a token does not hold. What is told of it helps nobody to make another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no JWT, of another algorithm, or signed by another key.
    #[error("the token is not one of this cluster's")]
    Foreign,
    /// No key has the number that it names.
    #[error("the token is not one of this cluster's: its key is not known")]
    Key,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token does not hold yet; are the clocks of the masters right?")]
    Early,
}

/// A key that signs.
pub struct SigningKey {
    /// PKCS#8 (RFC 8410).
    pub secret: Zeroizing<Vec<u8>>,
    /// 32 bytes.
    pub public: Vec<u8>,
}

impl SigningKey {
    /// The key of these random bytes.
    pub fn new(seed: &Zeroizing<[u8; 32]>) -> Option<Self> {
        // PrivateKeyInfo of version 0 with the algorithm's OID 1.3.101.112 and the seed (RFC 8410, section 7).
        const HEAD: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];
        let secret = Zeroizing::new([&HEAD[..], &seed[..]].concat());
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&secret).ok()?;
        Some(Self { public: pair.public_key().as_ref().to_vec(), secret })
    }
}

/// Signs claims. `None` if the key is none.
pub fn sign(claims: &Claims, kid: &str, secret: &[u8]) -> Option<Secret> {
    use_ring();
    let header = Header { kid: Some(kid.to_string()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &EncodingKey::from_ed_der(secret)).ok().map(Secret::from)
}

/// A token whose signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The number of the key.
    pub kid: String,
    /// What it says.
    pub claims: Claims,
}

/// What a token says whose signature is right, by the key of the number that it names. Its times are to be looked at.
///
/// # Errors
/// [`Refusal::Foreign`], [`Refusal::Key`].
pub fn verified(token: &str, cluster: u64, key: impl FnOnce(&str) -> Option<Bytes>) -> Result<Verified, Refusal> {
    use_ring();
    let header = decode_header(token).ok().filter(|_| token.len() <= MOST).ok_or(Refusal::Foreign)?;
    if header.alg != Algorithm::EdDSA {
        return Err(Refusal::Foreign);
    }
    let kid = header.kid.unwrap_or_default();
    let public = key(&kid).ok_or(Refusal::Key)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer(cluster)]);
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    // By this machine's clock, which is none of ours.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    let read = decode::<Claims>(token, &DecodingKey::from_ed_der(&public), &validation);
    read.map(|read| Verified { kid, claims: read.claims }).map_err(|_| Refusal::Foreign)
}

/// Who has made a JWT, by its own words, which nothing verifies: to know whom to ask. `None`: it is no JWT.
pub fn issuer_claimed(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }
    let parts: Vec<&str> = token.split('.').take(4).collect();
    let [head, body, signature] = parts[..] else { return None };
    let text = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty());
    let _ = (text(head)?, text(signature)?);
    serde_json::from_slice::<Claimed>(&text(body)?).ok().map(|claimed| claimed.iss)
}

/// Gives the library what signs and verifies, once.
fn use_ring() {
    static RING: CryptoProvider =
        CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A program with apps of its own may have another one, which knows Ed25519 as well.
        let _ = RING.install_default();
    });
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Signed<Box<dyn JwtSigner>> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes());
    let pair = pair.ok().filter(|_| *algorithm == Algorithm::EdDSA);
    Ok(Box::new(Ed25519(pair.ok_or_else(|| new_error(ErrorKind::InvalidEddsaKey))?)))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Signed<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::EdDSA {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Public(UnparsedPublicKey::new(&ED25519, key.try_get_as_bytes()?.to_vec()))))
}

struct Ed25519(Ed25519KeyPair);

impl Signer<Vec<u8>> for Ed25519 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for Ed25519 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Public(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Unsigned> {
        self.0.verify(message, signature).map_err(|_| Unsigned::new())
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::new(&Zeroizing::new([seed; 32])).unwrap()
    }

    #[test]
    fn the_key_is_that_of_rfc_8032() {
        // Section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let key = SigningKey::new(&Zeroizing::new(bytes(seed).try_into().unwrap())).unwrap();
        assert_eq!(key.public, bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let (key, claims) = (key(1), Claims::new(7, "ann", "user", 0x2f, 1000));
        let token = sign(&claims, "k1", &key.secret).unwrap();
        let public = |kid: &str| (kid == "k1").then(|| key.public.clone().into());
        let Verified { kid, claims: read } = verified(token.expose(), 7, public).unwrap();
        assert_eq!((&*kid, read.session(), &read), ("k1", Some(0x2f), &claims));
        assert_eq!(read.holds(1000 + HOLDS_S - 1), Ok(()));
        assert_eq!(read.holds(1000 + HOLDS_S), Err(Refusal::Expired));
        assert_eq!(read.holds(1000 - AHEAD_S), Ok(()));
        assert_eq!(read.holds(1000 - AHEAD_S - 1), Err(Refusal::Early));
    }

    #[test]
    fn whoever_made_a_token_is_read_and_not_believed() {
        let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let token = |body: &str| format!("{}.{}.c2ln", encoded(r#"{"alg":"RS256"}"#), encoded(body));
        let found = issuer_claimed(&token(r#"{"iss":"https://kubernetes","aud":["gristmill"]}"#));
        assert_eq!(found.as_deref(), Some("https://kubernetes"));
        let ours = sign(&Claims::new(7, "ann", "user", 1, 1000), "k1", &key(1).secret).unwrap();
        assert_eq!(issuer_claimed(ours.expose()), Some(issuer(7)));
        let good = token(r#"{"iss":"x"}"#);
        let nones =
            [token("{}"), token("[]"), token(""), format!("{good}.c2ln"), good.replace(".c2ln", "."), good + "!"];
        for none in nones.iter().map(String::as_str).chain(["", "..", "gmt_1_AAAA", "a.b.c"]) {
            assert_eq!(issuer_claimed(none), None, "{none}");
        }
    }

    #[test]
    fn any_other_token_is_refused() {
        let (ours, theirs) = (key(1), key(2));
        let lookup = |kid: &str| (kid == "k1").then(|| ours.public.clone().into());
        let claims = Claims::new(7, "ann", "user", 1, 1000);
        let signed = |claims: &Claims, kid: &str, key: &SigningKey| sign(claims, kid, &key.secret).unwrap();
        let refused = |token: &str| verified(token, 7, lookup).unwrap_err();
        assert_eq!(refused(signed(&claims, "k1", &theirs).expose()), Refusal::Foreign, "another key");
        assert_eq!(refused(signed(&claims, "k2", &ours).expose()), Refusal::Key, "another number");
        let other = Claims { aud: "another".into(), ..claims.clone() };
        assert_eq!(refused(signed(&other, "k1", &ours).expose()), Refusal::Foreign, "for others");
        let other = Claims::new(8, "ann", "user", 1, 1000);
        assert_eq!(refused(signed(&other, "k1", &ours).expose()), Refusal::Foreign, "of another cluster");
        let good = signed(&claims, "k1", &ours);
        let mut parts = good.expose().split('.');
        let (head, body, sign) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
        // "none", with and without what was a signature; HS256, signed with what everybody knows.
        for alg in ["none", "None", "NONE", ""] {
            let head = encoded(&format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"k1"}}"#));
            assert_eq!(refused(&format!("{head}.{body}.")), Refusal::Foreign, "{alg}");
            assert_eq!(refused(&format!("{head}.{body}.{sign}")), Refusal::Foreign, "{alg}");
        }
        let hs256 = encoded(r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#);
        let tag = ring::hmac::sign(
            &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &ours.public),
            format!("{hs256}.{body}").as_bytes(),
        );
        assert_eq!(refused(&format!("{hs256}.{body}.{}", URL_SAFE_NO_PAD.encode(tag))), Refusal::Foreign);
        let without = |claim: &str| {
            let mut json: serde_json::Value = serde_json::to_value(&claims).unwrap();
            json.as_object_mut().unwrap().remove(claim);
            let message = format!("{head}.{}", encoded(&json.to_string()));
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ours.secret).unwrap();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
        };
        for claim in ["iss", "aud", "sub", "sid", "exp", "nbf"] {
            assert_eq!(refused(&without(claim)), Refusal::Foreign, "without {claim}");
        }
        for text in ["", ".", "..", "a.b.c", &format!("{head}.{body}"), &format!("{head}..{sign}"), &"a".repeat(10_000)]
        {
            assert_eq!(refused(text), Refusal::Foreign, "{text}");
        }
        assert!(verified(good.expose(), 7, lookup).is_ok());
    }
}
