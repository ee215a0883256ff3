//! Certificates for those who have nobody to sign them: an authority of one's own, and what it signs for nodes.
//!
//! Keys are ECDSA over P-256. They are overwritten in memory where a library holds them as bytes; the copy in which it
//! computes with them is not ours to reach.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use zeroize::Zeroizing;

use super::roles::Roles;
use super::x509;

/// How long an authority counts.
pub const AUTHORITY_DAYS: u32 = 3_650;
/// How long what it signs counts when nothing else is said: what others allow for a public certificate.
pub const NODE_DAYS: u32 = 397;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate counts from so long before it was made: clocks of machines differ.
const BEFORE: Duration = Duration::from_secs(60 * 60);
/// Where every node is as well.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority's certificate is none.
    #[error("this is no authority's certificate: {0}")]
    Pem(pem::Error),
    /// The authority's certificate or key is not of the kind that [`Authority::new`] makes.
    #[error("this authority cannot sign: {0}; its certificate and key have to be what `certs init` made together")]
    Foreign(String),
    /// A name can be in no certificate, or a key not be made.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Zeroizing<String>,
}

impl Pair {
    fn new(certificate: String, key: &KeyPair) -> Self {
        Self { certificate, key: Zeroizing::new(key.serialize_pem()) }
    }
}

/// Who signs.
pub struct Authority {
    params: CertificateParams,
    key: Zeroizing<KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// A new one, which counts from `now` for [`AUTHORITY_DAYS`], and its certificate and key.
    ///
    /// # Errors
    ///
    /// [`Error::Make`].
    pub fn new(now: SystemTime) -> Result<(Self, Pair), Error> {
        let key = Zeroizing::new(KeyPair::generate()?);
        // Authorities that follow one another are told apart by it.
        let mut params = authority(&format!("gristmill authority {:08x}", rand::random::<u32>()));
        last(&mut params, now, AUTHORITY_DAYS);
        let signed = params.self_signed(&*key)?;
        let pair = Pair::new(signed.pem(), &key);
        Ok((Self { params, key, certificate: signed.der().clone() }, pair))
    }

    /// One that was made before, by its certificate and key in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::Pem`]; [`Error::Foreign`] if the key cannot be read.
    pub fn of(certificate: &str, key: &str) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(Error::Pem)?;
        let name = x509::Certificate::read(&certificate).unwrap_or_default().common_name;
        let key = KeyPair::from_pem(key).map_err(|e| Error::Foreign(format!("its key: {e}")))?;
        Ok(Self { params: authority(&name), key: Zeroizing::new(key), certificate })
    }

    /// Signs a certificate for a node that is this, at these hosts and addresses and on its own machine, from `now` for so
    /// many days.
    ///
    /// # Errors
    ///
    /// [`Error::Make`]; [`Error::Foreign`] if who trusts this authority would not trust the certificate.
    pub fn sign(&self, roles: Roles, names: &[String], now: SystemTime, days: u32) -> Result<Pair, Error> {
        let mut all = names.to_vec();
        all.extend(HERE.map(String::from).into_iter().filter(|name| !names.contains(name)));
        let mut params = CertificateParams::new(all)?;
        for role in roles.names() {
            params.subject_alt_names.push(SanType::URI(role.try_into()?));
        }
        params.distinguished_name.push(DnType::CommonName, format!("gristmill {roles}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        last(&mut params, now, days);
        let key = Zeroizing::new(KeyPair::generate()?);
        let signed = params.signed_by(&*key, &Issuer::from_params(&self.params, &*self.key))?;
        self.check(signed.der(), now).map_err(|e| Error::Foreign(e.to_string()))?;
        Ok(Pair::new(signed.pem(), &key))
    }

    /// Fails if who trusts this authority does not trust that certificate.
    fn check(&self, signed: &CertificateDer<'_>, now: SystemTime) -> Result<(), webpki::Error> {
        let anchors = [anchor_from_trusted_cert(&self.certificate)?];
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(since_epoch(now));
        let signed = EndEntityCert::try_from(signed)?;
        signed.verify_for_usage(algorithms, &anchors, &[], now, KeyUsage::server_auth(), None, None).map(|_| ())
    }
}

/// An authority of that name, which signs nodes' certificates and no other authority's.
fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Lets a certificate count from now on, for so many days.
fn last(params: &mut CertificateParams, now: SystemTime, days: u32) {
    let at = |since| date_time_ymd(1970, 1, 1) + since;
    let now = since_epoch(now);
    params.not_before = at(now.saturating_sub(BEFORE));
    params.not_after = at(now + DAY * days);
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(pair: &Pair) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
    }

    fn read(pair: &Pair) -> x509::Certificate {
        x509::Certificate::read(&der(pair)).unwrap()
    }

    #[test]
    fn what_is_signed_says_what_was_asked_for() {
        let now = UNIX_EPOCH + DAY * 20_000;
        let (authority, own) = Authority::new(now).unwrap();
        let names = ["m.example", "::1", "10.0.0.5"].map(String::from);
        let pair = authority.sign(Roles::BOTH, &names, now, 30).unwrap();
        let said = read(&pair);
        assert_eq!(said.subject, "CN=gristmill master and worker");
        let all =
            ["m.example", "::1", "10.0.0.5", "localhost", "127.0.0.1", "gristmill://master", "gristmill://worker"];
        assert_eq!(said.names, all);
        assert_eq!((said.begins.as_str(), said.ends.as_str()), ("2024-10-03 23:00:00 UTC", "2024-11-03 00:00:00 UTC"));
        assert_eq!(Roles::of(&der(&pair)), Roles::BOTH);
        assert!(read(&own).common_name.starts_with("gristmill authority "));
        assert_eq!(read(&own).ends, "2034-10-02 00:00:00 UTC");
        assert!(pair.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(authority.sign(Roles::MASTER, &["mästerei".into()], now, 1).is_err());
    }

    #[test]
    fn an_authority_signs_after_it_was_read_again_and_with_its_own_key_alone() {
        let now = SystemTime::now();
        let (_, first) = Authority::new(now).unwrap();
        let (_, other) = Authority::new(now).unwrap();
        let again = Authority::of(&first.certificate, &first.key).unwrap();
        again.sign(Roles::MASTER, &[], now, NODE_DAYS).unwrap();
        let mixed = Authority::of(&first.certificate, &other.key).unwrap();
        assert!(matches!(mixed.sign(Roles::MASTER, &[], now, NODE_DAYS), Err(Error::Foreign(_))));
        assert!(Authority::of("", &first.key).is_err() && Authority::of(&first.certificate, "").is_err());
    }
}
