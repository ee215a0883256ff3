//! What is told of jobs afterwards, or while they run: their histories and the logs of their tasks.

use std::collections::{BTreeSet, VecDeque};

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1 as api;
use prost::Message as _;

use super::api::{no_job, refused};
use super::{ApiError, Code, MasterEnv, MasterNode};
use crate::control::rights::Principal;
use crate::control::{commit, history};
use crate::node::objects;
use crate::store::{self, Kind, Name};

/// Bytes of logs that are read, and sorted by time, at once.
const AT_ONCE: u64 = 64 << 20;

impl<E: MasterEnv> MasterNode<E> {
    /// What `Jobs.History` streams: all that happened to a job, oldest first.
    ///
    /// # Errors
    /// That there is no such job that may be seen, that its history cannot be read now, or that this master does not lead.
    pub async fn events(&self, who: &Principal, job: &str) -> Result<Vec<api::JobEvent>, ApiError> {
        self.job(who, job).await?;
        let number = self.number(job)?;
        if let Some(events) = self.inner.leading().as_ref().and_then(|leading| leading.master.events(number)) {
            return Ok(events);
        }
        let state = self.inner.state();
        if let Some(job) = state.job(number) {
            return Ok(history::events(state.cluster(), job));
        }
        Ok(self.kept(job, number).await?.events)
    }

    /// What the store keeps of a job that has been archived.
    pub(super) async fn kept(&self, job: &str, number: u64) -> Result<wire::HistoryFile, ApiError> {
        let unreadable = |e: &dyn std::fmt::Display| {
            refused(Code::Unavailable, format!("the history of job {job} cannot be read: {e}"), "try again")
        };
        let name = commit::history(self.inner.state().cluster(), number);
        let bytes = objects::whole(&self.inner.env, &name).await;
        let bytes = bytes.map_err(|e| if e.kind == Kind::NotFound { no_job(job) } else { unreadable(&e) })?;
        wire::HistoryFile::decode(&bytes[..]).map_err(|e| unreadable(&e))
    }

    /// A reader of the logs of a job's tasks, or of one task, as in "map 12", if one is named.
    ///
    /// # Errors
    /// That there can be no such task, or no such job here.
    pub fn logs(&self, job: &str, task: &str) -> Result<LogReader<E>, ApiError> {
        let number = self.number(job)?;
        let mut prefix = commit::logs(self.inner.state().cluster(), number);
        if !task.is_empty() {
            let numbered = task.strip_prefix("map ").or_else(|| task.strip_prefix("reduce "));
            if task != "survey" && numbered.is_none_or(|number| number.parse::<u32>().is_err()) {
                let message = format!("no task is called {task:?}");
                return Err(refused(Code::Invalid, message, "name it as in 'map 12', 'reduce 0' or 'survey'"));
            }
            prefix += &commit::log_of(task);
        }
        Ok(LogReader { node: self.clone(), prefix, read: BTreeSet::new(), waiting: VecDeque::new() })
    }
}

/// Reads the logs of tasks from the store, which any master can.
pub struct LogReader<E: MasterEnv> {
    node: MasterNode<E>,
    prefix: String,
    read: BTreeSet<Name>,
    waiting: VecDeque<(Name, u64)>,
}

impl<E: MasterEnv> LogReader<E> {
    /// Lines that were not there before, by time; nothing if there are none now. Of more than 64 MiB of logs, some at a
    /// time, in the order of the tasks.
    ///
    /// # Errors
    /// That they cannot be read now.
    pub async fn next(&mut self) -> Result<Vec<api::LogLine>, ApiError> {
        let unreadable =
            |e: store::Error| refused(Code::Unavailable, format!("the logs cannot be read: {e}"), "try again");
        let env = &self.node.inner.env;
        if self.waiting.is_empty() {
            let listed = objects::patiently::<E::Rt, _, _>(|| store::list_all(env.store(), &self.prefix)).await;
            let new = listed.map_err(unreadable)?.into_iter().filter(|(name, _)| !self.read.contains(name));
            self.waiting.extend(new.map(|(name, meta)| (name, meta.len)));
        }
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while let Some((name, len)) = self.waiting.pop_front_if(|(_, len)| bytes == 0 || bytes + *len <= AT_ONCE) {
            bytes += len;
            let file = objects::whole(env, name.as_str()).await.map_err(unreadable)?;
            let file = wire::LogFile::decode(&file[..]);
            lines.extend(file.map_err(|e| unreadable(store::Error::new(Kind::Corrupt, format!("{name}: {e}"))))?.lines);
            self.read.insert(name);
        }
        lines.sort_by_key(|line| line.time_ms);
        Ok(lines)
    }
}
