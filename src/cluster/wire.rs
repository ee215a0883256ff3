//! How connections are made: in the plain on this machine, or with TLS 1.3.
//!
//! With TLS every node shows the certificate that it serves with, also where it connects, and asks for one that the same
//! authority signed: what nodes say to each other is answered to nodes alone, and to each only what its role has to do
//! with ([`Wire::only`]). Clients may connect without one. What people may do is not decided here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::address;
use super::roles::Roles;
use super::tls::Tls;

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

impl Wire {
    /// Fails for an address that must not be spoken to or at.
    ///
    /// # Errors
    ///
    /// [`address::Error`].
    pub fn check(&self, address: &str) -> Result<(), address::Error> {
        address::check_plain(address, !matches!(self, Self::Loopback))
    }

    /// Lets through what comes from a node that is one of these. Plain connections cannot tell.
    ///
    /// # Errors
    ///
    /// That the connection showed no certificate, or none that names such a role.
    pub fn only(
        &self,
        whom: Roles,
    ) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
        let tls = matches!(self, Self::Tls(_));
        move |request| {
            let shown = request.extensions().get::<Shown>().copied().unwrap_or_default();
            if !tls || shown.roles.has_any(whom) { Ok(request) } else { Err(shown.refused(whom)) }
        }
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
        let stream = TlsConnector::from(tls.sides().client).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
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

impl Shown {
    /// What is said to who is none of these.
    fn refused(&self, whom: Roles) -> Status {
        let only = format!("this is answered to {} alone", whom.whom());
        if !self.certificate {
            return Status::unauthenticated(format!("{only}, and the connection shows no certificate"));
        }
        let wanted = whom.names().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
        let named =
            self.roles.names().next().map_or("no role".to_string(), |name| format!("'{name}' and no other role"));
        Status::permission_denied(format!("{only}: the certificate lacks {wanted} and names {named}"))
    }
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

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::tls::tests::{Folder, authority};
    use super::*;

    fn shown(roles: Roles) -> Shown {
        Shown { tls: true, certificate: true, roles, peer: None }
    }

    #[test]
    fn who_is_let_through_has_one_of_the_roles() {
        let folder = Folder::new();
        folder.put(&authority(), Roles::BOTH);
        let tls = Wire::Tls(Tls::load(&folder.files(Roles::BOTH)).unwrap());
        let ask = |wire: &Wire, whom, shown: Option<Shown>| {
            let mut request = Request::new(());
            shown.map(|shown| request.extensions_mut().insert(shown));
            wire.only(whom)(request).map(|_| ()).map_err(|status| (status.code(), status.message().to_string()))
        };
        for (whom, roles, passes) in [
            (Roles::MASTER, Roles::MASTER, true),
            (Roles::MASTER, Roles::BOTH, true),
            (Roles::MASTER, Roles::WORKER, false),
            (Roles::MASTER, Roles::NONE, false),
            (Roles::WORKER, Roles::WORKER, true),
            (Roles::WORKER, Roles::MASTER, false),
            (Roles::BOTH, Roles::WORKER, true),
            (Roles::BOTH, Roles::MASTER, true),
            (Roles::BOTH, Roles::NONE, false),
        ] {
            let asked = ask(&tls, whom, Some(shown(roles)));
            let code = asked.as_ref().err().map(|(code, _)| *code);
            assert_eq!(code, (!passes).then_some(Code::PermissionDenied), "{whom} of {roles}: {asked:?}");
        }
        for silent in [None, Some(Shown { certificate: false, ..shown(Roles::NONE) })] {
            assert_eq!(ask(&tls, Roles::BOTH, silent).unwrap_err().0, Code::Unauthenticated);
        }
        for plain in [Wire::Loopback, Wire::Insecure] {
            assert_eq!(ask(&plain, Roles::MASTER, Some(Shown::default())), Ok(()));
        }
        let told = ask(&tls, Roles::MASTER, Some(shown(Roles::WORKER))).unwrap_err().1;
        let line = "this is answered to masters alone: the certificate lacks 'gristmill://master' and names \
                    'gristmill://worker' and no other role";
        assert_eq!(told, line);
        let told = ask(&tls, Roles::BOTH, Some(shown(Roles::NONE))).unwrap_err().1;
        let line = "this is answered to masters and workers alone: the certificate lacks 'gristmill://master' or \
                    'gristmill://worker' and names no role";
        assert_eq!(told, line);
    }
}
