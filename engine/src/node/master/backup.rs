//! `Cluster.Backup` and `Cluster.Backups`: the leader puts its state into the store. What such an object is, `node/backup` says.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gristmill_proto::v1 as api;
use sha2::{Digest as _, Sha256};

use super::api::refused;
use super::{ApiError, Code, Inner, MasterEnv, MasterNode};
use crate::control::rights::Principal;
use crate::control::state::State;
use crate::node::backup::{self, LATEST, SCRATCH};
use crate::node::env::Note;
use crate::node::objects::patiently;
use crate::node::spool;
use crate::scratch::{self, Mapping};
use crate::store::{self, Kind, Name, Store as _};

/// Most bytes of a name that is given.
const NAME_BYTES: usize = 64;
/// Bytes of the digest at the end.
const DIGEST: u64 = 32;

/// The time as names of backups have it, in UTC: `20260213T101500.123Z`. Names sort as times do.
fn stamp(ms: u64) -> String {
    let (days, within) = (ms / 86_400_000, ms % 86_400_000);
    // Of years that begin in March, 400 of which have 146,097 days; 1970 begins 719,468 days after such a year 0.
    let days = days + 719_468;
    let (period, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (400 * period + year + u64::from(month >= 10), (month + 2) % 12 + 1);
    let (h, m, s) = (within / 3_600_000, within / 60_000 % 60, within / 1_000 % 60);
    format!("{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}.{:03}Z", ms % 1_000)
}

/// Whether a backup was named by itself: by its time and what is in it.
fn is_timed(name: &str) -> bool {
    let shape = |(at, c): (usize, char)| match at {
        8 => c == 'T',
        15 => c == '.',
        19 => c == 'Z',
        _ => c.is_ascii_digit(),
    };
    let parts = name.split_once('-').filter(|(time, _)| time.len() == 20 && time.chars().enumerate().all(shape));
    parts.is_some_and(|(_, applied)| !applied.is_empty() && applied.chars().all(|c| c.is_ascii_digit()))
}

/// The name that is given, if one is.
fn given(name: &str) -> Result<Option<&str>, ApiError> {
    if name.is_empty() {
        return Ok(None);
    }
    let taken = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.len() > NAME_BYTES || name.starts_with('.') || !name.chars().all(taken) {
        let message =
            format!("a backup's name has 1 to {NAME_BYTES} of letters, digits, '.', '-' and '_', the first no '.'");
        return Err(refused(Code::Invalid, message, "it lies beside the cluster's others"));
    }
    match name == LATEST || is_timed(name) {
        true => Err(refused(Code::Invalid, format!("{name} could be taken for another backup"), "name it otherwise")),
        false => Ok(Some(name)),
    }
}

fn unavailable(e: &dyn std::fmt::Display) -> ApiError {
    refused(Code::Unavailable, format!("the backup was not taken: {e}"), "try again")
}

/// Writes all of a state to a file of scratch, a chunk at a time.
fn write(
    scratch: &dyn scratch::Scratch,
    file: &str,
    info: &api::BackupInfo,
    state: &State,
) -> Result<Arc<dyn Mapping>, scratch::Error> {
    let mut writer = scratch.create(file)?;
    let (mut digest, mut length) = (Sha256::new(), 0_u64);
    let mut add = |bytes: &[u8], digest: &mut Sha256| {
        digest.update(bytes);
        writer.write_all(bytes).map_err(scratch::Error::at("write", scratch.place(file)))
    };
    add(&backup::head(info), &mut digest)?;
    for chunk in state.snapshot() {
        length += chunk.len() as u64;
        add(&chunk, &mut digest)?;
    }
    add(&length.to_be_bytes(), &mut digest)?;
    let end = digest.finalize();
    writer.write_all(&end).and_then(|()| writer.flush()).map_err(scratch::Error::at("write", scratch.place(file)))?;
    drop(writer);
    scratch.map(file)
}

impl<E: MasterEnv> MasterNode<E> {
    /// `Cluster.Backup`: all that was acknowledged before this was called is in it.
    ///
    /// # Errors
    /// That the name is none or is taken, that one is being taken already, that the store or the disk fails, or that this master
    /// does not lead.
    pub fn backup<'s>(
        &'s self,
        who: &'s Principal,
        request: api::BackupRequest,
    ) -> BoxFuture<'s, Result<api::BackupInfo, ApiError>> {
        // Boxed, because the compiler does not see through the types otherwise.
        self.take_backup(who, request).boxed()
    }

    async fn take_backup(&self, who: &Principal, request: api::BackupRequest) -> Result<api::BackupInfo, ApiError> {
        let name = given(&request.name)?;
        self.confirm().await?;
        let inner = &self.inner;
        let Some(turn) = inner.backups.take().await else {
            return Err(refused(Code::Unavailable, "a backup is being taken already", "wait for that one"));
        };
        let (state, time_ms) = (inner.state(), inner.env.wall_ms());
        if state.cluster() == 0 {
            return Err(refused(Code::Unavailable, "the cluster is being made", "try again"));
        }
        let (cluster, applied) = (state.cluster(), state.applied());
        let mut info = api::BackupInfo {
            cluster: format!("{cluster:016x}"),
            applied,
            time_ms,
            version: env!("CARGO_PKG_VERSION").into(),
            feature_level: state.level(),
            ..Default::default()
        };
        let name = name.map_or_else(|| format!("{}-{applied}", stamp(time_ms)), String::from);
        let name = Name::new(format!("{}{name}", backup::folder(cluster))).map_err(|e| unavailable(&e))?;
        inner.is_free(&name).await?;
        // What an earlier one left that was given up.
        spool::remove(&inner.env, SCRATCH.into()).await.map_err(|e| unavailable(&e))?;
        let (scratch, told) = (inner.env.scratch().clone(), info.clone());
        // Whoever gives up does not end the writing: the turn is the next one's when that has ended.
        let write = move || (write(&*scratch, &format!("{SCRATCH}taken"), &told, &state), turn);
        let written = inner.env.blocking(write).boxed().await;
        let (file, _turn) = written.ok_or_else(|| unavailable(&"writing it panicked"))?;
        let file = file.map_err(|e| unavailable(&e))?;
        (info.name, info.bytes) = (name.to_string(), file.bytes().len() as u64);
        let put = inner.put_backup(&name, file).await;
        if let Err(e) = spool::remove(&inner.env, SCRATCH.into()).await {
            inner.env.note(Note::Trouble { what: format!("a backup stays on this master's disk: {e}") });
        }
        put?;
        self.done(who, "Cluster/Backup", name.as_str());
        if request.keep > 0
            && let Err(e) = inner.remove_older(cluster, &name, request.keep).await
        {
            inner.env.note(Note::Trouble { what: format!("older backups are not removed: {e}") });
        }
        Ok(info)
    }

    /// `Cluster.Backups`.
    ///
    /// # Errors
    /// That they cannot be listed now, or that this master does not lead.
    pub async fn backups(&self) -> Result<api::BackupsResponse, ApiError> {
        self.confirm().await?;
        let found = backup::list(&self.inner.env, self.inner.state().cluster()).await;
        let unreadable =
            |e: store::Error| refused(Code::Unavailable, format!("backups cannot be listed: {e}"), "try again");
        Ok(api::BackupsResponse { backups: found.map_err(unreadable)? })
    }
}

fn is_taken(name: &Name) -> ApiError {
    refused(Code::Conflict, format!("there is a backup {name} already"), "name it otherwise")
}

impl<E: MasterEnv> Inner<E> {
    /// Refuses a name that is in use, before all is written for nothing.
    async fn is_free(&self, name: &Name) -> Result<(), ApiError> {
        match patiently::<E::Rt, _, _>(|| self.env.store().head(name)).await {
            Ok(_) => Err(is_taken(name)),
            Err(e) if e.kind == Kind::NotFound => Ok(()),
            Err(e) => Err(unavailable(&e)),
        }
    }

    async fn put_backup(&self, name: &Name, file: Arc<dyn Mapping>) -> Result<(), ApiError> {
        match patiently::<E::Rt, _, _>(|| self.env.store().put(name, file.clone())).await {
            Ok(()) => Ok(()),
            // An earlier try may have gone well although nobody heard of it.
            Err(e) if e.kind == Kind::AlreadyExists => match self.is_this(name, file.bytes()).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(is_taken(name)),
                Err(e) => Err(unavailable(&e)),
            },
            Err(e) => Err(unavailable(&e)),
        }
    }

    /// Whether an object ends in the digest that these bytes end in.
    async fn is_this(&self, name: &Name, bytes: &[u8]) -> Result<bool, store::Error> {
        let len = bytes.len() as u64;
        let end = patiently::<E::Rt, _, _>(|| self.env.store().get(name, len.saturating_sub(DIGEST)..len)).await?;
        let meta = patiently::<E::Rt, _, _>(|| self.env.store().head(name)).await?;
        Ok(meta.len == len && bytes.ends_with(&end))
    }

    /// Of the backups that were named by themselves, removes all but `taken` and the newest others, `keep` together.
    async fn remove_older(&self, cluster: u64, taken: &Name, keep: u32) -> Result<(), store::Error> {
        let folder = backup::folder(cluster);
        let mut found = patiently::<E::Rt, _, _>(|| store::list_all(self.env.store(), &folder)).await?;
        found.retain(|(name, _)| name != taken && name.as_str().strip_prefix(&folder).is_some_and(is_timed));
        // In the order of names, which is that of times.
        let others = usize::try_from(keep - 1).unwrap_or(usize::MAX);
        found.truncate(found.len().saturating_sub(others));
        for (name, _) in &found {
            patiently::<E::Rt, _, _>(|| self.env.store().delete(name, None)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_so_that_they_sort() {
        for (ms, want) in [
            (0, "19700101T000000.000Z"),
            (951_827_696_007, "20000229T123456.007Z"),
            (1_795_651_199_999, "20261125T235959.999Z"),
            (1_798_761_600_000, "20270101T000000.000Z"),
            (4_107_542_400_000, "21000301T000000.000Z"),
        ] {
            assert_eq!(stamp(ms), want);
            assert!(is_timed(&format!("{want}-7")));
        }
        for not in ["", "20270101T000000.000Z", "20270101T000000.000Z-", "20270101T000000.000Z-x", "20270101T000000Z-7"]
        {
            assert!(!is_timed(not), "{not}");
        }
    }

    #[test]
    fn names_that_are_given_lead_nowhere_and_are_none_of_another() {
        assert_eq!(given("").unwrap(), None);
        assert_eq!(given("before-2.0_x").unwrap(), Some("before-2.0_x"));
        for not in [".x", "a/b", "a b", "é", "latest", "20270101T000000.000Z-7", &"x".repeat(65)] {
            assert!(given(not).is_err(), "{not}");
        }
    }
}
