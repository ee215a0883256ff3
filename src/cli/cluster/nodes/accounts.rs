//! The flags of a master about its users: whether they log in, and who is the first.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use gristmill_engine::auth::Secret;
use gristmill_engine::auth::password::{BYTES, Cost};
use gristmill_engine::node::master::Accounts;

use super::super::super::failure::Failure;
use super::super::super::sizes::Size;
use crate::cluster::boot::Access;

/// Least memory that a guess at a password costs.
const LEAST: u64 = 8 << 10;
pub(super) const HEADING: &str = "Users";

/// Adds them to a command of a master.
pub(super) fn flags(command: Command) -> Command {
    let file = |name: &'static str, help: &'static str| {
        let file = Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf));
        file.value_hint(ValueHint::FilePath).help(help).help_heading(HEADING)
    };
    #[cfg(feature = "objects")]
    let command = super::kubernetes::flags(command);
    let no_login = Arg::new("no-login").long("no-login").action(ArgAction::SetTrue).help_heading(HEADING);
    let others = ["insecure", "tls-ca", "tls-cert", "tls-key", "admin-password-file", "recover-admin"];
    command
        .arg(no_login.conflicts_with_all(others).help(
            "Answer everybody as an administrator, without login: only where the node listens on this machine alone",
        ))
        .arg(file(
            "admin-password-file",
            "The first line of this file is the first administrator's password, where there is no user yet; by default one is \
             made up and told",
        ))
        .arg(file(
            "recover-admin",
            "Set the first administrator's password to the first line of this file when this master first leads: for who lost it",
        ))
        .arg(
            Arg::new("password-cost")
                .long("password-cost")
                .value_name("MEMORY,PASSES")
                .default_value("19MiB,2")
                .value_parser(cost)
                .help("What a guess at a password costs: memory, and how often it is gone over")
                .help_heading(HEADING),
        )
}

fn cost(text: &str) -> Result<Cost, String> {
    let fail = || format!("'{text}' is no cost of passwords; write it as 19MiB,2, with at least 8KiB and 1");
    let (memory, passes) = text.split_once(',').ok_or_else(fail)?;
    let memory: Size = memory.parse()?;
    let memory_kib = u32::try_from(memory.0 >> 10).ok().filter(|_| memory.0 >= LEAST).ok_or_else(fail)?;
    let cost = Cost { memory_kib, passes: passes.parse().map_err(|_| fail())? };
    if cost.is_possible() { Ok(cost) } else { Err(fail()) }
}

/// What the flags say.
pub(super) fn access(of: &ArgMatches) -> Result<Access, Failure> {
    let login = !of.get_flag("no-login");
    let secret = |name| of.get_one::<PathBuf>(name).map(|path| password(path)).transpose();
    let accounts = Accounts {
        cost: of.get_one::<Cost>("password-cost").copied().unwrap_or_default(),
        first: login,
        password: secret("admin-password-file")?,
        reset: secret("recover-admin")?,
    };
    Ok(Access {
        login,
        accounts,
        #[cfg(feature = "objects")]
        kubernetes: super::kubernetes::config(of)?,
    })
}

/// The password that is a file's first line.
fn password(path: &Path) -> Result<Secret, Failure> {
    let failed = |source| Failure::File { action: "read", path: path.into(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut line = String::with_capacity(2 * BYTES.end());
    // One that is longer is told to be too long.
    BufReader::new(file.take(2 * *BYTES.end() as u64)).read_line(&mut line).map_err(failed)?;
    line.truncate(line.trim_end_matches(['\n', '\r']).len());
    if BYTES.contains(&line.len()) {
        return Ok(line.into());
    }
    let (path, bytes) = (path.display(), line.len());
    let what =
        format!("the first line of {path} has {bytes} bytes; a password has {} to {}", BYTES.start(), BYTES.end());
    Err(Failure::Usage(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read() {
        assert_eq!(cost("19MiB,2"), Ok(Cost::default()));
        assert_eq!(cost("8KiB,1"), Ok(Cost { memory_kib: 8, passes: 1 }));
        for not in ["", "8KiB", "7KiB,1", "8KiB,0", "8KiB,x", "99TiB,1", ",1"] {
            assert!(cost(not).is_err(), "{not}");
        }
    }

    #[test]
    fn a_password_is_a_files_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "correct horse\r\nbattery\n").unwrap();
        assert_eq!(password(&path).unwrap().expose(), "correct horse");
        for not in ["", "short\n", "x".repeat(5000).as_str()] {
            std::fs::write(&path, not).unwrap();
            assert!(password(&path).is_err(), "{not}");
        }
    }
}
