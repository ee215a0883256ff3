//! Bytes that are no messages, to every call of a node.

use std::time::Duration;

use bytes::Bytes;
use gristmill::cluster::proto::prost::Message;
use gristmill::cluster::proto::v1::put_request::Part;
use gristmill::cluster::proto::{internal::v1 as internal, v1};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Served;
use super::bodies::{call, channel};

/// Calls on their way at a time.
const AT_ONCE: usize = 32;
/// Calls of each kind.
const EACH: usize = 100;

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A message that was damaged a few times: bits, pieces that go or come twice, numbers that are as large as can be.
    fn damaged(&mut self, mut message: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(message.len() + 1);
            match self.below(6) {
                0 if at < message.len() => message[at] ^= 1 << self.below(8),
                1 => message.truncate(at),
                2 => message.splice(at..at, [0xff; 10].into_iter().take(1 + at % 10)).for_each(drop),
                3 => message.extend_from_within(..at),
                4 => message.insert(at, self.next() as u8),
                _ => message.extend((0..self.below(20)).map(|_| self.next() as u8)),
            }
        }
        message
    }
}

/// Every call with a request that makes sense, but would change nothing that others need.
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    let job = || "0123456789abcdef-7".to_string();
    let spec = v1::JobSpec {
        app: Some(v1::App { name: "wordcount".into(), ..Default::default() }),
        inputs: vec!["in/".into(), "x*".into()],
        output: "out/a".into(),
        ..Default::default()
    };
    let begin = Part::Begin(v1::PutBegin { name: "in/a".into(), overwrite: false });
    let app = v1::PushAppRequest { name: "x".into(), app: None };
    let get = v1::GetDataRequest { name: "in/a".into(), offset: 3, length: 5 };
    let name = || "x".to_string();
    let member = internal::Member { id: 5, address: "127.0.0.1:1".into() };
    vec![
        ("gristmill.v1.Jobs/Submit", v1::SubmitRequest { spec: Some(spec), key: "k".into() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Get", v1::GetJobRequest { job: job() }.encode_to_vec()),
        ("gristmill.v1.Jobs/List", v1::ListJobsRequest { page_size: 5, ..Default::default() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Watch", v1::WatchJobRequest { job: job() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Cancel", v1::CancelJobRequest { job: job(), ..Default::default() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Retry", v1::RetryJobRequest { job: job(), ..Default::default() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Result", v1::ResultRequest { job: job(), ..Default::default() }.encode_to_vec()),
        ("gristmill.v1.Jobs/Logs", v1::LogsRequest { job: job(), ..Default::default() }.encode_to_vec()),
        ("gristmill.v1.Jobs/History", v1::HistoryRequest { job: job() }.encode_to_vec()),
        ("gristmill.v1.Cluster/Status", Vec::new()),
        ("gristmill.v1.Cluster/Workers", Vec::new()),
        ("gristmill.v1.Cluster/Drain", v1::DrainRequest { worker: "nobody".into() }.encode_to_vec()),
        ("gristmill.v1.Cluster/Apps", Vec::new()),
        ("gristmill.v1.Cluster/Backup", v1::BackupRequest { name: "no/name".into(), keep: 1 }.encode_to_vec()),
        ("gristmill.v1.Cluster/Backups", Vec::new()),
        ("gristmill.v1.Pools/List", Vec::new()),
        (
            "gristmill.v1.Pools/Set",
            v1::SetPoolRequest { name: name(), min: Some(1), ..Default::default() }.encode_to_vec(),
        ),
        ("gristmill.v1.Pools/Add", v1::AddWorkersRequest { pool: name(), count: 3 }.encode_to_vec()),
        ("gristmill.v1.Pools/Remove", v1::RemoveWorkerRequest { worker: "nobody".into() }.encode_to_vec()),
        (
            "gristmill.v1.Apps/Missing",
            v1::MissingFilesRequest { digests: vec![Bytes::from_static(&[7; 32])] }.encode_to_vec(),
        ),
        ("gristmill.v1.Apps/PutFile", v1::PutRequest { part: Some(begin.clone()) }.encode_to_vec()),
        ("gristmill.v1.Apps/GetFile", v1::GetFileRequest { digest: Bytes::from_static(&[7; 32]) }.encode_to_vec()),
        ("gristmill.v1.Apps/Push", app.encode_to_vec()),
        ("gristmill.v1.Apps/List", Vec::new()),
        ("gristmill.v1.Apps/Remove", v1::RemoveAppRequest { name: name(), ..Default::default() }.encode_to_vec()),
        (
            "gristmill.v1.Data/List",
            v1::ListDataRequest { pattern: "in/*".into(), page_size: 9, page_token: "in/a".into() }.encode_to_vec(),
        ),
        ("gristmill.v1.Data/Put", v1::PutRequest { part: Some(begin) }.encode_to_vec()),
        ("gristmill.v1.Data/Get", get.encode_to_vec()),
        ("gristmill.v1.Data/Remove", v1::RemoveDataRequest { name: name(), recursive: true }.encode_to_vec()),
        ("gristmill.internal.v1.Admin/Status", Vec::new()),
        ("gristmill.internal.v1.Admin/Add", internal::AddRequest { cluster: 1, node: Some(member) }.encode_to_vec()),
        ("gristmill.internal.v1.Admin/Remove", internal::RemoveRequest { id: 1 << 40 }.encode_to_vec()),
        ("gristmill.internal.v1.Admin/Transfer", internal::TransferRequest { to: 1 << 40 }.encode_to_vec()),
        (
            "gristmill.internal.v1.Workers/Register",
            internal::Register { name: "w".into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "gristmill.internal.v1.Workers/Poll",
            internal::Poll { incarnation: 1 << 40, ..Default::default() }.encode_to_vec(),
        ),
        ("gristmill.internal.v1.Segments/Fetch", internal::FetchRequest::default().encode_to_vec()),
        ("gristmill.internal.v1.Masters/Level", Vec::new()),
        (
            "gristmill.internal.v1.Peer/Call",
            internal::Frame { content: Bytes::from_static(b"\x08\x01\x12\x02\x08\x01") }.encode_to_vec(),
        ),
        (
            "gristmill.internal.v1.Peer/Stream",
            internal::Frame { content: Bytes::from_static(b"\x08\x01") }.encode_to_vec(),
        ),
    ]
}

/// A message behind its prefix; of some the prefix is damaged as well.
fn framed(random: &mut Random, message: &[u8]) -> Bytes {
    let mut frame = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    if random.below(10) == 0 {
        let at = random.below(5);
        frame[at] ^= 1 << random.below(8);
    }
    if random.below(20) == 0 {
        frame.extend_from_within(..);
    }
    frame.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_are_answered_like_any_other() {
    let mut served = Served::new("");
    let (channel, mut random, mut open) = (channel(&served).await, Random(0x9e37_79b9_7f4a_7c15), JoinSet::new());
    let (mut answers, mut late) = ([0; 17], 0);
    let calls = calls();
    for round in 0..EACH {
        for (path, sound) in &calls {
            // The first one is sound: each of the calls is there.
            let message = if round == 0 { sound.clone() } else { random.damaged(sound.clone()) };
            let (channel, path, frame) = (channel.clone(), format!("/{path}"), framed(&mut random, &message));
            open.spawn(async move {
                // Those that watch something would go on.
                let headers = [("grpc-timeout", "3S")];
                (timeout(Duration::from_secs(4), call(channel, &path, &headers, frame)).await.ok(), path)
            });
            while open.len() >= AT_ONCE {
                let (answer, path) = open.join_next().await.unwrap().unwrap();
                count(answer, &path, &mut answers, &mut late);
            }
        }
    }
    while let Some(done) = open.join_next().await {
        let (answer, path) = done.unwrap();
        count(answer, &path, &mut answers, &mut late);
    }
    // Of several kinds, so that not all of them end at the first look.
    assert!(answers.iter().filter(|count| **count > 0).count() >= 5, "{answers:?}");
    assert!(late < calls.len() * EACH / 20, "{late} calls hang");
    served.is_well();
}

/// Of a call that is not over there is nothing; of one that has no status neither, which none may be.
fn count(answer: Option<Option<i32>>, path: &str, answers: &mut [usize; 17], late: &mut usize) {
    match answer {
        Some(Some(status)) => answers[status as usize] += 1,
        Some(None) => panic!("{path}: an answer without a status"),
        None => *late += 1,
    }
}
