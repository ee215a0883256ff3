//! The token that every call of a command shows, and how it stays good for as long as the command runs.
//!
//! It is that of GRISTMILL_TOKEN or of the file GRISTMILL_TOKEN_FILE, which is read again and again, else the one that
//! `login` has kept for the cluster's address. Without any, calls show none: the cluster says whether they need one, and what
//! to do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gristmill_proto::v1 as api;
use gristmill_proto::v1::access_client::AccessClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::super::failure::Failure;
use super::ask::{WITHIN, block_on};
use super::at::runtime;
use super::credentials::{Entry, Store, read_secret};
use crate::cluster::answer;

/// The variable that has a token, and the one that names a file with it.
const VARIABLE: &str = "GRISTMILL_TOKEN";
const FILE: &str = "GRISTMILL_TOKEN_FILE";
/// A command begins with a token that holds for so long.
const LEAST: Duration = Duration::from_secs(60);
/// While it runs, the next one is fetched so long before.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// How often is looked whether that is now. Below `LEAST`.
const LOOK: Duration = Duration::from_secs(30);
/// How long the next token is asked for again when nobody leads, and how often.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(200);

/// A connection over which every call shows the token.
pub(super) type Client = InterceptedService<Channel, Bearer>;

/// The header of calls. Clones show the same.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Arc<Shown>);

type Shown = Mutex<Option<AsciiMetadataValue>>;

impl Bearer {
    /// The header's value; `None`: there is no token.
    pub(crate) fn value(&self) -> Option<AsciiMetadataValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, token: &str) -> Result<(), Failure> {
        let none = |_| Failure::Usage("the token has characters that are in none; copy it again, or log in".into());
        let text = Zeroizing::new(format!("Bearer {token}"));
        let mut value = AsciiMetadataValue::try_from(text.as_str()).map_err(none)?;
        value.set_sensitive(true);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = self.value() {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// The token that variables give.
pub(super) fn given() -> Result<Option<Zeroizing<String>>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable(VARIABLE), variable(FILE)) {
        (Some(token), _) => {
            let none = |_| Failure::Usage(format!("{VARIABLE} holds no token"));
            Ok(Some(first_line(&Zeroizing::new(token.into_string().map_err(none)?))))
        }
        (None, Some(path)) => in_file(Path::new(&path)).map(Some),
        (None, None) => Ok(None),
    }
}

/// The file whose token is shown, if it is a file's.
fn given_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    variable(FILE).filter(|_| variable(VARIABLE).is_none()).map(PathBuf::from)
}

/// The token of a file.
fn in_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let none = || Failure::Usage(format!("{FILE} names {}, which is not there", path.display()));
    Ok(first_line(&read_secret(path)?.ok_or_else(none)?))
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_string())
}

/// Shows what a file has now, for as long as somebody shows any: a token that is projected into a pod is replaced in time.
async fn keep_file(path: PathBuf, shown: Weak<Shown>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(bearer) = shown.upgrade().map(Bearer) else { return };
        // While it cannot be read, what was in it before may still be good.
        if let Ok(token) = in_file(&path) {
            let _ = bearer.show(&token);
        }
    }
}

/// The connection with this token.
pub(super) fn with(channel: Channel, token: &str) -> Result<Client, Failure> {
    let bearer = Bearer::default();
    bearer.show(token)?;
    Ok(InterceptedService::new(channel, bearer))
}

/// The connection to a cluster, with the token that there is for it.
pub(super) fn client(address: &str, channel: Channel) -> Result<Client, Failure> {
    Ok(InterceptedService::new(channel.clone(), bearer(address, channel)?))
}

/// The token that there is for a cluster, and later ones for as long as it is shown.
pub(super) fn bearer(address: &str, channel: Channel) -> Result<Bearer, Failure> {
    let bearer = Bearer::default();
    if let Some(token) = given()? {
        bearer.show(&token)?;
        if let Some(path) = given_file() {
            runtime()?.spawn(keep_file(path, Arc::downgrade(&bearer.0)));
        }
        return Ok(bearer);
    }
    // Without a home nobody has logged in.
    if let Ok(store) = Store::new()
        && let Some(entry) = store.get(address)?
    {
        let session = Session { store, address: address.into(), channel };
        let entry = if entry.holds(LEAST) { Some(entry) } else { block_on(session.renewed(LEAST))? };
        if let Some(entry) = entry {
            bearer.show(&entry.access_token)?;
            let shown = Arc::downgrade(&bearer.0);
            runtime()?.spawn(session.keep(shown));
        }
    }
    Ok(bearer)
}

/// A session that is kept in the file.
struct Session {
    store: Store,
    address: String,
    channel: Channel,
}

impl Session {
    /// What is kept, with a token that holds for so long yet if the cluster gives one; `None` once the session has ended.
    async fn renewed(&self, least: Duration) -> Result<Option<Entry>, Failure> {
        let held = self.store.lock().await?;
        // Another command may have been first.
        let Some(entry) = self.store.get(&self.address)? else { return Ok(None) };
        if entry.holds(least) {
            return Ok(Some(entry));
        }
        let entry = match self.refresh(&entry).await {
            Ok(answer) => Some(Entry::of(answer)),
            Err(status) if status.code() == Code::Unauthenticated => None,
            // What the command asks for fails of the same, and says so.
            Err(_) => return Ok(Some(entry)),
        };
        self.store.put(&held, &self.address, entry.clone())?;
        Ok(entry)
    }

    /// Asks for the next token. An answer that is lost does no harm soon after: the cluster takes the same word again.
    async fn refresh(&self, entry: &Entry) -> Result<api::TokenResponse, Status> {
        let begun = Instant::now();
        loop {
            let refresh = api::RefreshRequest { refresh_token: entry.refresh_token.clone() };
            let mut client = AccessClient::new(self.channel.clone());
            let asked = client.refresh(answer::request(refresh, WITHIN));
            let late = |_| Err(Status::deadline_exceeded("no answer"));
            match tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(late) {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if passes(&status) && begun.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
                Err(status) => return Err(status),
            }
        }
    }

    /// Shows newer tokens in time, for as long as somebody shows any.
    async fn keep(self, shown: Weak<Shown>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(bearer) = shown.upgrade().map(Bearer) else { return };
            let entry = match self.store.get(&self.address) {
                Ok(Some(entry)) if !entry.holds(EARLY) => self.renewed(EARLY).await,
                kept => kept,
            };
            match entry {
                Ok(Some(entry)) => drop(bearer.show(&entry.access_token)),
                // The session has ended, or the user has.
                Ok(None) => return,
                // The file may be of use again.
                Err(_) => {}
            }
        }
    }
}

/// Whether a moment later the answer may be another one.
fn passes(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Aborted | Code::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_show_the_token_and_nobody_prints_it() {
        let mut bearer = Bearer::default();
        let call = |bearer: &mut Bearer| bearer.call(Request::new(())).unwrap();
        assert!(call(&mut bearer).metadata().get("authorization").is_none());
        bearer.clone().show("abc").unwrap();
        let request = call(&mut bearer);
        let value = request.metadata().get("authorization").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc");
        assert!(!format!("{request:?}").contains("abc"), "{request:?}");
        assert!(bearer.show("a\nb").is_err());
    }
}
