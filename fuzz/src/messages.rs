//! Messages of others: any bytes are a message or a clean error, and what is a message is the same after having been
//! written again. Commands on their way into the state are done or refused, the same on every node.
//!
//! Input: bytes for every message; the same bytes as commands, each behind its length in two bytes, little-endian.

use gristmill_engine::control::limits;
use gristmill_engine::control::state::State;
use gristmill_proto::prost::Message;
use gristmill_proto::{internal::v1 as internal, v1};

use crate::bytes::Bytes;

/// Decodes, and applies.
pub fn run(data: &[u8]) {
    for read in READS {
        read(data);
    }
    apply(Bytes(data));
}

/// Commands of a history from its beginning.
fn apply(mut data: Bytes<'_>) {
    let mut nodes = [State::understanding(limits::LEVEL), State::understanding(limits::LEVEL)];
    let mut index = 0;
    while !data.is_empty() {
        let n = data.number();
        let command = data.take(n);
        index += 1;
        let [one, other] = nodes.each_mut().map(|node| node.apply(index, command).map_err(|halt| halt.to_string()));
        match (one, other) {
            (Ok(one), Ok(other)) => assert_eq!(one.reply, other.reply, "replies differ"),
            // It must not be used any more.
            (Err(one), Err(other)) => return assert_eq!(one, other),
            (one, other) => panic!("one node stops, the other does not: {one:?}, {other:?}"),
        }
        let [one, other] = nodes.each_ref().map(State::digest);
        assert_eq!(one, other, "states differ");
    }
}

fn read<M: Message + Default + PartialEq>(data: &[u8]) {
    let Ok(message) = M::decode(data) else { return };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == message), "a message changes as it is written");
}

/// What is asked of a node, what workers and masters answer each other, and what lies in logs and snapshots.
const READS: &[fn(&[u8])] = &[
    read::<v1::SubmitRequest>,
    read::<v1::GetJobRequest>,
    read::<v1::ListJobsRequest>,
    read::<v1::WatchJobRequest>,
    read::<v1::CancelJobRequest>,
    read::<v1::RetryJobRequest>,
    read::<v1::ResultRequest>,
    read::<v1::LogsRequest>,
    read::<v1::HistoryRequest>,
    read::<v1::StatusRequest>,
    read::<v1::WorkersRequest>,
    read::<v1::DrainRequest>,
    read::<v1::AppsRequest>,
    read::<v1::ListDataRequest>,
    read::<v1::PutRequest>,
    read::<v1::GetDataRequest>,
    read::<v1::RemoveDataRequest>,
    read::<v1::MissingFilesRequest>,
    read::<v1::GetFileRequest>,
    read::<v1::PushAppRequest>,
    read::<v1::ListAppsRequest>,
    read::<v1::RemoveAppRequest>,
    read::<internal::StatusRequest>,
    read::<internal::AddRequest>,
    read::<internal::RemoveRequest>,
    read::<internal::TransferRequest>,
    read::<internal::Register>,
    read::<internal::Registered>,
    read::<internal::Poll>,
    read::<internal::PollAnswer>,
    read::<internal::FetchRequest>,
    read::<internal::SegmentPiece>,
    read::<internal::LevelRequest>,
    read::<internal::LevelAnswer>,
    read::<internal::Frame>,
    read::<internal::Command>,
    read::<internal::Reply>,
    read::<internal::Record>,
];
