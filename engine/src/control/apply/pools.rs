//! Pools of workers: what somebody set of one in place of its file, and what the leader has learned of it.

use std::sync::Arc;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::internal::v1::reply::Outcome;

use super::{ACCEPTED, ALREADY, Decision, Step, Touch, refused};
use crate::control::limits;
use crate::control::state::State;

impl State {
    /// What was learned of a pool. What was decided of it stays, whenever that was.
    pub(super) fn learn_pool(&mut self, step: &mut Step, learned: wire::PoolRecord) -> Decision<Outcome> {
        let known = self.pool(&learned.name).cloned().unwrap_or_default();
        self.put_pool(step, wire::PoolRecord { min: known.min, max: known.max, idle_ms: known.idle_ms, ..learned })
    }

    /// What was decided of a pool that is known.
    pub(super) fn set_pool(&mut self, step: &mut Step, set: &wire::SetPool) -> Decision<Outcome> {
        let known = self.pool(&set.name).cloned();
        let missing = || refused(Code::NotFound, format!("no pool is called {}", set.name), "");
        let known = known.ok_or_else(missing)?;
        self.put_pool(step, wire::PoolRecord { min: set.min, max: set.max, idle_ms: set.idle_ms, ..known })
    }

    fn put_pool(&mut self, step: &mut Step, pool: wire::PoolRecord) -> Decision<Outcome> {
        check(&pool)?;
        if self.pool(&pool.name) == Some(&pool) {
            return Ok(ALREADY);
        }
        if !self.pools.contains_key(pool.name.as_str()) && self.pools.len() >= limits::POOLS {
            return Err(refused(Code::Limit, format!("there are {} pools already", limits::POOLS), "remove some"));
        }
        self.pools.insert(pool.name.as_str().into(), Arc::new(pool));
        step.touched.push(Touch::Pools);
        Ok(ACCEPTED)
    }

    pub(super) fn remove_pool(&mut self, step: &mut Step, name: &str) -> Outcome {
        step.touched.push(Touch::Pools);
        if self.pools.remove(name).is_some() { ACCEPTED } else { ALREADY }
    }
}

fn check(pool: &wire::PoolRecord) -> Decision<()> {
    let name = &pool.name;
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let (min, max) = (pool.min.unwrap_or(0), pool.max.unwrap_or(limits::POOL_WORKERS));
    let app = |app: &wire::AppOffer| {
        (1..=limits::SHORT_NAME_BYTES).contains(&app.name.len()) && app.build.len() <= limits::SHORT_NAME_BYTES
    };
    let bounds = [
        ((1..=limits::POOL_NAME_BYTES).contains(&name.len()) && plain, "its name has 1 to 32 of a-z, 0-9 and '-'"),
        (max <= limits::POOL_WORKERS, "it has at most 10000 workers"),
        (min <= max, "the least number of workers is not above the most"),
        (pool.idle_ms.is_none_or(|idle| idle <= limits::POOL_IDLE_MS), "workers are idle for at most 30 days"),
        (pool.apps.len() <= limits::APPS && pool.apps.iter().all(app), "it offers at most 256 apps"),
        (limits::are_capabilities(&pool.capabilities), "it has at most 16 capabilities, of 1 to 64 bytes"),
    ];
    match bounds.into_iter().find(|(holds, _)| !holds) {
        Some((_, message)) => Err(refused(Code::Invalid, format!("the pool is not acceptable: {message}"), "")),
        None => Ok(()),
    }
}
