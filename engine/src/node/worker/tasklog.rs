//! What an attempt says: notes of the engine, troubles on the way, and why it failed, a line each. Kept in the store in
//! pieces, below the job and the attempt, so that it can be read while the attempt runs and after its worker is gone. An
//! attempt that says nothing leaves nothing.
//!
//! Bounded: lines of at most 16 KiB, and 256 KiB an attempt; what comes then is counted, and its last words are kept always.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::LogLine;
use gristmill_raft::runtime::AsyncRuntime;
use prost::Message as _;

use crate::control::{commit, history};
use crate::node::env::{Env, Note};
use crate::node::objects;

/// Bytes of a line. What is longer is cut.
const LINE_BYTES: usize = 16 << 10;
/// Bytes of all lines of an attempt, its last words apart.
const LOG_BYTES: usize = 256 << 10;
/// How long lines wait before they are put into the store.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of one attempt. Clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskLog(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// What is not in the store yet: times and lines.
    lines: Vec<(u64, String)>,
    bytes: usize,
    left_out: u64,
    pieces: u32,
    ended: bool,
}

impl TaskLog {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something, each line of it by itself.
    pub(crate) fn say(&self, time_ms: u64, text: &str) {
        let mut said = self.said();
        for line in text.lines() {
            let line = &line[..line.floor_char_boundary(LINE_BYTES)];
            if said.bytes + line.len() > LOG_BYTES {
                said.left_out += 1;
                continue;
            }
            said.bytes += line.len();
            said.lines.push((time_ms, line.into()));
        }
    }

    /// Says the last thing of all, whatever was said before.
    pub(crate) fn end(&self, time_ms: u64, words: Option<&str>) {
        let mut said = self.said();
        if said.left_out > 0 {
            let left_out = format!("{} more lines were said and are not kept", said.left_out);
            said.lines.push((time_ms, left_out));
        }
        let words =
            words.and_then(|words| words.lines().next()).map(|line| &line[..line.floor_char_boundary(LINE_BYTES)]);
        said.lines.extend(words.map(|line| (time_ms, line.to_string())));
        said.ended = true;
    }

    /// What is new, with the number of its piece.
    fn take(&self) -> Option<(u32, Vec<(u64, String)>)> {
        let mut said = self.said();
        if said.lines.is_empty() {
            return None;
        }
        said.pieces += 1;
        Some((said.pieces, std::mem::take(&mut said.lines)))
    }

    /// Puts what is new into the store. What cannot be put is lost, which is noted.
    pub(crate) async fn store<E: Env>(&self, env: &E, cluster: u64, task: &wire::Task, worker: &str) {
        let Some((piece, lines)) = self.take() else { return };
        let attempt = task.attempt.unwrap_or_default().into();
        let (name, attempt_name) = (history::task_name(task.stage(), task.partition), history::attempt_name(attempt));
        let line = |(time_ms, line): (u64, String)| {
            let (task, attempt, worker) = (name.clone(), attempt_name.clone(), worker.to_string());
            LogLine { time_ms, task, attempt, worker, line }
        };
        let file = wire::LogFile { lines: lines.into_iter().map(line).collect() };
        let object = commit::log(cluster, task.job, &name, attempt, piece);
        if let Err(e) = objects::put(env, &object, Arc::new(file.encode_to_vec())).await {
            env.note(Note::Trouble { what: format!("the log of {name} cannot be kept: {e}") });
        }
    }

    /// Keeps the store up to date until the attempt has ended; whoever ends it stores the rest.
    pub(crate) async fn follow<E: Env>(self, env: E, cluster: u64, task: wire::Task, worker: String) {
        loop {
            E::Rt::sleep(FLUSH).await;
            if self.said().ended {
                return;
            }
            self.store(&env, cluster, &task, &worker).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &TaskLog) -> Vec<String> {
        log.take().into_iter().flat_map(|(_, lines)| lines).map(|(_, line)| line).collect()
    }

    #[test]
    fn what_is_said_is_taken_once_and_in_order() {
        let log = TaskLog::default();
        assert!(log.take().is_none(), "nothing was said");
        log.say(1, "one\ntwo");
        assert_eq!(log.take(), Some((1, vec![(1, "one".into()), (1, "two".into())])));
        log.say(2, "three");
        log.end(3, Some("last\nof two lines"));
        assert_eq!(log.take(), Some((2, vec![(2, "three".into()), (3, "last".into())])));
        assert!(log.take().is_none());
    }

    #[test]
    fn lines_and_logs_are_bounded_but_for_the_last_words() {
        let log = TaskLog::default();
        log.say(1, &"é".repeat(LINE_BYTES));
        assert_eq!(lines(&log)[0].len(), LINE_BYTES);
        (0..1_000).for_each(|n| log.say(2, &format!("{n:0>1024}")));
        log.end(3, Some("why it failed"));
        let kept = lines(&log);
        let (last, before) = kept.split_last().unwrap();
        assert_eq!(last, "why it failed");
        assert_eq!(before.last().unwrap(), &format!("{} more lines were said and are not kept", 1_001 - before.len()));
        assert!(kept.iter().map(String::len).sum::<usize>() <= LOG_BYTES + 2 * LINE_BYTES);
    }
}
