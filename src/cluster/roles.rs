//! What the holder of a certificate is: a master, a worker, or both. A URI among the certificate's names says so.
//!
//! A certificate is asked after its chain was verified, and by whoever verified it: this looks at no signature.

use std::fmt;

use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The name in certificates of masters.
const MASTER: &str = "gristmill://master";
/// The name in certificates of workers.
const WORKER: &str = "gristmill://worker";

/// Roles of nodes: none, one or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    master: bool,
    worker: bool,
}

impl Roles {
    /// None: a client's.
    pub const NONE: Self = Self { master: false, worker: false };
    /// A master's.
    pub const MASTER: Self = Self { master: true, worker: false };
    /// A worker's.
    pub const WORKER: Self = Self { master: false, worker: true };
    /// Both: of a process that is master and worker.
    pub const BOTH: Self = Self { master: true, worker: true };

    /// Those that a certificate names. One that cannot be read names none, and other names do not count.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(read) = EndEntityCert::try_from(certificate) else { return Self::NONE };
        read.valid_uri_names().fold(Self::NONE, |roles, name| Self {
            master: roles.master || name == MASTER,
            worker: roles.worker || name == WORKER,
        })
    }

    /// Whether a master's is among them.
    pub fn has_master(self) -> bool {
        self.master
    }

    /// Whether a worker's is among them.
    pub fn has_worker(self) -> bool {
        self.worker
    }

    /// Whether one of these is among them.
    pub fn has_any(self, of: Self) -> bool {
        (self.master && of.master) || (self.worker && of.worker)
    }

    /// Those of these that are not among them.
    pub fn lacks(self, of: Self) -> Self {
        Self { master: of.master && !self.master, worker: of.worker && !self.worker }
    }

    /// As names in a certificate.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.master, MASTER), (self.worker, WORKER)].into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.master, self.worker) {
            (true, true) => "master and worker",
            (true, false) => "master",
            (false, true) => "worker",
            (false, false) => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn named(names: &[&str]) -> Roles {
        let mut params = CertificateParams::new(vec!["m".to_string()]).unwrap();
        let uris = names.iter().map(|name| SanType::URI((*name).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        Roles::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn roles_are_the_uris_that_are_exactly_these() {
        let cases: [(&[&str], Roles); 6] = [
            (&[], Roles::NONE),
            (&["gristmill://master"], Roles::MASTER),
            (&["spiffe://example/x", "gristmill://worker"], Roles::WORKER),
            (&["gristmill://worker", "gristmill://master", "gristmill://worker"], Roles::BOTH),
            (&["gristmill://master/", "gristmill://masters", "gristmill:master", "https://master"], Roles::NONE),
            (&["GRISTMILL://MASTER", "gristmill://operator"], Roles::NONE),
        ];
        for (names, roles) in cases {
            assert_eq!(named(names), roles, "{names:?}");
        }
        assert_eq!(Roles::of(&CertificateDer::from(vec![0x30, 0x82, 0xff])), Roles::NONE);
        // A host that is called so is no role.
        let params = CertificateParams::new(vec!["master".to_string()]).unwrap();
        assert_eq!(Roles::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()), Roles::NONE);
    }

    #[test]
    fn any_is_one_and_what_lacks_is_each() {
        let all = [Roles::NONE, Roles::MASTER, Roles::WORKER, Roles::BOTH];
        let any = |roles: Roles| all.map(|of| roles.has_any(of));
        assert_eq!(any(Roles::NONE), [false; 4]);
        assert_eq!(any(Roles::WORKER), [false, false, true, true]);
        assert_eq!(any(Roles::BOTH), [false, true, true, true]);
        assert_eq!(all.map(|of| Roles::MASTER.lacks(of)), [Roles::NONE, Roles::NONE, Roles::WORKER, Roles::WORKER]);
        assert_eq!(Roles::BOTH.names().collect::<Vec<_>>(), [MASTER, WORKER]);
    }
}
