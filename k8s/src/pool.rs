//! Files of pools: a folder has one YAML file for each, POOL.yaml.
//!
//! ```yaml
//! min: 1              # workers that are always there
//! max: 10             # and the most
//! idle: 5m            # an idle one beyond the least is drained after this
//! pending: 10         # so many pods at most that have not begun to work
//! startWithin: 10m    # a pod that has not begun by then is deleted
//! capabilities: []    # what jobs may ask for
//! slots: 2            # tasks at a time; by default what --slots says in the container's arguments
//! template: {}        # a PodTemplateSpec with a container that is called "worker"
//! ```
//!
//! What a pod is made of ([`crate::pod`]) has a digest, the pool's generation: pods of another generation are replaced. The
//! bounds do not enter it. When to read again is `pods/folder.rs`'s to say.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use gristmill_engine::node::pods::Pool;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Deserialize;
use serde_json::Value;

use crate::client::line;
use crate::pod;
use crate::reason::cut;

/// Bytes of a file.
const FILE: usize = 1 << 20;
/// Files of a folder.
const FILES: usize = 64;
/// Workers of a pool, as the engine has it.
const WORKERS: u32 = 10_000;
/// Pods of a pool that have not begun to work.
const PENDING: u32 = 1_000;
/// Tasks of a worker at a time, as its flag `--slots` has it.
const SLOTS: u32 = 1_024;
/// Capabilities of a worker and bytes of each, as the engine has them.
const CAPABILITIES: usize = 16;
const CAPABILITY: usize = 64;
/// How long things may take: idling at least so that polls are not taken for it.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));
const START: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(24 * 3600));

/// A pool's file, looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// What the engine is to know.
    pub pool: Pool,
    /// What its pods are made of.
    pub template: PodTemplateSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    min: u32,
    max: u32,
    #[serde(default = "idle")]
    idle: String,
    #[serde(default = "pending")]
    pending: u32,
    #[serde(default = "start_within")]
    start_within: String,
    #[serde(default)]
    capabilities: Vec<String>,
    slots: Option<u32>,
    template: PodTemplateSpec,
}

fn idle() -> String {
    "5m".into()
}

fn pending() -> u32 {
    10
}

fn start_within() -> String {
    "10m".into()
}

/// Reads what a file says of the pool of this name.
///
/// # Errors
/// The field that is wrong, and how: one line, without the file's name.
pub fn parse(name: &str, text: &str) -> Result<File, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > pod::POOL || ends || !name.bytes().all(plain) {
        return Err(format!("a pool's name has 1 to {} of a-z, 0-9 and, within, -", pod::POOL));
    }
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    let whole: Value = serde_saphyr::from_str_with_options(text, options.clone()).map_err(|e| unreadable(text, &e))?;
    let written: Written = serde_saphyr::from_str_with_options(text, options).map_err(|e| unreadable(text, &e))?;
    let kept = serde_json::to_value(&written.template).map_err(|e| e.to_string())?;
    if let Some(path) = unknown(&whole["template"], &kept) {
        return Err(format!("template{path}: there is no such field in a PodTemplateSpec"));
    }
    pod::check(&written.template)?;
    let slots = slots(&written)?;
    let mut capabilities = written.capabilities.clone();
    capabilities.sort();
    capabilities.dedup();
    if capabilities.len() > CAPABILITIES || capabilities.iter().any(|word| !(1..=CAPABILITY).contains(&word.len())) {
        return Err(format!("capabilities: at most {CAPABILITIES} words, of 1 to {CAPABILITY} bytes"));
    }
    within("max", written.max, (0, WORKERS))?;
    if written.min > written.max {
        return Err(format!("min: {} is more than max, {}", written.min, written.max));
    }
    within("pending", written.pending, (1, PENDING))?;
    let pool = Pool {
        name: name.into(),
        min: written.min,
        max: written.max,
        idle: time("idle", &written.idle, IDLE)?,
        pending: written.pending,
        start_within: time("startWithin", &written.start_within, START)?,
        slots,
        generation: generation(&written.template, slots, &capabilities)?,
        capabilities,
    };
    Ok(File { pool, template: written.template })
}

/// What is wrong and, since it may be only "invalid u32", with what is written there.
fn unreadable(text: &str, error: &serde_saphyr::Error) -> String {
    let at = error.location().and_then(|at| text.lines().nth(usize::try_from(at.line()).ok()?.checked_sub(1)?));
    match at.map(str::trim).filter(|at| !at.is_empty()) {
        Some(at) => line(&format!("{error}: {}", cut(at, 80))),
        None => line(&error.to_string()),
    }
}

fn within(field: &str, is: u32, (least, most): (u32, u32)) -> Result<(), String> {
    match (least..=most).contains(&is) {
        true => Ok(()),
        false => Err(format!("{field}: {is} is not from {least} to {most}")),
    }
}

/// What the file says holds if the arguments say nothing that can be read, as `$(SLOTS)`; else both say the same.
fn slots(written: &Written) -> Result<u32, String> {
    let argument = written.template.spec.as_ref().and_then(pod::slots);
    let slots = match (written.slots, argument) {
        (Some(slots), Some(other)) if slots != other => {
            return Err(format!("slots: {slots} is not what --slots says in the template's arguments, {other}"));
        }
        (None, None) => return Err("slots is missing: say it here, or as --slots=N in the template's arguments".into()),
        (said, argument) => said.or(argument).unwrap_or_default(),
    };
    within("slots", slots, (1, SLOTS))?;
    Ok(slots)
}

/// A digest of all that a pod is made of. The template is written anew for it: its fields have one order, and what is not set
/// does not matter.
fn generation(template: &PodTemplateSpec, slots: u32, capabilities: &[String]) -> Result<u32, String> {
    let bytes = serde_json::to_vec(&(template, slots, capabilities)).map_err(|e| e.to_string())?;
    Ok(crc32c::crc32c(&bytes))
}

/// A time such as "90s", "5m" or "1h30m".
fn time(field: &str, text: &str, (least, most): (Duration, Duration)) -> Result<Duration, String> {
    let wrong = || format!("{field}: {text:?} is no time; write it as 90s, 5m or 1h30m");
    let mut whole = Duration::ZERO;
    let mut rest = text;
    // Units come in this order, each once.
    for (unit, seconds) in [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1_u64)] {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if let Some(after) = rest[digits..].strip_prefix(unit) {
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let more = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)?;
            whole = whole.checked_add(more).ok_or_else(wrong)?;
            rest = after;
        }
    }
    if !rest.is_empty() || text.is_empty() {
        return Err(wrong());
    }
    match (least..=most).contains(&whole) {
        true => Ok(whole),
        false => Err(format!("{field}: {text} is not from {} s to {} s", least.as_secs(), most.as_secs())),
    }
}

/// Where something was written that is not kept: a field that there is not. Values that say nothing are left out by whoever
/// writes, and are none.
fn unknown(written: &Value, kept: &Value) -> Option<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            written.iter().find_map(|(field, value)| match kept.get(field) {
                Some(kept) => unknown(value, kept).map(|path| format!(".{field}{path}")),
                None if says_nothing(value) => None,
                None => Some(format!(".{field}")),
            })
        }
        (Value::Array(written), Value::Array(kept)) => written
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(at, (value, kept))| unknown(value, kept).map(|path| format!("[{at}]{path}"))),
        _ => None,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// The files of a folder as they are written, by the pools' names. Names that begin with a dot are none: so ConfigMaps and
/// editors call what is theirs.
///
/// # Errors
/// The folder cannot be read, or has something that is no pool's file: one line, with the name.
pub fn texts(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", folder.display());
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(format!("{} has no name in UTF-8", path.display()));
        };
        if name.starts_with('.') {
            continue;
        }
        let Some(pool) = name.strip_suffix(".yaml") else {
            return Err(format!(
                "{} is no pool's file: call it POOL.yaml, or begin its name with a dot",
                path.display()
            ));
        };
        if texts.len() == FILES {
            return Err(format!("{} has more than {FILES} pools", folder.display()));
        }
        texts.insert(pool.to_string(), read(&path)?);
    }
    Ok(texts)
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() <= FILE {
        true => Ok(text),
        false => Err(format!("{} has more than {FILE} bytes", path.display())),
    }
}

/// What the files of a folder say.
///
/// # Errors
/// The first that is wrong, by name: one line.
pub fn files(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, File>, String> {
    let each = texts.iter().map(|(name, text)| match parse(name, text) {
        Ok(file) => Ok((name.clone(), file)),
        Err(wrong) => Err(format!("{name}.yaml: {wrong}")),
    });
    each.collect()
}

#[cfg(test)]
mod tests;
