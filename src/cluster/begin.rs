//! Masters that begin a cluster together.
//!
//! Each is told the addresses of all. Until there is a cluster, a master answers on its listener that it waits, and asks the
//! others. One of them (the first by address, the same for all) makes the cluster once all are there, wait, and were told
//! the same; the others join it. Whoever finds a cluster of the same token joins it, whatever it was begun with: a master that
//! lost its folder never makes a second one while any other remembers the first, and one master becomes three.

use std::time::Duration;

use gristmill_proto::internal::v1 as proto;
use gristmill_proto::internal::v1::admin_server::{Admin, AdminServer};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::admin;
use super::boot::Error;
use super::channels::Channels;
use super::health::{Ready, probed};
use super::listener::Listener;

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long one master may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The masters that begin a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peers {
    /// Their addresses as all were told them, in the order of bytes.
    pub(super) addresses: Vec<String>,
    /// What all must have been told alike that begin together.
    pub(super) gathering: u64,
    /// What who joins later must have been told alike.
    pub(super) token: u64,
}

/// What a master finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is to make the cluster.
    Make,
    /// It is to join this one.
    Join(u64),
}

/// Never 0.
fn digest<'p>(parts: impl IntoIterator<Item = &'p str>) -> u64 {
    let mut told = Sha256::new();
    for part in parts {
        told.update((part.len() as u64).to_le_bytes());
        told.update(part);
    }
    let digest: [u8; 32] = told.finalize().into();
    digest.first_chunk().map_or(1, |first| u64::from_le_bytes(*first)).max(1)
}

impl Peers {
    pub(super) fn new(addresses: &[String], token: &str) -> Self {
        let mut addresses = addresses.to_vec();
        addresses.sort();
        addresses.dedup();
        let all = addresses.iter().map(String::as_str).chain(["", token]);
        Self { gathering: digest(all), token: digest([token]), addresses }
    }

    /// All but this one.
    pub(super) fn others(&self, here: &str) -> Vec<String> {
        self.addresses.iter().filter(|address| *address != here).cloned().collect()
    }

    /// Waits until it is known who makes the cluster. `tell` hears, once, what it waits for.
    pub(super) async fn wait(
        &self,
        listener: &Listener,
        channels: &Channels,
        here: &str,
        tell: impl Fn(String),
    ) -> Result<Turn, Error> {
        if !self.addresses.iter().any(|address| address == here) {
            return Err(Error::Peers { here: here.to_string(), peers: self.addresses.join(",") });
        }
        let twin = listener.twin().map_err(|source| super::listener::Error::Listen { address: here.into(), source })?;
        let (end, mut ended) = watch::channel(false);
        let routes = Routes::new(AdminServer::new(Waiting { gathering: self.gathering, token: self.token }));
        let routes = probed(routes, Ready::not_yet("this master waits for the others to begin a cluster"));
        let serving = tokio::spawn(twin.serve(routes, async move {
            // Also when whoever waits is given up.
            let _ = ended.wait_for(|over| *over).await;
        }));
        let turn = self.ask(channels, here, tell).await;
        end.send_replace(true);
        let _ = serving.await;
        Ok(turn)
    }

    async fn ask(&self, channels: &Channels, here: &str, tell: impl Fn(String)) -> Turn {
        let others = self.others(here);
        let makes = self.addresses.first().is_some_and(|first| first == here);
        let mut told = String::new();
        loop {
            let (mut waiting, mut missing, mut otherwise) = (0, String::new(), None);
            for at in &others {
                match admin::Client::new(channels.clone(), at, ANSWER_WITHIN).status().await {
                    Ok(status) if status.cluster != 0 && [0, self.token].contains(&status.token) => {
                        return Turn::Join(status.cluster);
                    }
                    Ok(status) if status.cluster != 0 => {
                        otherwise = Some(format!(
                            "the master at {at} is of a cluster with another token; give this one the same --cluster-token"
                        ));
                    }
                    Ok(status) if status.gathering != 0 && status.gathering != self.gathering => {
                        otherwise = Some(format!(
                            "the master at {at} was told other peers or another token; give all the same --peers and \
                             --cluster-token"
                        ));
                    }
                    Ok(_) => waiting += 1,
                    Err(e) => missing = e.to_string(),
                }
            }
            if makes && waiting == others.len() {
                return Turn::Make;
            }
            // What does not pass by itself is said first.
            let missing = otherwise.unwrap_or(missing);
            if !missing.is_empty() && missing != told {
                tell(format!("waits for the other masters: {missing}"));
                told = missing;
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// What a master answers that has no cluster yet.
struct Waiting {
    gathering: u64,
    token: u64,
}

fn waits<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("this master waits for its peers to begin a cluster"))
}

#[tonic::async_trait]
impl Admin for Waiting {
    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::NodeStatus>, Status> {
        let (role, gathering, token) = ("waiting".to_string(), self.gathering, self.token);
        Ok(Response::new(proto::NodeStatus { role, gathering, token, ..Default::default() }))
    }

    async fn add(&self, _: Request<proto::AddRequest>) -> Result<Response<proto::AddResponse>, Status> {
        waits()
    }

    async fn remove(&self, _: Request<proto::RemoveRequest>) -> Result<Response<proto::RemoveResponse>, Status> {
        waits()
    }

    async fn transfer(&self, _: Request<proto::TransferRequest>) -> Result<Response<proto::TransferResponse>, Status> {
        waits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_must_be_told_the_same_in_any_order() {
        let of = |addresses: &[&str], token: &str| {
            let addresses: Vec<String> = addresses.iter().map(|a| a.to_string()).collect();
            Peers::new(&addresses, token)
        };
        assert_eq!(of(&["b:1", "a:1"], "t"), of(&["a:1", "b:1", "a:1"], "t"));
        for other in [of(&["a:1"], "t"), of(&["a:1", "b:1"], ""), of(&["a:1", "b:2"], "t"), of(&["a:1", "b:1t"], "")] {
            assert_ne!(other.gathering, of(&["a:1", "b:1"], "t").gathering);
        }
        assert_eq!(of(&["a:1"], "t").token, of(&["b:1"], "t").token);
        assert_ne!(of(&["a:1"], "t").token, of(&["a:1"], "").token);
        assert_eq!(of(&["b:1", "a:1"], "").others("a:1"), ["b:1"]);
    }
}
