//! The network between simulated nodes, and between them and the world outside: messages take a while, get lost, arrive
//! twice or in another order, and lines can be cut in one direction.
//!
//! A message is work for the node at an address when it arrives: whoever is there then, which may be another process than
//! the one that was meant. What a node does with it is the node's own code.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_util::{SinkExt as _, StreamExt as _};
use gristmill_engine::control::limits::LEVEL;
use gristmill_engine::node::master::MasterNode;
use gristmill_engine::node::rpc::{self, CallError, Method};
use gristmill_engine::node::worker::Worker;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::net::{self, BoxStream, Peer};
use gristmill_raft::promise;
use openraft_rt::AsyncRuntime as _;
use prost::Message as _;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::marks::sometimes;
use crate::random::{Stream, below, stream};
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, here, mix, spawn_on};
use crate::said::Said;
use crate::world::World;

/// How messages fare when no line is cut. Parts are in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Microseconds that a message takes, at least and at most.
    pub latency_us: (u32, u32),
    /// Messages that take up to `spike_ms` longer.
    pub spikes: u32,
    /// Milliseconds.
    pub spike_ms: u32,
    /// Messages that are lost.
    pub lost: u32,
    /// Requests that arrive twice.
    pub doubled: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self { latency_us: (50, 500), spikes: 0, spike_ms: 0, lost: 0, doubled: 0 }
    }
}

/// What a node offers to others.
#[derive(Clone)]
pub(crate) enum Offer {
    Master(MasterNode<World>),
    Worker(Worker<World>),
}

struct Lines {
    seed: u64,
    weather: Weather,
    /// The fate of messages, by line: what one line loses does not change what another does.
    fates: BTreeMap<(NodeId, NodeId), Pcg64Mcg>,
    cut: BTreeSet<(NodeId, NodeId)>,
    offers: BTreeMap<NodeId, Offer>,
    /// Where addresses lead to.
    places: BTreeMap<String, NodeId>,
    /// Hears what is said about tasks.
    overhears: Option<Overhears>,
}

type Overhears = Arc<dyn Fn(&Said) + Send + Sync>;

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Lines>>);

/// Why a message has no answer.
enum Lost {
    /// Nobody is at the address.
    Nobody,
    /// It was carried out, or not.
    Unknown(&'static str),
}

/// What becomes of one message.
struct Fate {
    after: Duration,
    is_lost: bool,
    is_doubled: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let (fates, cut, offers, places, overhears) = Default::default();
        Self(Arc::new(Mutex::new(Lines { seed, weather, fates, cut, offers, places, overhears })))
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody hears what is said about tasks.
    pub(crate) fn overhear(&self, overhears: impl Fn(&Said) + Send + Sync + 'static) {
        self.lines().overhears = Some(Arc::new(overhears));
    }

    pub(crate) fn heard(&self, said: impl FnOnce() -> Said) {
        let overhears = self.lines().overhears.clone();
        if let Some(overhears) = overhears {
            overhears(&said());
        }
    }

    /// A node is found at this address from now on.
    pub(crate) fn place(&self, address: &str, node: NodeId) {
        self.lines().places.insert(address.to_string(), node);
    }

    /// The node takes requests.
    pub(crate) fn offer(&self, node: NodeId, offer: Offer) {
        self.lines().offers.insert(node, offer);
    }

    /// It does not any more.
    pub(crate) fn withdraw(&self, node: NodeId) -> Option<Offer> {
        self.lines().offers.remove(&node)
    }

    pub(crate) fn offer_of(&self, node: NodeId) -> Option<Offer> {
        self.lines().offers.get(&node).cloned()
    }

    /// Nothing goes from one to the other any more; or it does again.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId, is_cut: bool) {
        let mut lines = self.lines();
        match is_cut {
            true => lines.cut.insert((from, to)),
            false => lines.cut.remove(&(from, to)),
        };
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lines().weather = weather;
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lines().cut.contains(&(from, to))
    }

    fn fate(&self, from: NodeId, to: NodeId) -> Fate {
        let mut lines = self.lines();
        let Lines { seed, weather, fates, .. } = &mut *lines;
        let number = u64::from(from.0) << 32 | u64::from(to.0);
        let random = fates.entry((from, to)).or_insert_with(|| stream(*seed, Stream::Network, number));
        let (low, high) = weather.latency_us;
        // As many draws for each message, whatever the weather: another weather then changes no more than it must.
        let latency = u64::from(low) + below(random, u64::from(high.saturating_sub(low)) + 1);
        let spikes = below(random, 1000) < u64::from(weather.spikes);
        let spike = below(random, u64::from(weather.spike_ms) * 1000 + 1);
        let is_lost = below(random, 1000) < u64::from(weather.lost);
        let is_doubled = below(random, 1000) < u64::from(weather.doubled);
        let after = Duration::from_micros(latency + if spikes { spike } else { 0 });
        Fate { after, is_lost, is_doubled }
    }

    /// Waits for as long as a message is under way; for ever if it does not arrive.
    async fn travel(&self, from: NodeId, to: NodeId, bytes: &Bytes) -> bool {
        let fate = self.fate(from, to);
        SimRuntime::sleep(fate.after).await;
        if fate.is_lost {
            sometimes("a message is lost");
        }
        if fate.is_lost || self.is_cut(from, to) {
            pending::<()>().await;
        }
        mix(bytes);
        fate.is_doubled
    }

    /// Sends a request; what `serve` makes of it with what the node offers when it arrives is the answer.
    async fn exchange<F, A>(
        self,
        to: NodeId,
        request: Bytes,
        serve: impl Fn(Offer, Bytes) -> F + Send + Sync,
    ) -> Result<A, Lost>
    where
        F: Future<Output = (Bytes, A)> + Send + 'static,
        A: Send + 'static,
    {
        let from = here();
        let is_doubled = self.travel(from, to, &request).await;
        let offer = self.offer_of(to).ok_or(Lost::Nobody)?;
        // Nobody outside sends anything twice without knowing it.
        if is_doubled && from != OUTSIDE {
            sometimes("a message comes twice");
            // Whose answer comes back does not matter to who asks.
            drop(spawn_on(to, serve(offer.clone(), request.clone())));
        }
        let served = spawn_on(to, serve(offer, request)).await;
        let (bytes, answer) = served.map_err(|_| Lost::Unknown("the other node has ended"))?;
        self.travel(to, from, &bytes).await;
        Ok(answer)
    }

    fn node(&self, address: &str) -> Option<NodeId> {
        self.lines().places.get(address).copied()
    }

    /// Asks a member of the log something as another one does.
    async fn ask_member(&self, master: &MasterNode<World>, request: Bytes) -> Result<Bytes, net::Error> {
        let asked = promise::asked(&request);
        if let Some(asked) = asked {
            self.heard(|| Said::Asked(asked));
        }
        let answer = master.log().handle(request).await;
        if let (Some(asked), Ok(answer)) = (asked, &answer)
            && let Some(promised) = promise::promised(&asked, answer)
        {
            self.heard(|| Said::Promised(asked, promised));
        }
        answer
    }

    /// Asks a node something as a client does, which is outside of the cluster. `None`: nobody knows what came of it.
    pub(crate) async fn ask<F, A>(
        &self,
        to: NodeId,
        within: Duration,
        serve: impl Fn(MasterNode<World>) -> F + Send + Sync,
    ) -> Option<A>
    where
        F: Future<Output = A> + Send + 'static,
        A: Send + 'static,
    {
        let asked = self.clone().exchange(to, Bytes::new(), |offer, _| {
            let served = match offer {
                Offer::Master(master) => Some(serve(master)),
                Offer::Worker(_) => None,
            };
            async move {
                match served {
                    Some(served) => (Bytes::new(), Some(served.await)),
                    None => (Bytes::new(), None),
                }
            }
        });
        SimRuntime::timeout(within, asked).await.ok()?.ok()?
    }
}

/// The network as the masters' log sees it.
impl net::Net for Network {
    fn call(
        &self,
        to: &Peer,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, net::Error>> + Send + 'static + use<> {
        let (network, node, address) = (self.clone(), self.node(&to.address), to.address.clone());
        async move {
            let node = node.ok_or_else(|| net::Error::NotSent(format!("there is no {address}")))?;
            let hears = network.clone();
            let answer = network.exchange(node, request, |offer, request| {
                let hears = hears.clone();
                async move {
                    let answer = match offer {
                        Offer::Master(master) => hears.ask_member(&master, request).await,
                        Offer::Worker(_) => Err(net::Error::Refused("this is a worker".into())),
                    };
                    (answer.clone().unwrap_or_default(), answer)
                }
            });
            match SimRuntime::timeout(within, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(Lost::Nobody)) => Err(net::Error::NotSent(format!("nobody is at {address}"))),
                Ok(Err(Lost::Unknown(why))) => Err(net::Error::Unknown(why.into())),
                Err(_) => Err(net::Error::Unknown(format!("nothing within {within:?}"))),
            }
        }
    }

    fn stream(
        &self,
        to: &Peer,
        mut chunks: BoxStream<'static, Bytes>,
        stall: Duration,
    ) -> impl Future<Output = Result<Bytes, net::Error>> + Send + 'static + use<> {
        let (network, node, address) = (self.clone(), self.node(&to.address), to.address.clone());
        async move {
            let from = here();
            let to = node.ok_or_else(|| net::Error::NotSent(format!("there is no {address}")))?;
            let late = || net::Error::Unknown(format!("no chunk was taken within {stall:?}"));
            let begun = SimRuntime::timeout(stall, network.travel(from, to, &Bytes::new())).await;
            begun.map_err(|_| late())?;
            let Some(Offer::Master(master)) = network.offer_of(to) else {
                return Err(net::Error::NotSent(format!("nobody is at {address}")));
            };
            let (mut send, receive) = mpsc::channel(1);
            let answer = spawn_on(to, async move { master.log().receive(Box::pin(receive)).await });
            let mut is_first = true;
            while let Some(chunk) = chunks.next().await {
                if let Some(asked) = promise::asked_by_stream(&chunk).filter(|_| std::mem::take(&mut is_first)) {
                    network.heard(|| Said::Asked(asked));
                }
                let sent = async {
                    network.travel(from, to, &chunk).await;
                    send.send(chunk).await
                };
                match SimRuntime::timeout(stall, sent).await {
                    Ok(Ok(())) => {}
                    // It wants no more: its answer says why.
                    Ok(Err(_)) => break,
                    Err(_) => return Err(late()),
                }
            }
            drop(send);
            let answered = async {
                let answer = answer.await;
                if matches!(answer, Ok(Ok(_))) {
                    sometimes("a snapshot is sent");
                }
                network.travel(to, from, &Bytes::new()).await;
                answer
            };
            match SimRuntime::timeout(stall, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(net::Error::Unknown("the other node has ended".into())),
                Err(_) => Err(late()),
            }
        }
    }
}

/// What the node at the other end of a call does, as a server's glue would have it.
async fn serve(network: Network, offer: Offer, method: Method, request: Bytes) -> Result<Bytes, CallError> {
    let bad = |e: prost::DecodeError| CallError::Refused(e.to_string());
    let Offer::Master(master) = offer else { return Err(CallError::Refused("this is a worker".into())) };
    match method {
        Method::Register => {
            let answer = master.register(wire::Register::decode(request).map_err(bad)?).await?;
            Ok(answer.encode_to_vec().into())
        }
        Method::Poll => {
            let poll = wire::Poll::decode(request).map_err(bad)?;
            let incarnation = poll.incarnation;
            network.heard(|| Said::Poll(poll.clone()));
            let answer = master.poll(poll).await?;
            network.heard(|| Said::Answer(incarnation, answer.clone()));
            Ok(answer.encode_to_vec().into())
        }
        Method::Level => Ok(wire::LevelAnswer { level: LEVEL }.encode_to_vec().into()),
        Method::ReadIndex => {
            let index = master.read_index().await?;
            Ok(wire::ReadIndexAnswer { index }.encode_to_vec().into())
        }
        Method::Audit => {
            master.note_audit(wire::NoteAudit::decode(request).map_err(bad)?).await?;
            Ok(wire::AuditAnswer {}.encode_to_vec().into())
        }
        Method::Fetch => Err(CallError::Refused("this is a master".into())),
    }
}

/// The network as the shells of masters and workers see it.
impl rpc::Net for Network {
    fn call(
        &self,
        to: &str,
        method: Method,
        request: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static + use<> {
        let (network, node, address) = (self.clone(), self.node(to), to.to_string());
        async move {
            let node = node.ok_or_else(|| CallError::NotSent(format!("there is no {address}")))?;
            let serving = network.clone();
            let answer = network.exchange(node, request, move |offer, request| {
                let serving = serving.clone();
                async move {
                    let answer = serve(serving, offer, method, request).await;
                    (answer.clone().unwrap_or_default(), answer)
                }
            });
            match SimRuntime::timeout(within, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(Lost::Nobody)) => Err(CallError::NotSent(format!("nobody is at {address}"))),
                Ok(Err(Lost::Unknown(why))) => Err(CallError::Unknown(why.into())),
                Err(_) => Err(CallError::Unknown(format!("nothing within {within:?}"))),
            }
        }
    }

    fn fetch(
        &self,
        to: &str,
        _: Method,
        request: Bytes,
        stall: Duration,
    ) -> BoxStream<'static, Result<Bytes, CallError>> {
        let (network, node, address) = (self.clone(), self.node(to), to.to_string());
        let (send, receive) = mpsc::channel::<Result<Bytes, CallError>>(1);
        drop(SimRuntime::spawn(fetched(network, node, address, request, stall, send)));
        Box::pin(receive)
    }
}

/// Carries what a worker sends to who asked for it, until one of them has enough.
async fn fetched(
    network: Network,
    node: Option<NodeId>,
    address: String,
    request: Bytes,
    stall: Duration,
    mut out: mpsc::Sender<Result<Bytes, CallError>>,
) {
    let from = here();
    let late = || Err(CallError::Unknown(format!("nothing within {stall:?}")));
    let begin = async {
        let to = node?;
        network.travel(from, to, &request).await;
        match network.offer_of(to)? {
            Offer::Worker(worker) => Some((to, worker)),
            Offer::Master(_) => None,
        }
    };
    let (to, worker) = match SimRuntime::timeout(stall, begin).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let _ = out.send(Err(CallError::NotSent(format!("nobody is at {address}")))).await;
            return;
        }
        Err(_) => {
            let _ = out.send(late()).await;
            return;
        }
    };
    let (mut send, mut receive) = mpsc::channel(1);
    let (end, ended) = oneshot::channel::<()>();
    let sending = network.clone();
    drop(spawn_on(to, async move {
        let mut answers = worker.fetch(request);
        while let Some(answer) = answers.next().await {
            let bytes = answer.clone().unwrap_or_default();
            sending.travel(to, from, &bytes).await;
            if send.send(answer).await.is_err() {
                return;
            }
        }
        let _ = end.send(());
    }));
    loop {
        match SimRuntime::timeout(stall, receive.next()).await {
            Ok(Some(answer)) => {
                let over = answer.is_err();
                if out.send(answer).await.is_err() || over {
                    return;
                }
            }
            Ok(None) => {
                // The end of the stream, or of the node that sent it.
                if ended.await.is_err() {
                    let _ = out.send(Err(CallError::Unknown("the other node has ended".into()))).await;
                }
                return;
            }
            Err(_) => {
                let _ = out.send(late()).await;
                return;
            }
        }
    }
}
