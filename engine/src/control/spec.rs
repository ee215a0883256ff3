//! What a job's spec must satisfy before it is accepted, and the names that its outputs claim.

use std::collections::BTreeSet;

use gristmill_proto::internal::v1::refused::Code;
use gristmill_proto::v1::{AppFile, JobSpec, Phase};
use prost::Message as _;

use super::apply::{Decision, refused};
use super::limits;

/// The spec of a job and of those after it.
pub(super) fn chain(spec: &JobSpec) -> impl Iterator<Item = &JobSpec> {
    std::iter::successors(Some(spec), |spec| spec.then.as_deref())
}

/// Of a job and of those after it: that build which most workers offer when it is submitted.
pub(crate) fn forget_builds(spec: &mut JobSpec) {
    if let Some(app) = &mut spec.app {
        app.build.clear();
    }
    if let Some(then) = spec.then.as_deref_mut() {
        forget_builds(then);
    }
}

/// A job's output as it is claimed: without the '/' at its end.
pub(super) fn output(spec: &JobSpec) -> &str {
    spec.output.trim_end_matches('/')
}

/// Checks a spec and those after it.
pub(super) fn check(spec: &JobSpec) -> Decision<()> {
    if spec.encoded_len() > limits::SPEC_BYTES {
        return invalid(format!("the job's description has more than {} bytes", limits::SPEC_BYTES), "shorten it");
    }
    if chain(spec).nth(limits::CHAIN).is_some() {
        return invalid(format!("more than {} jobs one after the other", limits::CHAIN), "submit the others later");
    }
    let mut outputs: Vec<&str> = Vec::new();
    for (position, spec) in chain(spec).enumerate() {
        check_one(spec, position > 0)?;
        if let Some(taken) = outputs.iter().find(|taken| overlap(taken, output(spec))) {
            let message = format!("outputs {taken:?} and {:?} of the same submission overlap", output(spec));
            return invalid(message, "give each job a folder of its own");
        }
        outputs.push(output(spec));
    }
    Ok(())
}

fn check_one(spec: &JobSpec, follows: bool) -> Decision<()> {
    let app = spec.app.clone().unwrap_or_default();
    if app.name.is_empty() || app.name.len() > limits::SHORT_NAME_BYTES || app.build.len() > limits::SHORT_NAME_BYTES {
        return invalid(format!("the app's name and build have 1 to {} bytes", limits::SHORT_NAME_BYTES), "");
    }
    let paths: BTreeSet<&str> = app.files.iter().map(|file| file.path.as_str()).collect();
    let bounds = [
        (app.arguments.len() <= limits::ARGUMENTS, "too many flags for the app"),
        (app.files.len() <= limits::FILES, "too many files for the app: at most 512; pack them into one"),
        (app.files.iter().all(is_file), "a file of the app has a digest of 32 bytes, a name, and at most 256 MiB"),
        (paths.len() == app.files.len(), "two files of the app have one name"),
        (app.pushed.len() <= limits::PUSHED_BYTES, "the name under which the app was pushed is too long"),
        (follows || !spec.inputs.is_empty(), "no input is named"),
        (spec.inputs.len() <= limits::INPUTS, "too many inputs are named: use a glob, or a name that ends in '/'"),
        (
            spec.inputs.iter().all(|input| (1..=limits::NAME_BYTES).contains(&input.len())),
            "an input's name is too long",
        ),
        (spec.reducers <= limits::PARTS, "too many reducers: at most 10000"),
        (
            spec.map_task_bytes == 0 || limits::MAP_TASK_BYTES.contains(&spec.map_task_bytes),
            "a map task has 64 KiB to 16 GiB",
        ),
        ((-100..=100).contains(&spec.priority), "priorities are -100 to 100"),
        (spec.skip_bad_records <= limits::BAD_RECORDS, "at most 100000 bad records can be passed over"),
        (spec.max_attempts <= limits::MAX_ATTEMPTS, "at most 16 attempts"),
        (spec.format.len() <= limits::SHORT_NAME_BYTES, "no such format"),
        (limits::are_capabilities(&spec.requires), "a job requires at most 16 words, of 1 to 64 bytes"),
        (spec.labels.len() <= limits::LABELS, "too many labels"),
        (spec.labels.iter().all(|(k, v)| (1..=63).contains(&k.len()) && v.len() <= 255), "a label is too long"),
        (Phase::try_from(spec.phase).is_ok(), "no such phase"),
        (spec.phase() != Phase::Reduce || spec.inputs.len() + usize::from(follows) == 1, "phase reduce has one input"),
    ];
    if let Some((_, message)) = bounds.into_iter().find(|(holds, _)| !holds) {
        return invalid(message.into(), "correct the job's description");
    }
    check_output(output(spec))
}

fn is_file(file: &AppFile) -> bool {
    let named = (1..=limits::NAME_BYTES).contains(&file.path.len()) && !file.path.contains('\0');
    named && file.digest.len() == 32 && file.bytes <= limits::FILE_BYTES
}

fn check_output(name: &str) -> Decision<()> {
    let good = |component: &str| !component.is_empty() && component != "." && component != "..";
    if name.len() > limits::NAME_BYTES || !name.split('/').all(good) || name.contains('\0') {
        let message = format!("{:?} can not be the name of an output", super::task::cut(name.into(), 100));
        return invalid(message, "name a folder in the store, such as out/words");
    }
    Ok(())
}

/// Whether one of the two is the other or lies in it.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn invalid<T>(message: String, next_step: &str) -> Decision<T> {
    Err(refused(Code::Invalid, message, next_step))
}
