//! Connecting to Kubernetes: as this pod's service account, or by a kubeconfig file.
//!
//! kube's own repeating of calls is off. Who calls knows better whether it is still wanted, and must hear of a limit at once
//! rather than wait in a call that nothing shows.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How this program calls itself.
pub const USER_AGENT: &str = concat!("gristmill/", env!("CARGO_PKG_VERSION"));
/// Within this a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// Within this what is to be sent has been taken.
const WRITE: Duration = Duration::from_secs(10);
/// So long a connection may be silent while an answer is awaited: longer than any watch (kube's are 290 s, and 5 s more).
/// Calls that are no watches have deadlines of their own.
const SILENCE: Duration = Duration::from_secs(300);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where Kubernetes is.
    #[error(
        "nothing says where Kubernetes is: run in a pod with a service account's token, or name a file in KUBECONFIG"
    )]
    Nowhere,
    /// A kubeconfig file cannot be used.
    #[error("the kubeconfig file cannot be used: {0}")]
    Kubeconfig(String),
    /// This pod's service account cannot be used.
    #[error("this pod's service account cannot be used: {0}; is automountServiceAccountToken false?")]
    Account(String),
    /// No client could be made of what was found.
    #[error("no client of Kubernetes' API can be made: {0}")]
    Client(String),
}

/// Connects as KUBECONFIG says; if it is not set, as this pod's service account; and outside of pods by the user's own
/// kubeconfig file. Nothing is asked yet: a server that is down is seen with the first call.
///
/// # Errors
/// What is missing or wrong.
pub async fn connect() -> Result<Client, Error> {
    let named = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    // Also where kubectl looks, and no further than to know whether there is anything.
    let own = std::env::home_dir().is_some_and(|home| home.join(".kube").join("config").exists());
    let config = match (named, in_pod) {
        (false, true) => Config::incluster().map_err(|e| Error::Account(chain(&e)))?,
        (false, false) if !own => return Err(Error::Nowhere),
        _ => {
            let options = KubeConfigOptions::default();
            Config::from_kubeconfig(&options).await.map_err(|e| Error::Kubeconfig(chain(&e)))?
        }
    };
    of_config(config)
}

/// Connects by this kubeconfig file, whatever the environment says.
///
/// # Errors
/// It cannot be read or used.
pub async fn connect_by(file: &Path) -> Result<Client, Error> {
    let read = Kubeconfig::read_from(file).map_err(|e| Error::Kubeconfig(chain(&e)))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    of_config(config.map_err(|e| Error::Kubeconfig(chain(&e)))?)
}

/// A client with this crate's limits, and its name.
///
/// # Errors
/// Certificates or credentials that cannot be used.
pub fn of_config(mut config: Config) -> Result<Client, Error> {
    // The program may have installed one, and another thread may at this moment.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    if let (Ok(name), Ok(value)) = ("user-agent".parse(), USER_AGENT.parse()) {
        config.headers.push((name, value));
    }
    Client::try_from(config).map_err(|e| Error::Client(told(&e)))
}

/// What went wrong with a call, in a line: what the server said, or what became of the connection.
pub fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => {
            format!("{} ({})", line(&status.message), status.code)
        }
        kube::Error::Api(status) => format!("{} ({})", status.reason, status.code),
        other => chain(other),
    }
}

/// An error with its causes, in a line, where none says again what the one before has said.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = line(&error.to_string());
    let mut cause = error.source();
    // Causes of causes end somewhere; this is for those that do not.
    for _ in 0..16 {
        let Some(next) = cause else { break };
        let said = line(&next.to_string());
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

/// A text as one line.
pub(crate) fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it is\n  down")]
    struct Down;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct Outer(#[source] Down);

    #[derive(Debug, thiserror::Error)]
    #[error("no answer: it is down")]
    struct Repeats(#[source] Down);

    #[test]
    fn errors_are_one_line_and_say_nothing_twice() {
        assert_eq!(chain(&Outer(Down)), "no answer: it is down");
        assert_eq!(chain(&Repeats(Down)), "no answer: it is down");
        let status = kube::core::Status::failure("pods is\nforbidden", "Forbidden").with_code(403);
        assert_eq!(told(&kube::Error::Api(status.boxed())), "pods is forbidden (403)");
    }

    #[tokio::test]
    async fn limits_and_name_are_set_whatever_the_file_says() {
        let none = connect_by(Path::new("/nonexistent/kubeconfig")).await;
        let said = none.err().expect("there is no such file").to_string();
        assert!(said.starts_with("the kubeconfig file cannot be used: ") && !said.contains('\n'), "{said}");
        // Twice: the provider of cryptography is there the second time.
        for _ in 0..2 {
            let config = Config::new("https://127.0.0.1:1".parse().expect("a URL"));
            assert_eq!(of_config(config).expect("a client").default_namespace(), "default");
        }
    }
}
