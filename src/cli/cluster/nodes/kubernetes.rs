//! The flags of a master about Kubernetes: whether tokens of its service accounts are accepted, and who reviews them.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::super::super::failure::Failure;
use super::accounts::HEADING;
use crate::cluster::kubernetes::{AUDIENCE, Config, FOLDER, api, api_of_pod};

/// Adds them to a command of a master, which has `no-login`.
pub(super) fn flags(command: Command) -> Command {
    let accept = Arg::new("kubernetes-tokens").long("kubernetes-tokens").action(ArgAction::SetTrue);
    let one = |name: &'static str, value: &'static str, help: String| {
        let one = Arg::new(name).long(name).value_name(value).requires("kubernetes-tokens");
        one.help(help).help_heading(HEADING)
    };
    let folder = format!("The folder with this node's own token, and ca.crt of the API server; by default {FOLDER}");
    command
        .arg(accept.conflicts_with("no-login").help_heading(HEADING).help(
            "Accept tokens of Kubernetes' service accounts that users are bound to (user set-account), which its API reviews",
        ))
        .arg(
            one("kubernetes-api", "URL", "The API server; by default the one that a pod is told of".into())
                .value_parser(api)
                .value_hint(ValueHint::Url),
        )
        .arg(
            one("kubernetes-folder", "DIR", folder)
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath),
        )
        .arg(
            one("kubernetes-audience", "NAME", format!("For whom such tokens must be; by default {AUDIENCE}"))
                .value_parser(NonEmptyStringValueParser::new()),
        )
}

/// What they say; `None`: such tokens are not accepted.
pub(super) fn config(of: &ArgMatches) -> Result<Option<Config>, Failure> {
    if !of.get_flag("kubernetes-tokens") {
        return Ok(None);
    }
    let text = |name| of.get_one::<String>(name).cloned();
    let nowhere = || {
        Failure::Usage(
            "no variable says where the API of Kubernetes is, as in a pod; say so with --kubernetes-api".to_string(),
        )
    };
    let found = text("kubernetes-api").or_else(|| api_of_pod(|name| std::env::var(name).ok()));
    let config = Config {
        api: found.ok_or_else(nowhere)?,
        folder: of.get_one::<PathBuf>("kubernetes-folder").cloned().unwrap_or_else(|| FOLDER.into()),
        audience: text("kubernetes-audience").unwrap_or_else(|| AUDIENCE.into()),
    };
    // Better told now than to the first who comes with such a token.
    config.check().map_err(|(path, source)| Failure::File { action: "read", path, source })?;
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Config>, String> {
        let no_login = Arg::new("no-login").long("no-login").action(ArgAction::SetTrue);
        let command = flags(Command::new("m").no_binary_name(true).arg(no_login));
        let of = command.try_get_matches_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        config(&of).map_err(|e| e.to_string())
    }

    #[test]
    fn tokens_of_kubernetes_are_accepted_where_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let of = folder.path().display();
        assert!(read("").unwrap().is_none());
        let line = format!("--kubernetes-tokens --kubernetes-api https://k8s:6443/ --kubernetes-folder {of}");
        assert!(read(&line).unwrap_err().contains("token"), "there is no such file");
        for name in ["token", "ca.crt"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let config = read(&line).unwrap().unwrap();
        assert_eq!(
            (&*config.api, &*config.folder, &*config.audience),
            ("https://k8s:6443", folder.path(), "gristmill")
        );
        for wrong in [
            "--kubernetes-audience x",
            "--kubernetes-api https://k8s",
            "--kubernetes-tokens --no-login",
            "--kubernetes-tokens --kubernetes-api http://k8s",
            "--kubernetes-tokens --kubernetes-api https://k8s --kubernetes-audience=",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
