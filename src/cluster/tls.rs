//! TLS for both directions, from files of certificates and a key; the files may change while a node runs.
//!
//! Whoever holds a [`Tls`] holds the same one: after [`Tls::renew`] has found other files, all handshakes from then on are
//! made with what these hold. Connections that are open stay so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::roles::Roles;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {} in {}: {source}", what, path.display())]
    Read {
        /// What it was to hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is none in the file.
    #[error("there is no certificate in {}; it has to be PEM, with lines 'BEGIN CERTIFICATE'", .0.display())]
    Empty(PathBuf),
    /// They do not go together, or are of a kind that is not supported.
    #[error("cannot use {} with {}: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authority is none.
    #[error("cannot use {} as an authority: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authority is none for clients.
    #[error("cannot use {} as an authority: {source}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// Other nodes would not take its holder for what it is.
    #[error(
        "{} does not name its holder's role: {}; have it signed with that URI among its names, as gristmill certs does",
        cert.display(),
        roles.names().collect::<Vec<_>>().join(" and ")
    )]
    Role {
        /// The certificate.
        cert: PathBuf,
        /// What it does not name.
        roles: Roles,
    },
}

/// Where a node's or client's certificates are: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificates of the authority that signs those of the nodes.
    pub authority: PathBuf,
    /// One's own certificate, with those between it and the authority's, and its key. A client may have none.
    pub own: Option<(PathBuf, PathBuf)>,
    /// What one's own certificate must name: what the node is. Nothing for a client.
    pub roles: Roles,
}

impl Files {
    /// A digest of all that the files hold, or of why they cannot be read.
    fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        let own = self.own.iter().flat_map(|(cert, key)| [cert, key]);
        for path in [&self.authority].into_iter().chain(own) {
            let one: [u8; 32] = match std::fs::read(path).map(Zeroizing::new) {
                Ok(bytes) => Sha256::digest(&bytes).into(),
                Err(e) => Sha256::digest(e.to_string()).into(),
            };
            all.update(one);
        }
        all.finalize().into()
    }
}

/// TLS for both directions.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    /// The digest of the files when they were last looked at, whether they could be used or not.
    seen: Mutex<[u8; 32]>,
    sides: RwLock<Sides>,
}

/// What the next handshakes are made with.
#[derive(Debug, Clone)]
pub(super) struct Sides {
    pub(super) client: Arc<ClientConfig>,
    /// `None` for a client.
    pub(super) server: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and how.
    pub fn load(files: &Files) -> Result<Self, Error> {
        // Before they are read: if they change meanwhile, the next look sees that.
        let seen = Mutex::new(files.digest());
        let sides = RwLock::new(Sides::load(files)?);
        Ok(Self(Arc::new(Shared { files: files.clone(), seen, sides })))
    }

    /// Looks whether the files hold something else than at the last look, and takes it. `None` if they do not. Blocks as
    /// long as the files take to be read.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and how; all stays as it was until the files change again.
    pub fn renew(&self) -> Option<Result<(), Error>> {
        let shared = &self.0;
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shared.files.digest();
        if *seen == found {
            return None;
        }
        *seen = found;
        let take = |sides| *shared.sides.write().unwrap_or_else(PoisonError::into_inner) = sides;
        Some(Sides::load(&shared.files).map(take))
    }

    /// Where its files are.
    pub(super) fn files(&self) -> &Files {
        &self.0.files
    }

    /// What a handshake that begins now is made with.
    pub(super) fn sides(&self) -> Sides {
        self.0.sides.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::Read { what: "a certificate", path: path.into(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(Error::Empty(path.into())) } else { Ok(found) }
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| Error::Authority { path: path.into(), source })?;
    }
    Ok(Arc::new(roots))
}

impl Sides {
    fn load(files: &Files) -> Result<Self, Error> {
        let roots = authorities(&files.authority)?;
        let authority = |source| Error::Authority { path: files.authority.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(authority)?
            .with_root_certificates(roots.clone());
        let Some((cert, key)) = &files.own else {
            let mut client = client.with_no_client_auth();
            client.alpn_protocols = vec![b"h2".to_vec()];
            return Ok(Self { client: Arc::new(client), server: None });
        };
        let chain = certificates(cert)?;
        let roles = chain.first().map_or(Roles::NONE, Roles::of).lacks(files.roles);
        if roles != Roles::NONE {
            return Err(Error::Role { cert: cert.clone(), roles });
        }
        let unread = |source| Error::Read { what: "a private key", path: key.clone(), source };
        let secret = PrivateKeyDer::from_pem_file(key).map_err(unread)?;
        let pair = |source| Error::Pair { cert: cert.clone(), key: key.clone(), source };
        let mut client = client.with_client_auth_cert(chain.clone(), secret.clone_key()).map_err(pair)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).allow_unauthenticated();
        let verifier = verifier.build().map_err(|source| Error::Verifier { path: files.authority.clone(), source })?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(authority)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, secret)
            .map_err(pair)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { client: Arc::new(client), server: Some(Arc::new(server)) })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use tokio::net::{TcpListener, TcpStream};
    use tonic::transport::server::Connected as _;

    use super::super::authority::{Authority, NODE_DAYS};
    use super::super::wire::{Shown, Wire};
    use super::*;

    /// An authority and its certificate.
    pub(in super::super) fn authority() -> (Authority, String) {
        let (authority, own) = Authority::new(SystemTime::now()).unwrap();
        (authority, own.certificate)
    }

    /// A folder with the files of a node.
    pub(in super::super) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(in super::super) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(in super::super) fn files(&self, roles: Roles) -> Files {
            let path = |name| self.0.path().join(name);
            Files { authority: path("ca.pem"), own: Some((path("own.pem"), path("own-key.pem"))), roles }
        }

        pub(in super::super) fn write(&self, name: &str, text: &str) {
            let new = self.0.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, self.0.path().join(name)).unwrap();
        }

        /// Another certificate of this authority.
        pub(in super::super) fn put(&self, (authority, own): &(Authority, String), roles: Roles) {
            let pair = authority.sign(roles, &[], SystemTime::now(), NODE_DAYS).unwrap();
            self.write("ca.pem", own);
            self.write("own.pem", &pair.certificate);
            self.write("own-key.pem", &pair.key);
        }

        fn load(&self) -> Tls {
            Tls::load(&self.files(Roles::NONE)).unwrap()
        }
    }

    /// What a server sees of a client, if both are content with each other.
    async fn shaken(server: &Tls, client: &Tls) -> Option<Shown> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = TcpStream::connect(&address).await.unwrap();
        let (taken, _) = listener.accept().await.unwrap();
        let (server, client) = (Wire::Tls(server.clone()), Wire::Tls(client.clone()));
        let (server, client) = tokio::join!(server.accept(taken), client.connect(stream, &address));
        // While the client is there: the system forgets where it was.
        let shown = server.ok().map(|stream| stream.connect_info());
        client.ok().and(shown)
    }

    #[tokio::test]
    async fn the_server_sees_who_the_client_is() {
        let (server, client, authority) = (Folder::new(), Folder::new(), authority());
        server.put(&authority, Roles::MASTER);
        for roles in [Roles::NONE, Roles::MASTER, Roles::WORKER, Roles::BOTH] {
            client.put(&authority, roles);
            let shown = shaken(&server.load(), &client.load()).await.unwrap();
            assert_eq!((shown.tls, shown.certificate, shown.roles), (true, true, roles));
            assert!(shown.peer.is_some_and(|peer| peer.ip().is_loopback()));
        }
        let nobody = Tls::load(&Files { own: None, ..client.files(Roles::NONE) }).unwrap();
        let shown = shaken(&server.load(), &nobody).await.unwrap();
        assert_eq!((shown.tls, shown.certificate, shown.roles), (true, false, Roles::NONE));
    }

    #[tokio::test]
    async fn another_authority_s_certificates_are_refused_both_ways() {
        let (server, client, other) = (Folder::new(), Folder::new(), authority());
        server.put(&authority(), Roles::MASTER);
        client.put(&other, Roles::MASTER);
        assert!(shaken(&server.load(), &client.load()).await.is_none());
        // Who trusts the server's, but shows what another signed.
        let both = std::fs::read_to_string(server.0.path().join("ca.pem")).unwrap() + &other.1;
        client.write("ca.pem", &both);
        assert!(shaken(&server.load(), &client.load()).await.is_none());
        server.write("ca.pem", &both);
        assert!(shaken(&server.load(), &client.load()).await.is_some());
    }

    #[tokio::test]
    async fn new_files_are_taken_in_both_directions_and_broken_ones_left() {
        let (server, client, old, new) = (Folder::new(), Folder::new(), authority(), authority());
        server.put(&old, Roles::MASTER);
        client.put(&old, Roles::WORKER);
        let (serving, asking) = (Tls::load(&server.files(Roles::MASTER)).unwrap(), client.load());
        // Others have the same one.
        let (holder, asker) = (serving.clone(), asking.clone());
        assert!(serving.renew().is_none());
        assert!(shaken(&holder, &asker).await.is_some());

        server.put(&new, Roles::MASTER);
        client.put(&new, Roles::WORKER);
        assert!(matches!(serving.renew(), Some(Ok(()))) && serving.renew().is_none());
        assert!(shaken(&holder, &asker).await.is_none(), "one of them still has the old ones");
        assert!(matches!(asking.renew(), Some(Ok(()))));
        assert!(shaken(&holder, &asker).await.is_some());

        // A key of another certificate, then one that does not say what the node is.
        server.write("own-key.pem", &new.0.sign(Roles::MASTER, &[], SystemTime::now(), 1).unwrap().key);
        assert!(matches!(serving.renew(), Some(Err(Error::Pair { .. }))) && serving.renew().is_none());
        server.put(&new, Roles::WORKER);
        assert!(matches!(serving.renew(), Some(Err(Error::Role { .. }))) && serving.renew().is_none());
        std::fs::remove_file(server.0.path().join("own.pem")).unwrap();
        assert!(matches!(serving.renew(), Some(Err(Error::Read { .. }))) && serving.renew().is_none());
        assert!(shaken(&holder, &asker).await.is_some());
    }
}
