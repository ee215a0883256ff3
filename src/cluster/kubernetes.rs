//! Tokens of Kubernetes' service accounts: whose one is, as its API server says (TokenReview).
//!
//! The API server alone has the keys, and knows whether the pod that a token is bound to is still there. So it is asked, as
//! this node's own service account, and what it said is kept for seconds. Which user a service account is, and what that one
//! may, is the cluster's own (`control::access`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_engine::auth::token::issuer_claimed;
use gristmill_engine::node::master::{ApiError, Code};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Where a pod has the token of its service account and the API server's authority.
pub const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// For whom tokens are, unless the flags say otherwise.
pub const AUDIENCE: &str = "gristmill";
/// What asks about a token.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// How long an answer may take, the wait for one's turn included.
const WITHIN: Duration = Duration::from_secs(5);
/// Reviews at a time.
const AT_A_TIME: usize = 8;
/// Bytes of an answer, and of each of the pod's files.
const MOST_BYTES: usize = 64 << 10;
/// How long a good answer is kept, and a bad one.
const KEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(2));
/// Answers that are kept, in each of two generations.
const MOST_KNOWN: usize = 5_000;
/// Issuers of clusters' own tokens begin so: Kubernetes is not asked about those.
const OURS: &str = "gristmill/";
/// How Kubernetes calls a service account, before its namespace and name.
const ACCOUNT: &str = "system:serviceaccount:";

/// Where tokens are reviewed.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API server's URL, as [`api`] lets through.
    pub api: String,
    /// The folder with this node's own `token`, and the API server's authority as `ca.crt`.
    pub folder: PathBuf,
    /// For whom a token must be.
    pub audience: String,
}

impl Config {
    /// Whether the files can be read that each review needs.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), (PathBuf, io::Error)> {
        let files = [Some(self.token()), self.is_tls().then(|| self.authority())];
        files.into_iter().flatten().try_for_each(|path| read(&path).map(drop).map_err(|source| (path, source)))
    }

    fn token(&self) -> PathBuf {
        self.folder.join("token")
    }

    fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    fn is_tls(&self) -> bool {
        self.api.starts_with("https:")
    }
}

/// The URL of an API server, as it is given.
///
/// # Errors
/// That it is none, or that tokens would go through a network in the plain.
pub fn api(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|e| format!("it is no URL: {e}"))?;
    let host = url.host_str().unwrap_or_default();
    let is_here =
        || host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if is_here() => {}
        "http" => return Err("http:// is for addresses of this machine alone; write https://".into()),
        _ => return Err("write it as https://HOST:PORT".into()),
    }
    let more = !url.username().is_empty() || url.password().is_some() || url.query().is_some();
    if more || url.fragment().is_some() {
        return Err("write it as https://HOST:PORT, without user and query".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_string())
}

/// The URL of the API server of the pod that has these environment variables; `None`: it is no pod.
pub fn api_of_pod(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    api(&format!("https://{host}:{port}")).ok()
}

/// Asks whose tokens are. Clones share what they know.
#[derive(Clone)]
pub(super) struct Reviewer(Arc<Inner>);

struct Inner {
    config: Config,
    /// The authority's certificates, and the client that trusts those alone.
    client: Mutex<Option<(Vec<u8>, Client)>>,
    turns: Semaphore,
    known: Mutex<Known>,
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Reviewer {
    pub(super) fn new(config: Config) -> Self {
        let (client, turns, known) = (Mutex::default(), Semaphore::new(AT_A_TIME), Mutex::default());
        Self(Arc::new(Inner { config, client, turns, known }))
    }

    /// Whether Kubernetes may know a token: it is a JWT, and by its own words none of a cluster of ours.
    pub(super) fn is_for(token: &str) -> bool {
        issuer_claimed(token).is_some_and(|issuer| !issuer.starts_with(OURS))
    }

    /// The service account, as NAMESPACE/NAME, that a token for us is of; `None`: the token is not good.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: that is not known.
    pub(super) async fn account(&self, token: &str) -> Result<Option<Arc<str>>, ApiError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known(&digest) {
            return Ok(known.account);
        }
        let late = |_| Err(format!("there was no answer within {} s", WITHIN.as_secs()));
        let reviewed = timeout(WITHIN, self.reviewed(digest, token)).await.unwrap_or_else(late);
        reviewed.map_err(|why| ApiError::Refused {
            code: Code::Unavailable,
            message: format!("the Kubernetes API did not review the token: {why}"),
            next_step: "try again, or log in with `gristmill login`".into(),
        })
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Kept> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest, Instant::now())
    }

    async fn reviewed(&self, digest: [u8; 32], token: &str) -> Result<Option<Arc<str>>, String> {
        // It is never closed.
        let _turn = self.0.turns.acquire().await.ok();
        // Somebody else may have asked the same meanwhile.
        if let Some(known) = self.known(&digest) {
            return Ok(known.account);
        }
        let account = self.ask(token).await?;
        let kept = if account.is_some() { KEPT.0 } else { KEPT.1 };
        let kept = Kept { until: Instant::now() + kept, account: account.clone() };
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).put(digest, kept);
        Ok(account)
    }

    /// Asks the API server. No error tells what is in its answer, which has the token in it once more.
    async fn ask(&self, token: &str) -> Result<Option<Arc<str>>, String> {
        let me = self.clone();
        let read = spawn_blocking(move || me.client()).await;
        let (client, own) = read.unwrap_or_else(|e| Err(e.to_string()))?;
        let Config { api, audience, .. } = &self.0.config;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let request = client.post(format!("{api}{PATH}")).bearer_auth(own.as_str());
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        let mut answer = request.body(review.to_string()).send().await.map_err(|e| words(&e))?;
        match answer.status() {
            status if status.is_success() => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(format!(
                    "it answered {status}: this node's service account must be allowed to create tokenreviews"
                ));
            }
            status => return Err(format!("it answered {status}")),
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| words(&e))? {
            if body.len() + piece.len() > MOST_BYTES {
                return Err(format!("its answer is longer than {} KiB", MOST_BYTES >> 10));
            }
            body.extend_from_slice(&piece);
        }
        account_of(&body, audience)
    }

    /// The client, and this node's own token. Both files are read anew: they are replaced while it runs.
    fn client(&self) -> Result<(Client, Zeroizing<String>), String> {
        let config = &self.0.config;
        let read = |path: &Path| read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let token = read(&config.token())?;
        let token = std::str::from_utf8(token.trim_ascii()).map_err(|_| "this node's own token is none".to_string())?;
        let token = Zeroizing::new(token.to_string());
        let authority = if config.is_tls() { read(&config.authority())?.to_vec() } else { Vec::new() };
        let mut kept = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, client)) = &*kept
            && *before == authority
        {
            return Ok((client.clone(), token));
        }
        let client = trusting(&authority, config)?;
        *kept = Some((authority, client.clone()));
        Ok((client, token))
    }
}

/// A client that trusts this authority and no other, and goes nowhere but where it is sent.
fn trusting(authority: &[u8], config: &Config) -> Result<Client, String> {
    // Whoever was first has chosen what TLS is made of.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = Certificate::from_pem_bundle(authority).unwrap_or_default();
    if certificates.is_empty() && config.is_tls() {
        return Err(format!("{} holds no certificate", config.authority().display()));
    }
    let builder = Client::builder().tls_certs_only(certificates).no_proxy().redirect(Policy::none());
    builder.timeout(WITHIN).build().map_err(|e| words(&e))
}

/// A file of the pod's.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // With room for all of it, so that no part is left where it was before.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES + 2));
    File::open(path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 64 KiB"));
    }
    Ok(bytes)
}

/// The last of an error's causes, which names no URL.
fn words(e: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(e), |e| (*e).source());
    causes.last().map_or_else(|| e.to_string(), ToString::to_string)
}

/// As much of a TokenReview as is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

/// The service account that an answer is about; `None`: the token is not good, not for this audience, or of somebody else.
fn account_of(answer: &[u8], audience: &str) -> Result<Option<Arc<str>>, String> {
    let review: Review = serde_json::from_slice(answer).map_err(|_| "its answer is no TokenReview".to_string())?;
    let Status { authenticated, audiences, user } = review.status;
    // A server that knows of no audiences names none: its own are meant.
    if !authenticated || !audiences.iter().any(|one| one == audience) {
        return Ok(None);
    }
    let plain = |part: &str| !part.is_empty() && !part.contains([':', '/']);
    let account = user.username.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
    let account = account.filter(|(namespace, name)| plain(namespace) && plain(name));
    Ok(account.map(|(namespace, name)| format!("{namespace}/{name}").into()))
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    until: Instant,
    account: Option<Arc<str>>,
}

/// Answers by the tokens' digests, in two generations of which the older is forgotten when the newer is full.
#[derive(Default)]
struct Known {
    new: BTreeMap<[u8; 32], Kept>,
    old: BTreeMap<[u8; 32], Kept>,
}

impl Known {
    fn get(&mut self, digest: &[u8; 32], now: Instant) -> Option<Kept> {
        if let Some(kept) = self.new.get(digest) {
            return Some(kept.clone()).filter(|kept| now < kept.until);
        }
        let kept = self.old.remove(digest).filter(|kept| now < kept.until)?;
        self.put(*digest, kept.clone());
        Some(kept)
    }

    fn put(&mut self, digest: [u8; 32], kept: Kept) {
        if self.new.len() >= MOST_KNOWN {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(status: &serde_json::Value) -> Option<String> {
        let answer = json!({"kind": "TokenReview", "spec": {"token": "canary"}, "status": status}).to_string();
        account_of(answer.as_bytes(), "gristmill").unwrap().map(|account| account.to_string())
    }

    #[test]
    fn an_answer_counts_if_it_is_about_a_service_account_and_for_us() {
        let said = |authenticated: bool, audiences: &[&str], username: &str| {
            let user = json!({"username": username, "uid": "u", "groups": ["system:serviceaccounts"]});
            found(&json!({"authenticated": authenticated, "audiences": audiences, "user": user}))
        };
        let loader = "system:serviceaccount:batch:loader";
        assert_eq!(said(true, &["other", "gristmill"], loader).as_deref(), Some("batch/loader"));
        assert_eq!(said(false, &["gristmill"], loader), None);
        assert_eq!(said(true, &["https://kubernetes.default.svc"], loader), None);
        assert_eq!(said(true, &[], loader), None);
        for other in [
            "ann",
            "system:node:n1",
            "system:serviceaccount:",
            "system:serviceaccount:batch",
            "system:serviceaccount::x",
        ] {
            assert_eq!(said(true, &["gristmill"], other), None, "{other}");
        }
        for odd in ["batch:", "batch:a:b", "batch:a/b", "a/b:c"] {
            assert_eq!(said(true, &["gristmill"], &format!("{ACCOUNT}{odd}")), None, "{odd}");
        }
        assert_eq!(found(&json!({"error": "invalid bearer token"})), None);
        assert_eq!(found(&json!({})), None);
    }

    #[test]
    fn what_is_no_answer_is_told_without_its_words() {
        for none in
            ["", "canary", r#""canary""#, r#"{"status": "canary"}"#, r#"{"status": {"authenticated": "canary"}}"#]
        {
            let why = account_of(none.as_bytes(), "gristmill").unwrap_err();
            assert_eq!(why, "its answer is no TokenReview", "{none}");
        }
    }

    #[test]
    fn answers_are_kept_for_a_while_and_so_many_of_them() {
        let (mut known, now) = (Known::default(), Instant::now());
        let digest = |n: usize| -> [u8; 32] { Sha256::digest(n.to_string()).into() };
        let kept = |seconds: u64, account: Option<&str>| Kept {
            until: now + Duration::from_secs(seconds),
            account: account.map(Arc::from),
        };
        known.put(digest(0), kept(10, Some("batch/loader")));
        known.put(digest(1), kept(2, None));
        assert_eq!(known.get(&digest(0), now), Some(kept(10, Some("batch/loader"))));
        assert_eq!(known.get(&digest(1), now), Some(kept(2, None)));
        let later = now + Duration::from_secs(2);
        assert!(known.get(&digest(0), later).is_some() && known.get(&digest(1), later).is_none());
        assert!(known.get(&digest(0), now + Duration::from_secs(10)).is_none());
        // One that is asked for stays, others go when there are too many.
        for n in 2..5 * MOST_KNOWN {
            known.put(digest(n), kept(10, None));
            assert!(known.get(&digest(0), now).is_some(), "{n}");
            assert!(known.new.len() + known.old.len() <= 2 * MOST_KNOWN);
        }
        assert!(known.get(&digest(2), now).is_none());
    }

    #[test]
    fn only_an_api_server_of_this_machine_is_spoken_to_in_the_plain() {
        for good in
            ["https://10.96.0.1:443", "https://kubernetes.default.svc", "http://127.0.0.1:8001", "http://[::1]:8001"]
        {
            api(good).unwrap();
        }
        assert_eq!(api("https://k8s:6443/").unwrap(), "https://k8s:6443");
        assert_eq!(api("https://k8s/prefix/").unwrap(), "https://k8s/prefix");
        for bad in [
            "http://10.96.0.1",
            "http://127.0.0.1.example.com",
            "ftp://k8s",
            "k8s:443",
            "",
            "https://a:b@k8s",
            "https://k8s?x=1",
        ] {
            assert!(api(bad).is_err(), "{bad}");
        }
        let pod = |host: &'static str| {
            move |name: &str| {
                let value = if name.ends_with("HOST") { host } else { "443" };
                Some(value.to_string())
            }
        };
        assert_eq!(api_of_pod(pod("10.96.0.1")).as_deref(), Some("https://10.96.0.1"));
        assert_eq!(api_of_pod(pod("fd00::1")).as_deref(), Some("https://[fd00::1]"));
        assert_eq!(api_of_pod(|_| None), None);
    }

    #[test]
    fn nobody_prints_a_token() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "canary\n").unwrap();
        let config =
            Config { api: "http://127.0.0.1:1".into(), folder: folder.path().into(), audience: "gristmill".into() };
        config.check().unwrap();
        let reviewer = Reviewer::new(config.clone());
        assert_eq!(reviewer.client().unwrap().1.as_str(), "canary");
        assert!(!format!("{reviewer:?}").contains("canary"));
        // Over TLS there must be an authority.
        let config = Config { api: "https://127.0.0.1:1".into(), ..config };
        assert_eq!(config.check().unwrap_err().0, folder.path().join("ca.crt"));
        std::fs::write(folder.path().join("ca.crt"), "none\n").unwrap();
        let why = Reviewer::new(config).client().unwrap_err();
        assert!(why.contains("holds no certificate"), "{why}");
    }
}
