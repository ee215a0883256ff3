//! `submit --then`: jobs one after the other. Each is written as a submission of its own, in the words of a shell.

use clap::Command;
use gristmill_engine::registry::Entry;
use gristmill_proto::v1 as api;

use super::super::failure::Failure;
use super::at::At;

/// The job after the one that is submitted, with those after it, in the order in which they were given.
pub(super) fn follow(program: &str, apps: &[Entry], then: &[String], at: &At) -> Result<Option<api::JobSpec>, Failure> {
    if then.is_empty() {
        return Ok(None);
    }
    let command = super::submit::command(program, apps)?;
    let specs: Vec<api::JobSpec> = then.iter().map(|text| job(&command, apps, text, at)).collect::<Result<_, _>>()?;
    let chained = |after: Option<api::JobSpec>, mut spec: api::JobSpec| {
        spec.then = after.map(Box::new);
        Some(spec)
    };
    Ok(specs.into_iter().rfold(None, chained))
}

fn job(command: &Command, apps: &[Entry], text: &str, at: &At) -> Result<api::JobSpec, Failure> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    let words =
        words.ok_or_else(|| Failure::Usage(format!("--then {text:?}: a quote is not closed, or no app is named")))?;
    let told = |e: clap::Error| {
        let text_of = e.render().to_string();
        let line = text_of.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
        Failure::Usage(format!("--then {text:?}: {line}"))
    };
    let of = command.clone().try_get_matches_from(std::iter::once("submit".to_string()).chain(words)).map_err(told)?;
    super::submit::follower(apps, &of, at)
}
