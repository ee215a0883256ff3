//! How connections are made: in the plain on this machine, or with TLS 1.3; and what the other end has shown of itself.
//!
//! With TLS every node shows the certificate that it serves with, also where it connects, and asks for one that the same
//! authority signed. In the plain, nodes that share a secret begin a connection with what proves it. Clients show neither.
//! Who is answered what is not decided here (`guard`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::transport::server::Connected;

use super::address;
use super::roles::Roles;
use super::tls::Tls;

/// What a plain connection of a node begins with; no request of HTTP begins so.
const NODE: &[u8; 8] = b"\0gmnode1";
/// Bytes of what proves that a node knows the secret.
const PROOF: usize = 32;

/// How connections are made.
#[derive(Debug, Clone)]
pub enum Wire {
    /// In the plain.
    Plain(Plain),
    /// With TLS.
    Tls(Tls),
}

/// Connections in the plain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain {
    /// Wherever to, by the user's explicit word; else on this machine alone.
    pub beyond: bool,
    /// What nodes of the cluster prove; none: whoever connects counts as one.
    pub nodes: Option<Proof>,
}

/// What proves that a node knows the cluster's secret. It keeps out those that cannot listen to plain connections.
#[derive(Clone, Copy)]
pub struct Proof([u8; PROOF]);

impl Proof {
    /// Of a secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"gristmill node").chain_update(secret).finalize().into())
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::LOOPBACK
    }
}

impl Wire {
    /// In the plain, on this machine; whoever connects counts as a node.
    pub const LOOPBACK: Self = Self::Plain(Plain { beyond: false, nodes: None });
    /// The same, wherever to.
    pub const INSECURE: Self = Self::Plain(Plain { beyond: true, nodes: None });

    /// Fails for an address that must not be spoken to or at.
    ///
    /// # Errors
    ///
    /// [`address::Error`].
    pub fn check(&self, address: &str) -> Result<(), address::Error> {
        address::check_plain(address, !matches!(self, Self::Plain(Plain { beyond: false, .. })))
    }

    /// The other end's handshake, for a connection that was taken.
    ///
    /// # Errors
    ///
    /// As the connection or the handshake fails.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        match self {
            Self::Tls(tls) => {
                let none = || io::Error::other("there is no certificate to serve with");
                let stream = TlsAcceptor::from(tls.sides().server.ok_or_else(none)?).accept(stream).await?;
                Ok(Stream::Tls(Box::new(stream.into())))
            }
            Self::Plain(plain) => plain.accept(stream).await,
        }
    }

    /// Our own handshake, for a connection to this address.
    ///
    /// # Errors
    ///
    /// As the connection or the handshake fails.
    pub(super) async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<Stream> {
        let tls = match self {
            Self::Plain(plain) => return plain.connect(stream).await,
            Self::Tls(tls) => tls,
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(host).map_err(|e: InvalidDnsNameError| io::Error::other(e))?;
        let stream = TlsConnector::from(tls.sides().client).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl Plain {
    async fn connect(self, mut stream: TcpStream) -> io::Result<Stream> {
        if let Some(Proof(proof)) = self.nodes {
            stream.write_all(&[&NODE[..], &proof].concat()).await?;
        }
        Ok(Stream::Plain(stream, Roles::NONE))
    }

    /// Whoever proves to be a node is one. Clients speak first, too.
    async fn accept(self, mut stream: TcpStream) -> io::Result<Stream> {
        let mut first = [0xff];
        stream.peek(&mut first).await?;
        if first == NODE[..1] {
            let (mut begin, mut proof) = ([0; NODE.len()], [0; PROOF]);
            stream.read_exact(&mut begin).await?;
            stream.read_exact(&mut proof).await?;
            let right = self.nodes.is_none_or(|Proof(own)| own.ct_eq(&proof).into());
            if begin != *NODE || !right {
                return Err(io::Error::other("it is no node of this cluster: its secret is another one"));
            }
            return Ok(Stream::Plain(stream, Roles::BOTH));
        }
        let roles = if self.nodes.is_some() { Roles::NONE } else { Roles::BOTH };
        Ok(Stream::Plain(stream, roles))
    }
}

/// What the other end of a connection has shown of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Whether it showed a certificate, which is then one of the authority's.
    pub certificate: bool,
    /// What it is, by the certificate or the cluster's secret.
    pub roles: Roles,
    /// Where the other end is, if the system still knew.
    pub peer: Option<SocketAddr>,
}

impl Shown {
    /// Why it is not answered what is for these alone.
    pub(super) fn lacks(&self, whom: Roles) -> String {
        if !self.tls {
            return "the connection does not prove the cluster's secret".into();
        }
        if !self.certificate {
            return "the connection shows no certificate".into();
        }
        let wanted = whom.names().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
        let named =
            self.roles.names().next().map_or("no role".to_string(), |name| format!("'{name}' and no other role"));
        format!("the certificate lacks {wanted} and names {named}")
    }
}

/// A connection, plain or not.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream, Roles),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Stream {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        match self {
            Self::Plain(stream, roles) => Shown { roles: *roles, peer: stream.peer_addr().ok(), ..Shown::default() },
            Self::Tls(stream) => {
                let (tcp, tls) = stream.get_ref();
                // The first one is the holder's own; those after it are between that and the authority's.
                let own = tls.peer_certificates().and_then(|shown| shown.first());
                let roles = own.map_or(Roles::NONE, Roles::of);
                Shown { tls: true, certificate: own.is_some(), roles, peer: tcp.peer_addr().ok() }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, from),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write_vectored(cx, from),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream, _) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_a_connection_lacks_is_told() {
        let shown = |roles: Roles| Shown { tls: true, certificate: true, roles, peer: None };
        let line = "the certificate lacks 'gristmill://master' and names 'gristmill://worker' and no other role";
        assert_eq!(shown(Roles::WORKER).lacks(Roles::MASTER), line);
        let line = "the certificate lacks 'gristmill://master' or 'gristmill://worker' and names no role";
        assert_eq!(shown(Roles::NONE).lacks(Roles::BOTH), line);
        let silent = Shown { certificate: false, ..shown(Roles::NONE) };
        assert_eq!(silent.lacks(Roles::BOTH), "the connection shows no certificate");
        assert_eq!(Shown::default().lacks(Roles::BOTH), "the connection does not prove the cluster's secret");
    }

    /// What an end that is `here` takes one that is `there` for; `None`: it takes no such connection.
    async fn taken(here: Option<&[u8]>, there: Option<&[u8]>) -> Option<Roles> {
        let plain = |secret: Option<&[u8]>| Plain { beyond: false, nodes: secret.map(Proof::of) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut theirs = plain(there).connect(tcp).await.unwrap();
        theirs.write_all(b"GET").await.unwrap();
        let mut ours = plain(here).accept(listener.accept().await.unwrap().0).await.ok()?;
        let mut rest = [0; 3];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET", "nothing of what follows is taken away");
        Some(ours.connect_info().roles)
    }

    #[tokio::test]
    async fn nodes_prove_the_secret_in_the_plain() {
        let (one, other) = (Some(&b"one"[..]), Some(&b"other"[..]));
        assert_eq!(taken(one, one).await, Some(Roles::BOTH));
        assert_eq!(taken(one, other).await, None);
        assert_eq!(taken(one, None).await, Some(Roles::NONE));
        assert_eq!(taken(None, None).await, Some(Roles::BOTH));
        assert_eq!(taken(None, one).await, Some(Roles::BOTH));
        assert_eq!(format!("{:?}", Proof::of(b"one")), "Proof");
    }
}
