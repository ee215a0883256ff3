//! The feature level of the cluster: the leader raises it once every master understands a higher one, so that a rolling
//! upgrade stops nobody. A master that cannot be asked, or is of a release that cannot be, holds it where it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_proto::internal::v1 as wire;
use gristmill_raft::runtime::{AsyncRuntime as _, Select2};
use prost::Message as _;
use wire::command::Action;

use super::{Inner, MasterEnv};
use crate::control::rights::Principal;
use crate::node::rpc::{Method, Net as _};

/// Between two looks, while others have not come so far.
const LOOK: Duration = Duration::from_secs(5);
/// How long a master may take to say what it understands.
const WITHIN: Duration = Duration::from_secs(2);

impl<E: MasterEnv> Inner<E> {
    /// Looks again and again, until the node ends.
    pub(super) async fn keep_level(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        while self.log.ended().is_none() {
            if let Select2::First(()) = <E::Rt>::select2(stop.heard(), <E::Rt>::sleep(LOOK)).await {
                return;
            }
            let now = self.state().level();
            if self.leading().is_none() || now == 0 || now >= self.env.level() {
                continue;
            }
            if let Some(level) = self.common_level().await.filter(|level| *level > now) {
                // If it comes to nothing, the next look does it.
                let _ = self.propose(&Principal::system(), Action::RaiseLevel(wire::RaiseLevel { level })).await;
            }
        }
    }

    /// The highest level that all members understand; `None` if one of them does not say.
    async fn common_level(&self) -> Option<u32> {
        let metrics = self.log.metrics();
        let me = self.log.identity().node;
        let mut lowest = self.env.level();
        for peer in metrics.voters.iter().chain(&metrics.learners).filter(|peer| peer.id != me) {
            let asked = Bytes::from(wire::LevelRequest {}.encode_to_vec());
            let answer = self.env.net().call(&peer.address, Method::Level, asked, WITHIN).await.ok()?;
            lowest = lowest.min(wire::LevelAnswer::decode(answer).ok()?.level);
        }
        Some(lowest)
    }
}
