//! The flags of a master that runs on Kubernetes: which pools of workers it makes, and whether it runs jobs that are objects
//! there.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use crate::cluster::pools::{Config, Owner};

const HEADING: &str = "Kubernetes";
/// What names of pods begin with, unless it is said.
const PREFIX: &str = "gristmill";
/// As whom jobs that are objects are submitted, unless it is said.
const USER: &str = "kubernetes";
/// Bytes of a label of DNS (RFC 1123).
const LABEL_BYTES: usize = 63;

/// Adds them to the command of a master.
pub(super) fn flags(command: Command) -> Command {
    let pools = Arg::new("pools").long("pools").value_name("DIR").value_parser(value_parser!(PathBuf));
    let prefix = Arg::new("pool-prefix").long("pool-prefix").value_name("NAME").requires("pools");
    let owner = Arg::new("pool-owner").long("pool-owner").value_name("KIND/NAME").requires("pools");
    let operator = Arg::new("operator").long("operator").action(ArgAction::SetTrue);
    let user = Arg::new("operator-user").long("operator-user").value_name("NAME").requires("operator");
    let namespace = Arg::new("namespace").long("namespace").value_name("NAME");
    let all = [
        pools.value_hint(ValueHint::DirPath).help(
            "Make and remove pods of workers while this master leads: each POOL.yaml in this folder is a pool; see k8s/README.md",
        ),
        prefix.default_value(PREFIX).value_parser(label).help("What names of these pods begin with"),
        owner.value_parser(owner_of).help("The object that owns these pods, as StatefulSet/gristmill: they go with it"),
        operator.help("Run jobs that are objects of Kubernetes (MapReduceJob) while this master leads"),
        user.default_value(USER)
            .value_parser(NonEmptyStringValueParser::new())
            .help("The user as whom these jobs are submitted, with that one's rights, files and quota"),
        namespace
            .value_parser(label)
            .help("The namespace of all this; by default the one of this pod, or of the kubeconfig file"),
    ];
    command.args(all.map(|arg| arg.help_heading(HEADING)))
}

/// A name of small letters, digits and dashes.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edges = [text.bytes().next(), text.bytes().last()];
    (1..=LABEL_BYTES).contains(&text.len()) && text.bytes().all(inner) && !edges.contains(&Some(b'-'))
}

fn label(text: &str) -> Result<String, String> {
    match is_label(text) {
        true => Ok(text.into()),
        false => Err(format!("it has 1 to {LABEL_BYTES} small letters, digits and dashes, as in gristmill")),
    }
}

fn owner_of(text: &str) -> Result<Owner, String> {
    let plain = |kind: &str| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric());
    let named = |name: &str| (1..=253).contains(&name.len()) && name.split('.').all(is_label);
    match text.split_once('/') {
        Some((kind, name)) if plain(kind) && named(name) => Ok(Owner { kind: kind.into(), name: name.into() }),
        _ => Err("write it as KIND/NAME, as in StatefulSet/gristmill".into()),
    }
}

/// What they say; `None`: Kubernetes is not asked for anything.
pub(super) fn config(of: &ArgMatches) -> Option<Config> {
    let text = |name| of.try_get_one::<String>(name).ok().flatten().cloned();
    let pools = of.try_get_one::<PathBuf>("pools").ok().flatten().cloned();
    let operator = of.try_get_one::<bool>("operator").ok().flatten().copied().unwrap_or_default();
    if pools.is_none() && !operator {
        return None;
    }
    Some(Config {
        namespace: text("namespace"),
        prefix: text("pool-prefix").unwrap_or_else(|| PREFIX.into()),
        pools,
        owner: of.try_get_one::<Owner>("pool-owner").ok().flatten().cloned(),
        operator: operator.then(|| text("operator-user").unwrap_or_else(|| USER.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Config>, String> {
        let command = flags(Command::new("m").no_binary_name(true));
        command.clone().debug_assert();
        let of = command.try_get_matches_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        Ok(config(&of))
    }

    #[test]
    fn a_master_that_is_told_nothing_asks_kubernetes_nothing() {
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("--namespace n").unwrap(), None);
        let config = read("--pools d --pool-owner StatefulSet/gm --namespace n").unwrap().unwrap();
        let owner = Some(Owner { kind: "StatefulSet".into(), name: "gm".into() });
        assert_eq!((config.prefix.as_str(), config.owner, config.operator), ("gristmill", owner, None));
        let config = read("--operator").unwrap().unwrap();
        assert_eq!((config.pools, config.operator.as_deref()), (None, Some("kubernetes")));
        assert_eq!(read("--operator --operator-user ann").unwrap().unwrap().operator.as_deref(), Some("ann"));
    }

    #[test]
    fn names_that_kubernetes_does_not_take_are_refused() {
        assert!(read(&format!("--pools d --pool-prefix {}", "a".repeat(64))).is_err());
        for wrong in [
            "--pool-prefix Gristmill",
            "--pools d --pool-prefix=-a",
            "--pools d --pool-prefix a_b",
            "--pools d --pool-owner gristmill",
            "--pools d --pool-owner /gristmill",
            "--pools d --pool-owner StatefulSet/",
            "--pools d --pool-owner StatefulSet/a/b",
            "--pools d --namespace N",
            "--pool-owner StatefulSet/gm",
            "--operator-user ann",
            "--operator --operator-user=",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
