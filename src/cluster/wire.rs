//! How connections are made: in the plain on this machine, or with TLS 1.3.
//!
//! With TLS every node shows the certificate that it serves with, also where it connects, and asks for one that the same
//! authority signed: what nodes say to each other is answered to nodes alone (`guard`). Clients may connect
//! without one. What a certificate's holder may do beyond that is not decided here.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::transport::server::Connected;

use super::address;

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
}

/// Where a node's or client's certificates are: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificates of the authority that signs those of the nodes.
    pub authority: PathBuf,
    /// One's own certificate, with those between it and the authority's, and its key. A client may have none.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How connections are made.
#[derive(Debug, Clone, Default)]
pub enum Wire {
    /// In the plain, on this machine.
    #[default]
    Loopback,
    /// In the plain wherever to, by the user's explicit word.
    Insecure,
    /// With TLS.
    Tls(Tls),
}

/// TLS for both directions.
#[derive(Debug, Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    /// `None` for a client.
    server: Option<Arc<ServerConfig>>,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::Read { what: "a certificate", path: path.into(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(Error::Empty(path.into())) } else { Ok(found) }
}

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and how.
    pub fn load(files: &Files) -> Result<Self, Error> {
        let authority = |source| Error::Authority { path: files.authority.clone(), source };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            roots.add(certificate).map_err(authority)?;
        }
        let roots = Arc::new(roots);
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

impl Wire {
    /// Fails for an address that must not be spoken to or at.
    ///
    /// # Errors
    ///
    /// [`address::Error`].
    pub fn check(&self, address: &str) -> Result<(), address::Error> {
        address::check_plain(address, !matches!(self, Self::Loopback))
    }

    /// The other end's handshake, for a connection that was taken.
    ///
    /// # Errors
    ///
    /// As the connection or the handshake fails.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        match self {
            Self::Tls(Tls { server: Some(server), .. }) => {
                let stream = TlsAcceptor::from(server.clone()).accept(stream).await?;
                Ok(Stream::Tls(Box::new(stream.into())))
            }
            Self::Tls(_) => Err(io::Error::other("there is no certificate to serve with")),
            Self::Loopback | Self::Insecure => Ok(Stream::Plain(stream)),
        }
    }

    /// Our own handshake, for a connection to this address.
    ///
    /// # Errors
    ///
    /// As the connection or the handshake fails.
    pub(super) async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<Stream> {
        let Self::Tls(tls) = self else { return Ok(Stream::Plain(stream)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(host).map_err(|e: InvalidDnsNameError| io::Error::other(e))?;
        let stream = TlsConnector::from(tls.client.clone()).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A master.
    pub const MASTER: Self = Self(1);
    /// A worker.
    pub const WORKER: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Whether it is one of these.
    pub fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

/// What the other end of a connection has shown of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Whether it showed a certificate, which is then one of the authority's.
    pub certificate: bool,
    /// What the certificate says that its holder is.
    pub roles: Roles,
    /// Where the other end is, if the system still knew.
    pub peer: Option<SocketAddr>,
}

/// A connection, plain or not.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Stream {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        match self {
            Self::Plain(stream) => Shown { peer: stream.peer_addr().ok(), ..Shown::default() },
            Self::Tls(stream) => {
                let (tcp, tls) = stream.get_ref();
                let certificate = tls.peer_certificates().is_some_and(|shown| !shown.is_empty());
                let roles = if certificate { Roles::BOTH } else { Roles::NONE };
                Shown { tls: true, certificate, roles, peer: tcp.peer_addr().ok() }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, from),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
