//! The network against a service that does what a test wants, over real connections on loopback.

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gristmill_raft::net::{BoxStream, Error, MAX_MESSAGE_BYTES, Net as _, Peer, Service};
use gristmill_raft::runtime::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;
use tonic::service::Routes;

use super::channels::Channels;
use super::connector::Connector;
use super::listener::Listener;
use super::transport::Transport;
use super::wire::Wire;
use super::{admin, peers};

const SOON: Duration = Duration::from_secs(10);
const BRIEF: Duration = Duration::from_millis(300);

/// Answers a call with what it says: `echo…`, `refuse`, `never`. Takes a stream as slowly as its first chunk says, in
/// milliseconds a chunk, and answers with its length.
struct Puppet;

impl Service for Puppet {
    fn handle(&self, request: Bytes) -> BoxFuture<'static, Result<Bytes, Error>> {
        match &request[..] {
            b"refuse" => Box::pin(ready(Err(Error::Refused("I will not".to_string())))),
            b"unsure" => Box::pin(ready(Err(Error::Unknown("I do not know".to_string())))),
            b"never" => Box::pin(pending()),
            _ => Box::pin(ready(Ok(request))),
        }
    }

    fn receive(&self, mut chunks: BoxStream<'static, Bytes>) -> BoxFuture<'static, Result<Bytes, Error>> {
        Box::pin(async move {
            let first = chunks.next().await.unwrap_or_default();
            let pause = Duration::from_millis(String::from_utf8_lossy(&first).parse().unwrap());
            let mut bytes = 0;
            while let Some(chunk) = chunks.next().await {
                bytes += chunk.len();
                sleep(pause).await;
            }
            Ok(bytes.to_string().into())
        })
    }
}

async fn puppet() -> Peer {
    puppet_at("127.0.0.1:0").await
}

async fn puppet_at(address: &str) -> Peer {
    let listener = Listener::bind(address, Wire::LOOPBACK).await.unwrap();
    let address = listener.address();
    tokio::spawn(listener.serve(Routes::new(peers::service(Puppet)), pending()));
    peer(address)
}

fn peer(address: SocketAddr) -> Peer {
    Peer { id: 1, address: address.to_string() }
}

fn transport() -> Transport {
    Transport::new(Channels::new(Connector::new(Duration::from_millis(100))))
}

/// An address at which nobody listens.
async fn nobody() -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    peer(listener.local_addr().unwrap())
}

fn chunks(pause: u64, count: usize, bytes: usize) -> BoxStream<'static, Bytes> {
    let first = Bytes::from(pause.to_string());
    let rest = std::iter::repeat_n(Bytes::from(vec![7; bytes]), count);
    Box::pin(tokio_stream::iter(std::iter::once(first).chain(rest)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_is_answered_up_to_the_largest_message() {
    let (transport, to) = (transport(), puppet().await);
    for bytes in [0, 1, 100_000, MAX_MESSAGE_BYTES] {
        let message = Bytes::from(vec![7; bytes]);
        assert_eq!(transport.call(&to, message.clone(), SOON).await, Ok(message), "{bytes}");
    }
    let larger = transport.call(&to, Bytes::from(vec![7; MAX_MESSAGE_BYTES + 1]), SOON).await;
    assert!(matches!(larger, Err(Error::NotSent(_))), "{larger:?}");
    assert_eq!(transport.stream(&to, chunks(0, 30, 1 << 20), SOON).await, Ok("31457280".into()));
}

/// The most important thing that this module says: whether a request may have been carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_never_sent_is_said_not_to_be() {
    let transport = transport();
    for _ in 0..20 {
        let answer = transport.call(&nobody().await, "echo".into(), SOON).await;
        assert!(matches!(&answer, Err(Error::NotSent(why)) if why.contains("refused")), "{answer:?}");
        let answer = transport.stream(&nobody().await, chunks(0, 1, 1), SOON).await;
        assert!(matches!(&answer, Err(Error::NotSent(_))), "{answer:?}");
    }
    for address in ["10.0.0.1:7070", "nonsense"] {
        let far = Peer { id: 1, address: address.to_string() };
        assert!(matches!(transport.call(&far, "echo".into(), SOON).await, Err(Error::NotSent(_))));
    }
    let to = puppet().await;
    let answer = transport.call(&to, "refuse".into(), SOON).await;
    assert_eq!(answer, Err(Error::Refused("I will not".to_string())));
    let answer = transport.call(&to, "unsure".into(), SOON).await;
    assert!(matches!(&answer, Err(Error::Unknown(why)) if why.contains("I do not know")), "{answer:?}");
    let begun = Instant::now();
    let answer = transport.call(&to, "never".into(), BRIEF).await;
    assert!(matches!(&answer, Err(Error::Unknown(_))) && begun.elapsed() < SOON, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_under_a_request_leaves_its_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = peer(listener.local_addr().unwrap());
    // Reads whatever comes, answers nothing, and hangs up.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let _ = timeout(BRIEF, async { while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {} }).await;
            });
        }
    });
    let transport = transport();
    for _ in 0..5 {
        let answer = transport.call(&to, "echo".into(), SOON).await;
        assert!(matches!(&answer, Err(Error::Unknown(_))), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_found_again() {
    let transport = transport();
    let to = nobody().await;
    for _ in 0..10 {
        assert!(matches!(transport.call(&to, "echo".into(), SOON).await, Err(Error::NotSent(_))));
    }
    puppet_at(&to.address).await;
    let begun = Instant::now();
    while transport.call(&to, "echo".into(), SOON).await.is_err() {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_no_faster_than_it_is_taken_and_a_stalled_one_ends() {
    let (transport, to) = (transport(), puppet().await);
    // 60 chunks of 1 MiB at 10 ms each: slow, and never stalled.
    let begun = Instant::now();
    let answer = transport.stream(&to, chunks(10, 60, 1 << 20), Duration::from_secs(2)).await;
    assert_eq!(answer, Ok((60_u64 << 20).to_string().into()));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    // What is on its way is bounded, so that the sender notices.
    let begun = Instant::now();
    let answer = transport.stream(&to, chunks(1_000_000, 60, 1 << 20), BRIEF).await;
    assert!(matches!(&answer, Err(Error::Unknown(why)) if why.contains("taken")), "{answer:?}");
    assert!(begun.elapsed() < SOON);
}

/// Calls have a connection of their own: a snapshot that nobody takes does not hold them up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_beside_streams_that_are_stuck() {
    let (transport, to) = (transport(), puppet().await);
    let stuck = (0..8).map(|_| tokio::spawn(transport.stream(&to, chunks(1_000_000, 60, 1 << 20), SOON)));
    let stuck: Vec<_> = stuck.collect();
    sleep(BRIEF).await;
    for _ in 0..100 {
        let message = Bytes::from(vec![7; 100_000]);
        assert_eq!(transport.call(&to, message.clone(), SOON).await, Ok(message));
    }
    assert!(stuck.iter().all(|task| !task.is_finished()));
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_ends_although_somebody_still_waits() {
    let listener = Listener::bind("127.0.0.1:0", Wire::LOOPBACK).await.unwrap();
    let to = peer(listener.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let services = Routes::new(peers::service(Puppet));
    let served = tokio::spawn(listener.serve(services, async { drop(stopped.await) }));
    let transport = transport();
    let waiting = tokio::spawn(transport.call(&to, "never".into(), SOON));
    assert_eq!(transport.call(&to, "echo".into(), SOON).await, Ok("echo".into()));
    stop.send(()).unwrap();
    timeout(SOON, served).await.unwrap().unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Unknown(_))));
}

#[tokio::test]
async fn an_operator_hears_of_a_node_that_is_not_there() {
    let channels = Channels::new(Connector::new(Duration::from_millis(100)));
    let gone = nobody().await;
    let client = admin::Client::new(channels, &gone.address, BRIEF);
    let error = client.remove(1).await.unwrap_err();
    assert!(error.to_string().contains(&gone.address) && error.to_string().contains("not sent"), "{error}");
}
