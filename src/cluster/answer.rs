//! Deadlines of calls, and what a failure says about whether the other side did what was asked.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use gristmill_proto::internal::v1::Leader;
use gristmill_proto::prost::Message as _;
use gristmill_raft::net::Error;
use tokio::time::timeout;
use tonic::{Code, ConnectError, Request, Response, Status};

/// A request with its deadline in its header, so that the other side gives up as well.
pub fn request<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    request
}

/// Waits for an answer, `within` at most: also for a connection, which the header's deadline does not count.
///
/// # Errors
///
/// As [`outcome`] says; [`Error::Unknown`] at the deadline.
pub async fn within<T>(within: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match timeout(within, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(|status| outcome(&status)),
        Err(_) => Err(Error::Unknown(format!("nothing within {within:?}"))),
    }
}

/// What a failed call means. Only where no connection could be opened, nothing was sent.
pub fn outcome(status: &Status) -> Error {
    let words = words(status);
    if never_connected(status) {
        return Error::NotSent(words);
    }
    // A status with a cause was made on this side of the connection, from an error of the network.
    match status.code() {
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
            if status.source().is_none() =>
        {
            Error::Refused(words)
        }
        _ => Error::Unknown(words),
    }
}

/// The other way: what the other side is told.
pub fn status(error: Error) -> Status {
    match error {
        Error::Refused(why) => Status::failed_precondition(why),
        // Whoever asked does not know more than we do, even if it was not sent from here.
        Error::NotSent(why) | Error::Unknown(why) => Status::unknown(why),
    }
}

/// That this node does not lead, and who does.
pub fn not_leader(leader: Option<&str>) -> Status {
    let text = match leader {
        Some(leader) => format!("this node is not the leader; the one at {leader} is"),
        None => "this node is not the leader and knows of none".to_string(),
    };
    let details = Leader { address: leader.unwrap_or_default().to_string() }.encode_to_vec();
    Status::with_details(Code::Aborted, text, details.into())
}

/// The other way: the leader's address if it is known, when a status says that the node does not lead.
pub fn elsewhere(status: &Status) -> Option<Option<String>> {
    let leader = || Leader::decode(status.details()).unwrap_or_default().address;
    (status.code() == Code::Aborted).then(|| Some(leader()).filter(|address| !address.is_empty()))
}

fn never_connected(status: &Status) -> bool {
    std::iter::successors(status.source(), |e| (*e).source()).any(|e| e.is::<ConnectError>())
}

/// The status' message, and of its causes what it does not tell itself.
fn words(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_string(),
        message => message.to_string(),
    };
    for cause in std::iter::successors(status.source(), |e| (*e).source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) && text.len() < 1000 {
            text = format!("{text}: {cause}");
        }
    }
    text
}
