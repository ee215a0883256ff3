//! Where the cluster is: the flags that say so, the contexts that are kept in a file, and the connection.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args as _, Command, FromArgMatches as _};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::super::failure::Failure;
use super::bearer::{self, Bearer, Client};
use super::context::Contexts;
use crate::cluster::channels::{Channels, Lane};
use crate::cluster::connector::Connector;
use crate::cluster::roles::Roles;
use crate::cluster::tls::{Files, Tls};
use crate::cluster::wire::Wire;

/// Where a cluster is when nothing else is said.
const HERE: &str = "127.0.0.1:7070";
/// The variable that says where else.
const MASTER: &str = "GRISTMILL_MASTER";
/// The variable that names a context.
const CONTEXT: &str = "GRISTMILL_CONTEXT";
/// How long a connection may take to open, and a half of what is waited between attempts.
const OPENING: Duration = Duration::from_secs(4);

// The flags by which a cluster is found. No documentation comment: clap would take it for the help of every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct At {
    /// Where any master is, as HOST:PORT or https://HOST:PORT; by default that of the context, of GRISTMILL_MASTER, or
    /// 127.0.0.1:7070
    #[arg(id = "cluster.at", long = "at", value_name = "ADDRESS", global = true, help_heading = "Cluster")]
    at: Option<String>,
    /// A cluster by the name that `context add` gave it
    #[arg(id = "cluster.context", long = "context", value_name = "NAME", global = true, help_heading = "Cluster")]
    #[arg(conflicts_with = "cluster.at")]
    context: Option<String>,
    #[command(flatten)]
    secured: Secured,
}

// How the connection is made: what a context holds as well.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Secured {
    /// Connect with TLS, and trust whom this authority signed: certificates in PEM
    #[arg(id = "cluster.tls-ca", long = "tls-ca", value_name = "FILE", global = true, help_heading = "Cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// Show this certificate, in PEM, to who asks for one
    #[arg(id = "cluster.tls-cert", long = "tls-cert", value_name = "FILE", global = true, help_heading = "Cluster")]
    #[arg(requires = "cluster.tls-key", requires = "cluster.tls-ca")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(id = "cluster.tls-key", long = "tls-key", value_name = "FILE", global = true, help_heading = "Cluster")]
    #[arg(requires = "cluster.tls-cert")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Allow a plain connection to another machine: anybody between can read and change it
    #[arg(id = "cluster.insecure", long = "insecure", global = true, help_heading = "Cluster")]
    #[arg(conflicts_with = "cluster.tls-ca")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl Secured {
    /// Certificates are read, so that what is wrong with them is told.
    pub(crate) fn wire(&self) -> Result<Wire, Failure> {
        let own = self.tls_cert.clone().zip(self.tls_key.clone());
        match self.tls_ca.clone() {
            Some(authority) => {
                let tls = Tls::load(&Files { authority, own, roles: Roles::NONE });
                tls.map(Wire::Tls).map_err(|e| Failure::Usage(e.to_string()))
            }
            None if self.insecure => Ok(Wire::INSECURE),
            None => Ok(Wire::LOOPBACK),
        }
    }
}

/// A cluster, as flags, variables and contexts have it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Where a master is.
    pub at: String,
    /// How connections are made.
    #[serde(flatten)]
    pub secured: Secured,
}

impl Target {
    /// The address, without the scheme that may be before it.
    ///
    /// # Errors
    /// That the scheme wants what is not given.
    pub(crate) fn address(&self) -> Result<&str, Failure> {
        let at = self.at.trim_end_matches('/');
        match at.split_once("://") {
            None => Ok(at),
            Some(("https", _)) if self.secured.tls_ca.is_none() => {
                let what = format!("{at} takes TLS: name the authority that signed its certificate with --tls-ca FILE");
                Err(Failure::Usage(what))
            }
            Some(("http", _)) if self.secured.tls_ca.is_some() => {
                Err(Failure::Usage(format!("{at} is plain, but --tls-ca asks for TLS; write it as https://")))
            }
            Some(("https" | "http", address)) => Ok(address),
            Some((scheme, _)) => {
                Err(Failure::Usage(format!("'{scheme}' is no way to reach a cluster; use https:// or HOST:PORT")))
            }
        }
    }
}

impl At {
    /// These flags among others that are not known; `None` if they make no sense.
    pub(super) fn among(arguments: &[OsString]) -> Option<Self> {
        let command = Self::augment_args(Command::new("at").no_binary_name(true).disable_help_flag(true));
        let mut ours = Vec::new();
        let mut rest = arguments.iter().take_while(|argument| *argument != "--");
        while let Some(argument) = rest.next() {
            let text = argument.to_string_lossy();
            let Some(name) = text.strip_prefix("--") else { continue };
            let (name, valued) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
            let Some(flag) = command.get_arguments().find(|flag| flag.get_long() == Some(name)) else { continue };
            ours.push(argument.clone());
            if !valued && flag.get_action().takes_values() {
                ours.extend(rest.next().cloned());
            }
        }
        Self::from_arg_matches(&command.try_get_matches_from(ours).ok()?).ok()
    }

    /// Flags before the environment, a name before what is current.
    fn target(self) -> Result<Target, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let secured = self.secured;
        let plainly = |at| Target { at, secured: secured.clone() };
        if let Some(at) = self.at {
            return Ok(plainly(at));
        }
        let named = self.context.or_else(|| variable(MASTER).is_none().then(|| variable(CONTEXT)).flatten());
        let kept = match (named, variable(MASTER)) {
            (Some(name), _) => Some(Contexts::load()?.get(&name)?),
            (None, Some(at)) => return Ok(plainly(at)),
            (None, None) => Contexts::load()?.current()?,
        };
        let Some(mut kept) = kept else { return Ok(plainly(HERE.into())) };
        // What is said beside a context counts instead of its own.
        if secured != Secured::default() {
            kept.secured = secured;
        }
        Ok(kept)
    }

    /// The address of the cluster, and how connections to it are made.
    pub(crate) fn found(self) -> Result<(String, Wire), Failure> {
        let target = self.target()?;
        let wire = target.secured.wire()?;
        Ok((target.address()?.to_string(), wire))
    }

    /// The address of the cluster, and a connection to it over which no token is shown.
    pub(super) fn open(self) -> Result<(String, Channel), Failure> {
        let (address, wire) = self.found()?;
        let connector = Connector { wire, ..Connector::new(OPENING) };
        let _entered = runtime()?.enter();
        let channel = Channels::new(connector).to(&address, Lane::Calls);
        Ok((address, channel.map_err(|e| Failure::Usage(e.to_string()))?))
    }

    /// The user's token for the cluster, if there is one.
    pub(crate) fn bearer(self) -> Result<Bearer, Failure> {
        let (address, channel) = self.open()?;
        bearer::bearer(&address, channel)
    }

    /// A connection to the cluster, over which every call shows the user's token if there is one.
    pub(super) fn channel(self) -> Result<Client, Failure> {
        let (address, channel) = self.open()?;
        bearer::client(&address, channel)
    }

    /// These flags as they would be given again.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let flag = |name: &str, value: &OsStr| {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(value);
            flag
        };
        let Secured { tls_ca, tls_cert, tls_key, insecure } = &self.secured;
        let texts = [("at", &self.at), ("context", &self.context)].into_iter();
        let texts = texts.filter_map(|(name, value)| Some(flag(name, OsStr::new(value.as_ref()?))));
        let files = [("tls-ca", tls_ca), ("tls-cert", tls_cert), ("tls-key", tls_key)].into_iter();
        let files = files.filter_map(|(name, path)| Some(flag(name, path.as_ref()?.as_os_str())));
        texts.chain(files).chain(insecure.then(|| "--insecure".into())).collect()
    }

    /// Whether one of these flags is among others.
    pub(super) fn is_among(arguments: &[OsString]) -> bool {
        let names = ["--at", "--context", "--tls-ca", "--tls-cert", "--tls-key", "--insecure"];
        let mut ours = arguments.iter().take_while(|argument| *argument != "--");
        ours.any(|argument| {
            let text = argument.to_string_lossy();
            names.contains(&text.split_once('=').map_or(&*text, |(name, _)| name))
        })
    }
}

/// The one runtime of this process: a connection stays with the one that it was made in.
pub(super) fn runtime() -> Result<&'static Runtime, Failure> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::System("start the network", e))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(at: &str, tls: bool) -> Target {
        let secured = Secured { tls_ca: tls.then(|| "ca.pem".into()), ..Secured::default() };
        Target { at: at.into(), secured }
    }

    #[test]
    fn the_scheme_and_the_flags_agree() {
        assert_eq!(target("127.0.0.1:1", false).address().unwrap(), "127.0.0.1:1");
        assert_eq!(target("http://127.0.0.1:1/", false).address().unwrap(), "127.0.0.1:1");
        assert_eq!(target("https://m:1", true).address().unwrap(), "m:1");
        assert_eq!(target("m:1", true).address().unwrap(), "m:1");
        for (at, tls, told) in
            [("https://m:1", false, "--tls-ca"), ("http://m:1", true, "https://"), ("s3://m", true, "'s3'")]
        {
            let failure = target(at, tls).address().unwrap_err().to_string();
            assert!(failure.contains(told), "{failure}");
        }
    }

    #[test]
    fn flags_are_given_again() {
        let at = At { at: Some("m:1".into()), context: None, secured: target("m:1", true).secured };
        let again = at.arguments();
        assert_eq!(again, ["--at=m:1", "--tls-ca=ca.pem"]);
        assert!(At::is_among(&again) && At::is_among(&["jobs".into(), "--insecure".into()]));
        assert!(!At::is_among(&["push".into(), "--".into(), "--at=m".into()]));
        assert_eq!(At::among(&again).unwrap().arguments(), again);
    }

    #[test]
    fn what_is_kept_is_read_again() {
        for kept in [target("m:1", true), target("127.0.0.1:1", false)] {
            let text = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), kept, "{text}");
        }
    }
}
