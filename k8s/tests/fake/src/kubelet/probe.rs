//! Probes: whether a container has started, is ready, and lives.
//!
//! Configure Liveness, Readiness and Startup Probes. Commands, HTTP, HTTPS and TCP are probed; gRPC is not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::container::spawn;
use super::pod::Order;

/// What a probe found out, once it is sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Started,
    Ready(bool),
    /// It is to be killed, and started again by its policy.
    Dead,
}

/// What probes need to know of a container.
#[derive(Clone)]
pub(super) struct Probed {
    pub(super) index: usize,
    pub(super) spec: Value,
    pub(super) address: Ipv4Addr,
    pub(super) env: BTreeMap<String, String>,
    pub(super) folder: PathBuf,
    /// Words of commands by probe, with paths and names replaced.
    pub(super) commands: BTreeMap<String, Vec<String>>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
}

impl Probed {
    fn say(&self, verdict: Verdict) {
        // The pod may have ended.
        let _ = self.orders.send(Order::Probe(self.index, verdict));
    }

    /// Probes until it is aborted.
    pub(super) async fn run(self) {
        if self.spec["startupProbe"].is_object() && !self.startup().await {
            return self.say(Verdict::Dead);
        }
        self.say(Verdict::Started);
        if !self.spec["readinessProbe"].is_object() {
            self.say(Verdict::Ready(true));
        }
        tokio::join!(self.keep("readinessProbe"), self.keep("livenessProbe"));
    }

    async fn startup(&self) -> bool {
        let probe = &self.spec["startupProbe"];
        tokio::time::sleep(seconds(probe, "initialDelaySeconds", 0)).await;
        for _ in 0..probe["failureThreshold"].as_u64().unwrap_or(3) {
            if self.probe("startupProbe").await {
                return true;
            }
            tokio::time::sleep(seconds(probe, "periodSeconds", 10)).await;
        }
        false
    }

    async fn keep(&self, name: &str) {
        let probe = &self.spec[name];
        if !probe.is_object() {
            return;
        }
        tokio::time::sleep(seconds(probe, "initialDelaySeconds", 0)).await;
        let (mut good, mut bad) = (0, 0);
        let mut is = None;
        loop {
            if self.probe(name).await {
                (good, bad) = (good + 1, 0);
            } else {
                (good, bad) = (0, bad + 1);
            }
            let sure_good = good >= probe["successThreshold"].as_u64().unwrap_or(1);
            let sure_bad = bad >= probe["failureThreshold"].as_u64().unwrap_or(3);
            if name == "livenessProbe" {
                if sure_bad {
                    return self.say(Verdict::Dead);
                }
            } else if (sure_good || sure_bad) && is != Some(sure_good) {
                is = Some(sure_good);
                self.say(Verdict::Ready(sure_good));
            }
            tokio::time::sleep(seconds(probe, "periodSeconds", 10)).await;
        }
    }

    async fn probe(&self, name: &str) -> bool {
        let limit = seconds(&self.spec[name], "timeoutSeconds", 1);
        tokio::time::timeout(limit, self.ask(name)).await.unwrap_or(false)
    }

    async fn ask(&self, name: &str) -> bool {
        let probe = &self.spec[name];
        if let Some(words) = self.commands.get(name) {
            let child = spawn(words, &self.env, &self.folder, std::path::Path::new("/dev/null"));
            let Ok(mut child) = child else { return false };
            return child.wait().await.is_ok_and(|status| status.success());
        }
        let (action, http) =
            if probe["httpGet"].is_object() { (&probe["httpGet"], true) } else { (&probe["tcpSocket"], false) };
        let Some(port) = self.port(&action["port"]) else { return false };
        let host = action["host"].as_str().unwrap_or_default();
        let host: String = if host.is_empty() { self.address.to_string() } else { host.into() };
        let Ok(stream) = TcpStream::connect((host.as_str(), port)).await else { return false };
        if !http {
            return true;
        }
        let path = action["path"].as_str().unwrap_or("/");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/1.37\r\nConnection: close\r\n\r\n"
        );
        if action["scheme"] != "HTTPS" {
            return good(stream, &request).await;
        }
        // "HTTP probes": the kubelet skips the verification of certificates.
        let Some(connector) = unverified() else { return false };
        let Ok(name) = ServerName::try_from(host) else { return false };
        match connector.connect(name, stream).await {
            Ok(stream) => good(stream, &request).await,
            Err(_) => false,
        }
    }

    /// A number, or the name of one of the container's ports.
    fn port(&self, port: &Value) -> Option<u16> {
        let number = match port {
            Value::String(name) => {
                let mut ports = self.spec["ports"].as_array()?.iter();
                &ports.find(|port| port["name"] == *name)?["containerPort"]
            }
            number => number,
        };
        number.as_u64().and_then(|port| u16::try_from(port).ok())
    }
}

/// Whether a request is answered by a code from 200 to 399.
async fn good(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> bool {
    if stream.write_all(request.as_bytes()).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    let mut head = [0; 12];
    if stream.read_exact(&mut head).await.is_err() {
        return false;
    }
    let code = std::str::from_utf8(&head[9..]).ok().and_then(|code| code.parse::<u16>().ok());
    code.is_some_and(|code| (200..400).contains(&code))
}

/// Takes whatever certificate there is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn unverified() -> Option<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().ok()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Some(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

fn seconds(probe: &Value, field: &str, default: u64) -> Duration {
    Duration::from_secs(probe[field].as_u64().unwrap_or(default))
}
