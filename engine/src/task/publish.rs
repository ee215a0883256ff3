//! Publishing a job's output once it has been decided, and clearing up after the job.
//!
//! Reduce attempts put immutable objects under names of their own ([`attempt_key`]). When the job's commit is decided, the
//! decision says which of them are its parts. From then on anyone may [`publish`], any number of times, at the same time
//! too, and stop anywhere: readers see the whole output or none of it, and whoever comes next goes on.
//!
//! - Where folders can be renamed, the output is put together in a folder of this call's own, by links, and renamed into
//!   place. An output to be replaced is exchanged for it in that step.
//! - Elsewhere parts are copied into place in create-only mode, `_SUCCESS` last; readers must ask for it and go by what it
//!   lists. An output to be replaced stays whole until then: parts take names that it does not have, `_SUCCESS` is put in
//!   the place of that one version, and then the old parts are deleted, by version.
//!
//! After the job's end [`clear`] takes away all sources. A publisher that wakes up later finds nothing to copy or rename,
//! so that nothing it does shows: every step that makes an output visible takes its bytes from the job's own folder.
//! Only when `clear` has returned may another job have the output's name.

use std::sync::Arc;

use gristmill_raft::planted::{Bug, planted};

use crate::data::commit::{Manifest, SUCCESS};
use crate::data::digest::{Digest, Digester};
use crate::store::{self, Error, Kind, Meta, Name, Publish, Store, Version, list_all};

/// Where clusters keep what is theirs in a store.
const HOME: &str = ".gristmill";
/// Below the cluster's folder: where what a job left is put before it is deleted, on stores that rename.
pub(crate) const ENDED: &str = ".ended";

/// What a job's commit decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The cluster's id.
    pub cluster: String,
    /// The job's id, unique in the cluster for ever.
    pub job: String,
    /// The output.
    pub output: Name,
    /// Whether an output of that name is replaced.
    pub overwrite: bool,
    /// Where the parts that were decided on are, in the order of the manifest's.
    pub parts: Vec<Source>,
    /// What the output has besides: the app's files and bad records.
    pub files: Vec<(String, Vec<u8>)>,
    /// What `_SUCCESS` says. Its job is this one.
    pub manifest: Manifest,
}

/// An object that a reduce attempt put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub key: Name,
    /// Bytes.
    pub len: u64,
    /// Digest of those.
    pub digest: Digest,
}

/// The folder of a job: all that it leaves in the store but its output.
///
/// # Errors
/// When cluster or job are no names.
pub fn home(cluster: &str, job: &str) -> Result<Name, Error> {
    Name::new(format!("{HOME}/{cluster}/{job}"))
}

/// The name under which a reduce attempt puts its part. No other attempt ever has it.
///
/// # Errors
/// When cluster, job or attempt are no names.
pub fn attempt_key(cluster: &str, job: &str, part: u32, attempt: &str) -> Result<Name, Error> {
    home(cluster, job)?.join(&format!("parts/{part:05}-{attempt}"))
}

/// What there was at the output's place when its replacement began.
type Replaced = Vec<(Name, Meta)>;

/// A step towards an output. Each may be done again at any later time by anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put these bytes where there is nothing; else what is there must be the same.
    Put(Name, Vec<u8>),
    /// Copy an object to where there is nothing; else what is there must be the same.
    Copy(Source, Name),
    /// Put these bytes in the place of this version; else what is there must be the same.
    Replace(Name, Version, Vec<u8>),
    /// Rename a folder, and exchange it for what is there if that is set.
    Rename(Name, Name, bool),
    /// Delete this version.
    Delete(Name, Version),
}

/// The steps of a decision. `call` names the folder of a call that publishes by renaming: no two calls may share one.
///
/// # Errors
/// When a name cannot be made.
pub fn steps(decision: &Decision, way: Publish, call: &str, replaced: &Replaced) -> Result<Vec<Step>, Error> {
    match way {
        Publish::Rename => rename_steps(decision, call),
        Publish::Copy => copy_steps(decision, replaced),
    }
}

fn rename_steps(decision: &Decision, call: &str) -> Result<Vec<Step>, Error> {
    let folder = home(&decision.cluster, &decision.job)?.join(&format!("publish/{call}"))?;
    let mut steps = Vec::new();
    for (name, bytes) in &decision.files {
        steps.push(Step::Put(folder.join(name)?, bytes.clone()));
    }
    steps.push(Step::Put(folder.join(SUCCESS)?, encoded(&decision.manifest)?));
    // Copies come last: where the sources are gone, what was put never becomes an output.
    for (source, part) in decision.parts.iter().zip(&decision.manifest.parts) {
        steps.push(Step::Copy(source.clone(), folder.join(&part.name)?));
    }
    steps.push(Step::Rename(folder, decision.output.clone(), decision.overwrite));
    Ok(steps)
}

fn copy_steps(decision: &Decision, replaced: &Replaced) -> Result<Vec<Step>, Error> {
    let ready = home(&decision.cluster, &decision.job)?.join("ready")?;
    let output = &decision.output;
    let old = |name: &Name| replaced.iter().find(|(old, _)| old == name).map(|(_, meta)| meta.version.clone());
    let mut manifest = decision.manifest.clone();
    if !replaced.is_empty() {
        manifest.parts.iter_mut().for_each(|part| part.name = renamed(&part.name, &decision.job));
    }
    let success = (SUCCESS.to_string(), encoded(&manifest)?);
    let files: Vec<&(String, Vec<u8>)> = decision.files.iter().chain([&success]).collect();
    let mut steps = Vec::new();
    for (name, bytes) in &files {
        steps.push(Step::Put(ready.join(name)?, bytes.clone()));
    }
    for (source, part) in decision.parts.iter().zip(&manifest.parts) {
        steps.push(Step::Copy(source.clone(), output.join(&part.name)?));
    }
    let mut kept = Vec::new();
    for (name, bytes) in &files {
        let to = output.join(name)?;
        steps.push(match old(&to) {
            Some(version) => Step::Replace(to.clone(), version, bytes.clone()),
            None => {
                let source = Source { key: ready.join(name)?, len: bytes.len() as u64, digest: Digest::of(bytes) };
                Step::Copy(source, to.clone())
            }
        });
        kept.push(to);
    }
    let gone = replaced.iter().filter(|(name, _)| !kept.contains(name));
    steps.extend(gone.map(|(name, meta)| Step::Delete(name.clone(), meta.version.clone())));
    Ok(steps)
}

/// The name of a part beside one that it replaces: the job's id before the extension, which tells the codec.
fn renamed(part: &str, job: &str) -> String {
    match part.split_once('.') {
        Some((stem, extension)) => format!("{stem}-{job}.{extension}"),
        None => format!("{part}-{job}"),
    }
}

fn encoded(manifest: &Manifest) -> Result<Vec<u8>, Error> {
    manifest.to_bytes().map_err(|e| Error::new(Kind::Corrupt, format!("cannot encode {SUCCESS}: {e}")))
}

/// Publishes an output that was decided on. `call` is a name that no other call of this job has or will have.
///
/// # Errors
/// [`Kind::Retryable`]: call again, with another `call`. [`Kind::AlreadyExists`] and [`Kind::Denied`]: something else is at
/// the output's place. [`Kind::NotFound`]: the job has ended.
pub async fn publish<S: Store>(store: &S, decision: &Decision, call: &str) -> Result<(), Error> {
    publish_stepwise(store, decision, call, |_| {}).await
}

/// As [`publish`], and says each step before it is taken.
///
/// # Errors
/// As [`publish`].
pub async fn publish_stepwise<S: Store>(
    store: &S,
    decision: &Decision,
    call: &str,
    before: impl Fn(&Step),
) -> Result<(), Error> {
    check(decision)?;
    if !planted(Bug::PublishReplaces) && is_published(store, decision).await? {
        return finish_replacing(store, decision).await;
    }
    let replaced = match decision.overwrite {
        true => replaced(store, decision).await?,
        false => Replaced::new(),
    };
    for step in steps(decision, store.publish(), call, &replaced)? {
        before(&step);
        if let Err(e) = run(store, &step).await {
            // Perhaps another has been quicker.
            let settled = matches!(e.kind, Kind::NotFound | Kind::AlreadyExists | Kind::Changed);
            if settled && is_published(store, decision).await? {
                return finish_replacing(store, decision).await;
            }
            return Err(e);
        }
    }
    Ok(())
}

fn check(decision: &Decision) -> Result<(), Error> {
    let Decision { manifest, parts, job, .. } = decision;
    let some = !parts.is_empty() || manifest.segments;
    if manifest.parts.len() == parts.len() && some && manifest.job.as_ref() == Some(job) {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("the decision on job {job} is not whole; report this as a bug")))
}

/// Whether the output is there and of this job.
async fn is_published<S: Store>(store: &S, decision: &Decision) -> Result<bool, Error> {
    let name = decision.output.join(SUCCESS)?;
    let bytes = match content(store, &name).await {
        Err(e) if e.kind == Kind::NotFound => return Ok(false),
        bytes => bytes?,
    };
    match Manifest::from_bytes(&bytes) {
        Ok(manifest) if manifest.job.as_ref() == Some(&decision.job) => Ok(true),
        _ if decision.overwrite => Ok(false),
        _ => Err(occupied(decision)),
    }
}

fn occupied(decision: &Decision) -> Error {
    let output = &decision.output;
    Error::new(Kind::AlreadyExists, format!("output {output} exists; choose another name or pass --overwrite"))
}

/// What is at the output's place, of stores that copy: noted once before anything is copied, so that nobody takes new parts
/// for old ones.
async fn replaced<S: Store>(store: &S, decision: &Decision) -> Result<Replaced, Error> {
    let note = home(&decision.cluster, &decision.job)?.join("replaced")?;
    if store.publish() == Publish::Copy
        && let Some(noted) = noted(store, &note).await?
    {
        return Ok(noted);
    }
    let there = list_all(store, &decision.output.below()).await?;
    let success = decision.output.join(SUCCESS)?;
    if !there.is_empty() && !there.iter().any(|(name, _)| *name == success) {
        let output = &decision.output;
        let text = format!(
            "{output} is not the output of a job (it has no {SUCCESS}), so --overwrite leaves it alone; remove it yourself"
        );
        return Err(Error::new(Kind::Denied, text));
    }
    if store.publish() == Publish::Rename {
        return Ok(there);
    }
    let json = serde_json::to_vec(&there).map_err(|e| Error::new(Kind::Corrupt, format!("{note}: {e}")))?;
    match store.put(&note, Arc::new(json)).await {
        Err(e) if e.kind == Kind::AlreadyExists => {}
        done => done?,
    }
    noted(store, &note).await?.ok_or_else(|| Error::new(Kind::NotFound, format!("{note}: the job has ended")))
}

async fn noted<S: Store>(store: &S, note: &Name) -> Result<Option<Replaced>, Error> {
    match content(store, note).await {
        Err(e) if e.kind == Kind::NotFound => Ok(None),
        bytes => {
            let noted = serde_json::from_slice(&bytes?);
            noted.map(Some).map_err(|e| Error::new(Kind::Corrupt, format!("{note} cannot be read: {e}")))
        }
    }
}

/// Deletes what an output replaced that is published already: whoever published it may have stopped before that.
async fn finish_replacing<S: Store>(store: &S, decision: &Decision) -> Result<(), Error> {
    if !decision.overwrite || store.publish() == Publish::Rename {
        return Ok(());
    }
    let note = home(&decision.cluster, &decision.job)?.join("replaced")?;
    let Some(replaced) = noted(store, &note).await? else { return Ok(()) };
    for step in copy_steps(decision, &replaced)? {
        if let Step::Delete(..) = step {
            run(store, &step).await?;
        }
    }
    Ok(())
}

async fn run<S: Store>(store: &S, step: &Step) -> Result<(), Error> {
    match step {
        Step::Put(to, bytes) => {
            let done = store.put(to, Arc::new(bytes.clone())).await;
            unless_same(store, done, to, (bytes.len() as u64, Digest::of(bytes))).await
        }
        Step::Copy(from, to) => {
            if planted(Bug::PublishReplaces) {
                store.delete(to, None).await?;
            }
            let done = store.copy(&from.key, to).await;
            unless_same(store, done, to, (from.len, from.digest)).await
        }
        Step::Replace(to, version, bytes) => {
            let done = store.replace(to, version, Arc::new(bytes.clone())).await;
            unless_same(store, done, to, (bytes.len() as u64, Digest::of(bytes))).await
        }
        Step::Rename(from, to, exchange) => store.rename(from, to, *exchange || planted(Bug::PublishReplaces)).await,
        Step::Delete(name, version) => store.delete(name, Some(version)).await,
    }
}

/// Lets it pass that something is there already if it is what was to be put.
async fn unless_same<S: Store>(
    store: &S,
    done: Result<(), Error>,
    name: &Name,
    want: (u64, Digest),
) -> Result<(), Error> {
    match done {
        Err(e) if matches!(e.kind, Kind::AlreadyExists | Kind::Changed) => {
            let mut digester = Digester::default();
            let len = store.head(name).await?.len;
            if len == want.0 {
                let each = |bytes: &[u8]| {
                    digester.update(bytes);
                    Ok(())
                };
                store::read(store, name, each).await?;
            }
            if (len, digester.finish()) == want { Ok(()) } else { Err(e) }
        }
        done => done,
    }
}

async fn content<S: Store>(store: &S, name: &Name) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let each = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        Ok(())
    };
    store::read(store, name, each).await?;
    Ok(all)
}

/// Takes away all that a job that has ended left in the store but its output. May be called any number of times: a
/// publisher that wakes up late can leave something that is no output.
///
/// # Errors
/// Those of the store; call again.
pub async fn clear<S: Store>(store: &S, cluster: &str, job: &str) -> Result<(), Error> {
    let home = home(cluster, job)?;
    match store.publish() {
        Publish::Rename => {
            // In one step, so that nobody renames a folder into place that is only half there.
            let ended = Name::new(format!("{HOME}/{cluster}/{ENDED}/{job}"))?;
            delete_below(store, &ended).await?;
            match store.rename(&home, &ended, false).await {
                Err(e) if e.kind == Kind::NotFound => Ok(()),
                done => {
                    done?;
                    delete_below(store, &ended).await
                }
            }
        }
        Publish::Copy => {
            // Before all others, so that nobody puts it beside parts that can no longer be copied.
            store.delete(&home.join("ready")?.join(SUCCESS)?, None).await?;
            delete_below(store, &home).await
        }
    }
}

async fn delete_below<S: Store>(store: &S, folder: &Name) -> Result<(), Error> {
    for (name, _) in list_all(store, &folder.below()).await? {
        store.delete(&name, None).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
